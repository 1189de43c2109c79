import io
import json
import re
from html.parser import HTMLParser

import pytest
from made_reports import made_entry, made_report, timed
from rich.console import Console

from tfopt.benchmark.comparison import compare, headline
from tfopt.benchmark.machine import this_machine
from tfopt.benchmark.report import Contents, CoverageRow, Entry, Estimate, Latency, Report
from tfopt.benchmark.report_page import render_page
from tfopt.errors import ConfigError, DataError
from tfopt.inspection_table import Part
from tfopt.output_error import ErrorDistribution


def latency(threads, p50_ms):
    return Latency(
        threads=threads,
        p50_ms=p50_ms,
        p90_ms=1.2 * p50_ms,
        p99_ms=2 * p50_ms,
        throughput_per_second=1000 / p50_ms,
        repeats=100,
    )


def entry(name, size_bytes, p50_ms=None, score=None, threads=1, **fields):
    timed = () if p50_ms is None else (latency(threads, p50_ms),)
    fields = {"kind": "tflite", "gzip_bytes": size_bytes // 2, "latencies": timed, **fields}
    return Entry(name=name, path=name, size_bytes=size_bytes, score=score, **fields)


def report(*entries, metric="top-1 accuracy", **fields):
    return Report(title="Digits", metric=metric, machine=this_machine(), entries=entries, **fields)


def part(name, *, weights=100, zeros=0, flops=200, **fields):
    figures = {"kind": "CONV_2D", "dtypes": "int8", "shape": (1, -1, 8), "distinct_values": 16, "zeros_use": ""}
    sizes = {"size_bytes": 4 * weights, "gzip_bytes": 3 * weights, "coded_bytes": 4 * weights}
    return Part(name=name, weights=weights, nonzeros=weights - zeros, flops=flops, **(figures | sizes | fields))


FLOAT = entry("float32", 3600, 1.8, 0.980)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            entry("int8", 1000, 1.0, 0.978),
            "int8 is 3.6× smaller and 1.80× faster than float32, at −0.20 points of top-1 accuracy (97.80 %).",
        ),
        (
            entry("int8", 1000, 3.6, 0.980),
            "int8 is 3.6× smaller but 2.0× slower than float32, with the same top-1 accuracy (98.00 %).",
        ),
        (
            entry("float16", 1800, 1.79, 0.981),
            "float16 is 2.0× smaller and as fast as float32, at +0.10 points of top-1 accuracy (98.10 %).",
        ),
        (
            entry("sparse", 7200, 3.6),
            "sparse is 2.0× larger and 2.0× slower than float32; its accuracy was not compared.",
        ),
        (
            entry("serving", 3600, 1.0, threads=None),
            "serving is the same size as float32; its speed and accuracy were not compared.",
        ),
    ],
)
def test_the_headline_says_what_is_gained_and_lost(other, sentence):
    assert headline(report(FLOAT, other), other) == sentence


@pytest.mark.parametrize(
    ("p50_ms", "noise", "verdict", "sentence"),
    [
        (0.4, 0.01, "faster", "int8 is 3.6× smaller and 2.5× faster than float32; its accuracy was not compared."),
        (2.5, 0.01, "slower", "int8 is 3.6× smaller but 2.5× slower than float32; its accuracy was not compared."),
        (1.01, 0.01, "no difference", "int8 is 3.6× smaller and as fast as float32; its accuracy was not compared."),
        (
            1.1,
            0.5,
            "too noisy to tell",
            "int8 is 3.6× smaller than float32; its accuracy was not compared; the machine was too noisy to tell which "
            "is faster.",
        ),
    ],
)
def test_what_intervals_do_not_tell_is_not_claimed(p50_ms, noise, verdict, sentence):
    shown = made_report(
        made_entry("float32", 3600, timed(1.0)), made_entry("int8", 1000, timed(p50_ms, noise=noise, seed=1))
    )
    assert shown.comparisons["int8"].verdict == verdict
    assert headline(shown, shown.entries[1]) == sentence
    row = next(line for line in str(shown).splitlines() if line.strip().startswith("int8"))
    told = {"faster": "2.50×", "slower": "0.400×"}.get(verdict, verdict)
    assert told in row
    assert words(render_page(shown)).count(told) >= 2


