"""Cost and energy of an inference: derived from a latency and from what the user says, never measured."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.benchmark.measurements import Entry, Measurements
from tfopt.benchmark.units import significant

__all__ = ["Derived", "cost_per_million", "derived_figures", "energy_mj"]


@dataclass(frozen=True)
class Derived:
    """A figure that follows from a measured one and a given one.

    Args:
        figure: what it is, with its unit.
        threads: thread count of the throughput that it follows from; None stands for the runtime's default.
        value: the figure.
        formula: how it follows, with the numbers put in.
    """

    figure: str
    threads: int | None
    value: float
    formula: str


def cost_per_million(price_per_hour: float, throughput_per_second: float) -> float:
    """Dollars for a million inferences, one after the other on a machine that is paid by the hour.

    Example:
        >>> cost_per_million(price_per_hour=0.36, throughput_per_second=100.0)
        1.0
    """
    return price_per_hour / 3600 / throughput_per_second * 1e6


def energy_mj(watts: float, throughput_per_second: float) -> float:
    """Millijoules of an inference, on a device that draws so many watts while it infers.

    Example:
        >>> energy_mj(watts=5.0, throughput_per_second=100.0)
        50.0
    """
    return watts * 1000 / throughput_per_second


def derived_figures(report: Measurements, entry: Entry) -> tuple[Derived, ...]:
    """Cost and energy of an entry at each thread count; none where the report has neither price nor watts.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> from tfopt.benchmark.measurements import Latency
        >>> latency = Latency(threads=1, p50_ms=9, p90_ms=11, p99_ms=12, throughput_per_second=100, repeats=10)
        >>> entry = Entry(name="int8", path="", kind="tflite", size_bytes=1, gzip_bytes=1, latencies=(latency,))
        >>> report = Measurements(title="", machine=this_machine(), entries=(entry,), price_per_hour=0.36)
        >>> derived_figures(report, entry)[0].formula
        '$0.36 per hour / 3600 s / 100 inferences per second × 1,000,000'
    """
    figures = []
    for latency in entry.latencies:
        rate = latency.throughput_per_second
        rate_words = f"{significant(rate)} inferences per second"
        if report.price_per_hour is not None:
            value = cost_per_million(report.price_per_hour, rate)
            formula = f"${report.price_per_hour:g} per hour / 3600 s / {rate_words} × 1,000,000"
            figures.append(Derived("$ per 1M inferences", latency.threads, value, formula))
        if report.watts is not None:
            value, formula = energy_mj(report.watts, rate), f"{report.watts:g} W × 1000 / {rate_words}"
            figures.append(Derived("mJ per inference", latency.threads, value, formula))
    return tuple(figures)
