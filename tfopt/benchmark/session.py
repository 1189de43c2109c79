"""A measuring session: load every candidate, score it, time all of them in turns, write the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfopt.benchmark.candidates import Candidate, candidates, gzip_bytes
from tfopt.benchmark.contents import Contents
from tfopt.benchmark.ethos_u import estimate_latency
from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.measurements import CoverageRow, Entry, Estimate, Latency
from tfopt.benchmark.metric import MetricChoice, Score, check_metric, is_regression, score
from tfopt.benchmark.protocol import Timing, measure
from tfopt.benchmark.report import Report
from tfopt.benchmark.runner import Runner, random_samples
from tfopt.benchmark.saved_model import SavedModelRunner
from tfopt.data import check_samples
from tfopt.errors import ConfigError, DataError
from tfopt.output_error import ErrorDistribution
from tfopt.pruning.sparse_targets import Target, check_target
from tfopt.vela import Accelerator, accelerator_of

__all__ = ["Session"]

Timings = dict[tuple[str, int | None], Timing]


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

    def __post_init__(self) -> None:
        if not self.threads or any(type(count) is not int or count < 1 for count in self.threads):
            raise ConfigError(
                f"benchmark: threads must be whole numbers of at least 1. Received: {list(self.threads)}."
            )
        if type(self.repeats) is not int or self.repeats < 1:
            raise ConfigError(f"benchmark: repeats must be a whole number of at least 1. Received: {self.repeats!r}.")
        if not 0 <= self.seconds < float("inf"):
            raise ConfigError(f"benchmark: seconds must be at least 0. Received: {self.seconds!r}.")
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
        chosen = candidates(artifacts)
        with _progress_bar(progress) as bar:
            runners = self._load(chosen, bar)
            samples = {
                name: check_samples(data[0], runner.inputs, what="benchmark") if data else None
                for name, runner in runners.items()
            }
            contents = _inspect(chosen, runners, self.target, bar)
            scores: dict[str, Score] = {}
            errors: dict[str, dict[str, ErrorDistribution]] = {}
            if data and data[1] is not None:
                predictions = _predict(runners, samples, bar)
                regression = is_regression(data[1], predictions[chosen[0].name], self.metric)
                if regression:
                    _check_finite(predictions)
                scores = {name: score(data[1], outputs, self.metric) for name, outputs in predictions.items()}
                if regression:
                    errors = _errors(data[1], {name: outputs[0] for name, outputs in predictions.items()})
            timings = self._time(runners, samples, bar)
            estimates = _estimate(chosen, accelerator, bar) if accelerator else {}
        metrics = list(dict.fromkeys(one.metric for one in scores.values()))
        if len(metrics) > 1:
            raise DataError(
                f"benchmark: the outputs differ in shape, so they cannot be scored alike: "
                f"{', '.join(metrics)}. Benchmark them apart, or give a callable as metric."
            )
        return Report(
            title=title,
            metric=metrics[0] if metrics else None,
            samples=len(next(iter(samples.values()))[0]) if scores else None,  # type: ignore[index]
            machine=this_machine(),
            entries=tuple(
                _entry(
                    candidate,
                    runners[candidate.name],
                    contents[candidate.name],
                    scores,
                    timings,
                    estimates,
                    errors.get(candidate.name, {}),
                )
                for candidate in chosen
            ),
            coverage=tuple(
                CoverageRow(layer=layer, type=kind, quantized=quantized, reason=reason)
                for layer, kind, quantized, reason in coverage
            ),
            notes=_notes(timings, scores),
            reproduce=self._call(chosen, bool(data)),
        )

    def _load(self, chosen: list[Candidate], bar: Progress) -> dict[str, Runner]:
        task = bar.add_task("Loading", total=len(chosen))
        runners: dict[str, Runner] = {}
        for candidate in chosen:
            if candidate.kind == "saved_model":
                runners[candidate.name] = SavedModelRunner(candidate.path, record=candidate.record)
            else:
                from tfopt.benchmark.tflite import TfliteRunner

                runners[candidate.name] = TfliteRunner(candidate.path, self.threads, record=candidate.record)
            _advance(bar, task)
        return runners

    def _time(self, runners: dict[str, Runner], samples: dict[str, Any], bar: Progress) -> Timings:
        calls = {
            (name, threads): call
            for name, runner in runners.items()
            for threads, call in runner.timed_calls(_first(samples[name]) or random_samples(runner.inputs)).items()
        }
        task = bar.add_task("Timing", total=100)
        return measure(
            calls,
            repeats=self.repeats,
            seconds=self.seconds,
            on_progress=lambda fraction: _advance(bar, task, 100 * fraction - bar.tasks[task].completed),
        )

    def _call(self, chosen: list[Candidate], with_data: bool) -> str:
        paths = ", ".join(f"{candidate.name!r}: {str(candidate.path)!r}" for candidate in chosen)
        options = [f"threads={self.threads}", f"repeats={self.repeats}", f"seconds={self.seconds}"]
        if self.metric is not None:
            name = getattr(self.metric, "__name__", type(self.metric).__name__)
            options.append(f"metric={name if callable(self.metric) else repr(self.metric)}")
        options += [f"estimate={self.estimate!r}"] if self.estimate else []
        options += [f"target={self.target!r}"] if self.target else []
        return f"tfopt.benchmark({{{paths}}}, {'(x, y), ' if with_data else ''}{', '.join(options)})"


def _inspect(
    chosen: list[Candidate], runners: dict[str, Runner], target: Target | None, bar: Progress
) -> dict[str, Contents | DataError]:
    """What each file holds, or why that cannot be told."""
    task = bar.add_task("Inspecting", total=len(chosen))
    contents: dict[str, Contents | DataError] = {}
    for candidate in chosen:
        where = target or ("tflite" if candidate.kind == "tflite" else "serving")
        try:
            contents[candidate.name] = Contents.of(runners[candidate.name].parts(where), where)
        except DataError as error:
            contents[candidate.name] = error
        _advance(bar, task)
    return contents


def _progress_bar(shown: bool | None) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Drawn between the turns only: a thread that draws would take the cores that are being timed.
    return Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not (console.is_terminal if shown is None else shown),
    )


def _advance(bar: Progress, task: Any, count: float = 1) -> None:
    before = bar.tasks[task].percentage
    bar.advance(task, count)
    if int(bar.tasks[task].percentage) != int(before):
        bar.refresh()


def _first(arrays: list[np.ndarray] | None) -> list[np.ndarray] | None:
    return [array[:1] for array in arrays] if arrays else None


def _predict(runners: dict[str, Runner], samples: dict[str, Any], bar: Progress) -> dict[str, list[np.ndarray]]:
    task = bar.add_task("Predicting", total=sum(len(arrays[0]) for arrays in samples.values()))
    return {
        name: runner.predict(samples[name], lambda count: _advance(bar, task, count))
        for name, runner in runners.items()
    }


def _check_finite(predictions: dict[str, list[np.ndarray]]) -> None:
    for name, outputs in predictions.items():
        if not all(np.all(np.isfinite(output)) for output in outputs):
            raise DataError(f"benchmark: the predictions of {name} must be finite. Received: NaN or infinite values.")


def _errors(targets: Any, predictions: dict[str, np.ndarray]) -> dict[str, dict[str, ErrorDistribution]]:
    """How each file's predictions deviate from the targets, and from those of the first file."""
    (_, baseline), *others = predictions.items()
    expected = np.asarray(targets).reshape(baseline.shape)
    errors = {
        name: {"error_against_targets": ErrorDistribution.of(expected, output.reshape(baseline.shape))}
        for name, output in predictions.items()
    }
    for name, output in others:
        errors[name]["error_against_baseline"] = ErrorDistribution.of(baseline, output.reshape(baseline.shape))
    return errors


