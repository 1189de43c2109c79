"""Teachers' answers to a fixed data set, kept in a folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfopt.artifact import write_whole
from tfopt.distillation.fixed_data import FixedData, update_digest
from tfopt.distillation.teachers import Teachers
from tfopt.errors import DataError

__all__ = ["TeacherCache"]

RECORD = "teacher_cache.json"


class TeacherCache:
    """A folder with the teachers' answers to one data set, computed once.

    What is stored is what the losses compare: logits take `4 * classes` bytes a sample, features of a convolution as
    many as they are. The folder is written whole or not at all. It belongs to the data and the teachers it was made
    with: the record beside the answers has the digests of both, and the answers to the first batch are computed again
    and compared.

    Args:
        folder: where; it is created by the first `attach`.
        teachers: whose answers.

    Example:
        >>> import tempfile
        >>> from tfopt.distillation.losses import LogitsLoss
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = TeacherCache(f"{folder}/answers", Teachers(teacher, student, [LogitsLoss()]))
        ...     attached = cache.attach(np.ones((5, 4), np.float32))
        ...     attached.answers[0][0].shape
        (5, 3)
    """

    def __init__(self, folder: str | Path, teachers: Teachers) -> None:
        self.folder = Path(folder)
        self._teachers = teachers

    def attach(self, data: Any) -> Any:
        """Puts the answers beside the samples; computes and writes them where the folder is not there.

        Args:
            data: as `fit` takes it: arrays, or a tf.data.Dataset that yields the same batches at every pass.

        Returns:
            The samples and the answers, as `fit` takes them: arrays that it may shuffle, or a dataset.

        Raises:
            DataError: if the folder holds the answers of other teachers or to other data, or is damaged; if a dataset
                yields something else at its second pass.
            ConfigError: if the data has no fixed samples to store answers for, or the folder cannot be written.
        """
        fixed = FixedData(data)
        if not self.folder.exists() or (self.folder.is_dir() and not any(self.folder.iterdir())):
            self._write(fixed)
        return fixed.join(self._read(fixed))

    def _write(self, data: FixedData) -> None:
        seen, files = hashlib.sha256(), []
        features = tf.function(self._teachers.features, autograph=False, reduce_retracing=True)
        with write_whole(self.folder) as temporary:
            temporary.mkdir()
            with ExitStack() as stack:
                streams: list[Any] = []
                for batch in data.batches():
                    update_digest(seen, batch)
                    answers = _answers(features, batch)
                    if not streams:
                        files = [
                            {"file": f"answers_{index}.bin", "dtype": str(answer.dtype), "shape": answer.shape[1:]}
                            for index, answer in enumerate(answers)
                        ]
                        streams = [stack.enter_context(open(temporary / str(file["file"]), "wb")) for file in files]
                    for stream, answer in zip(streams, answers, strict=True):
                        stream.write(answer.tobytes())
            if seen.hexdigest() != data.sha256:
                raise DataError(
                    "Distiller: cache=... needs a dataset that yields the same batches at every pass, and this one "
                    "does not. Shuffle and augment after the answers are there: "
                    "distiller.attach_answers(dataset).shuffle(100)."
                )
            record = {
                "data_sha256": data.sha256,
                "teachers_sha256": self._digest(),
                "samples": sum(data.sizes),
                "answers": files,
            }
            (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n")

    def _read(self, data: FixedData) -> tuple[tuple[np.ndarray, ...], ...]:
        try:
            record = json.loads((self.folder / RECORD).read_text())
            found = record["data_sha256"], record["teachers_sha256"]
            samples, files = int(record["samples"]), list(record["answers"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"Distiller: cache={str(self.folder)!r} must be a new folder, or one that a Distiller wrote. Received: "
                f"one without a readable {RECORD} ({type(error).__name__}). Choose another folder, or delete it."
            ) from None
        expected = data.sha256, self._digest()
        for what, now, then in zip(("data", "teachers or losses"), expected, found, strict=True):
            if now != then:
                raise self._mismatch(f"it holds answers of other {what} (sha256 {str(then)[:12]}, now {now[:12]})")
        try:
            answers = [
                np.memmap(self.folder / file["file"], file["dtype"], mode="r", shape=(samples, *file["shape"]))
                for file in files
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._mismatch(f"its files are damaged ({type(error).__name__}: {error})") from None
        sizes_bytes = [(self.folder / file["file"]).stat().st_size for file in files]
        fresh = _answers(self._teachers.features, next(data.batches()))
        for stored, new, size_bytes in zip(answers, fresh, sizes_bytes, strict=True):
            if size_bytes != stored.dtype.itemsize * math.prod(stored.shape) or not _is_close(stored[: len(new)], new):
                raise self._mismatch("the teachers now give other answers than it holds")
        per_teacher = len(answers) // len(self._teachers.models)
        rows = [answers[start : start + per_teacher] for start in range(0, len(answers), per_teacher)]
        return tuple(tuple(row) for row in rows)

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self._teachers.description).encode())
        for model in self._teachers.models:
            update_digest(digest, model.get_weights())
        return digest.hexdigest()

    def _mismatch(self, what: str) -> DataError:
        return DataError(
            f"Distiller: the cache {self.folder} does not belong to this training: {what}. "
            "Choose another folder with cache=..., or delete this one."
        )


def _answers(features: Callable[[Any], Any], batch: Any) -> list[np.ndarray]:
    answers = features(keras.tree.map_structure(ops.convert_to_tensor, batch))
    return [_storable(answer) for answer in keras.tree.flatten(answers)]


def _storable(answer: Any) -> np.ndarray:
    array = ops.convert_to_numpy(answer)
    return array if array.dtype in (np.float16, np.float32, np.float64) else array.astype(np.float32)


def _is_close(stored: np.ndarray, new: np.ndarray) -> bool:
    # Not equal: another machine, or another size of the batch, rounds otherwise.
    return stored.shape == new.shape and bool(np.allclose(stored, new, rtol=1e-2, atol=1e-2 * float(np.abs(new).max())))
