"""Model files of tf_keras: read, and written anew for Keras 3."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from tfopt.artifact import check_file_path, write_whole
from tfopt.errors import ConfigError, ModelError, first_line
from tfopt.interop.legacy import import_tf_keras, tfmot_objects
from tfopt.interop.migration import Migration, migrate

__all__ = ["load_tf_keras", "migrate_file"]


def migrate_file(path: str | Path, out: str | Path) -> Migration:
    """Writes a saved tf_keras model as a .keras file of Keras 3; the file is there whole or not at all.

    Args:
        path: a .h5, .hdf5 or .keras file, or a SavedModel folder, that tf_keras wrote; with layers of tfmot or without.
        out: the .keras file to write.

    Raises:
        ConfigError: if `out` is not the name of a .keras file, is `path` itself, or cannot be written.
        ModelError: if tf_keras cannot load the model, or it has no translation.
    """
    path, out = Path(path), check_file_path(out, ".keras", exporter="migrate")
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError(f"migrate: the new file must have another name than the old one. Received: {out} for both.")
    migration = migrate(load_tf_keras(path))
    with write_whole(out) as temporary:
        # Keras takes the format from the suffix, which a temporary name does not have.
        migration.model.save(temporary.with_suffix(".keras"))
        temporary.with_suffix(".keras").rename(temporary)
    return migration


def load_tf_keras(path: str | Path) -> Any:
    """Loads a model that tf_keras saved, with layers of tfmot or without.

    Code from within a file is never run: a file with a Lambda layer is refused.

    Raises:
        ModelError: if there is no such file, it is damaged, of another format, of Keras 3, or has a Lambda layer.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"No model at {path}: it does not exist. Give a .h5 or .keras file, or a SavedModel folder.")
    if path.is_file() and path.suffix not in {".h5", ".hdf5", ".keras"}:
        raise ModelError(f"Expected a model of tf_keras (.h5, .hdf5, .keras or a SavedModel folder). Received: {path}.")
    if path.is_dir() and not (path / "keras_metadata.pb").exists():
        raise ModelError(
            f"Expected a SavedModel that tf_keras wrote. Received: {path}, a folder without keras_metadata.pb: it "
            "holds operations, but not the layers that they came from. Take the .h5 or .keras file of the model."
        )
    tf_keras = import_tf_keras()
    version, config = "", ""
    try:
        version, config = _described(path)
        if version.startswith("3"):
            raise ModelError(
                f"{path} is a file of Keras {version}: it needs no migration. tfopt's commands take it as it is."
            )
        with tfmot_objects():
            return tf_keras.models.load_model(path, compile=False, custom_objects={"Lambda": _RefusedLambda})
    except ModelError:
        raise
    except Exception as error:  # tf_keras raises whatever the damaged part raises: zip, h5py, JSON, TypeError
        if path.suffix == ".keras" and '"QuantizeLayer"' in config:
            raise ModelError(
                f"tf_keras {tf_keras.__version__} cannot load {path}: it does not read the .keras files that it writes "
                "of quantize-aware models. Where the model was made, save it as .h5 instead."
            ) from error
        raise ModelError(
            f"tf_keras {tf_keras.__version__} cannot load {path}: the file is damaged, or it has layers of your own. "
            "Load those with tf_keras.models.load_model(path, custom_objects=...), and pass the model to "
            f"tfopt.from_tf_keras. tf_keras says: {first_line(error)}"
        ) from error


class _RefusedLambda:
    """Takes the place of tf_keras's Lambda, whose config holds code."""

    @classmethod
    def from_config(cls, config: dict[str, Any], **_: Any) -> Any:
        raise ModelError(
            f"The file has a Lambda layer '{config.get('name')}', whose code is in the file: loading it would run that "
            "code. Put a layer class in its place, and pass the model itself to tfopt.from_tf_keras."
        )


def _described(path: Path) -> tuple[str, str]:
    """The version of Keras that wrote a model, and its config as text, read without building anything."""
    if path.is_dir():
        return "", ""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("metadata.json"))["keras_version"], archive.read("config.json").decode()
    with h5py.File(path) as file:
        return _text(file.attrs.get("keras_version", "")), _text(file.attrs["model_config"])


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