def test_what_has_no_size_is_compared_in_speed():
    shown = made_report(
        made_entry("float32", 3600, timed(1.0)), made_entry("served", 0, timed(0.4, seed=1), gzip_bytes=0)
    )
    assert shown.comparisons["served"].size_ratio is None
    assert headline(shown, shown.entries[1]) == "served is 2.5× faster than float32; its accuracy was not compared."
    assert shown.pareto_front == ("float32", "served")
    bare = made_report(shown.entries[0], made_entry("served", 0, gzip_bytes=0))
    assert headline(bare, bare.entries[1]) == "served: 0 B; float32 was not compared."


def test_ratios_are_taken_round_by_round():
    """The machine is twice as slow in half of the rounds of both: the p50s would say anything."""
    swing = tuple(1.0 if index % 2 else 2.0 for index in range(20))
    first = timed(1.0).model_copy(update={"round_medians_ms": swing})
    second = timed(2.0).model_copy(update={"round_medians_ms": swing})
    shown = made_report(made_entry("a", 10, first), made_entry("b", 10, second))
    assert shown.comparisons["b"].speedup == 1.0
    assert shown.comparisons["b"].verdict == "no difference"


def test_every_shared_thread_count_is_compared():
    shown = made_report(
        made_entry("a", 10, timed(1.0), timed(0.8, threads=2)),
        made_entry("b", 10, timed(0.5, seed=1), timed(0.8, threads=2, seed=1), timed(9.0, threads=None)),
    )
    found = shown.comparisons["b"].speedups
    assert [(one.threads, one.verdict) for one in found] == [(1, "faster"), (2, "no difference")]


def test_the_pareto_front_is_marked():
    shown = made_report(
        made_entry("float32", 3600, timed(1.0), score=0.98),
        made_entry("int8", 1000, timed(0.5), score=0.97),
        made_entry("worse", 4000, timed(2.0), score=0.97),
    )
    lines = [line for line in str(shown).splitlines() if line.strip().startswith(("float32", "int8", "worse"))]
    assert [line.rstrip().endswith("yes") for line in lines] == [True, True, False]
    rows = [line for line in shown.to_markdown().splitlines() if line.startswith(("| float32", "| int8", "| worse"))]
    assert [row.endswith("| yes |") for row in rows] == [True, True, False]
    assert words(render_page(shown)).count("Pareto front") >= 2 + 1
    assert "Pareto front" not in str(made_report(made_entry("float32", 3600)))


def test_markdown_is_a_table_that_names_cannot_break():
    odd = made_entry("a|b <script> *x*", 1000, timed(1.0))
    text = made_report(odd, made_entry("int8", 500, timed(0.5)), notes=("one | two",), samples=360).to_markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "a\\|b &lt;script> \\*x\\*" in text
    assert "0.500 (0.490–0.510)" in text
    assert "2.00× (1.98–2.02×)" in text
    assert "top-1 accuracy on 360 samples" in text
    assert "- one \\| two" in text
    assert this_machine().cpu in text


def test_the_page_says_how_and_on_what_it_was_timed():
    shown = words(render_page(made_report(made_entry("float32", 3600, timed(1.0)))))
    assert "Single-threaded inferences were kept on a quiet core, mostly 1." in shown
    assert "load before 0.1" in shown
    assert "0.980–1.02" in shown
    assert "1.0 % far out" in shown


def test_a_lone_entry_is_described():
    assert headline(report(FLOAT), FLOAT) == "float32: 3.52 KiB, 1.80 ms (1 thread), top-1 accuracy 98.00 %."


def test_speeds_are_compared_at_a_thread_count_that_both_have():
    one = FLOAT.model_copy(update={"latencies": (latency(1, 4.0), latency(2, 3.0))})
    two = FLOAT.model_copy(update={"latencies": (latency(2, 1.0),)})
    difference = compare(two, one)
    assert (difference.threads, difference.speedup) == (2, 3.0)
    assert compare(entry("serving", 10, 1.0, threads=None), one).speedup is None


def test_the_table_reads_not_measured_and_never_a_number():
    text = str(report(FLOAT, entry("serving", 3600)))
    line = next(line for line in text.splitlines() if line.startswith(" serving"))
    # accuracy, change, p50, ratio and memory
    assert line.count("not measured") == 5
    assert line.count("3.52 KiB") == 1
    assert line.count("1.00×") == 1


def test_names_are_printed_as_they_are():
    assert "[red]odd[/red]" in str(report(entry("[red]odd[/red]", 10)))


