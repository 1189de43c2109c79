"""Layers that multiply and add per channel, with what they add rounded as the integer file rounds it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfopt.quantization.fake_quant import round_bias
from tfopt.quantization.spec import WEIGHT_STEPS
from tfopt.surgery.affine import scale_and_offset

__all__ = ["RoundedOffset"]


@keras.saving.register_keras_serializable(package="tfopt")
class RoundedOffset(keras.layers.Wrapper):
    """Runs a layer that multiplies and adds per channel, and rounds what it adds as an integer layer does.

    In the file such a layer is part of the convolution before it, or a 1×1 depthwise convolution, whose one weight in
    each channel is ±127. While a batch norm trains, the mean of the batch takes any constant out of the sums, and the
    layer runs as it is.

    Args:
        layer: a BatchNormalization or Normalization over the last axis, or a Rescaling.
        folded: whether the file makes it part of the layer before.

    Call arguments:
        inputs: what the layer before gives, of shape `(n, ..., channels)`.
        sum_scale: the step of the grid on which that layer adds up its products, one for each channel; where the
            layer is not folded, that of the inputs' grid. 0 for none.
        training: whether the batch's own mean and variance count.

    Example:
        >>> layer = RoundedOffset(keras.layers.BatchNormalization(epsilon=0.0))
        >>> layer.build((None, 1))
        >>> _ = layer.layer.beta.assign([0.3])
        >>> layer(ops.array([[0.25]]), sum_scale=ops.array([0.25])).numpy()
        array([[0.5]], dtype=float32)
    """

    def __init__(self, layer: keras.Layer, folded: bool = True, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True
        self.folded = folded

    def call(
        self, inputs: tf.Tensor, sum_scale: Any, training: bool = False, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Calls the layer."""
        if not isinstance(self.layer, keras.layers.BatchNormalization):
            return self._rounded(self.layer(inputs), sum_scale)
        outputs = self.layer(inputs, training=training, mask=mask)
        return outputs if training and self.layer.trainable else self._rounded(outputs, sum_scale)

    def _rounded(self, outputs: tf.Tensor, sum_scale: Any) -> tf.Tensor:
        slope, offset = self._slope_and_offset(outputs.shape[-1])
        change = ops.stop_gradient(self._on_grid(slope, offset, sum_scale) - offset)
        return outputs + ops.cast(change, outputs.dtype)

    def rounded_offset(self, channels: int, sum_scale: Any) -> tf.Tensor:
        """What the file adds to each channel.

        Args:
            channels: how many there are.
            sum_scale: as in the call.
        """
        return self._on_grid(*self._slope_and_offset(channels), sum_scale)

    def _on_grid(self, slope: Any, offset: Any, sum_scale: Any) -> tf.Tensor:
        return round_bias(offset, ops.abs(slope) * sum_scale / (1 if self.folded else WEIGHT_STEPS))

    def _slope_and_offset(self, channels: int) -> tuple[Any, Any]:
        layer = self.layer
        if not isinstance(layer, keras.layers.BatchNormalization):
            return scale_and_offset(layer, channels)
        slope = ops.rsqrt(layer.moving_variance + layer.epsilon) * (1.0 if layer.gamma is None else layer.gamma)
        return slope, (0.0 if layer.beta is None else layer.beta) - layer.moving_mean * slope

    def compute_output_spec(self, inputs: keras.KerasTensor, *_: Any, **__: Any) -> keras.KerasTensor:
        """The layer's own."""
        return self.layer.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "folded": self.folded}
