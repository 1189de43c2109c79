"""Files that are damaged or hold what the runtime lacks, and data that does not fit: what is said of them."""

import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfopt
from tfopt.benchmark import fresh_process, peak_memory
from tfopt.benchmark.fresh_process import peak_memory_in_fresh_process
from tfopt.benchmark.saved_model import SavedModelRunner
from tfopt.benchmark.tflite import TfliteRunner
from tfopt.errors import BenchmarkError, DataError
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

FAST = {"threads": (1,), "repeats": 1, "seconds": 0.0}


def with_custom_operator(content, name):
    """The file with its last operator replaced."""
    model = unpack_tflite(content)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = name.encode(), 1
    model.operatorCodes = [*model.operatorCodes, code]
    last = model.subgraphs[0].operators[-1]
    last.opcodeIndex, last.builtinOptions, last.builtinOptionsType = len(model.operatorCodes) - 1, None, 0
    return pack_tflite(model)


@pytest.fixture(scope="module")
def lookup(tmp_path_factory):
    """A SavedModel and a .tflite that look numbers up in a table of three."""
    import tensorflow as tf

    class Table(tf.Module):
        def __init__(self):
            super().__init__()
            self.table = tf.Variable([[1.0], [2.0], [3.0]])

        @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.int32, name="tokens")])
        def look_up(self, tokens):
            return {"y": tf.gather(self.table, tokens)}

    folder, table = tmp_path_factory.mktemp("lookup"), Table()
    tf.saved_model.save(table, str(folder / "saved"), signatures={"serving_default": table.look_up})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    (folder / "lookup.tflite").write_bytes(converter.convert())
    return folder


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_tflite_is_refused_wherever_it_ends(files, tmp_path, share):
    whole = files.float32.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BenchmarkError, match=r"Cannot run .*truncated\.tflite.* Check that the file is whole"):
        TfliteRunner(path, (1,))


@pytest.mark.parametrize("name", ["Sparkle", "FlexErf"])
@pytest.mark.parametrize("xnnpack", [True, False])
def test_custom_operators_are_named(files, tmp_path, name, xnnpack):
    path = tmp_path / "custom.tflite"
    path.write_bytes(with_custom_operator(files.float32.read_bytes(), name))
    with pytest.raises(BenchmarkError, match=rf"operators that TensorFlow Lite has\. Received the custom .*: {name}\."):
        TfliteRunner(path, (1,), xnnpack=xnnpack)


def test_a_file_of_vela_is_refused_by_its_operator(files, tmp_path):
    path = tmp_path / "vela.tflite"
    path.write_bytes(with_custom_operator(files.int8.read_bytes(), "ethos-u"))
    with pytest.raises(BenchmarkError, match="custom operators: ethos-u"):
        tfopt.benchmark(path, **FAST)


def test_a_runtime_that_hangs_is_given_up(files, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(fresh_process.subprocess, "run", hang)
    with pytest.raises(BenchmarkError, match="no answer within 3 seconds"):
        peak_memory_in_fresh_process(files.float32, BenchmarkError, timeout_seconds=3)


def test_a_runtime_that_crashes_harms_nobody(files, tmp_path, monkeypatch):
    script = tmp_path / "crash.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(peak_memory, "__file__", str(script))
    with pytest.raises(BenchmarkError, match=r"the runtime crashed \(SIGSEGV\)"):
        TfliteRunner(files.float32, (1,))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 3)), r"input 'features' must have shape \(n, 16\)\. Received: \(4, 3\)"),
        (np.zeros((0, 16)), "is empty: give at least one sample"),
        (np.zeros(16), r"must have shape \(n, 16\)"),
        (np.full((4, 16), np.nan), "must be finite. Received: 64 NaN"),
        (np.full((4, 16), "a"), "must be numbers. Received dtype: <U1"),
        ([[1.0, 2.0], [3.0]], "must be an array of samples of one shape"),
        ({"pixels": np.zeros((4, 16))}, r"lacks the inputs \['features'\]\. Received: \['pixels'\]"),
        ([np.zeros((4, 16)), np.zeros((4, 16))], r"must have shape \(n, 16\)\. Received: \(2, 4, 16\)"),
    ],
)
@pytest.mark.parametrize("kind", ["int8", "saved_model"])
def test_data_that_does_not_fit_is_refused_by_what_is_wrong_with_it(files, kind, x, message):
    with pytest.raises(DataError, match=message):
        tfopt.benchmark(getattr(files, kind), (x, None), **FAST)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2)), r"must hold one array for each of the model's 2 inputs \(.*\)\. Received: 1"),
        ([np.zeros((4, 2))] * 3, "Received: 3"),
        ([np.zeros((4, 2)), np.zeros((5, 2))], r"as many samples for every input\. Received: \[4, 5\]"),
        ({"z": np.zeros((4, 2))}, r"lacks the inputs \['a'\]"),
    ],
)
def test_the_number_of_inputs_is_checked(files, x, message):
    with pytest.raises(DataError, match=message):
        tfopt.benchmark(files.two_inputs, (x, None), **FAST)


