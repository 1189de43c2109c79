"""Training a compressed model on: its zeros stay zero, and weights that share a value go on sharing it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfopt.compression.sharing import shared_values
from tfopt.errors import ConfigError
from tfopt.pruning.masks import pruned_mask
from tfopt.surgery.select import LayerFilter, select_kernels

from .configurable import Configurable
from .kernel_constraint import KernelConstraint, KernelConstraints, KernelMask, constraints_on

__all__ = ["PreserveCompression"]


class PreserveCompression(Configurable, keras.callbacks.Callback):
    """Keeps what earlier compression left in the kernels while a model is trained on.

    Use it whenever a pruned or clustered model is fitted again: quantization-aware fine-tuning, distillation, a few
    more epochs. Without it the first update fills the zeros and scatters the shared values.

    When the first epoch begins it looks at each kernel, once:

    - If at least 5 % of the weights are exactly zero, but not all, those stay zero.
    - If the weights share values (at least 2 and at most 256 distinct ones, and fewer than a quarter as many as
      weights), each group of equal weights moves as one: after each update it has the mean of what the update made of
      its members. A group of zeros stays zero.
    - Any other kernel, one of zeros only among them, is trained freely.

    As in `MagnitudePruning`, this is a constraint on the kernel, applied by the optimizer inside the compiled train
    step: it holds under `steps_per_execution`, `jit_compile`, gradient accumulation, loss scaling and
    `tf.distribute.MirroredStrategy`, and in every checkpoint. A constraint of the user's own runs before it. After the
    fit the kernels are free again. With `use_ema=True` place this callback after `keras.callbacks.SwapEMAWeights` and
    before `ModelCheckpoint`.

    Beside `MagnitudePruning`, what is zero at the start stays zero while more is pruned. A kernel with shared values
    cannot be pruned in the same fit: the mask would tear its groups.

    Args:
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every layer that
            owns a kernel, also in nested models and wrappers (see `tfopt.surgery.select.select_kernels`). Leave out
            kernels that are meant to leave their zeros, such as one that was initialized as an identity matrix.

    Attributes:
        preserved: for each kernel that is held, by its path, in words what is kept. It is set when a fit begins.

    Raises:
        ConfigError: in `fit`, if `layers` matches nothing, or another callback holds the same kernel in another way.
        ModelError: in `fit`, if a chosen kernel is not built or not a float variable.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
        >>> kernel = model.layers[0].kernel
        >>> kernel.assign(ops.where(kernel > 0, kernel, 0.0)) is not None
        True
        >>> zeros = np.flatnonzero(kernel == 0)
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> history = model.fit(x, x[:, :4], verbose=0, callbacks=[PreserveCompression()])
        >>> bool(np.all(np.asarray(kernel).flat[zeros] == 0))
        True

    References: Han et al. 2016, arXiv:1510.00149, section 3.
    """

    def __init__(self, layers: LayerFilter | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.preserved: dict[str, str] = {}
        self._held: KernelConstraints[KernelConstraint] = KernelConstraints()
        self._looked = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier fit."""
        self._held.take_off_leftovers(self.model, self.params)
        self.preserved, self._looked = {}, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the kernels when the first epoch begins; until then `BackupAndRestore` may set them."""
        if self._looked:
            return
        self._looked = True
        with self.model.distribute_strategy.scope():
            found = [self._constraint(layer, kernel) for layer, kernel in self._kernels()]
        self._held.put_on(self.model, [constraint for constraint in found if constraint is not None])

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts averages right that an EMA swap may just have put into the model."""
        self._held.apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts averages right that an EMA swap may just have put into the model."""
        self._held.apply()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the final weights right, and gives the kernels back their own constraints."""
        self._held.apply()  # Keras has just put the averages of use_ema=True into the model
        self._held.take_off(self.model)

    def _kernels(self) -> list[tuple[keras.layers.Layer, keras.Variable]]:
        if self.layers is not None:
            return select_kernels(self.model, self.layers)
        try:
            return select_kernels(self.model, lambda layer: True)
        except ConfigError:  # no layer owns a kernel: there is nothing to preserve
            return []

    def _constraint(self, layer: keras.layers.Layer, kernel: keras.Variable) -> KernelConstraint | None:
        weights = ops.convert_to_numpy(kernel)
        codebook, mask = shared_values(weights), pruned_mask(weights)
        others = list(constraints_on(kernel))
        if any(isinstance(other, (_SharedValues, _Zeros)) for other in others) or (codebook is not None and others):
            raise ConfigError(
                f"PreserveCompression: the kernel of the layer '{layer.name}' is held by another callback of this "
                f"fit{'' if codebook is None else ', and its weights share values, which must move together'}. "
                "Give the callbacks layers= that do not overlap."
            )
        if codebook is not None:
            self.preserved[kernel.path] = f"{len(codebook[0])} shared values"
            return _SharedValues(layer, kernel, self.params, *codebook)
        if mask is not None:
            self.preserved[kernel.path] = f"{mask.size - np.count_nonzero(mask)} zeros of {mask.size} weights"
            return _Zeros(layer, kernel, self.params, mask)
        return None


class _Zeros(KernelMask):
    """The zeros that a kernel had when the fit began."""


class _SharedValues(KernelConstraint):
    """Moves the weights that share a value as one."""

    def __init__(
        self,
        layer: keras.layers.Layer,
        kernel: keras.Variable,
        params: dict[str, Any],
        values: np.ndarray,
        indices: np.ndarray,
    ) -> None:
        super().__init__(layer, kernel, params)
        flat = indices.reshape(-1)
        self.indices = keras.Variable(flat, dtype="int32", trainable=False, name="indices")
        self.stays_zero = values == 0
        self.sizes = np.bincount(flat)
        self.firsts = np.unique(flat, return_index=True)[1].astype(np.int32)

    def held(self, weights: Any) -> Any:
        precision = keras.backend.result_type(weights.dtype, "float32")
        flat = ops.cast(ops.reshape(weights, (-1,)), precision)
        # The mean as a member plus the mean distance from it: a sum of a million equal weights is off by a percent.
        members = ops.take(flat, self.firsts)
        distances = flat - ops.take(members, self.indices)
        # The same sums as ops.segment_sum, whose kernel takes several times as long on CPUs.
        sums = tf.scatter_nd(ops.expand_dims(self.indices, -1), distances, self.sizes.shape)
        means = members + sums / ops.cast(self.sizes, precision)
        values = ops.where(self.stays_zero, ops.zeros_like(means), means)
        return ops.cast(ops.reshape(ops.take(values, self.indices), weights.shape), weights.dtype)
