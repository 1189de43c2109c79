"""Magnitude pruning while a model trains: a mask constraint on each kernel, and nothing to strip after."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.masks import check_sparsity, magnitude_mask, sparsity_of
from tfopt.schedules import Schedule, check_steps, polynomial
from tfopt.surgery.select import LayerFilter, select_kernels

from .kernel_constraint import KernelConstraints, KernelMask, constraints_on
from .training_clock import TrainingClock

__all__ = ["MagnitudePruning"]


class MagnitudePruning(keras.callbacks.Callback):
    """Zeroes the smallest-magnitude weights of a model while it trains.

    Use it to make a model that compresses well (zip, Ethos-U weight streams) or runs on a sparse kernel; it
    does not make dense arithmetic faster, and the file has the same size until it is compressed.

    At step t each kernel keeps its round((1 - s(t)) * size) largest |w|. The mask is a constraint on the
    kernel, applied by the optimizer inside the compiled train step, so it holds under `steps_per_execution`,
    `jit_compile`, gradient accumulation, loss scaling and `tf.distribute.MirroredStrategy`, and every
    checkpoint is sparse. A constraint of the user's own runs before the mask and is back after the fit.
    The kernels are then free again: a later fit without this callback grows the zeros back.

    Steps are optimizer updates of this training, as `tfopt.schedules` counts them: 0 at epoch 0 of every fit;
    a fit resumed with `initial_epoch` or `BackupAndRestore` goes on where it stood. A fit that ends by an
    exception leaves the masks on until the next fit with this callback.

    With `use_ema=True` the averages that Keras puts into the model are masked too; place this callback after
    `keras.callbacks.SwapEMAWeights` and before `ModelCheckpoint`.

    Args:
        final_sparsity: fraction of zeros at `end_step`, in [0, 1).
        initial_sparsity: fraction of zeros at `begin_step`.
        begin_step: nothing is pruned before this step.
        end_step: from here on the mask stays as it is.
        frequency: steps between two mask updates. With `steps_per_execution=n` an update waits for the end
            of the n steps it falls into.
        schedule: takes the place of the ramp from `initial_sparsity` to `final_sparsity`, a polynomial of
            power 3: a function from the step to a sparsity, asked between `begin_step` and `end_step`.
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every
            Dense and Conv kernel, also in nested models (see `tfopt.surgery.select.select_kernels`). Frozen
            layers are pruned like the others.

    Shapes: kernel `(in, out)` or `(h, w, in, out)`; the mask has the same shape.

    Logs: "sparsity" at the end of each epoch: the fraction of zeros over all pruned kernels.

    Raises:
        ConfigError: if an argument is out of range, `layers` matches nothing, or two of these callbacks
            prune the same kernel; in `fit`, if the schedule returns something that is not a sparsity.
        ModelError: if the model has no kernel to prune, or a kernel becomes NaN.

    Warns:
        UserWarning: at the end of a fit that did not reach `end_step`.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 10))
        >>> prune = MagnitudePruning(0.8, end_step=6, frequency=2)
        >>> history = model.fit(x, x, batch_size=8, callbacks=[prune], verbose=0)
        >>> history.history["sparsity"], int(np.count_nonzero(model.layers[0].kernel))
        ([0.8], 20)

    References: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1.
    """

    def __init__(
        self,
        final_sparsity: float = 0.8,
        *,
        initial_sparsity: float = 0.0,
        begin_step: int = 0,
        end_step: int,
        frequency: int = 100,
        schedule: Schedule | None = None,
        layers: LayerFilter | None = None,
    ) -> None:
        super().__init__()
        final_sparsity = check_sparsity("MagnitudePruning: final_sparsity", final_sparsity)
        initial_sparsity = check_sparsity("MagnitudePruning: initial_sparsity", initial_sparsity)
        if initial_sparsity > final_sparsity:
            raise ConfigError(
                f"MagnitudePruning: initial_sparsity must be at most final_sparsity ({final_sparsity:g}). "
                f"Received: {initial_sparsity:g}."
            )
        self.begin_step = check_steps("MagnitudePruning: begin_step", begin_step)
        self.end_step = check_steps("MagnitudePruning: end_step", end_step)
        if self.end_step < self.begin_step:
            raise ConfigError(
                f"MagnitudePruning: end_step must be at least begin_step ({self.begin_step}). "
                f"Received: {self.end_step}."
            )
        self.frequency = check_steps("MagnitudePruning: frequency", frequency, minimum=1)
        if schedule is not None and not callable(schedule):
            raise ConfigError(
                "MagnitudePruning: schedule must be a function from the step to a sparsity. "
                f"Received: {schedule!r}. Wrap a number as tfopt.schedules.constant(number)."
            )
        self.schedule = schedule or polynomial(
            initial_sparsity, final_sparsity, begin_step=self.begin_step, end_step=self.end_step
        )
        self.layers = layers
        self._masks: KernelConstraints[_MagnitudeMask] = KernelConstraints()
        self._clock: TrainingClock | None = None
        self._masked_at: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts a mask that keeps everything on each kernel and has the train step traced anew."""
        # Not in set_model: evaluate() and predict() call that too, and have no hook to take the masks off.
        self._masks.take_off_leftovers(self.model, self.params)
        kernels = select_kernels(self.model, self.layers)
        for layer, kernel in kernels:
            if any(isinstance(constraint, _MagnitudeMask) for constraint in constraints_on(kernel)):
                raise ConfigError(
                    f"MagnitudePruning: the kernel of the layer '{layer.name}' is already pruned by another "
                    "MagnitudePruning of this fit. Give the two callbacks layers= that do not overlap."
                )
        self._clock, self._masked_at = None, None
        with self.model.distribute_strategy.scope():
            masks = [
                _MagnitudeMask(layer, kernel, self.params, np.ones(kernel.shape, bool)) for layer, kernel in kernels
            ]
        self._masks.put_on(self.model, masks)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the clock at the first epoch of the fit, and takes up the masks of a resumed one."""
        if self._clock is None:
            self._clock = TrainingClock(
                self.model.optimizer, epoch=epoch, steps_per_epoch=(self.params or {}).get("steps")
            )
            self._update(self._clock)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Selects new masks if an update fell due."""
        if self._clock is not None:
            self._update(self._clock)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Masks averages that an EMA swap may just have put into the model."""
        self._masks.apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Masks averages that an EMA swap may just have put into the model, and logs the sparsity."""
        self._masks.apply()
        if logs is not None:
            logs["sparsity"] = self._sparsity()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Masks the final weights, gives the kernels back their own constraints, warns if not finished."""
        self._masks.apply()  # Keras has just put the averages of use_ema=True into the model
        reached, wanted = self._sparsity(), self._sparsity_at(self.end_step)
        self._masks.take_off(self.model)
        if self._clock is not None and self._clock.step < self.end_step:
            warnings.warn(
                f"MagnitudePruning: reached a sparsity of {reached:.4f} of the {wanted:g} asked for, because "
                f"the fit ended at step {self._clock.step}, before end_step={self.end_step}. Train longer, "
                "or lower end_step.",
                UserWarning,
                stacklevel=2,
            )

    def _update(self, clock: TrainingClock) -> None:
        step = clock.step
        if step < self.begin_step:
            return
        # The sparsity is that of the step an update was due at, not of the step it happens at: so a run with
        # steps_per_execution, or one that resumes between two updates, gets the same masks as any other.
        due = step - (step - self.begin_step) % self.frequency if step < self.end_step else self.end_step
        if due == self._masked_at:
            return
        sparsity = self._sparsity_at(due)
        for mask in self._masks:
            mask.select(sparsity)
        self._masked_at = due

    def _sparsity_at(self, step: int) -> float:
        return check_sparsity(f"MagnitudePruning: schedule({step})", self.schedule(step))

    def _sparsity(self) -> float:
        return sparsity_of(*(keras.ops.convert_to_numpy(mask.kernel) for mask in self._masks))


class _MagnitudeMask(KernelMask):
    def select(self, sparsity: float) -> None:
        try:
            mask = magnitude_mask(keras.ops.convert_to_numpy(self.kernel), sparsity)
        except ModelError as error:
            raise ModelError(f"MagnitudePruning: the kernel of the layer '{self.layer.name}': {error}") from None
        self.mask.assign(mask)
        self.kernel.assign(self.held(self.kernel))
