"""The report's plots, as SVG that takes its text colour from the page around it."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, BboxBase

from tfopt.benchmark.comparison import threads_words
from tfopt.benchmark.measurements import Measurements
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.units import human_bytes, significant

__all__ = ["entry_colors", "latency_plot", "score_plot", "size_plot"]

WIDTH_INCHES = 4.1
INK = "#010203"  # stands for the page's text colour until the SVG is written
BASELINE_COLOR = "#7d8590"
COLORS = ("#2f81f7", "#e8590c", "#2da44e", "#a371f7", "#d63384", "#0ca5b0", "#b8860b", "#e5484d")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfopt",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
LEADER_BEYOND = 12
# Where a label may stand, in points from its mark, nearest first.
OFFSETS = [
    (x * distance, y * distance)
    for distance in (9, 18, 30, 44, 60)
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
]


@dataclass(frozen=True)
class _Bar:
    label: str
    value: float
    text: str
    whisker: float | None = None


def entry_colors(report: Measurements) -> dict[str, str]:
    """A colour for each entry that reads on light and dark; the baseline is grey."""
    others = [COLORS[index % len(COLORS)] for index in range(len(report.entries) - 1)]
    return dict(zip((entry.name for entry in report.entries), [BASELINE_COLOR, *others], strict=True))


def score_plot(report: Measurements) -> str | None:
    """Size against score, one mark for each entry; None where fewer than two were scored."""
    scored = [entry for entry in report.entries if entry.score is not None]
    if len(scored) < 2:
        return None
    is_accuracy = report.metric in ACCURACIES
    factor = 100 if is_accuracy else 1
    unit, divisor = ("MiB", 1 << 20) if max(e.size_bytes for e in scored) >= 1 << 20 else ("KiB", 1 << 10)
    sizes = [entry.size_bytes / divisor for entry in scored]
    scores = [factor * (entry.score or 0.0) for entry in scored]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.5)
        axes.set_position((0.2, 0.16, 0.78, 0.81))
        # At least two points high, so that a small difference does not look like a large one.
        margin = max(0.25 * (max(scores) - min(scores)), 0.01 * factor)
        axes.set_ylim(min(scores) - margin, max(scores) + margin)
        axes.set_xlim(0, 1.15 * max(sizes))
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(f"size, {unit}")
        axes.set_ylabel(f"{report.metric}{', %' if is_accuracy else ''}", parse_math=False)
        colors = entry_colors(report)
        for entry, size, value in zip(scored, sizes, scores, strict=True):
            axes.plot(size, value, "o", markersize=9, color=colors[entry.name], zorder=3)
        _place_labels(figure, axes, [(x, y, e.name) for x, y, e in zip(sizes, scores, scored, strict=True)])
        return _svg(figure, "score", f"Size against {report.metric}")


def latency_plot(report: Measurements) -> str | None:
    """p50 for each entry and thread count, with a line up to p90; None where nothing was timed."""
    groups = {
        entry.name: [
            _Bar(threads_words(one.threads), one.p50_ms, significant(one.p50_ms, "ms"), one.p90_ms)
            for one in entry.latencies
        ]
        for entry in report.entries
        if entry.latencies
    }
    return _bars(report, groups, "latency", "Latency of one inference") if groups else None


def size_plot(report: Measurements) -> str:
    """Bytes of each entry, as it is and compressed."""
    groups = {
        entry.name: [
            _Bar("as it is", entry.size_bytes, human_bytes(entry.size_bytes)),
            _Bar("gzip", entry.gzip_bytes, human_bytes(entry.gzip_bytes)),
        ]
        for entry in report.entries
    }
    return _bars(report, groups, "size", "Size of each file")


def _figure(height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.patch.set_alpha(0)
    return figure, axes


def _bars(report: Measurements, groups: dict[str, list[_Bar]], identity: str, description: str) -> str:
    """Bars under the name of their group: a long name then takes no width from the bars."""
    colors = entry_colors(report)
    lines = sum(len(bars) + 1.45 for bars in groups.values())
    longest = max(bar.whisker or bar.value for bars in groups.values() for bar in bars)
    left = 0.05 + 0.036 * max(len(bar.label) for bars in groups.values() for bar in bars)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.24 * lines)
        axes.axis("off")
        axes.set_xlim(-left * longest, 1.42 * longest)
        axes.set_ylim(lines, 0)
        line = 0.6
        for name, bars in groups.items():
            axes.text(-left * longest, line, name, va="center", weight="bold", parse_math=False)
            for index, bar in enumerate(bars):
                line += 1
                end = max(bar.whisker or 0, bar.value)
                axes.barh(line, bar.value, 0.68, color=colors[name], alpha=1 if index == 0 else 0.6)
                axes.text(-0.02 * longest, line, bar.label, va="center", ha="right", fontsize=10)
                axes.text(end + 0.02 * longest, line, bar.text, va="center", fontsize=10)
                if bar.whisker:
                    axes.plot((bar.value, end), (line, line), color=INK, linewidth=1.2, alpha=0.7)
            line += 1.45
        return _svg(figure, identity, description)


def _place_labels(figure: Figure, axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Puts each label at the nearest place where it covers neither a mark nor another label."""
    figure.canvas.draw()
    marks = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in marks]
    for x, y, name in points:
        label = axes.annotate(name, (x, y), xytext=OFFSETS[0], textcoords="offset points", parse_math=False)
        taken.append(_settle(label, taken, axes.bbox))
        if math.hypot(*label.get_position()) > LEADER_BEYOND:
            leader = {
                "arrowstyle": "-",
                "color": INK,
                "alpha": 0.5,
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 6,
            }
            axes.annotate(
                "",
                (x, y),
                xytext=label.get_position(),
                textcoords="offset points",
                arrowprops=leader,
                zorder=1,
            )


def _settle(label: Annotation, taken: list[Bbox], frame: BboxBase) -> Bbox:
    """Moves a label to its first free place (or leaves it at the last) and returns what it then covers."""
    for x, y in OFFSETS:
        label.set_position((x, y))
        label.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
        label.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")
        extent = label.get_window_extent()
        inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
        if inside and not any(extent.overlaps(other) for other in taken):
            break
    return Bbox(extent.get_points())


def _svg(figure: Figure, identity: str, description: str) -> str:
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # One page holds several plots: their ids must differ.
    svg = re.sub(r'\bid="', f'id="{identity}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{identity}-", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{_attribute(description)}" ', 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
