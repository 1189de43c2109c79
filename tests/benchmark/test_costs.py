"""Derived figures: they follow from a throughput and from what the user says, and say how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import made_entry, made_report, timed
from pydantic import ValidationError

from tfopt.benchmark.costs import cost_per_million, energy_mj

amounts = st.floats(0.001, 1000)


@given(amounts, amounts)
def test_an_hour_of_inferences_costs_the_price_of_an_hour(price, rate):
    assert cost_per_million(price, rate) * 3600 * rate / 1e6 == pytest.approx(price)


@given(amounts, amounts)
def test_a_second_of_inferences_takes_the_watts(watts, rate):
    assert energy_mj(watts, rate) * rate / 1000 == pytest.approx(watts)


def test_the_report_derives_both_at_every_thread_count_and_says_how(tmp_path):
    entry = made_entry("int8", 1000, timed(2.0), timed(1.0, threads=2))
    report = made_report(entry, made_entry("bare", 1000), price_per_hour=0.36, watts=5.0)
    assert list(report.derived) == ["int8"]
    assert [(one.figure, one.threads, one.value) for one in report.derived["int8"]] == [
        ("$ per 1M inferences", 1, pytest.approx(0.2)),
        ("mJ per inference", 1, pytest.approx(10)),
        ("$ per 1M inferences", 2, pytest.approx(0.1)),
        ("mJ per inference", 2, pytest.approx(5)),
    ]
    assert report.derived["int8"][1].formula == "5 W × 1000 / 500 inferences per second"
    page = report.save(tmp_path).read_text()
    assert "Derived, not measured" in page
    assert "$0.36 per hour / 3600 s / 500 inferences per second × 1,000,000" in page
    assert "the price and the watts that the user gave" in page
    markdown = report.to_markdown()
    assert "$ per 1M inferences, derived" in markdown
    assert "0.200" in markdown


def test_without_price_and_watts_nothing_is_derived(tmp_path):
    report = made_report(made_entry("int8", 1000, timed(2.0)))
    assert report.derived == {}
    assert "derived" not in report.to_markdown()
    assert "Derived" not in report.save(tmp_path).read_text()


@pytest.mark.parametrize("field", ["price_per_hour", "watts"])
def test_a_price_is_above_zero(field):
    with pytest.raises(ValidationError):
        made_report(made_entry("int8"), **{field: 0.0})
