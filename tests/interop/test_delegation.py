"""Verbs of tfopt on models of tf_keras: tfmot does it, with arguments that mean the same, or the error says why not."""

import numpy as np
import pytest
from tf_keras_networks import L, image_network, randomized, tf_keras

import tfopt
from tfopt.callbacks import MagnitudePruning
from tfopt.errors import ConfigError, ModelError
from tfopt.interop.delegation import prune_tf_keras
from tfopt.interop.legacy import import_tfmot, is_tf_keras

tfmot = import_tfmot()
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = pytest.mark.filterwarnings("ignore")
X = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)


def dense():
    return randomized(
        tf_keras.Sequential([L.Input((12,)), L.Dense(16, "relu", name="hidden"), L.Dense(4, name="scores")])
    )


def fitted(model, callbacks):
    model.compile("sgd", "mse")
    model.fit(X, X[:, :4], batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
    return model


@pytest.mark.slow
def test_quantize_aware_is_tfmots():
    model = image_network()
    aware, expected = tfopt.quantize_aware(model), tfmot.quantization.keras.quantize_model(model)
    assert is_tf_keras(aware)
    assert [layer.name for layer in aware.layers if "quant_" in layer.name] == [
        layer.name for layer in expected.layers if "quant_" in layer.name
    ]


def test_layers_may_stay_in_float():
    aware = tfopt.quantize_aware(dense(), layers={"hid.*": "none"})
    wrapped = {
        layer.layer.name: type(layer.quantize_config).__name__ for layer in aware.layers if hasattr(layer, "layer")
    }
    assert wrapped["hidden"] == "OutputOnlyConfig"
    assert wrapped["scores"] != "OutputOnlyConfig"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": X}, r"tfmot, which has no calibration.*from_tf_keras"),
        ({"config": "int16x8"}, r"tfmot, which has int8 only\. Received: config='int16x8'"),
        ({"layers": {"hidden": "float16"}}, r"is int8 or stays in float.*'hidden': 'float16'"),
        ({"layers": {"absent": "none"}}, r"layers='absent' matches no layer of .* Its layers: hidden, scores"),
    ],
)
def test_what_tfmot_has_not_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        tfopt.quantize_aware(dense(), **arguments)


def test_what_tfmot_cannot_quantize_is_named():
    model = tf_keras.Sequential([L.Input((8, 3)), L.Conv1D(4, 3), L.Flatten()], name="signal")
    with pytest.raises(ModelError, match=r"tfmot refuses the tf_keras model 'signal'.*translate it first"):
        tfopt.quantize_aware(model)


@pytest.mark.slow
def test_pruning_is_tfmots_with_the_arguments_of_the_callback():
    """Both begin with the same weights and see the same batches: the same weights remain."""
    old = dense()
    new = tfopt.from_tf_keras(old)
    arguments = {"end_step": 9, "frequency": 3}
    wrapped, callbacks = prune_tf_keras(old, 0.75, **arguments)
    fitted(wrapped, callbacks)
    fitted(new, [MagnitudePruning(0.75, **arguments)])
    theirs = tfopt.from_tf_keras(wrapped)
    for name in ("hidden", "scores"):
        kernels = [np.asarray(model.get_layer(name).kernel) for model in (theirs, new)]
        assert np.mean(kernels[0] == 0) == 0.75
        np.testing.assert_array_equal(kernels[0] == 0, kernels[1] == 0)


@pytest.mark.slow
def test_patterns_blocks_and_chosen_layers():
    wrapped, callbacks = prune_tf_keras(dense(), 0.5, end_step=0, frequency=1, block=(1, 4), layers="hidden")
    assert wrapped.layers[0].block_size == (4, 1)
    assert [hasattr(layer, "pruning_vars") for layer in wrapped.layers] == [True, False]
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    wrapped, callbacks = prune_tf_keras(dense(), schedule=schedule, pattern="2:4")
    kernel = tfopt.from_tf_keras(fitted(wrapped, callbacks)).get_layer("hidden").kernel
    groups = np.asarray(kernel).T.reshape(-1, 4)
    assert np.all(np.count_nonzero(groups, axis=1) <= 2)


def test_bad_arguments():
    with pytest.raises(ConfigError, match="end_step is needed"):
        prune_tf_keras(dense())
    with pytest.raises(ConfigError, match="layers='absent' matches no layer"):
        prune_tf_keras(dense(), end_step=1, layers="absent")
    with pytest.raises(ModelError, match="tfmot refuses"):
        prune_tf_keras(dense(), 80, end_step=1)
    with pytest.raises(ModelError, match=r"expected a tf_keras model\. Received: Sequential"):
        prune_tf_keras(tfopt.from_tf_keras(dense()), end_step=1)
