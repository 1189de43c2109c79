"""The search for a network that is fast enough."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError, ModelError
from tfopt.tuning import LatencyTable, TuningResult, search_architecture

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = (X[:, 0] > 0).astype(int)
WIDTHS = [8, 2048]


def build(hp: Any) -> keras.Model:
    inputs = keras.Input((8,))
    x = keras.layers.Dense(hp.Choice("width", WIDTHS), "relu")(inputs)
    x = keras.layers.Dense(hp.Choice("second", WIDTHS), "relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], jit_compile=False)
    return model


def searched(max_latency_ms: float, **options: Any) -> TuningResult:
    given = {"search": "random", "trials": 4, "epochs": 1, "quantization": "none", **options}
    return search_architecture(build, (X, Y), (X, Y), max_latency_ms=max_latency_ms, **given)


@pytest.mark.thorough
def test_what_is_too_slow_is_passed_over(tmp_path: Path) -> None:
    result = searched(0.1, folder=tmp_path)
    slow = [row for row in result.rows if row.score is None]
    assert [row.values for row in slow] == [{"width": 2048, "second": 2048}]
    assert "ms, more than the 0.1 allowed" in slow[0].remark
    assert slow[0].epochs == 0
    latencies = [row.logs["latency_ms"] for row in result.rows if row.score is not None]
    assert len(latencies) == 3
    assert max(latencies) < 0.1
    table = LatencyTable(tmp_path / "latency_table.json", quantization="none")
    known = len(table)
    assert table.predict_ms(result.model) == pytest.approx(result.best.logs["latency_ms"])
    assert len(table) == known


@pytest.mark.thorough
def test_where_nothing_is_fast_enough_that_is_told() -> None:
    with pytest.raises(ModelError, match=r"none of 2 trials came to a score.* ms, more than the 1e-09 allowed"):
        searched(1e-9, trials=2)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan")])
def test_a_latency_must_be_positive(latency: float) -> None:
    with pytest.raises(ConfigError, match="max_latency_ms must be"):
        searched(latency)


def test_a_space_is_a_function() -> None:
    with pytest.raises(ConfigError, match=r"build_model must be a function\. Received: int"):
        search_architecture(3, (X, Y), (X, Y), max_latency_ms=1.0)  # type: ignore[arg-type]
