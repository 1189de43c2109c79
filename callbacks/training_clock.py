"""The step of a training: optimizer updates since its epoch 0."""

from __future__ import annotations

import keras

from tfopt.errors import ConfigError

__all__ = ["TrainingClock"]


class TrainingClock:
    """Counts the optimizer updates of one training.

    `optimizer.iterations` alone will not do: it goes on counting when a model is fitted a second time. The
    clock reads 0 at the start of epoch 0 of any fit; a fit that resumes at `initial_epoch` (or through
    `keras.callbacks.BackupAndRestore`) starts where the interrupted one stood. With gradient accumulation
    several batches make one update; a batch that a `LossScaleOptimizer` skips makes none.

    Args:
        optimizer: the optimizer of the compiled model.
        epoch: the first epoch of this fit, as `on_epoch_begin` receives it.
        steps_per_epoch: batches in an epoch; None where it is not known.

    Raises:
        ConfigError: if `steps_per_epoch` is not known and the fit resumes.

    Example:
        >>> clock = TrainingClock(keras.optimizers.SGD(), epoch=2, steps_per_epoch=100)
        >>> clock.step
        200
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, *, epoch: int, steps_per_epoch: int | None) -> None:
        if epoch > 0 and steps_per_epoch is None:
            raise ConfigError(
                f"Cannot tell the training step at the start of epoch {epoch}: fit() does not know how many "
                "batches an epoch has. Received: steps_per_epoch=None with data of unknown length. "
                "Pass steps_per_epoch to fit(), or call apply(tf.data.experimental.assert_cardinality(n))."
            )
        self._optimizer = optimizer
        self._anchor = _iterations(optimizer) - _updates(optimizer, epoch * (steps_per_epoch or 0))

    @property
    def step(self) -> int:
        """Updates done so far; the next one has this number."""
        return _iterations(self._optimizer) - self._anchor


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    # int() alone refuses the mirrored variable of a tf.distribute strategy.
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def _updates(optimizer: keras.optimizers.Optimizer, batches: int) -> int:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return batches // (optimizer.gradient_accumulation_steps or 1)
