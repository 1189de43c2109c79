"""Stopping a training that no longer improves: several values, budgets, a least sparsity, and what it saved."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras

from tfopt.errors import ConfigError
from tfopt.pruning.masks import check_sparsity
from tfopt.schedules.arguments import check_positive, check_steps
from tfopt.surgery.select import LayerFilter

from .configurable import Configurable
from .monitored_values import Monitor, MonitoredValues
from .restored_weights import restore_weights
from .sparsity_gate import SparsityGate
from .stopping_backup import read_backup, write_backup
from .stopping_summary import StoppingSummary
from .training_clock import TrainingClock
from .validation import evaluate_inside_epoch

__all__ = ["EarlyStopping"]


class EarlyStopping(Configurable, keras.callbacks.Callback):
    """Stops a training that no longer improves, but not before it ran long enough or is sparse enough.

    With one monitored value and none of its own arguments it stops where Keras's callback does. Beside
    `MagnitudePruning` use `min_sparsity`: while the sparsity rises the monitored value often gets worse, and Keras's
    own callback would stop there, or restore the best weights from an epoch that was still dense. Give both callbacks
    the same sparsity and the same `layers`.

    The best weights are all of the model's, activation ranges of a quantize-aware model and batch norm statistics
    included; the masks of `MagnitudePruning` are set to the zeros they have, so that it does not prune them once more.

    Args:
        monitor: the name of the value to watch, such as "val_loss"; a sequence of names; or a mapping from names to
            "min" or "max". A value counts from where it first appears in the logs. Of several, the first decides which
            weights are the best.
        mode: "min", "max" or "auto", for names that come without one. "auto" asks Keras, which knows its own metrics.
        min_delta: the smallest change that counts as an improvement; a mapping gives each name its own.
        relative_delta: whether `min_delta` is a fraction of the best value so far: 0.01 asks for one percent.
        smoothing: how much of the past a moving average keeps that is judged instead of the values, in [0, 1).
        patience: values without improvement before it stops: epochs, or validations with `every_steps`.
        stop_when: "all": it stops when none of the values has improved for so long; "any": when one of them has not.
        baseline: a value that must be beaten for an improvement to count; for one monitored value.
        restore_best_weights: whether the model ends with the best weights it had.
        start_from_epoch: epochs before this one are not looked at.
        min_epochs: epochs that run at least, those before `initial_epoch` included. Improvements count from
            the start (unlike `start_from_epoch`), only the stop waits.
        min_sparsity: what ends with a smaller fraction of zeros in the kernels, in [0, 1), is passed over: it neither
            uses up patience nor becomes the best. Whole weights are counted: a kernel of 9 reaches 0.8 with 7 zeros.
        layers: where `min_sparsity` is measured, as in `MagnitudePruning`; default: Dense and Conv kernels.
        max_steps: optimizer updates of the training after which it stops, inside an epoch too; None: no budget.
        max_seconds: wall-clock seconds of the fit after which it stops, likewise. A budget does not wait for
            `min_epochs` or `min_sparsity`, nor for the validation that ends the epoch.
        validation_data: to judge inside epochs: a tf.data.Dataset, or a tuple as `fit` takes it.
        every_steps: optimizer updates from one such validation to the next. Epoch ends are not judged then.
        backup: a file in which it keeps what it has seen after each epoch. A fit that resumes with `initial_epoch` or
            `BackupAndRestore` goes on with it; without it, patience and the best begin anew. Deleted when the fit ends.
        verbose: 1 prints the summary when the fit ends.

    Attributes:
        summary: after a fit, what was saved: a `StoppingSummary` with `epochs_saved` and `seconds_saved`.

    Raises:
        ConfigError: if an argument is out of range, or comes without one that it belongs to; in `fit`, if `layers`
            matches nothing, a monitored value is not in the logs, or nobody knows whether less or more of it is better.
        ModelError: in `fit`, if `min_sparsity` is given and the model has no kernel to measure.

    Warns:
        UserWarning: at the end of a fit in which nothing could be judged: a monitored value never appeared, or
            `min_sparsity` was never reached; if the `backup` is not that of the epoch before.

    Example:
        >>> stop = EarlyStopping("val_accuracy", patience=3, restore_best_weights=True, min_sparsity=0.8)
        >>> stop = EarlyStopping({"val_loss": "min", "val_accuracy": "max"}, min_delta=0.01, relative_delta=True)
        >>> EarlyStopping(min_sparsity=80)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: EarlyStopping: min_sparsity must be in [0, 1). Received: 80. \
