"""An ONNX model with int8 or float16 numbers, by ONNX Runtime's own tools.

They are imported in the functions: `onnxruntime` is an extra, and only the converter's process loads its tools.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CalibrationBatches", "quantize_float16", "quantize_int8"]

CALIBRATION_BATCH_SIZE = 16


class CalibrationBatches:
    """Samples as ONNX Runtime's calibrator reads them: a batch at each call, then None.

    Args:
        samples: arrays of shape `(n, ...)` by input name.

    Example:
        >>> batches = CalibrationBatches({"x": np.zeros((20, 3))})
        >>> [None if batch is None else len(batch["x"]) for batch in (batches.get_next() for _ in range(3))]
        [16, 4, None]
    """

    def __init__(self, samples: dict[str, np.ndarray]) -> None:
        self._samples = samples
        self._starts = iter(range(0, len(next(iter(samples.values()))), CALIBRATION_BATCH_SIZE))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch."""
        start = next(self._starts, None)
        if start is None:
            return None
        return {name: array[start : start + CALIBRATION_BATCH_SIZE] for name, array in self._samples.items()}


def quantize_int8(model: Any, samples: dict[str, np.ndarray]) -> Any:
    """Returns an `onnx.ModelProto` with int8 weights and uint8 activations, in pairs of (de)quantizing operators.

    Weights are symmetric with a scale per channel; activations have one range, the smallest and largest value that
    the samples gave. Of these two types x86 has a product of its own; with int8 activations it is slower.

    Args:
        model: a float model.
        samples: arrays of shape `(n, ...)` by input name.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="tfopt-quantization-") as folder:
        converted, folded, quantized = (Path(folder, f"{step}.onnx") for step in ("converted", "folded", "quantized"))
        onnx.save(model, converted)  # as a file: given in memory, its constants are lost on the way
        quant_pre_process(converted, folded, skip_symbolic_shape=True)  # the shapes are static, but for the batch
        quantize_static(
            folded,
            quantized,
            CalibrationBatches(samples),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return _without_unused_domains(onnx.load(quantized))


def quantize_float16(model: Any) -> Any:
    """Returns an `onnx.ModelProto` that computes in float16, with float32 inputs and outputs.

    Operators that runtimes know in float32 only stay so.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = ONNXModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()  # the casts of the inputs were put last
    return converted.model


def _without_unused_domains(model: Any) -> Any:
    """ONNX Runtime's optimizer imports every operator set that it knows, its own and PyTorch's among them."""
    used = {node.domain for node in model.graph.node} | {""}
    for operators in [one for one in model.opset_import if one.domain not in used]:
        model.opset_import.remove(operators)
    return model
