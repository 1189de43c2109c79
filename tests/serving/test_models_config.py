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
    ("versions", "policy"),
    [
        (3, "latest { num_versions: 3 }"),
        ([7, 2, 7], "specific { versions: 2 versions: 7 }"),
        ("all", "all {}"),
    ],
)
def test_policies(versions: object, policy: str) -> None:
    text = with_model("", name="a", base_path="/models/a", versions=[5])
    (model,) = parse(with_model(text, name="a", base_path="/models/a", versions=versions))
    assert model.model_version_policy == text_format.Parse(policy, type(model.model_version_policy)())


def test_labels_are_added_and_moved_and_the_others_stay() -> None:
    text = with_model("", name="a", base_path="/m/a", versions=2, labels={"stable": 1, "old": 1}, present=[1])
    (model,) = parse(with_model(text, name="a", base_path="/m/a", labels={"stable": 2, "canary": 2}, present=[1, 2]))
    assert dict(model.version_labels) == {"stable": 2, "old": 1, "canary": 2}
    assert model.model_version_policy.latest.num_versions == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions": 0}, r"versions must be an integer of at least 1 .* Received: 0"),
        ({"versions": []}, r"Received: \[\]"),
        ({"versions": "latest"}, "Received: 'latest'"),
        ({"versions": True}, "Received: True"),
        ({"versions": [1, 3]}, r"the specific versions of 'a' must exist\. Missing: \[3\]"),
        ({"labels": {"stable": "1"}}, "labels must be a mapping of names to versions"),
        ({"labels": {"": 1}}, "labels must be a mapping"),
        ({"labels": {"stable": 1}}, r"label 'stable' of 'a' must name a version that is served: \[2\]\. Received: 1"),
        ({"versions": "all", "labels": {"next": 3}}, r"served: \[1, 2\]\. Received: 3"),
        ({"versions": [1], "labels": {"next": 2}}, r"served: \[1\]\. Received: 2"),
    ],
)
def test_versions_and_labels_that_the_server_would_refuse(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_model("", name="a", base_path="/models/a", present=[1, 2], **options)


@pytest.mark.parametrize(
    ("text", "base_path", "message"),
    [
        ("", "models/a", r"must be absolute, .* Received: 'models/a'\. Did you mean '/models'"),
        (
            "model_config_list {\n  config { nme: 'a' } }",
            "/models/a",
            "^models.config:2:12: .*no field named .nme.*Did you mean name",
        ),
        ("custom_model_config {}", "/models/a", "custom_model_config"),
    ],
)
def test_what_the_server_would_refuse_is_refused(text: str, base_path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_model(text, name="a", base_path=base_path)
