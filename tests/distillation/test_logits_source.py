import keras
import numpy as np
import pytest

from tfopt.distillation.logits_source import find_logits
from tfopt.distillation.tapped_model import Tap, TappedModel
from tfopt.errors import ConfigError
from tfopt.quantization import quantize_aware
from tfopt.surgery.graph import read_graph

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def functional(*layers):
    x = keras.Input((4,))
    y = x
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


ENDS = {
    "layer": lambda: functional(L.Dense(3), L.Softmax()),
    "activation": lambda: functional(L.Dense(3), L.Activation("softmax")),
    "operation": lambda: functional(L.Dense(3), keras.ops.softmax),
    "fused": lambda: functional(L.Dense(3, activation="softmax")),
    "linear after": lambda: functional(L.Dense(3, activation="softmax"), L.Activation("linear")),
    "reshaped": lambda: functional(L.Dense(3), L.Reshape((1, 3)), L.Softmax(), L.Flatten()),
    "nested": lambda: functional(keras.Sequential([L.Dense(3, activation="softmax")]), L.Identity()),
    "over steps": lambda: functional(L.Reshape((1, 4)), L.TimeDistributed(L.Dense(3, activation="softmax"))),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_is_read_before_a_softmax_gives_the_output_when_normalized_once(end):
    model = ENDS[end]()
    output, (logits,) = TappedModel(model, [Tap(on_logits=True)])(X)
    assert np.allclose(output, model(X), atol=1e-6)
    assert not np.allclose(logits, output, atol=0.05)
    assert np.allclose(keras.ops.softmax(logits), output, atol=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        [L.Dense(3)],
        [L.Dense(3), keras.layers.Activation("log_softmax")],
        [L.Dense(6, activation="softmax"), L.Dense(3)],
        [L.Reshape((2, 2)), L.Softmax(axis=1)],
    ],
)
def test_what_is_no_softmax_of_classes_is_read_as_it_is(layers):
    graph = read_graph(functional(*layers))
    source = find_logits(graph, graph.outputs)
    assert source.value is graph.outputs
    assert not source.after_softmax


def test_a_quantize_aware_softmax_is_seen_through_its_roundings():
    aware = quantize_aware(functional(L.Dense(3, activation="softmax", name="head")), calibration=X)
    graph = read_graph(aware)
    source = find_logits(graph, graph.outputs)
    assert not source.after_softmax
    (softmax,) = (call for call in graph.calls if isinstance(call.operation, L.Softmax))
    assert source.value is softmax.inputs[0]


@pytest.mark.parametrize(
    "end", [[L.Dense(3, activation="sigmoid")], [L.Dense(3), L.Activation("sigmoid")], [L.Dense(3), keras.ops.sigmoid]]
)
def test_a_sigmoid_is_refused(end):
    graph = read_graph(functional(*end))
    with pytest.raises(ConfigError, match=r"ends in a sigmoid.*Use FeatureLoss"):
        find_logits(graph, graph.outputs)
