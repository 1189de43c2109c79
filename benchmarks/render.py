"""Renders benchmarks/results/*.json into the README, between the markers that bear the result's name.

python benchmarks/render.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
README = ROOT.parent / "README.md"


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
        described = result["report"]["machine"]
        machine = f"{described['cpu']}, {described['logical_cores']} logical cores"
    lines += ["", f"Measured on {machine}, by `python benchmarks/real_models.py`; latencies of one run, interleaved."]
    return "\n".join(lines)


RENDERERS = {"real_models": render_real_models}


def main() -> None:
    text = README.read_text()
    for name, render in RENDERERS.items():
        table = render(json.loads((ROOT / "results" / f"{name}.json").read_text()))
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md lacks the markers {begin} and {end}.")
        text = pattern.sub(lambda _, block=f"{begin}\n{table}\n{end}": block, text)
    README.write_text(text)


if __name__ == "__main__":
    main()
