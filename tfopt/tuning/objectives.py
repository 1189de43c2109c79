"""Whether a logged value is to be small or large."""

from __future__ import annotations

from tfopt.errors import ConfigError
from tfopt.tuning.median_stopping import Direction

__all__ = ["direction_of"]

_KNOWN: dict[str, Direction] = {
    "loss": "min",
    "accuracy": "max",
    "auc": "max",
    "mae": "min",
    "mse": "min",
    "mean_absolute_error": "min",
}


def direction_of(verb: str, name: str, direction: Direction | None) -> Direction:
    """The direction that is given, or else known.

    Args:
        verb: whose argument it is, for the error.
        name: of the logged value, such as "val_accuracy".
        direction: "min", "max", or None for what is known.

    Raises:
        ConfigError: if it is another, or None is given and the value is not known.

    Example:
        >>> direction_of("tune", "val_accuracy", None)
        'max'
    """
    if direction not in (None, "min", "max"):
        raise ConfigError(f"{verb}: direction must be 'min' or 'max', or None. Received: {direction!r}.")
    found = direction or _KNOWN.get(name.removeprefix("val_"))
    if found is None:
        raise ConfigError(
            f"{verb}: whether '{name}' is to be small or large is not known: pass direction='min' or 'max'."
        )
    return found
