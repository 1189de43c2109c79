"""What the tools of benchmarks/scoreboard.py share: a task, the float network of its seed, and one way to train."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from compression_worker import accuracy, fit, predict, steps_of
from scoreboard_sets import build
from worker_files import check_equal, read_weights

__all__ = ["Method", "Row", "Task", "WrongFloatModelError", "exported", "float_model", "ramp_end", "train", "zeros"]

Row = dict[str, Any]
FLOAT_STEPS = 60
FIRST_STEPS = 5  # tracing and warming up


class WrongFloatModelError(RuntimeError):
    """A tool's float network computes something else than that which all tools are to start from."""


@dataclass(frozen=True, eq=False)
class Task:
    """One method of one tool, on one data set, with one seed.

    Args:
        tool: its name.
        method: as in the table.
        seed: of the float network, and of the order of the samples.
        settings: of the data set, an entry of `scoreboard_sets.SETS`.
        folder: where the float network of the seed lies, and where files go.
        data: x_train, y_train, x_test, y_test and calibration.
        float_step_ms: how long a float step took in this process, by the batch size.
        files: names of files to look at.
    """

    tool: str
    method: str
    seed: int
    settings: dict[str, Any]
    folder: Path
    data: dict[str, np.ndarray]
    float_step_ms: dict[int, float]
    files: tuple[str, ...] = ()

    def path(self, ending: str) -> Path:
        """Of the file that the method writes."""
        return self.folder / f"{self.tool}_{self.method}{ending}"


Method = Callable[[Task], Row]


def float_model(keras: Any, task: Task) -> Any:
    """The trained float network of the task's seed in a tool's Keras.

    Raises:
        WrongFloatModelError: if it computes something else there.
    """
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(task.seed)
    model = build(keras, task.settings, task.data)
    read_weights(model, task.folder / "float.npz")
    try:
        check_equal(predict(model, task.data), np.load(task.folder / "float.npy"), f"the float model of {task.tool}")
    except SystemExit as error:
        raise WrongFloatModelError(str(error)) from error
    return model


def train(keras: Any, model: Any, task: Task, stage: str, callbacks: Sequence[Any] = (), trained: Any = None) -> Row:
    """One `fit` as the data set's settings for the stage ask for it, and what a step takes beside a float one.

    Args:
        keras: the tool's.
        model: what is compiled and fitted.
        task: with the data.
        stage: "train", "fine_tune" or "prune".
        callbacks: of the fit.
        trained: what the accuracy is measured of; default: `model`.
    """
    settings = {**task.settings[stage], "seed": task.seed}
    clock = _step_clock(keras)
    seconds = fit(keras, model, task.data, settings, [*callbacks, clock])
    return {
        "train_seconds": seconds,
        "framework_accuracy": accuracy(trained or model, task.data),
        "step_ms": clock.step_ms(),
        "float_step_ms": _float_step_ms(keras, task, settings),
    }


def ramp_end(task: Task) -> int:
    """The step at which pruning reaches its final sparsity: one at which tfmot updates its masks."""
    settings = task.settings["prune"]
    updates = round(settings["ramp"] * steps_of(settings, task.data) / settings["frequency"])
    return max(1, updates) * settings["frequency"]


def zeros(model: Any) -> float:
    """The fraction of zeros in kernels and embeddings, whether they were pruned or not."""
    kernels = [weight for weight in model.get_weights() if weight.ndim > 1]
    return 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)


def _float_step_ms(keras: Any, task: Task, settings: dict[str, Any]) -> float:
    batch_size = settings["batch_size"]
    if batch_size not in task.float_step_ms:
        few = {name: array[: FLOAT_STEPS * batch_size] for name, array in task.data.items()}
        model, clock = build(keras, task.settings, task.data), _step_clock(keras)
        epochs = -(-FLOAT_STEPS // (len(few["x_train"]) // batch_size))
        fit(keras, model, few, {**settings, "epochs": epochs}, [clock])
        task.float_step_ms[batch_size] = clock.step_ms()
    return task.float_step_ms[batch_size]


def _step_clock(keras: Any) -> Any:
    class StepClock(keras.callbacks.Callback):
        """Takes the time at which each step ended."""

        def on_train_begin(self, logs: Any = None) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

        def step_ms(self) -> float:
            """The median, as other programs disturb the mean."""
            return 1000 * float(np.median(np.diff(self.ends[FIRST_STEPS:])))

    return StepClock()


def exported(path: Path, write: Callable[[], object]) -> Row:
    """Writes a file, and tells how long that took."""
    started = time.perf_counter()
    write()
    return {"file": path.name, "export_seconds": time.perf_counter() - started}
