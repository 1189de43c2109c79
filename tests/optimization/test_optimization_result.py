"""What a result says: the table, why the others lost, and whether what was asked for was reached."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tfopt.artifact import Artifact
from tfopt.budget import Figures, parse_budget
from tfopt.optimization.held_back import HeldBackDrop
from tfopt.optimization.result import Candidate, Result
from tfopt.recipe import Recipe

FILE = Artifact.model_construct(path=Path("out/model.tflite"), size_bytes=1234)
WHOLE = Figures(size=4000, download=3000, flops=100, latency=2.0, latency_share=1.0)
SMALL = Figures(size=1000, download=800, flops=100, latency=1.2, latency_share=0.6)
UNTIMED = replace(SMALL, latency=None, latency_share=None)


def candidate(name: str, drop: float | None, figures: Figures | None) -> Candidate:
    file = None if figures is None else FILE
    return Candidate(name, Recipe(), file, None if drop is None else 0.9 - drop, drop, figures, f"Of {name}.")


def result(chosen: Candidate, *, held_back: float = 0.0, budget: str | None = None, **changed: Any) -> Result:
    given = {
        "artifact": FILE,
        "recipe": chosen.recipe,
        "report": cast(Any, SimpleNamespace(metric="top-1 accuracy")),
        "candidates": (candidate("float32", 0.0, WHOLE), candidate("refused", None, None), chosen),
        "chosen": chosen.name,
        "max_drop": 0.01,
        "budget": None if budget is None else parse_budget(budget),
        "held_back": HeldBackDrop(held_back, held_back - 0.002, held_back + 0.002, 500),
        "obstacles": (),
        **changed,
    }
    return Result(**given)


def test_the_table_has_what_is_left_and_what_was_not_measured() -> None:
    lines = str(result(candidate("int8", 0.004, UNTIMED))).splitlines()
    assert lines[0].split() == ["top-1", "accuracy", "drop", "size", "download", "latency", "FLOPs"]
    assert lines[1].split() == ["float32", "0.9000", "+0.0000", "100%", "100%", "100%", "100%"]
    assert lines[2].split() == ["refused", "no", "file"]
    assert lines[3].split() == ["int8", "0.8960", "+0.0040", "25%", "27%", "not", "measured", "100%"]
    assert lines[4:6] == ["refused: Of refused.", "int8: Of int8."]
    assert lines[-2] == (
        "On held-back data int8 loses +0.0000 (-0.0020 to +0.0020, 95 % interval of 500 samples): "
        "within the 0.01 allowed."
    )
    assert lines[-1] == f"Chosen: {FILE.path} (1,234 bytes)."


@pytest.mark.parametrize(
    ("drop", "held_back", "budget", "accurate", "cheap"),
    [
        (0.004, 0.0, None, True, True),
        (0.010, 0.010, "size: 25%", True, True),
        (0.011, 0.0, None, False, True),
        (0.004, 0.011, None, False, True),
        (0.004, 0.0, "latency: 50%", True, False),
        (0.02, 0.0, "latency: 60%, size: 20%", False, False),
    ],
)
def test_accuracy_on_both_data_and_the_budget_decide(
    drop: float, held_back: float, budget: str | None, accurate: bool, cheap: bool
) -> None:
    found = result(candidate("int8", drop, SMALL), held_back=held_back, budget=budget)
    assert (found.within_max_drop, found.within_budget) == (accurate, cheap)
    assert found.is_reached == (accurate and cheap)
    assert ("what was asked for was not reached" in str(found)) != found.is_reached


def test_what_was_not_measured_keeps_no_budget() -> None:
    assert not result(candidate("int8", 0.0, UNTIMED), budget="latency: 90%").within_budget


def test_closer_to_the_budget_is_better_and_within_it_cheaper() -> None:
    budget = parse_budget("latency: 40%, size: 25%")
    baseline = candidate("float32", 0.0, WHOLE)
    ranked = [
        replace(WHOLE, size=800, latency=0.4, latency_share=0.2),
        replace(WHOLE, size=1000, latency=0.8, latency_share=0.4),
        replace(WHOLE, size=1120, latency=2.08, latency_share=1.04),  # a little slower, and half as large
        replace(WHOLE, size=2040, latency=2.02, latency_share=1.01),
        UNTIMED,
        None,
    ]
    ranks = [candidate("one", 0.0, figures).cost_rank(budget, baseline) for figures in ranked]
    assert ranks == sorted(ranks)
    assert ranks[1][0] == 1 < ranks[2][0] < ranks[3][0] < ranks[4][0]


def test_obstacles_are_told() -> None:
    found = result(candidate("int8", 0.5, SMALL), obstacles=("the network is small.",))
    assert "What prevents more: the network is small." in found.explanation()