Did you mean 0.80?

    References: Prechelt 1998, "Early Stopping: But When?", doi:10.1007/3-540-49430-8_3.
    """

    def __init__(
        self,
        monitor: Monitor = "val_loss",
        *,
        mode: str = "auto",
        min_delta: float | Mapping[str, float] = 0.0,
        relative_delta: bool = False,
        smoothing: float = 0.0,
        patience: int = 0,
        stop_when: Literal["all", "any"] = "all",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        min_epochs: int = 0,
        min_sparsity: float | None = None,
        layers: LayerFilter | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        validation_data: Any = None,
        every_steps: int | None = None,
        backup: str | PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self._watched = MonitoredValues(
            monitor,
            mode,
            min_delta=min_delta,
            relative_delta=relative_delta,
            smoothing=smoothing,
            patience=patience,
            stop_when=stop_when,
            baseline=baseline,
        )
        self.restore_best_weights, self.verbose = restore_best_weights, verbose
        self.start_from_epoch = check_steps("EarlyStopping: start_from_epoch", start_from_epoch)
        self.min_epochs = check_steps("EarlyStopping: min_epochs", min_epochs)
        if min_sparsity is None and layers is not None:
            raise ConfigError(
                "EarlyStopping: layers says where min_sparsity is measured. "
                f"Received: layers={layers!r} with min_sparsity=None. Give both or neither."
            )
        self._gate = None
        if min_sparsity is not None:
            self._gate = SparsityGate(check_sparsity("EarlyStopping: min_sparsity", min_sparsity), layers)
        self.max_steps = None if max_steps is None else check_steps("EarlyStopping: max_steps", max_steps, minimum=1)
        self.max_seconds = None if max_seconds is None else check_positive("EarlyStopping: max_seconds", max_seconds)
        if (validation_data is None) != (every_steps is None):
            raise ConfigError(
                "EarlyStopping: validation_data and every_steps judge inside epochs together. Received: "
                f"every_steps={every_steps!r} "
                f"{'without' if validation_data is None else 'with'} validation_data. Give both or neither."
            )
        if every_steps is not None:
            every_steps = check_steps("EarlyStopping: every_steps", every_steps, minimum=1)
        self.validation_data, self.every_steps = validation_data, every_steps
        self.backup = None if backup is None else Path(backup)
        self.summary: StoppingSummary | None = None
        self._clock: TrainingClock | None = None

    def get_config(self) -> dict[str, Any]:
        """The arguments that were given.

        Raises:
            ConfigError: if one has no written form: a lambda, or `validation_data`.
        """
        if self.validation_data is not None:
            raise ConfigError(
                "EarlyStopping: validation_data cannot be written down. Received: a callback that holds data. "
                "Write down one without it."
            )
        return super().get_config()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets what an earlier fit reached."""
        self._watched.reset()
        if self._gate is not None:
            self._gate.reset(self.model)
        self._clock, self.summary = None, None
        self._reason: str | None = None
        self._best_epoch: int | None = None
        self._best: dict[str, float] = {}
        self._best_weights: list[Any] | None = None
        self._judged_at = 0
        self._epochs_run = 0.0
        self._epoch_seconds: list[float] = []
        self._began = self._epoch_began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the clock at the first epoch of the fit, and goes on from the backup of a resumed one."""
        self._epoch, self._epochs_run = epoch, float(epoch)
        self._epoch_began = time.monotonic()
        if self._clock is None:
            # Without a budget of steps nothing depends on where a resumed fit of unknown length stands.
            counts_steps = self.max_steps is not None or self.every_steps is not None
            self._clock = TrainingClock(
                self.model.optimizer, epoch=epoch if counts_steps else 0, steps_per_epoch=self._steps_per_epoch()
            )
            self._judged_at = self._clock.step
            if epoch > 0 and self.backup is not None:
                self._go_on_from(self.backup, epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Judges if a validation inside the epoch fell due, and stops if a budget is spent."""
        if self._clock is None:  # a custom loop that never began an epoch
            return
        step = self._clock.step
        if steps := self._steps_per_epoch():
            self._epochs_run = self._epoch + (batch + 1) / steps
        if self.every_steps is not None and step // self.every_steps > self._judged_at // self.every_steps:
            self._judged_at = step
            validation = evaluate_inside_epoch(self.model, self.validation_data)
            self._judge(self._epoch, {**(logs or {}), **validation}, epochs_done=self._epoch)
        if self.max_steps is not None and step >= self.max_steps:
            self._stop(f"the budget of max_steps={self.max_steps} is spent")
        self._check_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judges the epoch, unless validations inside it are judged, and keeps a backup."""
        # In data of unknown length nobody can tell how much of the epoch was left: it counts as a whole one.
        stopped_inside = self._steps_per_epoch() and self.model.stop_training and self._epochs_run < epoch + 1
        if not stopped_inside:
            self._epochs_run = float(epoch + 1)
            self._epoch_seconds.append(time.monotonic() - self._epoch_began)
        if self.every_steps is None and logs is not None:
            self._judge(epoch, logs, epochs_done=epoch + 1)
        self._check_time()
        if self.backup is not None:
            state = {
                "epoch": epoch,
                "watched": self._watched.state(),
                "best_epoch": self._best_epoch,
                "best": self._best,
                "seconds": time.monotonic() - self._began,
            }
            write_backup(self.backup, state, self._best_weights)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restores the best weights if asked to, and sums up; warns if nothing could be judged."""
        if self._best_weights is not None:
            restore_weights(self.model.weights, self._best_weights)
            self._best_weights = None
        if self.backup is not None:
            self.backup.unlink(missing_ok=True)
        self.summary = self._sum_up()
        if self.verbose:
            print(f"EarlyStopping: {self.summary}")
        if self._gate is not None and self._gate.sparsity is not None and not self._gate.was_open:
            self._warn(
                f"no epoch reached min_sparsity={self._gate.min_sparsity:g} (the last one had "
                f"{self._gate.sparsity:.4f}), so none was judged. Train longer, or lower min_sparsity."
            )
        elif not self._watched.seen and self._epochs_run > self.start_from_epoch and self._reason is None:
            self._warn(
                f"the logs never had {' and '.join(self._watched.names)}, so nothing was judged. Give fit() "
                "validation_data, or monitor a value of the training."
            )

    def _judge(self, epoch: int, logs: Mapping[str, Any], *, epochs_done: int) -> None:
        if self._gate is not None and not self._gate.is_open(self.model):
            return
        if epoch < self.start_from_epoch:
            return
        if self._watched.update(logs, self.model):
            self._best_epoch, self._best = epoch, {name: float(logs[name]) for name in self._watched.names}
            if self.restore_best_weights:
                self._best_weights = self.model.get_weights()
        reason = self._watched.reason_to_stop()
        if reason and epochs_done >= self.min_epochs:
            self._stop(reason)

    def _stop(self, reason: str) -> None:
        if not self.model.stop_training:
            self._reason = reason
        self.model.stop_training = True

    def _check_time(self) -> None:
        if self.max_seconds is not None and time.monotonic() - self._began >= self.max_seconds:
            self._stop(f"the budget of max_seconds={self.max_seconds:g} is spent")

    def _go_on_from(self, backup: Path, epoch: int) -> None:
        if not backup.exists():
            self._warn(f"backup='{backup}' does not exist, so patience and the best begin anew at epoch {epoch}.")
            return
        state, weights = read_backup(backup, self.model.get_weights())
        if state["epoch"] != epoch - 1 or [*state["watched"]] not in ([], self._watched.names):
            self._warn(
                f"backup='{backup}' is of epoch {state['epoch']} and of {[*state['watched']]}, not of epoch "
                f"{epoch - 1} and {self._watched.names}, so patience and the best begin anew."
            )
            return
        self._watched.restore(state["watched"], self.model)
        self._best_epoch, self._best, self._best_weights = state["best_epoch"], state["best"], weights
        self._began -= state["seconds"]

    def _sum_up(self) -> StoppingSummary:
        seconds = time.monotonic() - self._began
        planned = (self.params or {}).get("epochs") or 0
        if self._epoch_seconds:
            seconds_per_epoch = statistics.median(self._epoch_seconds)
        else:
            seconds_per_epoch = seconds / self._epochs_run if self._epochs_run else 0.0
        reason = (self._reason or "something else stopped it") if self._epochs_run < planned else None
        return StoppingSummary(
            reason, planned, self._epochs_run, seconds, seconds_per_epoch, self._best_epoch, self._best
        )

    def _steps_per_epoch(self) -> int | None:
        return (self.params or {}).get("steps")

    def _warn(self, message: str) -> None:
        warnings.warn(f"EarlyStopping: {message}", UserWarning, stacklevel=3)
