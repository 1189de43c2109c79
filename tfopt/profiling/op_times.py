"""The operations of a graph by the time they took, and the layers they belong to: events in, a table out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from tfopt.benchmark.units import percent, significant
from tfopt.plain_table import aligned
from tfopt.trace import Event

__all__ = ["OpTime", "Profile", "read_op_times"]

Part = Literal["forward", "backward", "update", "loss", "other"]
_OPERATION = re.compile(r"(?P<scope>[^:]+):(?P<operation>[A-Z_]\w*)$")
_NUMBERED = re.compile(r"_\d+$")
_SHOWN = 12


@dataclass(frozen=True)
class OpTime:
    """The operations of one kind, of one layer.

    Args:
        layer: name of the layer; empty for what belongs to none.
        part: "forward", "backward" (the gradient), "update" (the optimizer), "loss", or "other" (input, bookkeeping).
        operation: as TensorFlow calls it, such as "Conv2DBackpropFilter"; `_Mkl` and `Native` are oneDNN's.
        count: how many run in a step.
        step_ms: what they take of a step together. Operations run beside each other, so the sum over all may be longer
            than a step.
    """

    layer: str
    part: Part
    operation: str
    count: float
    step_ms: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a step goes; printing it gives the layers, then the slowest operations.

    Args:
        ops: the slowest first.
        training: whether of training steps, or of `predict`.
        batch_size: samples in a step.
        steps: that were recorded.

    Example:
        >>> ops = OpTime("conv", "backward", "Conv2DBackpropFilter", 1, 3.0), OpTime("", "update", "Sub", 4, 1.0)
        >>> print(Profile(ops, training=True, batch_size=32, steps=10))
        Operations of a training step of 32 samples: 4.00 ms, mean of 10 steps.
           layer    ms   share
            conv  3.00  75.0 %
        (update)  1.00  25.0 %
        layer      part             operation  count    ms
         conv  backward  Conv2DBackpropFilter      1  3.00
                 update                   Sub      4  1.00
    """

    ops: tuple[OpTime, ...]
    training: bool
    batch_size: int
    steps: int

    @property
    def total_ms(self) -> float:
        """All operations of a step added up."""
        return sum(op.step_ms for op in self.ops)

    @property
    def layers(self) -> tuple[tuple[str, float], ...]:
        """Layers and their milliseconds of a step, the slowest first; "(update)" and such for what belongs to none."""
        totals: dict[str, float] = {}
        for op in self.ops:
            name = op.layer or f"({op.part})"
            totals[name] = totals.get(name, 0.0) + op.step_ms
        return tuple(sorted(totals.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        what = "a training step" if self.training else "a step of predict"
        heading = (
            f"Operations of {what} of {self.batch_size} samples: {significant(self.total_ms, 'ms')}, "
            f"mean of {self.steps} steps."
        )
        layers = [("layer", "ms", "share")]
        layers += [(name, significant(ms), percent(ms / self.total_ms)) for name, ms in self.layers[:_SHOWN]]
        ops = [("layer", "part", "operation", "count", "ms")]
        ops += [(op.layer, op.part, op.operation, f"{op.count:g}", significant(op.step_ms)) for op in self.ops[:_SHOWN]]
        return "\n".join([heading, *aligned(layers, ">>>"), *aligned(ops, ">>>>>")])


def read_op_times(events: Iterable[Event], *, layers: Collection[str], optimizer: str, steps: int) -> list[OpTime]:
    """Adds up the operations among the events.

    Args:
        events: of a recording.
        layers: names of the model's layers, those within others too.
        optimizer: its name.
        steps: that the recording holds; times are divided by it.

    Example:
        >>> event = Event("/host:CPU", 0, "model/dense_1_1/MatMul:MatMul", 0.0, 3.0)
        >>> read_op_times([event], layers=["dense_1"], optimizer="sgd", steps=2)
        [OpTime(layer='dense_1', part='forward', operation='MatMul', count=0.5, step_ms=1.5)]
    """
    sums: dict[tuple[str, Part, str], tuple[int, float]] = {}
    for event in events:
        if (match := _OPERATION.fullmatch(event.name)) is None:
            continue
        layer, part = _owner(match["scope"].split("/"), layers, optimizer)
        key = layer, part, match["operation"]
        count, milliseconds = sums.get(key, (0, 0.0))
        sums[key] = count + 1, milliseconds + event.duration_ms
    ops = [OpTime(*key, count / steps, milliseconds / steps) for key, (count, milliseconds) in sums.items()]
    return sorted(ops, key=lambda op: -op.step_ms)


def _owner(scopes: list[str], layers: Collection[str], optimizer: str) -> tuple[str, Part]:
    """The innermost layer whose name is a scope, and what is done for it."""
    # A graph that has a scope of this name already numbers the next: "dense" becomes "dense_1".
    plain = [[scope, _NUMBERED.sub("", scope)] for scope in scopes]
    if any(optimizer in names for names in plain):
        return "", "update"
    if any("compile_loss" in names for names in plain):
        return "", "loss"
    for names in reversed(plain):
        for name in names:
            if name in layers:
                return name, "backward" if "gradient_tape" in scopes else "forward"
    return "", "other"
