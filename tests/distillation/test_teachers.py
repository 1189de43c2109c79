import keras
import numpy as np
import pytest

from tfopt.distillation import FeatureLoss, LogitsLoss
from tfopt.distillation.teachers import Teachers
from tfopt.errors import ConfigError, ModelError

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def network(units=3, inputs=4):
    return keras.Sequential(
        [keras.Input((inputs,)), L.Dense(units, name="hidden"), L.BatchNormalization(), L.Dropout(0.5), L.Dense(3)]
    )


def test_each_teacher_answers_each_loss_at_inference():
    models = [network(5), network(7)]
    before = [model.get_weights() for model in models]
    teachers = Teachers(models, network(), [LogitsLoss(), FeatureLoss("hidden", ["hidden", "hidden"])])
    features = teachers.features(X)
    for model, (logits, hidden) in zip(models, features, strict=True):
        assert np.allclose(logits, model(X, training=False), atol=1e-6)
        assert np.allclose(hidden, model.get_layer("hidden")(X), atol=1e-6)
    assert teachers.shapes == [[(None, 3), (None, 5)], [(None, 3), (None, 7)]]
    for model, weights in zip(models, before, strict=True):
        assert all(map(np.array_equal, model.get_weights(), weights))
        assert model.trainable


def test_shares_add_up_to_1():
    models = [network(), network()]
    assert Teachers(models, network(), []).shares == [0.5, 0.5]
    assert Teachers(models, network(), [], [3, 1]).shares == [0.75, 0.25]


def test_bad_input_is_named():
    student, teacher = network(), network()
    shared = keras.Sequential([keras.Input((4,)), student.get_layer("hidden"), L.Dense(3)])
    unbuilt = keras.Sequential([L.Dense(3)])
    two = [teacher, network()]
    for make, error, message in [
        (lambda: Teachers([], student, []), ConfigError, "Received: an empty list"),
        (lambda: Teachers("teacher", student, []), ModelError, "Received: str"),
        (lambda: Teachers(unbuilt, student, []), ModelError, "is not built"),
        (lambda: Teachers(student, student, []), ModelError, "shares weights with the student.*clone_model"),
        (lambda: Teachers(shared, student, []), ModelError, "shares weights with the student"),
        (lambda: Teachers(network(inputs=5), student, []), ModelError, r"inputs of the same shapes.*\(None, 5\)"),
        (
            lambda: Teachers(two, student, [], [1.0]),
            ConfigError,
            r"each of the 2 teachers, not all 0. Received: \[1.0\]",
        ),
        (lambda: Teachers(two, student, [], [0, 0]), ConfigError, r"Received: \[0, 0\]"),
        (lambda: Teachers(two, student, [], [1, -1]), ConfigError, "Received: -1"),
        (
            lambda: Teachers(teacher, student, [FeatureLoss("hidden", ["hidden"] * 2)]),
            ConfigError,
            "one for each of the 1 teachers",
        ),
        (lambda: Teachers(teacher, student, [FeatureLoss("hidden", "nothing")]), ConfigError, "no layer 'nothing'"),
    ]:
        with pytest.raises(error, match=message):
            make()
