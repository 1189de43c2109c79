"""The learning-rate range test, evaluated: losses at rising rates, the rate they suggest, a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError

from .moving_average import MovingAverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RangeTest"]

_NEIGHBOURS = 10  # a slope is that of a tenth of the points on either side, since the loss of a batch is noisy


@dataclass(frozen=True, eq=False)
class RangeTest:
    """What a range test measured.

    Args:
        rates: learning rates, rising, of shape `(n,)`.
        losses: the loss of the batch that was trained at each, of shape `(n,)`.
        smoothing: of the moving average that is judged, in [0, 1).

    Example:
        >>> rates = np.geomspace(1e-5, 1.0, 101)
        >>> losses = 1 / (1 + (rates / 0.01) ** 2) + rates**2  # falls most around 0.01, rises in the end
        >>> round(RangeTest(rates, losses, smoothing=0.0).suggestion, 3)
        0.01

    References: Smith 2017, arXiv:1506.01186, section 3.3.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothing: float

    @property
    def smoothed(self) -> np.ndarray:
        """The moving average of the losses, of shape `(n,)`."""
        average = MovingAverage(self.smoothing)
        return np.array([average.update(float(loss)) for loss in self.losses])

    @property
    def suggestion(self) -> float | None:
        """The rate around which the loss falls fastest; None if it falls nowhere, or there are too few losses to tell.

        Fast is meant per factor of the rate: what is steep on the logarithmic axis of the plot. The slope at a rate is
        that of the straight line through the losses of the rates around it.
        """
        near = max(len(self.rates) // _NEIGHBOURS, 2)
        width = 2 * near + 1
        if len(self.rates) < width:
            return None
        # The rates are equally far apart on the logarithmic axis, so one set of weights gives the slopes of all.
        slopes = np.convolve(self.losses, np.arange(near, -near - 1, -1), mode="valid")
        steepest = int(np.argmin(slopes))
        return float(self.rates[steepest + near]) if slopes[steepest] < 0 else None

    @property
    def lowest(self) -> float | None:
        """The rate where the smoothed loss is lowest: training is about to diverge, so it is too high to train with."""
        return float(self.rates[int(np.argmin(self.smoothed))]) if len(self.rates) else None

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws loss against rate, and marks the suggestion.

        Args:
            path: where to write it, of a type that matplotlib knows by its suffix, such as ".png" or ".svg"; None: it
                is only returned, and shown by a notebook.

        Raises:
            ConfigError: if the suffix is of no known type, or the place cannot be written.
        """
        # Loaded here: who trains and does not look at a plot need not wait for it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, alpha=0.35, label="loss of the batch")
        axes.plot(self.rates, self.smoothed, label=f"smoothed by {self.smoothing:g}")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="gray", linestyle="--", label=f"suggestion: {self.suggestion:.2g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend()
        if path is not None:
            suffix = Path(path).suffix[1:].lower()
            if suffix not in (known := canvas.get_supported_filetypes()):
                raise ConfigError(
                    f"RangeTest: the plot's file must end in one of {', '.join(sorted(known))}. Received: {path}."
                )
            with write_whole(path) as temporary:
                figure.savefig(temporary, format=suffix)
        return figure
