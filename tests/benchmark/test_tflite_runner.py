import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark import peak_memory
from tfopt.benchmark.tflite import TfliteRunner
from tfopt.errors import BenchmarkError
from tfopt.export.tflite import export_tflite


def nothing(count):
    pass


def test_float_predictions_are_those_of_keras(files):
    runner = TfliteRunner(files.float32, (1,))
    (outputs,) = runner.predict([files.x], nothing)
    np.testing.assert_allclose(outputs, files.probabilities, atol=1e-5)


def test_float_samples_are_quantized_for_int8_and_outputs_dequantized(files):
    runner = TfliteRunner(files.int8, (1, 2))
    (spec,) = runner.inputs
    assert (spec.name, spec.shape, spec.dtype) == ("features", (1, 16), "int8")
    assert spec.scale == pytest.approx(2 / 255, rel=0.02)
    (outputs,) = runner.predict([files.x], nothing)
    assert outputs.dtype == np.float32
    assert np.mean(outputs.argmax(-1) == files.y) >= 0.95
    np.testing.assert_allclose(outputs, files.probabilities, atol=0.06)


def test_values_out_of_range_saturate(files):
    runner = TfliteRunner(files.int8, (1,))
    (inside,) = runner.predict([np.ones((1, 16))], nothing)
    (outside,) = runner.predict([np.full((1, 16), 1e6)], nothing)
    np.testing.assert_array_equal(inside, outside)


def test_two_thread_counts_are_timed_on_the_sample(files):
    calls = TfliteRunner(files.float32, (1, 2)).timed_calls([files.x[:1]])
    assert list(calls) == [1, 2]
    for call in calls.values():
        call()


def test_tflites_own_kernels_compute_the_same_without_xnnpack(files):
    with_it, without = (TfliteRunner(files.float32, (1, 2), xnnpack=xnnpack) for xnnpack in (True, False))
    assert (with_it.note, without.note) == ("ai-edge-litert, XNNPACK", "ai-edge-litert, without XNNPACK")
    outputs = [runner.predict([files.x], nothing)[0] for runner in (with_it, without)]
    np.testing.assert_allclose(*outputs, atol=1e-6)
    assert list(without.timed_calls([files.x[:1]])) == [1, 2]
    assert without.peak_memory_bytes > 10_000
    assert [len(runner.operator_times(1)) for runner in (with_it, without)] == [2, 2]


def test_the_operators_are_timed_on_the_sample_in_the_order_of_the_file(files):
    runner = TfliteRunner(files.two_inputs, (1,))
    (minus,) = runner.operator_times(2, [np.ones((1, 2)), np.zeros((1, 2))])
    assert minus.kind == "SUB"
    assert 0 <= minus.time_ms < 1
    assert runner.arena_bytes >= 3 * 2 * 4


@pytest.mark.parametrize("order", [("z", "a"), ("a", "z")])
def test_several_inputs_follow_the_order_of_the_record(files, order):
    specs = tuple(TensorSpec(name=name, shape=(1, 2), dtype="float32") for name in order)
    record = Artifact.of(files.two_inputs, kind="tflite", inputs=specs, outputs=())
    values = {"z": np.array([[5.0, 5.0]]), "a": np.array([[2.0, 1.0]])}
    runner = TfliteRunner(files.two_inputs, (1,), record=record)
    (difference,) = runner.predict([values[name] for name in order], nothing)
    np.testing.assert_array_equal(difference, [[3.0, 4.0]])


def test_peak_memory_is_seen_although_this_process_is_far_larger(files):
    # A child inherits ru_maxrss: with it the growth would be 0 here, where TensorFlow is loaded.
    runner = TfliteRunner(files.float32, (1,))
    assert runner.peak_memory_bytes is not None
    assert 10_000 < runner.peak_memory_bytes < 50_000_000


def test_peak_memory_of_an_embedding_is_measured_on_tokens_that_it_has(
    conversion_in_this_process, tmp_path, monkeypatch
):
    class UnclearedMemory(Interpreter):
        def allocate_tensors(self):
            super().allocate_tensors()
            for given in self.get_input_details():
                self.set_tensor(given["index"], np.full(given["shape"], 7, given["dtype"]))

    tokens = keras.Input((4,), dtype="int32")
    model = keras.Model(tokens, keras.layers.Flatten()(keras.layers.Embedding(3, 2)(tokens)))
    artifact = export_tflite(model, tmp_path / "tokens.tflite", "none")
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", UnclearedMemory)
    assert peak_memory.main(str(artifact.path)).keys() == {"peak_memory_bytes"}


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "garbled"])
def test_a_damaged_file_is_refused_clearly(files, tmp_path, damage):
    whole = files.int8.read_bytes()
    content = {
        "empty": b"",
        "text": b"not a model",
        "truncated": whole[: len(whole) // 2],
        "garbled": whole[:8] + bytes(255 - byte for byte in whole[8:]),
    }[damage]
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=r"Cannot run .*damaged\.tflite: expected a TensorFlow Lite"):
        TfliteRunner(path, (1,))


def test_the_runner_needs_no_tensorflow():
    code = "import sys, tfopt.benchmark.tflite; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
