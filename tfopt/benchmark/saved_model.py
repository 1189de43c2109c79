"""Running a SavedModel in this process; the folder may be one that TF Serving serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.artifact import Artifact, TensorSpec
from tfopt.errors import BenchmarkError, DataError
from tfopt.inspection_file import saved_model_parts
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["SavedModelRunner", "model_files"]

SIGNATURE = "serving_default"
PREDICTION_BATCH = 256


def model_files(saved_model: Path) -> list[Path]:
    """The files that make up the model: all but warm-up requests (in `assets.extra`) and the record."""
    files = (path for path in saved_model.rglob("*") if path.is_file() and path.name != "artifact.json")
    return sorted(path for path in files if path.relative_to(saved_model).parts[0] != "assets.extra")


class SavedModelRunner:
    """The signature `serving_default` of a SavedModel, called in this process.

    Args:
        path: the folder with saved_model.pb.
        record: what the exporter wrote beside it; gives the order of several inputs.

    Raises:
        BenchmarkError: if the folder cannot be loaded or has no such signature.
    """

    note = "in process, TF default threads"
    # TensorFlow itself is far larger than a model, and cannot be loaded without one.
    peak_memory_bytes: int | None = None

    def __init__(self, path: Path, *, record: Artifact | None = None) -> None:
        import tensorflow as tf

        self.path = path
        self._constant: Callable[..., Any] = tf.constant
        try:
            # Held, because its signatures do not keep its variables alive.
            self._loaded: Any = tf.saved_model.load(str(path))
        except Exception as error:  # protobuf, TensorFlow and the file system each raise their own
            raise _cannot_run(path, str(error)) from error
        if SIGNATURE not in self._loaded.signatures:
            raise BenchmarkError(
                f"Cannot run {path}: expected a signature named {SIGNATURE}. "
                f"Received: {sorted(self._loaded.signatures)}. Export it with tfopt.export_serving."
            )
        self._signature: Any = self._loaded.signatures[SIGNATURE]
        specs = self._signature.structured_input_signature[1]
        ordered = [spec.name for spec in record.inputs] if record else []
        names = ordered if set(ordered) == set(specs) else list(specs)
        self.inputs = tuple(
            TensorSpec(name=name, shape=tuple(specs[name].shape.as_list()), dtype=specs[name].dtype.name)
            for name in names
        )

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """A call of the signature, until its outputs are NumPy arrays."""
        feeds = self._feeds(sample)
        return {None: lambda: [tensor.numpy() for tensor in self._signature(**feeds).values()]}

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of all samples, in batches where the signature takes them."""
        size = PREDICTION_BATCH if all(spec.shape[0] is None for spec in self.inputs) else 1
        batches = []
        for begin in range(0, len(samples[0]), size):
            feeds = self._feeds([array[begin : begin + size] for array in samples])
            try:
                outputs = self._signature(**feeds)
            except Exception as error:  # every failing op has an error class of its own
                raise _cannot_run(self.path, str(error)) from error
            batches.append([tensor.numpy() for tensor in outputs.values()])
            advance(len(batches[-1][0]))
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]

    def parts(self, target: Target) -> tuple[Part, ...]:
        """The variables that the signatures read."""
        return saved_model_parts(self._loaded, target)

    def _feeds(self, sample: list[np.ndarray]) -> dict[str, Any]:
        feeds = {}
        for array, spec in zip(sample, self.inputs, strict=True):
            cast = array.astype(spec.dtype)
            if "float" not in spec.dtype and not np.array_equal(cast, array):
                raise DataError(
                    f"benchmark data for input '{spec.name}' must be whole numbers in the "
                    f"range of {spec.dtype}. Received: values from {array.min()} to {array.max()}."
                )
            feeds[spec.name] = self._constant(cast)
        return feeds


def _cannot_run(path: Path, reason: str) -> BenchmarkError:
    first = next((line.strip() for line in reason.splitlines() if line.strip()), "no message")
    return BenchmarkError(
        f"Cannot run {path}: expected a SavedModel that TensorFlow can load and run. "
        f"Received: {first.rstrip('.')}. Check that the folder is whole, or export it again."
    )
