"""Where an int8 network rounds: which tensors get a range, which share one, and which layers stay in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from tfopt.errors import ConfigError
from tfopt.quantization.rules import Output, Rule, rule_for
from tfopt.recipe import QuantizationConfig
from tfopt.surgery.affine import AFFINE
from tfopt.surgery.graph import Call, Graph, Value, unique_name

__all__ = ["CoverageRow", "Plan", "RoundedWeights", "SharedRange", "plan_quantization"]


@dataclass(frozen=True)
class CoverageRow:
    """One layer of the coverage table.

    Args:
        layer: the layer's name.
        kind: its class.
        arithmetic: what it computes on: "int8", "int16" or "float".
        remark: how it is quantized, or why it stays in float.
        unsupported: whether it stays in float although its mode asks for integers.
    """

    layer: str
    kind: str
    arithmetic: str
    remark: str
    unsupported: bool = False

    @property
    def quantized(self) -> bool:
        """Whether the layer computes on integers."""
        return self.arithmetic != "float"


@dataclass(frozen=True, eq=False)
class SharedRange:
    """Tensors that lie on one integer grid; most ranges have one member.

    Args:
        name: the first member's, different for each range.
        members: the tensors that are rounded to it, in order.
        fixed: the range, where TFLite fixes it.
        bits: 8 or 16.
    """

    name: str
    members: tuple[Value, ...]
    fixed: tuple[float, float] | None
    bits: int = 8


@dataclass(frozen=True)
class RoundedWeights:
    """How the weights of a layer are rounded.

    Args:
        attributes: of the layer, that hold them.
        scale_axes: the axes that share one int8 scale; None for float16.
        integer_sums: whether the layer adds up products of integers, so that its bias is rounded to their grid.
    """

    attributes: tuple[str, ...]
    scale_axes: tuple[int, ...] | None
    integer_sums: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """What quantization does to a graph.

    Args:
        ranges: for each tensor that is rounded, the range it is rounded to.
        grids: for each tensor that lies on the grid of a range, rounded to it or passed on unchanged, that range.
        weights: for each layer whose weights are rounded (by its id), how.
        folded: the batch norms that the converter folds into the layer before, by id.
        integer_affine: the layers that become a depthwise convolution on int8 (`surgery.affine`), by id.
        kept_in_float: tensors that are rounded although a layer that could do so does not compute on integers.
        coverage: one row per layer.
    """

    ranges: dict[Value, SharedRange]
    grids: dict[Value, SharedRange]
    weights: dict[int, RoundedWeights]
    folded: frozenset[int]
    integer_affine: frozenset[int]
    kept_in_float: frozenset[Value]
    coverage: tuple[CoverageRow, ...]


def plan_quantization(
    graph: Graph,
    config: QuantizationConfig | None = None,
    exceptions: Mapping[str, QuantizationConfig] | None = None,
) -> Plan:
    """Decides, by `rules`, where a graph of elementary layers is rounded.

    A tensor is rounded where the integer network stores it. So nothing is rounded between layers that the
    converter fuses (convolution, batch norm, ReLU), and tensors that TFLite keeps on one grid share a range.

    Args:
        graph: the graph.
        config: how its layers compute; int8 by default.
        exceptions: the layers that compute otherwise, by name.

    Raises:
        ConfigError: if some layers are int16 and others not.
    """
    config = config or QuantizationConfig()
    exceptions = exceptions or {}
    bits = _activation_bits(config, exceptions)
    names = dict(zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True))
    rounded: set[Value] = set()  # what integer operators write
    from_float = set(names)
    kept_in_float: set[Value] = set()  # what an integer operator could have written
    read_by_integers: set[Value] = set()
    open_to: dict[Value, frozenset[str]] = {}  # what the converter would still fuse into the value's producer
    owner: dict[Value, str] = {}  # the layer that a fused layer becomes part of
    same_grid = _Groups()
    on_input_grid: set[Value] = set()
    weights: dict[int, RoundedWeights] = {}
    folded: set[int] = set()
    integer_affine: set[int] = set()
    relus: dict[tuple[Value, str], Value] = {}  # those that are operators of their own
    rows: dict[str, CoverageRow] = {}
    uses: dict[str, int] = {}

    for call in graph.calls:
        rule = rule_for(call.operation, len(call.inputs[0].shape))
        mode = exceptions.get(call.name, config)
        uses[call.name] = uses.get(call.name, 0) + 1
        use = call.name if uses[call.name] == 1 else f"{call.name}_{uses[call.name]}"
        names.update(
            {value: f"{use}_{index}" if index else use for index, value in enumerate(keras.tree.flatten(call.outputs))}
        )
        if isinstance(rule, Rule) and rule.scale_axes is not None and mode.weight_type is not None:
            weights[id(call.operation)] = _rounded_weights(call, rule, mode, config)
        if isinstance(rule, str) or rule.in_float is not None or mode.activation_bits is None:
            from_float.update(keras.tree.flatten(call.outputs))
            if isinstance(rule, Rule) and rule.in_float is None:
                kept_in_float.add(call.output)
            rows.setdefault(call.name, _float_row(call, rule, mode))
            continue
        read_by_integers.update(call.inputs)
        output = call.output
        source = call.inputs[0]
        fused = rule.absorbed_as in open_to.get(source, frozenset()) and _is_only_use(graph, source)
        if fused:
            if rule.absorbed_as == "batch_norm":
                folded.add(id(call.operation))
            rounded.remove(source)
            open_to[output] = open_to[source] - {"batch_norm", rule.absorbed_as}
            owner[output] = owner[source]
        else:
            open_to[output] = rule.absorbs
            owner[output] = call.name
            if isinstance(call.operation, AFFINE) and bits == 8:
                integer_affine.add(id(call.operation))
        kind = rule.output
        if rule.absorbed_as == "relu" and not fused and source in on_input_grid:
            # The converter fuses a ReLU into a pooling too, and a pooling cannot change the grid.
            kind = Output.SAME_ROUNDED
        match kind:
            case Output.SAME | Output.SAME_ROUNDED:
                same_grid.join(output, [value for value in call.inputs if "float" in value.dtype])
                on_input_grid.add(output)
            case Output.FIXED:
                # TFLite fixes the int16 grids of softmax, sigmoid and tanh at 1/32768.
                same_grid.fix(output, rule.fixed_range if bits == 8 else (-1.0, 32767 / 32768))
        if rule.absorbed_as == "relu" and not fused:
            # The converter merges equal operators of one tensor, and their one output has one grid.
            twin = relus.setdefault((source, str(call.operation.get_config() | {"name": ""})), output)
            if twin is not output:
                same_grid.join(output, [twin])
        if kind is not Output.SAME:
            rounded.add(output)
        remark = f"fused into {owner[output]}" if fused else _remark(rule, kind, mode)
        rows.setdefault(
            call.name, CoverageRow(call.name, type(call.operation).__name__, f"int{mode.activation_bits}", remark)
        )

    if config.activation_bits is not None:  # the file takes and gives integers
        read_by_integers.update(keras.tree.flatten((graph.inputs, graph.outputs)))
    stored = rounded | (from_float & read_by_integers)
    members: dict[Value, list[Value]] = {}
    for value in names:
        if value in stored and "float" in value.dtype:
            members.setdefault(same_grid.representative(value), []).append(value)
    ranges: dict[Value, SharedRange] = {}
    taken: set[str] = set()
    for representative, values in members.items():
        name = unique_name(names[values[0]], taken)
        shared = SharedRange(name, tuple(values), same_grid.fixed.get(representative), bits)
        ranges.update(dict.fromkeys(values, shared))
    shared_by = {same_grid.representative(value): shared for value, shared in ranges.items()}
    grids = {value: shared_by[root] for value in names if (root := same_grid.representative(value)) in shared_by}
    return Plan(
        ranges=ranges,
        grids=grids,
        weights=weights,
        folded=frozenset(folded),
        integer_affine=frozenset(integer_affine - folded),
        kept_in_float=frozenset(kept_in_float & ranges.keys()),
        coverage=tuple(rows.values()),
    )


def _activation_bits(config: QuantizationConfig, exceptions: Mapping[str, QuantizationConfig]) -> int:
    if any(mode.mode != config.mode for mode in exceptions.values()) and "int16x8" in {
        mode.mode for mode in (config, *exceptions.values())
    }:
        raise ConfigError(
            "quantize_aware: int16x8 is for a whole model: TFLite's converter makes all layers int16 or none. "
            f"Received: {config.mode} for the model and "
            f"{', '.join(sorted({mode.mode for mode in exceptions.values()}))} for layers. "
            "Keep layers in float (mode 'none') within int8, or take int16x8 for all."
        )
    return config.activation_bits or 8


def _rounded_weights(call: Call, rule: Rule, mode: QuantizationConfig, config: QuantizationConfig) -> RoundedWeights:
    if mode.weight_type == "float16":
        return RoundedWeights(rule.weights, None)
    scale_axes = rule.scale_axes
    if not config.per_channel_dense and isinstance(call.operation, (keras.layers.Dense, keras.layers.EinsumDense)):
        scale_axes = tuple(range(len(call.operation.kernel.shape)))
    # What batch norm folds into is a convolution or a matrix multiplication of TFLite, with an integer bias.
    return RoundedWeights(rule.weights, scale_axes, "batch_norm" in rule.absorbs and mode.activation_bits is not None)


def _is_only_use(graph: Graph, value: Value) -> bool:
    return len(graph.consumers[value]) == 1 and not graph.is_output(value)


def _remark(rule: Rule, kind: Output, mode: QuantizationConfig) -> str:
    if rule.scale_axes is not None:
        return f"int8 weights per output channel, int{mode.activation_bits} output"
    return f"int{mode.activation_bits}; output has {kind.value}"


def _float_row(call: Call, rule: Rule | str, mode: QuantizationConfig) -> CoverageRow:
    has_weights = isinstance(rule, Rule) and rule.scale_axes is not None and mode.weight_type is not None
    remarks = [f"{mode.weight_type} weights"] if has_weights else []
    asked = mode.activation_bits is None
    if asked:
        remarks.append(f"mode {mode.mode}")
    else:
        remarks.append(rule if isinstance(rule, str) else str(rule.in_float))
    return CoverageRow(call.name, type(call.operation).__name__, "float", "; ".join(remarks), unsupported=not asked)


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
