"""Keras's early stopping, with a minimum of epochs and of sparsity."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from tfopt.errors import ConfigError
from tfopt.pruning.masks import check_sparsity, kept_count, sparsity_of
from tfopt.schedules import check_steps
from tfopt.surgery.select import LayerFilter, select_kernels

__all__ = ["EarlyStopping"]


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Stops a training that no longer improves, but not before it ran long enough or is sparse enough.

    Use it beside `MagnitudePruning`: while the sparsity rises the monitored value often gets worse, and
    Keras's own callback would stop there, or restore the best weights from an epoch that was still dense.
    Give both callbacks the same sparsity and the same `layers`.
    As in Keras, a fit that is resumed counts patience and looks for its best epoch anew.

    Args:
        monitor: the name of the value to watch, such as "val_loss".
        min_delta: the smallest change that counts as an improvement.
        patience: epochs without improvement before it stops.
        verbose: 1 prints when it stops.
        mode: "min", "max" or "auto".
        baseline: a value that must be beaten for an improvement to count.
        restore_best_weights: whether the model ends with the weights of its best epoch.
        start_from_epoch: epochs before this one are not looked at.
        min_epochs: epochs that run at least, those before `initial_epoch` included. Improvements count from
            the start (unlike `start_from_epoch`), only the stop waits.
        min_sparsity: epochs at whose end the kernels have a smaller fraction of zeros, in [0, 1), are passed
            over: they neither use up patience nor become the best. Whole
            weights are counted: a kernel of 9 reaches 0.8 with 7 zeros.
        layers: where `min_sparsity` is measured, as in `MagnitudePruning`; default: Dense and Conv kernels.

    Raises:
        ConfigError: if `min_epochs` or `min_sparsity` is out of range, or `layers` comes without
            `min_sparsity` or matches nothing.
        ModelError: in `fit`, if the model has no kernel to measure.

    Warns:
        UserWarning: at the end of a fit that never reached `min_sparsity`.

    Example:
        >>> stop = EarlyStopping("val_accuracy", patience=3, restore_best_weights=True, min_sparsity=0.8)
        >>> EarlyStopping(min_sparsity=80)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: EarlyStopping: min_sparsity must be in [0, 1). Received: 80. \
Did you mean 0.80?
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        min_epochs: int = 0,
        min_sparsity: float | None = None,
        layers: LayerFilter | None = None,
    ) -> None:
        super().__init__(
            monitor=monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode=mode,
            baseline=baseline,
            restore_best_weights=restore_best_weights,
            start_from_epoch=start_from_epoch,
        )
        self.min_epochs = check_steps("EarlyStopping: min_epochs", min_epochs)
        if min_sparsity is not None:
            min_sparsity = check_sparsity("EarlyStopping: min_sparsity", min_sparsity)
        elif layers is not None:
            raise ConfigError(
                "EarlyStopping: layers says where min_sparsity is measured. "
                f"Received: layers={layers!r} with min_sparsity=None. Give both or neither."
            )
        self.min_sparsity = min_sparsity
        self.layers = layers
        self._sparse_enough = False
        self._sparsity: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets what an earlier fit reached."""
        super().on_train_begin(logs)
        self._sparse_enough = False
        self._sparsity = None
        if self.min_sparsity is not None:
            # A filter that matches nothing fails here, not after an epoch of training.
            select_kernels(self.model, self.layers)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets Keras judge the epoch if it is sparse enough, and puts off a stop that comes too early."""
        if self.min_sparsity is not None and not self._is_sparse(self.min_sparsity):
            return
        stopped_by_another = self.model.stop_training
        super().on_epoch_end(epoch, logs)
        if self.model.stop_training and not stopped_by_another and epoch + 1 < self.min_epochs:
            self.model.stop_training = False
            self.stopped_epoch = 0

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Restores the best weights if asked to; warns if no epoch was sparse enough to be judged."""
        super().on_train_end(logs)
        if self._sparsity is not None and not self._sparse_enough:
            warnings.warn(
                f"EarlyStopping: no epoch reached min_sparsity={self.min_sparsity:g} (the last one had "
                f"{self._sparsity:.4f}), so none was judged. Train longer, or lower min_sparsity.",
                UserWarning,
                stacklevel=2,
            )

    def _is_sparse(self, min_sparsity: float) -> bool:
        kernels = [keras.ops.convert_to_numpy(kernel) for _, kernel in select_kernels(self.model, self.layers)]
        zeros = sum(kernel.size - int(np.count_nonzero(kernel)) for kernel in kernels)
        # Counted in weights, because 7 zeros of 9 are a fraction of 0.78 and yet all that 0.8 asks for.
        needed = sum(kernel.size - kept_count(kernel.size, min_sparsity) for kernel in kernels)
        self._sparsity = sparsity_of(*kernels)
        enough = zeros >= needed
        self._sparse_enough = self._sparse_enough or enough
        return enough
