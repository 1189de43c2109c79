"""The ONNX exporter: a Keras model becomes one .onnx file, audited and compared with Keras before it exists."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.artifact import Artifact, TensorSpec, check_file_path, write_artifact
from tfopt.data import Samples
from tfopt.errors import ConfigError, ExportError, ModelError
from tfopt.export.archive import write_archive
from tfopt.export.model_samples import checked_samples, keras_answers, verification_samples
from tfopt.export.onnx_audit import audit_onnx
from tfopt.export.onnx_conversion import convert_to_onnx
from tfopt.export.onnx_file import OnnxTensor, read_onnx
from tfopt.export.onnx_runtime import float_operators, require_onnxruntime, run_onnx
from tfopt.export.signature import check_static, input_names, output_names
from tfopt.export.verify import check_sqnr, compare, relative_error
from tfopt.interop.tfmot import in_keras_3
from tfopt.quantization import is_quantize_aware, strip
from tfopt.recipe import Recipe
from tfopt.status_line import status_line
from tfopt.surgery.model import check_model
from tfopt.surgery.precision import in_float32

__all__ = ["MINIMUM_SQNR_DB", "ONNX_QUANTIZATIONS", "OPSETS", "export_onnx"]

ONNX_QUANTIZATIONS = ("none", "float16", "int8")
MINIMUM_SQNR_DB = {"none": 60.0, "float16": 40.0, "int8": 8.0}
"""Below this signal-to-noise ratio against Keras an artifact is refused, as in `tfopt.export.tflite`."""
FLOAT32_TOLERANCE = 1e-4
"""The largest error of a float32 file, as a fraction of an output's largest value."""
OPSETS = range(13, 19)
"""From the first with a scale per channel to the last that tf2onnx writes."""
DEFAULT_OPSET = 15
"""Which tf2onnx is mostly tested with."""
BATCH_SIZES = (1, 3)
"""That the open batch is proved with."""
LARGEST_FILE_BYTES = 2**31 - 1
"""Of one protobuf message, which an .onnx file is."""


