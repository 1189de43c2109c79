"""Latencies added up from layers that were measured once."""

import json
from pathlib import Path
from typing import Any

import keras
import pytest

from tfopt.benchmark import benchmark
from tfopt.errors import ConfigError, ModelError
from tfopt.export.tflite import export_tflite
from tfopt.tuning import LatencyTable, latency_table

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")
layers = keras.layers


def network(*widths: int, kernel: int = 3, name: str | None = None) -> keras.Model:
    x = inputs = keras.Input((16, 16, 3))
    for width in widths:
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, kernel, padding="same")(x)))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name=name)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[keras.Model]:
    """The models that are exported to be measured."""
    made: list[keras.Model] = []
    export = latency_table.export_tflite

    def counted(model: keras.Model, *args: Any, **options: Any) -> Any:
        made.append(model)
        return export(model, *args, **options)

    monkeypatch.setattr(latency_table, "export_tflite", counted)
    return made


@pytest.mark.parametrize("quantization", ["int8", pytest.param("none", marks=pytest.mark.slow)])
def test_what_is_known_is_not_measured_again(exports: list[keras.Model], quantization: Any) -> None:
    table = LatencyTable(quantization=quantization)
    first = table.predict_ms(network(16, 32))
    assert len(table) == 4  # two convolutions with what is fused into them, the mean, the dense layer
    assert first > 0
    assert table.predict_ms(network(16, 32)) == first
    assert len(exports) == 1
    deeper = table.predict_ms(network(16, 32, 32))
    assert deeper > first
    assert len(table) == 5
    (added,) = exports[1].inputs
    assert added.shape == (None, 16, 16, 32)  # only the third convolution was missing


@pytest.mark.slow
def test_wide_layers_take_longer() -> None:
    table = LatencyTable(quantization="none")
    narrow, wide = (table.predict_ms(network(width, width)) for width in (16, 128))
    assert wide > 4 * narrow


@pytest.mark.slow
def test_names_and_weights_do_not_matter_and_shapes_do(exports: list[keras.Model]) -> None:
    table = LatencyTable(quantization="none")
    table.predict_ms(network(16))
    keras.utils.set_random_seed(7)
    table.predict_ms(network(16, name="another"))
    assert len(exports) == 1
    table.predict_ms(network(16, kernel=5))
    assert len(exports) == 2


def test_branches_sums_and_what_is_read_twice() -> None:
    x = inputs = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same")(x)
    z = layers.ReLU()(y)  # the convolution is read twice, so this is an entry of its own
    model = keras.Model(inputs, layers.Concatenate()([layers.Add()([y, z]), x]))
    table = LatencyTable(quantization="none")
    assert table.predict_ms(model) >= 0
    assert len(table) == 4


@pytest.mark.slow
def test_a_table_is_kept(tmp_path: Path, exports: list[keras.Model]) -> None:
    file = tmp_path / "table.json"
    first = LatencyTable(file, quantization="none").predict_ms(network(16))
    assert LatencyTable(file, quantization="none").predict_ms(network(16)) == first
    assert len(exports) == 1
    with pytest.raises(ConfigError, match=r"must be of int8\. Received: one of none"):
        LatencyTable(file)


@pytest.mark.parametrize("content", ["", "[]", '{"quantization": "int8"}', json.dumps({"milliseconds": [1]})])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "table.json").write_text(content)
    with pytest.raises(ConfigError, match=r"expected a table in .*table\.json\. Received: "):
        LatencyTable(tmp_path / "table.json")


def test_a_subclassed_model_is_refused() -> None:
    class Opaque(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelError):
        LatencyTable().predict_ms(Opaque())


@pytest.mark.slow
def test_the_sum_is_near_the_whole(tmp_path: Path) -> None:
    """Within the factor that the operator times are documented with, and a wide margin for a busy machine."""
    model = network(64, 64, 64)
    predicted = LatencyTable(quantization="none").predict_ms(model)
    artifact = export_tflite(model, tmp_path / "model.tflite", "none")
    latency = benchmark(artifact, threads=(1,), repeats=20, seconds=0.1).entries[0].latency_at(1)
    assert latency is not None
    assert 0.4 < predicted / latency.p50_ms < 2.5
