"""Which layers become products of smaller ones, of which rank, what that saves, and why the others stay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np

from tfopt.compression.factorization_cost import (
    factor_shapes,
    factored_multiply_accumulates,
    multiply_accumulates,
)
from tfopt.compression.low_rank import channel_singular_values, rank_for_energy, singular_values
from tfopt.errors import ConfigError, ModelError
from tfopt.plain_table import aligned
from tfopt.resource_target import parse_resource_target
from tfopt.surgery.graph import Call, Graph, read_graph
from tfopt.surgery.model import check_model
from tfopt.surgery.select import LayerFilter, select_kernels

__all__ = ["FactorizationPlan", "FactorizationRow", "plan_factorization"]

_BISECTIONS = 50
_LEAST_ENERGY = -1.0  # so that two unfoldings, of which each leaves out half, keep nothing but rank 1


@dataclass(frozen=True)
class FactorizationRow:
    """What becomes of one layer.

    Args:
        layer: its name, as the factorized model bears it.
        kind: its class.
        ranks: channels between the smaller layers: one number for Dense and 1×1 convolutions, before and after the
            k×k one for other convolutions (all of them where there is none before or after); None if the layer stays.
        parameters: weights of the kernel, before and after.
        multiply_accumulates: for one sample, before and after; an unknown size of the input counts as 1.
        error_bound: the most by which the kernel changes, as a fraction of its norm; for ranks of one number, exactly.
        remark: why the layer stays.
    """

    layer: str
    kind: str
    ranks: tuple[int, ...] | None
    parameters: tuple[int, int]
    multiply_accumulates: tuple[int, int]
    error_bound: float = 0.0
    remark: str = ""


@dataclass(frozen=True)
class FactorizationPlan:
    """What `tfopt.factorize` makes of a model; printing it gives the table.

    Args:
        rows: one per chosen layer, in the order of the model.
        parameters: of the whole model, before and after.
        multiply_accumulates: of all its Dense and convolution layers for one sample, before and after.
        energy: the share of each kernel's sum of squares that is kept at least.
    """

    rows: tuple[FactorizationRow, ...]
    parameters: tuple[int, int]
    multiply_accumulates: tuple[int, int]
    energy: float

    def __str__(self) -> str:
        cells = [("layer", "kind", "ranks", "parameters", "multiply-accumulates", "error", "remark")]
        for row in self.rows:
            ranks = "" if row.ranks is None else ", ".join(map(str, row.ranks))
            error = "" if row.ranks is None else f"≤ {row.error_bound:.3f}"
            changes = (_change(*row.parameters), _change(*row.multiply_accumulates))
            cells.append((row.layer, row.kind, ranks, *changes, error, row.remark))
        cells.append(("total", "", "", _change(*self.parameters), _change(*self.multiply_accumulates), "", ""))
        return "\n".join(aligned(cells, "<" * 7))


def plan_factorization(
    model: keras.Model, *, energy: float | None = None, target: str | None = None, layers: LayerFilter | None = None
) -> FactorizationPlan:
    """Tells what `tfopt.factorize` would make of a model, without making it.

    Args:
        model: as `tfopt.factorize` takes it, like the other arguments.
        energy: the share to keep.
        target: what is to remain.
        layers: which layers.

    Raises:
        ConfigError: as `tfopt.factorize` does.
        ModelError: likewise.

    Example:
        >>> low = np.outer(np.ones(32), np.arange(16.0)).astype("float32")
        >>> hidden, head = keras.layers.Dense(16, name="hidden"), keras.layers.Dense(2, name="head")
        >>> model = keras.Sequential([keras.Input((32,)), hidden, head])
        >>> hidden.kernel.assign(low) is not None
        True
        >>> print(plan_factorization(model, energy=0.999))
        layer   kind   ranks  parameters  multiply-accumulates  error    remark
        hidden  Dense  1      512 → 48    512 → 48              ≤ 0.000
        head    Dense         32          32                             would need rank 2, which saves nothing
        total                 562 → 98    544 → 80
    """
    goal = _check_request(energy, target)
    check_model(model)
    graph = read_graph(model)
    candidates = [_candidate(layer, kernel, graph) for layer, kernel in select_kernels(model, layers)]
    parameters, operations = model.count_params(), sum(multiply_accumulates(call) for call in graph.calls)

    def plan(energy: float) -> FactorizationPlan:
        rows = tuple(candidate.row(energy) for candidate in candidates)
        return FactorizationPlan(
            rows,
            (parameters, parameters + sum(row.parameters[1] - row.parameters[0] for row in rows)),
            (operations, operations + sum(row.multiply_accumulates[1] - row.multiply_accumulates[0] for row in rows)),
            max(energy, 0.0),
        )

    found = plan(goal) if isinstance(goal, float) else _most_energy(plan, graph, *goal)
    if all(row.ranks is None for row in found.rows):
        reasons = "; ".join(f"'{row.layer}' ({row.kind}) {row.remark}" for row in found.rows)
        raise ConfigError(f"factorize: no layer of the model '{model.name}' would be smaller: {reasons}.")
    return found


@dataclass(frozen=True)
class _Candidate:
    """A layer, its uses, and the singular values that its ranks are chosen by; none where it cannot be factorized."""

    layer: keras.layers.Layer
    kernel: keras.Variable
    calls: tuple[Call, ...]
    singular_values: tuple[np.ndarray, ...]
    remark: str = ""

    def row(self, energy: float) -> FactorizationRow:
        size, operations = math.prod(self.kernel.shape), sum(multiply_accumulates(call) for call in self.calls)
        name = self.calls[0].name if self.calls else self.layer.name
        stays = FactorizationRow(name, type(self.layer).__name__, None, (size, size), (operations, operations))
        if self.remark:
            return replace(stays, remark=self.remark)
        # What two unfoldings leave out adds up.
        share = 1 - (1 - energy) / len(self.singular_values)
        ranks = tuple(rank_for_energy(values, share) for values in self.singular_values)
        factors = factor_shapes(tuple(self.kernel.shape), ranks)
        smaller = sum(map(math.prod, factors))
        fewer = sum(factored_multiply_accumulates(call, factors) for call in self.calls)
        if smaller >= size or fewer >= operations:
            needed = f"would need rank {' and '.join(map(str, ranks))}, which saves nothing"
            return replace(stays, remark=needed)
        total = np.sum(self.singular_values[0] ** 2)
        left_out = sum(np.sum(values[rank:] ** 2) for values, rank in zip(self.singular_values, ranks, strict=True))
        return replace(
            stays,
            ranks=ranks,
            parameters=(size, smaller),
            multiply_accumulates=(operations, fewer),
            error_bound=math.sqrt(left_out / total) if total else 0.0,
        )


def _candidate(layer: keras.layers.Layer, kernel: keras.Variable, graph: Graph) -> _Candidate:
    calls = tuple(call for call in graph.calls if call.operation is layer)
    remark = ""
    if type(layer) not in (keras.layers.Dense, keras.layers.Conv2D):
        remark = "is neither a Dense nor a Conv2D layer"
    elif not calls:
        remark = "lies within another layer"
    elif isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
        remark = "has groups, whose channels are apart already"
    if remark:
        return _Candidate(layer, kernel, calls, (), remark)
    weights = keras.ops.convert_to_numpy(kernel)
    if math.prod(weights.shape[:-2]) > 1:
        return _Candidate(layer, kernel, calls, channel_singular_values(weights))
    return _Candidate(layer, kernel, calls, (singular_values(weights.reshape(weights.shape[-2:])),))


def _check_request(energy: float | None, target: str | None) -> float | tuple[str, float]:
    if (energy is None) == (target is None):
        raise ConfigError(
            "factorize: expected either energy=, such as 0.95, or target=, such as 'flops: 60%'. "
            f"Received: energy={energy!r}, target={target!r}."
        )
    if target is None:
        if not isinstance(energy, (int, float)) or not 0 < energy <= 1:
            raise ConfigError(f"factorize: energy must be in (0, 1]. Received: {energy!r}.")
        return float(energy)
    return parse_resource_target("factorize", target, ("flops", "params"))


def _most_energy(
    plan: Callable[[float], FactorizationPlan], graph: Graph, what: str, share: float
) -> FactorizationPlan:
    """The plan that keeps the most energy, the same in each layer, and reaches the target."""

    def remaining(found: FactorizationPlan) -> float:
        before, after = found.parameters if what == "params" else found.multiply_accumulates
        return after / before

    if what == "flops" and any(
        None in value.shape[1:] for call in graph.calls for value in (*call.inputs, call.output)
    ):
        raise ModelError(
            f"factorize: the model '{graph.name}' has inputs of unknown size, so its FLOPs are not known. "
            "Give its keras.Input a whole shape, or ask for target='params: ...' or energy=...."
        )
    least = plan(_LEAST_ENERGY)
    if remaining(least) > share:
        raise ConfigError(
            f"factorize: at least {remaining(least):.1%} of the {what} remain, with rank 1 wherever that saves. "
            f"Received: target='{what}: {100 * share:g}%'. Ask for more to remain, or choose more layers."
        )
    low, high = _LEAST_ENERGY, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if remaining(plan(middle)) <= share else (low, middle)
    return plan(low)


def _change(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"
