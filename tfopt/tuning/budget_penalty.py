"""A score with a penalty for what exceeds a budget, as one logged value that any search can optimize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfopt.tuning.median_stopping import Direction

__all__ = ["OBJECTIVE", "USED", "BudgetPenalty", "penalized"]

OBJECTIVE = "val_objective"
USED = "budget_used"


def penalized(score: float, used: float, penalty: float) -> float:
    """The score, less a penalty by the share of the model that would have to go: `score - penalty * (1 - 1 / used)`.

    Within the budget it is the score itself, so that what is saved beyond it earns nothing. With any penalty above 0
    what is within the budget is better than what exceeds it and has no higher score. No model loses more than the
    whole penalty: where large models could, the differences between good ones would drown for a search that models the
    objective.

    Args:
        score: the larger, the better.
        used: how much of the budget is taken: above 1 is too much.
        penalty: what a model costs that is infinitely too large, in units of the score; one of twice the budget costs
            half of it.

    Example:
        >>> penalized(0.9, used=0.8, penalty=1.0), penalized(0.9, used=2.0, penalty=1.0)
        (0.9, 0.4)

    References: Nocedal & Wright 2006, Numerical Optimization, section 17.2 (the exact penalty of an inequality);
        Bender et al. 2020, arXiv:2008.06120 (TuNAS), where the excess is a fraction of the limit.
    """
    return score if used <= 1 else score - penalty * (1 - 1 / used)


class BudgetPenalty(keras.callbacks.Callback):
    """Logs how much of a budget a model takes, and its penalized score.

    Place it before what reads its values, and after what changes weights at the end of an epoch.

    Args:
        monitor: the logged value that is the score.
        direction: whether small or large values of it are good; the objective is to be large in any case.
        used: tells how much of the budget the model takes now.
        penalty: see `penalized`.

    Logs: "budget_used" and "val_objective", at the end of each epoch that has the score.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        >>> model.compile(keras.optimizers.SGD(0.0), "mse")
        >>> ones = keras.ops.ones((4, 1))
        >>> penalty = BudgetPenalty("loss", "min", used=lambda: 2.0, penalty=2.0)
        >>> model.fit(ones, ones, verbose=0, callbacks=[penalty]).history["val_objective"]
        [-2.0]
    """

    def __init__(self, monitor: str, direction: Direction, used: Callable[[], float], *, penalty: float) -> None:
        super().__init__()
        self.monitor, self.direction, self.used, self.penalty = monitor, direction, used, penalty

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds both values to the logs."""
        if logs is None or self.monitor not in logs:
            return
        score = float(logs[self.monitor])
        logs[USED] = self.used()
        logs[OBJECTIVE] = penalized(score if self.direction == "max" else -score, logs[USED], self.penalty)
