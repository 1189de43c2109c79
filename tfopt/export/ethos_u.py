"""The Ethos-U exporter: a model becomes an int8 .tflite that Arm's compiler Vela has compiled for the accelerator."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras

from tfopt.artifact import Artifact, check_file_path, write_artifact
from tfopt.data import Samples
from tfopt.errors import ExportError
from tfopt.export.ethos_u_estimate import CpuOperator, EthosUEstimate
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import TfliteFile, read_tflite
from tfopt.status_line import status_line
from tfopt.vela import Accelerator, Compilation, accelerator_of, compile_with_vela

__all__ = ["export_ethos_u"]

ACCELERATED = "CUSTOM ethos-u"
"""The operator that stands for everything the accelerator runs between two operators of the CPU."""


def export_ethos_u(
    model: keras.Model | Artifact,
    path: str | Path,
    *,
    target: str = "ethos-u55-128",
    calibration: Samples | None = None,
    allow_float: bool = False,
) -> Artifact:
    """Writes a .tflite that runs on an Arm Ethos-U accelerator, with Vela's estimate of how.

    The model is exported by `export_tflite`, which compares the file with Keras, and that file is compiled. The
    compiled one runs on the device only, so the comparison in its record is that of the file it was compiled from.
    `EthosUEstimate.of(artifact)` tells what runs on the accelerator, how long it is estimated to take, and which
    layers stay on the CPU and why. Pruned and clustered weights are compressed: they shorten the estimate.

    Args:
        model: a built Keras 3 model, plain or from `quantize_aware`, or the artifact of an int8 or int16x8 .tflite.
        path: the file to write, ending in .tflite.
        target: "ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512",
            "ethos-u85-128", …, "ethos-u85-2048"; underscores are taken too.
        calibration: as `export_tflite` takes it; required for a model that is not quantize-aware.
        allow_float: as `export_tflite` takes it; float operators stay on the CPU.

    Returns:
        The artifact of the compiled file. Its `verification["estimated"]` is the estimate.

    Raises:
        ConfigError: if `target` is unknown or the place cannot be written.
        MissingExtraError: if Vela is not installed: pip install 'tfopt[edge]'.
        ModelError: if the model is not one tfopt can export.
        DataError: if the calibration data does not fit, or the artifact's file has changed.
        ExportError: if the export, its verification or the compilation fails, or nothing runs on the accelerator;
            nothing is written then.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> export_ethos_u(model, "model.tflite", target="ethos-u55-100")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: export_ethos_u: target must be one of ethos-u55-32, ... Received: 'ethos-u55-100'.

    References: ethos-u-vela, SUPPORTED_OPS.md and PERFORMANCE.md of its documentation.
    """
    path = check_file_path(path, ".tflite", exporter="export_ethos_u")
    accelerator = accelerator_of(target, argument="export_ethos_u: target")
    with write_artifact(path) as write, tempfile.TemporaryDirectory(prefix="tfopt-ethos-u-") as folder:
        if isinstance(model, Artifact):
            source = Artifact.load(model.path)
        else:
            exported = Path(folder, path.name)
            source = export_tflite(model, exported, calibration=calibration, allow_float=allow_float)
        compiled = Path(folder, "compiled")
        compiled.mkdir()
        with status_line(f"Compiling {path.name} for {accelerator.name}"):
            compilation = compile_with_vela(source.path, accelerator, compiled)
        estimate = _estimate(source, compilation, accelerator)
        made = Artifact.of(
            compilation.path,
            kind="tflite",
            inputs=source.inputs,
            outputs=source.outputs,
            recipe=source.recipe,
            verification={**source.verification, "compiled_from": source.sha256, "estimated": estimate.to_dict()},
        )
        return write(made)


def _estimate(source: Artifact, compilation: Compilation, accelerator: Accelerator) -> EthosUEstimate:
    """Reads the compiled file back; refuses one that runs on the CPU alone, or has other inputs and outputs."""
    before, after = read_tflite(source.path), read_tflite(compilation.path)
    if _interface(before) != _interface(after):
        raise ExportError(
            f"Vela changed the inputs and outputs of {source.path.name}: expected {_interface(before)}. "
            f"Received: {_interface(after)}. Try another version of ethos-u-vela."
        )
    on_cpu = _cpu_operators(source, before, after, compilation)
    if ACCELERATED not in after.operator_counts:
        raise ExportError(
            f"No operator of {source.path.name} can run on {accelerator.name}: expected an int8 or int16x8 file. "
            f"Received: all {len(on_cpu)} operators left on the CPU, such as {on_cpu[0]}. "
            'Export the model with quantization "int8".'
        )
    return EthosUEstimate(
        target=accelerator.name,
        source=compilation.source,
        latency_ms=compilation.latency_ms,
        cycles=compilation.cycles,
        sram_bytes=compilation.sram_bytes,
        operators=len(before.operators),
        cpu_operators=on_cpu,
    )


def _interface(file: TfliteFile) -> list[tuple[str, tuple[int, ...], str, tuple[float, ...], tuple[int, ...]]]:
    return [
        (name, tensor.shape, tensor.dtype, tensor.scales, tensor.zero_points)
        for tensors in (file.inputs, file.outputs)
        for name, tensor in sorted(tensors.items())
    ]


def _cpu_operators(
    source: Artifact, before: TfliteFile, after: TfliteFile, compilation: Compilation
) -> tuple[CpuOperator, ...]:
    """What the compiled file leaves to the CPU, which keeps the names of its tensors."""
    layers = dict(zip((id(one) for one in before.operators), source.layers, strict=False))
    known = {tensor.name: layers.get(id(one), ()) for one in before.operators for tensor in one.outputs}
    return tuple(
        CpuOperator(
            operator=operator.name,
            layers=next((known[tensor.name] for tensor in operator.outputs if tensor.name in known), ()),
            reason=next(
                (compilation.reasons[tensor.name] for tensor in operator.outputs if tensor.name in compilation.reasons),
                "Vela gives no reason",
            ),
        )
        for operator in after.operators
        if operator.name != ACCELERATED
    )
