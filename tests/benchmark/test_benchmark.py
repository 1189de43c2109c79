import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfopt
from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark.report import Report
from tfopt.benchmark.tflite import TfliteRunner
from tfopt.errors import BenchmarkError, ConfigError, DataError

FAST = {"repeats": 10, "seconds": 0.0}
DATA = Path(__file__).parents[3] / "shared" / "data" / "mlperf_tiny"


@pytest.fixture(scope="module")
def report(files, tmp_path_factory):
    serving = tmp_path_factory.mktemp("serving") / "name"
    shutil.copytree(files.saved_model, serving / "1")
    chosen = {"float32": files.float32, "int8": str(files.int8), "serving": serving}
    return tfopt.benchmark(chosen, (files.x, files.y), **FAST)


def test_importing_is_light_and_the_name_is_the_function():
    code = (
        "import sys, tfopt, tfopt.benchmark\n"
        "assert callable(tfopt.benchmark)\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'matplotlib', 'ai_edge_litert')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_tflite_file_is_measured_and_inspected_without_tensorflow(files):
    call = (
        f"tfopt.benchmark({str(files.int8)!r}, threads=(1,), repeats=1, seconds=0.0).entries[0].contents.total.weights"
    )
    code = f"import sys, tfopt; print({call}, 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["64", "False", "False"]


@pytest.mark.slow
def test_every_figure_of_a_file_is_measured(files, report):
    entry = report.entries[1]
    assert (entry.name, entry.kind) == ("int8", "tflite")
    assert entry.size_bytes == files.int8.stat().st_size
    assert entry.gzip_bytes == len(gzip.compress(files.int8.read_bytes(), 9))
    assert [latency.threads for latency in entry.latencies] == [1, 2]
    for latency in entry.latencies:
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        assert latency.repeats >= 10
    assert entry.peak_memory_bytes > 0


def test_scores_are_accuracies_on_the_data(report):
    assert report.metric == "top-1 accuracy"
    assert report.samples == 64
    assert report.entries[0].score == 1.0
    assert report.entries[1].score >= 0.95
    assert report.entries[2].score == 1.0


def test_a_serving_folder_is_measured_at_its_newest_version(report):
    entry = report.entries[2]
    assert entry.kind == "saved_model"
    assert Path(entry.path).name == "1"
    assert [latency.threads for latency in entry.latencies] == [None]
    assert entry.peak_memory_bytes is None
    assert "TF default threads" in entry.note


def test_the_call_that_reproduces_it_is_given(report):
    assert report.reproduce.startswith("tfopt.benchmark({'float32': ")
    assert "(x, y), threads=(1, 2), repeats=10, seconds=0.0" in report.reproduce


def test_what_each_file_holds_is_told(files, report):
    float32, int8, serving = (entry.contents for entry in report.entries)
    assert [one.target for one in (float32, int8, serving)] == ["tflite", "tflite", "serving"]
    assert [one.total.weights for one in (float32, int8, serving)] == [64, 64, 68]  # zero biases are dropped
    assert (float32.total.size_bytes, int8.total.size_bytes) == (4 * 64, 64)
    assert float32.total.flops == int8.total.flops == 2 * 16 * 4
    assert serving.total.flops is None
    assert "FULLY_CONNECTED" in [part.kind for part in int8.parts]
    assert [(part.shape, part.weights) for part in serving.parts] == [((16, 4), 64), ((4,), 4)]
    for one in (float32, int8, serving):
        assert 50 < one.total.nonzeros <= 64
        assert 0 < one.total.distinct_values <= 68
        assert one.total.coded_bytes > 0 < one.total.gzip_bytes


def test_zeros_are_told_for_another_target(files):
    report = tfopt.benchmark(files.saved_model, threads=[1], target="edge_tpu", **FAST)
    assert report.entries[0].contents.target == "edge_tpu"
    assert report.reproduce.endswith("target='edge_tpu')")


@pytest.mark.slow
def test_what_cannot_be_inspected_is_measured_and_says_so(files, monkeypatch, tmp_path):
    def refuse(self, target):
        raise DataError("the weights are elsewhere.")

    monkeypatch.setattr(TfliteRunner, "parts", refuse)
    report = tfopt.benchmark(files.float32, threads=[1], **FAST)
    (entry,) = report.entries
    assert entry.contents is None
    assert entry.latencies[0].p50_ms > 0
    assert "not inspected: the weights are elsewhere." in entry.note
    assert "not inspected: the weights are elsewhere." in report.save(tmp_path).read_text()


@pytest.mark.slow
def test_a_regression_comes_with_the_distribution_of_its_errors(files, tmp_path):
    report = tfopt.benchmark([files.float32, files.int8], (files.x, files.probabilities + 0.125), threads=[1], **FAST)
    float32, int8 = report.entries
    assert report.metric == "R²"
    assert float32.error_against_baseline is None
    assert float32.error_against_targets.bias == pytest.approx(-0.125, abs=1e-6)
    assert float32.error_against_targets.standard_deviation < 1e-6
    added = int8.error_against_baseline
    assert 0 < added.standard_deviation < added.max_absolute < 0.1
    assert int8.error_against_targets.bias == pytest.approx(added.bias - 0.125, abs=1e-6)
    assert added.output_standard_deviation == pytest.approx(files.probabilities.std(), abs=1e-6)
    assert "bias ± std" in str(report)
    page = report.save(tmp_path)
    assert "How the errors are distributed" in page.read_text()
    assert Report.load(tmp_path) == report


def test_predictions_that_are_not_finite_are_refused(files, monkeypatch):
    monkeypatch.setattr(TfliteRunner, "predict", lambda self, samples, advance: [np.full((64, 1), np.nan)])
    with pytest.raises(DataError, match="predictions of int8 must be finite"):
        tfopt.benchmark(files.int8, (files.x, np.linspace(0, 1, 64)), threads=[1], **FAST)


@pytest.mark.slow
def test_a_file_whose_predictions_are_not_finite_leaves_the_others_their_scores(files, monkeypatch):
    predict = TfliteRunner.predict

    def no_numbers_of_int8(self, samples, advance):
        outputs = predict(self, samples, advance)
        return outputs if "float32" in str(self.path) else [np.full_like(output, np.nan) for output in outputs]

    monkeypatch.setattr(TfliteRunner, "predict", no_numbers_of_int8)
    targets = files.probabilities + 0.125
    float32, int8 = tfopt.benchmark([files.float32, files.int8], (files.x, targets), threads=[1], **FAST).entries
    assert "predictions of int8 must be finite" in int8.error
    assert (int8.score, int8.agreement, int8.latencies) == (None, None, ())
    assert float32.score is not None
    assert float32.latencies[0].p50_ms > 0


def test_a_classification_comes_without(report, tmp_path):
    assert {entry.error_against_targets for entry in report.entries} == {None}
    assert {entry.error_against_baseline for entry in report.entries} == {None}
    assert "bias" not in str(report)
    assert "How the errors are distributed" not in report.save(tmp_path).read_text()


def test_without_data_accuracy_is_not_measured(files):
    report = tfopt.benchmark(files.float32, threads=[1], **FAST)
    assert report.metric is None
    assert report.entries[0].score is None
    assert report.entries[0].latencies[0].p50_ms > 0
    assert report.entries[0].name == "float32"
    assert "Accuracy was not measured" in report.notes[0]


def test_samples_without_targets_only_time(files):
    report = tfopt.benchmark([files.float32], (files.x, None), threads=[1], **FAST)
    assert report.entries[0].score is None


def test_the_record_of_an_artifact_brings_its_verification(files, tmp_path):
    path = tmp_path / "copy.tflite"
    shutil.copy(files.float32, path)
    spec = TensorSpec(name="features", shape=(1, 16), dtype="float32")
    artifact = Artifact.of(path, kind="tflite", inputs=(spec,), outputs=(), verification={"max_lsb": 1.0})
    artifact.save()
    report = tfopt.benchmark(path, threads=(1,), coverage=[("dense", "Dense", True, "")], **FAST)
    assert report.entries[0].verification == {"max_lsb": 1.0}
    assert report.coverage[0].layer == "dense"
    path.write_bytes(files.int8.read_bytes())
    with pytest.raises(DataError, match="has changed since"):
        tfopt.benchmark(artifact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": (0,)}, r"threads must be whole numbers of at least 1. Received: \[0\]"),
        ({"threads": ()}, "threads must be"),
        ({"repeats": 0}, "repeats must be a whole number of at least 1. Received: 0"),
        ({"seconds": -1.0}, "seconds must be at least 0. Received: -1.0"),
        ({"metric": "f1"}, "metric must be"),
        ({"estimate": "tpu"}, "estimate must be one of ethos-u55-32"),
        ({"target": "gpu"}, "benchmark: target must be one of tflite, .*Received: 'gpu'"),
    ],
)
def test_unusable_options_are_refused(files, options, message):
    with pytest.raises(ConfigError, match=message):
        tfopt.benchmark(files.float32, **options)


