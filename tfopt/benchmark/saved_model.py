"""Running a SavedModel in this process; the folder may be one that TF Serving serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.artifact import Artifact, TensorSpec
from tfopt.benchmark.measurements import OperatorTime
from tfopt.benchmark.runner import fitted, refused_sample
from tfopt.errors import BenchmarkError, first_line
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
        BenchmarkError: if the folder cannot be loaded, has no such signature, or takes other than numbers.
    """

    target: Target = "serving"
    note = "in process, TF default threads"
    # TensorFlow itself is far larger than a model, and cannot be loaded without one.
    peak_memory_bytes: int | None = None
    arena_bytes: int | None = None

    def __init__(self, path: Path, *, record: Artifact | None = None) -> None:
        import tensorflow as tf

        self.path = path
        self._constant: Callable[..., Any] = tf.constant
        try:
            # Held, because its signatures do not keep its variables alive.
            self._loaded: Any = tf.saved_model.load(str(path))
        except Exception as error:  # protobuf, TensorFlow and the file system each raise their own
            raise _cannot_run(path, error) from error
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
        for spec in self.inputs:
            if spec.dtype not in np.sctypeDict:
                raise BenchmarkError(
                    f"{path}: expected inputs of numbers. Received: input '{spec.name}' of {spec.dtype}. Export the "
                    "model without the layers that turn it into numbers."
                )

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """A call of the signature, until its outputs are NumPy arrays; it is called once."""
        feeds = self._feeds(sample)
        self._run(feeds, 0)
        return {None: lambda: [tensor.numpy() for tensor in self._signature(**feeds).values()]}

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of all samples, in batches where the signature takes them."""
        size = PREDICTION_BATCH if all(spec.shape[0] is None for spec in self.inputs) else 1
        batches = []
        for begin in range(0, len(samples[0]), size):
            feeds = self._feeds([array[begin : begin + size] for array in samples])
            batches.append(self._run(feeds, begin))
            advance(len(batches[-1][0]))
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)]

    def parts(self, target: Target) -> tuple[Part, ...]:
        """The variables that the signatures read."""
        return saved_model_parts(self._loaded, target)

    def operator_times(self, threads: int, sample: list[np.ndarray] | None = None) -> tuple[OperatorTime, ...]:
        """None: TensorFlow's profiler would slow down what is timed beside it."""
        return ()

    def _run(self, feeds: dict[str, Any], sample: int) -> list[np.ndarray]:
        try:
            return [tensor.numpy() for tensor in self._signature(**feeds).values()]
        except Exception as error:  # every failing op has an error class of its own
            raise refused_sample(self.path, sample, runtime="TensorFlow", said=_reason(error)) from None

    def _feeds(self, sample: list[np.ndarray]) -> dict[str, Any]:
        return {
            spec.name: self._constant(fitted(array, spec.dtype, name=spec.name))
            for array, spec in zip(sample, self.inputs, strict=True)
        }


def _reason(error: Exception) -> str:
    """TensorFlow's reason: what stands between headings, which end in a colon, and remarks in brackets."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith(":") and line[0] not in "<["), first_line(error))


def _cannot_run(path: Path, error: Exception) -> BenchmarkError:
    return BenchmarkError(
        f"Cannot run {path}: expected a SavedModel that TensorFlow can load and run. "
        f"Received: {first_line(error).rstrip('.')}. Check that the folder is whole, or export it again."
    )
