"""ModelStore: versions come, serve and go, on real SavedModels."""

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.model_store import ModelStore, State, VersionStatus
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.served_model import ServedModel

pytestmark = pytest.mark.slow

BATCHING = BatchingParameters(num_batch_threads=2, max_enqueued_batches=100)
X = np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory, write_affine: Callable[..., None]) -> Callable[[Path], None]:
    """Puts a model into a version folder; it multiplies by the number of the version."""
    originals = tmp_path_factory.mktemp("originals")

    def put(folder: Path) -> None:
        if not (originals / folder.name).exists():
            write_affine(originals / folder.name, factor=int(folder.name))
        shutil.copytree(originals / folder.name, folder)

    return put


def store_of(path: Path, executor: ThreadPoolExecutor, **options: object) -> ModelStore:
    return ModelStore(path, **{"batching": BATCHING, "executor": executor, "poll_seconds": 0, **options})


async def answer(served: ServedModel, signature: str = "serving_default") -> float:
    return float((await served.batcher(signature).submit({"x": X}))["y"][0, 0])


def states(store: ModelStore, name: str = "m") -> dict[int, str]:
    return {status.version: str(status.state) for status in store.status(name)}


async def settled(store: ModelStore, name: str = "m") -> None:
    """Waits until nothing is being unloaded."""
    async with asyncio.timeout(10):
        while "UNLOADING" in states(store, name).values():
            await asyncio.sleep(0)


def write_config(folder: Path, *lines: str, name: str = "m") -> None:
    body = "\n".join(lines)
    text = f'config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" {body} }}'
    (folder / "models.config").write_text(f"model_config_list {{ {text} }}")


def refuses(store: ModelStore, code: Code, message: str, **which: object) -> None:
    with pytest.raises(RequestError) as caught:
        store.get(**{"name": "m", **which})
    assert (caught.value.code, caught.value.message) == (code, message)


