"""Ensembles are pruned, measured, averaged in one model and distilled."""

from pathlib import Path

import keras
import numpy as np
import pytest

import tfopt
from tfopt.ensemble import PrunedEnsemble, prune
from tfopt.errors import ConfigError, DataError, ModelError
from tfopt.export.tflite_runtime import run_tflite

pytestmark = pytest.mark.slow

layers = keras.layers
CENTRES = np.random.default_rng(7).normal(size=(3, 6))


def samples(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    return (CENTRES[y] + generator.normal(0, 1.2, (count, 6))).astype(np.float32), y


def classifier(seed: int, activation: str | None = "softmax", *, nested: bool = False) -> keras.Model:
    """Trained a little; all bear the same name, as do their layers."""
    keras.utils.set_random_seed(seed)
    hidden = layers.Dense(4 + 2 * seed, activation="relu", name="hidden")
    first = keras.Sequential([keras.Input((6,)), hidden], name="backbone") if nested else hidden
    model = keras.Sequential(
        [keras.Input((6,), name="x"), first, layers.Dense(3, activation, name="classes")], name="net"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile(keras.optimizers.Adam(0.02), loss)
    x, y = samples(120, seed + 10)
    model.fit(x, y, epochs=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, keras.Model]:
    return {f"net_{seed}": classifier(seed, None if seed % 2 else "softmax", nested=seed == 2) for seed in range(4)}


@pytest.fixture(scope="module")
def pruned(models) -> PrunedEnsemble:
    return prune(models, samples(), size=2, seconds=0.02)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def answers(models: dict[str, keras.Model], x: np.ndarray) -> dict[str, np.ndarray]:
    raw = {name: model.predict(x, verbose=0) for name, model in models.items()}
    return {name: softmax(one) if name in ("net_1", "net_3") else one for name, one in raw.items()}


def test_each_size_is_scored_and_timed(models, pruned) -> None:
    x, y = samples()
    single = {name: np.mean(one.argmax(-1) == y) for name, one in answers(models, x).items()}
    losses = {name: -np.mean(np.log(one[np.arange(300), y])) for name, one in answers(models, x).items()}
    assert pruned.metric == "top-1 accuracy"
    assert pruned.samples == 300
    assert pruned.rows[0].size == 1
    (best,) = pruned.rows[0].weights
    assert pruned.rows[0].score == pytest.approx(max(single.values())) == pytest.approx(single[best])
    assert pruned.rows[0].log_loss == pytest.approx(losses[best], rel=1e-4)
    assert [row.size for row in pruned.rows] == sorted({row.size for row in pruned.rows})
    ranks = [(row.score, -row.log_loss) for row in pruned.rows]
    assert ranks == sorted(ranks)
    assert pruned.chosen.size <= 2
    assert pruned.chosen is [row for row in pruned.rows if row.size <= 2][-1]
    assert dict(pruned.whole.weights) == dict.fromkeys(models, 0.25)
    assert all(row.latency_ms > 0 and sum(row.weights.values()) == pytest.approx(1) for row in pruned.rows)


def test_the_model_is_the_weighted_mean_of_probabilities(models, pruned, tmp_path: Path) -> None:
    x, _ = samples(50, seed=3)
    single = answers(models, x)
    expected = sum(share * single[name] for name, share in pruned.chosen.weights.items())
    received = pruned.model.predict(x, verbose=0)
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert pruned.model is pruned.model
    assert [tensor.name for tensor in pruned.model.inputs] == ["x"]
    pruned.model.save(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "ensemble.keras").predict(x, verbose=0), received)
    score = np.mean(pruned.model.predict(samples()[0], verbose=0).argmax(-1) == samples()[1])
    assert score == pytest.approx(pruned.chosen.score)


def test_the_models_given_stay_as_they_are(models) -> None:
    before = [weight.copy() for model in models.values() for weight in model.get_weights()]
    found = prune(models, samples(), seconds=0)
    for weight in found.model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    after = [weight for model in models.values() for weight in model.get_weights()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_model_is_exported(pruned, conversion_in_this_process, tmp_path: Path) -> None:
    x, _ = samples()
    artifact = tfopt.export_tflite(pruned.model, tmp_path / "ensemble.tflite", "int8", calibration=x)
    assert artifact.verification["full_integer"]
    (received,) = run_tflite(artifact.path, {"x": x}).values()
    assert np.mean(received.argmax(-1) == pruned.model.predict(x, verbose=0).argmax(-1)) > 0.95


@pytest.mark.thorough
def test_tflite_is_timed_on_request(models, conversion_in_this_process) -> None:
    two = {name: models[name] for name in ("net_0", "net_1")}
    found = prune(two, samples(), runtime="tflite", seconds=0.02)
    assert found.rows[0].latency_ms < found.whole.latency_ms
    assert "p50 ms, tflite" in str(found)


def test_a_target_of_latency_is_kept(models, monkeypatch) -> None:
    monkeypatch.setattr(
        "tfopt.ensemble.pruning.latencies_ms",
        lambda models, *_, **__: {key: float(len(m.layers)) for key, m in models.items()},
    )
    free = prune(models, samples())
    limit = free.rows[-2].latency_ms
    tight = prune(models, samples(), target=f"latency: {100 * limit / free.whole.latency_ms:.3f}%")
    assert tight.chosen.latency_ms <= limit < free.chosen.latency_ms
    assert tight.chosen.score == max(row.score for row in tight.rows if row.latency_ms <= limit)


def test_printing_gives_a_table(pruned) -> None:
    lines = str(pruned).splitlines()
    assert lines[0].split() == [
        "models",
        "top-1",
        "accuracy",
        "change",
        "log",
        "loss",
        "p50",
        "ms,",
        "keras",
        "as",
        "fast",
    ]
    assert sum("chosen" in line.split("%")[0] for line in lines[:-1]) == 1
    assert lines[-2].startswith("all 4")
    assert "+0.00 points" in lines[-2]
    assert lines[-1].startswith("300 validation samples")


def test_values_are_averaged_for_a_regression() -> None:
    x, _ = samples()
    y = x[:, 0].astype(np.float64)

    def regressor(bias: float) -> keras.Model:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
        kernel = np.zeros((6, 1))
        kernel[0] = 1
        model.set_weights([kernel, np.array([bias])])
        return model

    found = prune([regressor(bias) for bias in (-1.0, 1.0, 3.0)], (x, y), seconds=0)
    assert found.metric == "R²"
    assert dict(found.chosen.weights) == {"model_0": 0.5, "model_1": 0.5}
    assert found.chosen.score == pytest.approx(1)
    keras.utils.set_random_seed(0)
    student = found.distill(regressor(0.5), (x, y), optimizer=keras.optimizers.Adam(0.05), epochs=10, verbose=0)
    assert student.get_weights()[1] == pytest.approx([0], abs=0.05)


def test_one_hot_targets_choose_the_same(models, pruned) -> None:
    x, y = samples()
    found = prune(models, (x, np.eye(3)[y]), seconds=0)
    assert [dict(row.weights) for row in found.rows] == [dict(row.weights) for row in pruned.rows]
    assert [row.log_loss for row in found.rows] == pytest.approx([row.log_loss for row in pruned.rows])


def test_a_metric_of_ones_own_decides(models) -> None:
    def of_class_0(targets: np.ndarray, outputs: np.ndarray) -> float:
        return float(np.mean((outputs.argmax(-1) == 0)[targets == 0]))

    found = prune(models, samples(), metric=of_class_0, seconds=0)
    assert found.metric == "of_class_0"
    assert found.chosen.score == max(row.score for row in found.rows)


def test_one_sigmoid_is_scored_at_its_threshold() -> None:
    x, y = samples()

    def binary(seed: int, activation: str | None) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation)])
        model.compile(keras.optimizers.Adam(0.05), keras.losses.BinaryCrossentropy(from_logits=activation is None))
        model.fit(x, y == 0, epochs=2, verbose=0)
        return model

    found = prune([binary(0, "sigmoid"), binary(1, None)], (x, (y == 0).astype(int)), seconds=0)
    assert found.metric == "accuracy at threshold 0.5"
    assert found.chosen.score > 0.7
    outputs = found.model.predict(x, verbose=0)
    assert outputs.min() >= 0
    assert outputs.max() <= 1


