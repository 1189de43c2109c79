"""Candidates made, exported, scored and timed; what is done is kept in the folder, so that a run can go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.artifact import Artifact
from tfopt.benchmark.candidates import candidates as measurable
from tfopt.benchmark.candidates import gzip_bytes
from tfopt.benchmark.loading import load_runner
from tfopt.benchmark.metric import MetricChoice, score
from tfopt.benchmark.protocol import measure
from tfopt.benchmark.runner import Runner
from tfopt.benchmark.timing_statistics import ratio_of_rounds
from tfopt.budget import Figures
from tfopt.data import check_samples
from tfopt.errors import DataError, ExportError
from tfopt.export.signature import input_names
from tfopt.optimization.preparation import quantize, reduce
from tfopt.optimization.result import Candidate
from tfopt.optimization.samples import LabelledSamples
from tfopt.optimization.targets import Target
from tfopt.optimization.trial_folder import TrialFolder, digest, remove
from tfopt.recipe import Recipe
from tfopt.surgery.flops import costs

__all__ = ["Trials"]

TIMED_CALLS, TIMED_SECONDS = 60, 0.5
"""Of each of two files in turns: what tells them apart by some percent."""


@dataclass
class Trials:
    """Where candidates come from. The folder keeps each one; a run of the same model and data finds them again.

    Args:
        model: the trained model.
        target: where it is to run.
        train: for fine-tuning and calibration.
        validation: what candidates are scored on.
        folder: for their files.
        max_drop: the score that may be lost.
        loss: as `fine_tune` takes it.
        metric: as `tfopt.benchmark` takes it.
        verbose: as in Keras's `fit`.
    """

    model: keras.Model
    target: Target
    train: LabelledSamples
    validation: LabelledSamples
    folder: Path
    max_drop: float
    loss: Any = None
    metric: MetricChoice = None
    verbose: int = 0
    candidates: list[Candidate] = field(default_factory=list)

    @cached_property
    def kept(self) -> TrialFolder:
        """What earlier runs made of the same model and data."""
        weights = [weight.tobytes() for weight in self.model.get_weights()]
        metric = getattr(self.metric, "__qualname__", str(self.metric))
        # How it was compiled does not matter, and holds names that count up.
        layers = {key: value for key, value in json.loads(self.model.to_json()).items() if key != "compile_config"}
        settings = json.dumps([layers, metric, self.target.suffix, str(self.loss)]).encode()
        return TrialFolder(self.folder, digest(settings, *weights, self.train.sha256(), self.validation.sha256()))

    @property
    def baseline(self) -> Candidate:
        """The float model's."""
        return self.candidates[0]

    def attempt(self, name: str, recipe: Recipe) -> Candidate:
        """Makes a candidate, or finds the one that was made before, and adds it to the others.

        Raises:
            ExportError: if the float model cannot be exported; of others the refusal is their remark.
        """
        key = self.kept.key("candidate", recipe.to_yaml())
        candidate = self._found(name, recipe, key) or self._made(name, recipe, key)
        self.candidates.append(candidate)
        return candidate

    def float_model(self, recipe: Recipe) -> keras.Model:
        """The model after the part of the recipe that comes before the quantization."""
        if not recipe.makes_smaller:
            return self.model
        part = recipe.model_copy(update={"quantization": "none", "layers": {}, "fine_tuning": None})
        x, y = self.train.x, self.train.y
        return self.kept.model(
            "reduced",
            part.to_yaml(),
            make=lambda: reduce(self.model, part, x, y, loss=self.loss, verbose=self.verbose),
        )

    def prepared(self, recipe: Recipe) -> keras.Model:
        """The model that is exported by a recipe."""
        smaller = self.float_model(recipe)

        def made() -> keras.Model:
            x, y = self.train.x, self.train.y
            return quantize(smaller, recipe, x, y, teacher=self.model, loss=self.loss, verbose=self.verbose)

        return made() if recipe.fine_tuning is None else self.kept.model("trained", recipe.to_yaml(), make=made)

    def figures(self, model: keras.Model, artifact: Artifact) -> Figures:
        """What a file costs.

        Args:
            model: the float model that it was made from, for its operations.
            artifact: the file.
        """
        counted = costs(model)
        latency_ms, share = self._latency(artifact) if self.target.is_timed else (None, None)
        return Figures(
            size=artifact.size_bytes,
            download=gzip_bytes(measurable([artifact])[0].files),
            flops=counted.flops or None,
            latency=latency_ms,
            latency_share=share,
        )

    def trial_figures(self, model: keras.Model, recipe: Recipe) -> Figures:
        """What a model's file would cost, whose weights are not yet trained."""
        path = self.folder / f"trial{self.target.suffix}"
        try:
            artifact = self.target.export(model, path, recipe, self.train.x, False)
            return self.figures(model, artifact)
        finally:
            remove(path)

    def predictions(self, artifact: Artifact, x: Any) -> list[np.ndarray]:
        """What a file says of samples."""
        runner = self._runner(artifact)
        found = runner.predict(check_samples(self._by_name(x), runner.inputs, what="validation"), lambda count: None)
        assert found is not None  # targets that are not timed have files that the CPU runs
        return found

    def _made(self, name: str, recipe: Recipe, key: str) -> Candidate:
        path = self.kept.file(name, self.target.suffix)
        fields: dict[str, Any] = {"score": None, "figures": None, "refusal": None}
        artifact = None
        remove(path)
        try:
            artifact = self.target.export(self.prepared(recipe), path, recipe, self.train.x, True)
            fields["score"] = score(self.validation.y, self.predictions(artifact, self.validation.x), self.metric).value
            fields["figures"] = asdict(self.figures(self.float_model(recipe), artifact))
            # Where an artifact is a folder within a folder, its place is not known from the candidate's name.
            fields["file"] = str(artifact.path.relative_to(self.folder))
        except ExportError as error:
            if not self.candidates:
                raise
            fields["refusal"] = str(error)
        self.kept.note(name, key, fields)
        return self._candidate(name, recipe, artifact, fields)

    def _found(self, name: str, recipe: Recipe, key: str) -> Candidate | None:
        fields = self.kept.record(name, key)
        if fields is None:
            return None
        if fields["refusal"]:
            return self._candidate(name, recipe, None, fields)
        try:
            return self._candidate(name, recipe, Artifact.load(self.folder / fields["file"]), fields)
        except DataError:  # the file was changed or removed since: it is made again
            return None

    def _candidate(self, name: str, recipe: Recipe, artifact: Artifact | None, fields: dict[str, Any]) -> Candidate:
        if artifact is None:
            return Candidate(name, recipe, None, None, None, None, f"The export was refused: {fields['refusal']}")
        figures = Figures(**fields["figures"])
        if not self.candidates:
            return Candidate(name, recipe, artifact, fields["score"], 0.0, figures, "The baseline.")
        drop = (self.baseline.score or 0.0) - fields["score"]
        verdict = "within" if drop <= self.max_drop else "more than"
        remark = f"It loses {drop:+.4f}, {verdict} the {self.max_drop:g} allowed."
        return Candidate(name, recipe, artifact, fields["score"], drop, figures, remark)

    def _latency(self, artifact: Artifact) -> tuple[float, float]:
        """The median in ms, and as a share of the float model's, in turns with it."""
        reference = artifact if not self.candidates else self.baseline.artifact
        assert reference is not None  # the float model's export is never passed over
        calls = {"reference": self._call(reference), "candidate": self._call(artifact)}
        timings = measure(calls, repeats=TIMED_CALLS, seconds=TIMED_SECONDS, single_threaded=list(calls))
        own, whole = timings["candidate"], timings["reference"]
        share = ratio_of_rounds(own.round_medians_ms, whole.round_medians_ms)
        assert share is not None  # both have the same rounds
        return own.p50_ms, 1.0 if reference is artifact else share.value

    def _call(self, artifact: Artifact) -> Callable[[], object]:
        runner = self._runner(artifact)
        first = self._by_name(self.validation.at(slice(1)).x)
        return next(iter(runner.timed_calls(check_samples(first, runner.inputs, what="validation")).values()))

    def _runner(self, artifact: Artifact) -> Runner:
        return load_runner(measurable([artifact])[0], (1,))

    def _by_name(self, x: Any) -> dict[str, np.ndarray]:
        return dict(zip(input_names(self.model), check_samples(x, self.model.inputs, what="validation"), strict=True))
