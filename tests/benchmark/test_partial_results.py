"""Where one file fails, the others are measured all the same, and the report says what happened."""

import numpy as np
import pytest

import tfopt
from tfopt.benchmark.report import OperatorTime, Report
from tfopt.benchmark.tflite import TfliteRunner
from tfopt.errors import BenchmarkError, DataError

FAST = {"repeats": 10, "seconds": 0.0, "threads": (1,)}


def truncated(files, tmp_path, share=0.5):
    content = files.float32.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(content[: int(share * len(content))])
    return path


def entries(report):
    return {entry.name: entry for entry in report.entries}


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_file_is_a_row_that_says_so(files, tmp_path, share):
    bad = truncated(files, tmp_path, share)
    report = tfopt.benchmark([files.float32, bad, files.int8], (files.x, files.y), **FAST)
    found = entries(report)
    assert found["truncated"].error.startswith(f"Cannot run {bad}: expected a TensorFlow Lite model")
    assert found["truncated"].size_bytes == bad.stat().st_size
    assert found["truncated"].latencies == ()
    assert found["truncated"].score is None
    assert report.comparisons["truncated"].size_ratio is None
    assert [found[name].score is not None and bool(found[name].latencies) for name in ("float32", "int8")] == [True] * 2
    assert report.comparisons["int8"].speedup > 0
    assert "truncated" not in report.pareto_front
    assert f"truncated could not be measured: Cannot run {bad}" in " ".join(str(report).split())
    assert "could not be measured" in report.to_markdown()
    assert "truncated</strong> could not be measured." in report.save(tmp_path / "out").read_text()
    assert Report.load(tmp_path / "out") == report


def test_a_baseline_that_fails_leaves_the_others(files, tmp_path):
    report = tfopt.benchmark([truncated(files, tmp_path), files.int8], (files.x, files.y), **FAST)
    assert report.baseline.error
    assert entries(report)["int8"].score > 0.9
    assert report.comparisons["int8"].speedup is None
    page = report.save(tmp_path / "out").read_text()
    assert "truncated could not be measured." in page
    assert "not measured" in str(report)


def test_data_that_fits_one_file_only(files):
    report = tfopt.benchmark([files.float32, files.two_inputs], (files.x, files.y), **FAST)
    assert "benchmark data must hold one array for each of the model's 2 inputs" in entries(report)["two_inputs"].error
    assert entries(report)["float32"].score == 1.0


def test_a_file_whose_prediction_fails(files, monkeypatch):
    original = TfliteRunner.predict

    def predict(self, samples, advance):
        if self.path == files.int8:
            raise BenchmarkError("the runtime gave up.")
        return original(self, samples, advance)

    monkeypatch.setattr(TfliteRunner, "predict", predict)
    report = tfopt.benchmark([files.float32, files.int8], (files.x, files.probabilities), **FAST)
    assert entries(report)["int8"].error == "the runtime gave up."
    assert entries(report)["float32"].error_against_targets is not None


def test_a_file_that_dies_while_it_is_timed(files, monkeypatch):
    original = TfliteRunner.timed_calls

    def timed_calls(self, sample):
        calls = original(self, sample)
        if self.path == files.int8:
            left = iter(range(30))
            calls[2] = lambda: next(left)
        return calls

    monkeypatch.setattr(TfliteRunner, "timed_calls", timed_calls)
    report = tfopt.benchmark([files.float32, files.int8], (files.x, files.y), **{**FAST, "threads": (1, 2)})
    int8 = entries(report)["int8"]
    assert int8.error == f"{files.int8} failed while it was timed: StopIteration"
    assert int8.latencies == ()
    assert int8.score > 0.9  # measured before
    assert [latency.repeats for latency in entries(report)["float32"].latencies] == [10, 10]


def test_if_nothing_can_be_measured_the_first_error_is_raised(files, tmp_path, monkeypatch):
    with pytest.raises(BenchmarkError, match=r"Cannot run .*truncated\.tflite"):
        tfopt.benchmark([truncated(files, tmp_path)], **FAST)
    with pytest.raises(DataError, match="must have shape"):
        tfopt.benchmark([files.float32, files.int8], (np.zeros((4, 3)), np.zeros(4, int)), **FAST)

    def fail():
        raise RuntimeError("gone")

    monkeypatch.setattr(TfliteRunner, "timed_calls", lambda self, sample: {1: fail})
    with pytest.raises(BenchmarkError, match="failed while it was timed: gone"):
        tfopt.benchmark([files.float32, files.int8], **FAST)


def test_a_runner_that_tells_the_time_of_operators_is_asked(files, monkeypatch, tmp_path):
    times = (OperatorTime(name="dense", kind="FULLY_CONNECTED", time_ms=0.25),)
    monkeypatch.setattr(TfliteRunner, "operator_times", lambda self, threads, sample=None: times * threads)
    report = tfopt.benchmark([files.float32, files.int8], **{**FAST, "threads": (2, 1)})
    assert report.entries[0].operators == (OperatorTime(name="dense", kind="FULLY_CONNECTED", time_ms=0.25),)
    page = report.save(tmp_path).read_text()
    assert "Time of each operator" in page
    assert "1 operators, the slowest: dense (100.0 %)" in page


def test_price_and_watts_are_taken_and_checked(files):
    report = tfopt.benchmark(files.float32, price_per_hour=0.5, watts=3.0, **FAST)
    assert len(report.derived["float32"]) == 2
    assert report.reproduce.endswith("price_per_hour=0.5, watts=3.0)")
    for name in ("price_per_hour", "watts"):
        with pytest.raises(tfopt.errors.ConfigError, match=f"{name} must be above 0. Received: 0"):
            tfopt.benchmark(files.float32, **{name: 0.0})
