"""The end of an optimization: one candidate is chosen, scored on held-back data, put into its place, and reported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfopt.artifact import Artifact, write_whole
from tfopt.benchmark import benchmark
from tfopt.benchmark.metric import score
from tfopt.benchmark.report import Report
from tfopt.budget import Budget
from tfopt.errors import ExportError
from tfopt.optimization.held_back import HeldBackDrop, held_back_drop
from tfopt.optimization.result import Candidate, Result
from tfopt.optimization.samples import LabelledSamples
from tfopt.optimization.trials import Trials
from tfopt.quantization import coverage
from tfopt.serving.folder import export_serving, next_version

__all__ = ["conclude"]


def conclude(
    trials: Trials,
    held_back: LabelledSamples,
    out: Path,
    *,
    budget: Budget | None,
    obstacles: tuple[str, ...],
    price_per_hour: float | None = None,
) -> Result:
    """Chooses, measures and writes.

    Args:
        trials: with the candidates.
        held_back: samples that no candidate was chosen by.
        out: the folder for the chosen file, its recipe and the report.
        budget: what the model may cost.
        obstacles: what prevents a better one.
        price_per_hour: for the cost of a million inferences in the report.

    Raises:
        ExportError: if there is no file to choose.
    """
    chosen = _chosen(trials, budget)
    result = Result(
        artifact=_placed(trials, chosen, out),
        recipe=chosen.recipe,
        report=_report(trials, chosen, held_back, price_per_hour),
        candidates=tuple(trials.candidates),
        chosen=chosen.name,
        max_drop=trials.max_drop,
        budget=budget,
        held_back=_drop(trials, chosen, held_back),
        obstacles=obstacles,
    )
    report = result.report.model_copy(update={"notes": (*result.report.notes, *result.explanation())})
    result.recipe.save(out / "recipe.yaml")
    report.save(out)
    return replace(result, report=report)


def _chosen(trials: Trials, budget: Budget | None) -> Candidate:
    """Of those that are accurate enough the cheapest, or closest to the budget; where none is, the most accurate."""
    baseline, *others = trials.candidates
    exported = [candidate for candidate in others if candidate.artifact is not None]
    if not exported and others:
        raise ExportError(f"optimize: no candidate could be exported. {others[-1].remark}")
    accurate = [candidate for candidate in exported if candidate.is_within(trials.max_drop)]
    if accurate:
        return min(accurate, key=lambda candidate: (candidate.cost_rank(budget, baseline), candidate.drop))
    return min(exported or [baseline], key=lambda candidate: candidate.drop or 0.0)


def _drop(trials: Trials, chosen: Candidate, held_back: LabelledSamples) -> HeldBackDrop:
    files = {"baseline": trials.baseline.artifact, "candidate": chosen.artifact}
    predictions = {
        name: trials.predictions(artifact, held_back.x) for name, artifact in files.items() if artifact is not None
    }

    def score_of(name: str, rows: np.ndarray) -> float:
        return score(held_back.at(rows).y, [output[rows] for output in predictions[name]], trials.metric).value

    return held_back_drop(score_of, len(held_back))


def _report(trials: Trials, chosen: Candidate, held_back: LabelledSamples, price_per_hour: float | None) -> Report:
    rows = coverage(trials.model).rows if chosen.recipe.quantization == "int8" else ()
    return benchmark(
        {candidate.name: candidate.artifact for candidate in trials.candidates if candidate.artifact is not None},
        (held_back.x, held_back.y),
        metric=trials.metric,
        price_per_hour=price_per_hour,
        coverage=[(row.layer, row.kind, row.quantized, row.remark) for row in rows],
        title=f"{trials.model.name}: float32 to {chosen.name}",
    )


def _placed(trials: Trials, chosen: Candidate, out: Path) -> Artifact:
    """Puts the chosen file to where the user looks for it."""
    assert chosen.artifact is not None  # only exported candidates are chosen from
    if not trials.target.suffix:  # the files of a TF Serving folder name their own place, so it is written there
        name, folder = chosen.artifact.path.parent.name, out / "serving"
        model, version = trials.prepared(chosen.recipe), next_version(folder / name)
        return export_serving(model, folder, name=name, version=version, data=trials.train.x)
    path = out / f"model{trials.target.suffix}"
    artifact = chosen.artifact.model_copy(update={"path": path})
    with write_whole(artifact.record_path) as record, write_whole(path) as temporary:
        shutil.copyfile(chosen.artifact.path, temporary)
        record.write_text(artifact.to_record())
    return artifact
