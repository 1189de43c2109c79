"""Early exits as a .tflite file: a signature for each stage, so that a caller stops where a sample leaves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.artifact import Artifact, TensorSpec, check_file_path, write_artifact, write_whole
from tfopt.data import Samples, check_samples
from tfopt.early_exit.evaluation import exit_outputs
from tfopt.early_exit.merging import merge_tflite
from tfopt.early_exit.policy import ExitPolicy
from tfopt.early_exit.runner import EarlyExitRunner
from tfopt.early_exit.staged_file import StagedFile, StageRecord, staged_file_path
from tfopt.early_exit.stages import Stages, split_stages
from tfopt.errors import ModelError
from tfopt.export.tflite import export_tflite
from tfopt.quantization import is_quantize_aware
from tfopt.recipe import Recipe
from tfopt.surgery.model import check_model
from tfopt.surgery.precision import in_float32

__all__ = ["export_early_exit_tflite"]

COMPARED_SAMPLES = 64


def export_early_exit_tflite(
    network: keras.Model,
    path: str | Path,
    policy: ExitPolicy,
    quantization: str = "int8",
    *,
    calibration: Samples | None = None,
    allow_float: bool = False,
) -> Artifact:
    """Writes a network with early exits as one .tflite file that is run stage by stage.

    The file has a signature for each stage, `stage_1` and so on. A stage gives its exit's answer and the tensors that
    later stages read, so what is not called is not computed, and no weight is there twice. Each stage goes through
    `tfopt.export_tflite`, audited and compared with Keras. `NAME.exits.json` beside the file tells the thresholds and
    which tensor goes where; `EarlyExitRunner` reads it, and runs the file. Changing a threshold needs no new export.

    A network is quantized after training here: stages of a quantize-aware one are refused.

    Args:
        network: a trained network that `tfopt.early_exit` made, or a model whose outputs are exits in order. One of
            mixed precision is written in float32.
        path: the file to write, ending in .tflite.
        policy: the thresholds; see `choose_thresholds`.
        quantization: as `export_tflite` takes it: "int8", "none", "float16", "dynamic", ….
        calibration: a few hundred typical samples; required for int8. With them it is also measured how often the file
            leaves where Keras does, and answers the same.
        allow_float: as `export_tflite` takes it.

    Returns:
        The artifact; its inputs are the network's, its output is the last exit's.

    Raises:
        ConfigError: if the policy is of another network, or an argument is not usable.
        ModelError: if the model is not one of several exits, or quantize-aware.
        DataError: if the calibration data does not fit.
        ExportError: if a stage is refused; nothing is written then.

    Example:
        >>> policy = ExitPolicy(exits=("exit_1", "classes"), thresholds=(0.9,))
        >>> export_early_exit_tflite(keras.Sequential(), "model.bin", policy)
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: export_early_exit_tflite: the path must be that of a file ending in .tflite. \
Received: model.bin.

    References: TensorFlow Lite's schema.fbs (`SignatureDef`).
    """
    path = check_file_path(path, ".tflite", exporter="export_early_exit_tflite")
    check_model(network)
    if is_quantize_aware(network):
        raise ModelError(
            "export_early_exit_tflite: expected a float network, which is quantized after training. Received: a "
            f"quantize-aware one ('{network.name}'). Give tfopt.quantization.strip(network)."
        )
    network = in_float32(network)
    stages = split_stages(network)
    policy.check_fits(stages.exits, from_logits=stages.from_logits)
    recipe = Recipe(quantization=quantization)  # type: ignore[arg-type]
    with (
        write_artifact(path) as write,
        write_whole(staged_file_path(path)) as exits,
        tempfile.TemporaryDirectory(prefix="tfopt-early-exit-") as folder,
    ):
        parts = _export_stages(stages, Path(folder), quantization, calibration, allow_float, recipe)
        keys = [f"stage_{number}" for number in range(1, len(parts) + 1)]
        merged = Path(folder, path.name)
        merged.write_bytes(merge_tflite(dict(zip(keys, (part.path for part in parts), strict=True))))
        staged = StagedFile(
            policy,
            tuple(
                StageRecord(key, stage.reads, stage.writes, part.inputs, part.outputs)
                for key, stage, part in zip(keys, stages.stages, parts, strict=True)
            ),
        )
        exits.write_text(staged.to_json())
        staged_file_path(merged).write_text(staged.to_json())
        verification: dict[str, Any] = {"stages": [part.verification for part in parts]}
        runner = EarlyExitRunner(merged)
        if calibration is not None:
            verification |= _compare(network, runner, policy, calibration)
        made = Artifact.of(
            merged,
            kind="tflite",
            inputs=_as_in_file(runner.inputs),
            outputs=parts[-1].outputs[:1],
            recipe=recipe.to_dict(),
            verification=verification,
            layers=tuple(names for part in parts for names in part.layers),
        )
        return write(made)


def _export_stages(
    stages: Stages,
    folder: Path,
    quantization: str,
    calibration: Samples | None,
    allow_float: bool,
    recipe: Recipe,
) -> list[Artifact]:
    """Exports each stage, calibrated on what the stages before it give for the samples."""
    tensors: dict[str, np.ndarray] = {}
    if calibration is not None:
        first = stages.stages[0]
        inputs = dict(zip(first.reads, first.model.inputs, strict=True))
        arrays = check_samples(calibration, list(inputs.values()), limit=recipe.calibration_samples)
        tensors = dict(zip(inputs, arrays, strict=True))
    artifacts = []
    for number, stage in enumerate(stages.stages, start=1):
        samples = {name: tensors[name] for name in stage.reads} if calibration is not None else None
        artifacts.append(
            export_tflite(
                stage.model,
                folder / f"stage_{number}.tflite",
                quantization,
                calibration=samples,
                allow_float=allow_float,
                recipe=recipe,
            )
        )
        if samples is not None:
            given = stage.model.predict(list(samples.values()), batch_size=64, verbose=0)
            tensors |= dict(zip(stage.writes, keras.tree.flatten(given), strict=True))
    return artifacts


def _compare(network: keras.Model, runner: EarlyExitRunner, policy: ExitPolicy, samples: Samples) -> dict[str, Any]:
    chosen = check_samples(samples, network.inputs, limit=COMPARED_SAMPLES)
    data = dict(zip((tensor.name for tensor in network.inputs), chosen, strict=True))
    expected, expected_exits = policy.decide(exit_outputs(network, data, what="calibration"))
    received, exits = runner.predict(chosen if len(chosen) > 1 else chosen[0])
    return {
        "samples": len(exits),
        "same_exit": float(np.mean(exits == expected_exits)),
        "top1_agreement": float(np.mean(received.argmax(-1) == expected.argmax(-1))),
    }


def _as_in_file(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(spec.model_copy(update={"shape": (1, *spec.shape[1:])}) for spec in specs)
