import itertools
import re

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfopt.benchmark.distribution_plot import distribution_plot
from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.plot_drawing import place_labels
from tfopt.benchmark.plots import entry_colors, latency_plot, latency_score_plot, operator_plot, size_score_plot
from tfopt.benchmark.report import Entry, Latency, OperatorTime, Report


def labels_of(points):
    figure = Figure(figsize=(4.1, 3.5))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 1.15)
    axes.set_ylim(-0.25, 1.25)
    place_labels(figure, axes, points)
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
    assert size_score_plot(small_report([0.9, None])) is None
    for plot in (latency_plot, latency_score_plot, distribution_plot, operator_plot):
        assert plot(small_report([0.9, 0.8])) is None


def timed(threads, p50_ms, spread=0.1):
    percentiles = tuple(p50_ms * (1 + spread * (rank - 50) / 50) for rank in range(101))
    return Latency(
        threads=threads,
        p50_ms=p50_ms,
        p90_ms=percentiles[90],
        p99_ms=percentiles[99],
        throughput_per_second=1000 / p50_ms,
        repeats=100,
        p50_low_ms=0.9 * p50_ms,
        p50_high_ms=1.1 * p50_ms,
        percentiles_ms=percentiles,
    )


def with_entries(report, **fields):
    return report.model_copy(update={"entries": tuple(one.model_copy(update=fields) for one in report.entries)})


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_label_keeps_off_the_interval_of_its_mark():
    figure = Figure(figsize=(4.1, 3.5))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 1)
    place_labels(figure, axes, [(0.5, 0.5, "int8")], [(0.2, 0.8)])
    (label,) = (text for text in axes.texts if text.get_text())
    (left, middle), (right, _) = axes.transData.transform([(0.2, 0.5), (0.8, 0.5)])
    extent = label.get_window_extent()
    assert extent.x1 < left or extent.x0 > right or extent.y0 > middle + 3 or extent.y1 < middle - 3


def test_latency_is_drawn_against_score_at_a_thread_count_that_two_have():
    report = with_entries(small_report([0.9, 0.8]), latencies=(timed(2, 0.05),))
    report = report.model_copy(
        update={
            "entries": (
                report.entries[0].model_copy(update={"latencies": (timed(1, 9), timed(2, 0.06))}),
                *report.entries[1:],
            )
        }
    )
    shown = texts(latency_score_plot(report))
    assert {"e0", "e1"} <= set(shown)
    assert "p50, µs, 2 threads" in shown


def test_every_distribution_is_drawn_on_one_scale():
    report = with_entries(small_report([0.9, 0.8]), latencies=(timed(1, 0.3), timed(None, 4.0, spread=0.5)))
    svg = distribution_plot(report)
    shown = texts(svg)
    assert shown.count("1 thread") == shown.count("default threads") == 2
    assert {"e0", "e1", "one inference, ms"} <= set(shown)
    assert all(color.lower() in svg for color in entry_colors(report).values())


def test_the_ends_of_the_axis_of_times_are_within_the_plot():
    latencies = (timed(1, 1.0, spread=0.0), timed(2, 1000.0, spread=0.0))
    svg = distribution_plot(with_entries(small_report([0.9]), latencies=latencies))
    shown = re.findall(r"text-anchor: (\w+)[^>]*>(1|1000)</text>", svg)
    assert shown == [("start", "1"), ("end", "1000")]


def test_a_distribution_of_one_value_is_drawn():
    assert "<svg" in distribution_plot(with_entries(small_report([0.9]), latencies=(timed(1, 0.3, spread=0.0),)))


def test_operators_are_summed_by_kind_and_the_rest_are_others():
    operators = tuple(
        OperatorTime(name=f"layer {index}", kind=f"KIND_{index % 8}", time_ms=1.0 + index % 8) for index in range(16)
    )
    shown = texts(operator_plot(with_entries(small_report([None]), operators=operators)))
    assert "KIND_7" in shown
    assert "16.0 ms in 2" in shown
    assert "others" in shown
    assert "6.00 ms in 4" in shown  # the two of KIND_0 and of KIND_1
    assert "KIND_1" not in shown


def test_a_long_kind_is_cut_and_stays_in_the_figure():
    long = OperatorTime(name="n", kind="A_VERY_LONG_NAME_OF_A_KIND_OF_OPERATOR", time_ms=1.0)
    assert "A_VERY_LONG_NAME_OF…" in texts(operator_plot(with_entries(small_report([None]), operators=(long,))))


def test_a_tiny_difference_is_not_drawn_large():
    svg = size_score_plot(small_report([0.980, 0.979]))
    ticks = [float(tick) for tick in re.findall(r">(\d+\.\d+)</text>", svg) if float(tick) > 50]
    assert max(ticks) - min(ticks) >= 1


def test_colours_differ_and_global_settings_stay():
    before = dict(matplotlib.rcParams)
    colors = entry_colors(small_report([0.9] * 6))
    size_score_plot(small_report([0.9, 0.8]))
    assert len(set(colors.values())) == 6
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("count", [12])
def test_more_entries_than_colours(count):
    assert len(entry_colors(small_report([0.9] * count))) == count
