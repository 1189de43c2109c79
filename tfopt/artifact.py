"""The artifact: a written file or folder, and beside it the record of what it is and how it was verified."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator

from tfopt.errors import ConfigError, DataError

__all__ = [
    "Artifact",
    "TensorSpec",
    "check_file_path",
    "content_sha256",
    "content_size_bytes",
    "library_versions",
    "record_path",
    "write_artifact",
    "write_whole",
]


Kind = Literal["tflite", "saved_model", "onnx"]
_LIBRARIES = {"onnx": ("tf2onnx", "onnx", "onnxruntime")}
"""Those that decide beside the common ones what an artifact of a kind holds."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the user's share of it is, or the largest size that a process may write is reached."""


class TensorSpec(BaseModel):
    """One input or output: its name, shape (None for the batch), dtype, and int8 grid where it has one.

    A real value is `scale * (q - zero_point)`; both are None for a float tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class Artifact(BaseModel):
    """What an exporter returns: where the file is, what it holds, and what verification measured.

    The record is written beside the file as `NAME.artifact.json` (`artifact.json` inside a folder), so that
    an artifact can be moved, checked and benchmarked without the model it came from.

    Args:
        path: the file (.tflite, .onnx) or the folder (a TF Serving model).
        kind: "tflite", "saved_model" or "onnx".
        size_bytes: bytes of the file, or of all files of the folder.
        sha256: digest of the content.
        inputs: the input tensors, in order.
        outputs: the output tensors, in order.
        recipe: how it was made, as `tfopt.recipe.Recipe` reads it.
        versions: the libraries that made it.
        verification: what the comparison with Keras measured.
        layers: for each operator of a .tflite, in the order of `tfopt.export.tflite_file.read_tflite`, the Keras layers
            it computes, as "block/conv" where models are nested; several where the converter fused them, none where
            it only converts an input or output; empty where they are not known. In the record an operator's layers
            are one text, with ";" in between.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "model.tflite")
        ...     _ = path.write_bytes(b"TFL3")
        ...     artifact = Artifact.of(path, kind="tflite", inputs=(), outputs=())
        ...     _ = artifact.save()
        ...     Artifact.load(path).size_bytes
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    kind: Kind
    size_bytes: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    verification: dict[str, Any] = {}
    layers: tuple[tuple[str, ...], ...] = ()

    @field_validator("layers", mode="before")
    @classmethod
    def _split(cls, layers: Any) -> Any:
        return [one.split(";") if one else () for one in layers] if _are_texts(layers) else layers

    @field_serializer("layers")
    def _join(self, layers: tuple[tuple[str, ...], ...]) -> list[str]:
        return [";".join(names) for names in layers]

    @classmethod
    def of(cls, path: Path, *, kind: Kind, **fields: Any) -> Artifact:
        """Describes what lies at `path`: its size, digest and today's library versions are filled in."""
        return cls(
            path=path,
            kind=kind,
            size_bytes=content_size_bytes(path),
            sha256=content_sha256(path),
            versions=library_versions(kind),
            **fields,
        )

    @property
    def record_path(self) -> Path:
        """Where `save` writes the record."""
        return record_path(self.path)

    def save(self) -> Path:
        """Writes the record beside the file and returns where."""
        with write_whole(self.record_path) as temporary:
            temporary.write_text(self.to_record())
        return self.record_path

    def to_record(self) -> str:
        """The record as JSON; the path stays out, since it is known from where the record lies."""
        return self.model_dump_json(indent=2, exclude={"path"}) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Artifact:
        """Reads the record that lies beside `path` and checks that the content is still what it describes.

        Raises:
            DataError: if there is no record, it is not readable, or the content has changed since.
        """
        path = Path(path)
        record = record_path(path)
        try:
            artifact = cls.model_validate({**_read_json(record), "path": path})
        except (OSError, ValueError, RecursionError) as error:  # a ValidationError is a ValueError
            raise DataError(f"Artifact.load: expected the record of {path} in {record}. Received: {error}") from None
        if not path.exists():
            raise DataError(f"Artifact.load: {path} does not exist, though its record {record.name} does.")
        if content_sha256(path) != artifact.sha256:
            raise DataError(
                f"Artifact.load: {path} has changed since {record.name} was written (its sha256 differs). "
                "Export it again."
            )
        return artifact

    def __str__(self) -> str:
        sizes = f"{self.size_bytes:,} bytes"
        tensors = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in (*self.inputs, *self.outputs))
        measured = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.verification.items()
        )
        return f"{self.kind} {self.path} ({sizes})\n  tensors: {tensors}\n  verified: {measured or 'no'}"


