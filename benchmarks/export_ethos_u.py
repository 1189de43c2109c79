"""What Arm's compiler expects of the int8 file of a network, and of that of a CNN with 80 % zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

import tfopt
from tfopt.artifact import Artifact
from tfopt.errors import TfoptError
from tfopt.export.ethos_u_estimate import EthosUEstimate
from tfopt.pruning.masks import magnitude_mask

__all__ = ["ethos_u_row"]

TARGET = "ethos-u55-128"
SPARSITY = 0.8
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)

Row = dict[str, Any]


def ethos_u_row(model: keras.Model, int8_file: Path, calibration: Any) -> Row:
    """The estimates; the zeros are put in at once, without training, so that only their time means something."""
    try:
        dense = _compile(Artifact.load(int8_file), int8_file.with_name("ethos_u.tflite"))
        if not any(isinstance(layer, CONVOLUTIONS) for layer in model.layers):
            return dense
        sparse_file = int8_file.with_name("sparse_int8.tflite")
        sparse = tfopt.export_tflite(pruned(model), sparse_file, "int8", calibration=calibration)
        row = _compile(sparse, int8_file.with_name("sparse_ethos_u.tflite"))
    except TfoptError as error:
        return {"refused": str(error), "error": type(error).__name__}
    return {**dense, "sparsity": SPARSITY, "sparse_latency_ms": row["latency_ms"]}


def _compile(artifact: Artifact, path: Path) -> Row:
    estimate = EthosUEstimate.of(tfopt.export_ethos_u(artifact, path, target=TARGET))
    return {
        "target": estimate.target,
        "operators": estimate.operators,
        "accelerated_operators": estimate.operators - len(estimate.cpu_operators),
        "cpu_operators": [str(one) for one in estimate.cpu_operators],
        "latency_ms": estimate.latency_ms,
    }


def pruned(model: keras.Model) -> keras.Model:
    """A copy whose convolutions and dense layers, but for depthwise ones, have lost their smallest weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense)):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(kernel * magnitude_mask(kernel, SPARSITY))
    return copy
