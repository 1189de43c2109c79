"""Where an int8 network rounds: which tensors get a range, which share one, and which layers stay in float."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tfopt.quantization.rules import Output, Rule, rule_for
from tfopt.surgery.graph import Graph, Value, unique_name

__all__ = ["CoverageRow", "Plan", "SharedRange", "plan_quantization"]


@dataclass(frozen=True)
class CoverageRow:
    """One layer of the coverage table.

    Args:
        layer: the layer's name.
        kind: its class.
        quantized: whether it computes on int8.
        remark: how it is quantized, or why it stays in float.
    """

    layer: str
    kind: str
    quantized: bool
    remark: str


@dataclass(frozen=True, eq=False)
class SharedRange:
    """Tensors that lie on one int8 grid; most ranges have one member.

    Args:
        name: the first member's, different for each range.
        members: the tensors that are rounded to it, in order.
        fixed: the range, where TFLite fixes it.
    """

    name: str
    members: tuple[Value, ...]
    fixed: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Plan:
    """What quantization does to a graph.

    Args:
        ranges: for each tensor that is rounded, the range it is rounded to.
        scale_axes: for each layer whose kernel is rounded (by its id), the kernel axes that share one scale.
        coverage: one row per layer.
    """

    ranges: dict[Value, SharedRange]
    scale_axes: dict[int, tuple[int, ...]]
    coverage: tuple[CoverageRow, ...]


def plan_quantization(graph: Graph) -> Plan:
    """Decides, by `rules`, where a graph of elementary layers is rounded.

    A tensor is rounded where the int8 network stores it. So nothing is rounded between layers that the
    converter fuses (convolution, batch norm, ReLU), and tensors that TFLite keeps on one grid share a range.
    """
    names = dict(zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True))
    rounded = [value for value in names if "float" in value.dtype]
    open_to: dict[Value, frozenset[str]] = {}  # what the converter would still fuse into the value's producer
    owner: dict[Value, str] = {}  # the layer that a fused layer becomes part of
    same_grid = _Groups()
    on_input_grid: set[Value] = set()
    scale_axes: dict[int, tuple[int, ...]] = {}
    rows: dict[str, CoverageRow] = {}
    uses: dict[str, int] = {}

    for call in graph.calls:
        rule = rule_for(call.operation, len(call.inputs[0].shape))
        uses[call.name] = uses.get(call.name, 0) + 1
        use = call.name if uses[call.name] == 1 else f"{call.name}_{uses[call.name]}"
        names.update(
            {value: f"{use}_{index}" if index else use for index, value in enumerate(keras.tree.flatten(call.outputs))}
        )
        if isinstance(rule, str):
            rounded += [value for value in keras.tree.flatten(call.outputs) if "float" in value.dtype]
            rows[call.name] = CoverageRow(call.name, type(call.operation).__name__, False, rule)
            continue
        output = call.output
        source = call.inputs[0]
        fused = rule.absorbed_as in open_to.get(source, frozenset()) and _is_only_use(graph, source)
        if fused:
            rounded.remove(source)
            open_to[output] = open_to[source] - {"batch_norm", rule.absorbed_as}
            owner[output] = owner[source]
        else:
            open_to[output] = rule.absorbs
            owner[output] = call.name
        kind = rule.output
        if rule.absorbed_as == "relu" and not fused and source in on_input_grid:
            # The converter fuses a ReLU into a pooling too, and a pooling cannot change the grid.
            kind = Output.SAME_ROUNDED
        match kind:
            case Output.SAME | Output.SAME_ROUNDED:
                same_grid.join(output, call.inputs)
                on_input_grid.add(output)
            case Output.FIXED:
                same_grid.fix(output, rule.fixed_range)
        if kind is not Output.SAME:
            rounded.append(output)
        if rule.scale_axes is not None:
            scale_axes[id(call.operation)] = rule.scale_axes
        remark = f"fused into {owner[output]}" if fused else _remark(rule, kind)
        rows.setdefault(call.name, CoverageRow(call.name, type(call.operation).__name__, True, remark))

    members: dict[Value, list[Value]] = {}
    for value in rounded:
        members.setdefault(same_grid.representative(value), []).append(value)
    ranges: dict[Value, SharedRange] = {}
    taken: set[str] = set()
    for representative, values in members.items():
        shared = SharedRange(unique_name(names[values[0]], taken), tuple(values), same_grid.fixed.get(representative))
        ranges.update(dict.fromkeys(values, shared))
    return Plan(ranges, scale_axes, tuple(rows.values()))


def _is_only_use(graph: Graph, value: Value) -> bool:
    return len(graph.consumers[value]) == 1 and not graph.is_output(value)


def _remark(rule: Rule, kind: Output) -> str:
    if rule.scale_axes is not None:
        return "int8 weights per output channel, int8 output"
    return f"int8; output has {kind.value}"


class _Groups:
    """Union-find over tensors; a group may be fixed to a range, and then only what passes through it joins."""

    def __init__(self) -> None:
        self._parents: dict[Value, Value] = {}
        self.fixed: dict[Value, tuple[float, float]] = {}

    def representative(self, value: Value) -> Value:
        while value in self._parents:
            value = self._parents[value]
        return value

    def fix(self, value: Value, fixed_range: tuple[float, float] | None) -> None:
        if fixed_range is not None:
            self.fixed[self.representative(value)] = fixed_range

    def join(self, output: Value, sources: list[Value]) -> None:
        # Of several inputs, the converter requantizes those whose range TFLite fixes.
        free = [source for source in sources if self.representative(source) not in self.fixed]
        for source in free if len(sources) > 1 else sources:
            child, parent = self.representative(output), self.representative(source)
            if child is not parent:
                self._parents[child] = parent
