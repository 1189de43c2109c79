"""The TFLite exporter: a Keras model becomes one .tflite file, audited and compared with Keras before it exists."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.artifact import Artifact, TensorSpec, check_file_path, write_artifact
from tfopt.data import Samples
from tfopt.errors import ConfigError, ModelError
from tfopt.export.archive import write_archive
from tfopt.export.audit import audit
from tfopt.export.conversion import convert_saved_model
from tfopt.export.engines import Candidate, engines_for, nearest
from tfopt.export.layer_names import layer_scopes, operator_layers
from tfopt.export.model_samples import checked_samples, keras_answers, verification_samples
from tfopt.export.presets import PRESETS
from tfopt.export.signature import check_static, input_names, output_names, tensor_shapes
from tfopt.export.task_metadata import ModelMetadata, describe, reader_limits
from tfopt.export.task_metadata_file import add_metadata
from tfopt.export.tflite_compaction import compacted
from tfopt.export.tflite_file import Tensor, TfliteFile, read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.export.verify import check_sqnr, compare
from tfopt.interop.tfmot import in_keras_3
from tfopt.quantization import freeze, is_quantize_aware, settings_of, strip
from tfopt.recipe import Recipe
from tfopt.status_line import status_line
from tfopt.surgery.elementary import with_elementary_normalizations
from tfopt.surgery.model import check_model
from tfopt.surgery.precision import in_float32
from tfopt.surgery.recurrent import unroll_recurrent

__all__ = ["export_tflite"]

LARGEST_FILE_BYTES = 2**31 - 1
"""Of one flatbuffer, which a .tflite file is: its offsets have 31 bits."""
SLOW_SAMPLES = 8
"""That are run without XNNPACK, which takes many times as long; of a single one the ratio says little."""
WEIGHT_BITS = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}


def export_tflite(
    model: keras.Model,
    path: str | Path,
    quantization: str | None = None,
    *,
    calibration: Samples | None = None,
    engine: str = "converter",
    per_channel_dense: bool = True,
    io_dtype: str | None = None,
    allow_float: bool = False,
    sparse_weights: bool = False,
    metadata: ModelMetadata | None = None,
    verify: bool = True,
    recipe: Recipe | None = None,
) -> Artifact:
    """Writes a model as a .tflite file that is known to compute what Keras computes.

    The model is converted in a process of its own, the file is read back and audited (no TensorFlow-only, stateful
    or dynamic-shape operator; for int8 and int16x8 no floating-point number at all), and run beside Keras on the
    same samples. Only then it is put at `path`, with `NAME.artifact.json` beside it.

    Args:
        model: a built Keras 3 model, plain or from `quantize_aware`, or one of tf_keras (see `tfopt.from_tf_keras`).
        path: the file to write, ending in .tflite.
        quantization: a preset; by default what the model was made quantize-aware for, else "int8".
            "int8": int8 input, output and operators, for microcontrollers and fast CPU inference;
            "int8_float_io": the same with float input and output;
            "int16x8": int16 input, output and activations, int8 weights: more exact, slow on CPUs;
            "dynamic": int8 weights, float input and output, computed on int8 where the runtime can;
            "weight_only_int8", "weight_only_int4": small weights, computed in float (int4: slow on CPUs);
            "float16": weights of half the size;
            "none": float32.
        calibration: samples for the ranges of post-training int8 and of int16x8 (required there) and for the
            verification: an array of shape `(n, ...)`, a sequence or mapping of arrays, or a tf.data.Dataset of
            batches. Without them the verification runs on standard normal samples, and says so.
        engine: what quantizes a trained model: "converter" (TensorFlow's), "ai-edge-quantizer" (for all presets but
            float16 and none), or "best": both, of which the one nearer to Keras on the calibration data is kept.
            Weight-only presets always take ai-edge-quantizer: the converter has none. Which one is better depends on
            the network.
        per_channel_dense: whether dense kernels get a scale per unit in post-training int8 and int16x8; some
            accelerators want one for all. A quantize-aware model has it in its `QuantizationConfig`.
        io_dtype: the type of inputs and outputs, by default that of the preset; "uint8" for int8 by the converter, for
            an application that has bytes, such as pixels.
        allow_float: whether an int8 or int16x8 file may compute in float where it has no integer operator. Layers that
            `quantize_aware` was asked to keep in float may do so anyway. The artifact's verification names
            the operators.
        sparse_weights: whether weights with many zeros are stored without them: a smaller file. It is faster for "none"
            where dense layers have their zeros in blocks of 1×4 along the input, and was slower for "int8" (blocks
            of 1×16 only). Measure it beside the dense file (`tfopt.benchmark`).
        metadata: class labels, the normalization of images, and texts, which the file carries for TensorFlow Lite's
            Task Library and MediaPipe (`tfopt.export.task_metadata.ModelMetadata`). It is added before the audit.
        verify: whether the outputs are compared with Keras's. The audit always runs.
        recipe: recorded in the artifact; by default one with this `quantization`.

    Returns:
        The artifact; `artifact.path` is the file.

    Raises:
        ConfigError: if an argument is unknown or does not go with another, or the place cannot be written.
        ModelError: if the model is not one tfopt can export, or its weights do not fit into a .tflite file.
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
    if quantization is not None and quantization not in PRESETS:
        raise ConfigError(
            f"export_tflite: quantization must be one of {', '.join(PRESETS)}. Received: {quantization!r}."
        )
    path = check_file_path(path, ".tflite", exporter="export_tflite")
    model = check_model(in_keras_3(model, calibration=calibration))
    check_static(model, "export_tflite")
    given, model = model, in_float32(model)
    config, exceptions = settings_of(model)
    quantization = quantization or config.mode
    preset = PRESETS[quantization]
    _check_size(model, quantization)
    if sparse_weights and not preset.sparse:
        raise ConfigError(
            f"export_tflite: sparse_weights=True needs quantization "
            f"{' or '.join(name for name, one in PRESETS.items() if one.sparse)}. Received: {quantization}."
        )
    trained_for_it = is_quantize_aware(model) and config.mode in {quantization, preset.mode}
    engines = engines_for(engine, quantization, trained_for_it=trained_for_it, verify=verify)
    if not per_channel_dense and (trained_for_it or engines != ["converter"] or not preset.is_integer):
        raise ConfigError(
            "export_tflite: per_channel_dense=False is for post-training int8 and int16x8 by the converter; a "
            "quantize-aware model takes it from QuantizationConfig(per_channel_dense=False). Received: "
            f"{'a quantize-aware model' if trained_for_it else f'{quantization}, engine={engine!r}'}."
        )
    takes_uint8 = quantization == "int8" and engines == ["converter"]
    if io_dtype not in {None, preset.tensors} and not (io_dtype == "uint8" and takes_uint8):
        raise ConfigError(
            f"export_tflite: io_dtype must be {preset.tensors!r} for {quantization}; 'uint8' is for int8 by the "
            f"converter. Received: {io_dtype!r}, engine={engine!r}."
        )
    if quantization == "int16x8" and any("int" in tensor.dtype for tensor in model.inputs):
        raise ConfigError(
            "export_tflite: the converter cannot calibrate int16x8 for integer inputs, such as tokens. Received: "
            f"{', '.join(f'{x.name} {x.dtype}' for x in model.inputs)}. Take int8, or split off the embedding."
        )
    needs_ranges = quantization == "int16x8" or (preset.is_integer and not trained_for_it)
    allow_float = allow_float or (trained_for_it and any(one.activation_bits is None for one in exceptions.values()))
    recipe = recipe or Recipe(quantization=quantization)  # type: ignore[arg-type]
    if needs_ranges and calibration is None:
        raise ConfigError(
            f"export_tflite: {quantization} needs calibration=..., a few hundred typical samples, to measure the "
            "activation ranges. Received: None. (A model that is quantize-aware for int8 needs none.)"
        )
    if preset.slowdown_on_cpu is not None:
        warnings.warn(
            f"export_tflite: {quantization} is slow on CPUs: {preset.slowdown_on_cpu:g} times the latency of float32 "
            "was measured for a MobileNetV2. Measure it on your target (tfopt.benchmark).",
            UserWarning,
            stacklevel=2,
        )
    described = None if metadata is None else describe(metadata, *tensor_shapes(model))
    if described and (limits := reader_limits(described[0], integer_input=preset.integer_tensors is not None)):
        warnings.warn(limits, UserWarning, stacklevel=2)
    limit = recipe.calibration_samples
    samples = None if calibration is None else checked_samples(model, calibration, limit=limit)
    reference = model if trained_for_it or not is_quantize_aware(model) else strip(model)

    with (
        write_artifact(path) as write,
        status_line(f"Converting to {path.name} ({quantization})"),
        tempfile.TemporaryDirectory(prefix="tfopt-export-") as folder,
    ):
        convertible = unroll_recurrent(freeze(model) if trained_for_it else reference)
        if preset.is_integer and not trained_for_it:
            convertible = with_elementary_normalizations(convertible)
        scopes = layer_scopes(convertible, given)
        function = write_archive(
            convertible, Path(folder, "saved_model"), outputs=output_names(model), batch_size=1, call=scopes.call
        )

        chosen, source = verification_samples(reference, samples)
        expected = keras_answers(reference, chosen) if verify else []

        def convert(engine: str) -> Candidate:
            converted = Path(folder, engine, path.name)
            converted.parent.mkdir()
            convert_saved_model(
                Path(folder, "saved_model"),
                converted,
                quantization=quantization,
                engine=engine,
                calibration=samples if needs_ranges else None,
                per_channel_dense=config.per_channel_dense if trained_for_it else per_channel_dense,
                allow_float=allow_float,
                sparse_weights=sparse_weights,
                io_dtype=io_dtype,
            )
            layers = operator_layers(read_tflite(converted), function, scopes)
            content = compacted(converted.read_bytes())
            converted.write_bytes(content if described is None else add_metadata(content, *described))
            file = read_tflite(converted)
            floats = audit(file, layers, quantization, allow_float=allow_float)
            verification: dict[str, Any] = {"full_integer": file.is_full_integer, "operators": file.operator_counts}
            if preset.is_integer and floats:
                verification["float_operators"] = floats
            if verify:
                verification |= _verify(converted, file, quantization, chosen, source, expected, output_names(model))
            return Candidate(converted, file, layers, verification)

        best = convert(engines[0]) if len(engines) == 1 else nearest(convert, engines)
        made = Artifact.of(
            best.path,
            kind="tflite",
            inputs=tuple(_spec(name, best.file.inputs[name]) for name in input_names(model)),
            outputs=tuple(_spec(name, best.file.outputs[name]) for name in output_names(model)),
            recipe=recipe.to_dict(),
            verification=best.verification,
            layers=best.layers,
        )
        return write(made)


