"""Draws the tables of docs/targets.md from the results of several benchmarks, for `render.py`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, median
from typing import Any

from compression_tables import measured
from serving_tables import MODELS

from tfopt.benchmark.machine import Machine

__all__ = ["RENDERERS", "SOURCES"]

Row = dict[str, Any]
PAGE = "docs/targets.md"

HEADING = [
    "| way | beside | bytes | as fast, median | slowest and fastest | faster in | top 1 agrees |",
    "|---|---|---:|---:|---:|---:|---:|",
]
TFLITE = ("float16", "dynamic", "weight_only_int8", "weight_only_int4", "int16x8", "int8")
ONNX = ("onnx_float16", "onnx_int8")
FASTER = 1.05
"""What is less than this many times as fast is told by no single figure of a run."""


def render_tflite(results: dict[str, Row]) -> str:
    models = results["export"]["models"]
    lines = [*HEADING, *(_preset_line(models, name, "none") for name in TFLITE)]
    lines += _channel_lines(results["compression_channels"]["found"])
    lines += _sparse_lines(results["compression_sparse"]["found"]["rows"])
    ways = (
        f"The presets: {len(models)} trained networks ({', '.join(models)}), of which one that a preset refuses is "
        "left out. Half the FLOPs: two networks, fine-tuned, beside the same type unpruned. Zeros: two wide Dense "
        "layers, beside the same type and zeros stored densely. One thread; “faster in”: by at least 5 %."
    )
    return "\n".join([*lines, "", ways, "", _sources(results, "export", "compression")])


def render_onnx(results: Row) -> str:
    lines = [*HEADING, *(_preset_line(results["models"], name, "onnx_none") for name in ONNX)]
    lines += ["", "The same networks, beside their float32 .onnx files."]
    return "\n".join([*lines, "", measured(results, "export")])


def render_accelerators(results: Row) -> str:
    lines = [
        "| network | Edge TPU: operators on it, predicted | of the plain converter's file "
        "| Ethos-U55-128: operators on it | Vela's estimate, ms | with 80 % zeros |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, model in results["models"].items():
        edge, plain, ethos = (model["rows"][key] for key in ("edge_tpu", "from_keras_model", "ethos_u"))
        zeros = f"{ethos['sparse_latency_ms']:.3g}" if "sparse_latency_ms" in ethos else "not estimated"
        lines.append(
            f"| {name} | {_mapped(edge)} | {_mapped(plain)} "
            f"| {ethos['accelerated_operators']} of {ethos['operators']} | {ethos['latency_ms']:.3g} | {zeros} |"
        )
    return "\n".join([*lines, "", measured(results, "export")])


def render_serving(results: Row) -> str:
    lines = ["| model | clients | answers/s, batching | p99, ms | answers/s, no batching | p99, ms | as many |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, found in results["models"].items():
        for clients, rows in found["summary"].items():
            ours, plain = rows["tfopt"], rows["no batching"]
            cells = [MODELS[name], clients]
            for one in (ours, plain):
                cells += [f"{one['throughput_per_second']['median']:.1f}", f"{one['p99_ms']['median']:.1f}"]
            lines.append(f"| {' | '.join(cells)} | {plain['tfopt_times']['median']:.2f}× |")
    lines += ["", "`tfopt serve` on a CPU, medians of rounds; [serving.md](serving.md#measured) tells the rest."]
    return "\n".join([*lines, "", measured(results, "serving")])


def _preset_line(models: dict[str, Row], name: str, baseline: str) -> str:
    pairs = [(model["rows"][baseline], model["rows"][name]) for model in models.values()]
    pairs = [(plain, row) for plain, row in pairs if "latency_ms" in row]
    speeds = [plain["latency_ms"] / row["latency_ms"] for plain, row in pairs]
    sizes = [row["size_bytes"] / plain["size_bytes"] for plain, row in pairs]
    agreement = [row["top1_agreement"] for _, row in pairs]
    title = f"`{name.removeprefix('onnx_')}`"
    return _line(title, "float32", sizes, speeds, f"{min(agreement):.0%} – {max(agreement):.0%}")


def _channel_lines(found: dict[str, Row]) -> list[str]:
    runs = [run for case in found.values() for run in case["runs"]]
    lines = []
    for kind, name in (("none", "float32"), ("int8", "int8")):
        files = [(run["files"][f"dense_{kind}"], run["files"][f"pruned_{kind}"]) for run in runs]
        sizes = [pruned["size_bytes"] / dense["size_bytes"] for dense, pruned in files]
        # Seeds of one network are one network.
        speeds = [1 / mean(run["latency_ratio"][kind] for run in case["runs"]) for case in found.values()]
        lines.append(_line("half the FLOPs, `prune_channels`", f"{name}, unpruned", sizes, speeds, ""))
    return lines


def _sparse_lines(rows: list[Row]) -> list[str]:
    return [
        _line(
            f"{row['sparsity']:.0%} zeros in blocks of {'×'.join(map(str, row['block']))}, `sparse_weights`",
            f"{'float32' if row['quantization'] == 'none' else row['quantization']}, dense",
            [row["size_ratio"]],
            [1 / row["latency_ratio"]],
            "",
        )
        for row in rows
    ]


def _line(way: str, beside: str, sizes: list[float], speeds: list[float], agreement: str) -> str:
    cells = [way, beside, f"{median(sizes):.0%}", f"{median(speeds):.2f}×"]
    cells += [f"{min(speeds):.2f}× – {max(speeds):.2f}×" if len(speeds) > 1 else ""]
    cells += [f"{sum(speed >= FASTER for speed in speeds)} of {len(speeds)}", agreement]
    return f"| {' | '.join(cells)} |"


def _mapped(row: Row) -> str:
    found = row.get("edge_tpu")
    return f"{found['mapped_operators']} of {found['operators']}" if found else "no usable file"


def _sources(results: dict[str, Row], *scripts: str) -> str:
    where = "; ".join(sorted({Machine(**one["machine"]).processor for one in results.values()}))
    return f"Measured on {where}, by {' and '.join(f'`python benchmarks/{script}.py`' for script in scripts)}."


RENDERERS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "targets_tflite": (PAGE, render_tflite),
    "targets_onnx": (PAGE, render_onnx),
    "targets_accelerators": (PAGE, render_accelerators),
    "targets_serving": (PAGE, render_serving),
}
SOURCES: dict[str, str | tuple[str, ...]] = {
    "targets_tflite": ("export", "compression_channels", "compression_sparse"),
    "targets_onnx": "export",
    "targets_accelerators": "export",
    "targets_serving": "serving",
}
