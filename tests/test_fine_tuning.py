"""Fine-tuning with defaults: the loss that fits the targets, and training that learns."""

import keras
import numpy as np
import pytest

from tfopt.errors import ConfigError
from tfopt.fine_tuning import default_loss, fine_tune, fine_tune_quantized
from tfopt.quantization import is_quantize_aware
from tfopt.recipe import FineTuning
from tfopt.surgery.select import select_kernels

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
CLASSES = np.arange(40) % 3
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]
YES_NO = np.arange(40) % 2


def ending_in(units: int, activation: str | None) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])


@pytest.mark.parametrize(
    ("units", "activation", "y", "loss", "from_logits"),
    [
        (3, "softmax", CLASSES, keras.losses.SparseCategoricalCrossentropy, False),
        (3, None, CLASSES, keras.losses.SparseCategoricalCrossentropy, True),
        (3, "softmax", ONE_HOT, keras.losses.CategoricalCrossentropy, False),
        (3, None, ONE_HOT, keras.losses.CategoricalCrossentropy, True),
        (1, "sigmoid", YES_NO, keras.losses.BinaryCrossentropy, False),
        (1, "sigmoid", YES_NO.astype(np.float32)[:, None], keras.losses.BinaryCrossentropy, False),
        (1, None, YES_NO, keras.losses.BinaryCrossentropy, True),
        (1, None, X[:, 0], keras.losses.MeanSquaredError, None),
        (3, None, X[:, :3], keras.losses.MeanSquaredError, None),
        (4, "sigmoid", np.abs(X), keras.losses.MeanSquaredError, None),
    ],
)
def test_the_loss_fits_the_targets(
    units: int, activation: str | None, y: np.ndarray, loss: type, from_logits: bool | None
) -> None:
    chosen = default_loss(ending_in(units, activation), X, y)
    assert type(chosen) is loss
    assert getattr(chosen, "from_logits", chosen.get_config().get("from_logits")) == from_logits
    assert np.isfinite(chosen(y, ending_in(units, activation)(X)))


def test_several_outputs_need_a_loss() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(2)(x)])
    with pytest.raises(ConfigError, match="2 outputs; pass loss="):
        default_loss(model, X, CLASSES)


def test_fine_tuning_learns_and_leaves_the_model_alone() -> None:
    keras.utils.set_random_seed(0)
    y = (X @ np.random.default_rng(1).normal(size=(4, 3))).argmax(-1)
    model = ending_in(3, "softmax")
    before = [np.array(weight) for weight in model.get_weights()]
    settings = FineTuning(epochs=20, learning_rate=0.1, batch_size=8)
    aware = fine_tune_quantized(model, X, y, settings=settings)
    assert is_quantize_aware(aware)
    accuracies = [np.mean(np.argmax(trained(X), -1) == y) for trained in (model, aware)]
    assert accuracies[1] > 0.85 > accuracies[0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_single_step_trains_too() -> None:
    model = ending_in(3, "softmax")
    before = model.get_weights()[0]
    fine_tune(model, X, CLASSES, settings=FineTuning(epochs=1, batch_size=len(X)))
    assert not np.array_equal(model.get_weights()[0], before)


def test_a_compressed_model_stays_compressed() -> None:
    keras.utils.set_random_seed(0)
    hidden, head = keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax")
    model = keras.Sequential([keras.Input((4,)), hidden, head])
    pruned, shared = np.array(hidden.kernel), np.where(np.array(head.kernel) > 0, 0.3, -0.2)
    pruned[np.abs(pruned) < np.median(np.abs(pruned))] = 0
    hidden.kernel.assign(pruned)
    head.kernel.assign(shared)
    aware = fine_tune_quantized(model, X, CLASSES, settings=FineTuning(epochs=3, learning_rate=0.05, batch_size=8))
    after = [np.array(kernel) for _, kernel in select_kernels(aware)]
    np.testing.assert_array_equal(after[0] == 0, pruned == 0)
    assert np.all((after[0] != pruned) == (pruned != 0))
    assert len(np.unique(after[1][shared > 0])) == len(np.unique(after[1][shared < 0])) == 1
    assert not np.isin(after[1], shared).any()


def test_a_loss_of_ones_own_is_used() -> None:
    aware = fine_tune_quantized(ending_in(3, None), X, ONE_HOT, settings=FineTuning(epochs=1), loss="mae")
    assert aware.loss == "mae"


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    aware = fine_tune_quantized(
        ending_in(3, None), X, CLASSES, settings=FineTuning(epochs=5, batch_size=4, learning_rate=0.2)
    )
    assert int(aware.optimizer.iterations) == 50
    assert float(aware.optimizer.learning_rate) < 0.01


def test_class_numbers_in_a_column_as_keras_loads_cifar10() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    y = (np.arange(64) % 3)[:, np.newaxis]
    loss = default_loss(model, np.ones((64, 4), np.float32), y)
    assert isinstance(loss, keras.losses.SparseCategoricalCrossentropy)


@pytest.mark.parametrize(("units", "y", "follows"), [(3, CLASSES, True), (3, ONE_HOT, True), (1, X[:, 0], False)])
def test_classifiers_follow_their_teacher(units: int, y: np.ndarray, follows: bool) -> None:
    teacher, alone, taught = (ending_in(units, None) for _ in range(3))
    teacher.set_weights([3 * weight for weight in teacher.get_weights()])
    settings = FineTuning(epochs=5, learning_rate=0.05, batch_size=8)
    for model, more in ((alone, {}), (taught, {"distillation": True})):
        keras.utils.set_random_seed(0)
        fine_tune(model, X, y, settings=settings.model_copy(update=more), teacher=teacher)
    distance = [float(np.mean(np.abs(model.predict(X) - teacher.predict(X)))) for model in (alone, taught)]
    assert distance[1] < 0.8 * distance[0] if follows else distance[1] == distance[0]


def test_the_loss_of_a_model_with_several_inputs_is_told() -> None:
    left, right = keras.Input((2,)), keras.Input((3,))
    joined = keras.layers.Concatenate()([left, right])
    model = keras.Model([left, right], keras.layers.Dense(4, "softmax")(joined))
    loss = default_loss(model, [np.ones((80, 2)), np.ones((80, 3))], np.arange(80) % 4)
    assert isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
