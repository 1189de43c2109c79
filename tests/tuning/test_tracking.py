"""Trials recorded in a tracking tool."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tfopt.errors import ConfigError, MissingExtraError
from tfopt.tuning import tune
from tfopt.tuning.tracking import track_with

X = np.random.default_rng(0).normal(size=(32, 2)).astype("float32")


def build(hp: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.01, 0.1])), "mse")
    return model


def found(tracking: str | Path, folder: Path, trials: int = 2) -> Any:
    data = X, X.sum(axis=1)
    return tune(build, data, data, search="random", trials=trials, epochs=2, tracking=tracking, folder=folder)


@pytest.mark.slow
def test_tensorboard_has_each_trial_once(tmp_path: Path) -> None:
    found(tmp_path / "board", tmp_path / "search", trials=1)
    result = found(tmp_path / "board", tmp_path / "search")
    recorded = {}
    for folder in (tmp_path / "board").iterdir():
        events = EventAccumulator(str(folder))
        events.Reload()
        (score,) = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("score")]
        assert len(events.Tensors("val_loss")) == 2
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        data = plugin_data_pb2.HParamsPluginData.FromString(content)
        recorded[data.session_start_info.hparams["rate"].number_value] = score
    assert recorded == pytest.approx({row.values["rate"]: row.score for row in result.rows})


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of what it uses
def test_mlflow_has_a_run_for_each_trial(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("search")
    with mlflow.start_run() as parent:
        result = found("mlflow", tmp_path / "search")
    runs = [run for run in mlflow.search_runs(output_format="list") if run.info.run_id != parent.info.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    recorded = {float(run.data.params["rate"]): run.data.metrics["score"] for run in runs}
    assert recorded == pytest.approx({row.values["rate"]: row.score for row in result.rows})


def test_other_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert track_with(None) is None
    with pytest.raises(ConfigError, match=r"a folder for TensorBoard, or 'mlflow'\. Received: 3"):
        track_with(3)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"tracking='mlflow' needs the extra 'mlflow'"):
        track_with("mlflow")
