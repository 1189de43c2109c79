"""The table of benchmarks/results/optimize.json."""

from __future__ import annotations

from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]


def render_optimize(results: dict[str, Any]) -> str:
    lines = [
        "| data, network | way | test accuracy | points lost (95 %) | size | latency | p50 ms | minutes |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in results["sets"].values():
        seconds = {"tfopt.optimize": one["tfopt"]["seconds"], **one["peers"]["seconds"]}
        for name, row in one["rows"].items():
            lost = "" if "drop" not in row else f"{100 * row['drop']:.2f} ({_interval(row['drop_interval'])})"
            minutes = f"{seconds[name] / 60:.1f}" if name in seconds else ""
            way = f"{name}: {one['tfopt']['chosen']}" if name == "tfopt.optimize" else name
            lines.append(
                f"| {one['title']}, {one['network'].replace('_', ' ')} | {way} | {row['accuracy']:.2%} | {lost} "
                f"| {row['size_share']:.0%} | {row['latency_share']:.0%} | {row['p50_ms']:.3g} | {minutes} |"
            )
        lines += [
            f"| {one['title']} | {name} | failed: {reason} | | | | | |"
            for name, reason in one["peers"].get("failed", {}).items()
        ]
    first = next(iter(results["sets"].values()))
    lines += [
        "",
        f'`budget="{first["budget"]}"`, `max_drop={first["max_drop"]}`. A tenth of the training data chose the '
        "candidates; accuracy, drop and interval are of the whole test data. Latencies of one run, in turns, on one "
        "thread. tfmot prunes to 80 % zeros and then trains quantization-aware, with as many epochs, batches and "
        "samples.",
    ]
    again = [one["title"] for one in results["sets"].values() if one["tfopt"].get("recipe_gives_same_bytes")]
    if again:
        lines[-1] += f" The found recipe, run again, gave the same bytes: {', '.join(again)}."
    return "\n".join([*lines, "", measured(results, "optimize")])


def _interval(ends: list[float]) -> str:
    return " to ".join(f"{100 * end:.2f}" for end in ends)


RENDERERS = {"optimize": ("docs/optimize.md", render_optimize)}
