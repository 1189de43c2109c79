"""The folder of a run: what was made of one model and its data, where a run that goes on finds it again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfopt.artifact import record_path, write_whole

__all__ = ["TrialFolder", "digest", "remove"]


@dataclass(frozen=True)
class TrialFolder:
    """Records, values and trained models, each with the key of what it was made of.

    Args:
        path: where they lie.
        origin: a digest of the model, the data and how it is scored.
    """

    path: Path
    origin: bytes

    def key(self, *parts: str) -> str:
        """What belongs together has the same."""
        return digest(self.origin, *(part.encode() for part in parts)).hex()

    def file(self, name: str, suffix: str) -> Path:
        """Where something of that name lies."""
        return self.path / (re.sub(r"[^\w.-]+", "_", name) + suffix)

    def record(self, name: str, key: str) -> dict[str, Any] | None:
        """What was noted under a name, or None where it belongs to something else or cannot be read."""
        try:
            found = json.loads(self.file(name, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

    def note(self, name: str, key: str, fields: dict[str, Any]) -> None:
        """Writes numbers and texts under a name."""
        with write_whole(self.file(name, ".json")) as temporary:
            temporary.write_text(json.dumps({"key": key, **fields}, indent=1) + "\n", encoding="utf-8")

    def value(self, name: str, *parts: object, compute: Callable[[], Any]) -> Any:
        """A value of numbers and texts that was computed before, or now is.

        Args:
            name: of its file.
            parts: what it depends on beside model and data.
            compute: gives it.
        """
        key = self.key(name, *map(str, parts))
        known = self.record(name, key)
        if known is None:
            known = {"value": compute()}
            self.note(name, key, known)
        return known["value"]

    def model(self, *parts: str, make: Callable[[], keras.Model]) -> keras.Model:
        """A model that was trained before, or now is.

        Args:
            parts: what it depends on beside model and data.
            make: gives it.
        """
        path = self.path / f"{self.key(*parts)[:16]}.keras"
        if not path.exists():
            made = make()
            with write_whole(path) as temporary:
                # Keras takes the format from the suffix, which a temporary name does not have.
                made.save(temporary.with_suffix(".keras"))
                temporary.with_suffix(".keras").rename(temporary)
        # Read in any case, so that a run that goes on has the very same model.
        return keras.models.load_model(path, compile=False)


def digest(*parts: bytes) -> bytes:
    """Of several parts, such that none can pass for a piece of its neighbour."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()


def remove(path: Path) -> None:
    """Takes a file or folder away with its record."""
    for one in (record_path(path), path):
        if one.is_dir():
            shutil.rmtree(one)
        elif one.exists():
            one.unlink()
