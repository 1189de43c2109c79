"""Predictions for files that Keras models become, and beside what the compiler really did."""

import json
import os
import shutil
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfopt
from tfopt.artifact import Artifact, record_path
from tfopt.errors import DataError
from tfopt.export.edge_tpu import EdgeTpuPrediction, predict

DATA = Path(os.environ.get("TFOPT_DATA") or Path(__file__).parents[4] / "shared" / "data") / "edge_tpu"
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def exported(conversion_in_this_process, tmp_path_factory):
    """The int8 file of a model on random data."""
    folder = tmp_path_factory.mktemp("files")

    def export(model: keras.Model) -> Path:
        path = folder / f"{model.name}.tflite"
        calibration = RANDOM.random((8, *model.input_shape[1:]), np.float32)
        tfopt.export_tflite(model, path, quantization="int8", calibration=calibration, verify=False)
        return path

    return export


@pytest.fixture(scope="module")
def interrupted(exported) -> Path:
    """A convolutional network with a LeakyReLU between its layers."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4), name="image")
    hidden = layers.Conv2D(8, 3, activation="relu", name="stem")(image)
    hidden = layers.LeakyReLU(0.1, name="leaky")(hidden)
    hidden = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, name="late")(hidden))
    return exported(keras.Model(image, layers.Dense(3, "softmax", name="head")(hidden), name="interrupted"))


def statuses(prediction: EdgeTpuPrediction) -> dict[str, bool]:
    return {one.name: one.mapped for one in prediction.operators}


def test_an_unsupported_layer_is_named_and_cuts_off_what_follows(interrupted):
    prediction = predict(interrupted)
    assert [one.layer for one in prediction.operators] == ["stem", "leaky", "late", "pool", "head", "head"]
    assert [(one.name, one.mapped, one.cut_off) for one in prediction.operators] == [
        ("CONV_2D", True, False),
        ("LEAKY_RELU", False, False),
        ("CONV_2D", False, True),
        ("MEAN", False, True),
        ("FULLY_CONNECTED", False, True),
        ("SOFTMAX", False, True),
    ]
    assert (prediction.mapped_count, prediction.is_fully_mapped) == (1, False)
    assert prediction.cached_bytes == 3 * 3 * 4 * 8 + 4 * 8  # the stem's kernel and bias
    assert prediction.streamed_bytes == 0
    leaky, late = prediction.operators[1:3]
    assert str(leaky) == (
        "layer `leaky`: LEAKY_RELU: the Edge TPU has no such operator; use ReLU, or PReLU(shared_axes=[1, 2])"
    )
    assert "it comes after LEAKY_RELU (layer `leaky`)" in late.reason
    assert late.mend == "mend layer `leaky` first"
    text = str(prediction)
    assert text.startswith("Edge TPU, predicted (not compiled): 1 of 6 operators run on it, in 1 subgraph\n")
    assert "CONV_2D              1  CPU, cut off  documented" in text
    assert "layer `leaky`: LEAKY_RELU" in text


def test_without_a_record_operators_are_told_by_what_they_write(interrupted, tmp_path):
    prediction = predict(shutil.copyfile(interrupted, tmp_path / "alone.tflite"))
    assert {one.layer for one in prediction.operators} == {""}
    leaky = prediction.operators[1]
    assert "leaky" in leaky.output
    assert str(leaky).startswith(f"`{leaky.output.partition(';')[0]}`: LEAKY_RELU: ")
    assert "it comes after LEAKY_RELU, which runs on the CPU" in prediction.operators[2].reason


@pytest.mark.slow
def test_operators_with_one_reason_share_a_line(exported):
    image = hidden = keras.Input((4, 4, 2))
    for number in range(6):
        hidden = layers.LeakyReLU(name=f"leaky_{number}")(layers.Conv2D(2, 1)(hidden))
    lines = str(predict(exported(keras.Model(image, hidden, name="leaky")))).splitlines()
    places = ", ".join(f"layer `leaky_{number}`" for number in range(4))
    assert [line for line in lines if "no such operator" in line] == [
        f"  {places} and 2 more: LEAKY_RELU: the Edge TPU has no such operator; use ReLU, or PReLU(shared_axes=[1, 2])"
    ]


def test_an_artifact_is_taken_and_a_file_that_changed_is_not(interrupted, tmp_path):
    assert predict(Artifact.load(interrupted)) == predict(interrupted)
    for path in (interrupted, record_path(interrupted)):
        shutil.copyfile(path, tmp_path / path.name)
    changed = tmp_path / interrupted.name
    changed.write_bytes(changed.read_bytes() + b"0")
    with pytest.raises(DataError, match="has changed since"):
        predict(changed)


@pytest.mark.slow
def test_supported_networks_map_whole(exported):
    image = keras.Input((16, 16, 4))
    hidden = layers.Conv2D(8, 3, padding="same", activation="swish")(image)
    scale = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(hidden))
    hidden = layers.Multiply()([hidden, layers.Reshape((1, 1, 8))(scale)])
    hidden = layers.Concatenate()([hidden, layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(hidden)])
    hidden = layers.Add()([hidden, layers.PReLU(shared_axes=[1, 2])(hidden)])
    hidden = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(layers.MaxPooling2D()(hidden))
    hidden = layers.UpSampling2D(2, interpolation="bilinear")(layers.ZeroPadding2D(1)(hidden))
    output = layers.Dense(5, activation="tanh")(layers.Flatten()(layers.AveragePooling2D(4)(hidden)))
    prediction = predict(exported(keras.Model(image, output, name="whole")))
    assert prediction.is_fully_mapped, str(prediction)
    assert {"LOGISTIC", "MUL", "PRELU", "TRANSPOSE_CONV", "RESIZE_BILINEAR", "PAD"} <= set(statuses(prediction))
    assert prediction.first_runtime == 13
    assert "on the Edge TPU, not certain:" in str(prediction)  # dense kernels have a scale per unit


def test_a_dense_layer_on_a_sequence_is_not_mapped_and_a_convolution_is(exported):
    sequence = keras.Input((6, 8))
    dense = predict(exported(keras.Model(sequence, layers.Dense(4)(sequence), name="dense")))
    assert statuses(dense) == {"FULLY_CONNECTED": False}
    assert "Conv1D(units, 1)" in dense.operators[0].mend
    assert dense.first_runtime == 0
    assert "0 of 1 operators run on it, in 0 subgraphs" in str(dense)
    convolution = predict(exported(keras.Model(sequence, layers.Conv1D(4, 1)(sequence), name="convolution")))
    assert convolution.is_fully_mapped, str(convolution)


def test_float_inputs_and_outputs_stay_on_the_cpu(conversion_in_this_process, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    path = tmp_path / "float.tflite"
    tfopt.export_tflite(model, path, quantization="none", verify=False)
    (operator,) = predict(path).operators
    assert not operator.mapped
    assert operator.reason == "it works on float32"
    assert operator.mend == 'export with quantization="int8"'


def test_weights_beyond_the_memory_on_chip_are_streamed(interrupted, monkeypatch):
    monkeypatch.setattr("tfopt.export.edge_tpu.memory.CACHE_BYTES", 100)
    prediction = predict(interrupted)
    assert (prediction.cached_bytes, prediction.streamed_bytes) == (100, 220)
    assert "100 bytes cached on chip, 220 bytes streamed at every inference" in str(prediction)


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_sizes_are_those_of_the_file_not_of_its_signature(interrupted, tmp_path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(interrupted.read_bytes(), 0))
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) > 1:
            tensor.shapeSignature = np.int32([-1, *tensor.shape[1:]])
    path = tmp_path / "signature.tflite"
    path.write_bytes(packed(model))
    assert predict(path) == predict(shutil.copyfile(interrupted, tmp_path / "static.tflite"))


def test_an_operator_without_its_inputs_is_a_damaged_file(interrupted, tmp_path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(interrupted.read_bytes(), 0))
    model.subgraphs[0].operators[0].inputs = model.subgraphs[0].operators[0].inputs[:1]
    path = tmp_path / "damaged.tflite"
    path.write_bytes(packed(model))
    with pytest.raises(DataError, match="an operator CONV_2D lacks inputs"):
        predict(path)


def test_what_is_beside_the_main_graph_is_not_mapped(interrupted, tmp_path):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(interrupted.read_bytes(), 0))
    model.subgraphs.append(schema.ModelT.InitFromObj(schema.Model.GetRootAs(packed(model), 0)).subgraphs[0])
    path = tmp_path / "body.tflite"
    path.write_bytes(packed(model))
    prediction = predict(path)
    assert [one.mapped for one in prediction.operators] == [True] + [False] * 11
    assert "control flow" in prediction.operators[6].reason


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the compiler's own mappings of ../shared/data are absent")
def test_beside_what_the_compiler_did(capsys):
    real = {
        name: [on_tpu for _, on_tpu in rows] for name, rows in json.loads((DATA / "mapped.json").read_text()).items()
    }
    predicted = {name: [one.mapped for one in predict(DATA / name).operators] for name in real}
    pairs = [pair for name in real for pair in zip(real[name], predicted[name], strict=True)]
    both = pairs.count((False, False))
    recall = both / (both + pairs.count((False, True)))
    precision = both / (both + pairs.count((True, False)))
    exact = sum(real[name] == predicted[name] for name in real)
    with capsys.disabled():
        print(f"\nunmapped recall {recall:.3f}, precision {precision:.3f}, exact partition {exact} of {len(real)}")
    assert recall >= 0.98
    assert precision >= 0.95
    assert exact >= len(real) - 1
