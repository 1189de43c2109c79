"""Hyperparameters found by search, on keras-tuner.

The package is light: what needs Keras is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.tuning.tuning import tune
    from tfopt.tuning.tuning_result import TuningResult, TuningRow

__all__ = ["TuningResult", "TuningRow", "tune"]

__getattr__ = lazy_names(
    __name__,
    {
        "TuningResult": "tfopt.tuning.tuning_result",
        "TuningRow": "tfopt.tuning.tuning_result",
        "tune": "tfopt.tuning.tuning",
    },
)