def export_onnx(
    model: keras.Model,
    path: str | Path,
    quantization: str = "none",
    *,
    calibration: Samples | None = None,
    opset: int | None = None,
    verify: bool = True,
    recipe: Recipe | None = None,
) -> Artifact:
    """Writes a model as an .onnx file that is known to compute what Keras computes.

    The model is converted in a process of its own, the file is read back and audited (ONNX's checker, no operator
    that is not ONNX's own, weights of the type asked for), run in ONNX Runtime with batches of one and of three
    samples, and compared with Keras. Only then it is put at `path`, with `NAME.artifact.json` beside it. The first
    size of each input and output is open and called `batch`. Needs the extra `onnx`.

    Args:
        model: a built Keras 3 model. Of one from `quantize_aware` the float model within it is exported: its weights
            are made for rounding, and for int8 its ranges are measured anew, on the calibration samples.
        path: the file to write, ending in .onnx.
        quantization: "none": float32;
            "float16": float16 weights and operators, float32 input and output: half the size, for GPUs and NPUs;
            "int8": int8 weights with a scale per channel, uint8 activations, float32 input and output, in pairs of
            QuantizeLinear and DequantizeLinear: for CPUs with int8 products (x86 with VNNI, ARM) and NPUs. Recurrent
            layers stay float, and so does what ONNX Runtime has no int8 operator for; the artifact's verification
            names the operators that it computes in float.
        calibration: samples for the ranges of int8 (required there) and for the verification: an array of shape
            `(n, ...)`, a sequence or mapping of arrays, or a tf.data.Dataset of batches. Without them the verification
            runs on standard normal samples, and says so.
        opset: version of ONNX's operators, from 13 to 18; by default 15.
        verify: whether the outputs are compared with Keras's. The audit always runs, and so does the file.
        recipe: recorded in the artifact; by default one with this `quantization`.

    Returns:
        The artifact; `artifact.path` is the file.

    Raises:
        ConfigError: if `quantization` or `opset` is unknown, calibration data is missing, or the place cannot be
            written.
        MissingExtraError: if ONNX Runtime is not installed.
        ModelError: if the model is not one tfopt can export.
        DataError: if the calibration data is empty or does not fit.
        ExportError: if the conversion, the audit or the verification fails; nothing is written then.

    Example:
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)])
        >>> artifact = export_onnx(model, tempfile.mkdtemp() + "/model.onnx")
        >>> artifact.inputs[0].shape, artifact.verification["opset"]
        ((None, 4), 15)

    References:
        onnx.ai/onnx/operators; onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    if quantization not in ONNX_QUANTIZATIONS:
        raise ConfigError(
            f"export_onnx: quantization must be one of {', '.join(ONNX_QUANTIZATIONS)}. Received: {quantization!r}."
        )
    if opset not in OPSETS:
        raise ConfigError(f"export_onnx: opset must be from {OPSETS[0]} to {OPSETS[-1]}. Received: {opset!r}.")
    path = check_file_path(path, ".onnx", exporter="export_onnx")
    require_onnxruntime("The ONNX export")
    model = check_model(in_keras_3(model, calibration=calibration))
    check_static(model, "export_onnx")
    _check_size(model)
    model = in_float32(model)
    recipe = recipe or Recipe(quantization=quantization)  # type: ignore[arg-type]
    if quantization == "int8" and calibration is None:
        raise ConfigError(
            "export_onnx: int8 needs calibration=..., a few hundred typical samples, to measure the activation ranges. "
            "Received: None."
        )
    limit = recipe.calibration_samples
    samples = None if calibration is None else checked_samples(model, calibration, limit=limit)
    reference = strip(model) if is_quantize_aware(model) else model
    names = output_names(model)

    with (
        write_artifact(path) as write,
        status_line(f"Converting to {path.name} ({quantization})"),
        tempfile.TemporaryDirectory(prefix="tfopt-export-") as folder,
    ):
        write_archive(reference, Path(folder, "saved_model"), outputs=names, batch_size=None)
        converted = Path(folder, path.name)
        convert_to_onnx(
            Path(folder, "saved_model"),
            converted,
            quantization=quantization,
            inputs=input_names(model),
            outputs=names,
            opset=opset,
            calibration=samples if quantization == "int8" else None,
        )
        file = read_onnx(converted)
        audit_onnx(converted, file, quantization)
        verification: dict[str, Any] = {"opset": file.opset, "operators": file.operator_counts}
        if quantization == "int8":
            verification["float_operators"] = float_operators(converted)
        verification |= _run(reference, names, converted, quantization, samples, verify=verify)
        made = Artifact.of(
            converted,
            kind="onnx",
            inputs=tuple(_spec(name, file.inputs[name]) for name in input_names(model)),
            outputs=tuple(_spec(name, file.outputs[name]) for name in names),
            recipe=recipe.to_dict(),
            verification=verification,
        )
        return write(made)


def _check_size(model: keras.Model) -> None:
    size_bytes = sum(int(np.prod(weight.shape)) * 4 for weight in model.weights)
    if size_bytes > LARGEST_FILE_BYTES:
        raise ModelError(
            f"export_onnx: the weights of '{model.name}' must fit into {LARGEST_FILE_BYTES:,} bytes, the most an .onnx "
            f"file may have. Received: {size_bytes:,} bytes. Make it smaller (tfopt.prune_channels, tfopt.factorize), "
            "or export it in parts."
        )


def _spec(name: str, tensor: OnnxTensor) -> TensorSpec:
    return TensorSpec(name=name, shape=tensor.shape or (), dtype=tensor.dtype)


def _run(
    reference: keras.Model,
    names: list[str],
    path: Path,
    quantization: str,
    samples: dict[str, np.ndarray] | None,
    *,
    verify: bool,
) -> dict[str, Any]:
    """Runs Keras and the file on the same samples, in batches of several sizes; refuses a file that disagrees."""
    chosen, source = verification_samples(reference, samples)
    few = {name: array[: max(BATCH_SIZES)] for name, array in chosen.items()}
    received = {size: run_onnx(path, few if size == 1 else chosen, batch_size=size) for size in BATCH_SIZES}
    if not verify:
        return {}
    expected = keras_answers(reference, chosen)
    measured: dict[str, Any] = {}
    for size, answers in received.items():
        outputs = [answers[name] for name in names]
        wanted = [array[: max(BATCH_SIZES)] if size == 1 else array for array in expected]
        for name, right, output in zip(names, wanted, outputs, strict=True):
            if right.shape != output.shape:
                raise ExportError(
                    f"The converted file disagrees with Keras (batch size {size}): the output '{name}' must have the "
                    f"shape {right.shape}. Received: {output.shape}. Check for layers with a fixed batch size."
                )
        how = f"{quantization}, batch size {size}"
        agreement = compare(wanted, outputs)
        check_sqnr(agreement, MINIMUM_SQNR_DB[quantization], how=how, samples_from=source)
        error = relative_error(wanted, outputs)
        if quantization == "none" and not error <= FLOAT32_TOLERANCE:
            raise ExportError(
                f"The converted file disagrees with Keras ({how}): expected errors of at most {FLOAT32_TOLERANCE:g} of "
                f"an output's largest value ({source}). Received: {error:.3g}."
            )
        measured = {**agreement.to_dict(), "relative_error": error}  # of the last, which has all samples
    tolerance = {"tolerance": FLOAT32_TOLERANCE} if quantization == "none" else {}
    return {
        **measured,
        **tolerance,
        "minimum_sqnr_db": MINIMUM_SQNR_DB[quantization],
        "samples_from": source,
        "batch_sizes": list(BATCH_SIZES),
    }
