"""The report as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tfopt.benchmark.comparison import compare, headline, threads_words
from tfopt.benchmark.costs import derived_figures
from tfopt.benchmark.distribution_plot import distribution_plot
from tfopt.benchmark.earlier import EARLIER_COLUMNS, earlier_remarks, earlier_rows
from tfopt.benchmark.figure_columns import BASELINE, NOT_COMPARED, measured_columns, speedup_cell
from tfopt.benchmark.measurements import Contents, Entry, Measurements
from tfopt.benchmark.pareto import pareto_front
from tfopt.benchmark.plots import (
    entry_colors,
    latency_plot,
    latency_score_plot,
    operator_plot,
    size_plot,
    size_score_plot,
)
from tfopt.benchmark.units import NOT_MEASURED, human_bytes, percent, signed, significant, span
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


def render_page(report: Measurements, earlier: Measurements | None = None) -> str:
    """The page: it loads nothing, reads in light and dark, and fits a phone.

    Args:
        report: what is shown.
        earlier: what it is shown beside, in a section of its own.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("tfopt.benchmark").joinpath("report.html.jinja").read_text("utf-8"))
    ringed = "A ring: on the Pareto front. Grey is the baseline."
    plots = [
        ("Score against size", size_score_plot(report), f"Up and to the left is better. {ringed}"),
        ("Score against latency", latency_score_plot(report), f"Up and to the left is better. {ringed}"),
        ("Latency", latency_plot(report), "Median of one inference; the line reaches the 90th percentile."),
        (
            "Distribution of latencies",
            distribution_plot(report),
            "Single inferences from the 1st to the 99th percentile of each; the line is the median.",
        ),
        ("Size", size_plot(report), "What is stored on the device, and what is downloaded."),
        (
            "Operators",
            operator_plot(report),
            "Time of each kind within one inference, as the runtime's profiler tells.",
        ),
    ]
    return template.render(
        report=report,
        headlines=[headline(report, entry) for entry in _best_first(report)] or [headline(report, report.baseline)],
        columns=[column.heading for column in measured_columns(report)],
        rows=_rows(report),
        front=pareto_front(report),
        unimportant=(NOT_MEASURED, BASELINE, NOT_COMPARED),
        colors=entry_colors(report),
        # matplotlib escapes the names in its text elements.
        plots=[(title, Markup(svg), caption) for title, svg, caption in plots if svg],
        latencies=[
            _latency_row(report, entry, index) for entry in report.entries for index in range(len(entry.latencies))
        ],
        operators=[(entry.name, _operator_rows(entry)) for entry in report.entries if entry.operators],
        derived=[
            (entry.name, threads_words(one.threads), one)
            for entry in report.entries
            for one in derived_figures(report, entry)
        ],
        estimates=[(entry.name, one) for entry in report.entries for one in entry.estimates],
        error_columns=ERROR_COLUMNS,
        errors=_error_rows(report),
        verifications=[(entry.name, _verification(entry)) for entry in report.entries if not entry.error],
        inspected=any(entry.contents for entry in report.entries),
        contents=[
            (entry.name, _contents(entry.contents) if entry.contents else None)
            for entry in report.entries
            if not entry.error
        ],
        in_float=sum(not row.quantized for row in report.coverage),
        earlier_columns=EARLIER_COLUMNS,
        earlier_rows=earlier_rows(report, earlier) if earlier else [],
        earlier_remarks=earlier_remarks(report, earlier) if earlier else [],
        pinned=sorted({one.core for entry in report.entries for one in entry.latencies if one.core is not None}),
        human_bytes=human_bytes,
        significant=significant,
        NOT_MEASURED=NOT_MEASURED,
    )


def _best_first(report: Measurements) -> list[Entry]:
    """All that were measured but the baseline, smallest first; those about as small by speed, then by score."""

    def order(entry: Entry) -> tuple[int, int, float]:
        difference = compare(entry, report.baseline)
        # Rounding to steps of 5 % on a logarithmic scale makes equal what differs by noise.
        size, speed = (
            round(math.log(ratio or 1) / math.log(1.05)) for ratio in (difference.size_ratio, difference.speedup)
        )
        return -size, -speed, -(difference.score_change or 0.0)

    return sorted((entry for entry in report.entries[1:] if not entry.error), key=order)


def _rows(report: Measurements) -> list[tuple[Entry, list[tuple[str, str]]]]:
    """Each entry and its cells: text, and a remark such as the exact number of bytes; of one that failed none."""
    figures, rows = measured_columns(report), []
    for index, entry in enumerate(report.entries):
        remarks = {"size": f"{entry.size_bytes:,} bytes", "gzip": f"{entry.gzip_bytes:,} bytes"}
        first = compare(entry, report.baseline).first
        if first and index:
            remarks["faster"] = f"at {threads_words(first.threads)}"
        cells = [(column.heading, column.cells[index]) for column in figures if not entry.error]
        rows.append(
            (
                entry,
                [(cell.text, "\n".join(filter(None, (cell.remark, remarks.get(key, ""))))) for key, cell in cells],
            )
        )
    return rows


def _latency_row(report: Measurements, entry: Entry, index: int) -> list[tuple[str, str]]:
    """The cells of `Latency in full`."""
    one = entry.latencies[index]
    interval = "" if one.p50_low_ms is None or one.p50_high_ms is None else span(one.p50_low_ms, one.p50_high_ms)
    speedups = {speedup.threads: speedup for speedup in compare(entry, report.baseline).speedups}
    faster = speedup_cell(speedups.get(one.threads))
    return [
        (entry.name, ""),
        (threads_words(one.threads), ""),
        (significant(one.p50_ms, "ms"), interval),
        (significant(one.p90_ms, "ms"), ""),
        (significant(one.p99_ms, "ms"), ""),
        (significant(one.throughput_per_second), ""),
        (BASELINE, "") if entry is report.baseline else (faster.text, faster.remark),
        (f"{one.repeats:,}", "" if one.outliers is None else f"{percent(one.outliers)} far out"),
    ]


def _operator_rows(entry: Entry) -> list[tuple[str, str, str, str]]:
    """The operators of a file, the slowest first: name, kind, time and share."""
    total = sum(one.time_ms for one in entry.operators)
    return [
        (one.name, one.kind, significant(one.time_ms), percent(one.time_ms / total if total else None))
        for one in sorted(entry.operators, key=lambda one: -one.time_ms)
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
