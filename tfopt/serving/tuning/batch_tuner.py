"""The search for batching parameters: simulate many settings, measure the few that promise most, and compare."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

from tfopt.errors import BenchmarkError, ConfigError
from tfopt.load.endpoint import Endpoint
from tfopt.load.load import Load
from tfopt.load.measurement import measure_load, request_bodies
from tfopt.load.model_inputs import read_inputs
from tfopt.load.request_bodies import made_up, samples_of
from tfopt.load.result import LoadResult
from tfopt.model_folder import newest_version, served_model
from tfopt.serving.batching import BatchingParameters, usual_batch_sizes
from tfopt.serving.rebatching import set_batching
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.tuning.batching_simulation import SimulatedLoad, simulate
from tfopt.serving.tuning.calibration import calibrated
from tfopt.serving.tuning.service_time import ServiceTime, measure_service_time
from tfopt.serving.tuning.trial_servers import no_batching, trial_servers
from tfopt.serving.tuning.tuning_report import MeasuredSetting, TuningReport

__all__ = ["tune_batching"]

TIMEOUTS_MICROS = (0, 1000, 5000, 20_000)
FIRST_ROUND = 6
LAST_ROUND = 3
"""Settings that are measured at first, and that are compared with no batching in the end."""
LEAST_GAIN = 0.05
"""Over no batching; less is not worth another thing to configure."""
SIMULATED_SECONDS = 3.0
ALONE, TOGETHER = "alone", "together"
"""The servers that are measured first: without batching, and with the largest batches."""


@dataclass
class _Setting:
    """A setting while it is searched."""

    parameters: BatchingParameters | None
    simulated: SimulatedLoad
    results: list[LoadResult] = field(default_factory=list)

    def throughputs(self, slo_ms: float | None) -> list[float]:
        return [_throughput(result, slo_ms) for result in self.results]

    def measured(self, slo_ms: float | None) -> MeasuredSetting:
        return MeasuredSetting(
            parameters=self.parameters,
            simulated_per_second=self.simulated.throughput_per_second,
            throughputs_per_second=tuple(self.throughputs(slo_ms)),
            p50_ms=tuple(result.p50_ms or np.inf for result in self.results),
            p99_ms=tuple(result.p99_ms or np.inf for result in self.results),
        )


def tune_batching(
    directory: str | Path,
    data: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    model: str | None = None,
    signature: str = "serving_default",
    clients: int | None = None,
    rate_per_second: float | None = None,
    slo_ms: float | None = None,
    max_batch_size: int = 64,
    seconds: float = 2.0,
    rounds: int = 3,
    write: bool = True,
) -> TuningReport:
    """Finds batching parameters for a model by measuring, and says so where batching does not pay.

    Use it on the machine, or one like it, that will serve the model, with the load that is expected. The time of
    batches of several sizes is measured first; a simulation of the scheduler, calibrated with a server that does not
    batch and one of the largest batches, ranks all settings; the best six that differ in batch size or threads are
    measured on real servers, then the best three beside no batching, in turns. Servers are `tfopt serve`, whose
    scheduler has TF Serving's parameters but waits, where nothing runs, only for as many requests as there are
    clients.

    Args:
        directory: a folder of models as `export_serving` writes it, of one model, or of one version.
        data: samples, an array of shape `(n, ...)` or a mapping of input names to arrays; default: made-up ones.
        model: which one, where the folder holds several.
        signature: the signature to call.
        clients: who wait for an answer before they ask again; default 64 where no rate is given. Or
        rate_per_second: requests that arrive at random, whether earlier ones are answered or not.
        slo_ms: the latency within which answers count; None counts all.
        max_batch_size: the largest batch to try.
        seconds: of each measurement of the last round; those before it take half.
        rounds: of the last comparison.
        write: whether to give the version its choice (`set_batching`), with what was measured as comments in its
            files. Where batching does not pay, nothing is written.

    Returns:
        The report: print it, or take its `choice`, which is None where batching does not pay.

    Raises:
        ConfigError: if an argument is not usable, or the folder holds no such model.
        DataError: if the data does not fit the model, or none can be made up.
        BenchmarkError: if the server cannot be started, as without the extra `serving`, or fails under the load.

    Example:
        >>> tune_batching("absent_folder")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: tune_batching: expected a folder of models. Received: absent_folder, which is none.

    References: TF Serving's batching guide, tensorflow_serving/batching/README.md; Jamieson & Talwalkar 2016,
    arXiv:1502.07943 (successive halving).
    """
    started = time.monotonic()
    directory = Path(directory)
    load = _checked(directory, clients, rate_per_second, slo_ms, max_batch_size, seconds, rounds)
    models, name, version = served_model(directory, model)
    folder = models / name / str(version) if version is not None else newest_version(models / name)
    assert folder is not None  # served_model has found it
    half = replace(load, seconds=seconds / 2)
    grid = _grid(max_batch_size)
    largest = grid[-1]
    with trial_servers(folder, name, {ALONE: no_batching(), TOGETHER: largest}) as endpoints:
        endpoint = replace(endpoints[ALONE], signature=signature)
        bodies = request_bodies(endpoint, data)
        service_time = _service_time(folder, name, endpoint, data, max_batch_size)
        one = measure_load(endpoint, bodies, Load(clients=1, seconds=seconds / 2, warmup_seconds=0.5))
        alone = measure_load(endpoint, bodies, half)
        together = measure_load(replace(endpoints[TOGETHER], signature=signature), bodies, half)
    overhead = calibrated(service_time, one, alone, together, largest, threads=_cores())

    def simulated(parameters: BatchingParameters | None) -> _Setting:
        found = simulate(
            service_time,
            parameters,
            clients=load.clients,
            rate_per_second=load.rate_per_second,
            handling_ms=overhead.handling_ms,
            dispatch_ms=overhead.dispatch_ms,
            round_trip_ms=overhead.round_trip_ms,
            threads=_cores(),
            seconds=SIMULATED_SECONDS,
        )
        return _Setting(parameters, found)

    ranked = sorted(map(simulated, grid), key=lambda one: _promise(one.simulated, slo_ms), reverse=True)
    settings = {f"setting_{number}": one for number, one in enumerate(_varied(ranked)[:FIRST_ROUND])}
    settings[ALONE] = simulated(None)
    with trial_servers(
        folder, name, {key: one.parameters or no_batching() for key, one in settings.items()}
    ) as endpoints:

        def measure(key: str, load: Load) -> None:
            result = measure_load(replace(endpoints[key], signature=signature), bodies, load)
            if not result.throughput_per_second:
                raise BenchmarkError(f"tune_batching: no request was answered under {load}. Received: {result.errors}.")
            settings[key].results.append(result)

        for key in settings:
            if key != ALONE:
                measure(key, half)
        first = sorted(set(settings) - {ALONE}, key=lambda key: settings[key].throughputs(slo_ms)[0], reverse=True)
        finalists = [*first[:LAST_ROUND], ALONE]
        for key in finalists:
            settings[key].results.clear()
        for number in range(rounds):
            for key in finalists if number % 2 else reversed(finalists):
                measure(key, load)
    best = max(first[:LAST_ROUND], key=lambda key: median(settings[key].throughputs(slo_ms)))
    pays, reason = _verdict(settings[best].throughputs(slo_ms), settings[ALONE].throughputs(slo_ms))
    order = [*sorted(finalists, key=lambda key: -median(settings[key].throughputs(slo_ms))), *first[LAST_ROUND:]]
    report = TuningReport(
        endpoint=f"tfopt serve, {_cores()} cores of this machine, model {name}, {folder.name}",
        load=str(load),
        slo_ms=slo_ms,
        simulated=len(grid),
        settings=tuple(settings[key].measured(slo_ms) for key in order),
        choice=settings[best].parameters if pays else None,
        reason=reason,
        seconds=time.monotonic() - started,
    )
    if write and report.choice is not None:
        set_batching(folder, report.choice, comments=str(report).splitlines())
    return report


def _checked(
    directory: Path,
    clients: int | None,
    rate_per_second: float | None,
    slo_ms: float | None,
    max_batch_size: int,
    seconds: float,
    rounds: int,
) -> Load:
    if not directory.is_dir():
        raise ConfigError(f"tune_batching: expected a folder of models. Received: {directory}, which is none.")
    for name, value in (("max_batch_size", max_batch_size), ("rounds", rounds)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise ConfigError(f"tune_batching: {name} must be an integer of at least 2. Received: {value!r}.")
    if slo_ms is not None and not slo_ms > 0:
        raise ConfigError(f"tune_batching: slo_ms must be above zero. Received: {slo_ms!r}.")
    if clients is None and rate_per_second is None:
        clients = 64
    return Load(clients=clients, rate_per_second=rate_per_second, seconds=seconds, warmup_seconds=0.5)


def _cores() -> int:
    return os.cpu_count() or 1


def _grid(max_batch_size: int) -> list[BatchingParameters]:
    return [
        BatchingParameters(
            max_batch_size=size,
            batch_timeout_micros=timeout,
            num_batch_threads=threads,
            max_enqueued_batches=1000,  # nothing is refused while the settings are compared
            allowed_batch_sizes=usual_batch_sizes(size),
        )
        for size in usual_batch_sizes(max_batch_size)[1:]
        for timeout in TIMEOUTS_MICROS
        for threads in sorted({1, _cores()})
    ]


def _service_time(
    folder: Path,
    name: str,
    endpoint: Endpoint,
    data: np.ndarray | Mapping[str, np.ndarray] | None,
    max_batch_size: int,
) -> ServiceTime:
    inputs = read_inputs(endpoint)
    samples = made_up(inputs, max_batch_size) if data is None else samples_of(data, inputs)
    loaded = LoadedVersion.load(name, 1, folder)

    def run(size: int) -> None:
        rows = range(size)
        loaded.run(
            endpoint.signature, {key: np.take(array, rows, axis=0, mode="wrap") for key, array in samples.items()}
        )

    return measure_service_time(run, usual_batch_sizes(max_batch_size), threads=sorted({1, _cores()}))


def _throughput(result: LoadResult, slo_ms: float | None) -> float:
    return result.throughput_per_second if slo_ms is None else result.goodput_per_second(slo_ms)


def _promise(found: SimulatedLoad, slo_ms: float | None) -> tuple[bool, float, float]:
    """By which settings are ranked: first those that keep the latency, then throughput, then a short tail."""
    return slo_ms is None or found.p99_ms <= slo_ms, round(found.throughput_per_second, -1), -found.p99_ms


def _varied(ranked: list[_Setting]) -> list[_Setting]:
    """The best of each batch size and number of threads: among those real servers decide, not the simulation."""
    found: dict[tuple[int, int], _Setting] = {}
    for one in ranked:
        assert one.parameters is not None  # the grid's are settings of batching
        found.setdefault((one.parameters.max_batch_size, one.parameters.num_batch_threads), one)
    return list(found.values())


def _verdict(batched: list[float], alone: list[float]) -> tuple[bool, str]:
    """Batching is chosen where its worst round beats the best without it, and by enough."""
    gain = median(batched) / median(alone) - 1 if median(alone) else np.inf
    figures = f"{median(batched):.0f} answers/s with the best setting, {median(alone):.0f} without batching"
    if gain < LEAST_GAIN or min(batched) <= max(alone):
        why = "within the noise" if gain > -LEAST_GAIN else "slower"
        return False, f"Do not batch: {figures} ({gain:+.0%}, {why}). Start the server without --enable_batching."
    return True, f"Batch: {figures} ({gain:+.0%})."
