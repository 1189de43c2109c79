"""The load benchmark: what it is given, what it starts, what it tells."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from tfopt.benchmark.serving import ServingReport, benchmark_serving
from tfopt.cli import app
from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.local_server import local_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serving folder with one small model."""
    from tfopt.serving.folder import export_serving

    folder = tmp_path_factory.mktemp("serving")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="scores")])
    export_serving(model, folder, name="ranker")
    return folder


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("absent", {}, "Received: absent, which does not exist"),
        (__file__, {}, "which is a file"),
        ("http://host/m", {}, "expected http://HOST:8501/v1/models/NAME"),
        ("http://host/v1/models/m", {"clients": ()}, "expected clients or rates_per_second"),
        ("http://host/v1/models/m", {"clients": (0,)}, "clients must be an integer of at least 1"),
        ("http://host/v1/models/m", {"slo_ms": 0}, "slo_ms must be above zero. Received: 0"),
        ("http://host/v1/models/m", {"protocol": "soap"}, "protocol must be rest or grpc. Received: 'soap'"),
    ],
)
def test_what_is_not_usable_is_refused(target: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        benchmark_serving(target, **options)  # type: ignore[arg-type]


def test_a_server_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchmarkError, match=r"The server did not start: .*No such option"),
        local_server(tmp_path, options=("--no-such-option",)),
    ):
        pass


def test_the_command_line_loads_one_address_or_folder(tmp_path: Path) -> None:
    both = CliRunner().invoke(app, ["benchmark", "http://host/v1/models/m", "http://host/v1/models/n"])
    assert isinstance(both.exception, ConfigError)
    assert "A load test is of one address or folder. Received: http://host/v1/models/m, http" in str(both.exception)
    empty = CliRunner().invoke(app, ["benchmark", str(tmp_path), "--target", "serving"])
    assert f"Expected a folder of models. Received: {tmp_path}" in str(empty.exception)
    wrong = CliRunner().invoke(app, ["benchmark", "http://host/m"])
    assert "expected http://HOST:8501/v1/models/NAME" in str(wrong.exception)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_folder_is_served_and_loaded(served: Path, tmp_path: Path, protocol: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    report = benchmark_serving(
        served,
        x,
        clients=(1, 8),
        seconds=1.0,
        slo_ms=1000,
        protocol=protocol,  # type: ignore[arg-type]
    )
    assert [str(result.load) for result in report.results[:2]] == ["closed loop, 1 client", "closed loop, 8 clients"]
    assert report.results[2].load.rate_per_second == pytest.approx(
        max(result.throughput_per_second for result in report.results[:2]) / 2, abs=0.1
    )
    for result in report.results:
        assert result.errors == {}
        assert result.throughput_per_second > 5
        assert result.server.batch_sizes
        assert result.server.queue_p99_ms is not None
    read = json.loads(report.save(tmp_path).read_text())
    assert len(read["results"]) == 3
    assert read["results"][0]["slo_ms"] == 1000
    assert "within 1000 ms" in str(report)
    assert "batch sizes: " in str(report)
    assert isinstance(report, ServingReport)


@pytest.mark.slow
def test_the_command_line_measures_a_folder(served: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfopt", "benchmark", str(served), "--target", "serving", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--clients", "2", "--rate", "20", "--seconds", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "closed loop, 2 clients" in done.stdout
    assert "open loop, 20 requests/s" in done.stdout
    assert (tmp_path / "load.json").exists()
