"""Reading .tflite files back: what is in a good one, and a clear error for a bad one."""

import warnings
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tfopt.errors import DataError
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite

X = np.random.default_rng(0).random((32, 6, 6, 2), np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2), name="image")
    hidden = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    return keras.Model(image, {"b": layers.Dense(3)(hidden), "a": layers.Dense(2, "softmax")(hidden)})


@pytest.fixture(scope="module")
def files(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in float and in int8, by TensorFlow's converter."""
    folder = tmp_path_factory.mktemp("tflite")
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((1, 6, 6, 2), tf.float32, name="image")]
    archive.add_endpoint("serving_default", lambda image: model(image), input_signature=signature)
    archive.write_out(str(folder / "saved_model"), verbose=False)
    paths = {}
    for name in ("float32", "int8"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
        if name == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row[None]] for row in X)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = converter.convert()
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(content)
    return paths


@pytest.mark.slow
def test_a_float_file(files: dict[str, Path]) -> None:
    file = read_tflite(files["float32"])
    assert file.operator_counts == {"FULLY_CONNECTED": 2, "CONV_2D": 1, "RESHAPE": 1, "SOFTMAX": 1}
    assert list(file.inputs) == ["image"]
    assert {name: tensor.shape for name, tensor in file.outputs.items()} == {"a": (1, 2), "b": (1, 3)}
    assert file.inputs["image"].dtype == "FLOAT32"
    assert file.inputs["image"].scales == ()
    assert not file.is_full_integer
    assert all(operator.is_float for operator in file.operators)


def test_an_int8_file(files: dict[str, Path]) -> None:
    file = read_tflite(files["int8"])
    assert file.is_full_integer
    assert {tensor.dtype for tensor in (*file.inputs.values(), *file.outputs.values())} == {"INT8"}
    assert file.outputs["a"].scales == (1 / 256,)  # a softmax's grid is fixed
    assert file.outputs["a"].zero_points == (-128,)
    (conv,) = (operator for operator in file.operators if operator.name == "CONV_2D")
    kernel, bias = conv.inputs[1:]
    assert (kernel.dtype, bias.dtype) == ("INT8", "INT32")
    assert kernel.shape == (4, 3, 3, 2)
    assert len(kernel.scales) == 4
    assert kernel.channel_axis == 0
    assert conv.inputs[0].constant is None
    assert conv.options["fusedActivationFunction"] == schema.ActivationFunctionType.RELU
    assert (conv.options["strideH"], conv.options["dilationWFactor"], conv.subgraph) == (1, 1, 0)


def test_static_sizes_beside_those_of_the_signature(files: dict[str, Path], tmp_path: Path) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files["int8"].read_bytes(), 0))
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) == 4:
            tensor.shapeSignature = np.int32([-1, *tensor.shape[1:]])
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "signature.tflite"
    path.write_bytes(builder.Output())
    given, found = read_tflite(files["int8"]).inputs["image"], read_tflite(path).inputs["image"]
    assert (given.shape, given.static_shape) == ((1, 6, 6, 2), (1, 6, 6, 2))
    assert (found.shape, found.static_shape) == ((-1, 6, 6, 2), (1, 6, 6, 2))


def test_constants_are_the_weights_of_keras(files: dict[str, Path], model: keras.Model) -> None:
    expected = np.transpose(model.get_layer("conv").get_weights()[0], (3, 0, 1, 2))
    for name, tolerance in (("float32", 0.0), ("int8", 0.51)):
        conv = next(part for part in read_tflite(files[name]).operators if part.name == "CONV_2D")
        kernel = conv.inputs[1]
        steps = np.reshape(kernel.scales or 1.0, (-1, 1, 1, 1))
        assert np.max(np.abs(kernel.values() * steps - expected) / steps) <= tolerance


def test_a_tensor_that_is_computed_has_no_values(files: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"'.*image.*' \(FLOAT32\) is not a constant"):
        read_tflite(files["float32"]).inputs["image"].values()


def test_constants_behind_the_flatbuffer_are_found(files: dict[str, Path], tmp_path: Path) -> None:
    content = files["float32"].read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    outside = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data) >= 64]
    blobs = [bytes(bytearray(buffer.data)) for buffer in outside]
    assert blobs

    def packed() -> bytes:
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    for buffer, blob in zip(outside, blobs, strict=True):
        buffer.data, buffer.offset, buffer.size = None, 2, len(blob)  # any number: the room it takes is the same
    offset = -(-len(packed()) // 16) * 16
    start = offset
    for buffer, blob in zip(outside, blobs, strict=True):
        buffer.offset = offset
        offset += len(blob)
    path = tmp_path / "external.tflite"
    path.write_bytes(packed().ljust(start, b"\0") + b"".join(blobs))

    for inside, found in zip(read_tflite(files["float32"]).operators, read_tflite(path).operators, strict=True):
        assert [tensor.constant for tensor in inside.inputs] == [tensor.constant for tensor in found.inputs]
    both = [run_tflite(file, {"image": X[:2]}) for file in (files["float32"], path)]
    np.testing.assert_array_equal(both[0]["a"], both[1]["a"])


def test_a_truncated_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    content = files["int8"].read_bytes()
    path = tmp_path / "cut.tflite"
    for share in (0.0, 0.02, 0.1, 0.3, 0.5, 0.7):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=r"cut\.tflite is (not a TFLite file|damaged)"):
            read_tflite(path)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mark", [b"", b"\x1c\0\0\0TFL3"])
def test_random_bytes_are_refused(tmp_path: Path, seed: int, mark: bytes) -> None:
    path = tmp_path / "random.tflite"
    path.write_bytes(mark + np.random.default_rng(seed).bytes(2000))
    with pytest.raises(DataError, match=r"random\.tflite is (not a TFLite file|damaged)"):
        read_tflite(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tflite", tmp_path):
        with pytest.raises(DataError, match=f"Cannot read {path}"):
            read_tflite(path)
