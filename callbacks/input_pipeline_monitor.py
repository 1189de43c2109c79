"""Whether a training waits for its input, from a few of its steps."""

from __future__ import annotations

import time
import warnings
from typing import Any

import keras

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_number, check_steps
from tfopt.trace import Recording

from .configurable import Configurable
from .input_waiting import InputWaiting, is_of_input, read_input_waiting

__all__ = ["InputPipelineMonitor"]


class InputPipelineMonitor(Configurable, keras.callbacks.Callback):
    """Splits the time of training steps into waiting for input and computing, and says what to change in the pipeline.

    Use it in the first minutes of any training. Keras fetches a batch within the training step, where a callback
    cannot look, so TensorFlow's profiler records a few batches of the fit: the wait is the time in which a
    step asks the pipeline for its next batch and does nothing else. Data that `fit` takes in any form comes to the step
    through tf.data, arrays and generators too. Nothing of the training changes but the time of the recorded batches.

    With `steps_per_execution=n` whole executions are recorded. Validation is not measured.

    Args:
        warmup_batches: batches that run before, at least one execution: the first traces the graph, and those after
            it live on what was prefetched meanwhile.
        batches: batches that are recorded, or as many as the epoch has left.
        threshold: the share of input wait from which the verdict is "input-bound", in (0, 1).
        verbose: 1 prints the report as soon as it is there, 0 does not.

    Attributes:
        report: the `InputWaiting` of the last fit, with `verdict`, `input_share`, `stages` and `fixes`; None if nothing
            was measured.

    Raises:
        ConfigError: if an argument is out of range.

    Warns:
        UserWarning: if nothing could be measured: the fit was too short, something else uses the profiler, or the
            input does not come from tf.data.

    Example:
        >>> import tensorflow as tf
        >>> dataset = tf.data.Dataset.from_tensors((tf.ones((4, 2)), tf.ones((4, 1)))).repeat(40)
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = InputPipelineMonitor(verbose=0)
        >>> history = model.fit(dataset, shuffle=False, callbacks=[monitor], verbose=0)
        >>> monitor.report.batches, 0 <= monitor.report.input_share <= 1
        (20, True)

    References: the input-pipeline analysis of TensorFlow's profiler, https://www.tensorflow.org/guide/data_performance_analysis.
    """

    def __init__(
        self, *, warmup_batches: int = 10, batches: int = 20, threshold: float = 0.1, verbose: int = 1
    ) -> None:
        super().__init__()
        self.warmup_batches = check_steps("InputPipelineMonitor: warmup_batches", warmup_batches)
        self.batches = check_steps("InputPipelineMonitor: batches", batches, minimum=1)
        self.threshold = check_number("InputPipelineMonitor: threshold", threshold)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"InputPipelineMonitor: threshold must be in (0, 1). Received: {threshold!r}.")
        self.verbose = verbose
        self.report: InputWaiting | None = None
        self._recording = Recording()
        self._done = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the fit before, and a recording that an exception left running there."""
        Recording.discard()
        self.report, self._done = None, False
        self._batches_seen = self._batches_recorded = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the recording once enough batches have run."""
        self._first_of_execution = batch
        if self._done or self._recording.is_running or self._batches_seen < max(self.warmup_batches, 1):
            return
        try:
            self._recording.start()
        except ConfigError as error:
            self._give_up(str(error))
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts, and ends the recording once there is enough of it."""
        ran = batch - self._first_of_execution + 1
        self._batches_seen += ran
        if self._recording.is_running:
            self._batches_recorded += ran
            self._ended = time.perf_counter()
            if self._batches_recorded >= self.batches:
                self._evaluate()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Makes do with what there is: between epochs the pipeline starts anew."""
        self._evaluate()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Likewise before a validation, which is none of the steps."""
        self._evaluate()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns if nothing was measured."""
        self._evaluate()
        if not self._done:
            self._give_up(
                f"the fit ended after {self._batches_seen} batches. Expected: more than {max(self.warmup_batches, 1)}. "
                "Lower warmup_batches, or give it more epochs."
            )

    def _evaluate(self) -> None:
        if not self._recording.is_running or not self._batches_recorded:
            return
        events = self._recording.stop(keep=is_of_input)
        self.report = read_input_waiting(
            events,
            batches=self._batches_recorded,
            milliseconds=1e3 * (self._ended - self._began),
            threshold=self.threshold,
        )
        if self.report is None:
            self._give_up("no step asked a tf.data pipeline for its input. Is the model trained eagerly?")
            return
        self._done = True
        if self.verbose:
            print(self.report)

    def _give_up(self, reason: str) -> None:
        self._done = True
        warnings.warn(f"InputPipelineMonitor: nothing was measured: {reason}", UserWarning, stacklevel=3)
