"""Whether TF Serving would load one version: its SavedModel, its batching parameters, its warm-up requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError, ExportError, first_line
from tfopt.serving.batching import MODEL_BATCHING_FILE, THREAD_POOL, BatchingParameters
from tfopt.serving.proto_text import batching_parameters, parse_text
from tfopt.serving.server_files import read_file
from tfopt.serving.warmup import WARMUP_FILE, read_warmup_requests, replay_warmup_requests

__all__ = ["CheckedVersion", "check_version"]


@dataclass(frozen=True)
class CheckedVersion:
    """One version in a serving folder, and what was found.

    Args:
        model: the model's name.
        version: its number.
        is_served: whether models.config has it loaded.
        labels: what else it is called.
        warmup_requests: how many requests warm it up.
        batching: how it is batched.
        problems: what a server would refuse.
        remarks: what it takes, but may not be meant.
    """

    model: str
    version: int
    is_served: bool
    labels: tuple[str, ...]
    warmup_requests: int
    batching: BatchingParameters
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def check_version(
    folder: Path,
    *,
    model: str,
    is_served: bool,
    labels: tuple[str, ...],
    server: BatchingParameters,
    per_model: bool,
    replay: bool,
) -> CheckedVersion:
    """Checks a version folder.

    Args:
        folder: named by the version's number.
        model: the model's name.
        is_served: whether models.config has it loaded.
        labels: what else it is called.
        server: what batching_parameters.txt says.
        per_model: whether the server reads each version's own parameters.
        replay: whether the version is loaded and its warm-up requests are run.
    """
    name = f"{model}/{folder.name}"
    problems: list[str] = []
    remarks: list[str] = []
    batching = server
    own_file = folder / MODEL_BATCHING_FILE
    if own_file.exists():
        try:
            own, ignored = _own_batching(own_file, f"{name}/{MODEL_BATCHING_FILE}")
            batching = own if per_model else server
            remarks += ignored
        except ConfigError as error:
            problems.append(str(error))
    elif per_model:
        remarks.append(f"{name} is not batched: it has no {MODEL_BATCHING_FILE}, which the server looks for")
    sizes: list[int] = []
    if not (folder / "saved_model.pb").is_file():
        problems.append(f"{name}: there must be a saved_model.pb. There is none.")
    elif (folder / WARMUP_FILE).is_file():
        try:
            sizes = list(_warmup_sizes(folder))
            if replay:
                replay_warmup_requests(folder)
        except ExportError as error:
            problems.append(str(error))
        except Exception as error:  # whatever a damaged record raises
            problems.append(f"{name}/{WARMUP_FILE} cannot be read. TensorFlow says: {first_line(error)}")
    if max(sizes, default=0) > batching.max_batch_size:
        problems.append(
            f"{name}: warm-up requests must have at most max_batch_size={batching.max_batch_size} samples, or the "
            f"server does not load the version. Received: {max(sizes)}."
        )
    if cold := sorted(set(batching.warmup_batch_sizes) - set(sizes)):
        remarks.append(
            f"{name}: no warm-up request of {', '.join(map(str, cold))} samples; the first such batch is slow"
        )
    if batching.allowed_batch_sizes and batching.execution_batch_size < batching.max_batch_size:
        # bundle_factory_util.cc compares the last allowed size with max_batch_size, whether batches are split or not.
        remarks.append(
            f"{name}: tensorflow_model_server may refuse allowed_batch_sizes that end below max_batch_size="
            f"{batching.max_batch_size}, although large batches are split; without allowed_batch_sizes it takes them"
        )
    return CheckedVersion(
        model, int(folder.name), is_served, labels, len(sizes), batching, tuple(problems), tuple(remarks)
    )


def _own_batching(file: Path, name: str) -> tuple[BatchingParameters, list[str]]:
    """What a version's own file says, and remarks on what of it the server ignores."""
    text = read_file(file)
    message: Any = parse_text(text, batching_parameters(), file=name)
    ignored = [
        f"{name}: the server ignores {field} here; it is that of all models, in batching_parameters.txt"
        for field in THREAD_POOL
        if message.HasField(field)
    ]
    return BatchingParameters.from_text(text, file=name), ignored


def _warmup_sizes(folder: Path) -> Iterator[int]:
    for request in read_warmup_requests(folder):
        yield max((tensor.tensor_shape.dim[0].size for tensor in request.inputs.values()), default=0)
