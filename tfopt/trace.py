"""What TensorFlow's profiler records while a program runs, as plain events.

The profiler writes one xplane.pb, whose format TensorFlow ships as a protocol buffer: planes (a processor or device),
lines (a thread or stream), events.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tfopt.errors import ConfigError

__all__ = ["Event", "Recording", "total_ms", "union"]

_PICOSECONDS_PER_MS = 1e9


@dataclass(frozen=True)
class Event:
    """Something that took time.

    Args:
        plane: the processor or device, such as "/host:CPU".
        thread: a number for each thread or stream of the plane.
        name: as the profiler has it: "scope/name:Operation" for an operation of a graph.
        begin_ms: since the recording began.
        end_ms: likewise.
        details: what the profiler notes beside, such as the id of the run that an operation belongs to.
    """

    plane: str
    thread: int
    name: str
    begin_ms: float
    end_ms: float
    details: tuple[tuple[str, str], ...] = ()

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return self.end_ms - self.begin_ms


class Recording:
    """Records what TensorFlow executes from `start` to `stop`, without Python's own calls.

    There is one profiler in a process. A recording that was never stopped, since an exception ended what it was to
    record, is ended by `discard`.

    Example:
        >>> recording = Recording()
        >>> recording.start()
        >>> value = tf.matmul(tf.ones((8, 8)), tf.ones((8, 8)))
        >>> any("MatMul" in event.name for event in recording.stop())
        True
    """

    _running: Recording | None = None

    def start(self) -> None:
        """Begins.

        Raises:
            ConfigError: if something else is using the profiler.
        """
        self._folder = tempfile.TemporaryDirectory()
        options = tf.profiler.experimental.ProfilerOptions(python_tracer_level=0)
        try:
            tf.profiler.experimental.start(self._folder.name, options)
        except tf.errors.AlreadyExistsError:
            self._folder.cleanup()
            raise ConfigError(
                "TensorFlow's profiler is running already, and there is one in a process. Received: a second use of "
                "it, as by a TensorBoard callback with profile_batch. Use one after the other."
            ) from None
        Recording._running = self

    def stop(self, keep: Callable[[str], bool] = lambda name: True) -> list[Event]:
        """Ends, and returns the events whose names are to be kept, by their beginning."""
        Recording._running = None
        try:
            tf.profiler.experimental.stop()
            files = sorted(Path(self._folder.name).rglob("*.xplane.pb"))
            return sorted((event for file in files for event in _read(file, keep)), key=lambda event: event.begin_ms)
        finally:
            self._folder.cleanup()

    @classmethod
    def discard(cls) -> None:
        """Ends a recording that was never stopped, if there is one; for the beginning of something new."""
        if cls._running is not None:
            cls._running.stop(keep=lambda name: False)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor discarded."""
        return Recording._running is self


def union(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same stretches of time without overlaps, in order.

    Example:
        >>> union([(3.0, 4.0), (0.0, 2.0), (1.0, 2.5)])
        [(0.0, 2.5), (3.0, 4.0)]
    """
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def total_ms(intervals: Iterable[tuple[float, float]]) -> float:
    """How long they are together, where they overlap counted once.

    Example:
        >>> total_ms([(0.0, 2.0), (1.0, 3.0)])
        3.0
    """
    return sum(end - begin for begin, end in union(intervals))


def _read(file: Path, keep: Callable[[str], bool]) -> Iterable[Event]:
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    lines = [line for plane in space.planes for line in plane.lines if line.events]
    origin_ns = min((line.timestamp_ns for line in lines), default=0)
    for plane in space.planes:
        names = {key: metadata.name for key, metadata in plane.event_metadata.items() if keep(metadata.name)}
        keys = {key: metadata.name for key, metadata in plane.stat_metadata.items()}
        for thread, line in enumerate(plane.lines):
            begin_of_line_ms = (line.timestamp_ns - origin_ns) / 1e6
            for event in line.events:
                if event.metadata_id not in names:
                    continue
                begin_ms = begin_of_line_ms + event.offset_ps / _PICOSECONDS_PER_MS
                yield Event(
                    plane=plane.name,
                    thread=thread,
                    name=names[event.metadata_id],
                    begin_ms=begin_ms,
                    end_ms=begin_ms + event.duration_ps / _PICOSECONDS_PER_MS,
                    details=tuple((keys[stat.metadata_id], _text(stat, keys)) for stat in event.stats),
                )


def _text(stat: Any, keys: dict[int, str]) -> str:
    value = getattr(stat, stat.WhichOneof("value"))
    return keys.get(value, "") if stat.HasField("ref_value") else str(value)