def _estimate(chosen: list[Candidate], accelerator: Accelerator, bar: Progress) -> dict[str, tuple[Estimate, ...]]:
    files = [candidate for candidate in chosen if candidate.kind == "tflite"]
    task = bar.add_task("Estimating", total=len(files))
    estimates: dict[str, tuple[Estimate, ...]] = {}
    for candidate in files:
        one = estimate_latency(candidate.path, accelerator)
        estimates[candidate.name] = (one,) if one else ()
        _advance(bar, task)
    return estimates


def _entry(
    candidate: Candidate,
    runner: Runner,
    contents: Contents | DataError,
    scores: dict[str, Score],
    timings: Timings,
    estimates: dict[str, tuple[Estimate, ...]],
    errors: dict[str, ErrorDistribution],
) -> Entry:
    scored = scores.get(candidate.name)
    notes = [runner.note]
    if estimates.get(candidate.name) == ():
        notes.append("no operator runs on the accelerator, so there is no estimate")
    if isinstance(contents, DataError):
        notes.append(f"not inspected: {contents}")
    return Entry(
        name=candidate.name,
        path=str(candidate.path),
        kind=candidate.kind,
        score=scored.value if scored else None,
        size_bytes=sum(file.stat().st_size for file in candidate.files),
        gzip_bytes=gzip_bytes(candidate.files),
        peak_memory_bytes=runner.peak_memory_bytes,
        latencies=tuple(
            Latency(
                threads=threads,
                p50_ms=timing.p50_ms,
                p90_ms=timing.p90_ms,
                p99_ms=timing.p99_ms,
                throughput_per_second=timing.throughput_per_second,
                repeats=timing.repeats,
            )
            for (name, threads), timing in timings.items()
            if name == candidate.name
        ),
        estimates=estimates.get(candidate.name, ()),
        verification=candidate.record.verification if candidate.record else {},
        contents=contents if isinstance(contents, Contents) else None,
        **errors,
        note="; ".join(notes),
    )


def _notes(timings: Timings, scores: dict[str, Score]) -> tuple[str, ...]:
    notes = [] if scores else ["Accuracy was not measured: no data with targets was given."]
    if restless := sorted({name for (name, _), timing in timings.items() if not timing.settled}):
        notes.append(
            f"Warm-up times did not settle for {', '.join(restless)}: the machine was busy, repeat the measurement."
        )
    return tuple(notes)
