"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a package that is light although its names need TensorFlow.

    Args:
        package: its name.
        homes: the module that each name is in, or its own module for a name that is a module.

    Example:
        >>> find = lazy_names("tfopt.compression", {"entropy_bits": "tfopt.compression.coding"})
        >>> find("entropy_bits").__name__
        'entropy_bits'

    References: PEP 562.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module = import_module(homes[name])
        value = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return find
