"""The layers of a quantize-aware model: they round what flows through the int8 network to its grids."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfopt.quantization.fake_quant import (
    activation_scale,
    fake_quantize_activation,
    fake_quantize_learned,
    fake_quantize_weights,
    round_bias,
    round_to_float16,
    weight_scale,
)

__all__ = [
    "FakeQuantize",
    "FixedFakeQuantize",
    "KeptInFloat",
    "LearnedFakeQuantize",
    "NamedOutput",
    "QuantizeAware",
]

SCALE_ARGUMENTS = ("input_scale", "sum_scale")
"""The call arguments of wrappers that carry the scale of a grid, no activations."""


@keras.saving.register_keras_serializable(package="tfopt")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to an integer grid whose range follows the data while the model trains.

    The range is the moving average of each batch's minimum and maximum (Jacob et al. 2018, section 3.1).
    Tensors that TFLite keeps on one common grid (the inputs of a concatenation) share one such layer: each is
    a member with averages of its own, and the range is the union of all members'. Before anything was
    observed, the range of the batch at hand is used. With `trainable=False` the range stays as it is.

    Args:
        members: how many tensors share the range.
        momentum: of the moving averages, in [0, 1).
        bits: 8 or 16.

    Attributes:
        rounding: set it to False to let activations pass as they are; the range follows them all the same.
            It counts when a train, test or predict function is made.

    Call arguments:
        x: activations of any shape.
        member: which of the tensors `x` is.
        training: whether the averages follow.

    Returns, when called: `x` rounded, and the scale of its grid, a float32 scalar (0 without rounding).

    Example:
        >>> rounded, scale = FakeQuantize()(ops.array([0.0, 0.1004, 2.55]))
        >>> rounded.numpy().round(4), round(float(scale), 4)
        (array([0.  , 0.1 , 2.55], dtype=float32), 0.01)
    """

    def __init__(self, members: int = 1, momentum: float = 0.99, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.members = members
        self.momentum = momentum
        self.bits = bits
        self.rounding = True
        self.built = True
        options = {"shape": (members,), "initializer": "zeros", "trainable": False, "aggregation": "mean"}
        # float32 under mixed precision too: a float16 count stops at 2048.
        options |= {"dtype": "float32", "autocast": False}
        self.minima = self.add_weight(name="minima", **options)
        self.maxima = self.add_weight(name="maxima", **options)
        self.batches = self.add_weight(name="batches", **options)

    def call(self, x: tf.Tensor, member: int = 0, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds `x`; while training, lets the range follow it first."""
        if training and self.trainable:
            self.observe(*batch_range(x), member=member)
            minimum, maximum = self.range()
        else:
            minimum, maximum = ops.cond(self.batches[member] > 0, self.range, lambda: batch_range(x))
        if not self.rounding:
            return x, ops.zeros((), "float32")
        return fake_quantize_activation(x, minimum, maximum, self.bits)

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

    @property
    def is_known(self) -> bool:
        """Whether every member was observed, so that there is a range."""
        return bool(np.all(self.batches))

    def range(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The union of the members' ranges."""
        return ops.min(self.minima), ops.max(self.maxima)

    def compute_output_spec(self, x: keras.KerasTensor, **_: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Those of the rounded tensor and of the scale."""
        return _rounded_spec(x)

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "members": self.members, "momentum": self.momentum, "bits": self.bits}


def batch_range(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest and largest value of a batch, as float32, without gradient."""
    x = ops.stop_gradient(x)
    return ops.cast(ops.min(x), "float32"), ops.cast(ops.max(x), "float32")


def _rounded_spec(x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor((), "float32")


@keras.saving.register_keras_serializable(package="tfopt")
class LearnedFakeQuantize(keras.layers.Layer):
    """Rounds activations to an integer grid whose range is trained with the weights (LSQ+).

    Its range has to start somewhere: calibrate the model. With `trainable=False` the range stays as it is.

    Args:
        members: how many tensors share the range.
        bits: 8 or 16.

    Attributes:
        rounding: as of `FakeQuantize`.

    Example:
        >>> layer = LearnedFakeQuantize()
        >>> layer.start_at(0.0, 2.55, member=0)
        >>> rounded, scale = layer(ops.array([[0.1004, 3.0]]))
        >>> rounded.numpy().round(4)
        array([[0.1 , 2.55]], dtype=float32)

    References:
        Bhalgat et al. 2020, arXiv:2004.09576.
    """

    def __init__(self, members: int = 1, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.members = members
        self.bits = bits
        self.rounding = True
        self.built = True
        options = {"shape": (), "initializer": "zeros", "dtype": "float32", "autocast": False}
        self.minimum = self.add_weight(name="minimum", **options)
        self.maximum = self.add_weight(name="maximum", **options)

    def call(self, x: tf.Tensor, member: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds `x`."""
        if not self.rounding:
            return x, ops.zeros((), "float32")
        rounded = fake_quantize_learned(x, self.minimum, self.maximum, self.bits)
        return rounded, activation_scale(self.minimum, self.maximum, self.bits)

    def start_at(self, minimum: float, maximum: float, *, member: int) -> None:
        """Widens the range to hold what one member reaches."""
        self.minimum.assign(ops.minimum(self.minimum, minimum))
        self.maximum.assign(ops.maximum(self.maximum, maximum))

    @property
    def is_known(self) -> bool:
        """Whether there is a range."""
        return bool(self.maximum > self.minimum)

    def range(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The range."""
        return self.minimum, self.maximum

    def compute_output_spec(self, x: keras.KerasTensor, **_: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Those of the rounded tensor and of the scale."""
        return _rounded_spec(x)

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "members": self.members, "bits": self.bits}


@keras.saving.register_keras_serializable(package="tfopt")
class FixedFakeQuantize(keras.layers.Layer):
    """Rounds activations to the integer grid of a range that never changes.

    Used where TFLite fixes the range (softmax, sigmoid, tanh) and in the model that is exported.

    Args:
        minimum: the range's lower end.
        maximum: the range's upper end.
        bits: 8 or 16.

    Attributes:
        rounding: as of `FakeQuantize`.

    Returns, when called: as `FakeQuantize`.

    Example:
        >>> rounded, scale = FixedFakeQuantize(0.0, 2.55)(ops.array([1.004]))
        >>> rounded.numpy().round(4)
        array([1.], dtype=float32)
    """

    def __init__(self, minimum: float, maximum: float, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.minimum = minimum
        self.maximum = maximum
        self.bits = bits
        self.rounding = True

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds `x`."""
        if not self.rounding:
            return x, ops.zeros((), "float32")
        return fake_quantize_activation(x, float(self.minimum), float(self.maximum), self.bits)

    def compute_output_spec(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Those of the rounded tensor and of the scale."""
        return _rounded_spec(x)

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "minimum": self.minimum, "maximum": self.maximum, "bits": self.bits}


@keras.saving.register_keras_serializable(package="tfopt")
class QuantizeAware(keras.layers.Wrapper):
    """Runs a layer with its weights rounded; training updates the weights themselves.

    The layer is called in a scope in which its weights read as the rounded ones, so its own code runs
    unchanged and nothing need be known of it but which axes of the weights share a scale.

    An integer layer adds its bias to the sums of products of integers, so the bias is rounded to their grid. Where
    the layer is called with the scale of its input, it does so too, and gives the scale of that grid with its output.

    Args:
        layer: the layer to run.
        scale_axes: the axes that share one int8 scale, the same for all the weights; None rounds to float16.
        weights: the attributes of the layer that hold the weights, dotted for a part of it ("cell.kernel").

    Attributes:
        rounding: set it to False to run the layer as it is. It counts when a train, test or predict function is made.

    Call arguments:
        inputs: those of the layer.
        input_scale: the scale of their grid, where the layer computes on integers and has an integer bias; 0 for none.

    Example:
        >>> layer = QuantizeAware(keras.layers.Dense(1, use_bias=False), (0,))
        >>> layer.build((None, 2))
        >>> _ = layer.layer.kernel.assign([[1.27], [0.1004]])
        >>> layer(ops.array([[0.0, 1.0]])).numpy().round(4)
        array([[0.1]], dtype=float32)
    """

    def __init__(
        self,
        layer: keras.Layer,
        scale_axes: tuple[int, ...] | None,
        weights: tuple[str, ...] = ("kernel",),
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True
        self.scale_axes = None if scale_axes is None else tuple(scale_axes)
        self.weight_names = tuple(weights)
        self.rounding = True

    def call(self, inputs: Any, input_scale: Any = None, **kwargs: Any) -> Any:
        """Calls the layer with its weights rounded."""
        if not self.rounding:
            outputs = self.layer(inputs, **kwargs)
            return outputs if input_scale is None else (outputs, ops.zeros_like(self.sum_scale(input_scale)))
        rounded = self.rounded_weights(input_scale)
        mapping = [(attrgetter(name)(self.layer), weight) for name, weight in rounded.items()]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.layer(inputs, **kwargs)
        for loss in scope.losses or ():
            self.add_loss(loss)
        for variable in self.layer.non_trainable_variables:  # the state of its dropout, for one
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return outputs if input_scale is None else (outputs, self.sum_scale(input_scale))

    def rounded_weights(self, input_scale: Any = None) -> dict[str, tf.Tensor]:
        """What each of the weights will be in the file, in float; with an `input_scale` the bias too."""
        weights = {name: ops.convert_to_tensor(attrgetter(name)(self.layer)) for name in self.weight_names}
        if self.scale_axes is None:
            return {name: round_to_float16(weight) for name, weight in weights.items()}
        rounded = {name: fake_quantize_weights(weight, self.scale_axes) for name, weight in weights.items()}
        if input_scale is not None and self.layer.bias is not None:
            rounded["bias"] = round_bias(ops.convert_to_tensor(self.layer.bias), self.sum_scale(input_scale))
        return rounded

    def sum_scale(self, input_scale: Any) -> tf.Tensor:
        """The step of the grid on which the layer adds up its products, one for each output channel."""
        scale = weight_scale(ops.convert_to_tensor(self.layer.kernel), self.scale_axes or ())
        return ops.reshape(scale, (-1,)) * input_scale

    def compute_output_spec(self, inputs: Any, input_scale: Any = None, **kwargs: Any) -> Any:
        """The layer's own; with an `input_scale` that of the sums' scale too."""
        outputs = self.layer.compute_output_spec(inputs, **kwargs)
        if input_scale is None:
            return outputs
        sizes = [size for axis, size in enumerate(self.layer.kernel.shape) if axis not in (self.scale_axes or ())]
        return outputs, keras.KerasTensor((math.prod(sizes),), "float32")

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "scale_axes": self.scale_axes, "weights": self.weight_names}


@keras.saving.register_keras_serializable(package="tfopt")
class KeptInFloat(keras.layers.Layer):
    """Passes on what a layer computed in float by request, so that the export knows where it ends."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `x`."""
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own."""
        return input_shape


@keras.saving.register_keras_serializable(package="tfopt")
class NamedOutput(keras.layers.Layer):
    """Passes an output on under the name it has in the float model, so that losses and clients find it.

    It also keeps how the model was quantized, so that a saved model still knows.

    Args:
        config: the fields of the model's `QuantizationConfig`.
        exceptions: those of the layers that have another one, by name.
    """

    def __init__(
        self, config: dict[str, Any] | None = None, exceptions: dict[str, dict[str, Any]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.config = dict(config or {})
        self.exceptions = dict(exceptions or {})

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `x`."""
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's own."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "config": self.config, "exceptions": self.exceptions}
