"""Files that skip what a sample does not need, and answer as Keras does."""

import json
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from exit_networks import classifier, samples, trained

import tfopt
from tfopt.artifact import Artifact
from tfopt.early_exit import (
    EarlyExitRunner,
    ExitPolicy,
    choose_thresholds,
    export_early_exit_saved_model,
    export_early_exit_tflite,
)
from tfopt.early_exit.merging import merge_tflite
from tfopt.early_exit.staged_file import StagedFile
from tfopt.errors import BenchmarkError, ConfigError, DataError, ExportError, ModelError
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite

layers = keras.layers
pytestmark = [pytest.mark.usefixtures("conversion_in_this_process"), pytest.mark.slow]

X, Y = samples(96, seed=2)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return trained()


@pytest.fixture(scope="module")
def policy(network: keras.Model) -> ExitPolicy:
    return choose_thresholds(network, X, Y, target="flops: 60%")


@pytest.fixture(scope="module")
def files(network, policy, conversion_in_this_process, tmp_path_factory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("staged")
    return {
        kind: export_early_exit_tflite(network, folder / f"{kind}.tflite", policy, kind, calibration=X)
        for kind in ("none", "int8")
    }


class CalledStages:
    """Counts how often each stage of a runner runs."""

    def __init__(self, runner: EarlyExitRunner) -> None:
        self.counts = [0] * len(runner._stages)
        for index, stage in enumerate(runner._stages):
            stage.run = self._counted(index, stage.run)

    def _counted(self, index, run):
        def counted(tensors):
            self.counts[index] += 1
            return run(tensors)

        return counted


def test_the_float_file_answers_and_leaves_as_keras(network, policy, files) -> None:
    answers, exits = EarlyExitRunner(files["none"].path).predict(X)
    expected, expected_exits = policy.decide(network.predict(X, verbose=0))
    assert len(set(expected_exits)) > 1
    np.testing.assert_array_equal(exits, expected_exits)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert files["none"].verification["same_exit"] == 1.0


def test_every_operator_of_the_stages_has_its_layers(network, files) -> None:
    for artifact in files.values():
        operators = read_tflite(artifact.path).operators
        assert {names for one, names in zip(operators, artifact.layers, strict=True) if one.name == "CONV_2D"}
        assert {layer for names in artifact.layers for layer in names} <= {layer.name for layer in network.layers}
        assert all(artifact.layers)


def test_the_int8_file_computes_on_integers_and_agrees(network, policy, files) -> None:
    file = read_tflite(files["int8"].path)
    assert file.is_full_integer
    answers, exits = EarlyExitRunner(files["int8"].path).predict(X)
    expected, expected_exits = policy.decide(network.predict(X, verbose=0))
    assert np.mean(exits == expected_exits) > 0.85
    assert np.mean(answers.argmax(1) == expected.argmax(1)) > 0.9


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_stages_beyond_an_exit_do_not_run(files, kind) -> None:
    runner = EarlyExitRunner(files[kind].path)
    called = CalledStages(runner)
    _, exits = runner.predict(X)
    assert called.counts == [int(np.sum(exits >= index)) for index in range(3)]
    assert called.counts[2] < len(X)


def test_another_policy_takes_the_place_of_the_recorded_one(network, policy, files) -> None:
    never = ExitPolicy(policy.exits, (float("inf"), float("inf")))
    answers, exits = EarlyExitRunner(files["none"].path, policy=never).predict(X)
    assert set(exits) == {2}
    np.testing.assert_allclose(answers, network.predict(X, verbose=0)[-1], atol=1e-5)
    with pytest.raises(ConfigError, match="Expected a policy for the exits"):
        EarlyExitRunner(files["none"].path, policy=ExitPolicy(("a", "b"), (0.5,)))


def test_no_weight_is_in_the_file_twice(network, files, tmp_path) -> None:
    whole = tfopt.export_tflite(network, tmp_path / "whole.tflite", "none", calibration=X)

    def constants(path: Path) -> int:
        tensors = {id(tensor): tensor for one in read_tflite(path).operators for tensor in one.inputs}
        return sum(len(tensor.constant or b"") for tensor in tensors.values() if tensor.is_float)

    assert constants(files["none"].path) == constants(whole.path)


def test_the_record_tells_what_a_device_needs(policy, files) -> None:
    path = files["int8"].path
    assert Artifact.load(path) == files["int8"]
    record = json.loads(path.with_suffix(".exits.json").read_text())
    assert record["policy"]["thresholds"] == [None if np.isinf(value) else value for value in policy.thresholds]
    assert [stage["reads"] for stage in record["stages"]] == [["image"], ["early"], ["middle", "early"]]
    assert [stage["signature"] for stage in record["stages"]] == ["stage_1", "stage_2", "stage_3"]
    assert StagedFile.load(path).policy == policy
    assert files["int8"].inputs[0].shape == (1, 8, 8, 1)


def test_stages_are_timed(files) -> None:
    latencies = EarlyExitRunner(files["none"].path).stage_latency_ms(X, repeats=10, seconds=0.0)
    assert len(latencies) == 3
    assert all(latency > 0 for latency in latencies)


def test_mixed_precision_is_exported_in_float32(tmp_path) -> None:
    inputs = keras.Input((4,), name="x")
    hidden = layers.Dense(8, dtype="mixed_float16", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="classes")(hidden))
    network = tfopt.early_exit(model, ["hidden"])
    policy = ExitPolicy(("exit_1", "classes"), (0.5,))
    export_early_exit_tflite(network, tmp_path / "model.tflite", policy, "none")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    answers, exits = EarlyExitRunner(tmp_path / "model.tflite").predict(x)
    outputs = network.predict(x, verbose=0)
    np.testing.assert_allclose(answers, np.stack(outputs)[exits, np.arange(16)], atol=1e-2)
    assert read_tflite(tmp_path / "model.tflite").operator_counts.keys() <= {"FULLY_CONNECTED", "SOFTMAX"}
    export_early_exit_saved_model(network, tmp_path / "model", policy, data=x)


