"""Hyperparameters found by search, on keras-tuner: of a training, of a compression, and of an architecture.

The package is light: what needs Keras is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.tuning.architecture_search import search_architecture
    from tfopt.tuning.architectures import image_classifiers
    from tfopt.tuning.compressing import compress
    from tfopt.tuning.compression_hyper_model import CompressionHyperModel
    from tfopt.tuning.compression_result import CompressionResult, CompressionRow
    from tfopt.tuning.constrained_oracle import Constraint
    from tfopt.tuning.latency_table import LatencyTable
    from tfopt.tuning.tuning import tune
    from tfopt.tuning.tuning_result import TuningResult, TuningRow

__all__ = [
    "CompressionHyperModel",
    "CompressionResult",
    "CompressionRow",
    "Constraint",
    "LatencyTable",
    "TuningResult",
    "TuningRow",
    "compress",
    "image_classifiers",
    "search_architecture",
    "tune",
]

__getattr__ = lazy_names(
    __name__,
    {
        "CompressionHyperModel": "tfopt.tuning.compression_hyper_model",
        "CompressionResult": "tfopt.tuning.compression_result",
        "CompressionRow": "tfopt.tuning.compression_result",
        "Constraint": "tfopt.tuning.constrained_oracle",
        "LatencyTable": "tfopt.tuning.latency_table",
        "TuningResult": "tfopt.tuning.tuning_result",
        "TuningRow": "tfopt.tuning.tuning_result",
        "compress": "tfopt.tuning.compressing",
        "image_classifiers": "tfopt.tuning.architectures",
        "search_architecture": "tfopt.tuning.architecture_search",
        "tune": "tfopt.tuning.tuning",
    },
)
