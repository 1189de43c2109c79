"""Magnitude pruning while a model trains: a mask constraint on each kernel, and nothing to strip after."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfopt.errors import ConfigError, ModelError
from tfopt.pruning.allocation import ALLOCATIONS, Allocation, erk_sparsities, largest_of_all
from tfopt.pruning.masks import check_sparsity, largest, sparsity_of
from tfopt.pruning.patterns import Blocks, pattern_of
from tfopt.pruning.sparse_targets import Target, check_target, why_pruning_is_not_faster
from tfopt.pruning.update_steps import DEFAULT_FREQUENCY, read_schedule
from tfopt.schedules import Schedule, polynomial
from tfopt.surgery.select import LayerFilter, select_kernels

from .configurable import Configurable
from .kernel_constraint import KernelConstraints, constraints_on
from .magnitude_mask import MagnitudeMask, MaskUpdates
from .training_clock import TrainingClock

__all__ = ["MagnitudePruning"]

_DEFAULT_SPARSITY = 0.8


class MagnitudePruning(Configurable, keras.callbacks.Callback):
    """Zeroes the smallest-magnitude weights of a model while it trains.

    Use it to make a model that compresses well (zip, Ethos-U weight streams) or runs on a sparse kernel; it
    does not make dense arithmetic faster, and the file has the same size until it is compressed.

    At step t each kernel keeps its round((1 - s(t)) * size) largest |w|, at least one; of equal ones the first. The
    mask is a constraint on the kernel, applied by the optimizer inside the compiled train step, so it holds under
    `steps_per_execution`, `jit_compile`, gradient accumulation, loss scaling and `tf.distribute.MirroredStrategy`, and
    every checkpoint is sparse. A constraint of the user's own runs before the mask and is back after the fit.
    The kernels are then free again: a later fit without this callback grows the zeros back.

    A zeroed weight may grow back until `end_step`: at each mask update it is compared with the others by what the last
    optimizer update made of it, which is kept for that. It begins at zero there, so it returns only where one update
    outgrows the weakest weight that is kept, as in tensorflow-model-optimization (tfmot). From `end_step` on the mask
    stays as it is. In memory a pruned weight costs one byte and a copy of itself.

    Steps are optimizer updates of this training, as `tfopt.schedules` counts them: 0 at epoch 0 of every fit;
    a fit resumed with `initial_epoch` or `BackupAndRestore` goes on where it stood. A fit that ends by an
    exception leaves the masks on until the next fit with this callback.

    With `use_ema=True` the averages that Keras puts into the model are masked too; place this callback after
    `keras.callbacks.SwapEMAWeights` and before `ModelCheckpoint`.

    Args:
        final_sparsity: fraction of zeros at `end_step`, in [0, 1); default: 0.8, or what `pattern` has.
        initial_sparsity: fraction of zeros at `begin_step`.
        begin_step: nothing is pruned before this step. Equal to `end_step`, the model is pruned in one shot.
        end_step: from here on the mask stays as it is. It is needed unless there is a `schedule`, with which None
            means never.
        frequency: steps between two mask updates. With `steps_per_execution=n` an update waits for the end
            of the n steps it falls into.
        schedule: takes the place of the ramp from `initial_sparsity` to `final_sparsity`, a polynomial of
            power 3: a function from the step to a sparsity, asked between `begin_step` and `end_step`. A
            `PolynomialDecay` or `ConstantSparsity` of tfmot is taken as it is, with its own begin, end and frequency;
            its step t, which comes before the t-th batch, is step t - 1 here.
        allocation: how the sparsity is spread over kernels. "per_layer": each has it. "global": the smallest weights
            of all kernels together are zeroed, so that kernels of large weights keep more; one of small weights may
            lose all. "erk": kernels keep by their shape, small ones more (Erdős–Rényi-Kernel).
        pattern: "N:M", such as "2:4": at most N weights stay of every M neighbouring input channels. Until the final
            sparsity of 1 - N/M is reached, the groups that lose least are zeroed first.
        block: output and input channels of blocks that are zeroed as one, such as `(1, 4)` or `(1, 16)`, in the layout
            that TFLite stores: `(out, in)`. tfmot's `block_size` is in Keras's layout, `(in, out)`.
        block_pooling: what represents a block: its "average" magnitude, or its "max".
        depthwise: whether depthwise kernels are pruned too (see `tfopt.surgery.select.select_kernels`).
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every
            Dense and Conv kernel, also in nested models (see `tfopt.surgery.select.select_kernels`). Or a mapping from
            such filters to a final sparsity each, which prunes what they match only; where several match, the first
            counts. The table of an Embedding is pruned where a filter matches it. Frozen layers are pruned like the
            others.
        target: where the model will run, one of `tfopt.pruning.sparse_targets.TARGETS`. A fit then begins with a
            warning if zeros like these do not make it faster there.

    Shapes: kernel `(in, out)` or `(h, w, in, out)`; the mask has the same shape.

    Logs: "sparsity" at the end of each epoch: the fraction of zeros over all pruned kernels.

    Raises:
        ConfigError: if an argument is out of range or excludes another, `layers` matches nothing, a pattern does not
            fit a kernel, or two of these callbacks prune the same kernel; in `fit`, if the schedule returns something
            that is not a sparsity.
        ModelError: if the model has no kernel to prune, or a kernel becomes NaN.

    Warns:
        UserWarning: before a fit whose zeros the `target` cannot use; at the end of one that did not reach `end_step`,
            or that left a kernel without weights.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(64, 10))
        >>> prune = MagnitudePruning(0.8, end_step=6, frequency=2)
        >>> history = model.fit(x, x, batch_size=8, callbacks=[prune], verbose=0)
        >>> history.history["sparsity"], int(np.count_nonzero(model.layers[0].kernel))
        ([0.8], 20)

    References: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1; Evci et al. 2020, arXiv:1911.11134 ("erk").
    """

    def __init__(
        self,
        final_sparsity: float | None = None,
        *,
        initial_sparsity: float = 0.0,
        begin_step: int = 0,
        end_step: int | None = None,
        frequency: int = DEFAULT_FREQUENCY,
        schedule: Schedule | None = None,
        allocation: Allocation = "per_layer",
        pattern: str | None = None,
        block: tuple[int, int] | None = None,
        block_pooling: str = "average",
        depthwise: bool = False,
        layers: LayerFilter | Mapping[LayerFilter, float] | None = None,
        target: Target | None = None,
    ) -> None:
        super().__init__()
        if target is not None:
            check_target("MagnitudePruning: target", target)
        self.target = target
        if allocation not in ALLOCATIONS:
            raise ConfigError(f"MagnitudePruning: allocation must be one of {ALLOCATIONS}. Received: {allocation!r}.")
        self.allocation, self.depthwise, self.layers = allocation, depthwise, layers
        self.pattern = pattern_of("MagnitudePruning", pattern, block, block_pooling)
        self._schedule, self._steps = read_schedule("MagnitudePruning", schedule, begin_step, end_step, frequency)
        initial_sparsity = check_sparsity("MagnitudePruning: initial_sparsity", initial_sparsity)
        self._check_exclusions(final_sparsity)

        def ramp(name: str, final: float) -> Schedule:
            final = check_sparsity(f"MagnitudePruning: {name}", final)
            if initial_sparsity > final:
                raise ConfigError(
                    f"MagnitudePruning: initial_sparsity must be at most {name} ({final:g}). "
                    f"Received: {initial_sparsity:g}."
                )
            if self._schedule is not None:
                return self._schedule
            begin_step, end_step = self._steps.begin, self._steps.last or self._steps.begin
            return polynomial(initial_sparsity, final, begin_step=begin_step, end_step=end_step)

        self._scopes: list[tuple[LayerFilter | None, Schedule | None]]
        if isinstance(layers, Mapping):
            self._scopes = [(key, ramp(f"layers[{key!r}]", final)) for key, final in layers.items()]
        else:
            self._scopes = [(layers, None)]
            final = (self.pattern.limit or _DEFAULT_SPARSITY) if final_sparsity is None else final_sparsity
            self._schedule = ramp("final_sparsity", final)
        self._masks: KernelConstraints[MagnitudeMask] = KernelConstraints()
        self._threshold = 0.0
        self._clock: TrainingClock | None = None
        self._masked_at: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts a mask that keeps everything on each kernel and has the train step traced anew."""
        # Not in set_model: evaluate() and predict() call that too, and have no hook to take the masks off.
        self._masks.take_off_leftovers(self.model, self.params)
        self._warn_of_target()
        self._clock, self._masked_at, self._threshold = None, None, 0.0
        chosen: dict[int, tuple[keras.layers.Layer, keras.Variable, Schedule | None]] = {}
        for layers, schedule in self._scopes:
            for layer, kernel in select_kernels(self.model, layers, depthwise=self.depthwise):
                chosen.setdefault(id(kernel), (layer, kernel, schedule))
        for layer, kernel, _ in chosen.values():
            if any(isinstance(constraint, MagnitudeMask) for constraint in constraints_on(kernel)):
                raise ConfigError(
                    f"MagnitudePruning: the kernel of the layer '{layer.name}' is already pruned by another "
                    "MagnitudePruning of this fit. Give the two callbacks layers= that do not overlap."
                )
        with self.model.distribute_strategy.scope():
            masks = [MagnitudeMask(layer, kernel, self.params, schedule) for layer, kernel, schedule in chosen.values()]
        self._check_fit(masks)
        self._masks.put_on(self.model, masks)
        self._updates = MaskUpdates(masks)

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
        """Masks the final weights, gives the kernels back their own constraints, warns of what went wrong."""
        self._masks.apply()  # Keras has just put the averages of use_ema=True into the model
        masks, last = list(self._masks), self._steps.last
        reached = self._sparsity()
        wanted = 0.0 if last is None else self._total_sparsity_at(masks, last)
        self._masks.take_off(self.model)
        if self._clock is not None and last is not None and self._clock.step < last:
            warnings.warn(
                f"MagnitudePruning: reached a sparsity of {reached:.4f} of the {wanted:g} asked for, because "
                f"the fit ended at step {self._clock.step}, before end_step={last}. Train longer, or lower end_step.",
                UserWarning,
                stacklevel=2,
            )
        if emptied := [mask.layer.name for mask in masks if not np.any(mask.mask)]:
            warnings.warn(
                f"MagnitudePruning: allocation='global' left no weight in the kernels of {', '.join(emptied)}: their "
                "layers have constant outputs. Choose allocation='erk', a lower sparsity, or layers= without them.",
                UserWarning,
                stacklevel=2,
            )

    def _update(self, clock: TrainingClock) -> None:
        # The sparsity is that of the step an update was due at, not of the step it happens at: so a run with
        # steps_per_execution, or one that resumes between two updates, gets the same masks as any other.
        due = self._steps.latest(clock.step)
        if due is None or due == self._masked_at:
            return
        masks = list(self._masks)
        sparsities = self._sparsities_at(masks, due)
        candidates = self._updates.candidates()
        kernels = [
            (keras.ops.convert_to_numpy(kernel), mask.input_axis)
            for kernel, mask in zip(candidates, masks, strict=True)
        ]
        kept = self._kept_units(masks, [self.pattern.scores(*kernel) for kernel in kernels], sparsities)
        new = [self.pattern.mask(*kernel, units) for kernel, units in zip(kernels, kept, strict=True)]
        self._updates.keep(new, candidates)
        self._masked_at = due

    def _kept_units(
        self, masks: list[MagnitudeMask], scores: list[np.ndarray], sparsities: list[float]
    ) -> list[np.ndarray]:
        if self.allocation == "global":
            count = self.pattern.kept_units(sum(score.size for score in scores), sparsities[0])
            try:
                kept, self._threshold = largest_of_all(scores, count, near=self._threshold)
            except ModelError as error:
                broken = next(mask for mask, score in zip(masks, scores, strict=True) if np.isnan(score).any())
                raise _of_kernel(broken, error) from None
            return kept
        kept = []
        for mask, score, sparsity in zip(masks, scores, sparsities, strict=True):
            try:
                units, mask.threshold = largest(
                    score, self.pattern.kept_units(score.size, sparsity), near=mask.threshold
                )
            except ModelError as error:
                raise _of_kernel(mask, error) from None
            kept.append(units)
        return kept

    def _sparsities_at(self, masks: list[MagnitudeMask], step: int) -> list[float]:
        if self._schedule is None:
            return [mask.schedule(step) for mask in masks if mask.schedule is not None]
        sparsity = check_sparsity(f"MagnitudePruning: schedule({step})", self._schedule(step))
        if self.allocation == "erk":
            return erk_sparsities([tuple(mask.kernel.shape) for mask in masks], sparsity)
        return [sparsity] * len(masks)

    def _total_sparsity_at(self, masks: list[MagnitudeMask], step: int) -> float:
        sizes = [math.prod(mask.kernel.shape) for mask in masks]
        return float(np.average(self._sparsities_at(masks, step), weights=sizes))

    def _sparsity(self) -> float:
        return sparsity_of(*(keras.ops.convert_to_numpy(mask.kernel) for mask in self._masks))

    def _check_exclusions(self, final_sparsity: float | None) -> None:
        limit = self.pattern.limit
        if limit is not None and self.allocation != "per_layer":
            raise ConfigError(
                f"MagnitudePruning: {self.pattern} has the same sparsity in every kernel. "
                f"Received: allocation={self.allocation!r}. Leave the allocation out."
            )
        if isinstance(self.layers, Mapping):
            if not self.layers:
                raise ConfigError("MagnitudePruning: layers={} prunes nothing. Map filters to sparsities.")
            others = {
                "final_sparsity": final_sparsity is not None,
                "schedule": self._schedule is not None,
                "pattern": limit is not None,
                "allocation": self.allocation != "per_layer",
            }
            if given := [name for name, is_given in others.items() if is_given]:
                raise ConfigError(
                    f"MagnitudePruning: a mapping of layers= says how sparse each kernel ends, and so does "
                    f"{given[0]}=. Give one of them, or one callback per schedule."
                )
        elif limit is not None and self._schedule is None and not np.isclose(final_sparsity or limit, limit):
            raise ConfigError(
                f"MagnitudePruning: {self.pattern} ends at a sparsity of {limit:.4g}. "
                f"Received: final_sparsity={final_sparsity!r}. Leave it out."
            )

    def _warn_of_target(self) -> None:
        columns = self.pattern.columns if isinstance(self.pattern, Blocks) else None
        reason = self.target and why_pruning_is_not_faster(self.target, block_columns=columns)
        if reason:
            warnings.warn(
                f"MagnitudePruning: the zeros will not make the model faster on {self.target}: {reason}. Its file will "
                "be smaller once it is zipped. For speed, remove channels with tfopt.prune_channels.",
                UserWarning,
                stacklevel=2,
            )

    def _check_fit(self, masks: list[MagnitudeMask]) -> None:
        reasons = {mask.layer.name: self.pattern.misfit(tuple(mask.kernel.shape), mask.input_axis) for mask in masks}
        misfits = {name: reason for name, reason in reasons.items() if reason}
        if misfits:
            found = "; ".join(f"'{name}': {reason}" for name, reason in misfits.items())
            raise ConfigError(
                f"MagnitudePruning: {self.pattern} does not fit the kernel of {found}. Leave such layers out: "
                f"layers=lambda layer: isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)) "
                f"and layer.name not in {list(misfits)}."
            )


def _of_kernel(mask: MagnitudeMask, error: ModelError) -> ModelError:
    return ModelError(f"MagnitudePruning: the kernel of the layer '{mask.layer.name}': {error}")
