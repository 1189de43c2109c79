"""Draws the table of benchmarks/export.py for `render.py`: files in rows, models in columns."""

from __future__ import annotations

from typing import Any

from compression_tables import measured

__all__ = ["RENDERERS"]

Row = dict[str, Any]

PRESETS = ("none", "float16", "dynamic", "weight_only_int8", "weight_only_int4", "int16x8", "int8_float_io", "int8")
TITLES = {
    **{name: f"`{name}`" for name in PRESETS},
    "from_keras_model": "plain converter, int8",
    "litert": 'plain `model.export(format="litert")`, float32',
    "edge_tpu": "Edge TPU: operators on it",
    "ethos_u": "Ethos-U: operators on it",
    "onnx_none": "ONNX `none`",
    "onnx_float16": "ONNX `float16`",
    "onnx_int8": "ONNX `int8`",
}
PLAIN = ("from_keras_model", "litert")
INTEGER_TENSORS = ("int8", "int16x8")


def render_export(results: dict[str, Any]) -> str:
    models, notes = results["models"], list[str]()
    lines = [f"| | {' | '.join(models)} |", f"|---|{'---:|' * len(models)}"]
    lines.append(f"| Keras | {' | '.join(_keras_cell(model) for model in models.values())} |")
    for key, title in TITLES.items():
        cells = [_cell(key, model, notes) for model in models.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    whole = all(
        row["full_integer"]
        for model in models.values()
        for key, row in model["rows"].items()
        if key in INTEGER_TENSORS and "full_integer" in row
    )
    lines += [
        "",
        "In each cell: size; signal-to-noise ratio against Keras; how often the largest logit is the same; median time "
        "of a call on one thread. The ratio and the agreement of several outputs are those of the worse one. `int8` is "
        'exported with `engine="best"`: by ai-edge-quantizer where the cell says so, else by the converter.',
        "",
        "For the Ethos-U (U55-128) Vela's estimates are given, of the file and, for networks with convolutions, of "
        "that of the same network with 80 % zeros; for the Edge TPU what tfopt predicts, as no compiler was there.",
        "",
        *(["Refused:", ""] if notes else []),
        *(f"{number}. {note}" for number, note in enumerate(notes, start=1)),
        *([""] if notes else []),
        f"All {sum(model['audited_files'] for model in models.values())} files that tfopt wrote passed its audit when "
        f"they were read again; {'all' if whole else 'NOT all'} int8 and int16x8 files compute on integers only.",
        "",
        "What is wrong with the files of the plain ways:",
        "",
        *_plain_faults(models),
        "",
        *(
            f"- {name}: {model['data']}, trained for {model['epochs']} epoch{'s' if model['epochs'] > 1 else ''}, "
            f"{model['test_samples']:,} test samples."
            for name, model in models.items()
        ),
    ]
    return "\n".join([*lines, "", measured(results, "export")])


def _keras_cell(model: Row) -> str:
    accuracies = ", ".join(f"{accuracy:.1%}" for accuracy in model["accuracy"])
    return f"{model['parameters']:,} parameters<br>{accuracies} right"


def _cell(key: str, model: Row, notes: list[str]) -> str:
    row = model["rows"][key]
    if key == "edge_tpu" and "edge_tpu" in row:
        found, plain = row["edge_tpu"], model["rows"]["from_keras_model"].get("edge_tpu")
        shares = [f"{_share(found)} ({found['source'].split()[0]})"]
        return "<br>".join([*shares, *([f"plain {_share(plain)}"] if plain else [])])
    if key == "ethos_u" and "target" in row:
        parts = [f"{row['accelerated_operators']} of {row['operators']}", f"{row['latency_ms']:.3g} ms"]
        if "sparse_latency_ms" in row:
            parts.append(f"{row['sparse_latency_ms']:.3g} ms ({row['sparse_latency_ms'] / row['latency_ms'] - 1:+.0%})")
        return "<br>".join(parts)
    if "refused" in row or "failed" in row:
        return f"refused {_number(key, row, notes)}" if "refused" in row else "**failed**"
    if "sqnr_db" not in row:
        return "no usable file"
    ratio = row["sqnr_db"]
    parts = [f"{row['size_bytes'] / 1000:,.0f} kB", ratio if isinstance(ratio, str) else f"{ratio:.1f} dB"]
    parts += [f"{row['top1_agreement']:.1%}"]
    parts += [f"{row['latency_ms']:.3g} ms"] if "latency_ms" in row else []
    parts += ["ai-edge-quantizer"] if row.get("engine") == "ai-edge-quantizer" else []
    return "<br>".join(parts)


def _share(found: Row) -> str:
    return f"{found['mapped_operators']} of {found['operators']}"


def _number(key: str, row: Row, notes: list[str]) -> int:
    text = f"{TITLES[key]}: {_first_sentence(row['refused'])}"
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _first_sentence(message: str) -> str:
    """Names of layers and files hold full stops, but no spaces behind them."""
    reason = " ".join(message.split()).removeprefix("No engine gave a usable file. ")
    sentence, _, _ = reason.partition(". ")
    return f"{sentence.rstrip('.')}."


def _plain_faults(models: dict[str, Row]) -> list[str]:
    lines = []
    for way in PLAIN:
        for name, model in models.items():
            wrong = model["rows"][way]["wrong"]
            lines.append(f"- {TITLES[way]}, {name}: {'; '.join(wrong).rstrip('.') if wrong else 'nothing'}.")
    return lines


RENDERERS = {"export": ("docs/export.md", render_export)}
