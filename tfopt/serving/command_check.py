"""The command lines in the files that start a server, read from a shell script, docker-compose or Kubernetes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError
from tfopt.serving.deployment import COMMAND_FILE, COMPOSE_FILE, KUBERNETES_FILE
from tfopt.serving.proto_text import monitoring_config, parse_text
from tfopt.serving.server_files import read_file
from tfopt.serving.server_flags import MONITORING_FILE, SERVER, flag_problems, read_flags
from tfopt.yaml_text import read_yaml

__all__ = ["check_commands"]

FILE_FLAGS = ("model_config_file", "batching_parameters_file", "monitoring_config_file")


def check_commands(directory: Path) -> tuple[list[str], bool]:
    """Looks through the files of a folder that start a server, as they are after edits by hand.

    Args:
        directory: the serving folder.

    Returns:
        What is wrong, and whether a server is started with `--enable_per_model_batching_parameters`.
    """
    problems, per_model = [], False
    try:
        parse_text(read_file(directory / MONITORING_FILE), monitoring_config(), file=MONITORING_FILE)
    except ConfigError as error:
        problems.append(str(error))
    for name in (COMMAND_FILE, COMPOSE_FILE, KUBERNETES_FILE):
        try:
            commands = list(_commands(name, read_file(directory / name)))
        except ConfigError as error:
            problems.append(str(error))
            continue
        for words in commands:
            flags = read_flags(words)
            per_model |= flags.get("enable_per_model_batching_parameters", "false").lower() in {"true", "1"}
            told = [*flag_problems(flags), *_missing_files(flags, directory)]
            problems += [f"{name}: {problem}" for problem in told]
    return problems, per_model


def _missing_files(flags: dict[str, str], directory: Path) -> list[str]:
    """Files that the flags name in this folder, which is where models.config is taken from, and that are not there."""
    seen_as = Path(flags.get("model_config_file", "")).parent
    named = {flag: Path(flags[flag]) for flag in FILE_FLAGS if flags.get(flag)}
    return [
        f"--{flag}={path} must be a file of this folder. There is no {directory / path.name}."
        for flag, path in named.items()
        if path.parent == seen_as and not os.path.isfile(directory / path.name)
    ]


def _commands(name: str, text: str) -> Iterator[list[str]]:
    """The words of each command line in a file that starts a server."""
    if name == COMMAND_FILE:
        for line in text.replace("\\\n", " ").splitlines():
            words = _split(line, name, comments=True)
            if SERVER in (Path(word).name for word in words):
                yield words
        return
    for container in _containers(read_yaml(text, file=name)):
        words = [word for key in ("entrypoint", "command", "args") for word in _words(container.get(key), name)]
        starts = any(word == SERVER or word.startswith(("--model_config_file", "--model_base_path")) for word in words)
        if starts:
            yield [word.replace("$$", "$") for word in words]


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    """Whatever in a YAML file has a command."""
    if isinstance(value, dict):
        if {"entrypoint", "command", "args"} & set(value):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _containers(one)


def _words(value: Any, name: str) -> list[str]:
    if isinstance(value, str):
        return _split(value, name)
    return [str(word) for word in value] if isinstance(value, list) else []


def _split(line: str, name: str, *, comments: bool = False) -> list[str]:
    try:
        return shlex.split(line, comments=comments)
    except ValueError as error:
        raise ConfigError(f"{name}: the shell cannot read {line!r}: {error}.") from None
