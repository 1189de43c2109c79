import keras
import numpy as np
import pytest
from keras import layers

from tfopt.surgery.elementary import as_elementary


@keras.saving.register_keras_serializable(package="test_normalizations")
class LayerScale(layers.Layer):
    """As keras.applications.ConvNeXt has it."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:])

    def call(self, x):
        return x * self.gamma


def built(layer, shape):
    x = keras.Input(shape)
    model = keras.Model(x, layer(x))
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def samples(shape):
    return np.random.default_rng(1).normal(1.0, 2.0, (6, *shape)).astype(np.float32)


CASES = {
    "layer": (lambda: layers.LayerNormalization(), (5, 7, 6)),
    "layer of steps": (lambda: layers.LayerNormalization(epsilon=0.1), (5, 6)),
    "layer of a vector": (lambda: layers.LayerNormalization(axis=[1]), (6,)),
    "layer of a volume": (lambda: layers.LayerNormalization(), (2, 3, 4, 6)),
    "layer without beta": (lambda: layers.LayerNormalization(center=False), (5, 6)),
    "layer without gamma": (lambda: layers.LayerNormalization(scale=False), (5, 6)),
    "layer without either": (lambda: layers.LayerNormalization(center=False, scale=False), (5, 6)),
    "root mean square": (lambda: layers.RMSNormalization(), (5, 7, 6)),
    "groups": (lambda: layers.GroupNormalization(3), (5, 7, 6)),
    "groups of one channel": (lambda: layers.GroupNormalization(-1, center=False), (5, 6)),
    "unit": (lambda: layers.UnitNormalization(), (5, 6)),
    "layer scale": (lambda: LayerScale(), (5, 7, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_elementary_layers_compute_the_same_with_as_many_weights(name):
    make, shape = CASES[name]
    model = built(make(), shape)
    layer = model.layers[-1]
    rewritten = as_elementary(model)
    assert not any(type(part) is type(layer) for part in rewritten.layers)
    assert rewritten.operations[-1].name in {layer.name, f"{layer.name}_shape"}
    np.testing.assert_allclose(rewritten(samples(shape)), model(samples(shape)), rtol=1e-4, atol=1e-4)
    extra = shape[-1] if name == "layer without gamma" else 0
    assert sum(np.size(weight) for weight in rewritten.trainable_weights) == model.count_params() + extra


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_the_old_rms_scaling_divides_what_is_not_centered():
    model = built(layers.LayerNormalization(rms_scaling=True), (5, 6))
    np.testing.assert_allclose(as_elementary(model)(samples((5, 6))), model(samples((5, 6))), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.LayerNormalization(axis=1), (5, 6)),
        (layers.LayerNormalization(axis=[1, 2]), (5, 6)),
        (layers.RMSNormalization(axis=1), (5, 6)),
        (layers.UnitNormalization(axis=1), (5, 6)),
        (layers.GroupNormalization(3, axis=1), (6, 5)),
        (layers.GroupNormalization(3), (None, 6)),
    ],
)
def test_over_other_axes_they_stay(layer, shape):
    x = keras.Input(shape)
    rewritten = as_elementary(keras.Model(x, layer(x)))
    assert type(rewritten.layers[-1]) is type(layer)


def test_a_scale_that_the_layer_does_not_have_is_not_learned():
    model = built(layers.LayerNormalization(scale=False), (5, 6))
    rewritten = as_elementary(model)
    rewritten.compile("sgd", "mse")
    rewritten.fit(samples((5, 6)), np.zeros((6, 5, 6)), verbose=0)
    np.testing.assert_allclose(rewritten.layers[-1].kernel, np.ones((1, 6, 1)), atol=1e-6)
    assert np.abs(np.asarray(rewritten.layers[-1].bias) - model.get_weights()[0]).max() > 1e-4


def test_options_of_the_weights_are_kept():
    layer = layers.LayerNormalization(gamma_regularizer="l2", beta_regularizer="l1", beta_constraint="non_neg")
    model = built(layer, (5, 6))
    layer.trainable = False
    part = as_elementary(model).layers[-1]
    assert isinstance(part.depthwise_regularizer, keras.regularizers.L2)
    assert isinstance(part.bias_regularizer, keras.regularizers.L1)
    assert isinstance(part.bias_constraint, keras.constraints.NonNeg)
    assert not part.trainable


def test_the_weights_of_a_shared_layer_stay_shared():
    x, norm = keras.Input((5, 6)), layers.LayerNormalization(name="norm")
    model = keras.Model(x, norm(layers.Dense(6)(norm(x))))
    rewritten = as_elementary(model)
    assert rewritten.count_params() == model.count_params()
    np.testing.assert_allclose(rewritten(samples((5, 6))), model(samples((5, 6))), rtol=1e-4, atol=1e-4)


def test_under_mixed_precision_they_compute_in_float32():
    x = keras.Input((5, 6))
    model = keras.Model(x, layers.LayerNormalization(dtype="mixed_float16")(x))
    rewritten = as_elementary(model)
    large = samples((5, 6)) * 1000  # the square overflows in float16
    assert rewritten.output.dtype == "float16"
    assert np.isfinite(np.asarray(rewritten(large))).all()
