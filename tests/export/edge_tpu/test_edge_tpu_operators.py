"""Each documented rule, on operators put together by hand."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfopt.export.edge_tpu.operators import RULES, operator_support
from tfopt.export.edge_tpu.replacements import REPLACEMENTS
from tfopt.export.sparse_tensor import Dimension, SparseLayout
from tfopt.export.tflite_file import Operator, Tensor


def data(*shape: int, dtype: str = "INT8") -> Tensor:
    return Tensor("data", shape, dtype, (0.1,), (0,), 0, None, static_shape=shape)


def constant(values: object, dtype: str = "int32", *, scales: int = 1) -> Tensor:
    array = np.asarray(values, dtype)
    content = array.tobytes() or None  # a buffer without elements is read as none
    shape = array.shape
    return Tensor("constant", shape, dtype.upper(), (0.1,) * scales, (0,) * scales, 0, content, None, shape)


def weights(*shape: int, dtype: str = "int8", scales: int = 1) -> Tensor:
    return constant(np.ones(shape), dtype, scales=scales)


def operator(name: str, inputs: tuple[Tensor, ...], output: Tensor, version: int = 1, **options: object) -> Operator:
    return Operator(name, version, inputs, (output,), options)


IMAGE = data(1, 8, 8, 4)
VECTOR = data(1, 4)
BIAS = constant([0, 0])
RELU = {"fusedActivationFunction": schema.ActivationFunctionType.RELU}
DILATED = {"dilationHFactor": 2, "dilationWFactor": 2}

PLAIN = [
    operator("ADD", (IMAGE, IMAGE), IMAGE, **RELU),
    operator("ADD", (IMAGE, weights(1, 1, 1, 4)), IMAGE),
    operator("AVERAGE_POOL_2D", (IMAGE,), data(1, 4, 4, 4)),
    operator("CONCATENATION", (IMAGE, IMAGE, IMAGE), data(1, 8, 8, 12), axis=3),
    operator("CONCATENATION", (IMAGE, constant(np.zeros((1, 8, 8, 4)), "int8")), data(1, 8, 8, 8), axis=3),
    operator("CONV_2D", (IMAGE, weights(2, 3, 3, 4, scales=2), BIAS), data(1, 8, 8, 2), 3, **DILATED, **RELU),
    operator("CONV_2D", (data(1, 8, 8, 4, dtype="UINT8"), weights(2, 3, 3, 4, dtype="uint8")), data(1, 8, 8, 2)),
    operator("DEPTHWISE_CONV_2D", (IMAGE, weights(1, 3, 3, 8), constant([0] * 8)), data(1, 8, 8, 8), 3, **DILATED),
    operator("EXPAND_DIMS", (VECTOR, constant([1])), data(1, 1, 4)),
    operator("FULLY_CONNECTED", (VECTOR, weights(2, 4), BIAS), data(1, 2), 4, **RELU),
    operator("L2_NORMALIZATION", (VECTOR,), VECTOR),
    operator("MAXIMUM", (IMAGE, weights(1)), IMAGE),
    operator("MEAN", (IMAGE, constant([1, 2])), VECTOR),
    operator("MEAN", (IMAGE, constant([-1])), data(1, 8, 8)),
    operator("PACK", (VECTOR, VECTOR), data(1, 2, 4), axis=1),
    operator("PAD", (IMAGE, constant([[0, 0], [1, 1], [1, 1], [0, 0]])), data(1, 10, 10, 4)),
    operator("PRELU", (IMAGE, weights(1, 1, 4)), IMAGE),
    operator("QUANTIZE", (data(1, 4, dtype="UINT8"),), VECTOR),
    operator("REDUCE_MAX", (IMAGE, constant([1])), data(1, 8, 4)),
    operator("RESHAPE", (IMAGE, constant([1, 256])), data(1, 256)),
    operator("RESHAPE", (IMAGE,), data(1, 256)),
    operator("RESIZE_BILINEAR", (IMAGE, constant([16, 16])), data(1, 16, 16, 4), 3),
    operator("RESIZE_NEAREST_NEIGHBOR", (IMAGE, constant([4, 4])), data(1, 4, 4, 4), 3),
    operator("SLICE", (IMAGE, constant([0, 1, 0, 0]), constant([1, 2, 8, 4])), data(1, 2, 8, 4)),
    operator("SOFTMAX", (data(1, 1001),), data(1, 1001)),
    operator("SPLIT", (constant(3), IMAGE), data(1, 8, 8, 2), numSplits=2),
    operator("SQUEEZE", (data(1, 1, 1, 4),), data(1, 4), squeezeDims=np.int32([1, 2])),
    operator("SQUEEZE", (data(1, 1, 4),), data(4)),
    operator("STRIDED_SLICE", (VECTOR, constant([0, 1]), constant([1, 3]), constant([1, 1])), data(1, 2)),
    operator("SUM", (IMAGE, constant([], "int32")), IMAGE),  # over no axis
    operator("TRANSPOSE_CONV", (constant([1, 16, 16, 2]), weights(2, 2, 2, 4), IMAGE, BIAS), data(1, 16, 16, 2), 3),
]

REFUSED = [
    (operator("AVERAGE_POOL_2D", (IMAGE,), IMAGE, **RELU), "fused activation", "before it"),
    (operator("MAX_POOL_2D", (IMAGE,), IMAGE, **RELU), "fused activation", "before it"),
    (operator("CONCATENATION", (IMAGE, IMAGE), IMAGE, **RELU), "fused activation", "before it"),
    (operator("CONCATENATION", (IMAGE, weights(1, 8, 8, 1)), data(1, 8, 8, 5)), "joins a constant", "zeros"),
    (
        operator("CONCATENATION", (IMAGE, IMAGE, constant(np.zeros((1, 8, 8, 4)), "int8")), data(1, 8, 8, 12)),
        "joins a constant",
        "zeros",
    ),
    (operator("CONV_2D", (IMAGE, weights(2, 3, 3, 4)), IMAGE, dilationHFactor=2), "dilation is 2×1", "both directions"),
    (operator("DEPTHWISE_CONV_2D", (IMAGE, weights(1, 3, 3, 4)), IMAGE, dilationWFactor=3), "1×3", "both directions"),
    (operator("CONV_2D", (IMAGE, data(2, 3, 3, 4)), data(1, 8, 8, 2)), "'data' is computed", "constant weights"),
    (operator("CONV_2D", (IMAGE, weights(2, 3, 3, 4, dtype="float32")), IMAGE), "weights are float32", "int8"),
    (operator("FULLY_CONNECTED", (data(6, 4), weights(2, 4)), data(6, 2)), "6×2 has more than one row", "Conv1D"),
    (operator("FULLY_CONNECTED", (data(1, 6, 4), weights(2, 4)), data(1, 6, 2)), "1×6×2 has more", "Conv1D"),
    (operator("FULLY_CONNECTED", (VECTOR, weights(2, 4)), data(1, 2), weightsFormat=1), "shuffled", "convert without"),
    (operator("FULLY_CONNECTED", (VECTOR, data(2, 4)), data(1, 2)), "computed", "constant weights"),
    (operator("MEAN", (data(1, 8, 8, 6), constant([3])), data(1, 8, 8)), "over 6 channels", "multiple of 4"),
    (operator("MEAN", (IMAGE, constant([0, 1])), data(8, 4)), "reduces the batch", "other axes"),
    (operator("REDUCE_MIN", (IMAGE, constant([-4])), data(8, 8, 4)), "reduces the batch", "other axes"),
    (operator("SUM", (IMAGE, constant([0])), data(8, 8, 4)), "reduces the batch", "other axes"),
    (operator("PACK", (VECTOR, VECTOR), data(2, 1, 4), axis=0), "stacks along the batch", "another axis"),
    (operator("PAD", (VECTOR, constant([[0, 1], [0, 0]])), data(2, 4)), "pads the batch", "other axes"),
    (operator("PRELU", (IMAGE, weights(8, 8, 4)), IMAGE), "slopes 8×8×4", "shared_axes=[1, 2]"),
    (operator("QUANTIZE", (data(1, 4, dtype="FLOAT32"),), VECTOR), "works on float32", "int8 or uint8 inputs"),
    (operator("ADD", (data(1, 4, dtype="INT16"), VECTOR), VECTOR), "works on int16", 'quantization="int8"'),
    (operator("ADD", (VECTOR, weights(1, 4, dtype="float32")), VECTOR), "works on float32", 'quantization="int8"'),
    (operator("STRIDED_SLICE", (constant([1, 2]),) * 4, data(2, dtype="INT32")), "works on int32", "outside the model"),
    (operator("RELU", (data(2, 8, 8, 4),), data(2, 8, 8, 4)), "2×8×8×4 has sizes above 1 outside", "batch of 1"),
    (operator("RESHAPE", (IMAGE, constant([1, 2, 4, 8, 4])), data(1, 2, 4, 8, 4)), "1×2×4×8×4", "three axes"),
    (operator("RESHAPE", (IMAGE, data(2, dtype="INT32")), data(1, 256)), "computed", "static shapes"),
    (operator("RESIZE_BILINEAR", (data(1, 1, 1, 8), constant([33, 33])), data(1, 33, 33, 8)), "33-fold", "steps of 2"),
    (
        operator("RESIZE_BILINEAR", (data(1, 256, 256, 32), constant([512, 512])), data(1, 512, 512, 32)),
        "more than the memory on chip",
        "fewer channels",
    ),
    (operator("SOFTMAX", (data(1, 16001),), data(1, 16001)), "16,001 classes", "logits"),
    (operator("SPLIT", (constant(0), data(2, 4)), VECTOR), "splits the batch", "another axis"),
    (operator("SPLIT", (constant(-2), data(2, 4)), VECTOR), "splits the batch", "another axis"),
    (operator("SQUEEZE", (data(1, 5, 1, 4),), data(1, 5, 4), squeezeDims=[2]), "inner axis of 1×5×1×4", "Reshape"),
    (operator("SQUEEZE", (data(1, 5, 1),), data(5)), "inner axis", "Reshape"),
    (
        operator("STRIDED_SLICE", (VECTOR, constant([0, 0]), constant([1, 4]), constant([1, 2])), data(1, 2)),
        "every n-th",
        "MaxPooling2D",
    ),
    (
        operator("STRIDED_SLICE", (VECTOR, *(constant([1]),) * 3), data(1, 1, 4), newAxisMask=2),
        "a new axis",
        "Reshape",
    ),
    (operator("STRIDED_SLICE", (VECTOR, *(constant([1]),) * 3), VECTOR, ellipsisMask=1), "ellipsis", "Reshape"),
    (operator("TILE", (VECTOR, constant([2, 1])), data(2, 4)), "repeats the batch", "other axes"),
    (operator("TRANSPOSE", (VECTOR, constant([1, 0])), data(4, 1)), "moves the batch", "batch first"),
    (operator("LEAKY_RELU", (IMAGE,), IMAGE, 2), "no such operator", "PReLU(shared_axes=[1, 2])"),
    (operator("HARD_SWISH", (IMAGE,), IMAGE), "no such operator", "ReLU6"),
    (operator("DEQUANTIZE", (VECTOR,), data(1, 4, dtype="FLOAT32")), "no such operator", "int8 or uint8 outputs"),
    (operator("BIDIRECTIONAL_SEQUENCE_LSTM", (IMAGE,), IMAGE), "no such operator", "unidirectional LSTM"),
    (operator("CUMSUM", (IMAGE,), IMAGE), "no such operator", "behind the last layer"),
    (operator("CUSTOM TFLite_Detection_PostProcess", (IMAGE,), IMAGE), "custom operators", "last in the model"),
]


@pytest.mark.parametrize("given", PLAIN, ids=lambda one: one.name)
def test_what_keeps_within_the_limits_is_supported(given):
    support = operator_support(given)
    assert support.supported, support.reason
    assert (support.confidence, support.reason, support.mend) == ("documented", "", "")


@pytest.mark.parametrize(("given", "reason", "mend"), REFUSED, ids=lambda one: getattr(one, "name", ""))
def test_each_limit_has_its_reason_and_mend(given, reason, mend):
    support = operator_support(given)
    assert not support.supported
    assert reason in support.reason
    assert mend in support.mend
    assert support.confidence in {"documented", "observed"}


@pytest.mark.parametrize(
    ("given", "confidence", "reason"),
    [
        (operator("FULLY_CONNECTED", (VECTOR, weights(2, 4, scales=2)), data(1, 2), 4), "observed", "scales per unit"),
        (operator("SOFTMAX", (IMAGE,), IMAGE), "observed", "several rows"),
        (operator("TILE", (VECTOR, constant([1, 3])), data(1, 12)), "observed", "not documented"),
        (operator("TRANSPOSE", (IMAGE, constant([0, 2, 1, 3])), IMAGE), "observed", "some orders"),
        (operator("CONV_2D", (IMAGE, weights(4, 3, 3, 2)), IMAGE, 5), "unknown", "grouped"),
        (operator("RESIZE_BILINEAR", (IMAGE, constant([32, 32])), data(1, 32, 32, 4)), "unknown", "refused for its"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_what_is_not_documented_but_taken_says_so(given, confidence, reason):
    support = operator_support(given)
    assert support.supported
    assert support.confidence == confidence
    assert reason in support.reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (operator("CONV_2D", (IMAGE, weights(2, 3, 3, 4)), IMAGE, 8), "version 8 is newer than compiler 16"),
        (operator("GELU", (IMAGE,), IMAGE), "the operator is newer than compiler 16"),
        (operator("STABLEHLO_ADD", (IMAGE, IMAGE), IMAGE), "the operator is newer than compiler 16"),
        (operator("BUILTIN 999", (IMAGE,), IMAGE), "the operator is newer than compiler 16"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_what_came_after_the_compiler_is_unknown(given, reason):
    support = operator_support(given)
    assert not support.supported
    assert support.confidence == "unknown"
    assert reason in support.reason


def test_the_state_of_an_lstm_is_no_parameter():
    state = Tensor("state", (1, 2), "INT8", (0.1,), (0,), 0, None, None, (1, 2))
    cell = Tensor("cell", (1, 2), "INT16", (0.1,), (0,), 0, None, None, (1, 2))
    matrices = [weights(2, 4) for _ in range(4)] + [weights(2, 2) for _ in range(4)]
    inputs = (data(1, 5, 4), *matrices, *[BIAS] * 4, state, cell)
    lstm = operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, data(1, 5, 2))
    assert operator_support(lstm).supported
    computed = operator("UNIDIRECTIONAL_SEQUENCE_LSTM", (inputs[0], data(2, 4), *inputs[2:]), data(1, 5, 2))
    assert "computed" in operator_support(computed).reason


def test_sparse_weights_are_unknown_to_the_compiler():
    layout = SparseLayout((0, 1), (), (Dimension(2), Dimension(0, (0, 1, 2), (0, 0))))
    kernel = Tensor("kernel", (2, 4), "INT8", (0.1,), (0,), 0, b"12", layout, (2, 4))
    support = operator_support(operator("FULLY_CONNECTED", (VECTOR, kernel), data(1, 2)))
    assert (support.supported, support.confidence) == (False, "unknown")
    assert support.mend == "export without sparse_weights"


def test_every_name_is_an_operator_of_the_schema():
    names = {name for name in vars(schema.BuiltinOperator) if name.isupper()}
    assert set(RULES) <= names
    assert set(REPLACEMENTS) <= names
    assert not set(RULES) & set(REPLACEMENTS)