def test_the_table_fits_a_narrow_terminal_without_losing_a_figure():
    console = Console(width=80, record=True, color_system=None, file=io.StringIO())
    wide = entry("int8", 1000, 1.0, 0.978, threads=2)
    both = wide.model_copy(update={"latencies": (latency(1, 1.0), latency(2, 0.9), latency(None, 5.0))})
    report(FLOAT, both).print_table(console)
    text = console.export_text()
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for figure in ("97.80 %", "−0.20", "3.60×", "1.80×", "1.00"):
        assert figure in text


def test_columns_that_do_not_fit_side_by_side_are_put_below_each_other():
    console = Console(width=80, record=True, color_system=None, file=io.StringIO())
    names = ["float32", "int8", "int8_pruned", "int8_small", "int8_small_pruned"]
    made = [made_entry(name, 1000, timed(0.2312 * (1 + number))) for number, name in enumerate(names)]
    made_report(*made).print_table(console)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.count("Digits") == text.count("the baseline's size") == 1
    for figure in (*names, "0.227–0.236", "0.453–0.472", "0.680–0.707", "0.906–0.943", "1.13–1.18"):
        assert figure in text


def test_entries_are_added_by_a_copy():
    first = report(FLOAT)
    both = first.model_copy(update={"entries": (*first.entries, entry("int8", 1000))})
    assert [one.name for one in both.entries] == ["float32", "int8"]
    assert len(first.entries) == 1


def test_a_report_that_is_not_one_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"Report\.load: expected a report"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text('{"title": "half')
    with pytest.raises(DataError, match=r"Report\.load: expected a report"):
        Report.load(tmp_path)


