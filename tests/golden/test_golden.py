"""Exported files against an independent integer reference, and against what it gave when the files were made."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from generate import NAMES, export_networks
from hypothesis import given
from hypothesis import strategies as st
from reference import rescale, run_reference

from tfopt.export.tflite_file import read_tflite

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent
OUTPUTS = [f"y_{name}" for name in NAMES]


def run_runtime(path, inputs, resolver):
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    return interpreter.get_signature_runner()(**inputs)


def steps_apart(one, another):
    return int(np.abs(one.astype(int) - another.astype(int)).max())


@pytest.fixture(scope="module")
def golden():
    """The stored inputs and outputs."""
    with np.load(FOLDER / "golden.npz") as file:
        arrays = dict(file)
    return {name: arrays.pop(f"x_{name}") for name in NAMES}, arrays


@pytest.fixture(scope="module")
def inputs(golden):
    return {f"x_{name}": array for name, array in golden[0].items()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The same networks, exported now."""
    path = tmp_path_factory.mktemp("golden") / "networks.tflite"
    return path, export_networks(path)


@pytest.fixture(scope="module")
def expected(fresh, inputs):
    return run_reference(fresh[1], inputs)


@pytest.mark.parametrize("name", OUTPUTS)
def test_reference_gives_what_it_gave_on_the_stored_file(name, golden, inputs):
    received = run_reference(read_tflite(FOLDER / "networks.tflite"), inputs)
    np.testing.assert_array_equal(received[name], golden[1][name])
    assert len(np.unique(golden[1][name])) >= 4


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES], ids=str)
def test_runtime_and_reference_agree_to_one_step(name, resolver, fresh, inputs, expected):
    received = run_runtime(fresh[0], inputs, resolver)[name]
    assert received.dtype == np.int8
    assert steps_apart(received, expected[name]) <= 1


@pytest.mark.parametrize("name", ["y_residual", "y_joined"])
def test_reference_is_exactly_what_the_runtimes_reference_kernels_compute(name, fresh, inputs, expected):
    received = run_runtime(fresh[0], inputs, OpResolverType.BUILTIN_REF)[name]
    np.testing.assert_array_equal(received, expected[name])


@pytest.mark.parametrize("name", OUTPUTS)
def test_file_exported_now_agrees_with_the_stored_outputs_to_one_step(name, golden, expected):
    assert steps_apart(expected[name], golden[1][name]) <= 1


@given(st.integers(-(2**24), 2**24), st.floats(1e-6, 1.0))
def test_rescaling_multiplies_and_rounds(number, multiplier):
    received = int(rescale(np.array([number]), multiplier)[0])
    assert abs(received - number * multiplier) <= 0.75 + 1e-6  # two roundings, the first by half of the last
