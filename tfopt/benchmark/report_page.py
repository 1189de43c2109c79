"""The report as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tfopt.benchmark.comparison import compare, headline, threads_words
from tfopt.benchmark.measurements import Contents, Entry, Measurements
from tfopt.benchmark.metric import ACCURACIES
from tfopt.benchmark.plots import entry_colors, latency_plot, score_plot, size_plot
from tfopt.benchmark.report_table import timed_threads
from tfopt.benchmark.units import (
    NOT_MEASURED,
    factor,
    human_bytes,
    percent,
    score_change_text,
    score_text,
    signed,
    significant,
)
from tfopt.inspection_table import Part
from tfopt.output_error import ErrorDistribution

__all__ = ["render_page"]

MEASUREMENTS = {
    "samples": "samples compared",
    "max_absolute_error": "largest difference",
    "sqnr_db": "signal to quantization noise, dB",
    "top1_agreement": "same class as Keras",
    "max_lsb": "largest difference in int8 steps",
}
ERROR_COLUMNS = ("error against", "bias", "standard deviation", "1 %", "5 %", "median", "95 %", "99 %", "largest")
PART_COLUMNS = ["weights", "zero", "distinct", "size", "gzip", "coded", "FLOPs", "output"]


def render_page(report: Measurements) -> str:
    """The page: it loads nothing, reads in light and dark, and fits a phone."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("tfopt.benchmark").joinpath("report.html.jinja").read_text("utf-8"))
    plots = [
        ("Score against size", score_plot(report), "Up and to the left is better. Grey is the baseline."),
        ("Latency", latency_plot(report), "Median of one inference; the line reaches the 90th percentile."),
        ("Size", size_plot(report), "What is stored on the device, and what is downloaded."),
    ]
    return template.render(
        report=report,
        headlines=[headline(report, entry) for entry in _best_first(report)] or [headline(report, report.baseline)],
        columns=_columns(report),
        rows=[_row(report, entry) for entry in report.entries],
        colors=entry_colors(report),
        # matplotlib escapes the names in its text elements.
        plots=[(title, Markup(svg), caption) for title, svg, caption in plots if svg],
        latencies=[
            (entry.name, threads_words(one.threads), one) for entry in report.entries for one in entry.latencies
        ],
        estimates=[(entry.name, one) for entry in report.entries for one in entry.estimates],
        error_columns=ERROR_COLUMNS,
        errors=_error_rows(report),
        verifications=[(entry.name, _verification(entry)) for entry in report.entries],
        inspected=any(entry.contents for entry in report.entries),
        contents=[(entry.name, _contents(entry.contents) if entry.contents else None) for entry in report.entries],
        in_float=sum(not row.quantized for row in report.coverage),
        human_bytes=human_bytes,
        significant=significant,
        NOT_MEASURED=NOT_MEASURED,
    )


def _best_first(report: Measurements) -> list[Entry]:
    """All but the baseline, smallest first; those about as small are ordered by speed, then by score."""

    def order(entry: Entry) -> tuple[int, int, float]:
        difference = compare(entry, report.baseline)
        # Rounding to steps of 5 % on a logarithmic scale makes equal what differs by noise.
        size, speed = (
            round(math.log(ratio or 1) / math.log(1.05)) for ratio in (difference.size_ratio, difference.speedup)
        )
        return -size, -speed, -(difference.score_change or 0.0)

    return sorted(report.entries[1:], key=order)


def _columns(report: Measurements) -> list[str]:
    timed = [f"p50, {threads_words(threads)}" for threads in timed_threads(report)]
    change = "change, points" if report.metric in ACCURACIES else "change"
    return [report.metric or "accuracy", change, "size", "smaller", "gzip", *timed, "faster", "peak memory"]


