"""Artifacts are written whole or not at all, and their records tell when the content is no longer theirs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfopt.artifact import Artifact, TensorSpec, content_sha256, content_size_bytes, write_artifact, write_whole
from tfopt.errors import ConfigError, DataError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_process_id() -> int:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_a_reader_sees_nothing_before_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with write_whole(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename within one file system
    assert target.read_text() == "half"
    assert names(target.parent) == ["a.txt"]


def write(target: Path, *, folder: bool = False, failure: type[BaseException] | None = None) -> None:
    """Writes a file or a folder, and fails where it is only half there."""
    with write_whole(target) as temporary:
        if folder:
            temporary.mkdir()
        (temporary / "part" if folder else temporary).write_text("half")
        if failure is not None:
            raise failure


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_leaves_what_was_there(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(failure):
        write(target, failure=failure)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_failing_block_leaves_no_half_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / "1", folder=True, failure=RuntimeError)
    assert names(tmp_path) == []


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_is_written_whole(tmp_path: Path) -> None:
    with write_whole(tmp_path / "1") as temporary:
        (temporary / "variables").mkdir(parents=True)
        (temporary / "variables" / "data").write_text("w")
    assert names(tmp_path) == ["1"]
    assert (tmp_path / "1" / "variables" / "data").read_text() == "w"


@pytest.mark.parametrize("folder", [False, True])
def test_an_existing_folder_is_not_replaced(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "served").write_text("in use")
    with pytest.raises(OSError, match="1'"):
        write(tmp_path / "1", folder=folder)
    assert names(tmp_path) == ["1"]
    assert (tmp_path / "1" / "served").read_text() == "in use"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".a.txt.{dead_process_id()}.partial"
    left.mkdir()
    (left / "part").write_text("half")
    (tmp_path / f".b.txt.{dead_process_id()}.partial").write_text("of another file")
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert not left.exists()
    assert len(names(tmp_path)) == 2


def test_what_a_running_process_is_writing_is_kept(tmp_path: Path) -> None:
    other = tmp_path / f".a.txt.{os.getppid()}.partial"
    other.write_text("another process is at work")
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert other.exists()


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"Cannot write .*a\.txt: expected a folder .* Received: .*file"),
        write_whole(tmp_path / "file" / "a.txt"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["file"]


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An administrator may write everywhere, whatever the folder's mode says.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="Permission denied"), write_whole(tmp_path / "a.txt"):
        pytest.fail("the block must not run")


def written(path: Path) -> Artifact:
    path.write_bytes(b"content")
    artifact = Artifact.of(
        path,
        kind="tflite",
        inputs=(TensorSpec(name="x", shape=(1, 2), dtype="int8", scale=0.5, zero_point=-3),),
        outputs=(TensorSpec(name="y", shape=(None, 1), dtype="float32"),),
        recipe={"quantization": "int8"},
        verification={"sqnr_db": 31.5, "full_integer": True},
    )
    artifact.save()
    return artifact


def test_the_record_round_trips(tmp_path: Path) -> None:
    artifact = written(tmp_path / "model.tflite")
    assert names(tmp_path) == ["model.artifact.json", "model.tflite"]
    assert Artifact.load(tmp_path / "model.tflite") == artifact
    assert artifact.size_bytes == 7
    assert {"tfopt", "keras", "tensorflow"} <= artifact.versions.keys()


def test_an_artifact_can_be_moved_with_its_record(tmp_path: Path) -> None:
    artifact = written(tmp_path / "model.tflite")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (artifact.path, artifact.record_path):
        path.rename(moved / path.name)
    assert Artifact.load(moved / "model.tflite").sha256 == artifact.sha256


def test_changed_content_is_detected(tmp_path: Path) -> None:
    path = written(tmp_path / "model.tflite").path
    path.write_bytes(b"CONTENT")
    with pytest.raises(DataError, match=r"model\.tflite has changed since model\.artifact\.json was written"):
        Artifact.load(path)


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"kind": "tflite", "colour": "red"}'])
def test_an_unreadable_record_is_refused(tmp_path: Path, record: str | None) -> None:
    (tmp_path / "model.tflite").write_bytes(b"content")
    if record is not None:
        (tmp_path / "model.artifact.json").write_text(record)
    with pytest.raises(DataError, match=r"expected the record of .*model\.tflite in .*model\.artifact\.json"):
        Artifact.load(tmp_path / "model.tflite")


def test_the_record_of_a_folder_lies_inside_and_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "1" / "variables").mkdir(parents=True)
    (tmp_path / "1" / "variables" / "data").write_bytes(b"1234")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"56")
    artifact = Artifact.of(tmp_path / "1", kind="saved_model", inputs=(), outputs=())
    assert artifact.save() == tmp_path / "1" / "artifact.json"
    assert artifact.size_bytes == content_size_bytes(tmp_path / "1") == 6
    assert Artifact.load(tmp_path / "1") == artifact


def test_the_digest_of_a_folder_covers_names_and_bytes(tmp_path: Path) -> None:
    digests = set()
    for number, (name, content) in enumerate([("a", b"1"), ("b", b"1"), ("a", b"2"), ("sub/a", b"1")]):
        file = tmp_path / str(number) / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        digests.add(content_sha256(tmp_path / str(number)))
    assert len(digests) == 4


def test_printing_tells_size_tensors_and_measurements(tmp_path: Path) -> None:
    text = str(written(tmp_path / "model.tflite"))
    assert "7 bytes" in text
    assert "x int8[1, 2]" in text
    assert "sqnr_db=31.5, full_integer=True" in text


def test_the_layers_of_operators_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"TFL3")
    layers = (("block/conv", "block/relu"), (), ("scores",))
    artifact = Artifact.of(path, kind="tflite", inputs=(), outputs=(), layers=layers)
    record = artifact.save()
    assert json.loads(record.read_text())["layers"] == ["block/conv;block/relu", "", "scores"]
    assert Artifact.load(path).layers == layers
    record.write_text(json.dumps({name: x for name, x in json.loads(record.read_text()).items() if name != "layers"}))
    assert Artifact.load(path).layers == ()  # as older versions wrote it


def test_a_partial_file_without_a_process_number_is_the_users(tmp_path: Path) -> None:
    (tmp_path / ".a.notes.partial").write_text("mine")
    with write_whole(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / ".a.notes.partial").read_text() == "mine"


def test_folders_created_for_a_failed_write_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_whole(tmp_path / "new" / "deep" / "a"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_record_without_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"TFL3")
    Artifact.of(path, kind="tflite", inputs=(), outputs=()).save()
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        Artifact.load(path)


def made_in(folder: Path, content: bytes) -> Artifact:
    """An artifact at another place than its own."""
    folder.mkdir(exist_ok=True)
    (folder / "made").write_bytes(content)
    return Artifact.of(folder / "made", kind="tflite", inputs=(), outputs=())


def test_a_file_and_its_record_appear_together(tmp_path: Path) -> None:
    path = tmp_path / "out" / "model.tflite"
    with write_artifact(path) as write:
        artifact = write(made_in(tmp_path / "elsewhere", b"new"))
        assert not path.exists()
        assert not artifact.record_path.exists()
    assert names(path.parent) == ["model.artifact.json", "model.tflite"]
    assert artifact.path == path
    assert Artifact.load(path) == artifact


def test_the_record_is_renamed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, renamed = os.replace, []

    def record_order(source: Path, target: Path) -> None:
        renamed.append(target.name)
        replace(source, target)

    monkeypatch.setattr("os.replace", record_order)
    with write_artifact(tmp_path / "model.tflite") as write, write_whole(tmp_path / "more.json") as more:
        more.write_text("{}")
        write(made_in(tmp_path / "elsewhere", b"new"))
    assert renamed == ["more.json", "model.tflite", "model.artifact.json"]


def test_a_failing_block_keeps_the_file_and_its_record(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with write_artifact(path) as write:
        before = write(made_in(tmp_path / "elsewhere", b"old"))
    other = made_in(tmp_path / "elsewhere", b"new")
    other.path.unlink()
    with pytest.raises(FileNotFoundError), write_artifact(path) as write:
        write(other)
    assert Artifact.load(path) == before
    assert names(tmp_path) == ["elsewhere", "model.artifact.json", "model.tflite"]
