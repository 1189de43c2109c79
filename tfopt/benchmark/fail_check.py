"""A report held against rules by which a benchmark fails in CI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tfopt.benchmark.comparison import threads_words
from tfopt.benchmark.fail_rules import LATENCIES, Rule
from tfopt.benchmark.measurements import Entry, Latency, Measurements
from tfopt.benchmark.timing_statistics import Ratio, ratio_of_rounds
from tfopt.benchmark.units import significant
from tfopt.errors import BenchmarkError, ConfigError

__all__ = ["Finding", "check_rules", "require_previous"]

Outcome = Literal["passed", "failed", "too noisy to tell", "not measured"]


@dataclass(frozen=True)
class Finding:
    """What a rule says of an entry.

    Args:
        rule: the rule.
        entry: name of the entry.
        outcome: "failed" only where the confidence interval, if there is one, is wholly on that side of the bound; "too
            noisy to tell" where the bound is within it.
        detail: the figure and its interval, in words.
    """

    rule: Rule
    entry: str
    outcome: Outcome
    detail: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.outcome}: {self.rule.text} ({self.detail})"


def check_rules(
    report: Measurements, rules: Sequence[Rule | str], *, previous: Measurements | None = None
) -> tuple[Finding, ...]:
    """Holds a report against rules.

    Args:
        report: what was measured.
        rules: as `Rule.parse` reads them.
        previous: an earlier report, for rules that name it; entries are found by name.

    Returns:
        A finding for each rule and entry; of a rule with a reference, for each entry that is not the reference.

    Raises:
        ConfigError: if a rule cannot be read, or names a previous report where none is given.
        BenchmarkError: if times of a previous report come from another machine, or no entry has the figure.

    Example:
        >>> from tfopt.benchmark.machine import this_machine
        >>> entry = Entry(name="int8", path="", kind="tflite", size_bytes=2048, gzip_bytes=900)
        >>> report = Measurements(title="Digits", machine=this_machine(), entries=(entry,))
        >>> print(check_rules(report, ["size_bytes > 1 KiB"])[0])
        int8: failed: size_bytes > 1 KiB (2,048)
    """
    findings = []
    for rule in [Rule.parse(one) if isinstance(one, str) else one for one in rules]:
        _check_reference(rule, report, previous)
        against = {entry.name: entry for entry in previous.entries} if previous else {}
        entries = report.entries[1:] if rule.reference == "baseline" else report.entries
        found = [
            _find(rule, entry, report.baseline if rule.reference == "baseline" else against.get(entry.name))
            for entry in entries
        ]
        if found and all(finding.outcome == "not measured" for finding in found):
            raise BenchmarkError(
                f"--fail-if: the rule {rule.text!r} cannot be checked, since no entry has what it needs. "
                f"Received: {'; '.join(f'{one.entry}: {one.detail}' for one in found)}."
            )
        findings += found
    return tuple(findings)


def require_previous(rules: Sequence[Rule], previous: Measurements | None) -> None:
    """Refuses rules that name a previous report where there is none, before anything is measured.

    Raises:
        ConfigError: if a rule does.
    """
    for rule in rules:
        if rule.reference == "previous" and previous is None:
            raise ConfigError(
                f"--fail-if: the rule {rule.text!r} needs an earlier report: --compare FILE. Received: none."
            )


def _check_reference(rule: Rule, report: Measurements, previous: Measurements | None) -> None:
    if rule.reference == "baseline" and len(report.entries) == 1:
        raise ConfigError(
            f"--fail-if: the rule {rule.text!r} needs a file beside the baseline. Received: one file. Give the "
            "baseline first."
        )
    if rule.reference != "previous":
        return
    require_previous([rule], previous)
    assert previous is not None
    if rule.figure in (*LATENCIES, "peak_memory_bytes") and not report.machine.is_like(previous.machine):
        raise BenchmarkError(
            f"--fail-if: the rule {rule.text!r} compares {rule.figure} with a report of another machine. Expected: "
            f"{report.machine.processor}. Received: {previous.machine.processor}. Measure the earlier files here, or "
            "compare with the baseline."
        )
    if rule.figure == "score" and report.metric != previous.metric:
        raise BenchmarkError(
            f"--fail-if: the rule {rule.text!r} compares scores of different metrics. Expected: {report.metric}. "
            f"Received: {previous.metric}. Give both the same data."
        )


def _find(rule: Rule, entry: Entry, reference: Entry | None) -> Finding:
    if rule.reference is None:
        measured, detail = _figure(rule, entry, _latency(rule, entry.latencies))
    elif reference is None:
        return Finding(rule, entry.name, "not measured", "not in the earlier report")
    else:
        measured, detail = _multiple(rule, entry, reference)
    if measured is None:
        return Finding(rule, entry.name, "not measured", detail)
    ends = [measured.value] if measured.low is None or measured.high is None else [measured.low, measured.high]
    fails = {rule.is_met(end) for end in ends}
    outcome: Outcome = "too noisy to tell" if len(fails) > 1 else "failed" if True in fails else "passed"
    return Finding(rule, entry.name, outcome, detail)


def _multiple(rule: Rule, entry: Entry, reference: Entry) -> tuple[Ratio | None, str]:
    """The figure as a multiple of the reference's: of times in one run round by round."""
    if entry.error or reference.error:
        return None, f"{(entry if entry.error else reference).name} could not be measured"
    latency = _latency(rule, tuple(one for one in entry.latencies if reference.latency_at(one.threads)))
    other = reference.latency_at(latency.threads) if latency else None
    if rule.figure in LATENCIES and (latency is None or other is None):
        return None, f"not timed at a thread count that {reference.name} was timed at too"
    if latency and other and rule.reference == "baseline" and rule.figure == "p50_ms":
        ratio = ratio_of_rounds(latency.round_medians_ms, other.round_medians_ms)
        if ratio is not None:
            return ratio, f"{_words(ratio)} × the baseline, {threads_words(latency.threads)}"
    ours, detail = _figure(rule, entry, latency)
    theirs, their_detail = _figure(rule, reference, other)
    if ours is None:
        return None, detail
    if theirs is None or theirs.value == 0:
        return None, f"{reference.name}: {their_detail}"
    low = high = None
    if None not in (ours.low, ours.high, theirs.low, theirs.high):
        low, high = ours.low / theirs.high, ours.high / theirs.low  # type: ignore[operator]
    multiple = Ratio(ours.value / theirs.value, low, high)
    if rule.reference == "previous" and rule.figure in LATENCIES:
        # A ratio of times is quoted of one run only: of two, the intervals must be apart by as much.
        return multiple, f"then {their_detail}; now {detail}"
    return multiple, f"{_words(multiple)} × {rule.reference}: {detail} against {their_detail}"


def _figure(rule: Rule, entry: Entry, latency: Latency | None) -> tuple[Ratio | None, str]:
    """The figure of an entry with its interval, and the same in words."""
    if rule.figure in LATENCIES:
        if latency is None:
            return None, f"not timed at {threads_words(rule.threads)}" if rule.threads else "not timed"
        value = getattr(latency, rule.figure)
        ends = (latency.p50_low_ms, latency.p50_high_ms) if rule.figure == "p50_ms" else (None, None)
        return (found := Ratio(value, *ends)), f"{_words(found)}, {threads_words(latency.threads)}"
    value = getattr(entry, rule.figure)
    if value is None or entry.error:
        return None, entry.error or f"{rule.figure} was not measured"
    return Ratio(value), f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _latency(rule: Rule, latencies: tuple[Latency, ...]) -> Latency | None:
    """That at the rule's thread count; without one, at the lowest."""
    chosen = [one for one in latencies if rule.threads in (None, one.threads)]
    return min(chosen, key=lambda one: one.threads or 0, default=None)


def _words(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return significant(ratio.value)
    return f"{significant(ratio.value)}, 95 % interval {significant(ratio.low)} to {significant(ratio.high)}"
