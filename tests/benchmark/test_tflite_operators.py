"""Each operator of a .tflite alone: the same values, and times that tell heavy from light."""

import itertools

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfopt.benchmark.operator_files import floor_file, operator_files
from tfopt.benchmark.tflite_operators import operator_times
from tfopt.errors import DataError
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

KERNELS = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def interpreter_of(content, **options):
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=KERNELS, **options)
    interpreter.allocate_tensors()
    return interpreter


def values_within(content, x):
    whole = interpreter_of(content, experimental_preserve_all_tensors=True)
    for detail, value in zip(whole.get_input_details(), x, strict=True):
        whole.set_tensor(detail["index"], value)
    whole.invoke()
    return {detail["index"]: whole.get_tensor(detail["index"]) for detail in whole.get_tensor_details()}


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory, conversion_in_this_process):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(image)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Add(name="residual")([x, y])
    model = keras.Model(image, keras.layers.Dense(5, "softmax", name="classes")(keras.layers.Flatten()(x)))
    folder, data = tmp_path_factory.mktemp("operators"), np.random.default_rng(0).normal(size=(20, 16, 16, 3))
    return {
        name: export_tflite(model, folder / f"{name}.tflite", name, calibration=data).path
        for name in ("none", "float16", "int8")
    }


@pytest.mark.parametrize("quantization", ["none", "float16", "int8"])
def test_operators_alone_compute_what_they_do_within_the_file(convolutions, quantization):
    content = convolutions[quantization].read_bytes()
    (given,) = interpreter_of(content).get_input_details()
    x = np.random.default_rng(1).normal(size=given["shape"])
    x = (50 * x).clip(-128, 127).astype(np.int8) if quantization == "int8" else x.astype(np.float32)
    values = values_within(content, [x])
    names = {
        detail["name"].partition(";")[0]: detail["index"] for detail in interpreter_of(content).get_tensor_details()
    }
    files = list(operator_files(content, {index: value.shape for index, value in values.items()}))
    for file in files:
        alone = interpreter_of(file.content)
        for detail, index in zip(alone.get_input_details(), file.inputs, strict=True):
            np.testing.assert_array_equal(detail["shape"], values[index].shape)
            alone.set_tensor(detail["index"], values[index])
        alone.invoke()
        (output,) = alone.get_output_details()
        np.testing.assert_array_equal(alone.get_tensor(output["index"]), values[names[file.name]])
    kinds = [operator.name for operator in read_tflite(convolutions[quantization]).operators]
    assert [file.kind for file in files] == [kind for kind in kinds if kind != "DEQUANTIZE"]


def test_what_is_computed_once_when_a_file_is_loaded_is_no_operator_of_its_own(convolutions):
    kinds = [operator.name for operator in read_tflite(convolutions["float16"]).operators]
    assert kinds.count("DEQUANTIZE") >= 3
    image = np.zeros((1, 16, 16, 3), np.float32)
    times = operator_times(convolutions["float16"], [image], threads=1)
    assert "DEQUANTIZE" not in [one.kind for one in times]
    assert len(times) == len(kinds) - kinds.count("DEQUANTIZE")


@pytest.mark.parametrize("xnnpack", [True, False])
def test_a_heavy_operator_takes_longer_than_a_light_one(tmp_path, conversion_in_this_process, xnnpack):
    x = keras.Input((512,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, name="light")(keras.layers.Dense(2048, name="heavy")(x)))
    path = export_tflite(model, tmp_path / "two.tflite", "none").path
    heavy, light = operator_times(path, [np.ones((1, 512), np.float32)], threads=1, xnnpack=xnnpack)
    assert (heavy.kind, light.kind) == ("FULLY_CONNECTED", "FULLY_CONNECTED")
    assert heavy.time_ms > 5 * light.time_ms  # it has 128 times as many weights
    assert 0.01 < heavy.time_ms < 50


def test_the_way_to_an_operator_is_taken_off_and_no_time_is_below_zero(files):
    ticks = itertools.count(step=1_000_000)  # every call takes a millisecond, that of the floor too
    times = operator_times(files.float32, [files.x[:1]], threads=1, clock=lambda: next(ticks))
    assert [one.time_ms for one in times] == [0.0] * len(read_tflite(files.float32).operators)


def test_the_floor_is_one_operator_on_one_number():
    floor = interpreter_of(floor_file())
    (given,), (result,) = floor.get_input_details(), floor.get_output_details()
    floor.set_tensor(given["index"], np.float32([-3]))
    floor.invoke()
    np.testing.assert_array_equal(floor.get_tensor(result["index"]), [0])


def test_files_of_several_graphs_are_refused_with_the_reason(files, tmp_path):
    model = unpack_tflite(files.float32.read_bytes())
    model.subgraphs = [*model.subgraphs, model.subgraphs[0]]
    path = tmp_path / "two.tflite"
    path.write_bytes(pack_tflite(model))
    with pytest.raises(DataError, match=r"files with one graph, .*Received: 2 graphs"):
        operator_times(path, [files.x[:1]], threads=1)


def test_what_tflites_own_kernels_refuse_is_told(files):
    with pytest.raises(DataError, match=r"TFLite's own kernels cannot run the file: .*Dimension mismatch"):
        operator_times(files.float32, [np.zeros((1, 3), np.float32)], threads=1)
