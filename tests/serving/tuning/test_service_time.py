"""Curves of service times: interpolation, and the measuring of functions whose time is known."""

from __future__ import annotations

import threading
import time

import pytest

from tfopt.serving.tuning.service_time import ServiceTime, measure_service_time


def test_times_between_and_beyond_the_measured_sizes():
    times = ServiceTime({1: 1.0, 8: 8.0, 16: 12.0})
    assert [times.of(size) for size in (1, 4, 8, 12, 16, 20)] == pytest.approx([1, 4, 8, 10, 12, 14])


def test_one_measured_size_stands_for_all():
    assert ServiceTime({4: 2.0}).of(100) == 2


def test_more_side_by_side_than_was_measured_share_the_machine():
    times = ServiceTime({1: 1.0}, slowdown={1: 1.0, 2: 1.2})
    assert times.of(1, side_by_side=2) == pytest.approx(1.2)
    assert times.of(1, side_by_side=4) == pytest.approx(2.4)


def test_a_known_curve_is_found():
    times = measure_service_time(lambda size: time.sleep(0.004 * size), [1, 2, 4], seconds_each=0.05)
    assert times.of(1) >= 4
    assert times.of(4) >= 16
    assert times.of(4) > times.of(2) > times.of(1)


def test_calls_that_exclude_each_other_take_longer_side_by_side():
    lock = threading.Lock()

    def run(_: int) -> None:
        with lock:
            time.sleep(0.005)

    times = measure_service_time(run, [1], threads=(1, 2), seconds_each=0.1)
    assert times.of(1, side_by_side=2) > 1.5 * times.of(1)
