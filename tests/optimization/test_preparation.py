"""What a recipe does to the network itself, with and without its training."""

import keras
import numpy as np
import pytest

from tfopt.optimization.preparation import quantize, reduce, untrained
from tfopt.quantization import strip
from tfopt.recipe import ChannelPruning, Factorization, FineTuning, Recipe, WeightPruning
from tfopt.surgery.flops import costs
from tfopt.surgery.select import select_kernels

TRAINING = FineTuning(epochs=3, learning_rate=0.01, batch_size=16, distillation=True)
generator = np.random.default_rng(0)
X = generator.normal(size=(96, 12)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64) + (X[:, 2] > 1)
RECIPES = {
    "channels": Recipe(channel_pruning=ChannelPruning(flops=0.5, multiple_of=4, fine_tuning=TRAINING)),
    "low rank": Recipe(factorization=Factorization(flops=0.5, fine_tuning=TRAINING)),
    "zeros": Recipe(weight_pruning=WeightPruning(sparsity=0.7, values=None, fine_tuning=TRAINING)),
    "shared values": Recipe(weight_pruning=WeightPruning(sparsity=0.5, values=8, fine_tuning=TRAINING)),
}
RECIPES["all"] = Recipe(
    channel_pruning=RECIPES["channels"].channel_pruning,
    factorization=Factorization(flops=0.8, fine_tuning=TRAINING),
    weight_pruning=RECIPES["shared values"].weight_pruning,
)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(40, "relu"), keras.layers.Dense(32, "relu"), keras.layers.Dense(3, "softmax")]
    network = keras.Sequential([keras.Input((12,), name="x"), *layers])
    network.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(X, Y, epochs=15, batch_size=16, verbose=0)
    return network


def kernels(network: keras.Model) -> list[np.ndarray]:
    return [np.asarray(kernel) for _, kernel in select_kernels(network)]


def zeros(network: keras.Model) -> float:
    return float(np.mean(np.concatenate([kernel.ravel() for kernel in kernels(network)]) == 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECIPES))
def test_training_changes_neither_size_nor_operations(model: keras.Model, name: str) -> None:
    recipe = RECIPES[name]
    before = [weight.copy() for weight in model.get_weights()]
    trained, measured = reduce(model, recipe, X, Y), untrained(model, recipe)
    assert [kernel.shape for kernel in kernels(trained)] == [kernel.shape for kernel in kernels(measured)]
    assert costs(trained).flops == costs(measured).flops
    assert zeros(trained) == pytest.approx(zeros(measured), abs=0.01)
    assert any(np.any(one != two) for one, two in zip(kernels(trained), kernels(measured), strict=True))
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("name", "share"), [("channels", 0.5), ("low rank", 0.5), ("all", 0.4)])
def test_as_few_operations_as_asked_for(model: keras.Model, name: str, share: float) -> None:
    assert costs(untrained(model, RECIPES[name])).flops <= share * costs(model).flops


@pytest.mark.thorough
def test_zeros_and_values_as_asked_for_stay_in_quantization_aware_training(model: keras.Model) -> None:
    recipe = RECIPES["shared values"].model_copy(update={"fine_tuning": TRAINING})
    trained = reduce(model, recipe, X, Y)
    assert zeros(trained) == pytest.approx(0.5, abs=0.01)
    assert [np.unique(kernel).size <= 8 for kernel in kernels(trained)] == [True] * 3
    aware = strip(quantize(trained, recipe, X, Y, teacher=model))
    assert zeros(aware) >= zeros(trained)
    assert any(np.any(one != two) for one, two in zip(kernels(aware), kernels(trained), strict=True))


def test_kernels_too_small_to_share_values_keep_theirs(model: keras.Model) -> None:
    many = Recipe(weight_pruning=WeightPruning(sparsity=0.0, values=64))
    assert [np.unique(kernel).size for kernel in kernels(untrained(model, many))] == [64, 64, 96]
    most = Recipe(weight_pruning=WeightPruning(sparsity=0.0, values=256))
    assert [np.unique(kernel).size for kernel in kernels(untrained(model, most))][::2] == [480, 96]


def test_nothing_asked_for_is_the_model_itself(model: keras.Model) -> None:
    assert reduce(model, Recipe(), X, Y) is model
    assert untrained(model, Recipe()) is model
