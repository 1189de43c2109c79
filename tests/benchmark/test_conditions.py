"""Remarks on the conditions of a measurement."""

import dataclasses

from made_reports import HERE

from tfopt.benchmark.conditions import conditions_remarks
from tfopt.benchmark.protocol import Timing, measure

QUIET = Timing(
    p50_ms=1.0,
    p90_ms=1.0,
    p99_ms=1.0,
    throughput_per_second=1000,
    repeats=100,
    warmup_calls=10,
    settled=True,
    p50_interval_ms=(0.98, 1.02),
    round_medians_ms=(1.0,) * 20,
    percentiles_ms=(1.0,) * 101,
    outliers=0.0,
    core=None,
)


def remarks(**fields):
    return conditions_remarks(HERE, {("int8", 1): QUIET, ("float32", None): dataclasses.replace(QUIET, **fields)})


def test_a_quiet_measurement_has_none():
    assert remarks() == ()


def test_what_was_restless_is_named():
    assert remarks(settled=False) == (
        "Warm-up times did not settle for float32: the machine was busy, repeat the measurement.",
    )
    assert remarks(round_medians_ms=(0.8, 1.0, 1.2) * 6) == (
        "Medians changed from round to round, the machine was noisy: by 29.7 % (float32, default threads).",
    )
    assert remarks(outliers=0.07) == (
        "Many inferences took far longer than the others: 7.0 % (float32, default threads).",
    )


def test_a_load_of_less_than_the_cores_is_none():
    assert conditions_remarks(HERE.model_copy(update={"load_average": None}), {}) == ()
    loaded = HERE.model_copy(update={"load_average": 4.0, "logical_cores": 4})
    assert "a load average of 4 on 4 logical cores" in conditions_remarks(loaded, {})[0]


def test_real_timings_have_the_fields():
    timings = measure({("sum", 1): lambda: sum(range(50))}, repeats=20, seconds=0)
    conditions_remarks(HERE, timings)
