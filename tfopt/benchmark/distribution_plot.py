"""How the times of single inferences are distributed, as a plot."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tfopt.benchmark.comparison import threads_words
from tfopt.benchmark.measurements import Latency, Measurements
from tfopt.benchmark.plot_drawing import INK, STYLE, new_figure, to_svg
from tfopt.benchmark.plots import entry_colors

__all__ = ["distribution_plot"]


def distribution_plot(report: Measurements) -> str | None:
    """How the inferences' times are distributed, from the 1st to the 99th percentile; None where that is not known."""
    timed = [(entry, [one for one in entry.latencies if one.percentiles_ms]) for entry in report.entries]
    timed = [(entry, latencies) for entry, latencies in timed if latencies]
    if not timed:
        return None
    colors = entry_colors(report)
    low = min(one.percentiles_ms[1] for _, latencies in timed for one in latencies) / 1.05
    high = max(one.percentiles_ms[99] for _, latencies in timed for one in latencies) * 1.05
    edges = np.geomspace(low, high, 160)
    lines = sum(1.4 * len(latencies) + 1.6 for _, latencies in timed)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.24 * lines + 0.55)
        axes.set_position((0.02, 0.5 / figure.get_figheight(), 0.96, 1 - 0.5 / figure.get_figheight()))
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(lines, 0)
        line = 0.0
        for entry, latencies in timed:
            line += 0.7
            axes.text(low, line, entry.name, va="center", weight="bold", parse_math=False)
            for index, latency in enumerate(latencies):
                line += 1.4 if index else 1.8
                _ridge(axes, latency, edges, line, colors[entry.name], alpha=0.85 if index == 0 else 0.5)
            line += 0.5
        _log_axis(axes, low, high)
        figure.draw_without_rendering()  # labels have no extent before
        _keep_labels_within(axes)
        return to_svg(figure, "distribution", "Distribution of latencies")


def _ridge(axes: Axes, latency: Latency, edges: np.ndarray, line: float, color: str, *, alpha: float) -> None:
    shares = np.diff(np.interp(edges, latency.percentiles_ms, np.linspace(0, 1, len(latency.percentiles_ms))))
    # A percentile is a step, not a slope: what is drawn is as smooth as a hundred of them are.
    smooth = np.convolve(shares, np.hanning(7)[1:-1] / np.hanning(7).sum(), mode="same")
    heights = smooth / smooth.max()
    centers = np.sqrt(edges[1:] * edges[:-1])
    axes.fill_between(centers, line, line - 1.1 * heights, color=color, alpha=alpha, linewidth=0)
    axes.plot((edges[0], edges[-1]), (line, line), color=INK, linewidth=0.6, alpha=0.25)
    axes.plot((latency.p50_ms,) * 2, (line, line - 1.1), color=INK, linewidth=1.2, alpha=0.8)
    axes.text(edges[-1], line - 0.35, threads_words(latency.threads), va="center", ha="right", fontsize=9.5)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    decades = np.log10(high / low)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    if decades < 0.7:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("one inference, ms")


def _keep_labels_within(axes: Axes) -> None:
    for label in axes.get_xticklabels():
        extent = label.get_window_extent()
        if extent.x1 > axes.bbox.x1:
            label.set_horizontalalignment("right")
        elif extent.x0 < axes.bbox.x0:
            label.set_horizontalalignment("left")
