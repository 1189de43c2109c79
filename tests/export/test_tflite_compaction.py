"""Files without what no runtime reads: the same operators and numbers in fewer bytes."""

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tfopt.export import tflite
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_compaction import compacted
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

pytestmark = [pytest.mark.usefixtures("conversion_in_this_process"), pytest.mark.slow]

STEPS = 24
SAMPLES = np.random.default_rng(0).normal(size=(16, STEPS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(conversion_in_this_process: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unrolled LSTM as the converter writes it."""
    model = keras.Sequential(
        [keras.Input((STEPS, 3), name="x"), layers.LSTM(8, name="lstm"), layers.Dense(2, name="y")]
    )
    path = tmp_path_factory.mktemp("compaction") / "plain.tflite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite, "compacted", lambda content: content)
        export_tflite(model, path, "int8", calibration=SAMPLES)
    return path


def test_an_unrolled_lstm_is_much_smaller_and_computes_the_same(plain: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.tflite"
    small.write_bytes(compacted(plain.read_bytes()))
    assert small.stat().st_size < 0.7 * plain.stat().st_size
    for xnnpack in (True, False):
        one, other = (run_tflite(path, {"x": SAMPLES}, xnnpack=xnnpack) for path in (plain, small))
        np.testing.assert_array_equal(one["y"], other["y"])


def test_only_names_change(plain: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.tflite"
    small.write_bytes(compacted(plain.read_bytes()))
    before, after = read_tflite(plain), read_tflite(small)
    assert after.inputs.keys() == before.inputs.keys()
    assert after.outputs.keys() == before.outputs.keys()
    for one, other in zip(before.operators, after.operators, strict=True):
        assert (one.name, one.version) == (other.name, other.version)
        for given, kept in zip((*one.inputs, *one.outputs), (*other.inputs, *other.outputs), strict=True):
            assert kept.name.startswith(given.name.partition(";")[0])
            assert (given.shape, given.dtype, given.scales, given.zero_points, given.constant) == (
                kept.shape,
                kept.dtype,
                kept.scales,
                kept.zero_points,
                kept.constant,
            )
    names = [tensor.name for tensor in unpack_tflite(small.read_bytes()).subgraphs[0].tensors]
    assert len(set(names)) == len(names)


def test_exported_files_are_compact(plain: Path) -> None:
    model = keras.Sequential(
        [keras.Input((STEPS, 3), name="x"), layers.LSTM(8, name="lstm"), layers.Dense(2, name="y")]
    )
    artifact = export_tflite(model, plain.with_name("exported.tflite"), "int8", calibration=SAMPLES)
    content = artifact.path.read_bytes()
    assert content == compacted(content)
    assert {name for names in artifact.layers for name in names} == {"lstm", "y"}


def test_constants_are_aligned_and_equal_ones_are_written_once() -> None:
    constant = np.arange(1000, dtype=np.uint8)
    model = schema.ModelT()
    model.version, model.buffers = 3, []
    for data in (None, constant, constant.copy(), constant[:7]):
        buffer = schema.BufferT()
        buffer.data = data
        model.buffers.append(buffer)
    content = pack_tflite(model)
    assert len(content) < 1500
    assert content.find(constant.tobytes()) % 16 == 0
    for buffer, data in zip(unpack_tflite(content).buffers[1:], (constant, constant, constant[:7]), strict=True):
        np.testing.assert_array_equal(buffer.data, data)


def test_constants_behind_the_flatbuffer_are_taken_into_it() -> None:
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT(), schema.BufferT()]
    outside = np.arange(64, dtype=np.uint8)
    model.buffers[1].offset, model.buffers[1].size = 2**20, outside.size
    content = pack_tflite(model)
    taken = unpack_tflite(content + bytes(2**20 - len(content)) + outside.tobytes())
    np.testing.assert_array_equal(taken.buffers[1].data, outside)
    assert (taken.buffers[1].offset, taken.buffers[1].size) == (0, 0)
