"""The table of benchmarks/results/compression_search.json."""

from __future__ import annotations

from statistics import mean
from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]


def render_compression_search(results: dict[str, Any]) -> str:
    settings = results["settings"]
    lines = [
        "| data | float, test | random: validation | bayesian: validation | random: test | bayesian: test "
        "| trials within the budget: random | bayesian | CPU seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in results["sets"].values():
        runs = one["runs"]
        cells = [f"{mean(run['test_accuracy'] for run in runs):.2%}"]
        cells += [_best(runs, search, key) for key in ("score", "test_accuracy") for search in ("random", "bayesian")]
        cells += [_within(runs, search) for search in ("random", "bayesian")]
        lines.append(f"| {one['title']} | {' | '.join(cells)} | {mean(run['cpu_seconds'] for run in runs):.0f} |")
    first = next(iter(results["sets"].values()))
    lines += [
        "",
        f'`budget="{settings["budget"]}"`, {settings["trials"]} Bayesian trials, three groups of layers. '
        f"{_seeds(first)}; what had ended when the shorter search was done. A search sees validation accuracy only. "
        f"{settings['train_samples']:,} training samples at most.",
        "",
        measured(results, "compression_search"),
    ]
    return "\n".join(lines)


def _seeds(one: dict[str, Any]) -> str:
    count = len(one["runs"])
    return "One seed" if count == 1 else f"Means of {count} seeds"


def _best(runs: list[dict[str, Any]], search: str, key: str) -> str:
    found = [run["best"][search] for run in runs]
    return "none within the budget" if None in found else f"{mean(best[key] for best in found):.2%}"


def _within(runs: list[dict[str, Any]], search: str) -> str:
    rows = [row for run in runs for row in run["searches"][search]["rows"]]
    return f"{sum(row['test_accuracy'] is not None for row in rows)} of {len(rows)}"


RENDERERS = {"compression_search": ("docs/tuning.md", render_compression_search)}
