"""What every runner offers, and what they share: inputs made up where no data is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt.artifact import TensorSpec
from tfopt.benchmark.measurements import OperatorTime
from tfopt.errors import BenchmarkError, DataError
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["Runner", "fitted", "random_samples", "refused_sample"]


class Runner(Protocol):
    """A file that is loaded and can be run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The input tensors, in the order of the samples."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Growth of a fresh process by loading and running the file; None where it was not measured."""

    @property
    def arena_bytes(self) -> int | None:
        """Memory that the tensors of one inference share, without weights; None where it was not measured."""

    @property
    def target(self) -> Target:
        """Where it runs: what zeros are judged for where nobody asks for another target."""

    @property
    def note(self) -> str:
        """Under which conditions it runs."""

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """One inference of the sample, an array of shape `(1, ...)` per input, by thread count.

        The thread count None stands for the runtime's default. Empty where the device is not at hand.

        Raises:
            BenchmarkError: if the runtime cannot run the sample.
            DataError: if the sample does not fit.
        """

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray] | None:
        """The outputs of shape `(n, ...)` as floats; `advance` is told how many samples were done.

        None where the device is not at hand.

        Raises:
            BenchmarkError: if the runtime cannot run a sample.
            DataError: if the samples do not fit.
        """

    def operator_times(self, threads: int, sample: list[np.ndarray] | None = None) -> tuple[OperatorTime, ...]:
        """The time of each operator at a thread count; empty where the runtime does not tell.

        Args:
            threads: the thread count.
            sample: an array of shape `(1, ...)` per input; made up by default.

        Raises:
            DataError: if they cannot be told apart; the report then says why.
        """

    def parts(self, target: Target) -> tuple[Part, ...]:
        """What the file holds: operators or variables, and what the target makes of their zeros.

        Raises:
            DataError: if that cannot be told; the report then says why.
        """


def random_samples(inputs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """One sample for each input: uniform in [0, 1), zeros for an integer input (an index is then in range).

    An unknown size becomes 1; the seed is fixed, so that all candidates are given the same.
    """
    generator = np.random.default_rng(0)
    shapes = [(1, *(size or 1 for size in spec.shape[1:])) for spec in inputs]
    return [
        generator.random(shape, np.float32) if "float" in spec.dtype or spec.scale else np.zeros(shape, spec.dtype)
        for shape, spec in zip(shapes, inputs, strict=True)
    ]


def fitted(array: np.ndarray, dtype: str, *, name: str) -> np.ndarray:
    """The array in the type that an input takes.

    Args:
        array: of numbers.
        dtype: of the input: "float32", "int32", ….
        name: of the input.

    Raises:
        DataError: if the type is one of whole numbers and the array has others, or some out of its range.

    Example:
        >>> fitted(np.array([2.0, 3.0]), "int32", name="tokens")
        array([2, 3], dtype=int32)
        >>> fitted(np.array([0.5]), "int32", name="tokens")
        Traceback (most recent call last):
        ...
        tfopt.errors.DataError: benchmark data for input 'tokens' must be whole numbers in the range of int32. \
Received: values from 0.5 to 0.5.
    """
    with np.errstate(invalid="ignore"):  # what is out of range is seen below
        cast = np.ascontiguousarray(array, dtype)
    if not (np.issubdtype(cast.dtype, np.inexact) or np.array_equal(cast, array)):
        raise DataError(
            f"benchmark data for input '{name}' must be whole numbers in the range of {dtype}. "
            f"Received: values from {array.min()} to {array.max()}."
        )
    return cast


def refused_sample(path: Path, sample: int, *, runtime: str, said: str) -> BenchmarkError:
    """The error of a file that runs, but not on the given values.

    Args:
        path: the file.
        sample: the first of those that were given at once.
        runtime: which refused them.
        said: its reason.
    """
    return BenchmarkError(
        f"{path} cannot be run on the data from sample {sample} on: expected values that its operators take. Received "
        f"from {runtime}: {said.rstrip('.')}. Check the range of the data, such as the numbers of tokens "
        "or classes."
    )
