"""The layers of a quantize-aware model: they round what flows through the int8 network to its grids."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfopt.quantization.fake_quant import fake_quantize_activation, fake_quantize_weights

__all__ = ["FakeQuantize", "FixedFakeQuantize", "NamedOutput", "QuantizeAware"]


@keras.saving.register_keras_serializable(package="tfopt")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to an int8 grid whose range follows the data while the model trains.

    The range is the moving average of each batch's minimum and maximum (Jacob et al. 2018, section 3.1).
    Tensors that TFLite keeps on one common grid (the inputs of a concatenation) share one such layer: each is
    a member with averages of its own, and the range is the union of all members'. Before anything was
    observed, the range of the batch at hand is used.

    Args:
        members: how many tensors share the range.
        momentum: of the moving averages, in [0, 1).

    Call arguments:
        x: activations of any shape.
        member: which of the tensors `x` is.
        training: whether the averages follow.

    Example:
        >>> FakeQuantize()(ops.array([0.0, 0.1004, 2.55])).numpy().round(4)
        array([0.  , 0.1 , 2.55], dtype=float32)
    """

    def __init__(self, members: int = 1, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.members = members
        self.momentum = momentum
        self.built = True
        options = {"shape": (members,), "initializer": "zeros", "trainable": False, "aggregation": "mean"}
        # float32 under mixed precision too: a float16 count stops at 2048.
        options |= {"dtype": "float32", "autocast": False}
        self.minima = self.add_weight(name="minima", **options)
        self.maxima = self.add_weight(name="maxima", **options)
        self.batches = self.add_weight(name="batches", **options)

    def call(self, x: tf.Tensor, member: int = 0, training: bool = False) -> tf.Tensor:
        """Rounds `x`; while training, lets the range follow it first."""
        if training:
            self.observe(*batch_range(x), member=member)
            minimum, maximum = self.range()
        else:
            minimum, maximum = ops.cond(self.batches[member] > 0, self.range, lambda: batch_range(x))
        return fake_quantize_activation(x, minimum, maximum)

    def observe(self, minimum: tf.Tensor, maximum: tf.Tensor, *, member: int) -> None:
        """Moves one member's averages towards a batch's range.

        The first batches are averaged evenly, so that a start far off (the first batch sets it) is soon forgotten.
        """
        selected = ops.one_hot(member, self.members)
        keep = ops.minimum(self.momentum, self.batches / (self.batches + 1))
        move = selected * (1 - keep)
        self.minima.assign(self.minima + move * (minimum - self.minima))
        self.maxima.assign(self.maxima + move * (maximum - self.maxima))
        self.batches.assign(self.batches + selected)

    def start_at(self, minimum: float, maximum: float, *, member: int) -> None:
        """Sets one member's range; what is observed later counts from here."""
        selected = ops.one_hot(member, self.members)
        self.minima.assign(ops.where(selected > 0, minimum, self.minima))
        self.maxima.assign(ops.where(selected > 0, maximum, self.maxima))
        self.batches.assign(ops.maximum(self.batches, selected))

    def range(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The union of the members' ranges."""
        return ops.min(self.minima), ops.max(self.maxima)

    def compute_output_shape(self, input_shape: tuple[int | None, ...], **_: Any) -> tuple[int | None, ...]:
        """Rounding changes no shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "members": self.members, "momentum": self.momentum}


def batch_range(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest and largest value of a batch, as float32, without gradient."""
    x = ops.stop_gradient(x)
    return ops.cast(ops.min(x), "float32"), ops.cast(ops.max(x), "float32")


@keras.saving.register_keras_serializable(package="tfopt")
class FixedFakeQuantize(keras.layers.Layer):
    """Rounds activations to the int8 grid of a range that never changes.

    Used where TFLite fixes the range (softmax, sigmoid, tanh) and in the model that is exported.

    Args:
        minimum: the range's lower end.
        maximum: the range's upper end.

    Example:
        >>> FixedFakeQuantize(0.0, 2.55)(ops.array([1.004])).numpy().round(4)
        array([1.], dtype=float32)
    """

    def __init__(self, minimum: float, maximum: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.minimum = minimum
        self.maximum = maximum

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Rounds `x`."""
        return fake_quantize_activation(x, self.minimum, self.maximum)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Rounding changes no shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "minimum": self.minimum, "maximum": self.maximum}


@keras.saving.register_keras_serializable(package="tfopt")
class QuantizeAware(keras.layers.Wrapper):
    """Runs a layer with its kernel rounded to the int8 grid; training updates the kernel itself.

    The layer is called in a scope in which its kernel reads as the rounded one, so its own code runs
    unchanged and nothing need be known of it but which axes of the kernel share a scale.

    Args:
        layer: the layer to run, with a `kernel`.
        scale_axes: the kernel axes that share one scale.

    Example:
        >>> layer = QuantizeAware(keras.layers.Dense(1, use_bias=False), (0,))
        >>> layer.build((None, 2))
        >>> _ = layer.layer.kernel.assign([[1.27], [0.1004]])
        >>> layer(ops.array([[0.0, 1.0]])).numpy().round(4)
        array([[0.1]], dtype=float32)
    """

    def __init__(self, layer: keras.Layer, scale_axes: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.scale_axes = tuple(scale_axes)

    def call(self, inputs: Any, **kwargs: Any) -> Any:
        """Calls the layer with its kernel rounded."""
        mapping = [(self.layer.kernel, self.rounded_kernel())]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.layer(inputs, **kwargs)
        for loss in scope.losses or ():
            self.add_loss(loss)
        return outputs

    def rounded_kernel(self) -> tf.Tensor:
        """The kernel as it will be in the int8 file, in float."""
        return fake_quantize_weights(ops.convert_to_tensor(self.layer.kernel), self.scale_axes)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's own."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "scale_axes": self.scale_axes}


@keras.saving.register_keras_serializable(package="tfopt")
class NamedOutput(keras.layers.Layer):
    """Passes an output on under the name it has in the float model, so that losses and clients find it."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `x`."""
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own."""
        return input_shape