def test_a_refused_stage_leaves_nothing_behind(network, policy, tmp_path, monkeypatch) -> None:
    def fail(*_args, **_options):
        raise ExportError("refused")

    monkeypatch.setattr(import_module("tfopt.early_exit.export_tflite"), "merge_tflite", fail)
    with pytest.raises(ExportError, match="refused"):
        export_early_exit_tflite(network, tmp_path / "new" / "model.tflite", policy, "none")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_refused(network, policy, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"ending in \.tflite"):
        export_early_exit_tflite(network, tmp_path / "model.bin", policy)
    with pytest.raises(ConfigError, match="Expected a policy for the exits"):
        export_early_exit_tflite(network, tmp_path / "model.tflite", ExitPolicy(("a", "b"), (0.5,)))
    with pytest.raises(ConfigError, match="needs calibration"):
        export_early_exit_tflite(network, tmp_path / "model.tflite", policy, "int8")
    with pytest.raises(ModelError, match="several exits"):
        export_early_exit_tflite(classifier(), tmp_path / "model.tflite", policy)
    aware = tfopt.quantize_aware(network, calibration=X)
    with pytest.raises(ModelError, match="quantize-aware"):
        export_early_exit_tflite(aware, tmp_path / "model.tflite", policy)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_its_record_is_refused(files, tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(files["none"].path.read_bytes())
    with pytest.raises(DataError, match=r"model\.exits\.json"):
        EarlyExitRunner(path)
    path.with_suffix(".exits.json").write_text(files["none"].path.with_suffix(".exits.json").read_text())
    path.write_bytes(b"no model")
    with pytest.raises(BenchmarkError, match="Cannot run the stages"):
        EarlyExitRunner(path)


def test_merged_files_compute_what_each_does(tmp_path) -> None:
    models = {
        name: keras.Sequential([keras.Input((4,), name="x"), layers.Dense(units, name="y")])
        for name, units in (("one", 2), ("two", 3))
    }
    paths = {name: tmp_path / f"{name}.tflite" for name in models}
    for name, model in models.items():
        tfopt.export_tflite(model, paths[name], "none")
    (tmp_path / "both.tflite").write_bytes(merge_tflite(paths))
    x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    both = Interpreter(str(tmp_path / "both.tflite"))
    assert set(both.get_signature_list()) == {"one", "two"}
    for name, path in paths.items():
        received = both.get_signature_runner(name)(x=x)["y"]
        np.testing.assert_array_equal(received, run_tflite(path, {"x": x})["y"])
    content = (tmp_path / "both.tflite").read_bytes()
    for model in models.values():  # constants start at multiples of 16 bytes, as a delegate may read them in place
        assert content.find(model.layers[0].kernel.numpy().T.tobytes()) % 16 == 0
    with pytest.raises(ExportError, match="one signature"):
        merge_tflite({"again": tmp_path / "both.tflite"})


@pytest.mark.parametrize("kind", ["probability", "entropy"])
def test_the_saved_model_answers_and_leaves_as_keras(network, tmp_path, kind) -> None:
    policy = choose_thresholds(network, X, Y, target="flops: 60%", confidence=kind)
    artifact = export_early_exit_saved_model(network, tmp_path / "model", policy, data=X)
    assert Artifact.load(tmp_path / "model") == artifact
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    expected, exits = policy.decide(network.predict(X, verbose=0))
    for size in (1, 96):
        for start in range(0, 96, size):
            received = signature(image=tf.constant(X[start : start + size]))
            np.testing.assert_array_equal(received["exit"], exits[start : start + size])
            np.testing.assert_allclose(received["answer"], expected[start : start + size], atol=1e-5)


def test_the_saved_model_of_logits(tmp_path) -> None:
    network = trained(softmax=False)
    policy = choose_thresholds(network, X, Y, target="flops: 60%")
    artifact = export_early_exit_saved_model(network, tmp_path / "model", policy)
    assert artifact.verification["same_exit"] >= 0.9


class RefusesNegative(layers.Layer):
    """Fails when it runs on a negative number: so it is seen whether it runs."""

    def call(self, inputs):
        with tf.control_dependencies([tf.debugging.assert_non_negative(inputs)]):
            return tf.identity(inputs)


def test_the_saved_model_does_not_run_what_no_sample_needs(tmp_path) -> None:
    inputs = keras.Input((1,), name="x")
    sure = layers.Dense(1, activation="sigmoid", name="exit_1")
    late = layers.Dense(1, activation="sigmoid", name="classes")(RefusesNegative()(layers.Identity()(inputs)))
    network = keras.Model(inputs, [sure(inputs), late])
    sure.set_weights([np.array([[-10.0]]), np.array([0.0])])  # sure of all that is far from zero
    policy = ExitPolicy(("exit_1", "classes"), (0.9,))
    data = np.array([[0.01], [0.5], [2.0]], np.float32)
    export_early_exit_saved_model(network, tmp_path / "model", policy, data=data)
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    # Negative samples are sure early; were the rest run on them, it would fail.
    assert signature(x=tf.constant([[-3.0], [-4.0]]))["exit"].numpy().tolist() == [0, 0]
    assert signature(x=tf.constant([[-3.0], [0.01]]))["exit"].numpy().tolist() == [0, 1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(x=tf.constant([[-3.0], [-0.01]]))


def test_a_saved_model_that_cannot_be_is_refused(network, policy, tmp_path) -> None:
    with pytest.raises(ConfigError, match="which exists"):
        export_early_exit_saved_model(network, tmp_path, policy)
    with pytest.raises(ConfigError, match="Expected a policy for the exits"):
        export_early_exit_saved_model(network, tmp_path / "model", ExitPolicy(("a", "b"), (0.5,)))
    with pytest.raises(DataError, match="must have shape"):
        export_early_exit_saved_model(network, tmp_path / "model", policy, data=X[:, :4])
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_that_disagrees_is_not_written(network, policy, tmp_path, monkeypatch) -> None:
    module = import_module("tfopt.early_exit.export_saved_model")
    monkeypatch.setattr(module, "_confidence", lambda answer, policy: tf.zeros(tf.shape(answer)[:1]))
    with pytest.raises(ExportError, match="disagrees with Keras"):
        export_early_exit_saved_model(network, tmp_path / "model", policy, data=X)
    assert list(tmp_path.iterdir()) == []
