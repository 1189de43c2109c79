"""Which columns of a table a model needs: scores from scikit-learn, and a Keras model that takes those alone.

The package is light: what needs Keras or scikit-learn is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.features.feature_selection import FeatureRow, FeatureSelection
    from tfopt.features.selecting import select

__all__ = ["FeatureRow", "FeatureSelection", "select"]

__getattr__ = lazy_names(
    __name__,
    {
        "FeatureRow": "tfopt.features.feature_selection",
        "FeatureSelection": "tfopt.features.feature_selection",
        "select": "tfopt.features.selecting",
    },
)
