"""tfopt: from a Keras 3 model to a small, fast, verified model on a phone or TF Serving.

Importing tfopt loads no TensorFlow; the first use of a name that needs it does. Where Keras is loaded already, it
makes tfopt's layers known to it, so that `keras.models.load_model` loads a quantize-aware model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

# These share their name with the module they live in. Bound here, before anything imports the
# submodules, the functions win; their modules are light and load TensorFlow when they are called.
from tfopt.benchmark import benchmark
from tfopt.early_exit import early_exit
from tfopt.lazy_names import lazy_names as _lazy_names
from tfopt.optimize import optimize

if TYPE_CHECKING:
    from tfopt import callbacks, compression, distillation, ensemble, features, quantization, schedules, tuning
    from tfopt.artifact import Artifact
    from tfopt.benchmark.report import Report
    from tfopt.benchmark.serving import benchmark_serving
    from tfopt.compression.clustering import cluster
    from tfopt.compression.factorize import factorize
    from tfopt.distillation.distiller import Distiller
    from tfopt.export.edge_tpu.exporter import export_edge_tpu
    from tfopt.export.ethos_u import export_ethos_u
    from tfopt.export.image_bytes import ImageBytes
    from tfopt.export.onnx import export_onnx
    from tfopt.export.task_metadata import ModelMetadata
    from tfopt.export.tflite import export_tflite
    from tfopt.inspection import inspect
    from tfopt.interop.tfmot import from_tf_keras
    from tfopt.profiling.batch_size import find_batch_size
    from tfopt.profiling.mixed_precision import mixed_precision_check
    from tfopt.profiling.training_profile import profile
    from tfopt.pruning.channel_coverage import channel_coverage
    from tfopt.pruning.channels import prune_channels
    from tfopt.quantization.quantize_aware import quantize_aware
    from tfopt.recipe import QuantizationConfig, Recipe
    from tfopt.serving.batching import BatchingParameters
    from tfopt.serving.folder import export_serving
    from tfopt.serving.folder_check import check_serving_folder
    from tfopt.serving.server.serve import serve
    from tfopt.serving.tuning.batch_tuner import tune_batching
    from tfopt.surgery.regularize import regularize

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "tfopt.artifact",
    "BatchingParameters": "tfopt.serving.batching",
    "Distiller": "tfopt.distillation.distiller",
    "ImageBytes": "tfopt.export.image_bytes",
    "ModelMetadata": "tfopt.export.task_metadata",
    "QuantizationConfig": "tfopt.recipe",
    "Recipe": "tfopt.recipe",
    "Report": "tfopt.benchmark.report",
    "benchmark_serving": "tfopt.benchmark.serving",
    "channel_coverage": "tfopt.pruning.channel_coverage",
    "check_serving_folder": "tfopt.serving.folder_check",
    "cluster": "tfopt.compression.clustering",
    "export_edge_tpu": "tfopt.export.edge_tpu.exporter",
    "export_ethos_u": "tfopt.export.ethos_u",
    "export_onnx": "tfopt.export.onnx",
    "export_serving": "tfopt.serving.folder",
    "export_tflite": "tfopt.export.tflite",
    "factorize": "tfopt.compression.factorize",
    "find_batch_size": "tfopt.profiling.batch_size",
    "from_tf_keras": "tfopt.interop.tfmot",
    "inspect": "tfopt.inspection",
    "mixed_precision_check": "tfopt.profiling.mixed_precision",
    "profile": "tfopt.profiling.training_profile",
    "prune_channels": "tfopt.pruning.channels",
    "quantize_aware": "tfopt.quantization.quantize_aware",
    "regularize": "tfopt.surgery.regularize",
    "serve": "tfopt.serving.server.serve",
    "tune_batching": "tfopt.serving.tuning.batch_tuner",
}
_SUBMODULES = (
    "callbacks",
    "compression",
    "distillation",
    "ensemble",
    "features",
    "quantization",
    "schedules",
    "tuning",
)

__all__ = [
    "Artifact",
    "BatchingParameters",
    "Distiller",
    "ImageBytes",
    "ModelMetadata",
    "QuantizationConfig",
    "Recipe",
    "Report",
    "benchmark",
    "benchmark_serving",
    "callbacks",
    "channel_coverage",
    "check_serving_folder",
    "cluster",
    "compression",
    "distillation",
    "early_exit",
    "ensemble",
    "export_edge_tpu",
    "export_ethos_u",
    "export_onnx",
    "export_serving",
    "export_tflite",
    "factorize",
    "features",
    "find_batch_size",
    "from_tf_keras",
    "inspect",
    "mixed_precision_check",
    "optimize",
    "profile",
    "prune_channels",
    "quantization",
    "quantize_aware",
    "regularize",
    "schedules",
    "serve",
    "tune_batching",
    "tuning",
]


__getattr__ = _lazy_names(__name__, {**_HOMES, **{name: f"tfopt.{name}" for name in _SUBMODULES}})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules and "tensorflow" in sys.modules:
    for _module in (
        "tfopt.quantization",
        "tfopt.schedules.keras_schedule",
        "tfopt.early_exit.network",
        "tfopt.interop.keras_2_activations",
    ):
        import_module(_module)
