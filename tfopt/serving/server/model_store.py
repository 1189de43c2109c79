"""Which versions of which models are in memory, and the folders and configuration that say which should be."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfopt.errors import ConfigError
from tfopt.serving.batching import MODEL_BATCHING_FILE, BatchingParameters
from tfopt.serving.server.batcher import BatchRecord
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.served_model import ServedModel
from tfopt.serving.server.version_status import KnownModel, KnownVersion, State, VersionStatus
from tfopt.serving.server.wanted_versions import check_config, folder_config, wanted_versions
from tfopt.serving.server_files import read_file

__all__ = ["ModelStore", "State", "VersionStatus"]

logger = logging.getLogger(__name__)


class ModelStore:
    """Loads the versions that should be served, and unloads those that should not.

    It follows the folders, and models.config where there is one. A new version is loaded in a thread and serves
    before an old one is drained and unloaded; one that cannot be loaded leaves the old one where it is, and is tried
    again when its files change.

    Use it within one event loop.

    Args:
        directory_or_config: a folder of models, with or without a models.config, or a file like it.
        batching: None runs each request alone. A version's own batching_params.pbtxt counts more, but for the number
            of threads.
        executor: the threads that run models, which all models share.
        poll_seconds: how often the folders are looked at; 0 for never.
        on_batch: told of each batch that ran, with the model's name, in the event loop.

    Example:
        >>> import tempfile
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> async def found(folder):
        ...     with ThreadPoolExecutor() as executor:
        ...         store = ModelStore(Path(folder), batching=None, executor=executor)
        ...         await store.start()
        ...         (status,) = store.status("digits")
        ...         await store.stop()
        ...     return status.version, str(status.state), status.error_code
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "digits", "7").mkdir(parents=True)
        ...     asyncio.run(found(folder))
        (7, 'END', 'NOT_FOUND')

    References: TF Serving's file_system_storage_path_source.cc, availability_preserving_policy.h and server_core.cc.
    """

    def __init__(
        self,
        directory_or_config: Path,
        *,
        batching: BatchingParameters | None,
        executor: Executor,
        poll_seconds: float = 1.0,
        on_batch: Callable[[str, BatchRecord], None] | None = None,
    ) -> None:
        self._path = directory_or_config
        self._batching = batching
        self._executor = executor
        self._poll_seconds = poll_seconds
        self._on_batch = on_batch
        self._config = self._file_config = ModelServerConfig()
        self._models: dict[str, KnownModel] = {}
        self._refreshing = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._unloading: set[asyncio.Task[None]] = set()
        self._last_complaint = ""

    async def start(self) -> None:
        """Loads what should be served, then looks for changes every `poll_seconds`.

        Raises:
            ConfigError: if there is nothing to serve, or the configuration is wrong. A version that cannot be loaded
                is told by `status`.
        """
        self._config = self._file_config = await asyncio.to_thread(folder_config, self._path)
        await self._follow()
        if self._poll_seconds:
            self._polling = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Stops looking for changes, answers the requests that are there, and unloads everything."""
        if self._polling:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        async with self._refreshing:
            last = [version for model in self._models.values() for version in model.retire(keep=())]
            await asyncio.gather(*self._unloading, *map(_drain, last))

    async def refresh(self) -> None:
        """Looks at the configuration and the folders now; returns when new versions serve.

        Raises:
            ConfigError: if the configuration is wrong or gone; what was served is served on.
        """
        found = await asyncio.to_thread(folder_config, self._path)
        if found != self._file_config:  # or else what `reload` said holds
            self._config = self._file_config = found
        await self._follow()

    async def reload(self, config: ModelServerConfig) -> None:
        """Serves what a configuration says, until models.config changes; returns when new versions serve.

        Raises:
            ConfigError: if the configuration is wrong.
            RequestError: FAILED_PRECONDITION if a label is to move to a version that is not served yet. Nothing
                changes then.
        """
        check_config(config)
        for entry in config.model_config_list.config:
            model = self._model(entry.name)
            for label, version in entry.version_labels.items():
                if model.labels.get(label, version) != version and version not in model.available():
                    raise RequestError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {entry.name}, which is not currently "
                        "available for inference",
                    )
        self._config = config
        await self._follow()

    def get(self, name: str, *, version: int | None = None, label: str | None = None) -> ServedModel:
        """The version that a request asks for; without `version` and `label`, the latest that is served.

        Raises:
            RequestError: NOT_FOUND if it is not served, INVALID_ARGUMENT if there is no such label.
        """
        return self._model(name).get(version=version, label=label)

    def names(self) -> list[str]:
        """The models that were ever to be served, sorted."""
        return sorted(self._models)

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Where the versions of a model are, the latest first; or one of them.

        Raises:
            RequestError: NOT_FOUND if nothing is known of it.
        """
        return self._model(name).status(version)

    def _model(self, name: str) -> KnownModel:
        return self._models.get(name) or KnownModel(name)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
                self._last_complaint = ""
            except Exception as error:  # a configuration that is just being written, a disk that is away
                if str(error) != self._last_complaint:
                    logger.error("The models that are served stay as they are: %s", error)
                self._last_complaint = str(error)

    async def _follow(self) -> None:
        # A caller that goes away, such as a client that hangs up, leaves no version half-way.
        await asyncio.shield(asyncio.create_task(self._follow_config()))

    async def _follow_config(self) -> None:
        async with self._refreshing:
            entries = self._config.model_config_list.config
            directory = self._path if self._path.is_dir() else self._path.parent
            loaded = False
            for entry in entries:
                wanted = await asyncio.to_thread(wanted_versions, entry, directory)
                if wanted is None:
                    logger.warning("Could not find base path %s for servable %s", entry.base_path, entry.name)
                    continue
                loaded |= await self._serve(entry.name, wanted)
                self._label(entry.name, entry.version_labels)
            for name in set(self._models) - {entry.name for entry in entries}:
                await self._serve(name, {})
            if loaded and gc.get_freeze_count():
                gc.freeze()  # as a server does with what it has loaded before

    async def _serve(self, name: str, wanted: Mapping[int, Path]) -> bool:
        model = self._models.setdefault(name, KnownModel(name))
        loaded = False
        for number, folder in wanted.items():
            version = model.versions.setdefault(number, KnownVersion(VersionStatus(number, State.START)))
            if version.status.state in (State.START, State.END):
                loaded |= await self._load(name, version, folder)
        replaced = not wanted or model.available().keys() & wanted.keys()
        if replaced and (unwanted := model.retire(keep=wanted)):
            task = asyncio.create_task(_unload(unwanted))
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)
        return loaded

    async def _load(self, name: str, version: KnownVersion, folder: Path) -> bool:
        number = version.status.version
        files = await asyncio.to_thread(_files, folder)
        if files == version.failed_files:
            return False
        version.status = VersionStatus(number, State.LOADING)
        try:
            loaded = await asyncio.to_thread(LoadedVersion.load, name, number, folder)
            batching = await asyncio.to_thread(self._batching_of, folder)
        except (RequestError, ConfigError, OSError) as error:
            code = error.code if isinstance(error, RequestError) else Code.INVALID_ARGUMENT
            logger.error("Version %d of model %s cannot be served: %s", number, name, error)
            version.status = VersionStatus(number, State.END, code.name, str(error))
            version.failed_files = files
            return False
        on_batch = partial(self._on_batch, name) if self._on_batch else None
        version.served = ServedModel(loaded, batching=batching, executor=self._executor, on_batch=on_batch)
        version.status = VersionStatus(number, State.AVAILABLE)
        version.failed_files = None
        logger.info("Version %d of model %s is served", number, name)
        return True

    def _batching_of(self, folder: Path) -> BatchingParameters | None:
        file = folder / MODEL_BATCHING_FILE
        if self._batching is None or not file.is_file():
            return self._batching
        own = BatchingParameters.from_text(read_file(file), file=str(file))
        return replace(own, num_batch_threads=self._batching.num_batch_threads)

    def _label(self, name: str, labels: Mapping[str, int]) -> None:
        model = self._models[name]
        available = model.available()
        kept = {}
        for label, version in labels.items():
            before = model.labels.get(label, version)
            if before != version and version not in available:
                logger.error("Label %s of model %s stays at version %d: %d is not served", label, name, before, version)
                version = before
            kept[label] = version
        model.labels = kept


async def _unload(versions: list[KnownVersion]) -> None:
    await asyncio.gather(*map(_drain, versions))
    # Models are full of reference cycles, and a server may have frozen them against collection.
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()


async def _drain(version: KnownVersion) -> None:
    if version.served:
        await version.served.drain()
    version.served = None
    version.status = replace(version.status, state=State.END)


def _files(folder: Path) -> frozenset[tuple[str, int, int]]:
    found = ((path, path.stat()) for path in folder.rglob("*"))
    return frozenset((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found)
