"""Names of inputs and outputs: stable identifiers in the model's own order."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tfopt.export.signature import call_flat, input_names, input_structure, output_names


def test_a_sequential_model_is_named_by_its_last_layer() -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), layers.Dense(2), layers.Softmax(name="scores")])
    assert input_names(model) == ["x"]
    assert output_names(model) == ["scores"]


def test_inputs_without_a_name_are_numbered_within_the_model() -> None:
    one = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    two = [keras.Input((2,)), keras.Input((3,))]
    assert input_names(one) == ["input_layer"]
    assert input_names(keras.Model(two, layers.Concatenate()(two))) == ["input_layer", "input_layer_1"]


@given(names=st.lists(st.text(min_size=1, max_size=8).filter(lambda name: "/" not in name), min_size=1, max_size=4))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_every_name_is_an_identifier_of_its_own(names: list[str]) -> None:
    x = keras.Input((2,), name="x")
    outputs = {name: layers.Rescaling(1.0)(x) for name in dict.fromkeys(names)}
    found = output_names(keras.Model(x, outputs))
    assert len(set(found)) == len(outputs)
    assert all(name.isidentifier() and name.isascii() and name[0].isalpha() for name in found)


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [("score", "score"), ("class", "tensor_class"), ("1st", "tensor_1st"), ("a b/c", "a_b_c"), ("self", "tensor_self")],
)
def test_what_tensorflow_does_not_take_is_changed(given_name: str, expected: str) -> None:
    x = keras.Input((2,))
    assert output_names(keras.Model(x, {given_name: layers.Rescaling(1.0)(x)})) == [expected]


def test_names_that_become_equal_get_numbers() -> None:
    x = keras.Input((2,))
    outputs = {name: layers.Rescaling(1.0)(x) for name in ("a b", "a-b", "a_b")}
    assert output_names(keras.Model(x, outputs)) == ["a_b", "a_b_1", "a_b_2"]


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_values_meet_the_inputs_that_bear_their_names(structure: str) -> None:
    zebra, ape = keras.Input((2,), name="zebra"), keras.Input((2,), name="ape")
    inputs = [zebra, ape] if structure == "list" else {"zebra": zebra, "ape": ape}
    outputs = {"minus": layers.Subtract()([zebra, ape]), "all": layers.Add()([zebra, ape])}
    model = keras.Model(inputs, outputs)
    values = {"zebra": np.full((1, 2), 5.0), "ape": np.full((1, 2), 3.0)}
    received = call_flat(model, [values[name] for name in input_names(model)])
    answers = dict(zip(output_names(model), received, strict=True))
    assert answers.keys() == {"minus", "all"}
    np.testing.assert_array_equal(answers["minus"], np.full((1, 2), 2.0))
    np.testing.assert_array_equal(answers["all"], np.full((1, 2), 8.0))
    assert keras.tree.flatten(input_structure(model)) == list(model.inputs)


def test_inference_mode_is_used() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.9)])
    np.testing.assert_array_equal(call_flat(model, [np.ones((1, 4))])[0], np.ones((1, 4)))
