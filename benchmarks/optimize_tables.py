"""The tables of benchmarks/results/optimize.json."""

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


def render_summary(results: dict[str, Any]) -> str:
    sets = list(results["sets"].values())
    ways = [way for way in sets[0]["rows"] if way != "float32"]
    lines = [
        f"| data, network | {' | '.join(f'{way}: latency, size, points lost' for way in ways)} |",
        f"|---|{'---:|' * len(ways)}",
    ]
    for one in sets:
        cells = [_cell(one["rows"][way]) if way in one["rows"] else "failed" for way in ways]
        lines.append(f"| {one['title']}, {one['network'].replace('_', ' ')} | {' | '.join(cells)} |")
    lines += [
        "",
        f'`budget="{sets[0]["budget"]}"`, `max_drop={sets[0]["max_drop"]}`; shares of the float32 file, accuracy on '
        "the test data. Intervals, minutes and how it was measured are in [docs/optimize.md](docs/optimize.md).",
    ]
    missed = [
        f"{one['title']} ({1000 * one['rows']['float32']['p50_ms']:.1f} µs an inference in float32)"
        for one in sets
        if not one["tfopt"]["is_reached"]
    ]
    if missed:
        lines[-1] += f" Out of reach, so that the file is the closest: {', '.join(missed)}."
    return "\n".join([*lines, "", measured(results, "optimize")])


def _cell(row: dict[str, Any]) -> str:
    return f"{row['latency_share']:.0%}, {row['size_share']:.0%}, {100 * row['drop']:+.2f}"


def _interval(ends: list[float]) -> str:
    return " to ".join(f"{100 * end:.2f}" for end in ends)


RENDERERS = {
    "optimize": ("docs/optimize.md", render_optimize),
    "optimize_summary": ("README.md", render_summary),
}
SOURCES = {"optimize_summary": "optimize"}
