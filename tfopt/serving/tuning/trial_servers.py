"""One model served with several batching settings at once, for as long as they are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tfopt.load.endpoint import Endpoint
from tfopt.load.local_server import local_server
from tfopt.serving.batching import MODEL_BATCHING_FILE, BatchingParameters

__all__ = ["no_batching", "trial_servers"]


def no_batching() -> BatchingParameters:
    """Parameters with which each request runs alone: what a server does that does not batch."""
    return BatchingParameters(
        max_batch_size=1, allowed_batch_sizes=(1,), batch_timeout_micros=0, max_enqueued_batches=10_000
    )


@contextmanager
def trial_servers(folder: Path, name: str, settings: Mapping[str, BatchingParameters]) -> Iterator[dict[str, Endpoint]]:
    """Starts a server for each number of threads, which models share, and in it the model once for each setting.

    Args:
        folder: the version to serve; its files are linked, not copied.
        name: the model's.
        settings: by a name of the caller's.

    Returns:
        The REST endpoint of each setting, for as long as the context lasts.

    Raises:
        BenchmarkError: if a server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="tfopt-tuning-") as temporary:
        groups: dict[int, list[str]] = {}
        for key, parameters in settings.items():
            groups.setdefault(parameters.num_batch_threads, []).append(key)
            version = Path(temporary, str(parameters.num_batch_threads), f"{name}_{key}", "1")
            version.mkdir(parents=True)
            for file in folder.iterdir():
                if file.name != MODEL_BATCHING_FILE:
                    (version / file.name).symlink_to(file.resolve())
            (version / MODEL_BATCHING_FILE).write_text(parameters.to_text())
        with _started(Path(temporary), sorted(groups)) as addresses:
            yield {
                key: Endpoint.of(f"{addresses[threads]}/v1/models/{name}_{key}")
                for threads, keys in groups.items()
                for key in keys
            }


@contextmanager
def _started(temporary: Path, groups: list[int]) -> Iterator[dict[int, str]]:
    if not groups:
        yield {}
        return
    file = temporary / f"threads_{groups[0]}.txt"
    file.write_text(replace(no_batching(), num_batch_threads=groups[0]).to_text())
    options = ("--batching-parameters", str(file), "--poll-seconds", "0")
    with local_server(temporary / str(groups[0]), options=options) as server, _started(temporary, groups[1:]) as others:
        yield {groups[0]: server.rest, **others}
