"""Whether TF Serving would start on a serving folder and load what is in it, after edits by hand too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError
from tfopt.plain_table import aligned
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.command_check import check_commands
from tfopt.serving.models_config import MODELS_FILE, loaded_versions, model_problems, read_models
from tfopt.serving.server_files import present_batching, present_versions, read_file
from tfopt.serving.version_check import CheckedVersion, check_version

__all__ = ["CheckedFolder", "check_serving_folder"]


@dataclass(frozen=True)
class CheckedFolder:
    """A serving folder that TF Serving would start on.

    Args:
        directory: the folder.
        versions: what lies there.
        remarks: what the server takes, but may not be meant.
    """

    directory: Path
    versions: tuple[CheckedVersion, ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        rows = [("model", "version", "served", "labels", "warm-up requests", "largest batch")]
        rows += [
            (
                one.model,
                str(one.version),
                "yes" if one.is_served else "no",
                ", ".join(one.labels),
                str(one.warmup_requests),
                str(one.batching.execution_batch_size),
            )
            for one in self.versions
        ]
        return "\n".join([f"{self.directory}", *aligned(rows, "<><<>>"), *self.remarks])


def check_serving_folder(directory: str | Path, *, replay: bool = True) -> CheckedFolder:
    r"""Applies TF Serving's own rules to a serving folder, as `export_serving` wrote it and as it was edited since.

    Checked are models.config (spelling, names, policies, labels), batching_parameters.txt and each version's
    batching_params.pbtxt (spelling, the rules of `BatchingParameters`), monitoring.config, the command lines in
    tensorflow_model_server.sh, docker-compose.yaml and kubernetes.yaml (unknown flags, `--enable_batching`, files that
    are not there), and the warm-up requests, which must fit max_batch_size and run.

    Args:
        directory: the folder.
        replay: whether each version is loaded and its warm-up requests are run, which takes the time a server takes.

    Returns:
        What lies there; printed, a table and remarks.

    Raises:
        ConfigError: with all that a server would refuse or ignore, each with its file and, for a spelling, its line
            and column.

    Example:
        >>> import keras, tempfile
        >>> from tfopt.serving.folder import export_serving
        >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, name="score")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export_serving(model, folder, name="ranker", labels={"stable": 1})
        ...     print(str(check_serving_folder(folder)).partition("\n")[2])
        model   version  served  labels  warm-up requests  largest batch
        ranker        1  yes     stable                 6             32

    References: tensorflow.org/tfx/serving/serving_config; TF Serving's server_core.cc and batching_session.cc.
    """
    directory = Path(directory)
    if not (directory / MODELS_FILE).is_file():
        raise ConfigError(
            f"check_serving_folder: expected a folder with a {MODELS_FILE}, as tfopt.export_serving writes it. "
            f"Received: {directory}."
        )
    problems, per_model = check_commands(directory)
    server, models = BatchingParameters(), []
    try:
        server = present_batching(directory) or server
    except ConfigError as error:
        problems.append(str(error).replace(f"{directory}/", ""))
    try:
        models = list(read_models(read_file(directory / MODELS_FILE)).model_config_list.config)
    except ConfigError as error:
        problems.append(str(error))
    problems += [f"{MODELS_FILE}: {problem}" for problem in _models_problems(directory, models)]
    versions = tuple(
        check_version(
            _folder(directory, model) / str(version),
            model=model.name,
            is_served=version in loaded_versions(model.model_version_policy, present),
            labels=tuple(label for label, named in sorted(model.version_labels.items()) if named == version),
            server=server,
            per_model=per_model,
            replay=replay,
        )
        for model in models
        for present in [present_versions(_folder(directory, model))]
        for version in sorted(present)
    )
    problems += [problem for one in versions for problem in one.problems]
    if problems:
        raise ConfigError(f"{directory} is not as TF Serving needs it:\n- " + "\n- ".join(problems))
    remarks = [*_no_versions(directory, models), *(remark for one in versions for remark in one.remarks)]
    return CheckedFolder(directory, versions, tuple(remarks))


def _folder(directory: Path, model: Any) -> Path:
    """Where a model lies, whatever the server sees the folder as."""
    return directory / Path(model.base_path).name


def _models_problems(directory: Path, models: Sequence[Any]) -> list[str]:
    counts = Counter(model.name for model in models)
    problems = [
        f"each model must be listed once. Received: '{name}' {count} times."
        for name, count in counts.items()
        if count > 1
    ]
    for model in models:
        present = present_versions(_folder(directory, model))
        if not present:
            problems.append(
                f"'{model.name}' must have a version, such as {_folder(directory, model)}/1. There is none."
            )
        problems += model_problems(model, present or None)
    return problems


def _no_versions(directory: Path, models: Sequence[Any]) -> list[str]:
    return [
        f"{model.name}/{path.name} is no version: TF Serving loads folders whose name is a number"
        for model in models
        for path in sorted(_folder(directory, model).glob("*"))
        if path.is_dir() and not path.name.isdecimal()
    ]
