"""Rules such as "p50_ms > 1.1x baseline", by which a benchmark fails in CI: their grammar."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from tfopt.errors import ConfigError

__all__ = ["LATENCIES", "Rule"]

LATENCIES = ("p50_ms", "p90_ms", "p99_ms", "throughput_per_second")
SIZES = ("size_bytes", "gzip_bytes", "peak_memory_bytes")
FIGURES = (*LATENCIES, *SIZES, "score")
# What a number in this unit is multiplied by to be in the figure's own.
UNITS: dict[str, dict[str, float]] = {
    **{figure: {"us": 0.001, "ms": 1.0, "s": 1000.0} for figure in ("p50_ms", "p90_ms", "p99_ms")},
    **{figure: {"B": 1, "kB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30} for figure in SIZES},
    "throughput_per_second": {},
    "score": {"%": 0.01},
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GRAMMAR = re.compile(
    r"(?P<figure>[a-z0-9_]+)(@(?P<threads>\d+))?\s*(?P<comparison><=|>=|<|>)\s*(?P<number>-?\d+(\.\d+)?)\s*"
    r"(x\s*(?P<reference>baseline|previous)|(?P<unit>[A-Za-z%]+))?"
)
EXAMPLES = '"p50_ms > 1.1x baseline", "size_bytes > 500 KiB", "score < 0.97" or "p50_ms@2 > 1.2x previous"'


@dataclass(frozen=True)
class Rule:
    """When a benchmark fails.

    Args:
        text: as it was given.
        figure: which figure of an entry.
        threads: at which thread count; None stands for the lowest that the entry was timed at.
        comparison: how it compares where the benchmark fails.
        bound: with what, in the figure's own unit, or as a multiple of the reference's.
        reference: "baseline", "previous", or None where the bound is a figure of its own.
    """

    text: str
    figure: str
    threads: int | None
    comparison: str
    bound: float
    reference: str | None

    def is_met(self, value: float) -> bool:
        """Whether a value, or a multiple of the reference's, is one at which the benchmark fails."""
        return COMPARISONS[self.comparison](value, self.bound)

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Reads `FIGURE[@THREADS] COMPARISON NUMBER [UNIT | x baseline | x previous]`.

        Raises:
            ConfigError: if it is not one.

        Example:
            >>> rule = Rule.parse("p50_ms > 1.1x baseline")
            >>> rule.figure, rule.comparison, rule.bound, rule.reference
            ('p50_ms', '>', 1.1, 'baseline')
            >>> Rule.parse("size_bytes >= 500 KiB").bound
            512000.0
            >>> Rule.parse("p50 > 3")
            Traceback (most recent call last):
            ...
            tfopt.errors.ConfigError: --fail-if: the figure must be one of p50_ms, p90_ms, p99_ms, \
throughput_per_second, size_bytes, gzip_bytes, peak_memory_bytes, score. Received: 'p50' in 'p50 > 3'.
        """
        match = GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise ConfigError(
                f"--fail-if: expected FIGURE[@THREADS] COMPARISON NUMBER [UNIT | x baseline | x previous], such as "
                f"{EXAMPLES}. Received: {text!r}."
            )
        figure, unit = match["figure"], match["unit"]
        if figure not in FIGURES:
            raise ConfigError(
                f"--fail-if: the figure must be one of {', '.join(FIGURES)}. Received: {figure!r} in {text!r}."
            )
        if match["threads"] is not None and (figure not in LATENCIES or int(match["threads"]) < 1):
            raise ConfigError(f"--fail-if: @THREADS, at least 1, goes with {', '.join(LATENCIES)}. Received: {text!r}.")
        if unit is not None and unit not in UNITS[figure]:
            known = ", ".join(UNITS[figure]) or "none"
            raise ConfigError(
                f"--fail-if: units of {figure} are: {known}. A multiple is written 1.1x baseline. "
                f"Received: {unit!r} in {text!r}."
            )
        return cls(
            text=text.strip(),
            figure=figure,
            threads=int(match["threads"]) if match["threads"] else None,
            comparison=match["comparison"],
            bound=float(match["number"]) * (UNITS[figure][unit] if unit else 1.0),
            reference=match["reference"],
        )
