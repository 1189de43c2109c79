"""Which operators the Edge TPU can run, each by itself: the documented table and the rules for all of them.

References: Coral, "TensorFlow models on the Edge TPU" (model requirements, supported operations); TensorFlow,
`lite/tools/versioning/runtime_version.cc`, for the versions of operators in TensorFlow 2.6, which compiler 16 knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from ai_edge_litert import schema_py_generated as schema

from tfopt.export.edge_tpu import limits
from tfopt.export.edge_tpu.limits import Limit
from tfopt.export.edge_tpu.replacements import replacement
from tfopt.export.edge_tpu.support import Support, accepted, refused
from tfopt.export.tflite_file import Operator, Tensor

__all__ = ["MAPPED_DTYPES", "RULES", "Rule", "operator_support"]

OLDEST_RUNTIME = 10
MAPPED_DTYPES = {"INT8", "UINT8"}
# The last operator of TensorFlow 2.6; operators are numbered in the order in which they came.
NEWEST_KNOWN_OPERATOR = schema.BuiltinOperator.BROADCAST_ARGS


@dataclass(frozen=True)
class Rule:
    """What is documented of one operator.

    Args:
        newest_version: the newest version of the operator that compiler 16 knows.
        first_runtime: the first version of the Edge TPU runtime that has it.
        data: the positions of the inputs that are computed; the others are parameters. None: all are data.
        limit: its limitations.
    """

    newest_version: int
    first_runtime: int = OLDEST_RUNTIME
    data: tuple[int, ...] | None = (0,)
    limit: Limit | None = None


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ADD": Rule(4, data=None),
        "AVERAGE_POOL_2D": Rule(3, limit=limits.no_fused_activation),
        "CONCATENATION": Rule(3, data=None, limit=limits.concatenation),
        "CONV_2D": Rule(5, limit=limits.equal_dilation),
        "DEPTHWISE_CONV_2D": Rule(6, limit=limits.equal_dilation),
        "EXPAND_DIMS": Rule(1, 13),
        "FULLY_CONNECTED": Rule(9, limit=limits.fully_connected),
        "L2_NORMALIZATION": Rule(2),
        "LOGISTIC": Rule(3),
        "MAXIMUM": Rule(4, data=None),
        "MAX_POOL_2D": Rule(3, limit=limits.no_fused_activation),
        "MEAN": Rule(3, limit=limits.mean),
        "MINIMUM": Rule(4, data=None),
        "MUL": Rule(5, data=None),
        "PACK": Rule(3, 13, data=None, limit=limits.pack),
        "PAD": Rule(4, limit=limits.pad),
        "PRELU": Rule(1, 13, limit=limits.prelu),
        "QUANTIZE": Rule(2, 13),
        "REDUCE_MAX": Rule(3, 14, limit=limits.not_over_batch),
        "REDUCE_MIN": Rule(3, 14, limit=limits.not_over_batch),
        "RELU": Rule(3),
        "RELU6": Rule(3),
        "RELU_N1_TO_1": Rule(1),
        "RESHAPE": Rule(1),
        "RESIZE_BILINEAR": Rule(4, limit=limits.resize),
        "RESIZE_NEAREST_NEIGHBOR": Rule(4, limit=limits.resize),
        "RSQRT": Rule(2, 14),
        "SLICE": Rule(5),
        "SOFTMAX": Rule(3, limit=limits.softmax),
        "SPACE_TO_DEPTH": Rule(2),
        "SPLIT": Rule(4, data=(1,), limit=limits.split),
        "SQUARED_DIFFERENCE": Rule(2, 14, data=None),
        "SQUEEZE": Rule(2, limit=limits.squeeze),
        "STRIDED_SLICE": Rule(6, limit=limits.strided_slice),
        "SUB": Rule(5, data=None),
        "SUM": Rule(2, 13, limit=limits.not_over_batch),
        "TANH": Rule(3),
        "TILE": Rule(2, limit=limits.tile),
        "TRANSPOSE": Rule(5, 14, limit=limits.transpose),
        "TRANSPOSE_CONV": Rule(3, 13, data=(2,)),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(3, 14),
    }
)
"""The operators that the Edge TPU has."""

_WITH_KERNEL = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
"""Their second input is the kernel."""
_STATES = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2}
"""How many of the last inputs are variables, which hold the state from step to step."""


def operator_support(operator: Operator) -> Support:
    """Whether the Edge TPU can run an operator, whatever comes before and after it.

    Args:
        operator: as `tfopt.export.tflite_file.read_tflite` reads it.

    Example:
        >>> image = Tensor("image", (1, 8, 8, 3), "INT8", (0.1,), (0,), 0, None, static_shape=(1, 8, 8, 3))
        >>> operator_support(Operator("RELU6", 2, (image,), (image,))).supported
        True
        >>> operator_support(Operator("LEAKY_RELU", 2, (image,), (image,))).mend
        'use ReLU, or PReLU(shared_axes=[1, 2])'
    """
    rule = RULES.get(operator.name)
    if rule is None:
        return _unsupported(operator.name)
    if operator.version > rule.newest_version:
        return refused(
            f"version {operator.version} is newer than compiler 16, which knows up to {rule.newest_version}",
            "convert without what needs the newer version, such as int4 weights",
            "unknown",
        )
    given = _data(operator)
    wrong = next((one for one in (*given, *operator.outputs) if one.dtype not in MAPPED_DTYPES), None)
    if wrong is not None:
        return refused(f"it works on {wrong.dtype.lower()}", _mend_of_dtype(operator, wrong))
    large = next((one for one in (*given, *operator.outputs) if prod(one.static_shape[:-3]) > 1), None)
    if large is not None:
        sizes = "×".join(map(str, large.static_shape))
        return refused(
            f"its tensor {sizes} has sizes above 1 outside the three innermost axes",
            "keep to a batch of 1 and three axes",
        )
    for tensor in _parameters(operator):
        if tensor.constant is None and 0 not in tensor.static_shape:
            return refused(f"its parameter '{tensor.name}' is computed", "use constant weights and static shapes")
    kernel = operator.inputs[1] if operator.name in _WITH_KERNEL else None
    if kernel is not None and kernel.dtype not in MAPPED_DTYPES:
        return refused(f"its weights are {kernel.dtype.lower()}", 'export with quantization="int8"')
    if kernel is not None and kernel.sparse_layout is not None:
        return refused("its weights are stored without their zeros", "export without sparse_weights", "unknown")
    return (rule.limit(operator) if rule.limit is not None else None) or accepted()


def _data(operator: Operator) -> tuple[Tensor, ...]:
    """The inputs that flow through an operator, as opposed to its parameters."""
    positions = RULES[operator.name].data
    return operator.inputs if positions is None else tuple(operator.inputs[position] for position in positions)


def _parameters(operator: Operator) -> tuple[Tensor, ...]:
    """The inputs that must be constants: weights, axes, sizes."""
    positions = RULES[operator.name].data
    if positions is None:
        return ()
    last = len(operator.inputs) - _STATES.get(operator.name, 0)
    return tuple(tensor for position, tensor in enumerate(operator.inputs[:last]) if position not in positions)


def _unsupported(name: str) -> Support:
    if name.startswith("CUSTOM"):
        return refused("custom operators run on the CPU", "keep it last in the model, or compute it outside")
    known = getattr(schema.BuiltinOperator, name, None)
    if known is None or known > NEWEST_KNOWN_OPERATOR:
        return refused(
            "the operator is newer than compiler 16, which may refuse the whole file", replacement(name), "unknown"
        )
    return refused("the Edge TPU has no such operator", replacement(name))


def _mend_of_dtype(operator: Operator, tensor: Tensor) -> str:
    if operator.name == "QUANTIZE" and tensor.is_float:
        return "export with int8 or uint8 inputs"
    return 'export with quantization="int8"' if tensor.is_float or tensor.dtype == "INT16" else replacement("")