def _are_texts(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)


def record_path(path: Path) -> Path:
    """Where the record of an artifact lies: inside a folder, beside a file."""
    return path / "artifact.json" if path.is_dir() else path.with_suffix(".artifact.json")


def _read_json(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise ValueError("the record is not a JSON object")
    return record


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and p.name != "artifact.json")
    return [path]


def content_size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files of a folder (without the record itself)."""
    return sum(file.stat().st_size for file in _files(path))


def content_sha256(path: Path) -> str:
    """Digest of a file's bytes, or of a folder's relative names and bytes."""
    digest = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()


def library_versions(kind: Kind | None = None) -> dict[str, str]:
    """The libraries that decide what an artifact holds; without a kind, those common to all."""
    common = ("tfopt", "tensorflow", "keras", "ai-edge-litert", "numpy")
    return {name: version(name) for name in (*common, *_LIBRARIES.get(kind or "", ()))}


def check_file_path(path: str | Path, suffix: str, *, exporter: str) -> Path:
    """The path of a file to write.

    Args:
        path: what the user gave.
        suffix: what it must end in.
        exporter: what the message begins with.

    Raises:
        ConfigError: if it ends in something else, or is a folder.

    Example:
        >>> check_file_path("model.bin", ".onnx", exporter="export_onnx")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: export_onnx: the path must be that of a file ending in .onnx. Received: model.bin.
    """
    path = Path(path)
    if path.suffix != suffix or path.is_dir():
        raise ConfigError(f"{exporter}: the path must be that of a file ending in {suffix}. Received: {path}.")
    return path


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed to `path` when the block ends and removed when it fails.

    So a reader sees the whole content or none. Parent folders that were created are removed again when the
    block fails; what a killed process left behind is removed by the next write to the same path.

    Args:
        path: the file or folder to write; missing parent folders are created. An existing file is replaced,
            an existing folder is not.

    Raises:
        ConfigError: if the place cannot be written, or has no space left for what the block writes.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_whole(f"{folder}/new/a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     Path(folder, "new", "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    created = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.partial")
        for neighbour in list(path.parent.iterdir()):
            if (match := partial.fullmatch(neighbour.name)) and not _is_running(int(match[1])):
                _remove(neighbour)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(13, "Permission denied", str(path.parent))
    except OSError as error:
        _remove_empty(created)
        raise ConfigError(
            f"Cannot write {path}: expected a folder that can be created and written. Received: {error}. "
            "Choose another place."
        ) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        _remove_empty(created)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise ConfigError(
                f"Cannot write {path}: expected free space in {path.parent}, and in {tempfile.gettempdir()} for "
                f"temporary files. Received: {error}. Nothing was written: free some space, or choose another place."
            ) from error
        raise


@contextmanager
def write_artifact(path: Path) -> Iterator[Callable[[Artifact], Artifact]]:
    """Opens the place of a file and its record, and yields what writes both: they appear when the block ends.

    The record is renamed last, so that it never runs ahead of its file; when the block fails, neither appears. Further
    files of the artifact are written by `write_whole` within the block, and are there before it.

    Args:
        path: the file to write, as `check_file_path` returns it.

    Yields:
        A function of the artifact as it was made, at another place; it returns the one at `path`.

    Raises:
        ConfigError: if the place cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made, path = Path(folder, "made.tflite"), Path(folder, "model.tflite")
        ...     _ = made.write_bytes(b"TFL3")
        ...     with write_artifact(path) as write:
        ...         artifact = write(Artifact.of(made, kind="tflite", inputs=(), outputs=()))
        ...     Artifact.load(path) == artifact
        True
    """
    with write_whole(record_path(path)) as record, write_whole(path) as file:

        def write(made: Artifact) -> Artifact:
            shutil.copyfile(made.path, file)
            record.write_text(made.to_record())
            return made.model_copy(update={"path": path})

        yield write


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it was not created, or is in use
            return


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
