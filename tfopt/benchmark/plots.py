"""The report's plots, as SVG that takes its text colour from the page around it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import matplotlib
from matplotlib.ticker import MaxNLocator

from tfopt.benchmark.comparison import threads_words
from tfopt.benchmark.figure_columns import timed_threads
from tfopt.benchmark.measurements import Entry, Measurements
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.pareto import pareto_front
from tfopt.benchmark.plot_drawing import INK, STYLE, WIDTH_INCHES, new_figure, place_labels, text_inches, to_svg
from tfopt.benchmark.units import human_bytes, significant

__all__ = [
    "entry_colors",
    "latency_plot",
    "latency_score_plot",
    "operator_plot",
    "size_plot",
    "size_score_plot",
]

BASELINE_COLOR = "#7d8590"
COLORS = ("#2f81f7", "#e8590c", "#2da44e", "#a371f7", "#d63384", "#0ca5b0", "#b8860b", "#e5484d")
OPERATOR_KINDS = 6
LONGEST_LABEL = 20


@dataclass(frozen=True)
class _Bar:
    label: str
    value: float
    text: str
    whisker: float | None = None


@dataclass(frozen=True)
class _Point:
    entry: Entry
    x: float
    score: float
    low: float | None = None
    high: float | None = None


def entry_colors(report: Measurements) -> dict[str, str]:
    """A colour for each entry that reads on light and dark; the baseline is grey."""
    others = [COLORS[index % len(COLORS)] for index in range(len(report.entries) - 1)]
    return dict(zip((entry.name for entry in report.entries), [BASELINE_COLOR, *others], strict=True))


def size_score_plot(report: Measurements) -> str | None:
    """Size against score, one mark for each entry; None where fewer than two were scored."""
    scored = [entry for entry in report.entries if entry.score is not None]
    if len(scored) < 2:
        return None
    unit, divisor = ("MiB", 1 << 20) if max(e.size_bytes for e in scored) >= 1 << 20 else ("KiB", 1 << 10)
    points = [_Point(entry, entry.size_bytes / divisor, entry.score or 0.0) for entry in scored]
    return _scatter(report, points, f"size, {unit}", "score", f"Size against {report.metric}")


def latency_score_plot(report: Measurements) -> str | None:
    """Median latency at the lowest thread count that two or more were timed at against score, with its interval."""
    for threads in timed_threads(report):
        timed = [
            (entry, latency)
            for entry in report.entries
            if entry.score is not None and (latency := entry.latency_at(threads)) is not None
        ]
        if len(timed) >= 2:
            break
    else:
        return None
    unit, factor = ("µs", 1000.0) if max(latency.p50_ms for _, latency in timed) < 0.1 else ("ms", 1.0)
    points = [
        _Point(
            entry,
            factor * latency.p50_ms,
            entry.score or 0.0,
            None if latency.p50_low_ms is None else factor * latency.p50_low_ms,
            None if latency.p50_high_ms is None else factor * latency.p50_high_ms,
        )
        for entry, latency in timed
    ]
    label = f"p50, {unit}, {threads_words(threads)}"
    return _scatter(report, points, label, "latency-score", f"Latency against {report.metric}")


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


def operator_plot(report: Measurements) -> str | None:
    """Time of each kind of operator, the slowest first; None where no runtime told it."""
    groups: dict[str, list[_Bar]] = {}
    for entry in report.entries:
        times: dict[str, list[float]] = defaultdict(list)
        for operator in entry.operators:
            times[operator.kind].append(operator.time_ms)
        slowest = sorted(times.items(), key=lambda one: -sum(one[1]))
        shown = [(_short(kind), ms) for kind, ms in slowest[:OPERATOR_KINDS]]
        if rest := [time for _, ms in slowest[OPERATOR_KINDS:] for time in ms]:
            shown.append(("others", rest))
        if shown:
            groups[entry.name] = [
                _Bar(label, sum(ms), f"{significant(sum(ms), 'ms')}{f' in {len(ms)}' if len(ms) > 1 else ''}")
                for label, ms in shown
            ]
    return _bars(report, groups, "operators", "Time of each kind of operator", fade=False) if groups else None


def _scatter(report: Measurements, points: list[_Point], label: str, identity: str, description: str) -> str:
    is_accuracy = report.metric in ACCURACIES
    factor = 100 if is_accuracy else 1
    scores = [factor * point.score for point in points]
    front, colors = pareto_front(report), entry_colors(report)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.5)
        axes.set_position((0.2, 0.16, 0.78, 0.81))
        # At least two points high, so that a small difference does not look like a large one.
        margin = max(0.25 * (max(scores) - min(scores)), 0.01 * factor)
        axes.set_ylim(min(scores) - margin, max(scores) + margin)
        axes.set_xlim(0, 1.15 * max(point.high or point.x for point in points))
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(label)
        axes.set_ylabel(f"{report.metric}{', %' if is_accuracy else ''}", parse_math=False)
        for point, value in zip(points, scores, strict=True):
            color, ring = colors[point.entry.name], INK if point.entry.name in front else "none"
            if point.low is not None and point.high is not None:
                axes.plot((point.low, point.high), (value, value), color=color, linewidth=3, alpha=0.5)
            axes.plot(point.x, value, "o", markersize=9, color=color, mec=ring, mew=1.6, zorder=3)
        spots = [(one.x, value, one.entry.name) for one, value in zip(points, scores, strict=True)]
        place_labels(figure, axes, spots, [(one.low or one.x, one.high or one.x) for one in points])
        return to_svg(figure, identity, description)


def _bars(
    report: Measurements, groups: dict[str, list[_Bar]], identity: str, description: str, *, fade: bool = True
) -> str:
    """Bars under the name of their group: a long name then takes no width from the bars."""
    colors = entry_colors(report)
    lines = sum(len(bars) + 1.45 for bars in groups.values())
    longest = max(bar.whisker or bar.value for bars in groups.values() for bar in bars) or 1.0
    every = [bar for bars in groups.values() for bar in bars]
    left, right = (
        0.12 + max(map(text_inches, texts)) for texts in ([bar.label for bar in every], [bar.text for bar in every])
    )
    unit = longest / max(WIDTH_INCHES - left - right, 1.0)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.24 * lines)
        axes.axis("off")
        axes.set_xlim(-left * unit, longest + right * unit)
        axes.set_ylim(lines, 0)
        line = 0.6
        for name, bars in groups.items():
            axes.text(-left * unit, line, name, va="center", weight="bold", parse_math=False)
            for index, bar in enumerate(bars):
                line += 1
                end = max(bar.whisker or 0, bar.value)
                axes.barh(line, bar.value, 0.68, color=colors[name], alpha=0.6 if fade and index else 1)
                axes.text(-0.06 * unit, line, bar.label, va="center", ha="right", fontsize=10, parse_math=False)
                axes.text(end + 0.06 * unit, line, bar.text, va="center", fontsize=10)
                if bar.whisker:
                    axes.plot((bar.value, end), (line, line), color=INK, linewidth=1.2, alpha=0.7)
            line += 1.45
        return to_svg(figure, identity, description)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