def test_the_latest_version_of_every_model_is_served(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    for place in ("m/1", "m/2", "other/3"):
        affine(tmp_path / place)

    async def scenario() -> None:
        records = []
        store = store_of(tmp_path, executor, on_batch=lambda name, record: records.append((name, record.size)))
        await store.start()
        assert store.names() == ["m", "other"]
        assert store.status("m") == [VersionStatus(2, State.AVAILABLE)]
        assert await answer(store.get("m")) == 2
        assert await answer(store.get("m", version=2), "negated") == -2
        assert await answer(store.get("other")) == 3
        assert records == [("m", 1), ("m", 1), ("other", 1)]
        not_found = "Servable not found for request: "
        refuses(store, Code.NOT_FOUND, not_found + "Specific(m, 1)", version=1)
        refuses(store, Code.NOT_FOUND, not_found + "Latest(none)", name="none")
        refuses(store, Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable", label="stable")
        with pytest.raises(RequestError, match="Could not find version 1 of model m"):
            store.status("m", 1)
        with pytest.raises(RequestError, match="Could not find any versions of model none"):
            store.status("none")
        await store.stop()
        assert states(store) == {2: "END"}
        refuses(store, Code.NOT_FOUND, not_found + "Latest(m)")

    asyncio.run(scenario())


def test_a_new_version_serves_before_the_old_one_is_drained(
    tmp_path: Path,
    executor: ThreadPoolExecutor,
    affine: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affine(tmp_path / "m/1")
    gate, run = threading.Event(), LoadedVersion.run

    def gated(self: LoadedVersion, signature: str, inputs: dict) -> dict:
        assert self.version != 1 or gate.wait(10)
        return run(self, signature, inputs)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        monkeypatch.setattr(LoadedVersion, "run", gated)
        old = store.get("m")
        with old.held():
            in_flight = [asyncio.create_task(answer(old)) for _ in range(3)]
            await asyncio.sleep(0)
            affine(tmp_path / "m/2")
            await store.refresh()
            assert states(store) == {2: "AVAILABLE", 1: "UNLOADING"}
            assert await answer(store.get("m")) == 2
            gate.set()
            assert await asyncio.gather(*in_flight) == [1, 1, 1]
            for _ in range(10):
                await asyncio.sleep(0)
            assert await answer(old) == 1  # by a request that had the version, but had not come to its batch
            assert states(store)[1] == "UNLOADING"
        await settled(store)
        assert states(store) == {2: "AVAILABLE", 1: "END"}
        await store.stop()

    asyncio.run(scenario())


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_is_tried_again_when_it_changes(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    affine(tmp_path / "m/1")
    loads, load = [], LoadedVersion.load

    def counted(name: str, version: int, folder: Path) -> LoadedVersion:
        loads.append(version)
        return load(name, version, folder)

    monkeypatch.setattr(LoadedVersion, "load", counted)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        (tmp_path / "m/2").mkdir()
        (tmp_path / "m/2/saved_model.pb").write_bytes(b"half a file")
        for _ in range(3):
            await store.refresh()
        (failed, old) = store.status("m")
        assert (failed.version, failed.state, failed.error_code) == (2, State.END, "INVALID_ARGUMENT")
        assert f"{tmp_path}/m/2 cannot be loaded" in failed.error_message
        assert old == VersionStatus(1, State.AVAILABLE)
        assert await answer(store.get("m")) == 1
        assert loads == [1, 2]
        shutil.rmtree(tmp_path / "m/2")
        affine(tmp_path / "m/2")
        await store.refresh()
        assert await answer(store.get("m")) == 2
        await settled(store)
        assert states(store) == {2: "AVAILABLE", 1: "END"}
        await store.stop()

    asyncio.run(scenario())


def test_a_version_that_goes_makes_way_for_the_one_before(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    affine(tmp_path / "m/1")
    affine(tmp_path / "m/2")

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        shutil.rmtree(tmp_path / "m/2")
        await store.refresh()
        assert await answer(store.get("m")) == 1
        await settled(store)
        assert states(store) == {2: "END", 1: "AVAILABLE"}
        affine(tmp_path / "m/2")
        await store.refresh()
        assert await answer(store.get("m")) == 2
        await store.stop()

    asyncio.run(scenario())


def test_a_base_path_that_is_away_changes_nothing(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    affine(tmp_path / "m/1")
    write_config(tmp_path)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        (tmp_path / "m").rename(tmp_path / "away")
        await store.refresh()
        assert await answer(store.get("m")) == 1
        assert "Could not find base path /models/m for servable m" in caplog.text
        await store.stop()

    asyncio.run(scenario())


def test_policies_and_labels_of_models_config_are_followed(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2, 3):
        affine(tmp_path / f"m/{version}")

    async def scenario() -> None:
        stable, canary = 'version_labels { key: "stable" value: 1 }', 'version_labels { key: "canary" value: 3 }'
        write_config(tmp_path, "model_version_policy { specific { versions: 1 versions: 3 } }", stable, canary)
        store = store_of(tmp_path / "models.config", executor)
        await store.start()
        assert states(store) == {3: "AVAILABLE", 1: "AVAILABLE"}
        assert await answer(store.get("m", label="stable")) == 1
        assert await answer(store.get("m", label="canary")) == 3
        assert await answer(store.get("m")) == 3
        write_config(tmp_path, "model_version_policy { all { } }", stable.replace("1", "2"))
        await store.refresh()
        assert set(states(store).values()) == {"AVAILABLE"}
        assert await answer(store.get("m", label="stable")) == 2
        refuses(store, Code.INVALID_ARGUMENT, "Unrecognized servable version label: canary", label="canary")
        write_config(tmp_path, "model_version_policy { latest { num_versions: 2 } }", stable.replace("1", "9"))
        await store.refresh()
        await settled(store)
        assert states(store) == {3: "AVAILABLE", 2: "AVAILABLE", 1: "END"}
        assert await answer(store.get("m", label="stable")) == 2
        assert "Label stable of model m stays at version 2: 9 is not served" in caplog.text
        await store.stop()

    asyncio.run(scenario())


def test_a_broken_models_config_leaves_everything_as_it_is(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    affine(tmp_path / "m/1")
    write_config(tmp_path)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        (tmp_path / "models.config").write_text("model_config_list { config { name")
        with pytest.raises(ConfigError, match=r"models\.config:1"):
            await store.refresh()
        assert await answer(store.get("m")) == 1
        await store.stop()

    asyncio.run(scenario())


def test_models_come_and_go_with_models_config(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    affine(tmp_path / "m/1")
    affine(tmp_path / "other/2")
    write_config(tmp_path)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        write_config(tmp_path, name="other")
        await store.refresh()
        await settled(store)
        assert await answer(store.get("other")) == 2
        assert states(store) == {1: "END"}
        await store.stop()

    asyncio.run(scenario())


def test_a_configuration_over_the_network_holds_until_the_file_changes(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    for place in ("m/1", "m/2", "other/3"):
        affine(tmp_path / place)
    write_config(tmp_path)

    def config(text: str) -> ModelServerConfig:
        entry = f'config {{ base_path: "{tmp_path}/m" model_platform: "tensorflow" {text} }}'
        return text_format.Parse(f"model_config_list {{ {entry} }}", ModelServerConfig())

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        both = 'name: "m" model_version_policy { all { } }'
        await store.reload(config(f'{both} version_labels {{ key: "stable" value: 1 }}'))
        await store.refresh()
        assert await answer(store.get("m", label="stable")) == 1
        with pytest.raises(RequestError, match="Request to assign label to version 7 of model m, which is") as caught:
            await store.reload(config(f'{both} version_labels {{ key: "stable" value: 7 }}'))
        assert caught.value.code == Code.FAILED_PRECONDITION
        assert await answer(store.get("m", label="stable")) == 1
        await store.reload(config(f'{both} version_labels {{ key: "stable" value: 2 }}'))
        assert await answer(store.get("m", label="stable")) == 2
        with pytest.raises(ConfigError, match="base_path must be absolute"):
            await store.reload(text_format.Parse('model_config_list { config { name: "x" } }', ModelServerConfig()))
        write_config(tmp_path, name="other")
        await store.refresh()
        await settled(store)
        assert await answer(store.get("other")) == 3
        assert set(states(store).values()) == {"END"}
        await store.stop()

    asyncio.run(scenario())


def test_a_caller_that_goes_away_leaves_no_version_half_loaded(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    affine(tmp_path / "m/1")
    gate, load = threading.Event(), LoadedVersion.load

    def gated(name: str, version: int, folder: Path) -> LoadedVersion:
        assert gate.wait(10)
        return load(name, version, folder)

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        monkeypatch.setattr(LoadedVersion, "load", gated)
        affine(tmp_path / "m/2")
        caller = asyncio.create_task(store.refresh())
        async with asyncio.timeout(10):
            while states(store).get(2) != "LOADING":
                await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        gate.set()
        await store.refresh()
        assert await answer(store.get("m")) == 2
        await store.stop()

    asyncio.run(scenario())


def test_a_version_may_have_its_own_batching(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    affine(tmp_path / "m/1")
    file = tmp_path / "m/1/batching_params.pbtxt"

    async def scenario(batching: BatchingParameters | None) -> None:
        store = store_of(tmp_path, executor, batching=batching)
        await store.start()
        try:
            await store.get("m").batcher("serving_default").submit({"x": np.ones((3, 3), np.float32)})
        finally:
            await store.stop()

    file.write_text("max_batch_size { value: 2 }")
    asyncio.run(scenario(None))
    with pytest.raises(RequestError, match="Task size 3 is larger than maximum input batch size 2"):
        asyncio.run(scenario(BATCHING))
    file.write_text("max_batch { value: 2 }")
    with pytest.raises(RequestError, match=r"Servable not found for request: Latest\(m\)"):
        asyncio.run(scenario(BATCHING))


def test_changes_are_found_by_looking_again_and_again(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    affine(tmp_path / "m/1")

    async def scenario() -> None:
        store = store_of(tmp_path, executor, poll_seconds=0.005)
        await store.start()
        (tmp_path / "models.config").write_text("no configuration")
        async with asyncio.timeout(10):
            while "stay as they are" not in caplog.text:
                await asyncio.sleep(0.005)
        (tmp_path / "models.config").unlink()
        affine(tmp_path / "elsewhere/2")
        (tmp_path / "elsewhere/2").rename(tmp_path / "m/2")
        async with asyncio.timeout(10):
            while 2 not in states(store) or states(store)[2] != "AVAILABLE":
                await asyncio.sleep(0.005)
        await store.stop()
        await asyncio.sleep(0.02)
        assert states(store) == {2: "END", 1: "END"}

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())


@pytest.mark.parametrize("frozen", [False, True])
def test_an_unloaded_version_leaves_memory(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None], frozen: bool
) -> None:
    affine(tmp_path / "m/1")

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        gc.unfreeze()
        if frozen:
            gc.collect()
            gc.freeze()
        old = weakref.ref(store.get("m").version)
        assert await answer(store.get("m")) == 1
        affine(tmp_path / "m/2")
        await store.refresh()
        await settled(store)
        assert old() is None
        assert (gc.get_freeze_count() > 0) == frozen
        assert await answer(store.get("m")) == 2
        await store.stop()

    try:
        asyncio.run(scenario())
    finally:
        gc.freeze()  # as conftest.py does


def test_stopping_answers_what_is_in_flight(
    tmp_path: Path, executor: ThreadPoolExecutor, affine: Callable[[Path], None]
) -> None:
    affine(tmp_path / "m/1")

    async def scenario() -> None:
        store = store_of(tmp_path, executor)
        await store.start()
        in_flight = [asyncio.create_task(answer(store.get("m"))) for _ in range(20)]
        await asyncio.sleep(0)
        await store.stop()
        assert [task.done() for task in in_flight] == [True] * 20
        assert await asyncio.gather(*in_flight) == [1] * 20

    asyncio.run(scenario())
