"""What early stopping saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["StoppingSummary"]


@dataclass(frozen=True)
class StoppingSummary:
    """How a fit ended, and what was saved against its planned epochs.

    Args:
        reason: why it stopped; None if all epochs ran.
        epochs_planned: the `epochs` of the fit.
        epochs_run: epochs done, those before `initial_epoch` included; a fraction if it stopped inside one.
        seconds: wall-clock time of the fit, validation included.
        seconds_per_epoch: the median of its epochs.
        best_epoch: the epoch that had the best weights, from 0; None if none was judged.
        best: the monitored values there, as they were logged.

    Example:
        >>> summary = StoppingSummary("the budget is spent", 40, 12.0, 36.5, 3.0, 8, {"val_loss": 0.21})
        >>> print(summary)
        Stopped after 12 of 40 epochs: the budget is spent. Saved 28 epochs, about 84 s. \
Best: epoch 9, val_loss 0.21.
    """

    reason: str | None
    epochs_planned: int
    epochs_run: float
    seconds: float
    seconds_per_epoch: float
    best_epoch: int | None
    best: Mapping[str, float]

    @property
    def epochs_saved(self) -> float:
        """Planned epochs that were not run."""
        return self.epochs_planned - self.epochs_run

    @property
    def seconds_saved(self) -> float:
        """What these would have taken: an estimate."""
        return self.epochs_saved * self.seconds_per_epoch

    def __str__(self) -> str:
        if self.reason is None:
            text = f"All {self.epochs_planned} epochs ran; nothing was saved."
        else:
            text = (
                f"Stopped after {self.epochs_run:.4g} of {self.epochs_planned} epochs: {self.reason}. "
                f"Saved {self.epochs_saved:.4g} epochs, about {self.seconds_saved:.3g} s."
            )
        if self.best_epoch is None:
            return text
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.best.items())
        return f"{text} Best: epoch {self.best_epoch + 1}, {values}."
