"""YAML of others becomes plain data of a bounded size, or a ConfigError that says where it is wrong."""

import time

import pytest

from tfopt.errors import ConfigError
from tfopt.recipe import Recipe
from tfopt.yaml_text import read_yaml


def laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha]"]
    lines += [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["l0: &l0 {ha: 1}"]
    lines += [f"l{level}: &l{level} {{<<: [{', '.join([f'*l{level - 1}'] * 9)}]}}" for level in range(1, levels)]
    return "\n".join(lines)


def test_documents_are_read() -> None:
    assert read_yaml("a: &a [1, 0.5]\nb: *a\n---\n{c: null}", file="f") == [{"a": [1, 0.5], "b": [1, 0.5]}, {"c": None}]
    assert read_yaml("", file="f") == []
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", file="f")[0]["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1, 2", r"^f:1:9: expected"),
        ("a: 1\na: : 2", r"^f:2:4: mapping values are not allowed here\.$"),
        ("!!python/object/apply:os.system ['true']", r"^f:1:1: could not determine a constructor for the tag"),
        ("!!python/name:os.system", r"could not determine a constructor"),
        ("a: \x00", r"^f: a value cannot be read \(ReaderError"),
        ("a: !!int five", r"^f: a value cannot be read \(ValueError"),
        ("a: !!int ''", r"^f: a value cannot be read \(IndexError"),
        ("a: !!bool perhaps", r"^f: a value cannot be read \(KeyError"),
        ("a: !!timestamp today", r"^f: a value cannot be read \(AttributeError"),
        ("a: 2026-02-30", r"^f: a value cannot be read \(ValueError: day"),
        ("a: " + "9" * 5000, r"^f:1:4: found a number of 5000 characters\.$"),
        ("a: 0x" + "f" * 5000, r"^f:1:4: found a number of 5002 characters\.$"),
        ("a: 1" + ":59" * 400, r"^f:1:4: found a number of 1201 characters\.$"),
        ("&a [*a]", r"^f:1:5: found a value that holds itself\.$"),
        ("a: 1\n" * 30_000, r"^f: expected at most 100,000 characters\. Received: 150,000\.$"),
        ("[" * 2000, r"^f: expected a few levels of values"),
        (laughs(12), r"^f:\d+:\d+: found aliases that repeat too much\.$"),
        (merges(12), r"^f:\d+:\d+: found aliases that repeat too much\.$"),
    ],
    ids=range(18),
)
def test_what_is_wrong_is_told_at_once(text: str, told: str) -> None:
    begin = time.process_time()
    with pytest.raises(ConfigError, match=told):
        read_yaml(text, file="f")
    with pytest.raises(ConfigError, match=r"expected YAML or JSON\. Received: recipe"):
        Recipe.from_yaml(text)
    assert time.process_time() - begin < 4


def test_a_refused_value_is_quoted_in_short() -> None:
    levels = [f"&l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 5)]
    with pytest.raises(ConfigError, match="calibration_samples: Input should be a valid integer") as refused:
        Recipe.from_yaml(f"calibration_samples: [&l0 [ha, ha], {', '.join(levels)}]")
    assert len(str(refused.value)) < 1000


def test_several_documents_are_no_recipe() -> None:
    with pytest.raises(ConfigError, match="Input should be a valid dictionary"):
        Recipe.from_yaml("quantization: int8\n---\nquantization: none")
