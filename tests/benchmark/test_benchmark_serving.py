"""The load benchmark: what it is given, what it starts, what it tells."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    from tfopt.serving.batching import BatchingParameters
    from tfopt.serving.folder import export_serving

    folder = tmp_path_factory.mktemp("serving")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="scores")])
    # A queue that a machine which stands still for a moment does not fill.
    export_serving(model, folder, name="ranker", batching=BatchingParameters(max_enqueued_batches=1000))
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


class MortalServer(ThreadingHTTPServer):
    """Answers predictions as TF Serving does, until some seconds after the first one."""

    life_seconds, begin = math.inf, math.inf

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Answers(BaseHTTPRequestHandler):
    server: MortalServer

    def do_GET(self) -> None:
        sizes = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
        x = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": "x:0"}
        signature = {"inputs": {"x": x}, "outputs": {}, "method_name": "tensorflow/serving/predict"}
        self._say({"metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.begin = min(self.server.begin, time.monotonic())
        if time.monotonic() - self.server.begin >= self.server.life_seconds:
            threading.Thread(target=self.server.end).start()
            return  # without an answer, as a server that dies
        time.sleep(0.002)
        self._say({"predictions": [[1.0]]})

    def _say(self, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def mortal_server() -> Iterator[MortalServer]:
    server = MortalServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.end()
    thread.join(10)


@pytest.mark.slow
@pytest.mark.parametrize("metrics_url", [None, "http://127.0.0.1:{port}/metrics"])
def test_a_server_that_dies_in_the_middle_leaves_what_was_measured(
    mortal_server: MortalServer, tmp_path: Path, metrics_url: str | None
) -> None:
    port = mortal_server.server_port
    mortal_server.life_seconds = 2.0  # in the midst of the first load, which is measured from the first second on
    report = benchmark_serving(
        f"http://127.0.0.1:{port}/v1/models/m",
        clients=(1, 2),
        seconds=2.0,
        metrics_url=metrics_url and metrics_url.format(port=port),
    )
    (first,) = report.results
    assert 0 < first.errors["connection error"] < first.requests
    assert first.server.batch_sizes is None
    assert report.failure is not None
    assert report.failure.startswith("closed loop, 2 clients: http://127.0.0.1")
    assert "the first request failed with connection error" in report.failure
    assert f"not measured to the end: {report.failure}" in str(report)
    written = json.loads(report.save(tmp_path).read_text())
    assert written["failure"] == report.failure
    assert len(written["results"]) == 1


def test_a_server_that_is_dead_from_the_start_is_an_error(mortal_server: MortalServer) -> None:
    mortal_server.life_seconds = 0.0
    with pytest.raises(BenchmarkError, match="the first request failed with connection error"):
        benchmark_serving(f"http://127.0.0.1:{mortal_server.server_port}/v1/models/m", clients=(1, 2), seconds=0.1)


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_the_command_line_measures_a_folder(served: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfopt", "benchmark", str(served), "--target", "serving", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--clients", "2", "--rate", "20", "--seconds", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "closed loop, 2 clients" in done.stdout
    assert "open loop, 20 requests/s" in done.stdout
    assert (tmp_path / "load.json").exists()
