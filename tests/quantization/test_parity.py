"""The parity contract: at every output, Keras's fake-quantized value and the .tflite's differ by at most 1 LSB.

All cases are branches of one model, so that one conversion serves them all. No two branches may compute the same
thing: the converter would merge them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware

pytestmark = pytest.mark.slow

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
    "average": lambda x, z: layers.Average()([x, z]),
    "add_three": lambda x, z: layers.Add()([x, layers.MaxPooling2D(3, 1, "same")(x), z]),
    "multiply_three": lambda x, z: layers.Multiply()([x, layers.MaxPooling2D(3, 1, "same")(x), z]),
    "maximum_of_three": lambda x, z: layers.Maximum()([x, layers.AveragePooling2D(3, 1, "same")(x), z]),
    "average_of_three": lambda x, z: layers.Average()([z, layers.MaxPooling2D(3, 1, "same")(z), x]),
    "cross_attention": lambda x, z: layers.MultiHeadAttention(2, 3, value_dim=5, use_bias=False)(steps(x), steps(z)),
}
PAIRS_OF_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "concatenate_operation": lambda x, z: ops.concatenate([x, z], axis=1),
    "einsum": lambda x, z: ops.einsum("abc,adc->abd", steps(x), steps(z)),
    "matmul": lambda x, z: ops.matmul(steps(x), layers.Permute((2, 1))(steps(z))),
    "maximum_operation": lambda x, z: ops.maximum(x[:, 1:], z[:, 1:]),
    "multiply_different_ranks": lambda x, z: x * ops.mean(z, axis=(1, 2))[:, None, None],
    "stack": lambda x, z: ops.stack([x, z], axis=1),
}
OPERATIONS: dict[str, Callable[[Any], Any]] = {}
OF_TOKENS: dict[str, Callable[[Any], Any]] = {
    "embedding": lambda tokens: layers.Embedding(20, 5)(tokens),
    "embedding_dense_relu": lambda tokens: dense(activation="relu")(layers.Embedding(20, 4)(tokens)),
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


def steps(x: Any) -> Any:
    return layers.Reshape((16, 16))(x)


def positive(x: Any) -> Any:
    return layers.Rescaling(1.0, 0.5)(layers.ReLU()(x))


def volume(x: Any) -> Any:
    return layers.Reshape((4, 4, 4, 4))(x)


def scaled() -> dict[str, Any]:
    return {"gamma_initializer": keras.initializers.RandomUniform(-1.5, 1.5), "beta_initializer": "normal"}


def einsum_dense(equation: str, output_shape: tuple[int, ...], bias_axes: str) -> layers.Layer:
    return layers.EinsumDense(equation, output_shape, bias_axes=bias_axes, bias_initializer="normal")


def small_model() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 4)), conv(3, activation="relu"), layers.Flatten(), dense(2)])


def chain(*parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def build(x: Any) -> Any:
        for part in parts:
            x = part(x)
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
    "reshape": lambda x: layers.Reshape((32, 8))(x),
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
    "conv1d": lambda x: chain(steps, layers.Conv1D(5, 3, bias_initializer="normal"))(x),
    "conv1d_batch_norm_relu": lambda x: chain(
        steps, layers.Conv1D(5, 3, padding="same", use_bias=False), batch_norm(), layers.ReLU()
    )(x),
    "conv1d_causal_relu": lambda x: chain(steps, layers.Conv1D(4, 3, padding="causal", activation="relu"))(x),
    "depthwise1d": lambda x: chain(steps, layers.DepthwiseConv1D(3))(x),
    "conv2d_transpose": lambda x: layers.Conv2DTranspose(5, 3, strides=2, bias_initializer="normal")(x),
    "conv2d_transpose_batch_norm_relu": lambda x: chain(
        layers.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False), batch_norm(), layers.ReLU()
    )(x),
    "conv1d_transpose": lambda x: chain(steps, layers.Conv1DTranspose(5, 3, strides=2))(x),
    "max_pool1d": lambda x: chain(steps, layers.MaxPooling1D(2))(x),
    "average_pool1d": lambda x: chain(steps, layers.AveragePooling1D(2))(x),
    "global_average_pool1d": lambda x: chain(steps, layers.GlobalAveragePooling1D())(x),
    "global_max_pool1d": lambda x: chain(steps, layers.GlobalMaxPooling1D())(x),
    "zero_padding1d": lambda x: chain(steps, layers.ZeroPadding1D(1))(x),
    "cropping1d": lambda x: chain(steps, layers.Cropping1D(1))(x),
    "up_sampling1d": lambda x: chain(steps, layers.UpSampling1D(2))(x),
    "up_sampling2d": lambda x: layers.UpSampling2D(2)(x),
    "up_sampling2d_bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "repeat_vector": lambda x: chain(layers.Flatten(), layers.RepeatVector(2))(x),
    "conv_grouped": lambda x: layers.Conv2D(6, 3, groups=2, bias_initializer="normal")(x),
    "conv_group_per_channel_batch_norm_relu": lambda x: chain(
        layers.Conv2D(8, 3, groups=4, use_bias=False), batch_norm(), layers.ReLU()
    )(x),
    "conv1d_grouped": lambda x: chain(steps, layers.Conv1D(8, 3, groups=2, bias_initializer="normal"))(x),
    "einsum_dense": lambda x: einsum_dense("abc,cd->abd", (16, 5), "d")(steps(x)),
    "einsum_dense_to_heads": lambda x: einsum_dense("abc,cde->abde", (16, 2, 5), "de")(steps(x)),
    "einsum_dense_from_heads": lambda x: einsum_dense("abcd,cde->abe", (8, 5), "e")(x),
    "layer_normalization": lambda x: layers.LayerNormalization(**scaled())(x),
    "layer_normalization_of_steps": lambda x: layers.LayerNormalization(scale=False, beta_initializer="normal")(
        steps(x)
    ),
    "layer_normalization_of_vector": lambda x: layers.LayerNormalization(center=False)(layers.Flatten()(x)),
    "layer_normalization_alone": lambda x: layers.LayerNormalization(center=False, scale=False)(x[:, 3:]),
    "rms_normalization": lambda x: layers.RMSNormalization()(x[:, 4:]),
    "group_normalization": lambda x: layers.GroupNormalization(2, **scaled())(x),
    "unit_normalization": lambda x: layers.UnitNormalization()(x[:, 5:]),
    "self_attention": lambda x: layers.MultiHeadAttention(2, 4, dropout=0.1)(*[steps(x)] * 2),
    "elu": lambda x: layers.ELU(0.7)(x),
    "selu": lambda x: layers.Activation("selu")(x[:, :6]),
    "softplus": lambda x: layers.Activation("softplus")(x[:, :4]),
    "log_sigmoid": lambda x: layers.Activation("log_sigmoid")(x[:, :3]),
    "mish": lambda x: layers.Activation("mish")(x[:, :5]),
    "softsign": lambda x: layers.Activation("softsign")(x[:, :7]),
    "tanh_shrink": lambda x: layers.Activation("tanh_shrink")(x),
    "hard_tanh": lambda x: layers.Activation("hard_tanh")(x),
    "exponential": lambda x: layers.Activation("exponential")(x),
    "log_softmax": lambda x: layers.Activation("log_softmax")(x),
    "softmax_over_steps": lambda x: layers.Softmax(axis=1)(steps(x)),
    "time_distributed_dense": lambda x: layers.TimeDistributed(dense(3))(steps(x)),
    "time_distributed_conv": lambda x: chain(volume, layers.TimeDistributed(conv(3, activation="relu")))(x),
    "time_distributed_model": lambda x: layers.TimeDistributed(small_model())(volume(x)),
    "global_average_pool3d": lambda x: layers.GlobalAveragePooling3D()(volume(x)),
    "global_max_pool3d": lambda x: layers.GlobalMaxPooling3D()(volume(x)),
    "zero_padding3d": lambda x: layers.ZeroPadding3D(1)(volume(x)),
    "cropping3d": lambda x: layers.Cropping3D(1)(volume(x)),
    "up_sampling3d": lambda x: layers.UpSampling3D(2)(volume(x)),
    "center_crop": lambda x: layers.CenterCrop(5, 3)(x),
    "resizing": lambda x: layers.Resizing(5, 6)(x),
    "resizing_nearest": lambda x: layers.Resizing(16, 12, interpolation="nearest")(x),
    "augmentation_conv": lambda x: chain(layers.RandomFlip(), layers.RandomContrast(0.1), conv(3))(x),
    "nested_model": lambda x: keras.Sequential([keras.Input((8, 8, 4)), conv(), layers.ReLU()])(x),
}
OPERATIONS |= {
    "slice": lambda x: x[:, 1:5, ::2],
    "slice_to_fewer_axes": lambda x: x[:, 0],
    "negative": lambda x: -x[:, 6:],
    "square": lambda x: ops.square(x),
    "power": lambda x: x[:, 2:] ** 2,
    "absolute": lambda x: abs(x),
    "exp": lambda x: ops.exp(x[:, 2:]),
    "log": lambda x: ops.log(positive(x)),
    "sqrt": lambda x: ops.sqrt(positive(x)),
    "rsqrt": lambda x: ops.rsqrt(positive(x)),
    "reciprocal": lambda x: ops.reciprocal(positive(x)),
    "clip": lambda x: ops.clip(x, -0.4, 0.7),
    "clip_to_six": lambda x: ops.clip(conv(3)(x), 0, 6),
    "maximum_with_zero": lambda x: ops.maximum(conv(3)(x), 0),
    "minimum_with_number": lambda x: ops.minimum(x, 0.3),
    "relu_operation": lambda x: ops.relu(x[:, 1:]),
    "gelu_operation": lambda x: ops.gelu(x[:, 1:]),
    "silu_operation": lambda x: ops.silu(x[:, 1:]),
    "hard_silu_operation": lambda x: ops.hard_silu(x[:, 1:]),
    "leaky_relu_operation": lambda x: ops.leaky_relu(x, 0.15),
    "elu_operation": lambda x: ops.elu(x, 0.4),
    "sigmoid_operation": lambda x: ops.sigmoid(x[:, 1:]),
    "tanh_operation": lambda x: ops.tanh(x[:, 1:]),
    "hard_tanh_operation": lambda x: ops.hard_tanh(x[:, 1:]),
    "softmax_operation": lambda x: ops.softmax(x[:, 1:]),
    "log_softmax_operation": lambda x: ops.log_softmax(x[:, 1:]),
    "mean": lambda x: ops.mean(x, axis=-1),
    "mean_over_two_axes": lambda x: ops.mean(x, axis=(1, 3), keepdims=True),
    "sum": lambda x: ops.sum(x, axis=(1, 2)),
    "max": lambda x: ops.max(x, axis=-1),
    "min": lambda x: ops.min(x, axis=1),
    "amax": lambda x: ops.amax(x, axis=2),
    "max_pool_operation": lambda x: ops.max_pool(x, 2, padding="same"),
    "average_pool_operation": lambda x: ops.average_pool(x, 3),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 3),
    "moveaxis": lambda x: ops.moveaxis(x, 1, 2),
    "reshape_operation": lambda x: ops.reshape(x, (-1, 4, 64)),
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "squeeze": lambda x: ops.squeeze(x[:, :1], 1),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (1, 0), (0, 0))),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 1)),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "take": lambda x: ops.take(x, np.array([0, 2, 3]), axis=1),
    "resize_operation": lambda x: ops.image.resize(x, (16, 12)),
    "matmul_with_constant": lambda x: ops.matmul(x, np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)),
    "add_constant_image": lambda x: x + np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1),
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


COMPOSITES = {"cross_attention", "self_attention"}
"""Layers of a dozen rounded tensors in a row: what each adds may add up."""


LAYERS = (CASES, PAIRS, OF_TOKENS)
OPERATIONS_OF_KERAS: Any = (OPERATIONS, PAIRS_OF_OPERATIONS, {})


def measure_differences_lsb(group: Any, path: Path) -> dict[str, float]:
    """For each case of a group, the largest |Keras − .tflite| in steps of the output's grid."""
    cases, pairs, of_tokens = group
    # The names of layers decide in which order the converter meets them, and it may stumble over one order alone.
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    x, z = keras.Input((8, 8, 4), name="x"), keras.Input((8, 8, 4), name="z")
    tokens = keras.Input((6,), name="tokens", dtype="int32")
    outputs = [build(x) for build in cases.values()] + [build(x, z) for build in pairs.values()]
    outputs += [build(tokens) for build in of_tokens.values()]
    model = keras.Model([x, z, tokens] if of_tokens else [x, z], outputs)
    generator = np.random.default_rng(1)
    samples = [generator.normal(0.3, width, (64, 8, 8, 4)).astype(np.float32) for width in (1.0, 2.0)]
    if of_tokens:
        samples.append(generator.integers(0, 20, (64, 6)).astype(np.int32))
    aware = quantize_aware(model, calibration=samples, strict=True)
    artifact = export_tflite(aware, path, calibration=samples, verify=False)
    assert artifact.verification["full_integer"]

    expected = [np.asarray(outputs) for outputs in aware(samples, training=False)]
    received = run_tflite(path, dict(zip([one.name for one in model.inputs], samples, strict=True)))
    return {
        name: float(np.abs(received[spec.name] - outputs).max()) / spec.scale
        for name, spec, outputs in zip([*cases, *pairs, *of_tokens], artifact.outputs, expected, strict=True)
    }


@pytest.fixture(scope="module")
def layers_lsb(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return measure_differences_lsb(LAYERS, tmp_path_factory.mktemp("parity") / "layers.tflite")


@pytest.fixture(scope="module")
def operations_lsb(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return measure_differences_lsb(OPERATIONS_OF_KERAS, tmp_path_factory.mktemp("parity") / "operations.tflite")


@pytest.mark.parametrize("name", [name for cases in LAYERS for name in cases])
def test_layers_differ_by_at_most_one_lsb(name: str, layers_lsb: dict[str, float]) -> None:
    assert layers_lsb[name] <= (3.001 if name in COMPOSITES else 1.001)


@pytest.mark.parametrize("name", [name for cases in OPERATIONS_OF_KERAS for name in cases])
def test_operations_of_keras_differ_by_at_most_one_lsb(name: str, operations_lsb: dict[str, float]) -> None:
    assert operations_lsb[name] <= 1.001
