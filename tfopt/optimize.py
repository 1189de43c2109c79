"""From a trained model to the smallest file that keeps its accuracy: post-training int8 first, training only if needed.

The module is light, so that `import tfopt` loads no TensorFlow; what is heavy is loaded when `optimize` is called.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt.artifact import Artifact, write_whole
from tfopt.errors import ConfigError, ExportError
from tfopt.recipe import FineTuning, Recipe

if TYPE_CHECKING:
    import keras

    from tfopt.benchmark.report import Report

__all__ = ["Candidate", "Result", "optimize"]

TARGETS = ("tflite",)


@dataclass(frozen=True)
class Candidate:
    """One thing that was tried.

    Args:
        name: what it is.
        recipe: how it was made.
        artifact: the verified file, or None where the export was refused.
        score: on the validation data, of the metric in the report; None where there is no file.
        drop: the float model's score minus this one's.
        remark: why it was taken, or not.
    """

    name: str
    recipe: Recipe
    artifact: Artifact | None
    score: float | None
    drop: float | None
    remark: str


@dataclass(frozen=True)
class Result:
    """What `optimize` returns; printing it tells what was tried and why.

    Args:
        artifact: the chosen file.
        recipe: the recipe that makes it again.
        report: every candidate measured beside the float model.
        candidates: everything tried, in order, the float model first.
        within_max_drop: whether the chosen file's drop is allowed. If none is, the best one was chosen.
    """

    artifact: Artifact
    recipe: Recipe
    report: Report
    candidates: tuple[Candidate, ...]
    within_max_drop: bool

    def __str__(self) -> str:
        lines = []
        for candidate in self.candidates:
            score = "no file" if candidate.score is None else f"{self.report.metric} {candidate.score:.4f}"
            lines.append(f"{candidate.name}: {score}. {candidate.remark}")
        lines.append(f"Chosen: {self.artifact.path} ({self.artifact.size_bytes:,} bytes)")
        return "\n".join(lines)


def optimize(
    model: keras.Model | str | Path,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    *,
    target: str = "tflite",
    max_drop: float = 0.01,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    loss: Any = None,
    metric: str | Callable[[Any, Any], float] | None = None,
    verbose: int = 0,
) -> Result:
    """Makes a trained model small and fast, and keeps its accuracy within a bound.

    Post-training int8 is tried first, since it costs seconds. Where it loses more than `max_drop` on the validation
    data, the model is fine-tuned quantization-aware on the training data. Each candidate is exported, verified
    against Keras, scored, and timed beside the float model in one run.

    Args:
        model: a trained Keras 3 model, or the path of one (.keras, .h5).
        train: `(x, y)` for calibration and fine-tuning, with x of shape `(n, ...)`.
        validation: `(x, y)` that scores are measured on.
        target: "tflite" (int8 for mobile CPUs and microcontrollers).
        max_drop: how much score may be lost, as a fraction: 0.01 is one point of accuracy.
        out: folder for the chosen `model.tflite` with its record, `recipe.yaml`, `report.json`, `report.html`
            and all candidates; default: a new temporary folder.
        recipe: settings of calibration and fine-tuning. With `fine_tuning=None` (the default recipe has it set)
            only post-training int8 is tried.
        loss: of the fine-tuning, as Keras's `compile` takes it; by default what fits the targets.
        metric: as `tfopt.benchmark` takes it; by default accuracy for classes, R² for float targets.
        verbose: as in Keras's `fit`, for the fine-tuning.

    Returns:
        The result: `artifact`, `recipe`, `report`, `candidates`.

    Raises:
        ConfigError: if an argument is not usable or the folder cannot be written.
        ModelError: if the model is not one that tfopt can work on.
        DataError: if the data does not fit the model.
        ExportError: if no candidate could be exported.

    Example:
        >>> import keras, numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4).astype("float32"), np.arange(64) % 3
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        >>> result = optimize(model, (x, y), (x, y), max_drop=0.5)
        >>> result.within_max_drop, result.artifact.verification["full_integer"]
        (True, True)
    """
    from tfopt.benchmark import benchmark
    from tfopt.benchmark.metric import score
    from tfopt.data import check_samples
    from tfopt.export.signature import input_names, output_names
    from tfopt.export.tflite import export_tflite
    from tfopt.export.tflite_runtime import run_tflite
    from tfopt.fine_tuning import fine_tune
    from tfopt.interop.tfmot import in_keras_3
    from tfopt.model_file import load_model
    from tfopt.quantization import coverage
    from tfopt.surgery.model import check_model

    if target not in TARGETS:
        raise ConfigError(f"optimize: target must be one of {', '.join(TARGETS)}. Received: {target!r}.")
    if not 0 <= max_drop < 1:
        hint = f" Did you mean {max_drop / 100:g}?" if 1 <= max_drop <= 100 else ""
        raise ConfigError(f"optimize: max_drop must be a fraction in [0, 1). Received: {max_drop:g}.{hint}")
    model = check_model(in_keras_3(model)) if not isinstance(model, (str, Path)) else load_model(model)
    x_train, y_train = train
    x_validation, y_validation = validation
    check_samples(x_train, model.inputs, what="training")
    samples = dict(zip(input_names(model), check_samples(x_validation, model.inputs, what="validation"), strict=True))
    recipe = recipe or Recipe(fine_tuning=FineTuning())
    if recipe.quantization != "int8":
        raise ConfigError(
            f"optimize: the recipe's quantization must be int8 for {target}. Received: {recipe.quantization!r}. "
            "For another one use tfopt.export_tflite."
        )
    out = Path(tempfile.mkdtemp(prefix="tfopt-optimize-") if out is None else out)
    candidates: list[Candidate] = []

    def try_candidate(name: str, candidate: keras.Model, tried: Recipe) -> Candidate:
        path = out / "candidates" / f"{name.replace(' ', '_')}.tflite"
        try:
            artifact = export_tflite(candidate, path, tried.quantization, calibration=x_train, recipe=tried)
        except ExportError as error:
            if tried.quantization == "none":
                raise
            return Candidate(name, tried, None, None, None, f"The export was refused: {error}")
        predictions = run_tflite(path, samples)
        value = score(y_validation, [predictions[key] for key in output_names(candidate)], metric).value
        if not candidates:
            return Candidate(name, tried, artifact, value, 0.0, "The baseline.")
        drop = (candidates[0].score or 0.0) - value
        verdict = "within" if drop <= max_drop else "more than"
        return Candidate(
            name, tried, artifact, value, drop, f"It loses {drop:+.4f}, {verdict} the {max_drop:g} allowed."
        )

    post_training = recipe.model_copy(update={"fine_tuning": None})
    candidates.append(try_candidate("float32", model, post_training.model_copy(update={"quantization": "none"})))
    candidates.append(try_candidate("int8 post-training", model, post_training))
    if not _is_within(candidates[-1], max_drop) and recipe.fine_tuning is not None:
        aware = fine_tune(
            model,
            x_train,
            y_train,
            settings=recipe.fine_tuning,
            calibration_samples=recipe.calibration_samples,
            loss=loss,
            verbose=verbose,
        )
        candidates.append(try_candidate("int8 quantization-aware", aware, recipe))

    exported = [candidate for candidate in candidates[1:] if candidate.artifact is not None]
    if not exported:
        raise ExportError("optimize: no int8 candidate could be exported. " + candidates[-1].remark)
    chosen = min(exported, key=lambda candidate: candidate.drop or 0.0)
    report = benchmark(
        {candidate.name: candidate.artifact for candidate in candidates if candidate.artifact is not None},
        (x_validation, y_validation),
        metric=metric,
        coverage=[(row.layer, row.kind, row.quantized, row.remark) for row in coverage(model).rows],
        title=f"{model.name}: float32 to {chosen.name}",
    )
    result = Result(
        artifact=_place(chosen, out / "model.tflite"),
        recipe=chosen.recipe,
        report=report,
        candidates=tuple(candidates),
        within_max_drop=_is_within(chosen, max_drop),
    )
    result.recipe.save(out / "recipe.yaml")
    report.save(out)
    return result


def _is_within(candidate: Candidate, max_drop: float) -> bool:
    return candidate.drop is not None and candidate.drop <= max_drop


def _place(chosen: Candidate, path: Path) -> Artifact:
    """Copies the chosen candidate to where the user looks for it."""
    assert chosen.artifact is not None  # only exported candidates are chosen from
    artifact = chosen.artifact.model_copy(update={"path": path})
    with write_whole(artifact.record_path) as record, write_whole(path) as temporary:
        shutil.copyfile(chosen.artifact.path, temporary)
        record.write_text(artifact.to_record())
    return artifact