def test_unusable_artifacts_are_refused(files, tmp_path):
    with pytest.raises(ConfigError, match="Received: none"):
        tfopt.benchmark([])
    with pytest.raises(ConfigError, match=r"an artifact or a path\. Received: int"):
        tfopt.benchmark([3])
    with pytest.raises(ConfigError, match="which does not exist"):
        tfopt.benchmark(tmp_path / "absent.tflite")
    with pytest.raises(ConfigError, match=r"without saved_model\.pb"):
        tfopt.benchmark(tmp_path)
    with pytest.raises(ConfigError, match="several named float32"):
        tfopt.benchmark([files.float32, files.float32])


def test_data_that_does_not_fit_is_refused_before_timing(files):
    with pytest.raises(DataError, match=r"must have shape \(n, 16\). Received: \(4, 3\)"):
        tfopt.benchmark(files.int8, (np.zeros((4, 3)), np.zeros(4, int)))
    with pytest.raises(DataError, match=r"one target for each of the 64 samples\. Received: 3"):
        tfopt.benchmark(files.int8, (files.x, files.y[:3]))
    with pytest.raises(DataError, match=r"must be a tuple \(x, y\)"):
        tfopt.benchmark(files.int8, files.x)


def test_a_damaged_file_is_a_benchmark_error(tmp_path):
    (tmp_path / "bad.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(BenchmarkError, match="Cannot run"):
        tfopt.benchmark(tmp_path / "bad.tflite")


def test_a_saved_report_is_read_back(report, tmp_path):
    page = report.save(tmp_path / "new" / "folder")
    assert Report.load(page.parent) == report
    assert Report.load(page.parent / "report.json") == report
    assert json.loads((page.parent / "report.json").read_text())["entries"][2]["peak_memory_bytes"] is None


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets of ../shared/data are absent")
def test_files_made_elsewhere_without_signature_or_record():
    paths = [DATA / "vww_96_float.tflite", DATA / "vww_96_int8.tflite"]
    report = tfopt.benchmark(paths, threads=(1,), **FAST)
    assert [entry.size_bytes for entry in report.entries] == [866284, 333288]
    assert all(entry.verification == {} for entry in report.entries)
