"""Measuring artifacts: one timing protocol, one runner per target, one report.

The package is light: the runtimes and the plots are loaded when `benchmark` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfopt.artifact import Artifact
    from tfopt.benchmark.report import Report
    from tfopt.pruning.sparse_targets import Target

__all__ = ["benchmark"]


def benchmark(
    artifacts: Artifact | str | Path | Sequence[Artifact | str | Path] | Mapping[str, Artifact | str | Path],
    data: tuple[Any, Any] | None = None,
    *,
    threads: Sequence[int] = (1, 2),
    repeats: int = 100,
    seconds: float = 1.0,
    metric: str | Callable[[Any, Any], float] | None = None,
    estimate: str | None = None,
    target: Target | None = None,
    xnnpack: str = "on",
    price_per_hour: float | None = None,
    watts: float | None = None,
    coverage: Iterable[tuple[str, str, bool, str]] = (),
    title: str = "Benchmark",
    progress: bool | None = None,
) -> Report:
    """Measures the accuracy, size, latency and peak memory of files beside each other, and tells what they hold.

    Use it to see whether what was exported really is smaller and faster on this machine, at which cost in
    accuracy. All candidates are timed in turns within one run, so that a busy moment of the machine hits
    them alike. What was not measured is None and reads "not measured". A file that cannot be loaded or run, or that the
    data does not fit, is an entry with an `error`; the others are measured all the same.

    Latency is that of one inference at batch size 1, with the input in place: the interpreter's `invoke` for
    a .tflite (ai-edge-litert, XNNPACK), a call of the signature `serving_default` for a SavedModel (in
    process, at TensorFlow's default thread counts, which cannot be changed once it runs). Single-threaded inferences
    are kept on one core where the system can.

    Each median comes with a 95 % confidence interval, and each ratio to the baseline is taken round by round and has
    one of four verdicts: faster, slower, no difference, or too noisy to tell (`tfopt.benchmark.timing_statistics`).

    Args:
        artifacts: what to measure: artifacts, or paths of a .tflite or .onnx file, a SavedModel folder or a TF
            Serving model folder (its newest version is taken); one, a sequence, or a mapping of names to
            them. The first is the baseline.
        data: `(x, y)`: samples of shape `(n, ...)`, an array or one for each input, as floats even where a
            file takes int8; and their n targets. Without it inputs are random and accuracy is not measured.
            With `y` None accuracy is not measured either.
        threads: thread counts a .tflite or .onnx is timed at.
        repeats: recorded inferences of each candidate, at least.
        seconds: time in which inferences of each candidate are recorded, at least.
        metric: "accuracy", "r2", or a callable `(targets, predictions) -> float` for which higher is better.
            By default integer or one-hot targets are scored by top-1 accuracy (a single sigmoid output at
            the threshold 0.5) and float targets by R².
        estimate: an Arm Ethos-U configuration such as "ethos-u55-128": adds the compiler's *estimate* for
            each .tflite (extra 'edge').
        target: where zero weights are to save time, one of `tfopt.pruning.sparse_targets.TARGETS`; by default where
            a file is timed: "tflite", or "serving" for a SavedModel. The report says of every kernel whether they do.
        xnnpack: "on"; "off", which times TFLite's own kernels; or "both", which puts every .tflite there twice.
        price_per_hour: what the machine costs, in dollars: adds the cost of a million inferences, as a derived figure.
        watts: what the device draws while it infers: adds the energy of an inference, as a derived figure.
        coverage: rows `(layer, type, whether it is quantized, reason)` to show in the report.
        title: heading of the report.
        progress: whether to show a progress bar; by default if the terminal is interactive.

    Returns:
        The report: print it, read its `entries`, or `save` it as report.json and report.html.

    Raises:
        ConfigError: if an argument is not usable or a path does not exist.
        DataError: if the data fits no model, or an artifact's content differs from its record.
        BenchmarkError: if no file can be loaded and run.
        MissingExtraError: if an estimate is asked for and its compiler is not installed.

    Example:
        >>> benchmark("absent.tflite")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: benchmark: expected a .tflite or .onnx file or a SavedModel folder. \
Received: absent.tflite, which does not exist.

    References: the percentiles of single-stream latency follow MLPerf Inference, arXiv:1911.02549.
    """
    from tfopt.benchmark.session import Session

    session = Session(
        threads=tuple(threads),
        repeats=repeats,
        seconds=seconds,
        metric=metric,
        estimate=estimate,
        target=target,
        xnnpack=xnnpack,
        price_per_hour=price_per_hour,
        watts=watts,
    )
    return session.run(artifacts, data, coverage=tuple(coverage), title=title, progress=progress)
