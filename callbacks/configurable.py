"""Callbacks that can be written down: the arguments they were made with, as values that JSON knows."""

from __future__ import annotations

import inspect
from os import PathLike, fspath
from typing import Any, Self

import keras

from tfopt.errors import ConfigError
from tfopt.schedules import Formula

__all__ = ["Configurable"]

keras.saving.register_keras_serializable(package="tfopt")(Formula)


class Configurable:
    """Remembers the arguments of a constructor, for `get_config` and `from_config`.

    Example:
        >>> class Counter(Configurable, keras.callbacks.Callback):
        ...     def __init__(self, start: int, *, by: int = 1) -> None:
        ...         super().__init__()
        >>> Counter(3).get_config()
        {'start': 3}
        >>> Counter.from_config({"start": 3, "by": 2}).get_config()
        {'start': 3, 'by': 2}
    """

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the arguments before the constructor reads them."""
        instance = super().__new__(cls)
        # Partial: copy and pickle come by here without arguments, and the constructor itself names a missing one.
        bound = inspect.signature(cls.__init__).bind_partial(instance, *args, **kwargs)
        instance._arguments = dict(list(bound.arguments.items())[1:])
        return instance

    def get_config(self) -> dict[str, Any]:
        """The arguments that were given.

        Raises:
            ConfigError: if one has no written form, such as a lambda.
        """
        return {name: self._written(name, value) for name, value in self._arguments.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new callback with the arguments that `get_config` returned."""
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    def _written(self, name: str, value: Any) -> Any:
        if isinstance(value, PathLike):
            return fspath(value)
        try:
            # Keras writes down any function, but reads back only those it was told of.
            if not callable(value) or hasattr(value, "get_config") or _is_registered(value):
                return keras.saving.serialize_keras_object(value)
        except (AttributeError, TypeError, ValueError):
            pass
        raise ConfigError(
            f"{type(self).__name__}: {name} cannot be written down. Received: {value!r}. Give a name, a schedule of "
            "tfopt.schedules, or a function registered with keras.saving.register_keras_serializable."
        )


def _is_registered(function: Any) -> bool:
    return keras.saving.get_registered_object(keras.saving.get_registered_name(function)) is function
