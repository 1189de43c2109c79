"""The files of a serving folder beside its models: which are written at an export, and which stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError
from tfopt.serving.batching import BATCHING_FILE, BatchingParameters
from tfopt.serving.deployment import COMMAND_FILE, deployment_files

__all__ = ["present_batching", "present_versions", "read_file", "server_batching", "write_server_files"]


def present_versions(model_folder: Path) -> set[int]:
    """The versions that a model folder holds: the folders in it whose name is a number."""
    folders = model_folder.iterdir() if model_folder.is_dir() else ()
    return {int(path.name) for path in folders if path.name.isdecimal() and path.is_dir()}


def present_batching(directory: Path) -> BatchingParameters | None:
    """What a folder's batching_parameters.txt says; None where there is none.

    Raises:
        ConfigError: if it cannot be read, or breaks a rule.
    """
    file = directory / BATCHING_FILE
    text = read_file(file)
    return BatchingParameters.from_text(text, file=str(file)) if text else None


def server_batching(
    directory: Path, wanted: BatchingParameters | None, *, apart_from: Path | None = None
) -> BatchingParameters:
    """What batching_parameters.txt is to say after an export.

    The threads are those that are wanted. The sizes never shrink while other versions lie there: a server without
    `--enable_per_model_batching_parameters` takes them for all, and refuses a version whose warm-up requests are
    larger.

    Args:
        directory: the serving folder.
        wanted: for the version that is exported; None for what is there, or the defaults.
        apart_from: a version folder that does not count: its warm-up requests change with the parameters.
    """
    present = present_batching(directory)
    if wanted is None:
        return present or BatchingParameters()
    others = any(file.parent != apart_from for file in directory.glob("*/*/saved_model.pb"))
    if present is None or not others or wanted.max_batch_size >= present.max_batch_size:
        return wanted
    return replace(
        wanted,
        max_batch_size=present.max_batch_size,
        allowed_batch_sizes=present.allowed_batch_sizes,
        enable_large_batch_splitting=present.enable_large_batch_splitting,
        max_execution_batch_size=present.max_execution_batch_size,
    )


def write_server_files(
    directory: Path, texts: dict[str, str], *, batching: BatchingParameters, base_path: str, model: str
) -> None:
    """Writes what belongs beside the models; files that say the same keep their comments and their time stamps.

    Args:
        directory: the serving folder.
        texts: files that change, by name.
        batching: what batching_parameters.txt is to say.
        base_path: for the files that start a server, which are written where they are missing and else left to the
            user: they hold nothing that another export changes.
        model: the model whose status they ask for.
    """
    if present_batching(directory) != batching:
        _write(directory / BATCHING_FILE, batching.to_text())
    started = deployment_files(base_path, model=model, cpus=batching.num_batch_threads)
    for name, text in started.items():
        if not (directory / name).exists():
            _write(directory / name, text)
    for name, text in texts.items():
        if read_file(directory / name) != text:  # servers watch the time stamp
            _write(directory / name, text)


def read_file(path: Path) -> str:
    """The text of a file; "" where there is none.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read. Received: {error}.") from None


def _write(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text)
        if path.name == COMMAND_FILE:
            temporary.chmod(0o755)
