"""Layers of a model by group."""

import keras
import pytest

from tfopt.errors import ConfigError
from tfopt.tuning.layer_groups import LayerGroups

layers = keras.layers


def model() -> keras.Model:
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.SeparableConv2D(8, 3, name="separable")], name="inner")
    x = keras.Input((8, 8, 3))
    y = inner(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    return keras.Model(x, layers.Dense(2, "softmax", name="scores")(layers.GlobalAveragePooling2D(name="pool")(y)))


def test_the_whole_model_is_one_group() -> None:
    groups = LayerGroups(model(), None)
    (group,) = groups
    assert group.label("channels") == "channels"
    assert (group.loses_channels, group.has_kernels) == (True, True)
    assert groups.group_of("conv") == groups.group_of("pool") == ""


def test_the_first_pattern_counts_and_nested_layers_too() -> None:
    groups = LayerGroups(model(), {"separable": "separable", "head": "scores|pool", "rest": "conv|separable"})
    assert [group.name for group in groups] == ["separable", "head", "rest"]
    assert groups.group_of("separable") == "separable"
    assert groups.group_of("separable_pointwise") == "separable"  # what it is made of, once elementary
    head = list(groups)[1]
    assert (head.loses_channels, head.has_kernels) == (False, True)
    assert head.label("sparsity") == "sparsity/head"


def test_layers_may_be_in_no_group() -> None:
    assert LayerGroups(model(), {"first": "conv"}).group_of("scores") is None


def test_embeddings_lose_weights_in_groups_that_are_named() -> None:
    words = [keras.Input((4,), dtype="int32"), layers.Embedding(9, 4, name="words"), layers.Flatten()]
    text = keras.Sequential([*words, layers.Dense(2, name="scores")])
    assert [layer.name for layer in LayerGroups(text, None).kernels_of(text)[""]] == ["scores"]
    named = LayerGroups(text, {"text": "words", "rest": "scores"})
    assert [group.has_kernels for group in named] == [True, True]
    assert {group: [layer.name for layer in found] for group, found in named.kernels_of(text).items()} == {
        "text": ["words"],
        "rest": ["scores"],
    }
    assert [group.has_kernels for group in LayerGroups(text, {"rest": "scores"})] == [True]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({}, "at least one group"),
        ({"first": "conv", "second": "conv"}, "matches no layer of .* that no group before it has"),
        ({"first": "absent"}, "Its layers: conv, separable"),
        ({"first": "("}, "must map names to regular expressions"),
    ],
)
def test_what_means_no_layer_is_refused(patterns, message) -> None:
    with pytest.raises(ConfigError, match=message):
        LayerGroups(model(), patterns)
