"""The search for batching parameters: what it refuses, and one whole search on a small model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import pytest

from tfopt.artifact import Artifact
from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.folder import export_serving
from tfopt.serving.tuning.batch_tuner import tune_batching
from tfopt.serving.tuning.tuning_report import MeasuredSetting, TuningReport


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_size": 1}, "max_batch_size must be an integer of at least 2. Received: 1"),
        ({"rounds": 1}, "rounds must be an integer of at least 2. Received: 1"),
        ({"slo_ms": 0.0}, "slo_ms must be above zero. Received: 0.0"),
        ({"clients": 0}, "clients must be an integer of at least 1. Received: 0"),
        ({"clients": 2, "rate_per_second": 3.0}, "either clients"),
        ({"model": "absent"}, "Received: absent"),
    ],
)
def test_what_cannot_be_searched_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    with pytest.raises(ConfigError, match=message):
        tune_batching(tmp_path, **options)


def setting(parameters: BatchingParameters | None, *throughputs: float) -> MeasuredSetting:
    count = len(throughputs)
    return MeasuredSetting(
        parameters=parameters,
        simulated_per_second=100.0,
        throughputs_per_second=throughputs,
        p50_ms=(1.0,) * count,
        p99_ms=(2.0,) * count,
    )


def test_the_report_marks_the_choice() -> None:
    best = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(8,), num_batch_threads=2)
    report = TuningReport(
        endpoint="here",
        load="closed loop, 4 clients",
        slo_ms=50.0,
        simulated=48,
        settings=(setting(best, 300, 310, 320), setting(None, 100, 110, 90)),
        choice=best,
        reason="Batch.",
        seconds=12.0,
    )
    lines = str(report).splitlines()
    assert "answers within 50 ms counted; 48 settings simulated, 12 s in all" in lines[1]
    assert lines[3].split() == [
        "up",
        "to",
        "8,",
        "1",
        "ms,",
        "2",
        "at",
        "once",
        "*",
        *["3", "310", "300", "–", "320", "1.0", "2.0", "100"],
    ]
    assert lines[4].startswith("no batching ")
    assert lines[-1] == "Batch."


@pytest.mark.thorough
def test_a_whole_search_measures_and_decides(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")], name="small")
    export_serving(model, tmp_path, base_path=str(tmp_path))
    version = tmp_path / "small" / "1"
    before = Artifact.load(version)
    report = tune_batching(tmp_path, clients=4, max_batch_size=4, seconds=0.5, rounds=2)
    kinds = [one.parameters for one in report.settings]
    assert None in kinds
    assert len(kinds) == 2 * len({1, os.cpu_count()}) + 1  # 2 and 4 requests, each with every number of threads
    assert all(one.throughput_per_second > 0 for one in report.settings)
    if report.choice is None:
        assert "Do not batch" in report.reason
        assert Artifact.load(version) == before
    else:
        assert report.choice in kinds
        text = (version / "batching_params.pbtxt").read_text()
        assert text.startswith("# Batching, measured on tfopt serve")
        # The version's file leaves out the threads, which are the server's.
        assert BatchingParameters.from_text(text).max_batch_size == report.choice.max_batch_size
        assert Artifact.load(version) != before
