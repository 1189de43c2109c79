"""`tfopt benchmark`: what it writes, and the codes by which CI knows."""

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from made_reports import ELSEWHERE, made_entry, made_report, timed

from tfopt.benchmark import session
from tfopt.benchmark.report import Report
from tfopt.cli import main

ONE_THREAD = ("--threads", "1")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `tfopt benchmark` in this process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfopt", "benchmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def data(files, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x_train=files.x, y_train=files.y, x_test=files.x, y_test=files.y)
    return path


@pytest.fixture
def measured(monkeypatch):
    """Gives the command a report instead of a measurement."""

    def give(report):
        monkeypatch.setattr(session.Session, "run", lambda self, *arguments, **options: report)

    return give


SLOWER = made_report(made_entry("float32", 1000, timed(1.0)), made_entry("int8", 500, timed(1.5, seed=1)))


@pytest.mark.slow
def test_everything_is_measured_and_written(command, files, data, tmp_path):
    ended = command(
        *(files.float32, files.int8, "--data", data, "--out", tmp_path / "report", *ONE_THREAD),
        *("--markdown", tmp_path / "table.md", "--price-per-hour", "0.5", "--watts", "5"),
        *("--fail-if", "size_bytes > 2x baseline", "--fail-if", "score < 0.5"),
    )
    assert (ended.code, ended.err) == (0, "")
    report = Report.load(tmp_path / "report")
    assert [[latency.threads for latency in entry.latencies] for entry in report.entries] == [[1], [1]]
    assert report.entries[0].latencies[0].p50_low_ms > 0
    assert (tmp_path / "table.md").read_text() == report.to_markdown()
    assert "$ per 1M inferences" in ended.out
    assert "int8: passed: size_bytes > 2x baseline" in ended.out
    assert "float32: passed: score < 0.5 (1.0000)" in ended.out
    # What it wrote is what the next run is compared with.
    again = command(
        files.float32, *ONE_THREAD, "--compare", tmp_path / "report", "--fail-if", "size_bytes > 1x previous"
    )
    assert again.code == 0
    assert "Beside an earlier report" in again.out
    assert "Only in the earlier report: int8." in again.out


def test_a_broken_rule_is_exit_code_3_with_everything_written(command, files, measured, tmp_path):
    measured(SLOWER)
    ended = command(
        files.float32, "--fail-if", "p50_ms > 1.1x baseline", "--out", tmp_path, "--markdown", tmp_path / "t.md"
    )
    assert ended.code == 3
    assert ended.err.startswith("Failed: int8: p50_ms > 1.1x baseline (1.50, 95 % interval")
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "t.md").exists()


def test_noise_is_told_and_fails_nothing(command, files, measured):
    measured(made_report(SLOWER.entries[0], made_entry("int8", 500, timed(1.1, noise=0.5, seed=1))))
    ended = command(files.float32, "--fail-if", "p50_ms > 1.1x baseline")
    assert ended.code == 0
    assert "int8: too noisy to tell: p50_ms > 1.1x baseline" in ended.out


@pytest.mark.slow
def test_a_file_that_fails_is_exit_code_1_with_the_others_written(command, files, data, tmp_path):
    bad = tmp_path / "truncated.tflite"
    bad.write_bytes(files.float32.read_bytes()[:300])
    ended = command(files.float32, bad, "--data", data, "--out", tmp_path / "report", *ONE_THREAD)
    assert ended.code == 1
    assert ended.err == "Error: 1 of 2 files could not be measured: truncated. The table says why.\n"
    saved = json.loads((tmp_path / "report" / "report.json").read_text())
    assert saved["entries"][0]["score"] == 1.0
    assert saved["entries"][1]["error"].startswith("Cannot run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fail-if", "p50 > 1"), "--fail-if: the figure must be one of"),
        (("--fail-if", "p50_ms > 1.1x previous"), "needs an earlier report: --compare FILE. Received: none"),
        (("--compare", "absent.json"), "expected a report as Report.save writes it in absent.json"),
        (("--price-per-hour", "0"), "price_per_hour must be above 0. Received: 0.0"),
        (("--threads", "0"), "threads must be whole numbers of at least 1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(command, files, monkeypatch, options, message):
    monkeypatch.setattr(session, "measure", None)
    ended = command(files.float32, *options)
    assert ended.code == 1
    assert message in ended.err


def test_times_of_another_machine_are_no_rule(command, files, measured, tmp_path):
    measured(SLOWER)
    SLOWER.model_copy(update={"machine": ELSEWHERE}).save(tmp_path)
    ended = command(files.float32, "--compare", tmp_path, "--fail-if", "p50_ms > 1.1x previous")
    assert ended.code == 1
    assert "another machine" in ended.err
    assert "its times are not shown" in ended.out


def test_a_load_test_takes_no_options_of_files(command):
    ended = command("http://localhost:1/v1/models/m", "--fail-if", "p50_ms > 1")
    assert ended.code == 1
    assert "A load test does not take --fail-if" in ended.err
