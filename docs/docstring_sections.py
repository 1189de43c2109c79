"""How mkdocstrings reads tfopt's sources: titles of sections in docstrings, and the linked folder of callbacks."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["DocstringSections"]

OWN_TITLES = re.compile(r"^(Shapes|References|Logs):(?=\s)", re.MULTILINE)


class DocstringSections(griffe.Extension):
    """Rewrites titles that griffe's parser of Google style does not know, and finds what it does not look for."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Makes of "Example:" a section of code, and other titles bold; griffe calls it for each object."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = OWN_TITLES.sub(r"**\1:**", text)

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Puts callbacks into the package: griffe follows no links to folders (docs/adr/0001)."""
        if pkg.name == "tfopt":
            callbacks = loader.load("callbacks")
            pkg.set_member("callbacks", callbacks)
