"""Exporters take models of tf_keras, with tfmot's wrappers or without."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tf_keras_networks import L, image_network, images, randomized, tf_keras

import tfopt
from tfopt.errors import ModelError
from tfopt.inspection_table import Part
from tfopt.interop.legacy import import_tfmot
from tfopt.quantization.spec import activation_grid

DATA = Path(__file__).parents[3] / "shared" / "data"
X, Y = images()
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = [pytest.mark.usefixtures("conversion_in_this_process"), pytest.mark.filterwarnings("ignore")]


def outputs(path: Path, samples: np.ndarray) -> np.ndarray:
    """What a file of one input and one output answers, in real values; its integers are rounded to and from here."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for sample in samples:
        scale, zero_point = given["quantization"]
        values = np.clip(np.round(sample / scale) + zero_point, -128, 127) if scale else sample
        interpreter.set_tensor(given["index"], values.astype(given["dtype"]).reshape(given["shape"]))
        interpreter.invoke()
        scale, zero_point = answer["quantization"]
        values = interpreter.get_tensor(answer["index"])[0].astype(np.float32)
        found.append((values - zero_point) * scale if scale else values)
    return np.array(found)


@pytest.mark.slow
def test_a_plain_model(tmp_path):
    old = randomized(image_network())
    artifact = tfopt.export_tflite(old, tmp_path / "model.tflite", "none")
    np.testing.assert_allclose(outputs(artifact.path, X), old(X), atol=1e-5)


@pytest.mark.slow
def test_a_pruned_model_without_its_wrappers(tmp_path):
    sparsity = import_tfmot().sparsity.keras
    schedule = sparsity.ConstantSparsity(0.8, 0, frequency=1)
    old = sparsity.prune_low_magnitude(randomized(image_network()), pruning_schedule=schedule)
    old.compile("sgd", "sparse_categorical_crossentropy")
    old.fit(X, Y, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    artifact = tfopt.export_tflite(old, tmp_path / "model.tflite", "none")
    np.testing.assert_allclose(outputs(artifact.path, X), old(X), atol=1e-5)
    assert Part.total(tfopt.inspect(artifact.path).parts).zeros > 0.5


@pytest.mark.slow
def test_a_quantize_aware_model_with_its_ranges(tmp_path):
    model = tf_keras.Sequential([L.Input((4,)), L.Dense(16, "relu"), L.Dense(3, "softmax")])
    old = import_tfmot().quantization.keras.quantize_model(randomized(model))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    old.compile("sgd", "sparse_categorical_crossentropy")
    old.fit(x, np.arange(64) % 3, verbose=0, epochs=3)
    artifact = tfopt.export_tflite(old, tmp_path / "model.tflite")
    ends = [float(end) for end in old.layers[0].get_weights()[:2]]
    assert artifact.inputs[0].dtype == "int8"
    assert artifact.inputs[0].scale == pytest.approx(activation_grid(*ends).scale, rel=1e-6)
    np.testing.assert_allclose(outputs(artifact.path, x), old(x), atol=4 / 256)


@pytest.mark.slow
def test_the_other_exporters(tmp_path):
    old = randomized(image_network())
    assert tfopt.export_serving(old, tmp_path / "serving", name="images", data=X).outputs
    assert tfopt.export_edge_tpu(old, tmp_path / "edge.tflite", calibration=X).inputs[0].dtype == "int8"
    pytest.importorskip("onnxruntime")
    assert tfopt.export_onnx(old, tmp_path / "model.onnx").outputs


def test_a_model_without_a_translation_writes_nothing(tmp_path):
    old = tf_keras.Sequential([L.Input((4,)), L.Lambda(lambda x: x)])
    with pytest.raises(ModelError, match="no layer Lambda"):
        tfopt.export_tflite(old, tmp_path / "model.tflite", "none")
    assert not list(tmp_path.iterdir())


def test_other_verbs_say_how_to_translate():
    with pytest.raises(
        ModelError, match=r"Received: a tf_keras \(Keras 2\) model\. Translate it with tfopt\.from_tf_k"
    ):
        tfopt.inspect(tf_keras.Sequential([L.Input((4,)), L.Dense(2)]))


def photographs() -> np.ndarray:
    """Shirts and shoes in a frame: the network finds persons in some of them."""
    pixels = np.load(DATA / "fashion_mnist.npz")["x_test"][:600].repeat(3, 1).repeat(3, 2)
    return np.pad(pixels, ((0, 0), (6, 6), (6, 6)))[..., None].repeat(3, -1).astype(np.float32) / 255


def spectra() -> np.ndarray:
    """Five frames of 128 log-mel bands, of spoken digits."""
    spoken = np.load(DATA / "fsdd_logmel.npz")["x_train"][:600, 20:25].astype(np.float32)
    bands = np.linspace(0, 39, 128)
    frames = [np.interp(bands, np.arange(40), frame) for frame in spoken.reshape(-1, 40)]
    return (np.reshape(frames, (len(spoken), 640)) / 255 * 80 - 60).astype(np.float32)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the data folder is absent")
@pytest.mark.parametrize(
    ("name", "theirs", "samples"), [("vww_96", "vww_96_int8", photographs), ("ad01", "ad01_int8", spectra)]
)
def test_int8_files_of_mlperf_tiny(tmp_path, name, theirs, samples):
    """The int8 file agrees with the float model at least as often as the one that MLPerf Tiny has."""
    folder, x = DATA / "mlperf_tiny", samples()
    old = tf_keras.models.load_model(folder / f"{name}.h5", compile=False)
    calibration, x = x[:200], x[200:]
    artifact = tfopt.export_tflite(old, tmp_path / "int8.tflite", calibration=calibration)
    expected = old.predict(x, verbose=0)
    agreement = {}
    for which, path in (("ours", artifact.path), ("theirs", folder / f"{theirs}.tflite")):
        agreement[which] = np.mean(outputs(path, x).argmax(-1) == expected.argmax(-1))
    assert agreement["ours"] >= agreement["theirs"]
