"""Which names of tfopt are public: those in `__all__` of a package, and its errors."""

from __future__ import annotations

import configparser
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def public_modules() -> list[str]:
    """The packages that say what is public in them, and the module of errors."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    packages = [name for name in parser["options"]["packages"].split() if hasattr(import_module(name), "__all__")]
    return [*packages, "tfopt.errors"]


def public_names() -> dict[str, object]:
    """Each public function, class and type by its dotted names, modules left out."""
    return {
        f"{module}.{name}": value
        for module in public_modules()
        for name in import_module(module).__all__
        if not isinstance(value := getattr(import_module(module), name), ModuleType)
    }
