"""How long training steps wait for input, and for which stage of its pipeline: events in, a verdict out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfopt.trace import Event, total_ms

__all__ = ["InputWaiting", "is_of_input", "read_input_waiting"]

_STAGE = "Iterator::"
_STEP = "ExecutorState::Process"  # a thread at work on the operations of one run of a graph, whose id it has
_PASSING_ON = ("Root", "Prefetch")  # they do nothing themselves but wait, so their time is that of others

# The first that the name of the slowest stage matches.
_FIXES = (
    (
        "Generator",
        "a Python generator runs in one thread: yield file names or indices, and do the work in a parallel map",
    ),
    (
        "ParallelMap|MapAndBatch",
        "the map is parallel already: make its function cheaper, or batch before it so that it works on whole batches",
    ),
    ("Map", "parallel map: dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)"),
    (
        "Record|TextLine|Interleave|FlatMap",
        "read several files at once: interleave(..., num_parallel_calls=tf.data.AUTOTUNE)",
    ),
    ("Batch", "parallel batch: dataset.batch(size, num_parallel_calls=tf.data.AUTOTUNE)"),
    ("Shuffle", "shuffle file names or indices instead of whole samples"),
)


@dataclass(frozen=True)
class InputWaiting:
    """Where the time of training steps went.

    Args:
        batches: how many were measured.
        step_ms: wall-clock time from the end of a batch to the end of the next.
        input_wait_ms: of it, the time in which the step had nothing to do but wait for its input.
        threshold: the share of `input_share` from which the verdict is "input-bound".
        stages: stages of the pipeline from the model back to the source, with the time each took itself for a batch, in
            milliseconds. They work beside the model, so the sum may be longer than a step.

    Example:
        >>> waiting = InputWaiting(20, 20.0, 8.6, 0.1, (("Prefetch", 0.0), ("Map", 18.5), ("BatchV2", 0.1)))
        >>> print(waiting)
        input-bound 43 %: of 20 ms for a batch, 8.6 ms waiting for input and 11.4 ms computing. Slowest stage: Map, \
18.5 ms.
        - parallel map: dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)
        - cache(): keep what is the same in every epoch, if it fits into memory
    """

    batches: int
    step_ms: float
    input_wait_ms: float
    threshold: float
    stages: tuple[tuple[str, float], ...]

    @property
    def compute_ms(self) -> float:
        """The rest of a step: computing, and what callbacks and the loop of `fit` take."""
        return self.step_ms - self.input_wait_ms

    @property
    def input_share(self) -> float:
        """The part of a step that is input wait, in [0, 1]."""
        return self.input_wait_ms / self.step_ms

    @property
    def is_input_bound(self) -> bool:
        """Whether the input wait is worth a change."""
        return self.input_share >= self.threshold

    @property
    def verdict(self) -> str:
        """Such as "input-bound 43 %"."""
        if self.is_input_bound:
            return f"input-bound {100 * self.input_share:.0f} %"
        return f"compute-bound {100 * (1 - self.input_share):.0f} %"

    @property
    def slowest_stage(self) -> tuple[str, float] | None:
        """Name and milliseconds for a batch; None where no stage was seen at work."""
        slowest = max(self.stages, key=lambda stage: stage[1], default=None)
        return slowest if slowest and slowest[1] > 0 else None

    @property
    def fixes(self) -> tuple[str, ...]:
        """What to change in the pipeline, the most promising first; nothing where the model is what takes the time."""
        if not self.is_input_bound:
            return ()
        names = [name for name, _ in self.stages]
        slowest = self.slowest_stage
        fixes = [fix for pattern, fix in _FIXES if slowest and re.search(pattern, slowest[0])][:1]
        if "Prefetch" not in names[:1]:
            fixes.append("prefetch: end the pipeline with dataset.prefetch(tf.data.AUTOTUNE)")
        if not any("Cache" in name for name in names):
            fixes.append("cache(): keep what is the same in every epoch, if it fits into memory")
        return tuple(fixes)

    def __str__(self) -> str:
        slowest = self.slowest_stage
        words = (
            f"{self.verdict}: of {self.step_ms:.3g} ms for a batch, {self.input_wait_ms:.3g} ms waiting for input and "
            f"{self.compute_ms:.3g} ms computing."
        )
        if self.is_input_bound and slowest:
            words += f" Slowest stage: {slowest[0]}, {slowest[1]:.3g} ms."
        return "\n- ".join([words, *self.fixes])


def is_of_input(name: str) -> bool:
    """Whether `read_input_waiting` needs events of this name."""
    return name.startswith(_STAGE) or name == _STEP or _is_request(name)


def read_input_waiting(
    events: Sequence[Event], *, batches: int, milliseconds: float, threshold: float
) -> InputWaiting | None:
    """What the events of some batches say; None if no step asked a tf.data pipeline for input.

    A step waits while it asks for its next batch and none of its own operations runs. With `steps_per_execution` the
    batches of an execution are asked for beside the computation of those before, which is then no waiting.
    """
    requests = [event for event in events if _is_request(event.name)]
    if not requests:
        return None
    runs = {_run(event) for event in requests}
    asking = [(event.begin_ms, event.end_ms) for event in requests]
    computing = [(event.begin_ms, event.end_ms) for event in events if event.name == _STEP and _run(event) in runs]
    waiting_ms = total_ms([*asking, *computing]) - total_ms(computing)
    return InputWaiting(
        batches=batches,
        step_ms=milliseconds / batches,
        input_wait_ms=min(waiting_ms, milliseconds) / batches,
        threshold=threshold,
        stages=tuple((name, took / batches) for name, took in _stages(events)),
    )


def _is_request(name: str) -> bool:
    return "IteratorGetNext" in name and name.endswith("::DoCompute")


def _run(event: Event) -> str | None:
    return dict(event.details).get("id")


def _stages(events: Iterable[Event]) -> list[tuple[str, float]]:
    """Stages and their own milliseconds: what each took, less what the stages that feed it took."""
    totals: dict[str, float] = {}
    for event in events:
        if event.name.startswith(_STAGE):
            path = event.name.removeprefix(_STAGE)
            totals[path] = totals.get(path, 0.0) + event.duration_ms
    own = dict(totals)
    for path, took in totals.items():
        feeds = re.sub(r"\[\d+\]$", "", path.rpartition("::")[0])
        if feeds in own:
            own[feeds] -= took
    named = [(path.split("::"), max(took, 0.0)) for path, took in own.items()]
    named.sort(key=lambda stage: len(stage[0]))
    return [(path[-1], 0.0 if path[-1] in _PASSING_ON else took) for path, took in named if path != ["Root"]]
