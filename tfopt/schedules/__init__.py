"""Schedules: a value for every training step, for learning rates and sparsities alike.

A schedule is any function from the step (0, 1, 2, ...) to a number. The simple ones here are bounded by the values
they are given, monotone, and hold their last value for ever; the others are made of them. `as_keras` makes a
schedule one that a Keras optimizer takes; it loads TensorFlow at its first use, the others never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.lazy_names import lazy_names
from tfopt.schedules.arguments import check_steps
from tfopt.schedules.composition import cosine_restarts, one_cycle, sequence, warmup, warmup_stable_decay
from tfopt.schedules.curves import constant, cosine, exponential, polynomial, step_decay
from tfopt.schedules.formula import Formula, Schedule

if TYPE_CHECKING:
    from tfopt.schedules.keras_schedule import as_keras

__all__ = [
    "Formula",
    "Schedule",
    "as_keras",
    "check_steps",
    "constant",
    "cosine",
    "cosine_restarts",
    "exponential",
    "one_cycle",
    "polynomial",
    "sequence",
    "step_decay",
    "warmup",
    "warmup_stable_decay",
]

__getattr__ = lazy_names(__name__, {"as_keras": "tfopt.schedules.keras_schedule"})