def _check_size(model: keras.Model, quantization: str) -> None:
    """Refuses what would be too large a file: to find that out, a converter needs minutes and five times the memory."""
    count = sum(int(np.prod(weight.shape)) for weight in model.weights)
    size_bytes = {name: count * WEIGHT_BITS[preset.weights] // 8 for name, preset in PRESETS.items()}
    if size_bytes[quantization] > LARGEST_FILE_BYTES:
        fitting = [name for name, size in size_bytes.items() if size <= LARGEST_FILE_BYTES]
        choose = f"Choose a quantization that fits ({', '.join(fitting)}), make" if fitting else "Make"
        raise ModelError(
            f"export_tflite: the weights of '{model.name}' must fit into {LARGEST_FILE_BYTES:,} bytes, the most a "
            f".tflite file may have. Received: {size_bytes[quantization]:,} bytes ({quantization}). {choose} the model "
            "smaller (tfopt.prune_channels, tfopt.factorize), or export it in parts."
        )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    return TensorSpec(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype.lower(),
        scale=tensor.scales[0] if tensor.scales else None,
        zero_point=tensor.zero_points[0] if tensor.zero_points else None,
    )


def _verify(
    path: Path,
    file: TfliteFile,
    quantization: str,
    samples: dict[str, np.ndarray],
    source: str,
    expected: list[np.ndarray],
    names: list[str],
) -> dict[str, Any]:
    """Runs the file on the samples that Keras answered; refuses one that disagrees."""
    received = run_tflite(path, samples)
    few = {name: array[:SLOW_SAMPLES] for name, array in samples.items()}
    answers = run_tflite(path, few, xnnpack=False)
    scales = [next(iter(file.outputs[name].scales), None) for name in names]
    agreement = compare(expected, [received[name] for name in names], scales=scales)
    portable = compare([array[:SLOW_SAMPLES] for array in expected], [answers[name] for name in names])
    minimum = PRESETS[quantization].minimum_sqnr_db
    for measured, runtime in ((agreement, "with XNNPACK"), (portable, "without XNNPACK")):
        check_sqnr(measured, minimum, how=f"{quantization}, {runtime}", samples_from=source)
    return {**agreement.to_dict(), "minimum_sqnr_db": minimum, "samples_from": source}
