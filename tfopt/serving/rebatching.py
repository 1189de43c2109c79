"""Other batching parameters for a version that lies in a serving folder, with the warm-up requests they call for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfopt.artifact import Artifact, TensorSpec, content_sha256, content_size_bytes, write_whole
from tfopt.errors import ConfigError
from tfopt.serving.batching import BATCHING_FILE, MODEL_BATCHING_FILE, BatchingParameters
from tfopt.serving.server_files import server_batching
from tfopt.serving.warmup import WARMUP_FILE, WarmupSignature, read_warmup_requests, write_warmup_requests

__all__ = ["set_batching"]


def set_batching(
    version_folder: str | Path, parameters: BatchingParameters, *, comments: Sequence[str] = ()
) -> Artifact:
    r"""Gives a version other batching parameters, as `export_serving(batching=...)` would have written them.

    Use it after measuring. The version's batching_params.pbtxt, its warm-up requests (the samples of those that are
    there, in the sizes that are now allowed), its record, and the server's batching_parameters.txt are written; a
    server reads them when it loads the version the next time.

    Args:
        version_folder: DIRECTORY/NAME/VERSION.
        parameters: the new ones.
        comments: lines to put in front of both files, such as what was measured.

    Returns:
        The artifact of the version folder.

    Raises:
        DataError: if the folder is no artifact, or has changed since it was written.
        ConfigError: if it has no warm-up requests, whose samples are needed, or cannot be written.

    Example:
        >>> import keras
        >>> from tfopt.serving.folder import export_serving
        >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     version = export_serving(model, folder, name="ranker").path
        ...     _ = set_batching(version, BatchingParameters(max_batch_size=8, allowed_batch_sizes=(8,)),
        ...                      comments=["8 was best"])
        ...     len(list(read_warmup_requests(version))), Path(version, "batching_params.pbtxt").read_text()[:13]
        (1, '# 8 was best\n')
    """
    folder = Path(version_folder)
    artifact = Artifact.load(folder)
    directory = folder.parent.parent
    server = server_batching(directory, parameters, apart_from=folder)
    signatures = _signatures(folder)
    with tempfile.TemporaryDirectory() as scratch:
        written = write_warmup_requests(
            scratch, model=folder.parent.name, signatures=signatures, batch_sizes=parameters.warmup_batch_sizes
        )
        with write_whole(folder / WARMUP_FILE) as temporary:
            shutil.copyfile(written, temporary)
    _write(folder / MODEL_BATCHING_FILE, parameters.to_text(comments=comments, thread_pool=False))
    _write(directory / BATCHING_FILE, server.to_text(comments=comments))
    count = len(signatures) * len(parameters.warmup_batch_sizes)
    artifact = artifact.model_copy(
        update={
            "size_bytes": content_size_bytes(folder),
            "sha256": content_sha256(folder),
            "verification": {**artifact.verification, "warmup_requests": count},
        }
    )
    artifact.save()
    return artifact


def _signatures(folder: Path) -> list[WarmupSignature]:
    """The signatures that the warm-up requests call, with the largest request's tensors for samples."""
    samples: dict[str, dict[str, np.ndarray]] = {}
    requests = read_warmup_requests(folder) if (folder / WARMUP_FILE).is_file() else ()
    for request in requests:
        tensors = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        known = samples.setdefault(request.model_spec.signature_name, tensors)
        if any(len(tensor) > len(known[name]) for name, tensor in tensors.items()):
            samples[request.model_spec.signature_name] = tensors
    if not samples:
        raise ConfigError(f"set_batching: expected warm-up requests in {folder / WARMUP_FILE}. There are none.")
    return [
        WarmupSignature(
            name,
            [
                TensorSpec(name=key, shape=(None, *array.shape[1:]), dtype=tf.as_dtype(array.dtype).name)
                for key, array in tensors.items()
            ],
            tensors,
        )
        for name, tensors in samples.items()
    ]


def _write(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text)
