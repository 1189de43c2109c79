"""Reports of made-up figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.report import Entry, Latency, Report

HERE = this_machine().model_copy(update={"load_average": 0.1})
ELSEWHERE = HERE.model_copy(update={"cpu": "Another CPU", "logical_cores": 64})
ROUNDS = 20


def timed(p50_ms: float, *, threads: int | None = 1, noise: float = 0.002, seed: int = 0) -> Latency:
    """A latency whose rounds scatter by a fraction of it."""
    errors = np.random.default_rng(seed).normal(0, noise, ROUNDS)
    rounds = tuple((p50_ms * np.exp(errors - np.median(errors))).tolist())
    return Latency(
        threads=threads,
        p50_ms=p50_ms,
        p90_ms=1.2 * p50_ms,
        p99_ms=2 * p50_ms,
        throughput_per_second=1000 / p50_ms,
        repeats=100,
        p50_low_ms=p50_ms * (1 - max(0.02, noise)),
        p50_high_ms=p50_ms * (1 + max(0.02, noise)),
        round_medians_ms=rounds,
        percentiles_ms=tuple((p50_ms * np.linspace(0.9, 1.1, 101)).tolist()),
        outliers=0.01,
        core=1,
    )


def made_entry(name: str, size_bytes: int = 1000, *latencies: Latency, **fields: Any) -> Entry:
    given = {"kind": "tflite", "gzip_bytes": size_bytes // 2, "latencies": latencies, **fields}
    return Entry(name=name, path=f"{name}.tflite", size_bytes=size_bytes, **given)


def made_report(*entries: Entry, **fields: Any) -> Report:
    return Report(**{"title": "Digits", "metric": "top-1 accuracy", "machine": HERE, **fields}, entries=entries)
