"""Which SavedModel of a folder is meant."""

from pathlib import Path

import pytest

from tfopt.errors import ConfigError
from tfopt.model_folder import newest_version, served_model


def version_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "saved_model.pb").touch()
    return path


def test_the_newest_version_is_by_number_not_by_alphabet(tmp_path: Path) -> None:
    for number in ("2", "10", "9"):
        version_folder(tmp_path / "name" / number)
    (tmp_path / "name" / "11").mkdir()
    assert newest_version(tmp_path / "name") == tmp_path / "name" / "10"
    assert newest_version(tmp_path / "name" / "2") == tmp_path / "name" / "2"
    assert newest_version(tmp_path) is None


def test_what_is_served_is_found_out_from_the_folder(tmp_path: Path) -> None:
    version = version_folder(tmp_path / "ranker" / "12")
    assert served_model(tmp_path) == (tmp_path, "ranker", None)
    assert served_model(tmp_path / "ranker") == (tmp_path, "ranker", None)
    assert served_model(version) == (tmp_path, "ranker", 12)
    version_folder(tmp_path / "other" / "1")
    assert served_model(tmp_path, "other") == (tmp_path, "other", None)
    with pytest.raises(ConfigError, match=r"Expected one of the models other, ranker: give it with model=\. Received"):
        served_model(tmp_path)
    with pytest.raises(ConfigError, match="Received: absent"):
        served_model(tmp_path, "absent")


def test_a_folder_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected a folder of models"):
        served_model(tmp_path)
    with pytest.raises(ConfigError, match=r"A server needs NAME/VERSION/saved_model\.pb, with a number for VERSION"):
        served_model(version_folder(tmp_path / "latest"))
