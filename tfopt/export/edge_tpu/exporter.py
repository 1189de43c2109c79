"""The Edge TPU exporter: an int8 .tflite of what its compiler takes, and what the Edge TPU will run of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from tfopt.artifact import Artifact, check_file_path, write_artifact, write_whole
from tfopt.data import Samples
from tfopt.export.edge_tpu.compiler import Compilation, compile_for_edge_tpu
from tfopt.export.edge_tpu.prediction import EdgeTpuPrediction, predict
from tfopt.export.edge_tpu.rewrites import rewrite_for_edge_tpu
from tfopt.export.tflite import export_tflite
from tfopt.interop.tfmot import in_keras_3
from tfopt.quantization import is_quantize_aware
from tfopt.surgery.model import check_model

__all__ = ["compiled_path", "export_edge_tpu"]


def export_edge_tpu(
    model: keras.Model,
    path: str | Path,
    *,
    calibration: Samples | None = None,
    engine: str = "converter",
    per_channel_dense: bool = True,
    io_dtype: str = "int8",
    allow_float: bool = False,
) -> Artifact:
    """Writes an int8 .tflite for a Coral Edge TPU, and tells what of it the Edge TPU will run.

    Leaky ReLUs and Dense layers on sequences become equal layers that the Edge TPU has, the model is exported by
    `export_tflite`, and then compiled by `edgetpu_compiler` where that is on PATH: the compiled file is
    `NAME_edgetpu.tflite`, beside the one for CPUs. Elsewhere its verdict is predicted by its documented rules, and
    marked as predicted: `print(tfopt.export.edge_tpu.predict(artifact))` names what stays on the CPU, by layer, and
    what to use instead.

    Args:
        model: a built Keras 3 model, plain or from `quantize_aware` (which is exported with the layers it has).
        path: the file to write, ending in .tflite.
        calibration: as `export_tflite` takes it; required for a model that is not quantize-aware.
        engine: as `export_tflite` takes it.
        per_channel_dense: False gives dense kernels one scale, which all versions of the compiler take.
        io_dtype: of inputs and outputs: "int8", or "uint8" (by the converter only), which pixels come in; the Edge TPU
            itself turns one into the other.
        allow_float: as `export_tflite` takes it; what is float, and all behind it, stays on the CPU.

    Returns:
        The artifact of the int8 file. `verification["edge_tpu"]` tells how many operators the Edge TPU runs, the bytes
        of parameters on chip and streamed, and the source: "predicted" or the compiler's version.

    Raises:
        ConfigError: if an argument is not usable or the place cannot be written.
        ModelError: if the model is not one tfopt can export.
        DataError: if the calibration data is missing or does not fit.
        ExportError: if the export, its verification or the compilation fails; nothing is written then.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> export_edge_tpu(model, "model.bin")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: export_edge_tpu: the path must be that of a file ending in .tflite. \
Received: model.bin.

    References: Coral, "TensorFlow models on the Edge TPU" and "Edge TPU Compiler".
    """
    path = check_file_path(path, ".tflite", exporter="export_edge_tpu")
    model = check_model(in_keras_3(model, calibration=calibration))
    if getattr(model, "inputs", None) and not is_quantize_aware(model):
        model = rewrite_for_edge_tpu(model)
    with write_artifact(path) as write, tempfile.TemporaryDirectory(prefix="tfopt-edge-tpu-") as folder:
        exported = export_tflite(
            model,
            Path(folder, path.name),
            "int8",
            calibration=calibration,
            engine=engine,
            per_channel_dense=per_channel_dense,
            io_dtype=io_dtype,
            allow_float=allow_float,
        )
        with _written_whole_if_compiled(exported.path, compiled_path(path)) as compilation:
            found = _compiled(compilation) if compilation is not None else _predicted(predict(exported))
            return write(exported.model_copy(update={"verification": {**exported.verification, "edge_tpu": found}}))


def compiled_path(path: Path) -> Path:
    """Where the compiled file lies: beside the other, under the name that the compiler itself gives it."""
    return path.with_name(f"{path.stem}_edgetpu.tflite")


@contextmanager
def _written_whole_if_compiled(source: Path, path: Path) -> Iterator[Compilation | None]:
    """Compiles the file; what the compiler wrote appears at `path` when the block ends."""
    made = compiled_path(source)
    compilation = compile_for_edge_tpu(source, made)
    if compilation is None:
        yield None
        return
    with write_whole(path) as temporary:
        yield compilation
        temporary.write_bytes(made.read_bytes())


def _compiled(compilation: Compilation) -> dict[str, Any]:
    return {
        "source": f"edgetpu_compiler {compilation.version}".strip(),
        "operators": compilation.operator_count,
        "mapped_operators": compilation.mapped_count,
        "subgraphs": compilation.subgraphs,
        "cached_bytes": compilation.cached_bytes,
        "streamed_bytes": compilation.streamed_bytes,
        "on_cpu": {one.name: one.status for one in compilation.operators if not one.mapped},
    }


def _predicted(prediction: EdgeTpuPrediction) -> dict[str, Any]:
    return {
        "source": "predicted",
        "operators": len(prediction.operators),
        "mapped_operators": prediction.mapped_count,
        "subgraphs": prediction.subgraphs,
        "cached_bytes": prediction.cached_bytes,
        "streamed_bytes": prediction.streamed_bytes,
        "on_cpu": {one.name: str(one) for one in prediction.operators if not one.mapped and not one.cut_off},
    }
