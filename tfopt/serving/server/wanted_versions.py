"""Which versions of which models are to be served: models.config, or the folders where there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.models_config import MODELS_FILE, loaded_versions, model_problems, read_models

__all__ = ["check_config", "folder_config", "wanted_versions"]

logger = logging.getLogger(__name__)


def folder_config(path: Path) -> ModelServerConfig:
    """What a folder, or a file like models.config, says is to be served.

    A folder without a models.config serves the latest version of each model in it: a model is a folder of version
    folders, which are named by numbers. The folder may also be one such model itself.

    Raises:
        ConfigError: if there is no such file or folder, its text is no configuration, or it holds no model.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "digits", "1").mkdir(parents=True)
        ...     [model.name for model in folder_config(Path(folder)).model_config_list.config]
        ['digits']
    """
    file = path / MODELS_FILE if path.is_dir() else path
    if file.is_file():
        try:
            config = read_models(file.read_text(), file=str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read. Received: {error}.") from error
        check_config(config)
        return config
    if not path.is_dir():
        raise ConfigError(
            f"serve: expected a folder of models, or a models.config. Received: {path}, which does not exist."
        )
    folders = [path] if _versions(path) else [child for child in sorted(path.iterdir()) if _versions(child)]
    if not folders:
        raise ConfigError(
            f"serve: expected a folder of models, each with numbered version folders such as {path}/NAME/1. "
            f"Received: {path}, which has none. Write one with tfopt.export_serving."
        )
    config = ModelServerConfig()
    for folder in folders:
        config.model_config_list.config.add(
            name=folder.resolve().name, base_path=str(folder.resolve()), model_platform="tensorflow"
        )
    return config


def check_config(config: ModelServerConfig) -> None:
    """Refuses what TF Serving refuses: two models of one name, relative paths, other platforms.

    Raises:
        ConfigError: with the model and the mend.
    """
    names = set()
    for model in config.model_config_list.config:
        if problems := model_problems(model):
            raise ConfigError(f"{MODELS_FILE}: model '{model.name}': {problems[0]}")
        if model.name in names:
            raise ConfigError(
                f"{MODELS_FILE}: expected each model once. Received: Illegal to list model name '{model.name}' "
                "multiple times in config list. Give the other one another name."
            )
        names.add(model.name)


def wanted_versions(model: Any, directory: Path) -> dict[int, Path] | None:
    """The versions of a model that its policy selects from what is there, and their folders.

    Args:
        model: a ModelConfig: the latest version is served unless it says otherwise.
        directory: where the models are looked for when `base_path` does not exist on this machine, as the one of a
            container does not: under the last part of `base_path`.

    Returns:
        None where the model has no folder at all, which may be a file system that is away for a moment.

    References: file_system_storage_path_source.cc of TF Serving.
    """
    base_path = Path(model.base_path.removeprefix("file://"))
    beside = directory / base_path.name
    if not base_path.is_dir() and beside.is_dir():
        base_path = beside
    if not base_path.is_dir():
        return None
    present = _versions(base_path)
    policy = model.model_version_policy
    for version in set(policy.specific.versions) - set(present):
        logger.warning("Version %d of model %s, which its policy names, is not there", version, model.name)
    return {version: present[version] for version in sorted(loaded_versions(policy, present))}


def _versions(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {int(child.name): child for child in folder.iterdir() if child.name.isdecimal() and child.is_dir()}
