"""A file that keeps what early stopping has seen, so that an interrupted fit can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError

__all__ = ["read_backup", "write_backup"]


def write_backup(path: Path, state: dict[str, Any], weights: list[np.ndarray] | None) -> None:
    """Writes the state after an epoch, and the best weights so far, as one NPZ file.

    Args:
        path: the file; it is replaced as a whole.
        state: values that JSON knows.
        weights: those of the best epoch; None if there is none, or they are not kept.

    Raises:
        ConfigError: if the place cannot be written.
    """
    arrays: dict[str, Any] = {f"weight_{number}": weight for number, weight in enumerate(weights or ())}
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, state=np.array(json.dumps({**state, "weights": len(arrays)})), **arrays)


def read_backup(path: Path, current: list[np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray] | None]:
    """Reads what `write_backup` wrote.

    Args:
        path: the file.
        current: the weights of the model that is trained on, for their number, shapes and types.

    Raises:
        ConfigError: if the file is damaged, or its weights are those of another model.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            weights = [file[f"weight_{number}"] for number in range(state["weights"])]
            forms = [(weight.shape, weight.dtype.itemsize) for weight in weights]
    except Exception as error:  # NumPy raises whatever the damaged part leads to: zip, header, type
        raise ConfigError(
            f"EarlyStopping: backup={str(path)!r} is not a file that it wrote ({error}). Delete it, or name another."
        ) from None
    if not weights:
        return state, None
    if forms != [(weight.shape, weight.dtype.itemsize) for weight in current]:
        raise ConfigError(
            f"EarlyStopping: the weights in backup={str(path)!r} are those of another model. Delete the file, or name "
            "another."
        )
    # NumPy writes bfloat16 as two bytes without a type.
    return state, [weight.view(like.dtype) for weight, like in zip(weights, current, strict=True)]
