"""A network cut into stages computes what it computed whole, each layer once."""

import keras
import numpy as np
import pytest
from exit_networks import classifier, samples

import tfopt
from tfopt.early_exit import split_stages
from tfopt.errors import ModelError
from tfopt.surgery.flops import costs

layers = keras.layers


def run_stages(network: keras.Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    tensors, answers = dict(inputs), []
    for stage in split_stages(network).stages:
        outputs = stage.model([tensors[name] for name in stage.reads], training=False)
        tensors |= dict(zip(stage.writes, map(np.asarray, keras.tree.flatten(outputs)), strict=True))
        answers.append(tensors[stage.writes[0]])
    return answers


def test_stages_compute_what_the_network_computes() -> None:
    network = tfopt.early_exit(classifier(), ["early", "middle"])
    x, _ = samples(8)
    for received, expected in zip(run_stages(network, {"image": x}), network.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_a_shortcut_past_an_exit_is_handed_on() -> None:
    stages = split_stages(tfopt.early_exit(classifier(), ["early", "middle"]))
    assert stages.exits == ("exit_1", "exit_2", "classes")
    assert [stage.reads for stage in stages.stages] == [("image",), ("early",), ("middle", "early")]
    assert [stage.writes for stage in stages.stages] == [("exit_1", "early"), ("exit_2", "middle"), ("classes",)]


def test_flops_are_those_of_the_layers() -> None:
    model = classifier()
    stages = split_stages(tfopt.early_exit(model, ["early", "middle"]))
    heads = 2 * 2 * 6 * 3  # two heads of 6 × 3 weights
    assert stages.full_flops == costs(model).flops
    assert stages.cumulative_flops[-1] == costs(model).flops + heads
    assert stages.cumulative_flops[0] == 2 * 64 * 9 * 6 + 2 * 6 * 3


def test_several_inputs_and_an_input_that_is_read_late() -> None:
    first, second = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    h = layers.Dense(4, activation="relu", name="hidden")(first)
    late = layers.Concatenate()([h, second, first])
    model = keras.Model({"first": first, "second": second}, layers.Dense(3, name="classes")(late))
    network = tfopt.early_exit(model, ["hidden"])
    inputs = {"first": np.ones((5, 3), np.float32), "second": np.full((5, 2), 2, np.float32)}
    stages = split_stages(network).stages
    assert stages[0].reads == ("first",)
    assert set(stages[1].reads) == {"hidden", "second", "first"}
    for received, expected in zip(run_stages(network, inputs), network.predict(inputs, verbose=0), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_an_exit_that_later_layers_read() -> None:
    x = keras.Input((3,), name="x")
    first = layers.Dense(2, name="first")(x)
    second = layers.Dense(2, name="second")(layers.Concatenate()([first, x]))
    network = keras.Model(x, [first, second])
    assert [stage.writes for stage in split_stages(network).stages] == [("first",), ("second",)]
    data = np.ones((4, 3), np.float32)
    for received, expected in zip(run_stages(network, {"x": data}), network.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_models_without_exits_are_refused() -> None:
    with pytest.raises(ModelError, match="with 1 output"):
        split_stages(classifier())
    x = keras.Input((3,))
    h = layers.Dense(4)(x)
    first, second = layers.Dense(2)(h), layers.Dense(2, "softmax")(h)
    with pytest.raises(ModelError, match=r"linear \(None, 2\), softmax \(None, 2\)"):
        split_stages(keras.Model(x, [first, second]))
    with pytest.raises(ModelError, match="output 2 needs nothing beyond"):
        split_stages(keras.Model(x, [layers.Dense(2)(first), first]))
