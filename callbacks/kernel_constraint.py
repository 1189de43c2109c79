"""Constraints that a callback holds on kernels during a fit: the optimizer applies them within the train step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import keras
import numpy as np

__all__ = ["KernelConstraint", "KernelConstraints", "KernelMask", "constraints_on"]


class KernelConstraint(ABC):
    """Holds one kernel to some form, after the constraint that was on it before has run.

    Args:
        layer: the layer that owns the kernel.
        kernel: what is held.
        params: those of the callback. Callbacks of one fit share them, so they tell the fit.
    """

    def __init__(self, layer: keras.layers.Layer, kernel: keras.Variable, params: dict[str, Any]) -> None:
        self.layer, self.kernel, self.params = layer, kernel, params
        self.inner: Callable[[Any], Any] | None = None

    def __call__(self, weights: Any) -> Any:
        """What the optimizer assigns after an update."""
        return self.held(weights if self.inner is None else self.inner(weights))

    @abstractmethod
    def held(self, weights: Any) -> Any:
        """The weights in the form that this constraint is about."""


class KernelMask(KernelConstraint):
    """Keeps some weights of a kernel at zero.

    Args:
        layer: the layer that owns the kernel.
        kernel: what is held.
        params: those of the callback.
        mask: a bool array of the kernel's shape, True where a weight is free.
    """

    def __init__(
        self, layer: keras.layers.Layer, kernel: keras.Variable, params: dict[str, Any], mask: np.ndarray
    ) -> None:
        super().__init__(layer, kernel, params)
        self.mask = keras.Variable(mask, dtype="bool", trainable=False, name="mask")

    def held(self, weights: Any) -> Any:
        """The weights with zeros where the mask says."""
        # Not a product: 0 * NaN is NaN, and -1 * 0 is -0.
        return keras.ops.where(self.mask, weights, keras.ops.zeros_like(weights))


Held = TypeVar("Held", bound=KernelConstraint)


class KernelConstraints(Generic[Held]):
    """The constraints that one callback has on the kernels of a model during a fit."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held)

    def put_on(self, model: keras.Model, constraints: Iterable[Held]) -> None:
        """Puts constraints over those that are there, and has the train step traced anew if there are any."""
        self._held = list(constraints)
        for constraint in self._held:
            constraint.inner = constraint.kernel.constraint
            constraint.kernel.constraint = constraint
        if self._held:
            model.make_train_function(force=True)

    def apply(self) -> None:
        """Brings the weights into form that something other than an update, such as an EMA swap, has just set."""
        for constraint in self._held:
            constraint.kernel.assign(constraint.held(constraint.kernel))

    def take_off(self, model: keras.Model) -> None:
        """Gives each kernel the constraints back that it would have without this callback."""
        for constraint in self._held:
            _unlink(constraint.kernel, constraint)
        if self._held:
            model.make_train_function(force=True)
        self._held = []

    def take_off_leftovers(self, model: keras.Model, params: dict[str, Any]) -> None:
        """Takes off what a fit that an exception ended, and that so reached no `on_train_end`, left on kernels.

        Args:
            model: the model that is about to be fitted.
            params: those of the callback in the fit that begins.
        """
        leftovers = [
            constraint
            for weight in model.weights
            for constraint in constraints_on(weight)
            if constraint in self._held or constraint.params is not params
        ]
        for constraint in leftovers:
            _unlink(constraint.kernel, constraint)
        if leftovers:
            model.make_train_function(force=True)
        self._held = []


def constraints_on(kernel: keras.Variable) -> Iterator[KernelConstraint]:
    """The constraints of callbacks on a kernel, the last one put on first."""
    constraint = kernel.constraint
    while isinstance(constraint, KernelConstraint):
        yield constraint
        constraint = constraint.inner


def _unlink(kernel: keras.Variable, constraint: KernelConstraint) -> None:
    # Not the outermost one where another callback put its own over it.
    outer = next((other for other in constraints_on(kernel) if other.inner is constraint), None)
    if outer is None:
        kernel.constraint = constraint.inner
    else:
        outer.inner = constraint.inner
