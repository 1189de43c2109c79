"""What every runner offers, and what they share: inputs made up where no data is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from tfopt.artifact import TensorSpec
from tfopt.inspection_table import Part
from tfopt.pruning.sparse_targets import Target

__all__ = ["Runner", "random_samples"]


class Runner(Protocol):
    """A file that is loaded and can be run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The input tensors, in the order of the samples."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Growth of a fresh process by loading and running the file; None where it was not measured."""

    @property
    def note(self) -> str:
        """Under which conditions it runs."""

    def timed_calls(self, sample: list[np.ndarray]) -> dict[int | None, Callable[[], object]]:
        """One inference of the sample, an array of shape `(1, ...)` per input, by thread count.

        The thread count None stands for the runtime's default.
        """

    def predict(self, samples: list[np.ndarray], advance: Callable[[int], None]) -> list[np.ndarray]:
        """The outputs of shape `(n, ...)` as floats; `advance` is told how many samples were done."""

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
