"""The parity contract: at every output, Keras's fake-quantized value and the .tflite's differ by at most 1 LSB.

All cases are branches of one model, so that one conversion serves them all. No two branches may compute the same
thing: the converter would merge them.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware

CASES: dict[str, Callable[[Any], Any]] = {}
PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, z: layers.Add()([x, z]),
    "add_relu": lambda x, z: layers.ReLU()(layers.Add()([z, layers.MaxPooling2D(3, 1, "same")(x)])),
    "subtract": lambda x, z: layers.Subtract()([x, z]),
    "multiply": lambda x, z: layers.Multiply()([x, z]),
    "multiply_per_channel": lambda x, z: layers.Multiply()([x, layers.GlobalMaxPooling2D(keepdims=True)(z)]),
    "operators_on_tensors": lambda x, z: layers.MaxPooling2D(2)(x) * layers.MaxPooling2D(2)(z),
    "maximum": lambda x, z: layers.Maximum()([x, z]),
    "minimum": lambda x, z: layers.Minimum()([x, z]),
    "add_relu6": lambda x, z: layers.ReLU(6.0)(layers.Add()([x, layers.MaxPooling2D(3, 1, "same")(z)])),
}


def case(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    CASES[build.__name__] = build
    return build


def conv(filters: int = 6, **options: Any) -> layers.Layer:
    return layers.Conv2D(filters, 3, padding="same", bias_initializer="normal", **options)


def batch_norm() -> layers.Layer:
    return layers.BatchNormalization(
        beta_initializer="normal",
        gamma_initializer=keras.initializers.RandomUniform(-1.5, 1.5),
        moving_mean_initializer="normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.2, 2.0),
    )


def dense(units: int = 7, **options: Any) -> layers.Layer:
    return layers.Dense(units, bias_initializer="normal", **options)


def chain(*steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def build(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return build


CASES |= {
    "dense": lambda x: dense()(layers.Flatten()(x)),
    "dense_relu": lambda x: dense(activation="relu")(layers.Flatten()(x)),
    "dense_relu6": lambda x: dense(activation="relu6")(layers.Flatten()(x)),
    "dense_softmax": lambda x: dense(activation="softmax")(layers.Flatten()(x)),
    "dense_sigmoid": lambda x: dense(activation="sigmoid")(layers.Flatten()(x)),
    "dense_tanh": lambda x: dense(activation="tanh")(layers.Flatten()(x)),
    "dense_without_bias": lambda x: dense(use_bias=False)(layers.Flatten()(x)),
    "dense_on_channels": lambda x: dense()(x),
    "dense_batch_norm": lambda x: batch_norm()(dense()(layers.Flatten()(x))),
    "dense_batch_norm_relu": lambda x: chain(layers.Flatten(), dense(use_bias=False), batch_norm(), layers.ReLU())(x),
    "conv": lambda x: conv()(x),
    "conv_strides_valid": lambda x: layers.Conv2D(5, 3, strides=2)(x),
    "conv_dilated": lambda x: layers.Conv2D(5, 3, dilation_rate=2)(x),
    "conv_relu": lambda x: conv(activation="relu")(x),
    "conv_relu6_layer": lambda x: layers.ReLU(6.0)(conv()(x)),
    "conv_batch_norm": lambda x: batch_norm()(conv()(x)),
    "conv_batch_norm_relu": lambda x: chain(conv(use_bias=False), batch_norm(), layers.ReLU())(x),
    "conv_batch_norm_relu6": lambda x: chain(conv(), batch_norm(), layers.ReLU(6.0))(x),
    "conv_relu_batch_norm": lambda x: chain(conv(activation="relu"), batch_norm())(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, bias_initializer="normal")(x),
    "depthwise_multiplier_strides": lambda x: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(x),
    "depthwise_batch_norm_relu6": lambda x: chain(
        layers.DepthwiseConv2D(3, padding="same", use_bias=False), batch_norm(), layers.ReLU(6.0)
    )(x),
    "batch_norm": lambda x: batch_norm()(x),
    "batch_norm_relu": lambda x: layers.ReLU()(batch_norm()(x)),
    "batch_norm_on_vector": lambda x: batch_norm()(layers.Flatten()(x)),
    "relu": lambda x: layers.ReLU()(x),
    "relu6": lambda x: layers.Activation("relu6")(x),
    "softmax_on_channels": lambda x: layers.Softmax()(x),
    "max_pool": lambda x: layers.MaxPooling2D()(x),
    "max_pool_relu": lambda x: chain(conv(), layers.MaxPooling2D(), layers.ReLU())(x),
    "average_pool": lambda x: layers.AveragePooling2D(2)(x),
    "average_pool_same_padding": lambda x: layers.AveragePooling2D(3, strides=1, padding="same")(x),
    "conv_average_pool_relu": lambda x: chain(conv(), layers.AveragePooling2D(2), layers.ReLU())(x),
    "global_average_pool": lambda x: layers.GlobalAveragePooling2D()(x),
    "global_average_pool_keepdims": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "global_max_pool": lambda x: layers.GlobalMaxPooling2D()(x),
    "flatten": lambda x: layers.Flatten()(x),
    "reshape": lambda x: layers.Reshape((16, 16))(x),
    "permute": lambda x: layers.Permute((2, 1, 3))(x),
    "zero_padding_conv": lambda x: chain(layers.ZeroPadding2D(1), layers.Conv2D(4, 3, strides=2))(x),
    "cropping": lambda x: layers.Cropping2D(1)(x),
    "dropout_dense": lambda x: chain(layers.Flatten(), layers.Dropout(0.5), dense())(x),
    "conv_dropout_relu": lambda x: chain(conv(), layers.Dropout(0.5), layers.ReLU())(x),
    "gelu": lambda x: layers.Activation("gelu")(x),
    "silu": lambda x: layers.Activation("silu")(x),
    "hard_silu": lambda x: layers.Activation("hard_silu")(x),
    "hard_sigmoid": lambda x: layers.Activation("hard_sigmoid")(x),
    "leaky_relu": lambda x: layers.LeakyReLU(0.2)(x),
    "relu_with_slope": lambda x: layers.ReLU(negative_slope=0.3)(x),
    "prelu": lambda x: chain(layers.Cropping2D(2), layers.PReLU(alpha_initializer="normal", shared_axes=[1, 2]))(x),
    "rescaling": lambda x: layers.Rescaling(0.5, offset=-1.0)(x),
    "rescaling_relu": lambda x: layers.ReLU()(layers.Rescaling(1.5, offset=0.2)(x)),
    "normalization": lambda x: layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 0.5, 3.0])(x),
    "operators_with_numbers": lambda x: 1.0 - x,
    "division": lambda x: x / 3.0,
    "conv1d": lambda x: chain(layers.Reshape((16, 16)), layers.Conv1D(5, 3, bias_initializer="normal"))(x),
    "conv1d_batch_norm_relu": lambda x: chain(
        layers.Reshape((16, 16)), layers.Conv1D(5, 3, padding="same", use_bias=False), batch_norm(), layers.ReLU()
    )(x),
    "conv1d_causal_relu": lambda x: chain(
        layers.Reshape((16, 16)), layers.Conv1D(4, 3, padding="causal", activation="relu")
    )(x),
    "depthwise1d": lambda x: chain(layers.Reshape((16, 16)), layers.DepthwiseConv1D(3))(x),
    "conv2d_transpose": lambda x: layers.Conv2DTranspose(5, 3, strides=2, bias_initializer="normal")(x),
    "conv2d_transpose_batch_norm_relu": lambda x: chain(
        layers.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False), batch_norm(), layers.ReLU()
    )(x),
    "conv1d_transpose": lambda x: chain(layers.Reshape((16, 16)), layers.Conv1DTranspose(5, 3, strides=2))(x),
    "max_pool1d": lambda x: chain(layers.Reshape((16, 16)), layers.MaxPooling1D(2))(x),
    "average_pool1d": lambda x: chain(layers.Reshape((16, 16)), layers.AveragePooling1D(2))(x),
    "global_average_pool1d": lambda x: chain(layers.Reshape((16, 16)), layers.GlobalAveragePooling1D())(x),
    "global_max_pool1d": lambda x: chain(layers.Reshape((16, 16)), layers.GlobalMaxPooling1D())(x),
    "zero_padding1d": lambda x: chain(layers.Reshape((16, 16)), layers.ZeroPadding1D(1))(x),
    "cropping1d": lambda x: chain(layers.Reshape((16, 16)), layers.Cropping1D(1))(x),
    "up_sampling1d": lambda x: chain(layers.Reshape((16, 16)), layers.UpSampling1D(2))(x),
    "up_sampling2d": lambda x: layers.UpSampling2D(2)(x),
    "up_sampling2d_bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "repeat_vector": lambda x: chain(layers.Flatten(), layers.RepeatVector(2))(x),
    "nested_model": lambda x: keras.Sequential([keras.Input((8, 8, 4)), conv(), layers.ReLU()])(x),
}


@case
def residual_add(x: Any) -> Any:
    y = conv(4, activation="relu")(x)
    return layers.Add()([x, conv(4)(y)])


@case
def concatenate(x: Any) -> Any:
    return layers.Concatenate()([conv(activation="relu")(x), conv(3)(x)])


@case
def concatenate_input_used_twice(x: Any) -> Any:
    y = conv(activation="relu")(x)
    joined = layers.Concatenate()([y, layers.MaxPooling2D(3, strides=1, padding="same")(y), conv(3)(y)])
    return conv(2)(joined)


@case
def concatenate_with_softmax(x: Any) -> Any:
    flat = layers.Flatten()(x)
    return layers.Concatenate()([dense(3)(flat), dense(3, activation="softmax")(flat)])


@case
def shared_layer(x: Any) -> Any:
    shared = conv(4)
    return layers.Add()([shared(x), shared(layers.ReLU()(x))])


@pytest.fixture(scope="module")
def differences_lsb(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """For each case, the largest |Keras − .tflite| in steps of the output's grid."""
    keras.utils.set_random_seed(0)
    x, z = keras.Input((8, 8, 4), name="x"), keras.Input((8, 8, 4), name="z")
    outputs = [build(x) for build in CASES.values()] + [build(x, z) for build in PAIRS.values()]
    model = keras.Model([x, z], outputs)
    generator = np.random.default_rng(1)
    samples = [generator.normal(0.3, width, (64, 8, 8, 4)).astype(np.float32) for width in (1.0, 2.0)]
    aware = quantize_aware(model, calibration=samples, strict=True)
    path = tmp_path_factory.mktemp("parity") / "all.tflite"
    artifact = export_tflite(aware, path, calibration=samples)
    assert artifact.verification["full_integer"]

    expected = aware.predict(samples, verbose=0)
    received = run_tflite(path, dict(zip("xz", samples, strict=True)))
    return {
        name: float(np.abs(received[spec.name] - outputs).max()) / spec.scale
        for name, spec, outputs in zip([*CASES, *PAIRS], artifact.outputs, expected, strict=True)
    }


@pytest.mark.parametrize("name", [*CASES, *PAIRS])
def test_keras_and_tflite_differ_by_at_most_one_lsb(name: str, differences_lsb: dict[str, float]) -> None:
    assert differences_lsb[name] <= 1.001
