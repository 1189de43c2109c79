"""Which versions are to be served: folders, models.config, policies."""

import logging
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.server.wanted_versions import check_config, folder_config, wanted_versions


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)


def names(config: ModelServerConfig) -> list[tuple[str, str]]:
    return [(model.name, model.base_path) for model in config.model_config_list.config]


def test_every_folder_of_versions_is_a_model(tmp_path: Path) -> None:
    make(tmp_path, "b/1", "a/7", "a/8", "notes/draft", "empty")
    (tmp_path / "file").write_text("")
    assert names(folder_config(tmp_path)) == [("a", f"{tmp_path}/a"), ("b", f"{tmp_path}/b")]


def test_a_folder_may_be_one_model(tmp_path: Path) -> None:
    make(tmp_path, "digits/1", "digits/assets")
    assert names(folder_config(tmp_path / "digits")) == [("digits", f"{tmp_path}/digits")]


def test_a_configuration_counts_more_than_the_folders(tmp_path: Path) -> None:
    make(tmp_path, "a/1", "b/1")
    text = 'model_config_list { config { name: "mine" base_path: "/models/b" model_platform: "tensorflow" } }'
    (tmp_path / "models.config").write_text(text)
    assert names(folder_config(tmp_path)) == [("mine", "/models/b")]
    assert folder_config(tmp_path / "models.config") == folder_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { confg {} }", r"models\.config:1:21: .* Did you mean config\?"),
        ('model_config_list { config { name: "m" base_path: "m" } }', "model 'm': base_path must be absolute"),
        ('model_config_list { config { name: "m" base_path: "/m" } }', "model_platform must be 'tensorflow'"),
        (
            "model_config_list {" + 2 * 'config { name: "m" base_path: "/m" model_platform: "tensorflow" }' + "}",
            "Illegal to list model name 'm' multiple times",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "models.config").write_text(text)
    with pytest.raises(ConfigError, match=message):
        folder_config(tmp_path)


def test_places_without_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which does not exist"):
        folder_config(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"which has none\. Write one with tfopt\.export_serving"):
        folder_config(tmp_path)
    (tmp_path / "models.config").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        folder_config(tmp_path)


def test_an_empty_configuration_serves_nothing() -> None:
    check_config(ModelServerConfig())


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [10]),
        ("latest { }", [10]),
        ("latest { num_versions: 2 }", [9, 10]),
        ("latest { num_versions: 9 }", [1, 9, 10]),
        ("all { }", [1, 9, 10]),
        ("specific { versions: 9 versions: 1 }", [1, 9]),
        ("specific { versions: 5 }", []),
    ],
)
def test_policies(tmp_path: Path, policy: str, expected: list[int]) -> None:
    make(tmp_path, "m/1", "m/9", "m/10", "m/.11.partial", "m/x12")
    (tmp_path / "m" / "13").write_text("no folder")
    model = text_format.Parse(f"model_version_policy {{ {policy} }}", ModelConfig(name="m", base_path=f"{tmp_path}/m"))
    assert wanted_versions(model, tmp_path) == {version: tmp_path / "m" / str(version) for version in expected}


def test_a_specific_version_that_is_not_there_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "m/1")
    model = ModelConfig(name="m", base_path=f"file://{tmp_path}/m")
    model.model_version_policy.specific.versions.append(5)
    with caplog.at_level(logging.WARNING):
        assert wanted_versions(model, tmp_path) == {}
    assert "Version 5 of model m" in caplog.text


def test_a_base_path_of_a_container_is_found_beside_the_configuration(tmp_path: Path) -> None:
    make(tmp_path, "m/3")
    model = ModelConfig(name="mine", base_path="/models/m")
    assert wanted_versions(model, tmp_path) == {3: tmp_path / "m" / "3"}
    assert wanted_versions(model, tmp_path / "elsewhere") is None
