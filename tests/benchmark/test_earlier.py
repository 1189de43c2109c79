"""A report beside an earlier one: times of two runs are never divided."""

import re

from made_reports import ELSEWHERE, made_entry, made_report, timed
from rich.console import Console

from tfopt.benchmark.earlier import earlier_markdown, earlier_remarks, earlier_rows

BEFORE = made_report(
    made_entry("float32", 4096, timed(1.0), score=0.98),
    made_entry("int8", 2048, timed(0.5, seed=1), score=0.97),
    made_entry("gone", 100),
    created="2026-01-01T00:00:00+00:00",
)
NOW = made_report(
    made_entry("float32", 4096, timed(1.1), score=0.98),
    made_entry("int8", 1024, timed(0.6, seed=2), score=0.96),
    made_entry("new", 100),
)


def test_each_figure_is_shown_then_and_now():
    float32, int8 = earlier_rows(NOW, BEFORE)
    assert float32[:3] == ("float32", "4.00 KiB → 4.00 KiB", "98.00 % → 98.00 % (+0.00 points)")
    assert float32[3] == "1.00 ms (0.980–1.02) → 1.10 ms (1.08–1.12), 1 thread"
    assert float32[4] == ""
    assert int8[:3] == ("int8", "2.00 KiB → 1.00 KiB", "97.00 % → 96.00 % (−1.00 points)")
    assert re.fullmatch(r"2\.00× \(1\.98–2\.02×\) → 1\.83× \(1\.82–1\.85×\)", int8[4])


def test_remarks_say_what_cannot_be_compared():
    remarks = " ".join(earlier_remarks(NOW, BEFORE))
    assert "The earlier report is of 2026-01-01T00:00:00+00:00. Times of two runs are no ratio." in remarks
    assert "Not in the earlier report: new." in remarks
    assert "Only in the earlier report: gone." in remarks
    assert "another machine" not in remarks


def test_times_of_another_machine_are_left_out_and_ratios_are_not():
    before = BEFORE.model_copy(update={"machine": ELSEWHERE})
    rows = earlier_rows(NOW, before)
    assert [row[3] for row in rows] == ["another machine", "another machine"]
    assert rows[1][4].startswith("2.00×")
    assert "on another machine (Another CPU, 64 logical cores): its times are not shown." in " ".join(
        earlier_remarks(NOW, before)
    )


def test_changed_libraries_and_another_baseline_are_told():
    versions = {**NOW.machine.versions, "ai-edge-litert": "1.0", "old": "2"}
    before = BEFORE.model_copy(
        update={
            "machine": NOW.machine.model_copy(update={"versions": versions}),
            "entries": BEFORE.entries[1:],
        }
    )
    remarks = " ".join(earlier_remarks(NOW, before))
    assert f"ai-edge-litert 1.0 → {NOW.machine.versions['ai-edge-litert']}, old 2 → none." in remarks
    assert "Its baseline was int8" in remarks
    assert earlier_rows(NOW, before)[0][4] == ""


def test_another_metric_is_not_compared():
    assert earlier_rows(NOW, BEFORE.model_copy(update={"metric": "R²"}))[0][2] == "not compared"


def test_it_is_in_the_markdown_the_page_and_the_terminal(tmp_path):
    assert "| int8 | 2.00 KiB → 1.00 KiB |" in earlier_markdown(NOW, BEFORE)
    assert "### Beside an earlier report" in NOW.to_markdown(earlier=BEFORE)
    assert "Beside an earlier report" not in NOW.to_markdown()
    page = NOW.save(tmp_path, earlier=BEFORE).read_text()
    assert "2.00 KiB → 1.00 KiB" in page
    assert "Beside an earlier report" not in NOW.save(tmp_path).read_text()
    console = Console(width=80, record=True)
    NOW.print_beside(BEFORE, console)
    text = console.export_text()
    assert "2.00 KiB" in text
    assert "…" not in text


def test_reports_with_nothing_in_common_are_told_so():
    other = made_report(made_entry("other", 100))
    assert earlier_rows(NOW, other) == []
    assert "Not in the earlier report: float32, int8, new." in earlier_markdown(NOW, other)
