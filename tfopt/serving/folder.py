"""The folder TF Serving loads: verified SavedModels, their warm-up requests, and what starts a server on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import keras
import numpy as np

from tfopt.artifact import Artifact, write_whole
from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError
from tfopt.export.image_bytes import BYTES_SIGNATURE, ImageBytes
from tfopt.export.saved_model import SavedModelSignature, input_specs, write_saved_model
from tfopt.export.signature import SIGNATURE
from tfopt.interop.tfmot import in_keras_3
from tfopt.serving.batching import MODEL_BATCHING_FILE, BatchingParameters
from tfopt.serving.in_graph_batching import batched_call, check_in_graph
from tfopt.serving.models_config import MODELS_FILE, ServedVersions, with_model
from tfopt.serving.server_files import present_versions, read_file, server_batching, write_server_files
from tfopt.serving.warmup import WarmupSignature, replay_warmup_requests, write_warmup_requests
from tfopt.status_line import status_line
from tfopt.surgery.model import check_model

__all__ = ["export_serving", "next_version"]

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
    image_bytes: ImageBytes | None = None,
    served_versions: ServedVersions | None = None,
    labels: Mapping[str, int] | None = None,
    in_graph_batching: BatchingParameters | None = None,
) -> Artifact:
    r"""Writes a model as a folder that TF Serving loads, and checks that it answers as Keras does.

    Use it for every model that goes to a TF Serving fleet; further models and versions go into the same
    directory. What is written:

        DIRECTORY/models.config                 which models and versions the server loads
        DIRECTORY/batching_parameters.txt       how it batches: the threads, which all models share
        DIRECTORY/monitoring.config             that it tells Prometheus its metrics
        DIRECTORY/tensorflow_model_server.sh    the command line that starts it
        DIRECTORY/docker-compose.yaml           the same in a container
        DIRECTORY/kubernetes.yaml               the same as replicas that scale with the load
        DIRECTORY/NAME/VERSION/                 the artifact, renamed into place when it is whole
            saved_model.pb, variables/
            batching_params.pbtxt               how this version is batched
            assets.extra/tf_serving_warmup_requests
            artifact.json

    The files that start a server are written once, and yours from then on; `check_serving_folder` checks them too.

    Args:
        model: a built Sequential or Functional model of Keras 3, quantize-aware or not.
        directory: the folder of the server; created where it is missing.
        name: the model's name in requests (letters, digits, `_`, `.`, `-`); default: `model.name`.
        version: at least 1. A version never changes once it is written: servers may have loaded it.
        batching: of this version; the number of threads is that of the whole server, whose file otherwise keeps the
            sizes of its largest model. Default: what the directory's batching_parameters.txt says, or
            `BatchingParameters()` where there is none.
        data: samples for the check and the warm-up requests, as `tfopt.data.check_samples` takes them;
            default: made-up ones within [0, 1].
        base_path: DIRECTORY as the server sees it, an absolute path or a URI. In TF Serving's container image
            models are mounted at /models; for a server on this machine give `directory` itself.
        image_bytes: adds the signature `serving_bytes`, which takes encoded images.
        served_versions: which versions of the model the server loads: an integer n for the latest n, a sequence for
            those and no others, or "all". Default: what models.config says, or the latest for a new model.
        labels: names for versions, such as `{"stable": 1, "canary": 2}`, which requests may use; the versions must be
            served. Labels that are there stay.
        in_graph_batching: makes the SavedModel batch the calls that meet in one process, for servers that do not batch
            (TF Serving without --enable_batching, or a program of your own with many threads). Default: it does not.

    Returns:
        The artifact of the version folder: `Artifact.load` reads it back.

    Raises:
        ModelError: if the model is not one that can be served.
        DataError: if the data does not fit the model.
        ConfigError: if the name or version is not usable, the version exists, the directory cannot be
            written, a label would name a version that is not served, or a file that is there is not valid.
        ExportError: if the SavedModel disagrees with Keras, or a warm-up request fails. Nothing is left
            behind.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = export_serving(model, folder, name="ranker")
        ...     print(*sorted(path.name for path in Path(folder).iterdir() if path.name != "ranker"), sep="\n")
        batching_parameters.txt
        docker-compose.yaml
        kubernetes.yaml
        models.config
        monitoring.config
        tensorflow_model_server.sh
        >>> artifact.outputs[0].name
        'score'

    References: tensorflow.org/tfx/serving/serving_config; keras.io/api/models/model_saving_apis/export.
    """
    model = check_model(in_keras_3(model))
    directory = Path(directory)
    name = _checked_name(model.name if name is None else name)
    folder = directory / name / str(_checked_version(version))
    if folder.exists():
        raise ConfigError(
            f"export_serving: version {version} of '{name}' exists in {directory}; servers may have loaded "
            f"it. Choose version={next_version(folder.parent)}."
        )
    inputs = input_specs(model)
    if image_bytes:
        image_bytes.image_input(model)
    server = server_batching(directory, batching)
    parameters = batching or server
    models_text = with_model(
        read_file(directory / MODELS_FILE),
        name=name,
        base_path=f"{base_path.rstrip('/')}/{name}",
        versions=served_versions,
        labels=labels,
        present={*present_versions(folder.parent), version},
    )
    around = None
    if in_graph_batching:
        check_in_graph(in_graph_batching, largest=max(parameters.warmup_batch_sizes))
        around = partial(batched_call, parameters=in_graph_batching)
    samples = None
    if data is not None:  # read once: it may be a long tf.data.Dataset
        limit = max(parameters.warmup_batch_sizes)
        samples = check_samples(data, model.inputs, what="serving", limit=limit)
        data = {tensor.name: array for tensor, array in zip(model.inputs, samples, strict=True)}

    with (
        write_whole(folder) as temporary,
        status_line(f"Writing version {version} of {name} for TF Serving"),
    ):
        signature = write_saved_model(model, temporary, data=data, image_bytes=image_bytes, around=around)
        write_warmup_requests(
            temporary,
            model=name,
            signatures=_warmup_signatures(signature, samples, image_bytes),
            batch_sizes=parameters.warmup_batch_sizes,
        )
        Path(temporary, MODEL_BATCHING_FILE).write_text(parameters.to_text(thread_pool=False))
        artifact = Artifact.of(
            temporary,
            kind="saved_model",
            inputs=inputs,
            outputs=signature.outputs,
            verification={**signature.to_dict(), "warmup_requests": replay_warmup_requests(temporary)},
        )
        artifact.save()
        write_server_files(directory, {MODELS_FILE: models_text}, batching=server, base_path=base_path, model=name)
    return artifact.model_copy(update={"path": folder})


def _warmup_signatures(
    signature: SavedModelSignature, samples: list[np.ndarray] | None, image_bytes: ImageBytes | None
) -> list[WarmupSignature]:
    given = {} if samples is None else dict(zip([spec.name for spec in signature.inputs], samples, strict=True))
    signatures = [WarmupSignature(SIGNATURE, signature.inputs, given)]
    if image_bytes:
        pairs = zip(signature.inputs, signature.bytes_inputs, strict=True)
        image, encoded = next((spec, of_bytes) for spec, of_bytes in pairs if spec != of_bytes)
        files, _ = image_bytes.examples(image, 1)
        signatures.append(WarmupSignature(BYTES_SIGNATURE, signature.bytes_inputs, {**given, encoded.name: files}))
    return signatures


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
    return 1 + max(present_versions(model_folder), default=0)
