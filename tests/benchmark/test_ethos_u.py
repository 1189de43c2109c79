from importlib.util import find_spec

import pytest

import tfopt
from tfopt.benchmark.ethos_u import estimate_latency
from tfopt.errors import BenchmarkError
from tfopt.vela import accelerator_of

needs_vela = pytest.mark.skipif(find_spec("ethosu") is None, reason="the extra 'edge' (ethos-u-vela) is not installed")


@pytest.mark.slow
@needs_vela
def test_an_int8_file_is_estimated_and_a_float_file_is_not(files):
    report = tfopt.benchmark([files.float32, files.int8], estimate="ethos_u55_128", threads=(1,), repeats=1, seconds=0)
    in_float, int8 = report.entries
    assert in_float.estimates == ()
    assert "no operator runs on the accelerator" in in_float.note
    (estimate,) = int8.estimates
    assert estimate.target == "ethos-u55-128"
    assert estimate.cycles > 0
    assert estimate.latency_ms == pytest.approx(estimate.cycles / 500e6 * 1e3)  # the system runs at 500 MHz
    assert estimate.accelerator_operators >= 1
    assert "estimated ms" in str(report)


@needs_vela
@pytest.mark.parametrize("accelerator", ["ethos-u65-512", "ethos-u85-256"])
def test_every_family_has_a_reference_system(files, accelerator):
    estimate = estimate_latency(files.int8, accelerator_of(accelerator, argument="estimate"))
    assert estimate.latency_ms > 0


@needs_vela
def test_a_file_that_vela_refuses_is_a_benchmark_error(tmp_path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(
        BenchmarkError, match=r"Vela cannot compile .*bad\.tflite for ethos-u55-128: .* Leave out estimate="
    ):
        estimate_latency(path, accelerator_of("ethos-u55-128", argument="estimate"))