def test_an_unwritable_place_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ConfigError, match="Cannot write"):
        report(FLOAT).save(tmp_path / "file" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class Page(HTMLParser):
    """What a page loads, its ids, its text, and whether its tags are closed."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, text):
        super().__init__()
        self.loaded, self.ids, self.open, self.tags, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [tag] if tag not in self.VOID else []
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.loaded += [value] if name in ("src", "href", "xlink:href") and value[0] != "#" else []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def words(text):
    return " ".join(" ".join(Page(text).words).split())


ODD_NAME = "int8 <script>alert(1)</script> $x$"
FULL = report(
    FLOAT,
    entry(
        ODD_NAME,
        1000,
        1.0,
        0.978,
        verification={"max_lsb": 1.0, "full_integer": True},
    ),
    entry("serving", 4000, 2.0, 0.98, threads=None, kind="saved_model"),
    entry(
        "estimated",
        900,
        estimates=(
            Estimate(
                target="ethos-u55-128",
                source="vela",
                latency_ms=0.44,
                cycles=220870,
                sram_bytes=74480,
                accelerator_operators=57,
                cpu_operators=1,
            ),
        ),
    ),
    samples=360,
    coverage=(
        CoverageRow(layer="conv", type="Conv2D", quantized=True),
        CoverageRow(layer="act", type="Activation", quantized=False, reason="'gelu' has no int8 rule"),
    ),
    notes=("A note & more.",),
    reproduce="tfopt demo",
)


def test_the_page_is_well_formed_self_contained_and_escaped():
    text = render_page(FULL)
    page = Page(text)
    assert page.open == []
    assert page.loaded == []
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert not re.search(r"@import|url\((?!#)", text)
    assert ODD_NAME in "".join(page.words)


def test_the_page_holds_every_section_and_figure():
    page = Page(render_page(FULL))
    text = " ".join(" ".join(page.words).split())
    assert page.tags.count("svg") == 4
    for expected in (
        "3.60×",
        "1,000 bytes",
        "Agreement with Keras",
        "largest difference in int8 steps 1",
        "1 of 2 layers are quantized; 1 in float.",
        "'gelu' has no int8 rule",
        "57 of 58",
        "220,870",
        "A note & more.",
        "tfopt demo",
        "not measured",
        this_machine().cpu,
    ):
        assert expected in text


DENSE = Contents.of([part("m/conv")], "tflite")
PRUNED = Contents.of(
    [
        part("m/conv", zeros=90, coded_bytes=50, zeros_use="no: zeros are <multiplied>"),
        part("m/relu", weights=0, flops=0),
        part("m/other", weights=0, flops=None, kind="WHILE"),
    ],
    "tflite",
)


def test_zeros_and_coded_bytes_are_in_the_table_where_something_is_pruned():
    dense = FLOAT.model_copy(update={"contents": DENSE})
    assert "coded" not in str(report(dense))
    text = str(report(dense, entry("pruned", 3600, contents=PRUNED), entry("elsewhere", 3600)))
    assert "smaller gzip zero coded 1 thread faster memory" in " ".join(text.split())
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if "3.52 KiB" in line}
    assert "0.0 % 400 B" in rows["float32"]
    assert "90.0 % 50 B" in rows["pruned"]
    assert rows["elsewhere"].count("not measured") == 7
    assert "pruned: 90.0 % of the weights are zero; faster on tflite? no: zeros are <multiplied>." in text
    assert "float32: 0.0 %" not in text


def test_the_page_folds_the_layers_of_each_file():
    dense = FLOAT.model_copy(update={"contents": DENSE})
    text = render_page(report(dense, entry("pruned", 3600, contents=PRUNED), entry("elsewhere", 3600)))
    page = Page(text)
    assert page.open == []
    assert page.tags.count("details") == page.tags.count("summary") == 2
    shown = words(text)
    assert (
        "pruned 100 weights, 90.0 % zero; 200 FLOPs, not counted in 1 of 3 parts; 400 B, 300 B gzip, 50 B coded"
        in shown
    )
    assert "faster on tflite? conv CONV_2D int8 100 90.0 % 16 400 B 300 B 50 B 200 1×?×8" in shown
    assert shown.count("no: zeros are <multiplied>") == 3  # in the summary, of the layer, of the total
    assert "other WHILE int8 ? 1×?×8 total" in shown
    assert "Not listed: 1 that hold no weights" in shown
    assert "relu" not in shown
    assert "elsewhere not measured: the file was not inspected." in shown


def test_a_file_without_parts_is_a_page_too():
    shown = words(render_page(report(FLOAT.model_copy(update={"contents": Contents.of([], "tflite")}))))
    assert "float32 no weights; 0 B, 0 B gzip, 0 B coded" in shown


def test_a_report_of_before_files_were_inspected_is_read(tmp_path):
    report(FLOAT, entry("int8", 1000)).save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    for one in saved["entries"]:
        assert one.pop("contents") is None
    (tmp_path / "report.json").write_text(json.dumps(saved))
    old = Report.load(tmp_path)
    assert [one.contents for one in old.entries] == [None, None]
    assert "What the files hold" not in render_page(old)
    assert "coded" not in str(old)


def test_the_plots_take_the_pages_colour_and_no_background():
    svg = "".join(re.findall(r"<svg.*?</svg>", render_page(FULL), re.DOTALL))
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "#ffffff" not in svg
    assert "<text" in svg


def test_the_same_report_gives_the_same_page():
    assert render_page(FULL) == render_page(FULL)


def test_a_report_with_one_bare_entry_is_a_page_too():
    page = Page(render_page(report(entry("bare", 100), metric=None)))
    assert page.tags.count("svg") == 1
    assert "not measured" in " ".join(page.words)


def test_errors_are_shown_with_their_sign_and_beside_the_outputs_spread():
    error = ErrorDistribution(
        bias=-0.5,
        standard_deviation=0.25,
        quantiles=(-1.0, -0.75, 0.0, 0.75, 1234.5),
        max_absolute=2000.0,
        output_standard_deviation=2.0,
    )
    still = error.model_copy(update={"output_standard_deviation": 0.0})
    shown = report(
        entry("float32", 3600, score=0.8, error_against_targets=still),
        entry("int8", 1000, score=0.8, error_against_targets=error, error_against_baseline=error),
        metric="R²",
    )
    page = Page(render_page(shown))
    text = " ".join(" ".join(page.words).split())
    assert "int8 float32 −0.500 −0.250 σ 0.250 0.125 σ −1.00 −0.500 σ" in text
    assert "+1,230 +617 σ 2,000 1,000 σ" in text
    assert "float32 targets −0.500 0.250 −1.00 −0.750 0 +0.750 +1,230 2,000" in text  # no unit
    line = next(line for line in str(shown).splitlines() if line.startswith(" int8"))
    assert "−0.500 ± 0.250" in line


def test_the_error_that_verification_measured_is_shown():
    measured = {"bias": 0.25, "standard_deviation": 0.5, "quantiles": [-1.0, -0.5, 0.0, 0.5, 1.0]}
    page = Page(render_page(report(entry("int8", 1000, verification={"error": measured}))))
    text = " ".join(" ".join(page.words).split())
    assert "error, its bias +0.250 its standard deviation 0.500 from 1 % to 99 % −1.00 to +1.00" in text


@pytest.mark.usefixtures("in_jupyter")
def test_in_jupyter_the_text_is_the_same_plain_one():
    text = str(report(entry("int8", 3600)))
    assert "int8" in text
    assert "\x1b" not in text
