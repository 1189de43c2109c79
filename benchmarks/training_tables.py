"""Draws the tables of the benchmarks of training and early exits for `render.py`."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]

METHODS = {
    "alone": "student alone",
    "keras": "Keras's Distiller, as its page shows it",
    "keras_divergence": "Keras's Distiller, KL divergence",
    "keras_feature": "Keras's Distiller, features",
    "tfopt_logits": "tfopt, logits",
    "tfopt_decoupled": "tfopt, decoupled",
    "tfopt_feature": "tfopt, logits and features",
    "tfopt_logits_cached": "tfopt, logits, cached answers",
    "tfopt_feature_cached": "tfopt, logits and features, cached answers",
    "self_keras_feature": "Keras's Distiller, features, a student as large as the teacher",
    "self_tfopt_feature": "tfopt, logits and features, a student as large as the teacher",
}


def render_distillation(results: dict[str, Any]) -> str:
    sets = {name: one for name, one in results.items() if name != "machine"}
    titles = []
    for name, one in sets.items():
        titles += [f"{name}, accuracy", "of single seeds", *(["epoch, times the student's alone"] * ("timing" in one))]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for method, title in METHODS.items():
        cells = []
        for one in sets.values():
            row = one.get("accuracy", {}).get(method)
            cells += (
                [f"{row['mean']:.2%}", f"{min(row['accuracies']):.2%} – {max(row['accuracies']):.2%}"]
                if row
                else ["", ""]
            )
            if timing := one.get("timing"):
                cells.append(f"{timing[method]['median'] / timing['alone']['median']:.2f}" if method in timing else "")
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append("")
    for name, one in sets.items():
        parameters = one["accuracy"]["alone"]["parameters"]
        lines.append(
            f"- {name}{_samples(one)}: a teacher of {one['teacher']['parameters']:,} parameters and "
            f"{one['teacher']['accuracy']:.2%}, a student of {parameters:,}; "
            f"{one['settings']['student']['epochs']} epochs, {len(one['accuracy']['alone']['accuracies'])} seeds."
        )
    return "\n".join([*lines, "", measured(results, "distillation")])


def _samples(one: dict[str, Any]) -> str:
    samples = one["settings"].get("data", {}).get("samples")
    return f", {samples:,} training samples" if samples else ""


def render_early_stopping(results: dict[str, Any]) -> str:
    lines = [
        "| data | schedule | planned epochs | epochs saved | seconds saved | accuracy, planned → stopped "
        "| change, points | of single seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in results.items():
        if name == "machine":
            continue
        settings, means, runs = one["settings"], one["means"], one["runs"]
        scores = [mean(run[which]["accuracy"] for run in runs) for which in ("full", "stopped")]
        changes = [100 * run["accuracy_change"] for run in runs]
        lines.append(
            f"| {name} | {settings['schedule']['kind'].replace('_', ' ')} | {settings['epochs']} "
            f"| {means['epochs_saved']:.0%} | {means['seconds_saved']:.0%} | {scores[0]:.2%} → {scores[1]:.2%} "
            f"| {100 * means['accuracy_change']:+.2f} | {min(changes):+.2f} – {max(changes):+.2f} |"
        )
    seeds = len(next(one for name, one in results.items() if name != "machine")["runs"])
    lines += [
        "",
        f"Means of {seeds} seeds. A tenth of the training data decides the stop; accuracy is on the test set.",
    ]
    return "\n".join([*lines, "", measured(results, "early_stopping")])


def render_early_exit(results: dict[str, Any]) -> str:
    runs, settings = results["runs"], results["settings"]

    def over(*keys: str | int) -> float:
        values = []
        for run in runs:
            value = run
            for key in keys:
                value = value[key]
            values.append(value)
        return mean(values)

    lines = [
        "| | alone | with exits | |",
        "|---|---:|---:|---:|",
        f"| accuracy | {over('alone_accuracy'):.2%} (last exit of the other: {over('last_exit_accuracy'):.2%}) "
        f"| {over('accuracy'):.2%} | {100 * over('drop_against_better'):.2f} points given up |",
        f"| mean MFLOPs | {over('full_flops') / 1e6:.2f} | {over('mean_flops') / 1e6:.2f} "
        f"| × {over('flops_fraction'):.2f} |",
    ]
    shares = ", ".join(f"{over('exits', number, 'share'):.0%}" for number in range(len(runs[0]["exits"])))
    lines.append(f"| samples that leave at each exit | | {shares} | |")
    rows = {
        "mean ms, .tflite in float32": ("tflite", "none"),
        "mean ms, .tflite in int8": ("tflite", "int8"),
        "mean ms, SavedModel": ("saved_model", "batch_1"),
        "ms of a batch of 64, SavedModel": ("saved_model", "batch_64"),
    }
    for title, place in rows.items():
        whole, staged = (over(*place, "mean_latency_ms", which) for which in ("whole", "staged"))
        lines.append(f"| {title} | {whole:.3f} | {staged:.3f} | × {over(*place, 'latency_fraction'):.2f} |")
    for title, kind in (("bytes, .tflite in float32", "none"), ("bytes, .tflite in int8", "int8")):
        whole, staged = (over("tflite", kind, f"{which}_bytes") for which in ("whole", "staged"))
        lines.append(f"| {title} | {whole:,.0f} | {staged:,.0f} | × {staged / whole:.2f} |")
    lines += [
        "",
        f"A residual network on Fashion-MNIST, trained for {settings['epochs']} epochs alone and with exits at "
        f"{' and '.join(settings['exits'])}, {len(runs)} seed{'s' if len(runs) > 1 else ''}; thresholds chosen on a "
        f"tenth of the training data held out (`max_drop={settings['max_drop']}`), figures of the 10,000 test samples.",
    ]
    return "\n".join([*lines, "", measured(results, "early_exit")])


def render_batch_size(results: dict[str, Any]) -> str:
    sweep, rounds = results["samples_per_second"], results["sweeps"]
    best = max(sweep.values())
    lines = [
        "| batch size | samples/s, `fit` | of single rounds | of the best | searches that chose it |",
        "|---:|---:|---:|---:|---:|",
    ]
    for size, throughput in sweep.items():
        chosen = sum(search["batch_size"] == int(size) for search in results["searches"])
        single = [one["samples_per_second"][size] for one in rounds]
        lines.append(
            f"| {size} | {throughput:,.0f} | {min(single):,.0f} – {max(single):,.0f} | {throughput / best:.0%} "
            f"| {chosen or ''} |"
        )
    medians, seconds = results["medians"], mean(search["seconds"] for search in results["searches"])
    lines += [
        "",
        f"An epoch of {results['samples']:,} samples at each size takes {median(one['seconds'] for one in rounds):.0f} "
        f"s. A search takes {seconds:.1f} s: {medians['seconds_of_sweep']:.0%} of that, and "
        f"{medians['seconds_of_same_protocol']:.0%} of timing every size once. "
        f"Its choice has {medians['throughput_of_best']:.0%} of the best throughput (median of "
        f"{len(results['searches'])} searches; at worst {results['worst_throughput_of_best']:.0%}). Throughputs are "
        f"medians of {len(rounds)} rounds, sizes and searches in turns.",
    ]
    return "\n".join([*lines, "", measured(results, "batch_size")])


def render_epoch_end(results: dict[str, Any]) -> str:
    seconds = results["seconds"]
    ways = list(next(iter(seconds.values())))
    lines = [
        f"| samples | {' | '.join(f'{way}, s | of single epochs' for way in ways)} |",
        f"|---:|{'---:|---:|' * len(ways)}",
    ]
    for count, row in seconds.items():
        cells = [f"{mean(row[way]):.2f} | {min(row[way]):.2f} – {max(row[way]):.2f}" for way in ways]
        lines.append(f"| {int(count):,} | {' | '.join(cells)} |")
    rounds = len(next(iter(next(iter(seconds.values())).values())))
    lines += ["", f"Seconds of an epoch in batches of {results['batch_size']}: means of {rounds}, in turns."]
    return "\n".join([*lines, "", measured(results, "epoch_end")])


RENDERERS = {
    "batch_size": ("docs/training.md", render_batch_size),
    "distillation": ("docs/distillation.md", render_distillation),
    "early_exit": ("docs/early-exit.md", render_early_exit),
    "epoch_end": ("docs/training.md", render_epoch_end),
    "early_stopping": ("docs/training.md", render_early_stopping),
}
