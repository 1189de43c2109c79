import pytest

from tfopt.plain_table import aligned


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_text():
    rows = [("layer", "FLOPs", "remark"), ("a", "1,000,000", ""), ("convolution", "", "shared")]
    assert aligned(rows, "<><") == [
        "layer            FLOPs  remark",
        "a            1,000,000",
        "convolution             shared",
    ]


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        aligned([("a", "b"), ("c",)], "<<")