@pytest.mark.parametrize("opened", [SavedModelRunner, lambda path: TfliteRunner(path, (1,))])
def test_whole_numbers_are_asked_for_and_those_out_of_range_are_told(lookup, opened):
    runner = opened(lookup / ("saved" if opened is SavedModelRunner else "lookup.tflite"))
    (found,) = runner.predict([np.array([[0, 2]])], [].append)
    np.testing.assert_array_equal(found, [[[1], [3]]])
    for wrong in (np.array([[0.5, 1.0]]), np.array([[0, 2**40]])):
        with pytest.raises(
            DataError, match=r"'tokens' must be whole numbers in the range of int32\. Received: values from"
        ):
            runner.predict([wrong], [].append)
    if opened is not SavedModelRunner:  # TensorFlow gives zeros for what is not in the table, on some devices
        with pytest.raises(BenchmarkError, match=r"on the data from sample 1 on: .*ai-edge-litert: .*Check the range"):
            runner.predict([np.array([[0, 2], [1, 77]])], [].append)
        with pytest.raises(BenchmarkError, match="from sample 0 on"):
            runner.timed_calls([np.array([[1, 77]])])


def test_a_saved_model_that_refuses_values_says_which(tmp_path):
    import tensorflow as tf

    class Strict(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 1), tf.float32, name="x")])
        def check(self, x):
            with tf.control_dependencies([tf.debugging.assert_less(x, 2.0, message="x is too large")]):
                return {"y": tf.identity(x)}

    strict = Strict()
    tf.saved_model.save(strict, str(tmp_path / "strict"), signatures={"serving_default": strict.check})
    runner = SavedModelRunner(tmp_path / "strict")
    with pytest.raises(BenchmarkError, match=r"on the data from sample 256 on: .*TensorFlow: .*x is too large"):
        runner.predict([np.arange(600).reshape(-1, 1) / 200], [].append)
    with pytest.raises(BenchmarkError, match="from sample 0 on"):
        runner.timed_calls([np.array([[3.0]])])


def test_a_saved_model_of_texts_is_refused(tmp_path):
    import tensorflow as tf

    class Texts(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
        def length(self, text):
            return {"y": tf.strings.length(text)}

    texts = Texts()
    tf.saved_model.save(texts, str(tmp_path / "texts"), signatures={"serving_default": texts.length})
    with pytest.raises(BenchmarkError, match=r"expected inputs of numbers\. Received: input 'text' of string"):
        SavedModelRunner(tmp_path / "texts")


def test_the_script_of_the_fresh_process_answers_for_both_kernels(files):
    for options in ([], [peak_memory.NO_XNNPACK]):
        command = [sys.executable, "-P", peak_memory.__file__, str(files.float32), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert '"peak_memory_bytes": ' in done.stdout.splitlines()[-1]
