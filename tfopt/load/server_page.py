"""What a server says of its batches and queue on its Prometheus page, between two readings."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

from tfopt.errors import BenchmarkError

__all__ = ["ServerStatistics", "read_page", "statistics_between"]

BATCH_SIZE_COUNTERS = (":tensorflow:serving:batching:processed_batch_size_v2",)
"""Batches counted for each size, of a model that batches in its graph."""
BATCH_SIZE_HISTOGRAMS = (
    ":tensorflow:serving:batching_session:processed_batch_size",
    ":tensorflow:serving:batching:batch_size",
)
QUEUE_HISTOGRAMS = (
    ":tensorflow:serving:batching_session:queuing_latency",
    ":tensorflow:serving:batching:batch_delay_us_v2",
)
"""In microseconds."""
SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? +(\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TIMEOUT_SECONDS = 5.0
MICROSECONDS = 1e-3
"""In milliseconds."""

Page = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, kw_only=True)
class ServerStatistics:
    """What a server counted while it was loaded; None where it does not say.

    Args:
        batch_sizes: batches by size, padding included; where the server counts ranges, by the largest size of each.
        queue_mean_ms: how long a request waited for its batch.
        queue_p50_ms: the median, within the range that the server counts.
        queue_p99_ms: the 99th percentile, likewise.
    """

    batch_sizes: dict[str, int] | None = None
    queue_mean_ms: float | None = None
    queue_p50_ms: float | None = None
    queue_p99_ms: float | None = None


def read_page(url: str) -> Page:
    """Reads a Prometheus page: values by name and labels.

    Raises:
        BenchmarkError: if there is none. TF Serving has one only when it is started with a monitoring.config.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return parse_page(answer.read().decode("utf-8", "replace"))
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise BenchmarkError(f"The server's metrics at {url} cannot be read: {error}.") from None


def parse_page(text: str) -> Page:
    r"""Values by name and labels.

    Example:
        >>> parse_page('# TYPE up gauge\nup{job="a",le="+Inf"} 3\n')
        {('up', (('job', 'a'), ('le', '+Inf'))): 3.0}
    """
    return {(name, tuple(LABEL.findall(labels))): float(value) for name, labels, value in SAMPLE.findall(text)}


def statistics_between(before: Page, after: Page, *, model: str) -> ServerStatistics:
    """What was counted between two readings of a page.

    Args:
        before: the first reading.
        after: the second.
        model: counts of other models are left out, where the server tells them apart.

    Example:
        >>> before = parse_page('')
        >>> after = parse_page(':tensorflow:serving:batching_session:processed_batch_size_bucket{le="8"} 3')
        >>> statistics_between(before, after, model="m").batch_sizes
        {'8': 3}
    """
    counted: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for (name, labels), value in after.items():
        if dict(labels).get("model_name", model) == model:
            counted[name, labels] = value - before.get((name, labels), 0.0)
    sizes = _by_label(counted, BATCH_SIZE_COUNTERS, "batch_size")
    if not sizes:
        sizes = _bins(_by_label(counted, tuple(f"{name}_bucket" for name in BATCH_SIZE_HISTOGRAMS), "le"))
    mean = p50 = p99 = None
    for name in QUEUE_HISTOGRAMS:
        waits = _bins(_by_label(counted, (f"{name}_bucket",), "le"))
        requests = sum(waits.values())
        if requests:
            total = sum(value for (other, _), value in counted.items() if other == f"{name}_sum")
            mean = total / requests * MICROSECONDS
            p50, p99 = (_quantile(waits, fraction) * MICROSECONDS for fraction in (0.5, 0.99))
            break
    return ServerStatistics(
        batch_sizes={f"{size:g}": round(count) for size, count in sorted(sizes.items()) if count > 0} or None,
        queue_mean_ms=mean,
        queue_p50_ms=p50,
        queue_p99_ms=p99,
    )


def _by_label(counted: Page, names: tuple[str, ...], label: str) -> dict[float, float]:
    """Sums the counts of the first name that has any, by the number in a label."""
    for name in names:
        sums: dict[float, float] = {}
        for (other, labels), value in counted.items():
            if other == name and label in dict(labels):
                number = float(dict(labels)[label])
                sums[number] = sums.get(number, 0.0) + value
        if any(sums.values()):
            return sums
    return {}


def _bins(cumulative: Mapping[float, float]) -> dict[float, float]:
    """The counts of a histogram's ranges, by their upper end."""
    bins, before = {}, 0.0
    for limit, count in sorted(cumulative.items()):
        bins[limit], before = count - before, count
    return bins


def _quantile(bins: Mapping[float, float], fraction: float) -> float:
    """As Prometheus's histogram_quantile: linear within a range; the last, open one counts as its lower end."""
    wanted, before, low = fraction * sum(bins.values()), 0.0, 0.0
    for high, count in bins.items():
        if before + count >= wanted and count > 0:
            return low if high == float("inf") else low + (high - low) * (wanted - before) / count
        before, low = before + count, high
    return low
