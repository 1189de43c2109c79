"""The recipe reads what it writes, and names the field and the value that it does not take."""

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tfopt.errors import ConfigError
from tfopt.recipe import FineTuning, Preset, Recipe

fine_tunings = st.builds(
    FineTuning,
    epochs=st.integers(1, 10**6),
    learning_rate=st.floats(1e-12, 1e12),
    batch_size=st.integers(1, 10**6),
)
recipes = st.builds(
    Recipe,
    quantization=st.sampled_from(get_args(Preset)),
    fine_tuning=st.none() | fine_tunings,
    calibration_samples=st.integers(1, 10**9),
)


@given(recipe=recipes)
@settings(derandomize=True)
def test_yaml_and_json_round_trip(recipe: Recipe) -> None:
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_yaml(json.dumps(recipe.to_dict())) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_file_round_trips(tmp_path: Path) -> None:
    recipe = Recipe(quantization="float16", fine_tuning=FineTuning(learning_rate=3e-7))
    assert Recipe.load(recipe.save(tmp_path / "new" / "recipe.yaml")) == recipe
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["recipe.yaml"]


def test_absent_fields_have_their_defaults() -> None:
    assert Recipe.from_yaml("fine_tuning: {epochs: 2}") == Recipe(fine_tuning=FineTuning(epochs=2))
    assert Recipe.from_yaml("{}") == Recipe()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "colour: red",
            [
                "colour",
                "'red'",
                "Known fields: quantization, channel_pruning, factorization, weight_pruning, layers, fine_tuning, "
                "calibration_samples, seed",
            ],
        ),
        ("fine_tuning: {epoch: 7}", ["fine_tuning.epoch", "7"]),
        (
            "quantization: int4",
            [
                "quantization",
                "'int4'",
                "'weight_only_int8', 'none', 'int8_float_io' or 'weight_only_int4'",
            ],
        ),
        ("calibration_samples: many", ["calibration_samples", "'many'"]),
        ("calibration_samples: 0", ["calibration_samples", "greater than or equal to 1", "Received: 0"]),
        ("fine_tuning: {learning_rate: -0.5}", ["fine_tuning.learning_rate", "-0.5"]),
        ("fine_tuning: {epochs: 1.5}", ["fine_tuning.epochs", "1.5"]),
        ("just words", ["the whole", "'just words'"]),
        ("- a\n- b", ["the whole", "['a', 'b']"]),
        ("", ["the whole", "None"]),
    ],
)
def test_what_is_no_recipe_is_named(text: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Recipe.from_yaml(text)
    assert [part for part in named if part not in str(error.value)] == []


@pytest.mark.parametrize("text", ["a: [1,", "a: b: c", "\t- x", "\x00"])
def test_what_is_not_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected YAML or JSON\. Received: "):
        Recipe.from_yaml(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml"):
        Recipe.load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        Recipe.load(tmp_path)


def test_yaml_cannot_run_code() -> None:
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        Recipe.from_yaml("quantization: !!python/object/apply:os.getcwd []")


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.quantization = "none"  # type: ignore[misc]


def test_the_text_keeps_the_order_of_the_fields() -> None:
    assert list(yaml.safe_load(Recipe().to_yaml())) == list(Recipe.model_fields)


def test_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="cannot read"):
        Recipe.load(tmp_path / "r.yaml")
