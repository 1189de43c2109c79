"""Quantizing an ONNX model: calibration in batches, ranges from the samples, float16 with float32 inputs."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tfopt.export.onnx_quantization import CALIBRATION_BATCH_SIZE, CalibrationBatches, quantize_float16, quantize_int8

GENERATOR = np.random.default_rng(0)
KERNEL = GENERATOR.normal(size=(4, 3)).astype(np.float32) * np.float32([0.1, 1.0, 10.0])
BIAS = GENERATOR.normal(size=3).astype(np.float32)
X = GENERATOR.uniform(-1, 3, (40, 4)).astype(np.float32)


def dense() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "kernel"], ["p"]), helper.make_node("Add", ["p", "bias"], ["y"])]
    tensors = [helper.make_tensor_value_info(*one) for one in (("x", 1, ("batch", 4)), ("y", 1, ("batch", 3)))]
    constants = [numpy_helper.from_array(KERNEL, "kernel"), numpy_helper.from_array(BIAS, "bias")]
    graph = helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


@given(count=st.integers(1, 100))
def test_every_sample_is_read_once_in_order(count: int) -> None:
    batches = CalibrationBatches({"x": np.arange(count), "y": -np.arange(count)})
    read = list(iter(batches.get_next, None))
    assert all(len(batch["x"]) <= CALIBRATION_BATCH_SIZE for batch in read)
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in read]), np.arange(count))
    np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in read]), -np.arange(count))
    assert batches.get_next() is None


@pytest.fixture(scope="module")
def quantized() -> onnx.ModelProto:
    return quantize_int8(dense(), {"x": X})


def test_the_input_range_is_that_of_the_samples(quantized: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    first = quantized.graph.node[[node.op_type for node in quantized.graph.node].index("QuantizeLinear")]
    assert first.input[0] == "x"
    scale, zero = constants[first.input[1]], constants[first.input[2]]
    assert zero.dtype == np.uint8
    np.testing.assert_allclose(scale, (X.max() - X.min()) / 255, rtol=1e-5)
    assert abs(int(zero) + X.min() / scale) <= 0.51


def test_each_unit_has_a_scale_of_its_own(quantized: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    (kernel,) = (values for values in constants.values() if values.dtype == np.int8 and values.ndim == 2)
    (scales,) = (constants[name] for name in constants if name.startswith("kernel") and name.endswith("scale"))
    np.testing.assert_allclose(scales, np.abs(KERNEL).max(axis=0) / 127, rtol=1e-5)
    np.testing.assert_allclose(kernel * scales, KERNEL, atol=float(scales.max()) / 2 * 1.001)


def test_no_operator_set_is_imported_that_is_not_used(quantized: onnx.ModelProto) -> None:
    assert [(one.domain, one.version) for one in quantized.opset_import] == [("", 15)]


def test_float16_keeps_float32_at_its_ends() -> None:
    model = quantize_float16(dense())
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}
    ends = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert ends == {TensorProto.FLOAT}
