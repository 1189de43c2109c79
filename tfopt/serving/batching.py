"""How TF Serving batches requests: its parameters, their rules, and the text file it reads them from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import text_format, wrappers_pb2  # type: ignore[import-untyped]

from tfopt.errors import ConfigError
from tfopt.serving.proto_text import batching_parameters, parse_text

__all__ = ["BATCHING_FILE", "MODEL_BATCHING_FILE", "BatchingParameters", "usual_batch_sizes"]

BATCHING_FILE = "batching_parameters.txt"
"""In a serving folder: how the server batches."""
MODEL_BATCHING_FILE = "batching_params.pbtxt"
"""In a version folder: how it batches that version; the server looks for this name."""

# What the server takes for a field that its file leaves out (shared_batch_scheduler.h).
SERVER_DEFAULTS = {"max_batch_size": 1000, "batch_timeout_micros": 0, "max_enqueued_batches": 10}
THREAD_POOL = ("num_batch_threads", "thread_pool_name")
"""What all models of a server share."""


def usual_batch_sizes(largest: int) -> tuple[int, ...]:
    """Powers of two up to the largest batch, and that itself: what batches are usually padded to.

    Example:
        >>> usual_batch_sizes(12)
        (1, 2, 4, 8, 12)
    """
    return tuple(sorted({*(1 << power for power in range(largest.bit_length())), largest}))


def _cpu_count() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class BatchingParameters:
    """TF Serving's batching: requests wait a moment and run together, padded to an allowed size.

    Batching pays where one batch of n costs less than n batches of one: on accelerators nearly always, on a
    CPU for large dense layers, seldom for small models. Measure it against a server without
    `--enable_batching`. The defaults are the batching guide's starting point for online serving.

    Args:
        max_batch_size: samples in a batch, at most; a request with more is refused by the server.
        batch_timeout_micros: how long the first request of a batch waits for others, in microseconds.
        max_enqueued_batches: batches that may wait; a request beyond them is refused (UNAVAILABLE). The guide
            takes as many as threads, so that waiting stays short; more for bulk work.
        num_batch_threads: batches that run at once, of all models together; default: the CPU cores of the machine
            that exports. Give the server's where it is another machine.
        allowed_batch_sizes: sizes that a batch is padded to, increasing, the last one being the largest that runs:
            max_batch_size, or max_execution_batch_size where large batches are split. Fewer sizes pad more; ()
            runs each batch at the size it has.
        thread_pool_name: what the server's metrics call the threads; default: the server's own name for them.
        pad_variable_length_inputs: whether inputs of unknown length are padded with their first value to the longest
            of the batch; otherwise only requests of equal length are batched.
        enable_large_batch_splitting: whether a request may be split over several batches; max_batch_size then bounds
            the request.
        max_execution_batch_size: with splitting, samples of a batch that runs; default: max_batch_size.

    Raises:
        ConfigError: if a value breaks one of the server's rules.

    Example:
        >>> parameters = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2,
        ...                                 max_enqueued_batches=2)
        >>> print(parameters.to_text())
        max_batch_size { value: 4 }
        batch_timeout_micros { value: 1000 }
        max_enqueued_batches { value: 2 }
        num_batch_threads { value: 2 }
        allowed_batch_sizes: 1
        allowed_batch_sizes: 4
        <BLANKLINE>

    References: github.com/tensorflow/serving, tensorflow_serving/batching/README.md (the batching guide),
    session_bundle_config.proto and batching_session.cc (the rules).
    """

    max_batch_size: int = 32
    batch_timeout_micros: int = 1000
    max_enqueued_batches: int = field(default_factory=_cpu_count)
    num_batch_threads: int = field(default_factory=_cpu_count)
    allowed_batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    thread_pool_name: str | None = None
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_batch_sizes", tuple(self.allowed_batch_sizes))
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 1),
            ("num_batch_threads", 1),
        ):
            _check_integer(name, getattr(self, name), least)
        for name in ("pad_variable_length_inputs", "enable_large_batch_splitting"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"BatchingParameters: {name} must be True or False. Received: {getattr(self, name)!r}."
                )
        if self.thread_pool_name is not None and (
            not isinstance(self.thread_pool_name, str) or not self.thread_pool_name
        ):
            raise ConfigError(
                f"BatchingParameters: thread_pool_name must be a text, or None. Received: {self.thread_pool_name!r}."
            )
        self._check_splitting()
        self._check_allowed_sizes()

    def _check_splitting(self) -> None:
        largest = self.max_execution_batch_size
        if largest is None:
            return
        _check_integer("max_execution_batch_size", largest, 1)
        if not self.enable_large_batch_splitting:
            raise ConfigError(
                "BatchingParameters: max_execution_batch_size has no effect without large batch splitting. "
                f"Received: {largest}. Give enable_large_batch_splitting=True too, or leave it out."
            )
        if largest > self.max_batch_size:
            raise ConfigError(
                f"BatchingParameters: max_execution_batch_size must be at most max_batch_size={self.max_batch_size}. "
                f"Received: {largest}."
            )

    def _check_allowed_sizes(self) -> None:
        sizes, largest = self.allowed_batch_sizes, self.execution_batch_size
        for size in sizes:
            _check_integer("each of allowed_batch_sizes", size, 1)
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != largest):
            usual = ", ".join(map(str, usual_batch_sizes(largest)))
            last = "max_batch_size" if self.max_execution_batch_size is None else "max_execution_batch_size"
            raise ConfigError(
                f"BatchingParameters: allowed_batch_sizes must increase and end with {last}={largest}. "
                f"Received: {sizes}. Give for example allowed_batch_sizes=({usual},)."
            )

    @property
    def execution_batch_size(self) -> int:
        """Samples of the largest batch that runs."""
        return self.max_batch_size if self.max_execution_batch_size is None else self.max_execution_batch_size

    @property
    def warmup_batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes to warm a server up with: the allowed ones, or else the smallest and largest."""
        return self.allowed_batch_sizes or tuple(sorted({1, self.execution_batch_size}))

    def to_text(self, *, comments: Sequence[str] = (), thread_pool: bool = True) -> str:
        """The content of batching_parameters.txt, or of a version's batching_params.pbtxt.

        Args:
            comments: lines to put in front, such as what the values were measured on.
            thread_pool: whether the threads are told, which the server ignores in a version's file.
        """
        values: dict[str, Any] = {
            "max_batch_size": self.max_batch_size,
            "batch_timeout_micros": self.batch_timeout_micros,
            "max_enqueued_batches": self.max_enqueued_batches,
            "num_batch_threads": self.num_batch_threads,
            "thread_pool_name": self.thread_pool_name,
            "enable_large_batch_splitting": self.enable_large_batch_splitting or None,
            "max_execution_batch_size": self.max_execution_batch_size,
        }
        lines = [f"# {line}".rstrip() for comment in comments for line in comment.splitlines()]
        lines += [
            f"{name} {{ value: {_literal(value)} }}"
            for name, value in values.items()
            if value is not None and (thread_pool or name not in THREAD_POOL)
        ]
        lines += [f"allowed_batch_sizes: {size}" for size in self.allowed_batch_sizes]
        lines += ["pad_variable_length_inputs: true"] if self.pad_variable_length_inputs else []
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str, *, file: str = BATCHING_FILE) -> BatchingParameters:
        """Reads the content of a batching_parameters.txt or batching_params.pbtxt.

        What it leaves out is as the server takes it: max_batch_size 1000, batch_timeout_micros 0,
        max_enqueued_batches 10, num_batch_threads as many as CPU cores, any batch size.

        Args:
            text: the content.
            file: what an error calls it.

        Raises:
            ConfigError: if the text is no BatchingParameters (with line and column), or breaks a rule.

        Example:
            >>> BatchingParameters.from_text("max_batch_size { value: 8 } alowed_batch_sizes: 8")
            Traceback (most recent call last):
            ...
            tfopt.errors.ConfigError: batching_parameters.txt:1:29: Message type \
"tensorflow.serving.BatchingParameters" has no field named "alowed_batch_sizes". Did you mean allowed_batch_sizes?
        """
        message = parse_text(text, batching_parameters(), file=file)
        defaults = {
            **SERVER_DEFAULTS,
            "num_batch_threads": _cpu_count(),
            "thread_pool_name": None,
            "enable_large_batch_splitting": False,
            "max_execution_batch_size": None,
        }
        values: dict[str, Any] = {
            name: getattr(message, name).value if message.HasField(name) else default
            for name, default in defaults.items()
        }
        try:
            return cls(
                **values,
                allowed_batch_sizes=tuple(message.allowed_batch_sizes),
                pad_variable_length_inputs=message.pad_variable_length_inputs,
            )
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None


def _check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"BatchingParameters: {name} must be an integer of at least {least}. Received: {value!r}.")


def _literal(value: int | bool | str) -> str:
    if isinstance(value, str):
        quoted: str = text_format.MessageToString(wrappers_pb2.StringValue(value=value), as_one_line=True)
        return quoted.removeprefix("value: ").rstrip()
    return str(value).lower()
