"""models.config: what the server's own proto reads in it."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.models_config import with_model


def parse(text: str) -> list:
    return list(text_format.Parse(text, ModelServerConfig()).model_config_list.config)


def test_a_model_is_listed_with_its_policy() -> None:
    (model,) = parse(with_model("", name="digits", base_path="/models/digits"))
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_strings_are_escaped() -> None:
    (model,) = parse(with_model("", name="digits", base_path='/a "b"\\c\nd/digits'))
    assert model.base_path == '/a "b"\\c\nd/digits'


def test_other_models_and_hand_made_settings_are_kept() -> None:
    text = with_model("", name="a", base_path="/models/a")
    text = text.replace("latest {\n        num_versions: 1", "specific {\n        versions: 3")
    text = with_model(text, name="b", base_path="gs://bucket/b")
    moved = parse(with_model(text, name="a", base_path="/elsewhere/a"))
    assert [(model.name, model.base_path) for model in moved] == [
        ("a", "/elsewhere/a"),
        ("b", "gs://bucket/b"),
    ]
    assert list(moved[0].model_version_policy.specific.versions) == [3]


def test_what_is_listed_already_keeps_its_comments() -> None:
    text = "# by hand\n" + with_model("", name="a", base_path="/models/a")
    assert with_model(text, name="a", base_path="/models/a") == text


@pytest.mark.parametrize(
    ("text", "base_path", "message"),
    [
        ("", "models/a", r"must be absolute, .* Received: 'models/a'\. Did you mean '/models'"),
        ("model_config_list {\n  config { nme: 'a' } }", "/models/a", "2:12 .*no field named .nme"),
        ("custom_model_config {}", "/models/a", "custom_model_config"),
    ],
)
def test_what_the_server_would_refuse_is_refused(text: str, base_path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_model(text, name="a", base_path=base_path)
