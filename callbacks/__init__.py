"""Keras callbacks: each works alone in `model.fit(callbacks=[...])`, in any order with the others."""

from .early_stopping import EarlyStopping
from .learning_rate import LearningRate
from .magnitude_pruning import MagnitudePruning

__all__ = ["EarlyStopping", "LearningRate", "MagnitudePruning"]
