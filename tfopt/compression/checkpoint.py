"""A model in one small file: the .keras archive with its weights coded, restored bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from tfopt.artifact import write_whole
from tfopt.compression.coding import decode_array, encode_array
from tfopt.compression.coding_report import CodedCheckpoint, CodedWeight
from tfopt.errors import ConfigError, DataError, ModelError, first_line
from tfopt.surgery.model import check_model

__all__ = ["load_coded", "save_coded"]

MAGIC = b"TFOPTCKP"
FORMAT_VERSION = 1
# Behind it: the length of the compressed header, the header, and the parts that it lists.
_START = struct.Struct("<8sH32s")  # magic, format version, sha256 of the rest
_HEADER_LENGTH = struct.Struct("<I")
_WEIGHTS = "model.weights.h5"
_UNREADABLE = (
    struct.error,
    zlib.error,
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,
)
"""What parts that do not go together lead to, in the header, in HDF5 and in the archive."""


def save_coded(model: keras.Model, path: str | Path) -> CodedCheckpoint:
    """Writes a model into one file, with each weight in the least bytes that `tfopt.compression.coding` finds for it.

    Use it to store or send a pruned and clustered model: the third stage of Deep Compression, after
    `tfopt.callbacks.MagnitudePruning` and `tfopt.cluster`. Weights that were not compressed take as much as ever.
    Everything that a .keras file holds is kept (architecture, weights, vocabularies), except how the model was
    compiled and the state of its optimizer. The file holds no code of Python.

    Args:
        model: a built model that `model.save` can write.
        path: the file; missing folders are created, and an existing file is replaced once the new one is whole.

    Returns:
        What the file is, with a row for each weight; print it.

    Raises:
        ConfigError: if the place cannot be written.
        ModelError: if the model is not a built Keras 3 model, has NaN weights, or Keras cannot save it.

    Example:
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu", name="hidden")])
        >>> kernel = model.layers[0].kernel
        >>> kernel.assign(np.sign(kernel) * (np.abs(kernel) > 0.1)) is not None
        True
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = save_coded(model, f"{folder}/model.coded")
        ...     restored = load_coded(written.path)
        >>> written.ratio > 8, np.array_equal(restored.layers[0].kernel, kernel)
        (True, True)

    References: Han et al. 2016, arXiv:1510.00149.
    """
    check_model(model)
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"save_coded: expected the path of a file. Received: {path}, which is a folder.")
    weights = tuple(CodedWeight.of(weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights)
    header, parts = _archive_parts(model)
    packed = zlib.compress(json.dumps(header).encode(), 9)
    body = b"".join([_HEADER_LENGTH.pack(len(packed)), packed, *parts])
    start = _START.pack(MAGIC, FORMAT_VERSION, hashlib.sha256(body).digest())
    with write_whole(path) as temporary:
        temporary.write_bytes(start + body)
    return CodedCheckpoint(path, len(start) + len(body), weights)


def load_coded(path: str | Path) -> keras.Model:
    """Restores the model that `save_coded` wrote, not compiled; its weights are bit for bit the same.

    Layers that are not Keras's own must be registered with `keras.saving.register_keras_serializable`; for a
    quantize-aware model, `import tfopt.quantization` does that.

    Raises:
        DataError: if the file is missing, of another kind, of a newer format, or damaged.
        ModelError: if Keras cannot build the model, as where a layer is not registered.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     restored = load_coded(save_coded(model, f"{folder}/model.coded").path)
        >>> bool(np.array_equal(restored.get_weights()[0], model.get_weights()[0]))
        True
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"load_coded: expected a file that save_coded wrote. Received: {path} ({error}).") from None
    if not data.startswith(MAGIC):
        raise DataError(
            f"load_coded: {path} is not a coded checkpoint: it does not begin with {MAGIC.decode()}. "
            "Give a file that save_coded wrote; tfopt.inspect and keras.models.load_model read the other kinds."
        )
    body = data[_START.size :]
    _, version, digest = _START.unpack(data[: _START.size].ljust(_START.size, b"\0"))
    if len(data) >= _START.size and version != FORMAT_VERSION:
        raise DataError(
            f"load_coded: expected format version {FORMAT_VERSION}. Received: {version} in {path}. "
            "Use the version of tfopt that wrote the file."
        )
    if hashlib.sha256(body).digest() != digest:
        raise DataError(f"load_coded: {path} is damaged: its sha256 is not the one it was written with. Copy it again.")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "model.keras")
        try:
            [length] = _HEADER_LENGTH.unpack_from(body)
            parts = body[_HEADER_LENGTH.size :]
            _write_archive(archive, json.loads(zlib.decompress(parts[:length])), parts[length:])
        except DataError:
            raise
        except _UNREADABLE as error:  # its digest is right: it was made to be so
            raise DataError(
                f"load_coded: {path} holds no model that save_coded wrote ({type(error).__name__}: {error})."
            ) from None
        try:
            return keras.saving.load_model(archive, compile=False)
        except Exception as error:  # whatever a layer raises that cannot be built from its config
            raise ModelError(
                f"load_coded: Keras {keras.__version__} cannot build the model of {path}. Register its own layers with "
                f"keras.saving.register_keras_serializable before. Keras says: {first_line(error)}"
            ) from error


def _archive_parts(model: keras.Model) -> tuple[dict[str, Any], list[bytes]]:
    """Reads what Keras saves: the header says where each part belongs and how long it is."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "model.keras")
        try:
            model.save(saved)
        except Exception as error:  # whatever a layer raises that cannot be saved
            raise ModelError(
                f"save_coded: Keras cannot save the model '{model.name}'. It says: {first_line(error)}"
            ) from error
        with zipfile.ZipFile(saved) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    config = json.loads(files.pop("config.json"))
    config.pop("compile_config", None)
    header: dict[str, Any] = {"config": config, "groups": {}, "weights": [], "files": []}
    parts: list[bytes] = []
    with h5py.File(io.BytesIO(files.pop(_WEIGHTS))) as store:

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if name.partition("/")[0] == "optimizer":
                return
            attributes = {key: _plain(value) for key, value in item.attrs.items()}
            if isinstance(item, h5py.Group):
                header["groups"][name] = attributes
            else:
                parts.append(encode_array(item[()]))
                header["weights"].append([name, attributes, len(parts[-1])])

        store.visititems(visit)
    for name, content in files.items():
        parts.append(zlib.compress(content, 9))
        header["files"].append([name, len(parts[-1])])
    return header, parts


def _write_archive(path: Path, header: dict[str, Any], parts: bytes) -> None:
    reader = io.BytesIO(parts)
    weights = io.BytesIO()
    with h5py.File(weights, "w") as store:
        for name, attributes in header["groups"].items():
            store.require_group(name).attrs.update(attributes)
        for name, attributes, size_bytes in header["weights"]:
            store.create_dataset(name, data=decode_array(reader.read(size_bytes))).attrs.update(attributes)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(header["config"]))
        archive.writestr(_WEIGHTS, weights.getvalue())
        for name, size_bytes in header["files"]:
            archive.writestr(name, zlib.decompress(reader.read(size_bytes)))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
