"""Trials in a tracking tool: TensorBoard's HParams, or MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError, MissingExtraError

__all__ = ["Track", "track_with"]

Track = Callable[[str, Mapping[str, Any], Mapping[str, Sequence[float]], float], None]
"""Takes a trial's name, its values, what each of its epochs logged by name, and its score."""


def track_with(tracking: str | Path | None) -> Track | None:
    """What records a trial when it is done.

    A trial has its values as parameters, what its epochs logged as metrics over steps, and "score" and "epochs".

    Args:
        tracking: a folder for TensorBoard's HParams, each trial in a folder of its own; "mlflow" for MLflow, each trial
            a run of the experiment that MLflow is set to (`mlflow.set_tracking_uri`, `mlflow.set_experiment`), nested
            in the active run where there is one; None for nothing.

    Raises:
        ConfigError: if it is something else.
        MissingExtraError: if MLflow is asked for and not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     track_with(folder)("a1", {"units": 8}, {"val_loss": [0.5, 0.4]}, 0.4)
        ...     [path.parent.name for path in Path(folder).glob("*/events.*")]
        ['a1']
    """
    if tracking is None:
        return None
    if tracking == "mlflow":
        try:
            mlflow = import_module("mlflow")
        except ImportError:
            raise MissingExtraError("tracking='mlflow'", extra="mlflow") from None
        return lambda *trial: _to_mlflow(mlflow, *trial)
    if not isinstance(tracking, (str, Path)):
        raise ConfigError(f"tracking must be a folder for TensorBoard, or 'mlflow'. Received: {tracking!r}.")
    folder = Path(tracking)
    return lambda *trial: _to_tensorboard(folder, *trial)


def _to_mlflow(
    mlflow: Any, name: str, values: Mapping[str, Any], logs: Mapping[str, Sequence[float]], score: float
) -> None:
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params(dict(values))
        for step, metric, value in _scalars(logs, score):
            mlflow.log_metric(metric, value, step=step)


def _to_tensorboard(
    folder: Path, name: str, values: Mapping[str, Any], logs: Mapping[str, Sequence[float]], score: float
) -> None:
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hparams

    writer = tf.summary.create_file_writer(str(folder / name))
    with writer.as_default():
        hparams.hparams(dict(values), trial_id=name)
        for step, metric, value in _scalars(logs, score):
            tf.summary.scalar(metric, value, step=step)
    writer.close()


def _scalars(logs: Mapping[str, Sequence[float]], score: float) -> list[tuple[int, str, float]]:
    epochs = max(map(len, logs.values()), default=0)
    scalars = [(step, name, float(value)) for name, series in logs.items() for step, value in enumerate(series)]
    return [*scalars, (epochs, "score", score), (epochs, "epochs", float(epochs))]
