"""The folder TF Serving loads: a verified SavedModel, its warm-up requests, and the server's two files."""

from __future__ import annotations

import re
from pathlib import Path

import keras
from rich.console import Console

from tfopt.artifact import Artifact, write_whole
from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError
from tfopt.export.saved_model import input_specs, write_saved_model
from tfopt.export.signature import SIGNATURE
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.models_config import with_model
from tfopt.serving.warmup import replay_warmup_requests, write_warmup_requests
from tfopt.surgery.model import check_model

__all__ = ["export_serving", "next_version"]

BATCHING_FILE = "batching_parameters.txt"
MODELS_FILE = "models.config"
LARGEST_VERSION = 2**63 - 1


def export_serving(
    model: keras.Model,
    directory: str | Path,
    *,
    name: str | None = None,
    version: int = 1,
    batching: BatchingParameters | None = None,
    data: Samples | None = None,
    base_path: str = "/models",
) -> Artifact:
    r"""Writes a model as a folder that TF Serving loads, and checks that it answers as Keras does.

    Use it for every model that goes to a TF Serving fleet; further models and versions go into the same
    directory. What is written:

        DIRECTORY/models.config                 which models the server loads
        DIRECTORY/batching_parameters.txt       how it batches, all models alike
        DIRECTORY/NAME/VERSION/                 the artifact, renamed into place when it is whole
            saved_model.pb, variables/
            assets.extra/tf_serving_warmup_requests
            artifact.json

    Start a server on it:

        tensorflow_model_server --port=8500 --rest_api_port=8501 \
            --model_config_file=DIRECTORY/models.config \
            --enable_batching=true --batching_parameters_file=DIRECTORY/batching_parameters.txt

    where it sees DIRECTORY as `base_path`; or without batching, by leaving out the last line.

    Args:
        model: a built Sequential or Functional model of Keras 3, quantize-aware or not.
        directory: the folder of the server; created where it is missing.
        name: the model's name in requests (letters, digits, `_`, `.`, `-`); default: `model.name`.
        version: at least 1. A version never changes once it is written: servers may have loaded it.
        batching: default: what the directory's batching_parameters.txt says, or `BatchingParameters()` where
            there is none.
        data: samples for the check and the warm-up requests, as `tfopt.data.check_samples` takes them;
            default: made-up ones within [0, 1].
        base_path: DIRECTORY as the server sees it, an absolute path or a URI. In TF Serving's container image
            models are mounted at /models; for a server on this machine give `directory` itself.

    Returns:
        The artifact of the version folder: `Artifact.load` reads it back.

    Raises:
        ModelError: if the model is not one that can be served.
        DataError: if the data does not fit the model.
        ConfigError: if the name or version is not usable, the version exists, the directory cannot be
            written, or the batching does not suit the models that are there.
        ExportError: if the SavedModel disagrees with Keras, or a warm-up request fails. Nothing is left
            behind.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = export_serving(model, folder, name="ranker")
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['batching_parameters.txt', 'models.config', 'ranker']
        >>> artifact.outputs[0].name
        'score'

    References: tensorflow.org/tfx/serving/serving_config; keras.io/api/models/model_saving_apis/export.
    """
    check_model(model)
    directory = Path(directory)
    name = _checked_name(model.name if name is None else name)
    folder = directory / name / str(_checked_version(version))
    if folder.exists():
        raise ConfigError(
            f"export_serving: version {version} of '{name}' exists in {directory}; servers may have loaded "
            f"it. Choose version={next_version(folder.parent)}."
        )
    inputs = input_specs(model)
    parameters = _batching(directory, batching)
    models_text = with_model(_read(directory / MODELS_FILE), name=name, base_path=f"{base_path.rstrip('/')}/{name}")
    sizes = parameters.warmup_batch_sizes
    samples = None
    if data is not None:  # read once: it may be a long tf.data.Dataset
        samples = check_samples(data, model.inputs, what="serving", limit=max(sizes))
        data = {tensor.name: array for tensor, array in zip(model.inputs, samples, strict=True)}

    with (
        write_whole(folder) as temporary,
        Console(stderr=True, force_jupyter=False).status(f"Writing version {version} of {name} for TF Serving"),
    ):
        signature = write_saved_model(model, temporary, data=data)
        write_warmup_requests(
            temporary,
            name=name,
            signature_name=SIGNATURE,
            inputs=inputs,
            batch_sizes=sizes,
            samples=samples,
        )
        artifact = Artifact.of(
            temporary,
            kind="saved_model",
            inputs=inputs,
            outputs=signature.outputs,
            verification={**signature.to_dict(), "warmup_requests": replay_warmup_requests(temporary)},
        )
        artifact.save()
        if _present_batching(directory) != parameters:
            _write(directory / BATCHING_FILE, parameters.to_text())
        _write(directory / MODELS_FILE, models_text)
    return artifact.model_copy(update={"path": folder})


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            "export_serving: name must consist of letters, digits, '_', '.' and '-', and not begin with "
            f"'.' or '-'. Received: {name!r}. Give it with name=."
        )
    return name


def _checked_version(version: int) -> int:
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= LARGEST_VERSION:
        raise ConfigError(f"export_serving: version must be an integer of at least 1. Received: {version!r}.")
    return version


def next_version(model_folder: Path) -> int:
    """The version after the highest in a model folder; 1 where there is none."""
    folders = model_folder.iterdir() if model_folder.is_dir() else ()
    return 1 + max((int(path.name) for path in folders if path.name.isdecimal()), default=0)


def _batching(directory: Path, wanted: BatchingParameters | None) -> BatchingParameters:
    present = _present_batching(directory)
    if wanted is None:
        return present or BatchingParameters()
    if present and wanted.max_batch_size < present.max_batch_size:
        others = sorted(str(path.parent) for path in directory.glob("*/*/saved_model.pb"))
        if others:
            raise ConfigError(
                f"export_serving: max_batch_size must be at least {present.max_batch_size}: the warm-up "
                f"requests of {', '.join(others)} have that size, and a server refuses a model whose warm-up "
                f"fails. Received: {wanted.max_batch_size}. Export to another directory."
            )
    return wanted


def _present_batching(directory: Path) -> BatchingParameters | None:
    text = _read(directory / BATCHING_FILE)
    return BatchingParameters.from_text(text) if text else None


def _read(path: Path) -> str:
    try:
        return path.read_text() if path.exists() else ""
    except OSError as error:
        raise ConfigError(f"export_serving: cannot read {path}. Received: {error}.") from None


def _write(path: Path, text: str) -> None:
    # What is the same already keeps its comments and its time stamp, which servers watch.
    if _read(path) != text:
        with write_whole(path) as temporary:
            temporary.write_text(text)
