"""Renders benchmarks/results/*.json into the README and docs/, between the markers that bear the result's name.

python benchmarks/render.py
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import compression_search_tables
import compression_tables
import export_tables
import harness_tables
import optimize_tables
import scoreboard_tables
import serving_tables
import target_tables
import training_tables
from compression_tables import span

from tfopt.benchmark.machine import Machine

ROOT = Path(__file__).resolve().parent


def milliseconds(entry: dict[str, Any], threads: int) -> float | None:
    return next((latency["p50_ms"] for latency in entry["latencies"] if latency["threads"] == threads), None)


def render_real_models(results: dict[str, Any]) -> str:
    lines = [
        "| model | file | score | change, points | size, bytes | after gzip | p50 ms, 1 thread | against float32 |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    machine = ""
    for name, result in results.items():
        baseline, *_ = entries = result["report"]["entries"]
        for entry in entries:
            ours, theirs = milliseconds(entry, 1), milliseconds(baseline, 1)
            faster = "not measured" if not ours or not theirs else f"{theirs / ours:.2f}× as fast"
            lines.append(
                f"| {name} ({result['parameters']:,} parameters) | {entry['name']} | {entry['score']:.2%} "
                f"| {100 * (entry['score'] - baseline['score']):+.2f} | {entry['size_bytes']:,} "
                f"| {entry['gzip_bytes']:,} | {ours:.3g} | {faster} |"
            )
        machine = Machine(**result["report"]["machine"]).processor
    lines += ["", f"Measured on {machine}, by `python benchmarks/real_models.py`; latencies of one run, interleaved."]
    return "\n".join(lines)


WAYS = {
    "float": "float32",
    "post_training": "post-training",
    "tfmot": "tfmot, quantization-aware",
    "tfopt": "tfopt, quantization-aware",
}


def render_quantization(results: dict[str, Any]) -> str:
    timing, memory, machine = results["timing"], results["memory"], results["machine"]
    versions = machine["versions"] | results["peer"]
    cases = {**results["accuracy"], "depthwise": results["depthwise"], "hard case": results["hard_case"]}
    widths = {
        title: f"between 1/{rescale['width']} and {rescale['width']}"
        for title, case in cases.items()
        if (rescale := case["settings"]["rescale"])
    }
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if name in SHOWN)
    return "\n".join(
        [
            *_training_cost(timing, memory),
            "",
            f"MobileNetV2 at {timing['side']} × {timing['side']}, batch of {timing['batch_size']}. Times: medians of "
            f"{timing['rounds']} rounds, in which each framework runs {timing['steps']} float, {timing['steps']} "
            f"quantize-aware and {timing['steps']} float steps in turn. Memory: the largest resident set of a fresh "
            f"process that trains {memory['steps']} steps, median of {memory['repeats']}.",
            "",
            *_accuracies(cases),
            "",
            "Means over the seeds; each accuracy is the .tflite's on the whole test set. Agreement and LSB compare the "
            "file with its framework's own outputs there (post-training: with the float model's).",
            "",
            *(f"- {title}: {_settings(case)}." for title, case in cases.items()),
            "",
            "Two networks were made hard after their training in float, without changing what they compute. "
            f"Depthwise: each channel of a depthwise kernel is multiplied by a factor of its own, "
            f"{widths['depthwise']}, which its batch norm takes back. Hard case: so is each channel of an activation, "
            f"{widths['hard case']}, which the next layer takes back.",
            "",
            *_depthwise_levels(cases),
            "",
            "How many different int8 values the nine weights of a depthwise channel have in the file: the fewest and "
            "the median of all channels, and how many channels have a single one: they see no pattern.",
            "",
            f"Measured on {Machine(**machine).processor}, by `python benchmarks/quantization.py`: {shown}.",
        ]
    )


SHOWN = ("tfopt", "tensorflow", "keras", "tf_keras", "tensorflow-model-optimization")


def _training_cost(timing: dict[str, Any], memory: dict[str, Any]) -> list[str]:
    lines = [
        "| training | float step, s | quantize-aware step, s | ratio | of single rounds | ratio of CPU time "
        "| two equal float blocks | float peak, MiB | quantize-aware peak, MiB | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, clocks in timing["frameworks"].items():
        times = clocks["wall"]
        peaks = [memory["frameworks"][name][model]["peak_bytes"]["median"] for model in ("float", "aware")]
        lines.append(
            f"| {name} | {times['float_seconds']['median']:.3f} | {times['aware_seconds']['median']:.3f} "
            f"| {times['aware_over_float']['median']:.2f} | {span(times['aware_over_float'])} "
            f"| {clocks['cpu']['aware_over_float']['median']:.2f} | {span(times['float_over_float'])} "
            f"| {peaks[0] / 2**20:,.0f} | {peaks[1] / 2**20:,.0f} | {peaks[1] / peaks[0]:.2f} |"
        )
    return lines


def _accuracies(cases: dict[str, Any]) -> list[str]:
    lines = [
        "| data | file | accuracy | of single seeds | change, points | loss recovered | agreement, top 1 "
        "| within 1 LSB | mean LSB | largest LSB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, case in cases.items():
        means = {way: statistics.mean(run[way]["accuracy"] for run in case["runs"]) for way in WAYS}
        loss = means["float"] - means["post_training"]
        for way, name in WAYS.items():
            rows = [run[way] for run in case["runs"]]
            accuracies = [row["accuracy"] for row in rows]
            # A share of next to nothing says nothing.
            trained = way in ("tfmot", "tfopt") and loss > 0.01
            cells = [title, name, f"{means[way]:.2%}", f"{min(accuracies):.2%} – {max(accuracies):.2%}"]
            cells += [f"{100 * (means[way] - means['float']):+.2f}"]
            cells += [f"{(means[way] - means['post_training']) / loss:.0%}" if trained else ""]
            if way == "float":
                cells += [""] * 4
            else:
                cells += [
                    f"{statistics.mean(row[key] for row in rows):.2%}" for key in ("top1_agreement", "within_one_lsb")
                ]
                cells += [f"{statistics.mean(row['mean_lsb'] for row in rows):.2f}"]
                cells += [f"{max(row['max_lsb'] for row in rows):.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _depthwise_levels(cases: dict[str, Any]) -> list[str]:
    lines = [
        "| data | file | channels | fewest values | median | channels with one value |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for title, case in cases.items():
        for way, name in WAYS.items():
            found = [levels for run in case["runs"] if (levels := run[way].get("depthwise_levels"))]
            if found:
                channels, single = (sum(levels[key] for levels in found) for key in ("channels", "with_one_level"))
                fewest, median = min(levels["smallest"] for levels in found), [levels["median"] for levels in found]
                lines.append(
                    f"| {title} | {name} | {channels:,} | {fewest} | {statistics.median(median):g} "
                    f"| {single:,} ({single / channels:.0%}) |"
                )
    return lines


def _settings(case: dict[str, Any]) -> str:
    settings, fine_tune = case["settings"], case["settings"]["fine_tune"]
    samples = f" of {fine_tune['samples']:,} samples" if fine_tune["samples"] else ""
    epochs = f"{fine_tune['epochs']} epoch{'s' if fine_tune['epochs'] > 1 else ''}{samples}"
    return (
        f"`{settings['network']}` on {settings['file']}, {settings['train']['epochs']} epochs in float, then {epochs}, "
        f"batch of {fine_tune['batch_size']}, Adam from {fine_tune['learning_rate']:g} down to 0 by a cosine, "
        f"{len(case['runs'])} seed{'s' if len(case['runs']) > 1 else ''}"
    )


def render_networks(results: dict[str, Any]) -> str:
    trained = any("accuracy" in one for one in results.values())
    headings = ["network", "parameters", *(("float accuracy", "int8 accuracy") if trained else ()), "int8 file, bytes"]
    headings += ["top-1 agreement", "same integer", "within 1 step", "within 2 steps", "largest step"]
    lines = [f"| {' | '.join(headings)} |", f"|---{'|---:' * (len(headings) - 1)}|"]
    for name, one in results.items():
        if one["status"] != "int8":
            lines.append(f"| {name} | {' | '.join(['not converted'] * (len(headings) - 1))} |")
            continue
        shares = {int(step): share for step, share in one["lsb_distribution"].items()}
        within = [sum(share for step, share in shares.items() if step <= most) for most in (0, 1, 2)]
        cells = [name, f"{one['parameters']:,}"]
        cells += [f"{one['accuracy']:.2%}", f"{one['int8_accuracy']:.2%}"] if trained else []
        cells += [f"{one['size_bytes']:,}", f"{one['top1_agreement']:.2%}", *(f"{share:.1%}" for share in within)]
        lines.append(f"| {' | '.join([*cells, str(max(shares))])} |")
    return "\n".join(lines)


def render_ensemble(results: dict[str, Any]) -> str:
    lines = [
        "| data | models | test accuracy | less than all seven, points | of single seeds | p50 ms, .tflite | as fast |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in results["data"].items():
        whole = [next(row for row in run["rows"] if row["whole"]) for run in runs]
        chosen = [next(row for row in run["rows"] if row["chosen"]) for run in runs]
        single = [run["rows"][0] for run in runs]
        sizes = " or ".join(str(size) for size in sorted({len(row["weights"]) for row in chosen}))
        three = f"any three of seven (worst and best: {_ends(runs, 'worst')}, {_ends(runs, 'best')})"
        student = "a student of the chosen (alone "
        student += f"{statistics.mean(run['student']['alone_accuracy'] for run in runs):.2%})"
        ways: dict[str, tuple[list[float], list[float] | None]] = {
            "all seven": ([row["test_accuracy"] for row in whole], [row["latency_ms"] for row in whole]),
            f"pruned to {sizes}": ([row["test_accuracy"] for row in chosen], [row["latency_ms"] for row in chosen]),
            three: ([run["any_three"]["mean"] for run in runs], None),
            "best on validation": ([row["test_accuracy"] for row in single], [row["latency_ms"] for row in single]),
            student: ([run["student"]["distilled_accuracy"] for run in runs], None),
        }
        for way, (accuracies, latencies) in ways.items():
            drops = [row["test_accuracy"] - accuracy for row, accuracy in zip(whole, accuracies, strict=True)]
            cells = [name, way, f"{statistics.mean(accuracies):.2%}", f"{100 * statistics.mean(drops):.2f}"]
            cells.append(f"{100 * min(drops):.2f} – {100 * max(drops):.2f}")
            if latencies is None:
                cells += ["", ""]
            else:
                faster = [row["latency_ms"] / one for row, one in zip(whole, latencies, strict=True)]
                cells += [f"{statistics.mean(latencies):.4f}", f"{statistics.mean(faster):.2f}×"]
            lines.append(f"| {' | '.join(cells)} |")
    counts = [len(runs) for runs in results["data"].values()]
    kinds = {"adult": "dense ones on Adult", "fashion": "convolutional ones on Fashion-MNIST"}
    seeds = str(counts[0]) if len(set(counts)) == 1 else " and ".join(map(str, counts))
    samples = "; ".join(
        f"{name}: {runs[0]['samples']['training']:,} training, {runs[0]['samples']['validation']:,} validation and "
        f"{runs[0]['samples']['test']:,} test samples"
        for name, runs in results["data"].items()
    )
    lines += [
        "",
        f"Seven networks of several sizes on each data set ({', '.join(kinds[name] for name in results['data'])}), "
        f'`prune(size=3, target="latency: 50%")`, {seeds} seed{"s" if seeds != "1" else ""}. {samples}.',
        "",
        compression_tables.measured(results, "ensemble"),
    ]
    return "\n".join(lines)


def _ends(runs: list[dict[str, Any]], end: str) -> str:
    return f"{statistics.mean(run['any_three'][end] for run in runs):.2%}"


RENDERERS = {
    "ensemble": ("docs/ensemble.md", render_ensemble),
    "networks": ("docs/quantization.md", render_networks),
    "networks_trained": ("docs/quantization.md", render_networks),
    "real_models": ("README.md", render_real_models),
    "quantization": ("docs/quantization.md", render_quantization),
    **compression_search_tables.RENDERERS,
    **compression_tables.RENDERERS,
    **export_tables.RENDERERS,
    **harness_tables.RENDERERS,
    **optimize_tables.RENDERERS,
    **scoreboard_tables.RENDERERS,
    **serving_tables.RENDERERS,
    **target_tables.RENDERERS,
    **training_tables.RENDERERS,
}


SOURCES: dict[str, str | tuple[str, ...]] = {
    **optimize_tables.SOURCES,
    **scoreboard_tables.SOURCES,
    **target_tables.SOURCES,
}
"""The results that a table is drawn from, where they have another name than it; of several it gets a mapping."""


def main() -> None:
    for name, (page, render) in RENDERERS.items():
        path = ROOT.parent / page
        source = SOURCES.get(name, name)
        names = (source,) if isinstance(source, str) else source
        files = {one: ROOT / "results" / f"{one}.json" for one in names}
        if absent := [file.name for file in files.values() if not file.exists()]:
            print(f"{page}: nothing to render, {', '.join(absent)} is not measured yet.")
            continue
        results = {one: json.loads(file.read_text()) for one, file in files.items()}
        table = render(results[source] if isinstance(source, str) else results)
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = path.read_text()
        if not pattern.search(text):
            raise SystemExit(f"{page} lacks the markers {begin} and {end}.")
        path.write_text(pattern.sub(lambda _, block=f"{begin}\n{table}\n{end}": block, text))


if __name__ == "__main__":
    main()
