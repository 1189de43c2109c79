"""A measuring session: load every candidate, score it, time all of them in turns, write the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.progress import Progress

from tfopt.benchmark.agreement import agreement
from tfopt.benchmark.candidates import Candidate, candidates, with_xnnpack
from tfopt.benchmark.conditions import conditions_remarks
from tfopt.benchmark.loading import load_runner
from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.measurements import CoverageRow
from tfopt.benchmark.metric import ACCURACIES, MetricChoice, check_metric, is_regression
from tfopt.benchmark.progress import advance, progress_bar
from tfopt.benchmark.protocol import measure
from tfopt.benchmark.report import Report
from tfopt.benchmark.runner import Runner
from tfopt.benchmark.scoring import Scores, score_all
from tfopt.benchmark.trial import Trial
from tfopt.errors import BenchmarkError, ConfigError, DataError, TfoptError, first_line
from tfopt.pruning.sparse_targets import Target, check_target
from tfopt.vela import accelerator_of

__all__ = ["Session"]


@dataclass(frozen=True)
class Session:
    """How to measure; the arguments are those of `tfopt.benchmark`.

    Raises:
        ConfigError: if an argument is not usable.
        MissingExtraError: if an estimate is asked for and its compiler is not installed.
    """

    threads: tuple[int, ...]
    repeats: int
    seconds: float
    metric: MetricChoice
    estimate: str | None
    target: Target | None
    price_per_hour: float | None = None
    watts: float | None = None
    xnnpack: str = "on"

    def __post_init__(self) -> None:
        if not self.threads or any(type(count) is not int or count < 1 for count in self.threads):
            raise ConfigError(
                f"benchmark: threads must be whole numbers of at least 1. Received: {list(self.threads)}."
            )
        if type(self.repeats) is not int or self.repeats < 1:
            raise ConfigError(f"benchmark: repeats must be a whole number of at least 1. Received: {self.repeats!r}.")
        if not 0 <= self.seconds < float("inf"):
            raise ConfigError(f"benchmark: seconds must be at least 0. Received: {self.seconds!r}.")
        for name, value in (("price_per_hour", self.price_per_hour), ("watts", self.watts)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"benchmark: {name} must be above 0. Received: {value!r}.")
        check_metric(self.metric)
        if self.target is not None:
            check_target("benchmark: target", self.target)

    def run(
        self,
        artifacts: object,
        data: tuple[Any, Any] | None,
        *,
        coverage: tuple[tuple[str, str, bool, str], ...],
        title: str,
        progress: bool | None,
    ) -> Report:
        """Measures and reports."""
        if data is not None and not (isinstance(data, tuple) and len(data) == 2):
            raise DataError(f"benchmark: data must be a tuple (x, y). Received: {type(data).__name__}.")
        accelerator = accelerator_of(self.estimate, argument="benchmark: estimate") if self.estimate else None
        chosen, machine = candidates(artifacts), this_machine()
        trials, scores = [Trial(candidate) for candidate in with_xnnpack(chosen, self.xnnpack)], Scores()
        with progress_bar(progress) as bar:
            x, y = data or (None, None)
            _each(trials, "Loading", lambda trial: trial.load(self._runner, x), bar)
            _each(trials, "Inspecting", lambda trial: trial.inspect(self.target), bar)
            if x is not None:
                scores = self._score(y, trials, bar)
            self._time(trials, bar)
            _each(trials, "Profiling", lambda trial: trial.time_operators(min(self.threads)), bar)
            if accelerator:
                files = [trial for trial in trials if trial.candidate.kind == "tflite"]
                _each(files, "Estimating", lambda trial: trial.estimate(accelerator), bar)
        timings = {(trial.name, threads): one for trial in _sound(trials) for threads, one in trial.timings.items()}
        unscored = [] if scores.values else ["Accuracy was not measured: no data with targets was given."]
        return Report(
            title=title,
            metric=scores.metric,
            samples=_sound(trials)[0].sample_count if scores.values else None,
            machine=machine,
            entries=tuple(trial.entry(scores) for trial in trials),
            coverage=tuple(
                CoverageRow(layer=layer, type=kind, quantized=quantized, reason=reason)
                for layer, kind, quantized, reason in coverage
            ),
            price_per_hour=self.price_per_hour,
            watts=self.watts,
            notes=(*unscored, *conditions_remarks(machine, timings)),
            reproduce=self._call(chosen, bool(data)),
        )

    def _runner(self, candidate: Candidate) -> Runner:
        return load_runner(candidate, self.threads, target=self.target)

    def _score(self, targets: Any, trials: list[Trial], bar: Progress) -> Scores:
        task = bar.add_task("Predicting", total=sum(trial.sample_count for trial in _sound(trials)))
        for trial in trials:
            trial.attempt(partial(trial.predict, lambda count: advance(bar, task, count)))
        predictions = _predictions(trials)
        scored = targets is not None and bool(predictions)
        if scored and is_regression(targets, next(iter(predictions.values())), self.metric):
            for trial in trials:
                trial.attempt(trial.check_finite)
            predictions = _predictions(trials)
        scores = score_all(targets, predictions, self.metric, baseline=trials[0].name) if scored else Scores()
        classes = (scores.metric in ACCURACIES) if scores.metric in ACCURACIES or scores.errors else None
        first = predictions.get(trials[0].name)
        for trial in trials[1:]:
            if first is not None and trial.name in predictions:
                trial.agreement = agreement(first, predictions[trial.name], classes=classes)
        return scores

    def _time(self, trials: list[Trial], bar: Progress) -> None:
        by_name = {trial.name: trial for trial in trials}
        calls: dict[tuple[str, int | None], Callable[[], object]] = {}
        for trial in _sound(trials):
            trial.attempt(partial(_add_calls, trial, calls))

        def fail(key: tuple[str, int | None], error: Exception) -> None:
            trial = by_name[key[0]]
            reason = f"{trial.candidate.path} failed while it was timed: {first_line(error)}"
            trial.failure = error if isinstance(error, TfoptError) else BenchmarkError(reason)

        task = bar.add_task("Timing", total=100)
        timings = measure(
            calls,
            repeats=self.repeats,
            seconds=self.seconds,
            single_threaded=[key for key in calls if key[1] == 1],
            on_progress=lambda fraction: advance(bar, task, 100 * fraction - bar.tasks[task].completed),
            on_failure=fail,
        )
        for (name, threads), timing in timings.items():
            by_name[name].timings[threads] = timing

    def _call(self, chosen: list[Candidate], with_data: bool) -> str:
        paths = ", ".join(f"{candidate.name!r}: {str(candidate.path)!r}" for candidate in chosen)
        options = [f"threads={self.threads}", f"repeats={self.repeats}", f"seconds={self.seconds}"]
        if self.metric is not None:
            name = getattr(self.metric, "__name__", type(self.metric).__name__)
            options.append(f"metric={name if callable(self.metric) else repr(self.metric)}")
        options += [
            f"{name}={value!r}"
            for name in ("estimate", "target", "price_per_hour", "watts")
            if (value := getattr(self, name)) is not None
        ]
        options += [f"xnnpack={self.xnnpack!r}"] if self.xnnpack != "on" else []
        return f"tfopt.benchmark({{{paths}}}, {'(x, y), ' if with_data else ''}{', '.join(options)})"


def _each(trials: list[Trial], title: str, step: Callable[[Trial], None], bar: Progress) -> None:
    task = bar.add_task(title, total=len(trials))
    for trial in trials:
        trial.attempt(partial(step, trial))
        advance(bar, task)


def _add_calls(trial: Trial, calls: dict[tuple[str, int | None], Callable[[], object]]) -> None:
    calls.update({(trial.name, threads): call for threads, call in trial.timed_calls().items()})


def _predictions(trials: list[Trial]) -> dict[str, list[np.ndarray]]:
    """The outputs of those that have not failed and predict."""
    return {trial.name: trial.predictions for trial in _sound(trials) if trial.predictions is not None}


def _sound(trials: list[Trial]) -> list[Trial]:
    """Those that have not failed; where all have, the first one's error is raised: there is nothing to report."""
    sound = [trial for trial in trials if trial.failure is None]
    if not sound:
        raise next(trial.failure for trial in trials if trial.failure is not None)
    return sound
