"""Which models a TF Serving server loads, which of their versions, and from where: the text of its models.config."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from google.protobuf import text_format  # type: ignore[import-untyped]
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.proto_text import parse_text

__all__ = ["MODELS_FILE", "ServedVersions", "loaded_versions", "model_problems", "read_models", "with_model"]

MODELS_FILE = "models.config"
"""In a serving folder: the models of the server."""
ServedVersions = int | Sequence[int] | Literal["all"]
"""The latest n versions, versions that are named, or all."""


def with_model(
    text: str,
    *,
    name: str,
    base_path: str,
    versions: ServedVersions | None = None,
    labels: Mapping[str, int] | None = None,
    present: Collection[int] | None = None,
) -> str:
    """Returns the text of a models.config that lists a model, and whatever it listed before.

    Of a new model the server loads the latest version, and a later one as soon as its folder appears. A model that is
    listed already keeps what is not given; where nothing changes, the text comes back as it is.

    Args:
        text: the content of an existing models.config, or "".
        name: the model's name in requests.
        base_path: the folder that holds the version folders, as the server sees it: an absolute path or a
            URI, which the server insists on.
        versions: which versions are served: an integer n for the latest n, a sequence for those and no others, or
            "all".
        labels: names for versions, such as `{"stable": 1, "canary": 2}`; those that are not mentioned stay.
        present: the versions that exist, to check the labels against; None leaves them unchecked.

    Raises:
        ConfigError: if the path is relative, the versions or labels are not usable, a label names a version that the
            server does not load, or the text is no ModelServerConfig with a model_config_list.

    Example:
        >>> print(with_model("", name="digits", base_path="/models/digits", versions=2, labels={"stable": 1}))
        model_config_list {
          config {
            name: "digits"
            base_path: "/models/digits"
            model_platform: "tensorflow"
            model_version_policy {
              latest {
                num_versions: 2
              }
            }
            version_labels {
              key: "stable"
              value: 1
            }
          }
        }
        <BLANKLINE>

    References: tensorflow.org/tfx/serving/serving_config; model_server_config.proto.
    """
    config = read_models(text)
    before = ModelServerConfig.FromString(config.SerializeToString())
    models = config.model_config_list.config
    model = next((model for model in models if model.name == name), None)
    if model is None:
        model = models.add(name=name, model_platform="tensorflow")
        model.model_version_policy.latest.num_versions = 1
    model.base_path = base_path
    if versions is not None:
        _set_versions(model, versions)
    for label, version in (labels or {}).items():
        if not isinstance(label, str) or not label or not _is_version(version):
            raise ConfigError(
                "models.config: labels must be a mapping of names to versions of at least 1. "
                f"Received: {dict(labels or {})!r}."
            )
        model.version_labels[label] = version
    problems = model_problems(model, present)
    if problems:
        raise ConfigError(f"models.config: {problems[0]}")
    return text if config == before else str(text_format.MessageToString(config))


def read_models(text: str, *, file: str = MODELS_FILE) -> ModelServerConfig:
    """Reads the content of a models.config.

    Raises:
        ConfigError: if it is no ModelServerConfig (with line and column), or one with a custom_model_config.
    """
    config = parse_text(text, ModelServerConfig(), file=file)
    if config.HasField("custom_model_config"):
        raise ConfigError(
            f"{file}: expected a model_config_list, to which a model can be added. Received: a "
            "custom_model_config, which tensorflow_model_server does not load either. Export to another directory."
        )
    return config


def model_problems(model: Any, present: Collection[int] | None = None) -> list[str]:
    """What the server would refuse in one `config` entry, in words; empty where all is well.

    Args:
        model: a ModelConfig.
        present: the versions that exist; None leaves versions and labels unchecked.
    """
    problems = []
    if not re.match(r"/|[a-z][a-z0-9+.-]*://", model.base_path):
        problems.append(
            f"base_path must be absolute, as the server sees it. Received: {model.base_path!r}. Did you mean '/models'?"
        )
    if model.model_platform != "tensorflow":
        problems.append(f"model_platform must be 'tensorflow'. Received: {model.model_platform!r}.")
    if present is None:
        return problems
    loaded = loaded_versions(model.model_version_policy, present)
    if missing := sorted(set(model.model_version_policy.specific.versions) - set(present)):
        problems.append(f"the specific versions of '{model.name}' must exist. Missing: {missing}.")
    for label, version in sorted(model.version_labels.items()):
        if version not in loaded:
            problems.append(
                f"the label '{label}' of '{model.name}' must name a version that is served: {sorted(loaded)}. "
                f"Received: {version}. Move it, as labels={{'{label}': {max(loaded, default=version)}}}, or serve more "
                "versions, as versions=2."
            )
    return problems


def _set_versions(model: Any, versions: ServedVersions) -> None:
    policy = model.model_version_policy
    if versions == "all":
        policy.all.SetInParent()
    elif _is_version(versions):
        policy.latest.num_versions = versions
    elif not isinstance(versions, (int, str)) and versions and all(_is_version(version) for version in versions):
        policy.specific.ClearField("versions")
        policy.specific.versions.extend(sorted(set(versions)))
    else:
        raise ConfigError(
            "models.config: versions must be an integer of at least 1 (the latest n), a sequence of versions, or "
            f"'all'. Received: {versions!r}."
        )


def loaded_versions(policy: Any, present: Collection[int]) -> set[int]:
    """The versions that the server loads of those that are present; without a policy it is the latest."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            return set(present)
        case "specific":
            return set(present) & set(policy.specific.versions)
    return set(sorted(present)[-(policy.latest.num_versions or 1) :])


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63
