"""A network of several exits cut into stages: what each exit needs beyond the exits before it."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tfopt.early_exit.heads import answer_kind
from tfopt.errors import ModelError
from tfopt.surgery.flops import costs
from tfopt.surgery.graph import Call, Graph, Value, read_graph, rebuild, unique_name
from tfopt.surgery.model import check_model

__all__ = ["Stage", "Stages", "split_stages"]


@dataclass(frozen=True, eq=False)
class Stage:
    """What runs from one exit to the next.

    Tensors between stages have names. A stage takes those that it reads and gives its answer first, then the tensors
    that later stages read.

    Args:
        model: from a list of tensors to a list of tensors, with copies of the network's layers.
        reads: the names of what it takes: inputs of the network, or tensors that earlier stages wrote.
        writes: the names of what it gives: the exit's name first.
        flops: floating-point operations of one sample.
    """

    model: keras.Model
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    flops: int


@dataclass(frozen=True, eq=False)
class Stages:
    """A network in stages.

    Args:
        stages: in the order in which they run.
        from_logits: whether the exits give logits, not probabilities.
        full_flops: floating-point operations of the last answer alone, without the other exits' heads.
    """

    stages: tuple[Stage, ...]
    from_logits: bool
    full_flops: int

    @property
    def exits(self) -> tuple[str, ...]:
        """The names of the exits."""
        return tuple(stage.writes[0] for stage in self.stages)

    @property
    def cumulative_flops(self) -> tuple[int, ...]:
        """What a sample costs that leaves at each exit."""
        return tuple(sum(stage.flops for stage in self.stages[: end + 1]) for end in range(len(self.stages)))


def split_stages(network: keras.Model) -> Stages:
    """Cuts a model whose outputs are exits, in order, into one model for each exit.

    Run one after the other they compute what the network computes, each layer once (a layer that two stages call is
    copied into both).

    Args:
        network: what `tfopt.early_exit` gave, or any Functional model whose outputs are classifiers of the same
            classes, each of which needs layers that those before it do not.

    Raises:
        ModelError: if it is no such model.

    Example:
        >>> x = keras.Input((4,), name="x")
        >>> h = keras.layers.Dense(8, name="hidden")(x)
        >>> exits = [keras.layers.Dense(3, name="exit_1")(h), keras.layers.Dense(3, name="classes")(h)]
        >>> for stage in split_stages(keras.Model(x, exits)).stages:
        ...     print(stage.reads, stage.writes, stage.flops)
        ('x',) ('exit_1', 'hidden') 112
        ('hidden',) ('classes',) 48
    """
    check_model(network)
    graph = read_graph(network)
    answers: list[Value] = keras.tree.flatten(graph.outputs)
    if len(answers) < 2:
        raise ModelError(
            f"Expected a model with several exits. Received: '{network.name}', with {len(answers)} output. "
            "Make it with tfopt.early_exit."
        )
    kinds = [answer_kind(graph, answer) for answer in answers]
    if len({kind == "linear" for kind in kinds}) > 1 or len({answer.shape for answer in answers}) > 1:
        raise ModelError(
            "Expected exits that answer alike: all with logits or all with probabilities, of the same classes. "
            f"Received: {', '.join(f'{kind} {answer.shape}' for kind, answer in zip(kinds, answers, strict=True))}."
        )
    segments = _segments(graph, answers)
    names = _tensor_names(graph, answers, network.output_names)
    stages = []
    for index, (calls, answer) in enumerate(zip(segments, answers, strict=True)):
        made = _outputs_of(calls)
        reads = [value for value in _inputs_of(calls) if value not in made]
        later = {value for segment in segments[index + 1 :] for value in _inputs_of(segment)}
        writes = [answer, *(value for value in made if value in later and value is not answer)]
        model = rebuild(
            Graph(
                name=f"{graph.name}_stage_{index + 1}",
                inputs=reads,
                input_names=tuple(names[value] for value in reads),
                outputs=writes,
                calls=tuple(calls),
            )
        )
        stages.append(Stage(model, tuple(names[v] for v in reads), tuple(names[v] for v in writes), costs(model).flops))
    last = keras.Model(network.input, network.outputs[-1])
    return Stages(tuple(stages), from_logits=kinds[0] == "linear", full_flops=costs(last).flops)


def _segments(graph: Graph, answers: list[Value]) -> list[list[Call]]:
    """The calls that each answer needs beyond those before it."""
    segments: list[list[Call]] = []
    done: set[Call] = set()
    for answer in answers:
        wanted, segment = {answer}, list[Call]()
        for call in reversed(graph.calls):
            if call not in done and not wanted.isdisjoint(keras.tree.flatten(call.outputs)):
                segment.insert(0, call)
                wanted.update(call.inputs)
        if answer not in _outputs_of(segment):
            raise ModelError(
                "Expected exits in the order in which they run, each with layers of its own. Received: "
                f"'{graph.name}', whose output {len(segments) + 1} needs nothing beyond those before it."
            )
        done.update(segment)
        segments.append(segment)
    return segments


def _outputs_of(calls: list[Call]) -> dict[Value, None]:
    return dict.fromkeys(value for call in calls for value in keras.tree.flatten(call.outputs))


def _inputs_of(calls: list[Call]) -> dict[Value, None]:
    return dict.fromkeys(value for call in calls for value in call.inputs)


def _tensor_names(graph: Graph, answers: list[Value], exits: list[str]) -> dict[Value, str]:
    names = dict(zip(keras.tree.flatten(graph.inputs), graph.input_names, strict=True))
    taken = set(graph.input_names)
    names |= {answer: unique_name(name, taken) for answer, name in zip(answers, exits, strict=True)}
    for call in graph.calls:
        for value in keras.tree.flatten(call.outputs):
            if value not in names:
                names[value] = unique_name(call.name, taken)
    return names
