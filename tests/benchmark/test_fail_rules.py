"""Rules by which a benchmark fails: what is read, what is refused, and what they say of a report."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import ELSEWHERE, made_entry, made_report, timed

from tfopt.benchmark.fail_check import check_rules
from tfopt.benchmark.fail_rules import Rule
from tfopt.errors import BenchmarkError, ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p50_ms > 1.1x baseline", ("p50_ms", None, ">", 1.1, "baseline")),
        ("p50_ms>1.1xbaseline", ("p50_ms", None, ">", 1.1, "baseline")),
        (" p99_ms@2 >= 3 ms ", ("p99_ms", 2, ">=", 3.0, None)),
        ("p50_ms > 250us", ("p50_ms", None, ">", 0.25, None)),
        ("p90_ms > 1.5 s", ("p90_ms", None, ">", 1500.0, None)),
        ("size_bytes > 500 KiB", ("size_bytes", None, ">", 512000.0, None)),
        ("peak_memory_bytes > 2MB", ("peak_memory_bytes", None, ">", 2e6, None)),
        ("gzip_bytes > 1000", ("gzip_bytes", None, ">", 1000.0, None)),
        ("score < 97 %", ("score", None, "<", 0.97, None)),
        ("score <= -0.5", ("score", None, "<=", -0.5, None)),
        ("throughput_per_second@1 < 0.9x previous", ("throughput_per_second", 1, "<", 0.9, "previous")),
    ],
)
def test_a_rule_is_read(text, expected):
    rule = Rule.parse(text)
    assert (rule.figure, rule.threads, rule.comparison, rule.bound, rule.reference) == pytest.approx(expected)
    assert rule.text == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected FIGURE"),
        ("p50_ms", "expected FIGURE"),
        ("p50_ms > fast", "expected FIGURE"),
        ("p50_ms == 3", "expected FIGURE"),
        ("p50_ms > 1.1 baseline", "A multiple is written 1.1x baseline. Received: 'baseline'"),
        ("p50_ms > 1.1x base", "expected FIGURE"),
        ("p50_ms > 3 ms baseline", "expected FIGURE"),
        ("p50_ms > 3; rm -rf", "expected FIGURE"),
        ("1 < p50_ms", "expected FIGURE"),
        ("p50 > 3", "the figure must be one of p50_ms.*Received: 'p50'"),
        ("accuracy < 0.9", "the figure must be one of.*Received: 'accuracy'"),
        ("p50_ms > 3 KiB", "units of p50_ms are: us, ms, s. .*Received: 'KiB'"),
        ("size_bytes > 3 ms", "units of size_bytes are: B, kB, MB, KiB, MiB, GiB. .*Received: 'ms'"),
        ("throughput_per_second < 3 ms", "units of throughput_per_second are: none. .*Received: 'ms'"),
        ("size_bytes@2 > 3", "@THREADS, at least 1, goes with p50_ms"),
        ("p50_ms@0 > 3", "@THREADS, at least 1, goes with p50_ms"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Rule.parse(text)


@given(st.text(max_size=40))
def test_no_text_does_anything_else(text):
    with contextlib.suppress(ConfigError):
        assert Rule.parse(text).figure in text


def outcomes(report, rule, **options):
    return {finding.entry: finding.outcome for finding in check_rules(report, [rule], **options)}


def test_ratios_to_the_baseline_are_judged_by_their_interval():
    report = made_report(
        made_entry("float32", 1000, timed(1.0)),
        made_entry("slower", 1000, timed(1.3, seed=1)),
        made_entry("as fast", 1000, timed(1.0, seed=2)),
        made_entry("noisy", 1000, timed(1.1, seed=3, noise=0.5)),
        made_entry("at another count", 1000, timed(9.0, threads=4)),
    )
    assert outcomes(report, "p50_ms > 1.1x baseline") == {
        "slower": "failed",
        "as fast": "passed",
        "noisy": "too noisy to tell",
        "at another count": "not measured",
    }


def test_an_absolute_bound_is_for_every_file_and_judged_by_the_interval():
    report = made_report(
        made_entry("a", 1000, timed(1.0)), made_entry("b", 1000, timed(2.0)), made_entry("c", 10, timed(1.51))
    )
    assert outcomes(report, "p50_ms > 1.5") == {"a": "passed", "b": "failed", "c": "too noisy to tell"}
    assert outcomes(report, "p99_ms > 3.03 ms") == {"a": "passed", "b": "failed", "c": "passed"}
    assert outcomes(report, "size_bytes <= 1 kB") == {"a": "failed", "b": "failed", "c": "failed"}
    assert outcomes(report, "throughput_per_second < 600") == {"a": "passed", "b": "failed", "c": "passed"}


def test_scores_and_sizes_have_no_noise():
    report = made_report(made_entry("a", 1000, score=0.98), made_entry("b", 400, score=0.97))
    assert outcomes(report, "score < 0.99x baseline") == {"b": "failed"}
    assert outcomes(report, "score < 97 %") == {"a": "passed", "b": "passed"}
    assert outcomes(report, "size_bytes > 0.4x baseline") == {"b": "passed"}
    finding = check_rules(report, ["score < 0.99x baseline"])[0]
    assert str(finding) == "b: failed: score < 0.99x baseline (0.990 × baseline: 0.9700 against 0.9800)"


def test_a_thread_count_is_chosen():
    both = (timed(1.0), timed(0.7, threads=2))
    report = made_report(made_entry("a", 1000, *both), made_entry("b", 1000, timed(1.0, seed=1), timed(1.4, threads=2)))
    assert outcomes(report, "p50_ms > 1.5x baseline") == {"b": "passed"}
    assert outcomes(report, "p50_ms@2 > 1.5x baseline") == {"b": "failed"}
    assert outcomes(report, "p50_ms@2 > 1") == {"a": "passed", "b": "failed"}


def test_the_lowest_thread_count_that_both_have_is_compared():
    report = made_report(
        made_entry("a", 1000, timed(1.0, threads=2)), made_entry("b", 10, timed(9.0), timed(1.0, threads=2))
    )
    assert outcomes(report, "p50_ms > 1.1x baseline") == {"b": "passed"}


def test_an_earlier_report_is_compared_by_name_and_by_intervals_that_are_apart():
    before = made_report(made_entry("a", 1000, timed(1.0)), made_entry("gone", 1000, timed(1.0)))
    now = made_report(made_entry("a", 1000, timed(1.2)), made_entry("new", 1000, timed(1.0)))
    assert outcomes(now, "p50_ms > 1.1x previous", previous=before) == {"a": "failed", "new": "not measured"}
    assert outcomes(now, "p50_ms > 1.18x previous", previous=before)["a"] == "too noisy to tell"
    assert outcomes(now, "size_bytes > 1x previous", previous=before)["a"] == "passed"
    detail = check_rules(now, ["p50_ms > 1.1x previous"], previous=before)[0].detail
    assert detail.startswith("then 1.00, 95 % interval 0.980 to 1.02, 1 thread; now 1.20, 95 % interval")  # no ratio


def test_times_of_another_machine_are_refused_and_sizes_are_not():
    before = made_report(made_entry("a", 900, timed(1.0)), machine=ELSEWHERE)
    now = made_report(made_entry("a", 1000, timed(1.0)))
    for figure in ("p50_ms", "throughput_per_second", "peak_memory_bytes"):
        with pytest.raises(
            BenchmarkError, match=r"another machine\. Expected: .*Received: Another CPU, 64 logical cores"
        ):
            check_rules(now, [f"{figure} > 1.1x previous"], previous=before)
    assert outcomes(now, "size_bytes > 1.1x previous", previous=before) == {"a": "failed"}


def test_scores_of_different_metrics_are_refused():
    before = made_report(made_entry("a", 900, score=0.9), metric="R²")
    with pytest.raises(BenchmarkError, match=r"different metrics\. Expected: top-1 accuracy\. Received: R²"):
        check_rules(made_report(made_entry("a", 900, score=0.9)), ["score < 1x previous"], previous=before)


def test_a_rule_that_can_never_hold_is_no_success():
    report = made_report(made_entry("a", 1000), made_entry("b", 1000))
    with pytest.raises(BenchmarkError, match=r"no entry has what it needs\. Received: a: not timed; b: not timed"):
        check_rules(report, ["p50_ms > 3"])
    with pytest.raises(BenchmarkError, match="score was not measured"):
        check_rules(report, ["score < 0.9"])
    with pytest.raises(ConfigError, match=r"needs a file beside the baseline\. Received: one file"):
        check_rules(made_report(made_entry("a")), ["p50_ms > 1.1x baseline"])
    with pytest.raises(ConfigError, match="needs an earlier report"):
        check_rules(report, ["p50_ms > 1.1x previous"])


def test_a_file_that_failed_is_not_judged():
    report = made_report(
        made_entry("a", 1000, timed(1.0)), made_entry("bad", 5, error="it is broken."), made_entry("b", 10, timed(1.0))
    )
    assert outcomes(report, "size_bytes > 3x baseline") == {"bad": "not measured", "b": "passed"}
    assert outcomes(report, "p50_ms > 3") == {"a": "passed", "bad": "not measured", "b": "passed"}


def test_a_report_without_rounds_is_judged_by_its_values():
    bare = {"round_medians_ms": (), "p50_low_ms": None, "p50_high_ms": None}
    report = made_report(
        made_entry("a", 1000, timed(1.0).model_copy(update=bare)),
        made_entry("b", 10, timed(1.2).model_copy(update=bare)),
    )
    assert outcomes(report, "p50_ms > 1.1x baseline") == {"b": "failed"}
