"""Draws the table of benchmarks/serving.py for `render.py`."""

from __future__ import annotations

from typing import Any

from compression_tables import measured

from tfopt import BatchingParameters

__all__ = ["RENDERERS"]

NAMES = {
    "no batching": "tfopt serve, no batching",
    "tfopt": "tfopt serve",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "ray": "Ray Serve",
}
OWN = ("no batching", "tfopt")
MODELS = {"dense": "4 × Dense(3200)", "cnn": "CNN"}


def render_serving(results: dict[str, Any]) -> str:
    lines = [
        "| model | clients | server | answers/s | of single rounds | p50, ms | p99, ms | failed | tfopt's throughput |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for model, found in results["models"].items():
        for clients, rows in found["summary"].items():
            for server, title in NAMES.items():
                first = f"| {MODELS[model]} | {clients} | {title}{_version(results, server)} |"
                if server in rows:
                    lines.append(f"{first} {' | '.join(_cells(rows[server]))} |")
                elif server in results["missing"]:
                    lines.append(f"{first} could not be installed | | | | | |")
    lines += ["", *(f"- {MODELS[model]}: {_described(found)}." for model, found in results["models"].items())]
    lines += ["", *(f"- {line}." for model, found in results["models"].items() for line in _against_best(model, found))]
    settings = results["settings"]
    lines += [
        "",
        f"Closed loops: each client sends its next request when the last one is answered. Medians over the rounds; in "
        f"a round each server is started, answers 64 requests that are compared with the model's output, warms up for "
        f"{settings['warmup_seconds']:g} s, is loaded for {settings['seconds']:g} s by each number of clients, and is "
        "ended before the next one starts. The last column divides tfopt's throughput by the server's of the same "
        "round. All have the same TensorFlow, the same SavedModel and batches of at most "
        f"{settings['max_batch_size']}, get the same bytes of JSON over HTTP, and share the machine with the clients; "
        "each runs one batch at a time and batches as its documentation has it; tfopt waits up to "
        f"{_timeout_ms(settings['tfopt_batching']):g} ms for as many requests as there are clients.",
        "",
        measured(results, "serving"),
    ]
    return "\n".join(lines)


def _timeout_ms(parameters: str) -> float:
    return BatchingParameters.from_text(parameters).batch_timeout_micros / 1000


def _against_best(model: str, found: dict[str, Any]) -> list[str]:
    """tfopt against the peer with the highest throughput, for each number of clients."""
    lines = []
    for clients, rows in found["summary"].items():
        speeds = {name: row["throughput_per_second"]["median"] for name, row in rows.items() if name not in OWN}
        best = max(speeds, key=speeds.__getitem__, default=None)
        # Without an answer in any round there is nothing to compare with.
        if best is None or rows[best]["tfopt_times"] is None or rows["tfopt"]["p99_ms"] is None:
            continue
        ours, theirs = (rows[name]["p99_ms"] for name in ("tfopt", best))
        p99 = f"{ours['median']:.1f} against {theirs['median']:.1f} ms" if theirs else "not comparable"
        lines.append(
            f"{MODELS[model]}, {clients} client{'s' if clients != '1' else ''}: {NAMES[best]} is the best peer; "
            f"tfopt has {rows[best]['tfopt_times']['median']:.2f}× its throughput, p99 {p99}"
        )
    return lines


def _version(results: dict[str, Any], server: str) -> str:
    versions = results["peers"].get(server, {})
    return f" {next(iter(versions.values()))}" if versions else ""


def _cells(row: dict[str, Any]) -> list[str]:
    speed, times = row["throughput_per_second"], row["tfopt_times"]
    latencies = ["" if row[key] is None else f"{row[key]['median']:.1f}" for key in ("p50_ms", "p99_ms")]
    failed = f"{row['errors']:,} of {row['requests']:,}" if row["errors"] else "0"
    against = "" if times is None else f"{times['median']:.2f}× ({times['smallest']:.2f} – {times['largest']:.2f})"
    return [f"{speed['median']:.1f}", f"{speed['smallest']:.1f} – {speed['largest']:.1f}", *latencies, failed, against]


def _described(found: dict[str, Any]) -> str:
    shape = " × ".join(map(str, found["input_shape"]))
    rounds = len(found["rounds"])
    return (
        f"{found['parameters']:,} parameters, inputs of {shape}, {found['request_bytes'] / 1000:,.0f} kB a request; "
        f"{rounds} round{'s' if rounds > 1 else ''}"
    )


def render_batching_search(results: dict[str, Any]) -> str:
    lines = [
        "| model | load | setting of | setting | answers/s in time | of single rounds | p99, ms | found in |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for model, found in results["models"].items():
        best = max(found["best_of_grid"], key=lambda one: found["final"][one]["goodput_per_second"]["median"])
        load = f"{found['clients']} clients, within {found['slo_ms']:.0f} ms"
        said = f"the search: {'do not batch' if found['chosen'] == 'no batching' else 'batch'}"
        rows = [
            (said, found["chosen"], f"{found['search_seconds']:.0f} s, {found['share_of_time']:.0%} of the grid's time")
        ]
        rows.append(("the grid's best", best, f"{found['grid']['seconds']:.0f} s"))
        rows += [("no batching", "no batching", "")] if found["chosen"] != "no batching" else []
        for whose, setting, spent in rows:
            row = found["final"][setting]
            speed = row["goodput_per_second"]
            lines.append(
                f"| {SEARCHED[model]} | {load} | {whose} | {setting} | {speed['median']:.0f} "
                f"| {speed['smallest']:.0f} – {speed['largest']:.0f} | {row['p99_ms']:.0f} | {spent} |"
            )
    lines += ["", *(f"- {SEARCHED[model]}: {_share(found)}." for model, found in results["models"].items())]
    lines += [
        "",
        "Closed loops. The grid: no batching, and batches of up to 2 to 64 with time-outs of 0, 1, 5 and 20 ms and one "
        "batch at a time or as many as cores, each measured as long and as often as the search measures its last "
        "settings. Figures are of a comparison after it, in turns.",
        "",
        measured(results, "batching_search"),
    ]
    return "\n".join(lines)


SEARCHED = {"dense": "4 × Dense(3200)", "small": "a small MLP", "convolutions": "6 × Conv2D(64) on 96 × 96"}


def _share(found: dict[str, Any]) -> str:
    return f"the search's choice has {found['share_of_best']:.1%} of the throughput of the grid's best"


RENDERERS = {
    "serving": ("docs/serving.md", render_serving),
    "batching_search": ("docs/serving.md", render_batching_search),
}
