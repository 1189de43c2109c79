"""Every public name says what it is for, as the template of docstrings has it; doctest runs the examples."""

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any

import pytest
from public_names import public_names

OBJECTS = {
    name: value
    for name, value in public_names().items()
    if inspect.isroutine(value) or (inspect.isclass(value) and not issubclass(value, BaseException))
}
SECTION = r"^{}:\n((?:[ ]{{4}}.*\n|\n)*)"


def section(value: object, title: str) -> str:
    found = re.search(SECTION.format(title), f"{inspect.getdoc(value)}\n", re.MULTILINE)
    return found.group(1) if found else ""


def is_result(value: object) -> bool:
    """Whether it is a value that tfopt makes and checks nothing; the function that returns it shows it."""
    return dataclasses.is_dataclass(value) and not hasattr(value, "__post_init__")


def raised_at_once(value: object) -> set[str]:
    """The errors of tfopt that its own code raises, not counting what it calls."""
    body = value.__init__ if inspect.isclass(value) else value  # type: ignore[misc]
    body = inspect.unwrap(body)
    if not inspect.isfunction(body) or body.__qualname__.startswith("__create_fn__"):
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(body)))
    except OSError:  # made by dataclasses: there is no source
        return set()
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    return {name for name in names if name in ERRORS}


ERRORS = {"BenchmarkError", "ConfigError", "DataError", "ExportError", "MissingExtraError", "ModelError"}


@pytest.mark.parametrize("name", OBJECTS)
def test_it_is_described(name: str) -> None:
    value: Any = OBJECTS[name]
    assert value.__doc__, "there is no docstring"
    first = inspect.getdoc(value).splitlines()[0]
    assert first.endswith("."), f"the first line is a sentence: {first!r}"


@pytest.mark.parametrize("name", [name for name, value in OBJECTS.items() if not is_result(value)])
def test_it_has_an_example_that_is_run(name: str) -> None:
    example = section(OBJECTS[name], "Example")
    assert ">>>" in example
    assert "doctest: +SKIP" not in example


@pytest.mark.parametrize("name", OBJECTS)
def test_its_arguments_are_described(name: str) -> None:
    """All in Args; where the text says it in a sentence, each by its name in backticks. One alone needs no list."""
    value: Any = OBJECTS[name]
    if inspect.isclass(value) and not dataclasses.is_dataclass(value) and "__init__" not in vars(value):
        return  # its arguments are those of the class above it
    parameters = inspect.signature(value).parameters.values()
    names = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD and not one.name.startswith("_")]
    if len(names) < 2:
        return
    arguments, text = section(value, "Args"), inspect.getdoc(value) or ""
    told = set(re.findall(r"^ {4}\*{0,2}(\w+)", arguments, re.MULTILINE))
    told |= set(re.findall(r"\w+", " ".join(re.findall(r"^ {4}([\w, *]+):", arguments, re.MULTILINE))))
    missing = [one for one in names if one not in told and not re.search(rf"`[^`]*\b{one}\b[^`]*`", text)]
    assert missing == []


@pytest.mark.parametrize("name", OBJECTS)
def test_its_errors_are_described(name: str) -> None:
    value = OBJECTS[name]
    told = section(value, "Raises")
    assert [error for error in sorted(raised_at_once(value)) if error not in told] == []
