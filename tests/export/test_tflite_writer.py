"""Writing a .tflite file anew: the same tables, constants where a runtime wants them."""

from pathlib import Path

import flatbuffers
import keras
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory, conversion_in_this_process: None) -> bytes:
    image = keras.Input((6, 6, 2), name="image")
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(image))))
    return export_tflite(model, tmp_path_factory.mktemp("packing") / "a.tflite", "none").path.read_bytes()


@pytest.mark.slow
def test_nothing_is_lost(content: bytes, tmp_path: Path) -> None:
    before, after = tmp_path / "before.tflite", tmp_path / "after.tflite"
    before.write_bytes(content)
    after.write_bytes(pack_tflite(unpack_tflite(content)))
    assert read_tflite(after) == read_tflite(before)
    notes = [
        {one.name: bytes(model.buffers[one.buffer].data) for one in model.metadata}
        for model in (unpack_tflite(content), unpack_tflite(after.read_bytes()))
    ]
    assert b"min_runtime_version" in notes[0]
    assert notes[0] == notes[1]


def test_constants_start_at_multiples_of_16_bytes(content: bytes) -> None:
    packed = pack_tflite(unpack_tflite(content))
    constants = [bytes(one.data) for one in unpack_tflite(packed).buffers if one.data is not None]
    weights = [constant for constant in constants if len(constant) in {4 * 3 * 3 * 2 * 4, 3 * 64 * 4}]
    assert [packed.index(constant) % 16 for constant in weights] == [0, 0]


def test_constants_behind_the_flatbuffer_are_brought_into_it(content: bytes) -> None:
    model = unpack_tflite(content)
    kernel = max((one for one in model.buffers if one.data is not None), key=lambda one: len(one.data))
    blob = bytes(kernel.data)
    kernel.data, kernel.offset, kernel.size = None, 2, len(blob)  # any number takes the same room
    kernel.offset = len(_packed(model))
    outside = _packed(model)
    packed = pack_tflite(unpack_tflite(outside + blob))
    assert blob not in outside
    assert blob in packed
    assert all(one.offset == one.size == 0 for one in schema.ModelT.InitFromObj(schema.Model.GetRootAs(packed)).buffers)


def _packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
