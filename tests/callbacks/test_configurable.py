"""Callbacks that can be written down."""

import copy
import functools
import json

import keras
import pytest

from tfopt.callbacks.configurable import Configurable
from tfopt.errors import ConfigError
from tfopt.schedules import cosine


class Watcher(Configurable, keras.callbacks.Callback):
    def __init__(self, where, *, sizes=(1, 2), schedule=None):
        super().__init__()
        self.where, self.sizes, self.schedule = where, sizes, schedule


def test_what_was_given_is_written_down_by_name(tmp_path):
    watcher = Watcher(tmp_path, schedule=cosine(0.1, steps=5))
    config = watcher.get_config()
    assert config.keys() == {"where", "schedule"}
    assert config["where"] == str(tmp_path)
    again = Watcher.from_config(json.loads(json.dumps(config)))
    assert (again.where, again.sizes, again.schedule) == (str(tmp_path), (1, 2), cosine(0.1, steps=5))
    assert list(Watcher.from_config(Watcher("a", sizes=(3, 4)).get_config()).sizes) == [3, 4]


def test_a_copy_is_configured_alike():
    watcher = Watcher("a", sizes=(3,))
    assert copy.copy(watcher).get_config() == copy.deepcopy(watcher).get_config() == watcher.get_config()


def test_wrong_arguments_are_named_as_everywhere():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'where'"):
        Watcher()
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        Watcher("a", size=(3,))


@pytest.mark.parametrize(
    "value",
    [lambda step: 0.1, sorted, object(), {1: object()}, functools.partial(max, 1)],
    ids=["lambda", "function", "object", "mapping", "partial"],
)
def test_what_has_no_written_form_is_named(value):
    with pytest.raises(ConfigError, match=r"Watcher: schedule cannot be written down. Received: "):
        Watcher("a", schedule=value).get_config()
