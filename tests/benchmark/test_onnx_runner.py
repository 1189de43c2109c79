"""ONNX Runtime as a runner: what it computes, tells, and refuses."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tfopt
from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark.onnx import OnnxRunner
from tfopt.errors import BenchmarkError, DataError, MissingExtraError

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(16, 4)).astype(np.float32)


def saved(path, nodes, inputs, outputs, constants=(), domains=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    opsets = [helper.make_opsetid("", 15), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def classifier(path, batch="batch"):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], name="dense"),
        helper.make_node("Softmax", ["scores"], ["y"], name="classes", axis=-1),
    ]
    ends = [("x", TensorProto.FLOAT, [batch, 16])], [("y", TensorProto.FLOAT, [batch, 4])]
    return saved(path, nodes, *ends, [("w", WEIGHTS)])


def lookup(path):
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["y"])]
    ends = [("tokens", TensorProto.INT32, ["batch", 2])], [("y", TensorProto.FLOAT, ["batch", 2])]
    return saved(path, nodes, *ends, [("table", np.float32([1, 2, 3]))])


@pytest.fixture
def runner(tmp_path):
    return OnnxRunner(classifier(tmp_path / "classifier.onnx"), (1, 2))


def probabilities(x):
    scores = np.exp(x @ WEIGHTS)
    return scores / scores.sum(-1, keepdims=True)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_predictions_are_those_of_numpy_with_an_open_and_a_fixed_batch(tmp_path, batch):
    x, done = RNG.normal(size=(300, 16)), []
    runner = OnnxRunner(classifier(tmp_path / "classifier.onnx", batch), (1,))
    (outputs,) = runner.predict([x], done.append)
    np.testing.assert_allclose(outputs, probabilities(x), rtol=1e-4)
    assert sum(done) == 300
    assert len(done) == (2 if batch == "batch" else 300)
    assert runner.inputs[0].shape == (None if batch == "batch" else 1, 16)


def test_every_thread_count_is_timed_on_the_sample_in_place(runner):
    calls = runner.timed_calls([RNG.normal(size=(1, 16))])
    assert list(calls) == [1, 2]
    for call in calls.values():
        call()
    assert runner.note.startswith("ONNX Runtime 1.")


def test_memory_and_contents_are_told_and_the_arena_is_not(runner):
    assert 10_000 < runner.peak_memory_bytes < 50_000_000
    assert runner.arena_bytes is None
    dense, classes = runner.parts("onnx")
    assert (dense.kind, dense.weights, dense.flops) == ("MatMul", 64, 2 * 16 * 4)
    assert (classes.kind, classes.weights) == ("Softmax", 0)


@pytest.mark.parametrize("sample", [None, [np.ones((1, 16))]])
def test_the_profiler_tells_the_time_of_each_node(runner, sample):
    times = runner.operator_times(1, sample)
    assert [(one.name, one.kind) for one in times] == [("dense", "MatMul"), ("classes", "Softmax")]
    assert all(0 <= one.time_ms < 5 for one in times)


def test_a_heavy_node_takes_longer_than_a_light_one(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "heavy"], ["h"], name="heavy"),
        helper.make_node("Relu", ["h"], ["y"], name="light"),
    ]
    ends = [("x", TensorProto.FLOAT, [1, 512])], [("y", TensorProto.FLOAT, [1, 1024])]
    path = saved(tmp_path / "two.onnx", nodes, *ends, [("heavy", RNG.normal(size=(512, 1024)).astype(np.float32))])
    heavy, light = OnnxRunner(path, (1,)).operator_times(1)
    assert heavy.time_ms > 3 * light.time_ms


@pytest.mark.parametrize("order", [("z", "a"), ("a", "z")])
def test_several_inputs_follow_the_order_of_the_record(tmp_path, order):
    ends = [(name, TensorProto.FLOAT, ["batch", 2]) for name in "az"], [("y", TensorProto.FLOAT, ["batch", 2])]
    path = saved(tmp_path / "minus.onnx", [helper.make_node("Sub", ["z", "a"], ["y"])], *ends)
    specs = tuple(TensorSpec(name=name, shape=(None, 2), dtype="float32") for name in order)
    record = Artifact.of(path, kind="onnx", inputs=specs, outputs=())
    values = {"z": np.array([[5.0, 5.0]]), "a": np.array([[2.0, 1.0]])}
    (difference,) = OnnxRunner(path, (1,), record=record).predict([values[name] for name in order], [].append)
    np.testing.assert_array_equal(difference, [[3.0, 4.0]])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_damaged_file_is_refused_clearly(tmp_path, damage):
    path = classifier(tmp_path / "damaged.onnx")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not a model", "truncated": whole[: len(whole) // 2]}[damage])
    with pytest.raises(
        BenchmarkError, match=r"Cannot run .*damaged\.onnx: expected an ONNX model that ONNX Runtime can"
    ):
        OnnxRunner(path, (1,))


def test_custom_operators_are_named(tmp_path):
    ends = [("x", TensorProto.FLOAT, ["batch", 2])], [("y", TensorProto.FLOAT, ["batch", 2])]
    nodes = [helper.make_node("Sparkle", ["x"], ["y"], domain="my.company")]
    path = saved(tmp_path / "custom.onnx", nodes, *ends, domains=["my.company"])
    with pytest.raises(BenchmarkError, match=r"Received the custom operators: my\.company:Sparkle\."):
        OnnxRunner(path, (1,))


@pytest.mark.parametrize(("shape", "kind"), [([4, 2], TensorProto.FLOAT), (["batch", 2], TensorProto.STRING)])
def test_other_inputs_than_numbers_one_at_a_time_are_refused(tmp_path, shape, kind):
    ends = [("x", kind, shape)], [("y", kind, shape)]
    path = saved(tmp_path / "input.onnx", [helper.make_node("Identity", ["x"], ["y"])], *ends)
    with pytest.raises(BenchmarkError, match=r"input\.onnx"):
        OnnxRunner(path, (1,))


def test_values_that_its_operators_refuse_are_told_with_the_sample(tmp_path):
    runner = OnnxRunner(lookup(tmp_path / "lookup.onnx"), (1,))
    (found,) = runner.predict([np.array([[0, 2]])], [].append)
    np.testing.assert_array_equal(found, [[1, 3]])
    with pytest.raises(BenchmarkError, match=r"cannot be run on the data from sample 0 on: .*ONNX Runtime: .*indices"):
        runner.predict([np.array([[0, 2], [1, 77]])], [].append)
    with pytest.raises(BenchmarkError, match="from sample 0 on"):
        runner.timed_calls([np.array([[1, 77]])])
    with pytest.raises(DataError, match="'tokens' must be whole numbers in the range of int32"):
        runner.predict([np.array([[0.5, 1.0]])], [].append)


def test_without_onnx_runtime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[OnnxRunner.__module__], "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs the extra 'onnx'"):
        OnnxRunner(classifier(tmp_path / "classifier.onnx"), (1,))


@pytest.mark.slow
def test_an_onnx_file_is_measured_beside_a_tflite(files, tmp_path):
    report = tfopt.benchmark(
        [files.float32, classifier(tmp_path / "same.onnx")], (files.x, files.y), repeats=10, seconds=0.0
    )
    tflite, same = report.entries
    assert (tflite.kind, same.kind) == ("tflite", "onnx")
    assert [latency.threads for latency in same.latencies] == [1, 2]
    assert same.score is not None
    assert same.size_bytes == (tmp_path / "same.onnx").stat().st_size
    assert same.contents.target == "onnx"
    assert same.contents.total.weights == 64
    assert type(report).load(report.save(tmp_path / "report").parent) == report


@pytest.mark.slow
def test_the_runner_needs_no_tensorflow(tmp_path):
    path = classifier(tmp_path / "classifier.onnx")
    code = (
        "import sys, pathlib; from tfopt.benchmark.onnx import OnnxRunner; "
        f"OnnxRunner(pathlib.Path({str(path)!r}), (1,)); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
