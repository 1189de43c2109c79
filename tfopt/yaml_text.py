"""YAML that others wrote, as plain data: no code is run, and no alias makes a small text a large value."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError

from tfopt.errors import ConfigError, first_line

__all__ = ["read_yaml"]

LONGEST_TEXT = 100_000
"""PyYAML reads about as many characters in a second."""
MOST_NODES = 100_000
LONGEST_NUMBER = 100


def read_yaml(text: str, *, file: str) -> list[Any]:
    """Reads the documents of a YAML or JSON text (JSON is YAML).

    Args:
        text: the content.
        file: what an error calls it.

    Raises:
        ConfigError: if the text is longer than 100,000 characters, is not YAML (with line and column where they are
            known) or is nested too deeply; if a value does not fit its tag, a number is longer than 100 characters, a
            value holds itself, or aliases repeat so much that there are more than 100,000 values.

    Example:
        >>> read_yaml("a: [1, 2]", file="a.yaml")
        [{'a': [1, 2]}]
        >>> read_yaml("a: [1, 2", file="a.yaml")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: a.yaml:1:9: expected ',' or ']', but got '<stream end>'.
    """
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"{file}: expected at most {LONGEST_TEXT:,} characters. Received: {len(text):,}.")
    try:
        return list(yaml.load_all(text, _BoundedLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}{place}: {error.problem or error.context}.") from None
    except RecursionError:
        raise ConfigError(f"{file}: expected a few levels of values. Received: more than can be read.") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # PyYAML lets through what tags lead to
        raise ConfigError(f"{file}: a value cannot be read ({type(error).__name__}: {first_line(error)}).") from None


class _BoundedLoader(yaml.SafeLoader):
    """Counts values as often as aliases repeat them, before they are made."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if parent is None:  # of a document before, whose nodes are gone
            self._sizes.clear()
        before, is_alias, mark = self._nodes, self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if not is_alias:
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        elif id(node) not in self._sizes:
            raise ComposerError(None, None, "found a value that holds itself", mark)
        else:
            self._nodes += self._sizes[id(node)]
            if self._nodes > MOST_NODES:
                raise ComposerError(None, None, "found aliases that repeat too much", mark)
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise ComposerError(None, None, f"found a number of {len(node.value)} characters", mark)
        return node


_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
