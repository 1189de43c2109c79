"""Hyperparameters found by search, on keras-tuner: of a training, and of a compression.

The package is light: what needs Keras is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.tuning.compressing import compress
    from tfopt.tuning.compression_hyper_model import CompressionHyperModel
    from tfopt.tuning.compression_result import CompressionResult, CompressionRow
    from tfopt.tuning.tuning import tune
    from tfopt.tuning.tuning_result import TuningResult, TuningRow

__all__ = [
    "CompressionHyperModel",
    "CompressionResult",
    "CompressionRow",
    "TuningResult",
    "TuningRow",
    "compress",
    "tune",
]

__getattr__ = lazy_names(
    __name__,
    {
        "CompressionHyperModel": "tfopt.tuning.compression_hyper_model",
        "CompressionResult": "tfopt.tuning.compression_result",
        "CompressionRow": "tfopt.tuning.compression_result",
        "TuningResult": "tfopt.tuning.tuning_result",
        "TuningRow": "tfopt.tuning.tuning_result",
        "compress": "tfopt.tuning.compressing",
        "tune": "tfopt.tuning.tuning",
    },
)
