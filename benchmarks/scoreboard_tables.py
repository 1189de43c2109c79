"""Draws the tables of benchmarks/scoreboard.py for `render.py`."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS", "SOURCES"]

Row = dict[str, Any]

TOOLS = {
    "converter": "TFLite converter",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "onnx_runtime": "ONNX Runtime",
    "neural_compressor": "Neural Compressor",
    "mct": "MCT",
    "tfmot": "tfmot",
    "tfopt": "tfopt",
}
METHODS = {
    "float": "float32",
    "ptq": "int8, post-training",
    "qat": "int8, quantization-aware",
    "pruned": "pruned, int8 post-training",
    "pruned_qat": "pruned, int8 quantization-aware",
}
ALIKE_POINTS = 0.1
ALIKE_SIZE = 0.1


def runs(results: Row, name: str, tool: str, method: str) -> list[Row]:
    """What each seed gave."""
    found = (results["rows"].get(f"{name}/{seed}/{tool}/{method}") for seed in range(len(seeds(results, name))))
    return [row for row in found if row]


def seeds(results: Row, name: str) -> list[Row]:
    """The float networks."""
    return [row for title, row in results["rows"].items() if title.startswith(f"{name}/") and title.endswith("/train")]


def works(rows: list[Row]) -> bool:
    return bool(rows) and all("accuracy" in row for row in rows)


def sets(results: Row) -> list[str]:
    return [name for name in results["sets"] if seeds(results, name)]


def render_scoreboard(results: Row) -> str:
    lines = ["### In short", "", *_comparison(results), ""]
    for name in sets(results):
        settings, floats = results["sets"][name], seeds(results, name)
        lines += [
            f"### {settings['title']}",
            "",
            f"`{settings['network']}`, {floats[0]['parameters']:,} parameters; {_settings(settings)}; "
            f"{len(floats)} seed{'s' if len(floats) > 1 else ''}.",
            "",
            *_set_table(results, name),
            "",
        ]
    tools = (
        f"{TOOLS[tool]} ({', '.join(f'{library} {version}' for library, version in versions.items())})"
        for tool, versions in results["tools"].items()
    )
    return "\n".join(
        [
            *lines,
            f"Tools: {'; '.join(tools)}. All of it took {results['seconds'] / 60:.0f} minutes.",
            "",
            measured(results, "scoreboard"),
        ]
    )


def _settings(settings: Row) -> str:
    stages = {"train": "in float", "fine_tune": "of quantization-aware fine-tuning", "prune": "of pruning"}
    epochs = ", ".join(f"{settings[stage]['epochs']} {what}" for stage, what in stages.items())
    samples = f", of {settings['train_samples']:,} training samples only" if settings["train_samples"] else ""
    return f"epochs: {epochs}{samples}; {settings['prune']['sparsity']:.0%} zeros"


def _comparison(results: Row) -> list[str]:
    lines = [
        "| data | | tfopt | best other tool | difference, points | bytes after gzip, tfopt | other | tfopt is |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for name in sets(results):
        for method, title in METHODS.items():
            ours = runs(results, name, "tfopt", method)
            if not works(ours):
                continue
            cells = [results["sets"][name]["title"], title, f"{_accuracy(ours):.2%}"]
            other, theirs = best_other(results, name, method)
            if other:
                cells += [f"{_accuracy(theirs):.2%} ({TOOLS[other]})", _difference(ours, theirs)]
                cells += [f"{_mean(rows, 'gzip_bytes'):,.0f}" for rows in (ours, theirs)] + [_verdict(ours, theirs)]
            else:
                cells += ["none", "", f"{_mean(ours, 'gzip_bytes'):,.0f}", "", "alone"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def best_other(results: Row, name: str, method: str) -> tuple[str, list[Row]]:
    """The tool besides tfopt with the highest mean accuracy; an empty name where none gave a file for every seed."""
    candidates = {tool: runs(results, name, tool, method) for tool in TOOLS if tool != "tfopt"}
    count = len(runs(results, name, "tfopt", method))
    working = {tool: rows for tool, rows in candidates.items() if works(rows) and len(rows) == count}
    best = max(working, key=lambda tool: _accuracy(working[tool]), default="")
    return best, working.get(best, [])


def _gains(ours: list[Row], theirs: list[Row]) -> tuple[float, float]:
    """The mean difference in points, seed by seed, and its standard error."""
    gains = [100 * (mine["accuracy"] - other["accuracy"]) for mine, other in zip(ours, theirs, strict=True)]
    return mean(gains), stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0


def _difference(ours: list[Row], theirs: list[Row]) -> str:
    gain, error = _gains(ours, theirs)
    return f"{gain:+.2f} ± {error:.2f}"


def _verdict(ours: list[Row], theirs: list[Row]) -> str:
    gain, error = _gains(ours, theirs)
    place = "tied" if abs(gain) <= max(2 * error, ALIKE_POINTS) else "first" if gain > 0 else "**behind**"
    ratio = _mean(ours, "gzip_bytes") / _mean(theirs, "gzip_bytes")
    if abs(ratio - 1) <= ALIKE_SIZE:
        return place
    return f"{place}, at {ratio:.2f} times the size"


def _set_table(results: Row, name: str) -> list[str]:
    lines = [
        "| tool | file | accuracy | of single seeds | change, points | same class as float | bytes | after gzip "
        "| p50 ms, 1 thread | zeros | train step, float steps | training, s | export, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    before = mean(row["framework_accuracy"] for row in seeds(results, name))
    for method, title in METHODS.items():
        for tool in TOOLS:
            rows = runs(results, name, tool, method)
            if not rows:
                continue
            if not works(rows):
                lines.append(f"| {TOOLS[tool]} | {title} | {_failure(rows)} |{' |' * 10}")
                continue
            accuracies = [row["accuracy"] for row in rows]
            latency = results["latency"].get(name, {}).get("rows", {}).get(rows[0]["file"], {})
            cells = [TOOLS[tool], title, f"{mean(accuracies):.2%}", f"{min(accuracies):.2%} – {max(accuracies):.2%}"]
            cells += [f"{100 * (mean(accuracies) - before):+.2f}", f"{_mean(rows, 'top1_agreement'):.1%}"]
            cells += [f"{_mean(rows, 'size_bytes'):,.0f}", f"{_mean(rows, 'gzip_bytes'):,.0f}"]
            cells += [f"{latency['p50_ms']:.3g}" if "p50_ms" in latency else "not measured"]
            cells += [f"{_mean(rows, 'zeros'):.0%}" if "zeros" in rows[0] else ""]
            trained = "step_ms" in rows[0]
            cells += [f"{mean(row['step_ms'] / row['float_step_ms'] for row in rows):.2f}" if trained else ""]
            cells += [f"{_mean(rows, 'train_seconds'):.1f}" if trained else "", f"{_mean(rows, 'export_seconds'):.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _failure(rows: list[Row]) -> str:
    reasons = dict.fromkeys(
        f"not installed: {row['not_installed']}" if "not_installed" in row else f"failed: {row.get('failed')}"
        for row in rows
        if "accuracy" not in row
    )
    return "; ".join(reason.replace("|", "\\|") for reason in reasons)


def render_summary(results: Row) -> str:
    """The short table of the README."""
    methods = [method for method in METHODS if method != "float"]
    titles = [f"{METHODS[method]}: {whose}" for method in methods for whose in ("tfopt", "best other")]
    lines = [f"| data | float32 | {' | '.join(titles)} |", f"|---|{'---:|' * (1 + len(titles))}"]
    for name in sets(results):
        before = mean(row["framework_accuracy"] for row in seeds(results, name))
        cells = [results["sets"][name]["title"], f"{before:.2%}"]
        for method in methods:
            ours, (other, theirs) = runs(results, name, "tfopt", method), best_other(results, name, method)
            cells += [f"{_accuracy(ours):.2%}" if works(ours) else "failed"]
            cells += [f"{_accuracy(theirs):.2%} ({TOOLS[other]})" if other else "none"]
        lines.append(f"| {' | '.join(cells)} |")
    count = min(len(seeds(results, name)) for name in sets(results))
    lines += [
        "",
        f"Accuracy of the files on the whole test set, means of {count} seeds; the other tools are tfmot, the plain "
        "TFLite converter, ai-edge-quantizer, Sony's MCT, Neural Compressor and ONNX Runtime. Sizes, latencies, "
        "training times and what failed are in [docs/scoreboard.md](docs/scoreboard.md).",
    ]
    return "\n".join([*lines, "", measured(results, "scoreboard")])


def _mean(rows: list[Row], what: str) -> float:
    return mean(row[what] for row in rows)


def _accuracy(rows: list[Row]) -> float:
    return _mean(rows, "accuracy")


RENDERERS = {
    "scoreboard": ("docs/scoreboard.md", render_scoreboard),
    "scoreboard_summary": ("README.md", render_summary),
}
SOURCES = {"scoreboard_summary": "scoreboard"}
"""The results that a table is drawn from, where they have another name than it."""
