"""The total of a model's parts."""

import pytest

from tfopt.inspection_table import Inspection, Part


def part(name: str = "dense", weights: int = 100, nonzeros: int = 100, flops: int | None = 200, use: str = "") -> Part:
    return Part(
        name=name,
        kind="Dense",
        dtypes="float32",
        shape=(None, 10),
        weights=weights,
        nonzeros=nonzeros,
        distinct_values=7,
        flops=flops,
        size_bytes=4 * weights,
        gzip_bytes=3 * weights,
        coded_bytes=2 * weights,
        zeros_use=use,
    )


def test_the_total_adds_up() -> None:
    total = Part.total([part(), part(weights=300, nonzeros=100, flops=None)])
    assert (total.name, total.weights, total.nonzeros, total.zeros) == ("total", 400, 200, 0.5)
    assert (total.distinct_values, total.flops) == (14, 200)
    assert (total.size_bytes, total.gzip_bytes, total.coded_bytes) == (1600, 1200, 800)


def test_operations_that_are_nowhere_counted_have_no_total() -> None:
    assert Part.total([part(flops=None), part(flops=None)]).flops is None
    assert Part.total([part(flops=0), part(flops=None)]).flops is None
    assert Part.total([part(flops=0), part(flops=0)]).flops == 0


def test_the_total_of_nothing() -> None:
    total = Part.total([])
    assert (total.weights, total.zeros, total.flops, total.zeros_use) == (0, None, 0, "")


@pytest.mark.parametrize(
    ("uses", "whole"),
    [
        (["", ""], ""),
        (["no: never", ""], "no: never"),
        (["no: never", "no: never"], "no: never"),
        (["no: 3% are zero", "no: 5% are zero"], "no: in none of 2 kernels"),
        (["no: never", "can: in blocks", "can on ARM"], "can: in 2 of 3 kernels, for 75.0% of their zeros"),
    ],
)
def test_what_a_target_makes_of_all_zeros(uses: list[str], whole: str) -> None:
    zeros = [25, 50, 25]
    parts = [part(nonzeros=100 - count, use=use) for count, use in zip(zeros, uses, strict=False)]
    assert Part.total(parts).zeros_use == whole


@pytest.mark.usefixtures("in_jupyter")
def test_in_jupyter_the_text_is_the_same_plain_one() -> None:
    text = str(Inspection("model.tflite", 1234, (part("hidden"),), ("full integer",)))
    assert "hidden" in text
    assert "\x1b" not in text
