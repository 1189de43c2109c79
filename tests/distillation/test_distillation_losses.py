import keras
import numpy as np
import pytest

from tfopt.distillation import (
    AngleLoss,
    AttentionLoss,
    DecoupledLoss,
    DistanceLoss,
    DistillationLoss,
    FeatureLoss,
    LogitsLoss,
)
from tfopt.distillation.soft_targets import decoupled_divergence
from tfopt.errors import ConfigError

rng = np.random.default_rng(0)
TEACHER, STUDENT = (rng.normal(size=(6, 5)).astype(np.float32) for _ in range(2))

MADE = [
    LogitsLoss(2.0, student_layer_name="a", teacher_layer_name=["b", "c"], student_from_logits=True, name="x"),
    DecoupledLoss(3.0, target_weight=2.0, other_weight=0.5, teacher_from_logits=False),
    FeatureLoss("a", "b/c", name="y"),
    AttentionLoss("a", "b"),
    DistanceLoss(),
    AngleLoss("a", "b"),
]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_logits_loss_is_that_of_keras_for_the_divergence_itself(temperature):
    # By its name, "kl_divergence", Keras 3.15 finds a function, and does not normalize what it compares.
    expected = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    expected = expected.compute_loss(TEACHER, STUDENT)
    assert np.isclose(LogitsLoss(temperature)(TEACHER, STUDENT), expected, rtol=1e-4)


def test_feature_loss_is_that_of_keras_for_equal_shapes():
    expected = keras.distillation.FeatureDistillation("mse").compute_loss(TEACHER, STUDENT)
    assert np.isclose(FeatureLoss("a", "b")(TEACHER, STUDENT), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [LogitsLoss(), FeatureLoss(None, None), DistanceLoss(), AngleLoss()])
def test_sample_weights_count(loss):
    weights = np.float32([1, 0, 2, 0, 0, 3])
    values = np.asarray(loss.call(TEACHER, STUDENT))
    assert np.isclose(loss(TEACHER, STUDENT, weights), (values * weights).sum() / 6, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda y: y, lambda y: y[:, None], lambda y: np.eye(5)[y], lambda y: np.eye(5)[y] * 0.9]
)
def test_decoupled_loss_takes_labels_of_any_form(make):
    labels = np.array([0, 1, 2, 3, 4, 0])
    expected = decoupled_divergence(
        TEACHER, STUDENT, np.eye(5)[labels], temperature=4.0, target_weight=1.0, other_weight=8.0
    )
    assert np.isclose(DecoupledLoss()((TEACHER, make(labels)), STUDENT), np.mean(expected), rtol=1e-5)


def test_relations_of_sequences_and_images_are_those_of_their_means():
    images = rng.normal(size=(6, 2, 3, 4)).astype(np.float32)
    assert np.allclose(DistanceLoss().summary(images), images.mean((1, 2)), atol=1e-6)
    assert np.allclose(DistanceLoss().summary(images[:, 0]), images[:, 0].mean(1), atol=1e-6)
    assert np.allclose(DistanceLoss().summary(TEACHER), TEACHER)


def test_means_leave_padded_steps_out():
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 2, 0], [3, 0, 0]]))
    expected = [np.asarray(embedded)[0, :2].mean(0), np.asarray(embedded)[1, 0]]
    assert np.allclose(AngleLoss().summary(embedded), expected, atol=1e-6)


@pytest.mark.parametrize("loss", MADE, ids=lambda loss: type(loss).__name__)
def test_config_round_trip(loss):
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    assert isinstance(again, DistillationLoss)
    assert vars(again).keys() == vars(loss).keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitsLoss(0), "LogitsLoss: temperature must be above 0. Received: 0."),
        (lambda: LogitsLoss("hot"), "Received: 'hot'"),
        (lambda: DecoupledLoss(float("nan")), "DecoupledLoss: temperature .*Received: nan"),
        (lambda: DecoupledLoss(other_weight=-1), "other_weight must be at least 0. Received: -1"),
        (lambda: LogitsLoss().check_shapes((None, 3), (None, 4)), r"as many classes.*\(None, 3\) and \(None, 4\)"),
        (lambda: LogitsLoss().check_shapes((None, 1), (None, 1)), "at least 2"),
        (lambda: FeatureLoss("a", "b").check_shapes((None, 3), (None, 4, 4, 3)), "FeatureLoss 'feature'.*'a'.*'b'"),
        (lambda: FeatureLoss("a", "b").check_shapes((None, 7, 3), (None, 8, 3)), "sequences of one length"),
        (lambda: AttentionLoss("a", "b").check_shapes((None, 3), (None, 3)), "AttentionLoss 'attention': both layers"),
        (lambda: AngleLoss().check_shapes((None,), (None, 3)), "AngleLoss 'angle'"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
