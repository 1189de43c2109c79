import itertools
import re

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.plots import _place_labels, entry_colors, latency_plot, score_plot
from tfopt.benchmark.report import Entry, Report


def labels_of(points):
    figure = Figure(figsize=(4.1, 3.5))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 1.15)
    axes.set_ylim(-0.25, 1.25)
    _place_labels(figure, axes, points)
    return [text for text in axes.texts if text.get_text()]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0.2, 0.9), st.floats(0, 1)), min_size=1, max_size=4))
def test_labels_do_not_overlap(places):
    labels = labels_of([(x, y, f"int8 {i}") for i, (x, y) in enumerate(places)])
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == len(places)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_labels_of_equal_points_are_apart():
    boxes = [label.get_window_extent() for label in labels_of([(0.5, 0.5, "int8 post-training")] * 4)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def small_report(scores):
    return Report(
        title="t",
        metric="top-1 accuracy",
        machine=this_machine(),
        entries=tuple(
            Entry(name=f"e{i}", path="p", kind="tflite", size_bytes=100 * (i + 1), gzip_bytes=10, score=score)
            for i, score in enumerate(scores)
        ),
    )


def test_what_was_not_measured_is_not_drawn():
    assert score_plot(small_report([0.9, None])) is None
    assert latency_plot(small_report([0.9, 0.8])) is None


def test_a_tiny_difference_is_not_drawn_large():
    svg = score_plot(small_report([0.980, 0.979]))
    ticks = [float(tick) for tick in re.findall(r">(\d+\.\d+)</text>", svg) if float(tick) > 50]
    assert max(ticks) - min(ticks) >= 1


def test_colours_differ_and_global_settings_stay():
    before = dict(matplotlib.rcParams)
    colors = entry_colors(small_report([0.9] * 6))
    score_plot(small_report([0.9, 0.8]))
    assert len(set(colors.values())) == 6
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("count", [12])
def test_more_entries_than_colours(count):
    assert len(entry_colors(small_report([0.9] * count))) == count
