"""The TFLite exporter: a Keras model becomes one .tflite file, audited and compared with Keras before it exists."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console

from tfopt.artifact import Artifact, TensorSpec, record_path, write_whole
from tfopt.data import Samples, check_samples
from tfopt.errors import ConfigError, ExportError, ModelError
from tfopt.export.archive import write_archive
from tfopt.export.conversion import convert_saved_model
from tfopt.export.signature import input_names, input_structure, output_names
from tfopt.export.tflite_file import Tensor, TfliteFile, read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.export.verify import Agreement, compare
from tfopt.quantization import freeze, is_quantize_aware, settings_of, strip
from tfopt.recipe import QUANTIZATIONS, Recipe
from tfopt.surgery.model import check_model
from tfopt.surgery.precision import in_float32

__all__ = ["MINIMUM_SQNR_DB", "export_tflite"]

MINIMUM_SQNR_DB = {
    "none": 60.0,
    "float16": 40.0,
    "weight_only_int8": 12.0,
    "dynamic": 12.0,
    "int16x8": 12.0,
    "int8": 8.0,
}
"""Below this signal-to-noise ratio against Keras an artifact is refused. The bounds catch what is broken (a
wrong converter gives 0 dB and less); how good a quantization is, the accuracy on data tells."""

VERIFICATION_SAMPLES = 64
SPARSE_QUANTIZATIONS = ("none", "int8")
"""Those for whose weights the runtime has sparse kernels."""
INTEGER_QUANTIZATIONS = {"int8": "INT8", "int16x8": "INT16"}
"""Those whose files compute on integers alone, with the type of input and output."""


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: str | None = None,
    *,
    calibration: Samples | None = None,
    allow_float: bool = False,
    sparse_weights: bool = False,
    verify: bool = True,
    recipe: Recipe | None = None,
) -> Artifact:
    """Writes a model as a .tflite file that is known to compute what Keras computes.

    The model is converted in a process of its own, the file is read back and audited (no TensorFlow-only, stateful
    or dynamic-shape operator; for int8 and int16x8 no floating-point number at all), and run beside Keras on the
    same samples. Only then it is put at `path`, with `NAME.artifact.json` beside it.

    Args:
        model: a built Keras 3 model, plain or from `quantize_aware`.
        path: the file to write, ending in .tflite.
        quantization: by default what the model was made quantize-aware for, else "int8".
            "int8": int8 input, output and operators, for microcontrollers and fast CPU inference;
            "int16x8": int16 input, output and activations, int8 weights: more exact, slow on CPUs;
            "dynamic": int8 weights, float input and output, computed on int8 where the runtime can;
            "weight_only_int8": int8 weights, computed in float;
            "float16": weights of half the size;
            "none": float32.
        calibration: samples for the ranges of post-training int8 and of int16x8 (required there) and for the
            verification: an array of shape `(n, ...)`, a sequence or mapping of arrays, or a tf.data.Dataset of
            batches. Without them the verification runs on standard normal samples, and says so.
        allow_float: whether an int8 or int16x8 file may compute in float where it has no integer operator. Layers that
            `quantize_aware` was asked to keep in float may do so anyway. The artifact's verification names
            the operators.
        sparse_weights: whether weights with many zeros are stored without them: a smaller file. It is faster for "none"
            where dense layers have their zeros in blocks of 1×4 along the input, and was slower for "int8" (blocks
            of 1×16 only). Measure it beside the dense file (`tfopt.benchmark`).
        verify: whether the outputs are compared with Keras's. The audit always runs.
        recipe: recorded in the artifact; by default one with this `quantization`.

    Returns:
        The artifact; `artifact.path` is the file.

    Raises:
        ConfigError: if `quantization` is unknown or the place cannot be written.
        ModelError: if the model is not one tfopt can export.
        DataError: if the calibration data is missing, empty, or does not fit.
        ExportError: if the conversion, the audit or the verification fails; nothing is written then.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> artifact = export_tflite(model, tempfile.mkdtemp() + "/model.tflite", "none")
        >>> artifact.inputs[0].shape, artifact.verification["sqnr_db"] != "no signal"
        ((1, 4), True)

    References:
        TensorFlow Lite 8-bit quantization specification.
    """
    path = Path(path)
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"export_tflite: quantization must be one of {', '.join(QUANTIZATIONS)}. Received: {quantization!r}."
        )
    if path.suffix != ".tflite" or path.is_dir():
        raise ConfigError(f"export_tflite: the path must be that of a file ending in .tflite. Received: {path}.")
    check_model(model)
    _check_static(model)
    model = in_float32(model)
    config, exceptions = settings_of(model)
    quantization = quantization or config.mode
    if sparse_weights and quantization not in SPARSE_QUANTIZATIONS:
        raise ConfigError(
            f"export_tflite: sparse_weights=True needs quantization {' or '.join(SPARSE_QUANTIZATIONS)}. "
            f"Received: {quantization}."
        )
    trained_for_it = is_quantize_aware(model) and config.mode == quantization
    integer = quantization in INTEGER_QUANTIZATIONS
    needs_ranges = quantization == "int16x8" or (integer and not trained_for_it)
    allow_float = allow_float or (trained_for_it and any(one.activation_bits is None for one in exceptions.values()))
    recipe = recipe or Recipe(quantization=quantization)  # type: ignore[arg-type]
    if needs_ranges and calibration is None:
        raise ConfigError(
            f"export_tflite: {quantization} needs calibration=..., a few hundred typical samples, to measure the "
            "activation ranges. Received: None. (A model that is quantize-aware for int8 needs none.)"
        )
    samples = None
    if calibration is not None:
        arrays = check_samples(calibration, model.inputs, limit=recipe.calibration_samples)
        samples = {
            name: array.astype(tensor.dtype)
            for name, tensor, array in zip(input_names(model), model.inputs, arrays, strict=True)
        }
    reference = model if trained_for_it or not is_quantize_aware(model) else strip(model)

    with (
        write_whole(record_path(path)) as record,  # renamed last: a record never runs ahead of its file
        write_whole(path) as temporary,
        Console(stderr=True, force_jupyter=False).status(f"Converting to {path.name} ({quantization})"),
        tempfile.TemporaryDirectory(prefix="tfopt-export-") as folder,
    ):
        convertible = freeze(model) if trained_for_it else reference
        write_archive(convertible, Path(folder, "saved_model"), outputs=output_names(model), batch_size=1)
        converted = Path(folder, path.name)
        convert_saved_model(
            Path(folder, "saved_model"),
            converted,
            quantization=quantization,
            calibration=samples if needs_ranges else None,
            per_channel_dense=not trained_for_it or config.per_channel_dense,
            allow_float=allow_float,
            sparse_weights=sparse_weights,
        )
        file = read_tflite(converted)
        _audit(file, quantization, allow_float=allow_float)
        verification: dict[str, Any] = {"full_integer": file.is_full_integer, "operators": file.operator_counts}
        if integer and not file.is_full_integer:
            verification["float_operators"] = Counter(one.name for one in file.operators if one.is_float)
        if verify:
            verification |= _verify(reference, output_names(model), converted, file, quantization, samples)
        artifact = Artifact.of(
            converted,
            kind="tflite",
            inputs=tuple(_spec(name, file.inputs[name]) for name in input_names(model)),
            outputs=tuple(_spec(name, file.outputs[name]) for name in output_names(model)),
            recipe=recipe.to_dict(),
            verification=verification,
        ).model_copy(update={"path": path})
        temporary.write_bytes(converted.read_bytes())
        record.write_text(artifact.to_record())
    return artifact


def _check_static(model: keras.Model) -> None:
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"export_tflite: the model '{model.name}' is subclassed, so its inputs have no shapes. "
            "Wrap it: x = keras.Input(shape); model = keras.Model(x, your_model(x))."
        )
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ModelError(
                f"export_tflite: the input '{tensor.name}' must have a static shape beside its batch. "
                f"Received: {tuple(tensor.shape)}. Rebuild the model with a fixed keras.Input(shape)."
            )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype.lower(),
        scale=tensor.scales[0] if tensor.scales else None,
        zero_point=tensor.zero_points[0] if tensor.zero_points else None,
    )


def _audit(file: TfliteFile, quantization: str, *, allow_float: bool) -> None:
    """Refuses a file that would fail on the device or is quietly float."""
    problems = []
    densified = {
        id(one.outputs[0]) for one in file.operators if one.name == "DENSIFY" and one.outputs[0].dtype == "INT8"
    }
    for operator in file.operators:
        writes = f"{operator.name} (it writes '{operator.outputs[0].name}')" if operator.outputs else operator.name
        if operator.name.startswith("CUSTOM"):
            problems.append(f"{writes} is no TFLite builtin")
        elif operator.name in {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}:
            problems.append(f"{writes} keeps state outside the graph")
        elif any(-1 in tensor.shape for tensor in operator.outputs):
            problems.append(f"{writes} has a dynamic shape")
        elif quantization in INTEGER_QUANTIZATIONS and operator.is_float and not allow_float:
            problems.append(f"{writes} computes in float")
        elif operator.name == "FULLY_CONNECTED" and any(id(tensor) in densified for tensor in operator.inputs):
            problems.append(
                f"{writes} has sparse int8 weights not in blocks of 16 along the input: XNNPACK refuses them"
            )
    if quantization in INTEGER_QUANTIZATIONS:
        problems += [
            f"the tensor '{name}' is {tensor.dtype}, not {INTEGER_QUANTIZATIONS[quantization]}"
            for name, tensor in (*file.inputs.items(), *file.outputs.items())
            if tensor.is_float
        ]
    if problems:
        raise ExportError(
            f"The converted file was refused ({quantization}): {'; '.join(problems[:8])}"
            f"{f'; and {len(problems) - 8} more' if len(problems) > 8 else ''}. "
            "print(tfopt.quantization.coverage(model)) names the layers without an integer rule; allow_float=True "
            "lets them compute in float."
        )


def _verify(
    reference: keras.Model,
    names: list[str],
    path: Path,
    file: TfliteFile,
    quantization: str,
    samples: dict[str, np.ndarray] | None,
) -> dict[str, Any]:
    """Runs Keras and the file on the same samples; refuses a file that disagrees."""
    source = "standard normal samples" if samples is None else "calibration data"
    chosen = {name: array[:VERIFICATION_SAMPLES] for name, array in (samples or _normal_samples(reference)).items()}
    inputs = keras.tree.pack_sequence_as(input_structure(reference), list(chosen.values()))
    expected = [np.asarray(array) for array in keras.tree.flatten(reference.predict(inputs, verbose=0))]
    received = run_tflite(path, chosen)
    first = run_tflite(path, {name: array[:1] for name, array in chosen.items()}, xnnpack=False)
    scales = [next(iter(file.outputs[name].scales), None) for name in names]
    agreement = compare(expected, [received[name] for name in names], scales=scales)
    portable = compare([array[:1] for array in expected], [first[name] for name in names])
    minimum = MINIMUM_SQNR_DB[quantization]
    for measured, runtime in ((agreement, "with XNNPACK"), (portable, "without XNNPACK")):
        if not measured.sqnr_db >= minimum:
            raise ExportError(_disagreement(measured, runtime, quantization, minimum, source))
    return {**agreement.to_dict(), "minimum_sqnr_db": minimum, "samples_from": source}


def _disagreement(measured: Agreement, runtime: str, quantization: str, minimum: float, source: str) -> str:
    return (
        f"The converted file disagrees with Keras ({quantization}, {runtime}): expected a signal-to-noise ratio of at "
        f"least {minimum:g} dB on {measured.samples} samples ({source}). Received: {measured.sqnr_db:.1f} dB, "
        f"largest error {measured.max_absolute_error:.3g}. "
        "If the samples are typical, fine-tune the model with tfopt.quantize_aware first."
    )


def _normal_samples(model: keras.Model, count: int = 32) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal((count, *tensor.shape[1:])).astype(tensor.dtype)
        if "float" in tensor.dtype
        else np.zeros((count, *tensor.shape[1:]), tensor.dtype)
        for name, tensor in zip(input_names(model), model.inputs, strict=True)
    }
