"""The verb `search_architecture`: the most accurate network within a latency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from tfopt.errors import ConfigError
from tfopt.recipe import Preset
from tfopt.schedules.arguments import check_positive
from tfopt.tuning.latency_table import LatencyTable
from tfopt.tuning.tuning import tune
from tfopt.tuning.tuning_result import TuningResult

__all__ = ["LATENCY", "search_architecture"]

LATENCY = "latency_ms"
"""What each epoch logs."""


def search_architecture(
    build_model: Callable[[Any], keras.Model],
    train: Any,
    validation: Any,
    *,
    max_latency_ms: float,
    quantization: Preset = "int8",
    table: str | Path | None = None,
    folder: str | Path | None = None,
    objective: str = "val_accuracy",
    **options: Any,
) -> TuningResult:
    """Finds the network of a space that scores best among those that are fast enough on this machine.

    A network's latency is added up from a table of measured layers before it is trained; one that takes longer is
    passed over, which costs seconds at most. Operations alone would not do: depthwise convolutions take more time for
    each, and int8 pays for some layers and not for others.

    Args:
        build_model: from hyperparameters to a compiled model, such as `image_classifiers(...)`; one of your own may ask
            for anything that `tune` can search.
        train: `(x, y)` or a tf.data.Dataset of batches.
        validation: likewise.
        max_latency_ms: of one inference on one thread, as predicted; measure the result (`tfopt.benchmark`).
        quantization: what the network will be: a preset of `export_tflite`.
        table: a file for the measured times, for later searches; by default one in `folder`, where that is given.
        objective: the name of a logged value.
        folder: where trials are kept, for a search that goes on; by default a new temporary folder.
        options: further arguments of `tune`: `trials`, which counts those that are passed over, `epochs`, `search`,
            `seed`, ….

    Returns:
        The result of `tune`; the best row's `logs["latency_ms"]` is the prediction.

    Raises:
        ConfigError: if an argument is not usable.
        DataError: if `train` or `validation` is neither a tuple nor a dataset.
        ModelError: if no network was fast enough.

    Example:
        >>> import numpy as np
        >>> from tfopt.tuning import image_classifiers
        >>> x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
        >>> y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
        >>> space = image_classifiers((8, 8, 1), 2, stages=1, widths=(4, 8), most_blocks=1, kernels=(3,))
        >>> result = search_architecture(
        ...     space, (x, y), (x, y), max_latency_ms=50.0, quantization="none", search="random", trials=2, epochs=1
        ... )
        >>> 0 < result.best.logs["latency_ms"] < 50.0
        True

    References: Tan et al. 2019, arXiv:1807.11626 (MnasNet: latency on the device in the search); Cai et al. 2019,
    arXiv:1812.00332 (ProxylessNAS: from a table of layers).
    """
    check_positive("search_architecture: max_latency_ms", max_latency_ms)
    if not callable(build_model):
        raise ConfigError(
            f"search_architecture: build_model must be a function. Received: {type(build_model).__name__}."
        )
    if table is None and folder is not None:
        table = Path(folder) / "latency_table.json"
    space = _FastEnough(build_model, LatencyTable(table, quantization=quantization), max_latency_ms)
    return tune(space, train, validation, objective=objective, folder=folder, **options)


class _FastEnough(keras_tuner.HyperModel):
    """A space without what is too slow."""

    def __init__(self, build_model: Callable[[Any], keras.Model], table: LatencyTable, max_latency_ms: float) -> None:
        super().__init__()
        self._build_model, self._table, self._max_latency_ms = build_model, table, max_latency_ms

    def build(self, hp: Any) -> keras.Model:
        return self._build_model(hp)

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
        latency_ms = self._table.predict_ms(model)
        if latency_ms > self._max_latency_ms:  # not in build, which keras-tuner also calls to learn the space
            raise keras_tuner.errors.FailedTrialError(
                f"{latency_ms:.3g} ms, more than the {self._max_latency_ms:g} allowed"
            )

        def log(epoch: int, logs: dict[str, Any]) -> None:
            logs[LATENCY] = latency_ms

        # Before keras-tuner's own, which keep what is logged.
        return model.fit(*args, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=log), *callbacks], **kwargs)
