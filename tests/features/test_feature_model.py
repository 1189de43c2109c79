"""The model of a selection takes raw columns, wherever it goes."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.errors import ConfigError, DataError
from tfopt.export.tflite_runtime import run_tflite
from tfopt.features import FeatureSelection, select

pytestmark = pytest.mark.slow

SAMPLES = 400


def numbers() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = np.stack([generator.normal(1000, 300, SAMPLES), generator.normal(size=SAMPLES), generator.random(SAMPLES)], 1)
    return x, np.where(x[:, 0] + 1000 * (x[:, 2] - 0.5) > 1000, "rich", "poor")


def mixed() -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(0)
    x = {
        "age": generator.normal(40, 10, SAMPLES),
        "noise": generator.normal(size=SAMPLES),
        "work": generator.choice(["private", "state", "none"], SAMPLES, p=[0.6, 0.3, 0.1]),
    }
    return x, 100 * x["age"] + 1000 * (x["work"] == "state") + 50_000


def trained(selection: FeatureSelection, x, y, epochs: int = 12) -> keras.Model:
    model = selection.model()
    model.compile(
        keras.optimizers.Adam(0.01), "mse" if selection.classes is None else "sparse_categorical_crossentropy"
    )
    model.fit(selection.inputs(x), selection.targets(y), epochs=epochs, batch_size=32, verbose=0)
    return model


def test_numbers_alone_are_one_input_that_learns_and_is_exported(conversion_in_this_process, tmp_path: Path) -> None:
    x, y = numbers()
    selection = select(x, y)
    assert selection.kept == ("column_0", "column_2")
    assert selection.classes == ("poor", "rich")
    model = trained(selection, x, y)
    assert model.input_shape == (None, 2)
    inputs = selection.inputs(x)
    answers = model.predict(inputs, verbose=0)
    assert np.mean(answers.argmax(1) == selection.targets(y)) > 0.95
    tfopt.export_tflite(model, tmp_path / "model.tflite", "none", calibration=inputs)
    (received,) = run_tflite(tmp_path / "model.tflite", {"features": inputs[:20]}).values()
    np.testing.assert_allclose(received, answers[:20], atol=1e-5)


def test_the_numbers_of_a_mapping_are_inputs_by_name(conversion_in_this_process, tmp_path: Path) -> None:
    x, y = numbers()
    columns = dict(zip(("income", "noise", "share of rent"), x.T, strict=True))
    selection = select(columns, y)
    model = trained(selection, columns, y)
    assert [tensor.name for tensor in model.inputs] == ["income", "share of rent"]
    inputs = selection.inputs(columns)
    served = tfopt.export_serving(model, tmp_path / "served", data=inputs)
    signature = tf.saved_model.load(served.path).signatures["serving_default"]
    (received,) = signature(income=inputs["income"], share_of_rent=inputs["share of rent"]).values()
    np.testing.assert_allclose(received, model.predict(inputs, verbose=0), atol=1e-5)
    # Each column has a scale of its own, so that int8 keeps both the thousands and the fractions.
    artifact = tfopt.export_tflite(model, tmp_path / "int8.tflite", "int8", calibration=inputs)
    assert artifact.verification["full_integer"]
    assert len({tensor.scale for tensor in artifact.inputs}) == 2


def test_words_are_looked_up_in_the_graph_that_is_saved_and_served(tmp_path: Path) -> None:
    x, y = mixed()
    selection = select(x, y)
    assert selection.kept == ("age", "work")
    model = trained(selection, x, y, epochs=40)
    given = selection.inputs(x)
    answers = model.predict(given, verbose=0)
    residual = answers[:, 0] - y
    assert np.std(residual) < 0.2 * np.std(y)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(given, verbose=0), answers, rtol=1e-6)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    (received,) = served(age=tf.constant(given["age"]), work=given["work"]).values()
    np.testing.assert_allclose(received, answers, rtol=1e-5)


def test_a_word_that_was_not_seen_or_is_rare_is_a_category_of_its_own() -> None:
    x, y = mixed()
    selection = select(x, y, vocabulary_size=1)
    model = selection.model(lambda prepared: prepared)
    prepared = model.predict(
        selection.inputs({"age": [40.0] * 4, "work": ["private", "state", "none", "new"]}), verbose=0
    )
    assert prepared[:, 1:].tolist() == [[0, 1], [1, 0], [1, 0], [1, 0]]
    assert prepared[:, 0] == pytest.approx((40 - x["age"].mean()) / x["age"].std(), abs=1e-4)


def test_the_prepared_numbers_have_mean_0_and_deviation_1() -> None:
    x, y = numbers()
    selection = select(x, y)
    prepared = selection.model(lambda tensor: tensor).predict(selection.inputs(x), verbose=0)
    assert prepared.mean(axis=0) == pytest.approx([0, 0], abs=1e-3)
    assert prepared.std(axis=0) == pytest.approx([1, 1], abs=1e-3)


def test_an_array_of_words_and_numbers_is_taken_by_column() -> None:
    x, y = mixed()
    array = np.array(list(zip(*x.values(), strict=True)), dtype=object)
    selection = select(array, y, names=list(x))
    assert selection.kept == ("age", "work")
    assert selection.model().predict(selection.inputs(array[:5]), verbose=0).shape == (5, 1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"age": [1.0]}, "Missing: work"),
        ({"age": [1.0], "work": [3]}, "'work' must hold words. Received: numbers"),
        ({"age": ["old"], "work": ["state"]}, "'age' must hold numbers. Received: words"),
        ({"age": [np.nan], "work": ["state"]}, "1 missing"),
        (np.array([["a"]], object), "expected 3 columns"),
    ],
)
def test_other_columns_are_refused(x, message) -> None:
    with pytest.raises(DataError, match=message):
        select(*mixed()).inputs(x)


def test_other_arrays_classes_and_bodies_are_refused() -> None:
    selection = select(*numbers())
    with pytest.raises(DataError, match=r"\(n, 3\), all columns as select had them. Received: \(4, 2\)"):
        selection.inputs(np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"classes poor, rich\. Received: middle"):
        selection.targets(["rich", "middle"])
    with pytest.raises(ConfigError, match=r"body must give a tensor.*Received: str"):
        selection.model(lambda prepared: "answer")
