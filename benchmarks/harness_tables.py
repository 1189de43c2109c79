"""The table of benchmarks/results/harness.json."""

from __future__ import annotations

from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]

NAMES = {"digits": "CNN for digits", "mobilenet": "MobileNetV2 0.5, 96 × 96"}


def render_harness(results: dict[str, Any]) -> str:
    lines = [
        "| model | p50, ms | harness / bare loop, median of pairs | repeated runs agree: p50 | ratio "
        "| false alarms on identical files | too noisy to tell |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in results["models"].items():
        bare, repeated, identical = (found[key] for key in ("bare_loop", "repeated_runs", "identical_files"))
        pairs, runs = len(bare["pairs"]), len(repeated["runs"]) - 1
        agree = [round(repeated["agree"][key] * runs) for key in ("p50_interval_ms", "speedup_interval")]
        p50_ms = sorted(run["p50_ms"] for run in repeated["runs"])
        lines.append(
            f"| {NAMES[name]} | {p50_ms[0]:.3g} – {p50_ms[-1]:.3g} | {bare['median_ratio']:.3f} of {pairs} "
            f"| {agree[0]} of {runs} | {agree[1]} of {runs} "
            f"| {identical['false_alarms']} of {len(identical['runs'])} | {identical['too_noisy']} |"
        )
    lines += ["", measured(results, "harness")]
    return "\n".join(lines)


RENDERERS = {"harness": ("docs/benchmark.md", render_harness)}
