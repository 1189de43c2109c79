"""write_saved_model: named tensors, a symbolic batch, and the numbers of Keras."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfopt.errors import ConfigError, DataError, ExportError, ModelError
from tfopt.export.saved_model import write_saved_model
from tfopt.export.saved_model_check import FAKE_QUANT_TOLERANCE, FLOAT16_TOLERANCE


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def small_cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax", name="probabilities"),
        ]
    )


def load(folder: Path):
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


@pytest.mark.parametrize("batch_size", [1, 3, 17])
def test_the_file_answers_as_keras_does(tmp_path: Path, batch_size: int) -> None:
    model = small_cnn()
    written = write_saved_model(model, tmp_path / "1")
    x = np.random.default_rng(1).random((batch_size, 8, 8, 1), np.float32)
    answer = load(tmp_path / "1")(image=tf.constant(x))["probabilities"]
    np.testing.assert_allclose(answer, model(x, training=False), atol=1e-6)
    assert [(spec.name, spec.shape, spec.dtype) for spec in (*written.inputs, *written.outputs)] == [
        ("image", (None, 8, 8, 1), "float32"),
        ("probabilities", (None, 3), "float32"),
    ]
    assert written.agreement.samples == 3
    assert written.relative_error < 1e-6
    assert written.to_dict()["batch_sizes"] == [1, 3]


def test_several_inputs_and_outputs_have_identifiers_for_names(tmp_path: Path) -> None:
    left, right = keras.Input((3,), name="left side"), keras.Input((2,), name="class", dtype="int32")
    joined = layers.Concatenate()([left, ops.cast(right, "float32")])
    outputs = [layers.Dense(2, name="class-id")(joined), layers.Dense(1, name="score")(joined)]
    model = keras.Model([left, right], outputs)
    data = {"left side": np.ones((2, 3)), "class": np.array([[1, 2], [3, 4]])}
    written = write_saved_model(model, tmp_path / "1", data=data)
    assert [(spec.name, spec.dtype) for spec in written.inputs] == [
        ("left_side", "float32"),
        ("tensor_class", "int32"),
    ]
    assert [spec.name for spec in written.outputs] == ["class_id", "score"]
    answers = load(tmp_path / "1")(left_side=tf.ones((2, 3)), tensor_class=tf.constant([[1, 2], [3, 4]], tf.int32))
    expected = model([np.ones((2, 3)), data["class"]])
    np.testing.assert_allclose(answers["class_id"], expected[0], atol=1e-6)
    np.testing.assert_allclose(answers["score"], expected[1], atol=1e-6)


def test_inputs_without_a_name_have_the_same_one_in_every_version(tmp_path: Path) -> None:
    first, second = (keras.Sequential([keras.Input((2,)), layers.Dense(1)]) for _ in range(2))
    second.save(tmp_path / "second.keras")
    models = [first, second, keras.models.load_model(tmp_path / "second.keras")]
    written = [write_saved_model(model, tmp_path / str(number)) for number, model in enumerate(models)]
    assert [signature.inputs[0].name for signature in written] == ["input_layer"] * 3
    two = [keras.Input((2,)), keras.Input((2,))]
    names = [spec.name for spec in write_saved_model(keras.Model(two, two[0] + two[1]), tmp_path / "two").inputs]
    assert names == ["input_layer", "input_layer_1"]


def test_dict_inputs_and_outputs_keep_their_keys(tmp_path: Path) -> None:
    a, b = keras.Input((2,), name="b"), keras.Input((2,), name="a")
    model = keras.Model({"b": a, "a": b}, {"sum": a + b, "difference": a - b})
    write_saved_model(model, tmp_path / "1")
    answers = load(tmp_path / "1")(a=tf.constant([[1.0, 2.0]]), b=tf.constant([[10.0, 20.0]]))
    np.testing.assert_allclose(answers["sum"], [[11.0, 22.0]])
    np.testing.assert_allclose(answers["difference"], [[9.0, 18.0]])


def test_outputs_of_one_layer_get_numbers(tmp_path: Path) -> None:
    x = keras.Input((5, 2), name="x")
    model = keras.Model(x, layers.LSTM(3, return_state=True, name="memory")(x))
    written = write_saved_model(model, tmp_path / "1")
    assert [spec.name for spec in written.outputs] == ["memory", "memory_1", "memory_2"]


def test_a_sequential_model_built_on_data_gets_a_free_batch(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Dense(2, name="y")])
    model(np.zeros((7, 3)))
    written = write_saved_model(model, tmp_path / "1", data=np.ones((1, 3)))
    assert written.inputs[0].shape == (None, 3)
    assert written.outputs[0].shape == (None, 2)


def test_axes_of_unknown_size_stay_unknown(tmp_path: Path) -> None:
    x = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model(x, layers.GlobalAveragePooling1D(name="mean")(layers.Embedding(10, 4)(x)))
    written = write_saved_model(model, tmp_path / "1")
    assert written.inputs[0].shape == (None, None)
    tokens = tf.constant([[9, 8, 7]])
    np.testing.assert_allclose(load(tmp_path / "1")(tokens=tokens)["mean"], model(tokens), atol=1e-6)


def test_a_quantize_aware_model_keeps_its_fake_quantization(tmp_path: Path) -> None:
    class Rounded(layers.Layer):
        def call(self, x):
            return tf.quantization.fake_quant_with_min_max_args(x, 0.0, 6.0)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), Rounded(), layers.Dense(2, name="y")])
    written = write_saved_model(model, tmp_path / "1")
    assert written.tolerance == FAKE_QUANT_TOLERANCE
    assert written.relative_error <= FAKE_QUANT_TOLERANCE


def test_half_precision_has_its_own_tolerance(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype="mixed_float16", name="y")])
    assert write_saved_model(model, tmp_path / "1").tolerance == FLOAT16_TOLERANCE


def test_a_model_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    x = keras.Input((2,))
    model = keras.Model(x, layers.Rescaling(1.0, name="centred")(x - ops.mean(x, axis=0, keepdims=True)))
    with pytest.raises(ExportError, match=r"'centred' at batch size 3 must agree .* mixes the samples"):
        write_saved_model(model, tmp_path / "1")


def test_an_output_without_a_batch_is_refused(tmp_path: Path) -> None:
    x = keras.Input((2,))
    model = keras.Model(x, ops.sum(x, axis=0, keepdims=True))
    with pytest.raises(ExportError, match="must have the batch as its first axis"):
        write_saved_model(model, tmp_path / "1")


def test_a_fixed_batch_size_is_refused(tmp_path: Path) -> None:
    x = keras.Input(batch_shape=(1, 4))
    model = keras.Model(x, layers.Rescaling(2.0)(ops.reshape(x, (1, 2, 2))))
    with pytest.raises(ExportError, match="fixed batch size"):
        write_saved_model(model, tmp_path / "1")


def test_an_answer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    x = keras.Input((2,))
    model = keras.Model(x, ops.log(x - 2.0))
    with pytest.raises(ExportError, match="NaN or infinite in Keras already"):
        write_saved_model(model, tmp_path / "1")
    assert write_saved_model(model, tmp_path / "2", data=np.full((1, 2), 5.0)).relative_error == 0


def test_subclassed_models_and_strings_are_refused(tmp_path: Path) -> None:
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model(np.zeros((1, 2)))
    with pytest.raises(ModelError, match=r"Received: Subclassed\. Wrap it"):
        write_saved_model(model, tmp_path / "1")
    text = keras.Input((1,), dtype="string", name="text")
    with pytest.raises(ModelError, match="'text' of dtype string"):
        write_saved_model(keras.Model(text, layers.Identity(dtype="string")(text)), tmp_path / "1")


def test_unsuitable_data_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must have shape \(n, 8, 8, 1\)"):
        write_saved_model(small_cnn(), tmp_path / "1", data=np.zeros((2, 8, 8, 3)))
    with pytest.raises(ConfigError, match="expected a new folder"):
        write_saved_model(small_cnn(), tmp_path)
    assert list(tmp_path.iterdir()) == []
