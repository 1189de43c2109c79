"""Ensembles with no more models than they need: chosen greedily, measured, averaged in one graph, distilled.

The package is light: what needs Keras is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.ensemble.pruned_ensemble import EnsembleRow, PrunedEnsemble
    from tfopt.ensemble.pruning import prune

__all__ = ["EnsembleRow", "PrunedEnsemble", "prune"]

__getattr__ = lazy_names(
    __name__,
    {
        "EnsembleRow": "tfopt.ensemble.pruned_ensemble",
        "PrunedEnsemble": "tfopt.ensemble.pruned_ensemble",
        "prune": "tfopt.ensemble.pruning",
    },
)