def test_distilling_follows_the_average_of_the_chosen(models, pruned) -> None:
    x, y = samples(400, seed=5)
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])

    def distance() -> float:
        return float(np.mean(np.abs(softmax(student.predict(x, verbose=0)) - pruned.model.predict(x, verbose=0))))

    before = distance()
    returned = pruned.distill(student, (x, y), optimizer=keras.optimizers.Adam(0.02), epochs=6, verbose=0)
    assert returned is student
    assert distance() < 0.4 * before
    with pytest.raises(DataError, match="tuple"):
        pruned.distill(student, x)


def test_several_inputs_are_shared() -> None:
    def two_inputs(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
        hidden = layers.Concatenate()([a, layers.Dense(2)(b)])
        return keras.Model({"a": a, "b": b}, layers.Dense(3, "softmax")(hidden))

    generator = np.random.default_rng(0)
    x = {"a": generator.normal(size=(30, 2)), "b": generator.normal(size=(30, 3))}
    found = prune([two_inputs(0), two_inputs(1)], (x, np.arange(30) % 3), batch_size=8, seconds=0)
    assert sorted(tensor.name for tensor in found.model.inputs) == ["a", "b"]
    assert found.model.predict(x, verbose=0).shape == (30, 3)
    assert found.runtime == "keras, batch of 8"


def test_models_that_cannot_be_averaged_are_refused(models) -> None:
    other = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    with pytest.raises(ModelError, match=r"take the same inputs.*of 'net_0' and .*of 'model_b'"):
        prune({"net_0": models["net_0"], "model_b": other}, samples())

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    subclassed = Subclassed()
    subclassed.build((None, 6))
    with pytest.raises(ModelError, match="subclassed"):
        prune([models["net_0"], subclassed], samples())
    nothing = keras.Sequential([keras.Input((6,)), layers.Rescaling(1e38), layers.Rescaling(1e38), layers.Dense(3)])
    with pytest.raises(ModelError, match="NaN or infinity from 'model_1'"):
        prune([models["net_0"], nothing], samples())


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"size": 5}, ConfigError, r"at most the number of models, 4\. Received: 5"),
        ({"size": 0}, ConfigError, "size must be a whole number of at least 1"),
        ({"target": "flops: 50%"}, ConfigError, "'latency: 50%'"),
        ({"target": "latency: 0.001%", "seconds": 0}, ConfigError, r"at most 4 models takes 0\.0% .* fastest takes"),
        ({"metric": "auc"}, ConfigError, "Received: 'auc'"),
        ({"runtime": "onnx"}, ConfigError, "keras, tflite. Received: 'onnx'"),
        ({"runtime": "tflite", "batch_size": 2}, ConfigError, "one sample at a time"),
        ({"rounds": 0}, ConfigError, "rounds"),
        ({"seconds": -1.0}, ConfigError, "seconds"),
        ({"models": []}, ConfigError, "at least two models"),
        ({"validation": np.zeros(3)}, DataError, r"tuple \(x, y\)"),
        ({"validation": (np.zeros((4, 6)), [0, 1])}, DataError, "one target for each of the 4"),
        ({"validation": (np.zeros((4, 5)), [0, 1, 0, 1])}, DataError, r"shape \(n, 6\)"),
    ],
)
def test_what_cannot_be_is_refused(models, changed, error, message) -> None:
    arguments = {"models": models, "validation": samples(), **changed}
    with pytest.raises(error, match=message):
        prune(arguments.pop("models"), arguments.pop("validation"), **arguments)
