"""Draws the tables of benchmarks/compression.py for `render.py`."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from tfopt.benchmark.machine import Machine

__all__ = ["RENDERERS", "measured", "span"]


def render_pruning_overhead(results: dict[str, Any]) -> str:
    overhead = results["found"]
    settings = overhead["settings"]
    lines = [
        "| training | mask updates | step, s | bare steps | of single rounds | CPU time, bare steps |",
        "|---|---|---:|---:|---:|---:|",
    ]
    updates = {"bare": "none", "frequency_100": "every 100 steps", "frequency_1": "every step"}
    for framework in ("tfopt", "tfmot"):
        for variant, name in updates.items():
            row = overhead[framework][variant]
            wall = row["wall"]
            lines.append(
                f"| {framework} | {name} | {wall['step_seconds']:.3f} | {wall['bare_steps']['median']:.2f} "
                f"| {span(wall['bare_steps'])} | {row['cpu']['bare_steps']['median']:.2f} |"
            )
    lines += [
        "",
        f"MobileNetV2 at {settings['side']} × {settings['side']}, batch of {settings['batch_size']}: medians of "
        f"{settings['rounds']} rounds of {settings['block_steps']} steps, each way in a process of its own, in turns.",
        "",
        measured(results, "compression"),
    ]
    return "\n".join(lines)


def render_pruning_accuracy(results: dict[str, Any]) -> str:
    lines = [
        "| data | zeros | dense | tfmot | tfopt, per layer | tfopt, global | tfopt, ERK |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for title, case in results["found"].items():
        runs = case["runs"]
        dense = [run["dense"]["accuracy"] for run in runs]
        for level in sorted({row["sparsity"] for row in runs[0]["tfmot"]}):

            def cell(framework: str, allocation: str, level: float = level, runs: list[Any] = runs) -> str:
                found = [
                    row["accuracy"]
                    for run in runs
                    for row in run[framework]
                    if (row["sparsity"], row["allocation"]) == (level, allocation)
                ]
                return f"{mean(found):.2%} ({min(found):.2%} – {max(found):.2%})" if found else ""

            cells = [cell("tfmot", "per_layer"), *(cell("tfopt", how) for how in ("per_layer", "global", "erk"))]
            lines.append(f"| {title} | {level:.0%} | {mean(dense):.2%} | {' | '.join(cells)} |")
    lines.append("")
    for title, case in results["found"].items():
        prune = case["settings"]["prune"]
        lines.append(
            f"- {title}: `{case['settings']['network']}` on {case['settings']['file']}, trained for "
            f"{case['settings']['train']['epochs']} epochs, then pruned in {prune['epochs']}, the ramp in the first "
            f"{prune['ramp']:.0%} of them; Adam from {prune['learning_rate']:g} down to 0 by a cosine, "
            f"{len(case['runs'])} seeds."
        )
    lines += [
        "",
        "Means on the whole test set, and the least and the most of the seeds.",
        "",
        measured(results, "compression"),
    ]
    return "\n".join(lines)


def render_allocations(results: dict[str, Any]) -> str:
    lines = [
        "| data | zeros | dense | per layer | global | ERK | global − per layer, points | ERK − per layer, points |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, case in results["found"].items():
        runs = case["runs"]
        dense = mean(run["dense"]["accuracy"] for run in runs)
        for level in sorted({row["sparsity"] for row in runs[0]["tfopt"]}):
            scores: dict[str, list[float]] = {"per_layer": [], "global": [], "erk": []}
            for row in (row for run in runs for row in run["tfopt"] if row["sparsity"] == level):
                scores[row["allocation"]].append(row["accuracy"])
            cells = [f"{dense:.2%}", *(f"{mean(values):.2%}" for values in scores.values())]
            for allocation in ("global", "erk"):
                pairs = zip(scores[allocation], scores["per_layer"], strict=True)
                gains = [100 * (ours - per_layer) for ours, per_layer in pairs]
                cells.append(f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}")
            lines.append(f"| {title}, {len(runs)} seeds | {level:.0%} | {' | '.join(cells)} |")
    lines += ["", "± is the standard error of the mean.", "", measured(results, "compression")]
    return "\n".join(lines)


def render_pruning_equality(results: dict[str, Any]) -> str:
    lines = [
        "| data | network | zeros | steps | trained numbers | largest difference between tfopt and tfmot |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for title, case in results["found"].items():
        settings = case["settings"]
        lines.append(
            f"| {title} | `{settings['network']}` | {settings['way']['sparsity']:.0%} | {case['steps']} "
            f"| {case['weights']:,} | {case['largest_difference']:g} |"
        )
    return "\n".join([*lines, "", measured(results, "compression")])


def render_channel_pruning(results: dict[str, Any]) -> str:
    lines = [
        "| network | FLOPs left | parameters left | file | p50 ms, 1 thread | ratio | of single seeds | accuracy "
        "| change, points |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for title, case in results["found"].items():
        runs = case["runs"]
        flops = mean(run["flops_ratio"] for run in runs)
        parameters = mean(run["parameters"][1] / run["parameters"][0] for run in runs)
        for quantization, name in (("none", "float32"), ("int8", "int8")):
            dense, pruned = ([run["files"][f"{which}_{quantization}"] for run in runs] for which in ("dense", "pruned"))
            times = [mean(row["p50_ms"] for row in rows) for rows in (dense, pruned)]
            ratios = [run["latency_ratio"][quantization] for run in runs]
            scores = [mean(row["accuracy"] for row in rows) for rows in (dense, pruned)]
            lines.append(
                f"| {title} | {flops:.0%} | {parameters:.0%} | {name} | {times[0]:.3f} → {times[1]:.3f} "
                f"| {mean(ratios):.2f} | {min(ratios):.2f} – {max(ratios):.2f} | {scores[0]:.2%} → {scores[1]:.2%} "
                f"| {100 * (scores[1] - scores[0]):+.2f} |"
            )
    lines.append("")
    for title, case in results["found"].items():
        settings = case["settings"]
        lines.append(
            f"- {title}: `{settings['network']}` on {settings['file']}, {settings['train']['epochs']} epochs; "
            f'`prune_channels(target="{settings["target"]}", importance="{settings["importance"]}", '
            f"multiple_of={settings['multiple_of']})`; {settings['fine_tune']['epochs']} epochs of fine-tuning; "
            f"means of {len(case['runs'])} seeds."
        )
    lines += ["", measured(results, "compression")]
    return "\n".join(lines)


def render_sparse_inference(results: dict[str, Any]) -> str:
    lines = [
        "| file | blocks | zeros | accuracy | bytes, dense → sparse | p50 ms, dense → sparse | ratio |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in results["found"]["rows"]:
        dense, sparse = row["dense"], row["sparse"]
        name = {"none": "float32"}.get(row["quantization"], row["quantization"])
        lines.append(
            f"| {name} | {'×'.join(map(str, row['block']))} | {row['sparsity']:.0%} | {sparse['accuracy']:.2%} "
            f"| {dense['size_bytes']:,} → {sparse['size_bytes']:,} | {dense['p50_ms']:.3f} → {sparse['p50_ms']:.3f} "
            f"| {row['latency_ratio']:.2f} |"
        )
    settings = results["found"]["settings"]
    lines += [
        "",
        f"Two Dense layers of {settings['width']:,} units on Fashion-MNIST, {settings['epochs']} epochs; one thread.",
        "",
        measured(results, "compression"),
    ]
    return "\n".join(lines)


def render_deep_compression(results: dict[str, Any]) -> str:
    runs = results["found"]["runs"]
    lines = [
        "| stage | accuracy | of single seeds | file, bytes | smaller than float32 | of single seeds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    names = {"float": "float32", "pruned": "80 % zeros", "clustered": "and 16 values", "fine-tuned": "and fine-tuned"}
    for number, stage in enumerate(names):
        rows = [run["stages"][number] for run in runs]
        scores, ratios = ([row[key] for row in rows] for key in ("accuracy", "ratio"))
        lines.append(
            f"| {names[stage]} | {mean(scores):.2%} | {min(scores):.2%} – {max(scores):.2%} "
            f"| {mean(row['coded_bytes'] for row in rows):,.0f} | {mean(ratios):.1f}× "
            f"| {min(ratios):.1f} – {max(ratios):.1f} |"
        )
    lines += [
        "",
        f"A CNN of {runs[0]['parameters']:,} parameters on Fashion-MNIST, {len(runs)} seeds; the accuracy is that of "
        "the restored file on the 10,000 test images.",
        "",
        measured(results, "compression"),
    ]
    return "\n".join(lines)


def measured(results: dict[str, Any], script: str) -> str:
    """Where the figures are from."""
    return f"Measured on {Machine(**results['machine']).processor}, by `python benchmarks/{script}.py`."


def span(values: dict[str, float]) -> str:
    """From the smallest to the largest."""
    return f"{values['smallest']:.2f} – {values['largest']:.2f}"


RENDERERS = {
    "compression_overhead": ("docs/pruning.md", render_pruning_overhead),
    "compression_equality": ("docs/pruning.md", render_pruning_equality),
    "compression_accuracy": ("docs/pruning.md", render_pruning_accuracy),
    "compression_allocations": ("docs/pruning.md", render_allocations),
    "compression_channels": ("docs/pruning.md", render_channel_pruning),
    "compression_sparse": ("docs/pruning.md", render_sparse_inference),
    "compression_deep": ("docs/compression.md", render_deep_compression),
}
