"""What is to be measured: names and paths, checked before anything runs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tfopt.artifact import Artifact, record_path
from tfopt.benchmark.saved_model import model_files
from tfopt.errors import ConfigError
from tfopt.model_folder import newest_version

__all__ = ["XNNPACK_CHOICES", "Candidate", "candidates", "gzip_bytes", "with_xnnpack"]

XNNPACK_CHOICES = ("on", "off", "both")
KINDS: dict[str, Literal["tflite", "onnx"]] = {".tflite": "tflite", ".onnx": "onnx"}
WANTED = "benchmark: expected a .tflite or .onnx file or a SavedModel folder. Received: "

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Candidate:
    """A file to measure: its name, where it is, and what its exporter wrote about it.

    Args:
        name: how the report calls it.
        path: the file, or the folder of a SavedModel.
        kind: what it is.
        record: that of an artifact.
        xnnpack: whether XNNPACK runs it, if it is a .tflite.
    """

    name: str
    path: Path
    kind: Literal["tflite", "saved_model", "onnx"]
    record: Artifact | None
    xnnpack: bool = True

    @property
    def files(self) -> list[Path]:
        """The files that are deployed."""
        return model_files(self.path) if self.kind == "saved_model" else [self.path]


def candidates(artifacts: object) -> list[Candidate]:
    """Names what `benchmark` was given and finds out what each is.

    Raises:
        ConfigError: if there is nothing, a path does not exist or is neither a .tflite or .onnx file nor a SavedModel,
            or two have the same name.
        DataError: if an artifact's content differs from its record.
    """
    if isinstance(artifacts, Mapping):
        found = [_candidate(item, str(name)) for name, item in artifacts.items()]
    elif isinstance(artifacts, Sequence) and not isinstance(artifacts, str):
        found = [_candidate(item, None) for item in artifacts]
    else:
        found = [_candidate(artifacts, None)]
    if not found:
        raise ConfigError("benchmark: expected at least one artifact or path. Received: none.")
    names = [candidate.name for candidate in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"benchmark: expected a different name for each file. Received several named "
            f"{', '.join(repeated)}. "
            'Name them: benchmark({"float32": PATH, "int8": PATH}).'
        )
    return found


def with_xnnpack(chosen: Sequence[Candidate], choice: str) -> list[Candidate]:
    """The candidates to measure for a choice of XNNPACK; other files than .tflite stay as they are.

    Args:
        chosen: the candidates.
        choice: "on"; "off", which times TFLite's own kernels; or "both", which puts every .tflite there twice, so that
            they are timed in turns.

    Raises:
        ConfigError: if there is no such choice.

    Example:
        >>> file = Candidate("int8", Path("int8.tflite"), "tflite", None)
        >>> [(one.name, one.xnnpack) for one in with_xnnpack([file], "both")]
        [('int8', True), ('int8, without XNNPACK', False)]
    """
    if choice not in XNNPACK_CHOICES:
        raise ConfigError(f"benchmark: xnnpack must be one of {', '.join(XNNPACK_CHOICES)}. Received: {choice!r}.")
    found = []
    for one in chosen:
        if one.kind != "tflite" or choice != "off":
            found.append(one)
        if one.kind == "tflite" and choice != "on":
            found.append(
                replace(one, name=one.name if choice == "off" else f"{one.name}, without XNNPACK", xnnpack=False)
            )
    return found


def _candidate(item: object, name: str | None) -> Candidate:
    if not isinstance(item, (Artifact, str, Path)):
        raise ConfigError(
            f"benchmark: expected an artifact or a path. Received: {type(item).__name__}. "
            "Export a model first: tfopt.export_tflite, tfopt.export_onnx or tfopt.export_serving."
        )
    given = item.path if isinstance(item, Artifact) else Path(item)
    if not given.exists():
        raise ConfigError(f"{WANTED}{given}, which does not exist.")
    # Read again even from an artifact in hand: the file may have changed since it was made.
    record = Artifact.load(given) if record_path(given).exists() else item if isinstance(item, Artifact) else None
    if given.is_file():
        if given.suffix not in KINDS:
            raise ConfigError(f"{WANTED}{given}. Export it first: tfopt.export_tflite or tfopt.export_onnx.")
        return Candidate(name or given.stem, given, KINDS[given.suffix], record)
    path = newest_version(given)
    if path is None:
        raise ConfigError(f"{WANTED}{given}, a folder without saved_model.pb and without numbered versions.")
    numbered = given.name.isdecimal()
    return Candidate(
        name or (f"{given.parent.name}/{given.name}" if numbered else given.name), path, "saved_model", record
    )


def gzip_bytes(files: Sequence[Path]) -> int:
    """Bytes of the files' content one after the other, compressed by gzip at level 9."""
    compressor = zlib.compressobj(level=9, wbits=31)  # 31: gzip's own framing
    size = 0
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                size += len(compressor.compress(chunk))
    return size + len(compressor.flush())
