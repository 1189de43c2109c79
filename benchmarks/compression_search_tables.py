"""The table of benchmarks/results/compression_search.json."""

from __future__ import annotations

from statistics import mean
from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]


def render_compression_search(results: dict[str, Any]) -> str:
    settings = results["settings"]
    lines = [
        "| data | seeds | float, test | random: validation (test) | Bayesian | trials within budget | CPU seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in results["sets"].values():
        runs = one["runs"]
        cells = [str(len(runs)), f"{mean(run['test_accuracy'] for run in runs):.2%}"]
        cells += [_best(runs, search) for search in ("random", "bayesian")]
        cells.append(" and ".join(_within(runs, search) for search in ("random", "bayesian")))
        lines.append(f"| {one['title']} | {' | '.join(cells)} | {mean(run['cpu_seconds'] for run in runs):.0f} |")
    lines += [
        "",
        f'`budget="{settings["budget"]}"`, {settings["trials"]} trials each, three groups of layers. '
        "Means over the seeds, of what had ended when the shorter search was done. A search sees validation accuracy "
        f"only. {settings['trial_samples']:,} training samples a trial at most.",
        "",
        measured(results, "compression_search"),
    ]
    return "\n".join(lines)


def _best(runs: list[dict[str, Any]], search: str) -> str:
    found = [run["best"][search] for run in runs]
    if None in found:
        return "none within the budget"
    validation, test = (mean(best[key] for best in found) for key in ("score", "test_accuracy"))
    return f"{validation:.2%} ({test:.2%})"


def _within(runs: list[dict[str, Any]], search: str) -> str:
    rows = [row for run in runs for row in run["searches"][search]["rows"]]
    return f"{sum(row['test_accuracy'] is not None for row in rows) / len(rows):.0%}"


RENDERERS = {"compression_search": ("docs/tuning.md", render_compression_search)}
