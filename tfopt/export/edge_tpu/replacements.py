"""What to use instead of operators that the Edge TPU does not have, in the terms of Keras."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["REPLACEMENTS", "replacement"]

ON_HOST = "compute it outside the model"

REPLACEMENTS = MappingProxyType(
    {
        "ABS": "use keras.ops.maximum(x, -1 * x)",
        "ARG_MAX": "return the scores and take the argmax outside the model",
        "ARG_MIN": "return the scores and take the argmin outside the model",
        "BATCH_MATMUL": "use Dense or Conv2D with constant weights; attention stays on the CPU",
        "BATCH_TO_SPACE_ND": "set dilation_rate on the convolution itself, the same in both directions",
        "BIDIRECTIONAL_SEQUENCE_LSTM": "use a unidirectional LSTM",
        "BROADCAST_TO": "let the following operation broadcast",
        "CAST": "give the model int8 or uint8 inputs and outputs",
        "CONV_3D": "use Conv2D, or one Conv2D for each step",
        "DENSIFY": "export without sparse_weights",
        "DEPTH_TO_SPACE": "use Conv2DTranspose, or UpSampling2D and Conv2D",
        "DEQUANTIZE": "export with int8 or uint8 outputs and scale them outside the model",
        "DIV": "multiply by the reciprocal, as a constant",
        "ELU": "use ReLU or ReLU6",
        "EMBEDDING_LOOKUP": "look the embedding up outside the model",
        "EXP": "use sigmoid or tanh",
        "GATHER": "use slices, or look it up outside the model",
        "GATHER_ND": "use slices, or look it up outside the model",
        "GELU": "use ReLU6, or x * sigmoid(1.702 * x)",
        "HARD_SWISH": "use ReLU6, or swish (x * sigmoid(x))",
        "LEAKY_RELU": "use ReLU, or PReLU(shared_axes=[1, 2])",
        "LOG": ON_HOST,
        "LOG_SOFTMAX": "end with softmax, or with the logits",
        "MIRROR_PAD": "pad with zeros",
        "NEG": "multiply by -1",
        "ONE_HOT": ON_HOST,
        "PADV2": "pad with zeros",
        "POW": "multiply x by itself",
        "RANGE": "use a constant",
        "SHAPE": "give the model a static shape",
        "SPACE_TO_BATCH_ND": "set dilation_rate on the convolution itself, the same in both directions",
        "SPLIT_V": "split into equal parts",
        "SQRT": "use keras.ops.rsqrt",
        "SQUARE": "use x * x",
        "TOPK_V2": "return the scores and rank them outside the model",
        "UNIDIRECTIONAL_SEQUENCE_RNN": "use LSTM",
        "UNPACK": "use slices",
        "WHILE": "use LSTM, or unroll=True",
    }
)


def replacement(operator: str) -> str:
    """What to do about an operator that is not supported.

    Example:
        >>> replacement("LEAKY_RELU")
        'use ReLU, or PReLU(shared_axes=[1, 2])'
        >>> replacement("CUMSUM")
        'move it behind the last layer that is to run on the Edge TPU, or compute it outside the model'
    """
    default = f"move it behind the last layer that is to run on the Edge TPU, or {ON_HOST}"
    return REPLACEMENTS.get(operator, default)
