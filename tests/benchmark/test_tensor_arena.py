"""The memory that tensors share, seen in their addresses."""

from itertools import pairwise

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from tfopt.benchmark.tensor_arena import ALIGNMENT_BYTES, arena_bytes, covered_bytes
from tfopt.export.tflite_writer import pack_tflite, unpack_tflite

BYTES = 4096


def chain(path, count, numbers=BYTES // 4):
    """A file of so many LOGISTIC operators, one behind the other, on so many floats."""
    tensors, operators = [], []
    for index in range(count + 1):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = [1, numbers], schema.TensorType.FLOAT32, f"t{index}".encode()
        tensors.append(tensor)
    for index in range(count):
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = [index], [index + 1]
        operators.append(operator)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LOGISTIC
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [0], [count]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    path.write_bytes(pack_tflite(model))
    return path


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=12))
def test_ranges_are_counted_once_with_the_gaps_of_alignment(pairs):
    ranges = [(begin, begin + size) for begin, size in pairs]
    covered = {address for begin, end in ranges for address in range(begin, end)}
    bounds = sorted(covered)
    gaps = (after - before - 1 for before, after in pairwise(bounds))
    assert covered_bytes(ranges) == len(covered) + sum(gap for gap in gaps if gap < ALIGNMENT_BYTES)


def test_tensors_that_are_not_needed_at_once_share_their_place(tmp_path):
    two, eight = (arena_bytes(chain(tmp_path / f"{count}.tflite", count)) for count in (2, 8))
    assert 2 * BYTES <= two <= 3 * BYTES
    assert two <= eight <= 4 * BYTES  # of nine tensors, with 36 KiB


def test_weights_are_not_in_the_arena_and_int8_takes_a_quarter(files):
    float32, int8 = arena_bytes(files.float32), arena_bytes(files.int8)
    activations = 4 * (16 + 4 + 4)
    assert 4 * (16 + 4) <= float32 <= activations + 3 * ALIGNMENT_BYTES
    assert int8 < float32


def test_a_file_of_several_graphs_is_not_measured(files, tmp_path):
    model = unpack_tflite(files.float32.read_bytes())
    model.subgraphs = [*model.subgraphs, model.subgraphs[0]]
    path = tmp_path / "two.tflite"
    path.write_bytes(pack_tflite(model))
    assert arena_bytes(path) is None


def test_a_file_that_the_own_kernels_cannot_run_is_not_measured(tmp_path):
    path = chain(tmp_path / "custom.tflite", 1)
    model = unpack_tflite(path.read_bytes())
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = b"mine"
    path.write_bytes(pack_tflite(model))
    assert arena_bytes(path) is None


@pytest.mark.parametrize("numbers", [1, 100])
def test_it_is_the_same_every_time(tmp_path, numbers):
    path = chain(tmp_path / "chain.tflite", 3, numbers)
    assert len({arena_bytes(path) for _ in range(3)}) == 1
    assert np.isclose(arena_bytes(path), 12 * numbers, atol=4 * ALIGNMENT_BYTES)