def _row(report: Measurements, entry: Entry) -> tuple[Entry, list[tuple[str, str]]]:
    """An entry and its cells: text, and a remark such as the exact number of bytes."""
    first, difference = entry is report.baseline, compare(entry, report.baseline)
    at = f"at {threads_words(difference.threads)}" if difference.speedup is not None else ""
    latencies = [entry.latency_at(threads) for threads in timed_threads(report)]
    change = score_change_text(report.metric, difference.score_change)
    return entry, [
        (score_text(report.metric, entry.score), ""),
        ("baseline" if first else change.removesuffix(" points"), ""),
        (human_bytes(entry.size_bytes), f"{entry.size_bytes:,} bytes"),
        ("baseline" if first else factor(difference.size_ratio), ""),
        (human_bytes(entry.gzip_bytes), f"{entry.gzip_bytes:,} bytes"),
        *((significant(latency.p50_ms if latency else None, "ms"), "") for latency in latencies),
        ("baseline" if first else factor(difference.speedup), "" if first else at),
        (human_bytes(entry.peak_memory_bytes), ""),
    ]


def _contents(contents: Contents) -> dict[str, Any]:
    """A summary, and a table of the parts that hold or compute something: name, kind and the cells of each row."""
    total = contents.total
    weights = f"{total.weights:,} weights, {percent(total.zeros)} zero" if total.weights else "no weights"
    uncounted = sum(part.flops is None for part in contents.parts)
    missing = f", not counted in {uncounted} of {len(contents.parts)} parts" if uncounted else ""
    flops = [f"{total.flops:,} FLOPs{missing}"] if total.flops else []
    size, zipped, coded = map(human_bytes, (total.size_bytes, total.gzip_bytes, total.coded_bytes))
    listed = [part for part in contents.parts if part.weights or part.flops != 0]
    # Mostly the model's name: names without it fit a phone.
    first = (listed or [total])[0].name.partition("/")[0] + "/"
    common = first if all(part.name.startswith(first) for part in listed) else ""
    columns = [*PART_COLUMNS, f"faster on {contents.target}?"] if contents.zeros_sentence else PART_COLUMNS
    return {
        "summary": "; ".join([weights, *flops, f"{size}, {zipped} gzip, {coded} coded"]),
        "zeros": contents.zeros_sentence,
        "columns": columns,
        "rows": [
            (part.name.removeprefix(common), f"{part.kind} {part.dtypes}".strip(), _part_cells(part)[: len(columns)])
            for part in (*listed, total)
        ],
        "left_out": len(contents.parts) - len(listed),
    }


def _part_cells(part: Part) -> list[str]:
    sizes = map(human_bytes, (part.size_bytes, part.gzip_bytes, part.coded_bytes))
    held = [f"{part.weights:,}", percent(part.zeros), f"{part.distinct_values:,}", *sizes]
    flops = "?" if part.flops is None else f"{part.flops:,}" if part.flops else ""
    shape = "×".join("?" if size is None or size < 0 else str(size) for size in part.shape)
    return [*(held if part.weights else [""] * len(held)), flops, shape, part.zeros_use]


def _verification(entry: Entry) -> list[tuple[str, str]]:
    rows = []
    for name, value in entry.verification.items():
        if name == "error":
            lowest, *_, highest = value["quantiles"]
            rows.append(("error, its bias", signed(value["bias"])))
            rows.append(("its standard deviation", significant(value["standard_deviation"])))
            rows.append(("from 1 % to 99 %", f"{signed(lowest)} to {signed(highest)}"))
        else:
            rows.append((MEASUREMENTS.get(name, name.replace("_", " ")), _plain(value)))
    return rows


def _error_rows(report: Measurements) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What an entry adds to the baseline's error first, then every entry's own: its name, against what, the cells."""
    added = [(entry.name, report.baseline.name, entry.error_against_baseline) for entry in report.entries]
    own = [(entry.name, "targets", entry.error_against_targets) for entry in report.entries]
    return [(name, against, _error_cells(error)) for name, against, error in (*added, *own) if error]


def _error_cells(error: ErrorDistribution) -> list[tuple[str, str]]:
    """Signed figures, and the same in units of the output's standard deviation."""

    def cell(value: float, text: Callable[[float, str], str] = signed) -> tuple[str, str]:
        ratio = error.in_output_deviations(value)
        return text(value, ""), "" if ratio is None else text(ratio, "σ")

    return [
        cell(error.bias),
        cell(error.standard_deviation, significant),
        *(cell(quantile) for quantile in error.quantiles),
        cell(error.max_absolute, significant),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(one) for one in value)
    return "none" if value is None else str(value)
