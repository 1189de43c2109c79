"""Which models a TF Serving server loads, and from where: the text of its models.config."""

from __future__ import annotations

import re

from google.protobuf import text_format  # type: ignore[import-untyped]
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError

__all__ = ["with_model"]


def with_model(text: str, *, name: str, base_path: str) -> str:
    """Returns the text of a models.config that lists a model, and whatever it listed before.

    A model that is listed already keeps its version policy and labels; where its path is the same too, the
    text comes back as it is. Of a new model the server loads the latest version, and a later one as soon as
    its folder appears.

    Args:
        text: the content of an existing models.config, or "".
        name: the model's name in requests.
        base_path: the folder that holds the version folders, as the server sees it: an absolute path or a
            URI, which the server insists on.

    Raises:
        ConfigError: if the path is relative, or the text is no ModelServerConfig with a model_config_list.

    Example:
        >>> print(with_model("", name="digits", base_path="/models/digits"))
        model_config_list {
          config {
            name: "digits"
            base_path: "/models/digits"
            model_platform: "tensorflow"
            model_version_policy {
              latest {
                num_versions: 1
              }
            }
          }
        }
        <BLANKLINE>

    References: tensorflow.org/tfx/serving/serving_config; model_server_config.proto.
    """
    if not re.match(r"/|[a-z][a-z0-9+.-]*://", base_path):
        raise ConfigError(
            f"models.config: base_path must be absolute, as the server sees it. Received: {base_path!r}. "
            "Did you mean '/models'?"
        )
    try:
        config = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"models.config: {error}") from None
    if config.HasField("custom_model_config"):
        raise ConfigError(
            "models.config: expected a model_config_list, to which a model can be added. Received: a "
            "custom_model_config. Export to another directory."
        )
    models = config.model_config_list.config
    for model in models:
        if model.name == name:
            if model.base_path == base_path:
                return text
            model.base_path = base_path
            break
    else:
        model = models.add(name=name, base_path=base_path, model_platform="tensorflow")
        model.model_version_policy.latest.num_versions = 1
    return str(text_format.MessageToString(config))
