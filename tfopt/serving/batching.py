"""How TF Serving batches requests: its parameters, their rules, and the text file it reads them from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from tfopt.errors import ConfigError

__all__ = ["BatchingParameters"]

# From session_bundle_config.proto of TF Serving, which tensorflow-serving-api leaves out.
WRAPPED_FIELDS = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "thread_pool_name": (5, "StringValue"),
    "enable_large_batch_splitting": (8, "BoolValue"),
    "max_execution_batch_size": (9, "Int64Value"),
}
# What the server takes for a field that its file leaves out (shared_batch_scheduler.h).
SERVER_DEFAULTS = {"max_batch_size": 1000, "batch_timeout_micros": 0, "max_enqueued_batches": 10}


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
        num_batch_threads: batches that run at once; default: the CPU cores of the machine that exports.
            Give the server's where it is another machine.
        allowed_batch_sizes: sizes that a batch is padded to, increasing, the last one being max_batch_size.
            Fewer sizes pad more; () runs each batch at the size it has.

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

    References: github.com/tensorflow/serving, tensorflow_serving/batching/README.md (the batching guide) and
    session_bundle_config.proto (the rules).
    """

    max_batch_size: int = 32
    batch_timeout_micros: int = 1000
    max_enqueued_batches: int = field(default_factory=_cpu_count)
    num_batch_threads: int = field(default_factory=_cpu_count)
    allowed_batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_batch_sizes", tuple(self.allowed_batch_sizes))
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 1),
            ("num_batch_threads", 1),
        ):
            _check_integer(name, getattr(self, name), least)
        for size in self.allowed_batch_sizes:
            _check_integer("each of allowed_batch_sizes", size, 1)
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            powers = [1 << power for power in range(self.max_batch_size.bit_length())]
            usual = ", ".join(str(size) for size in sorted({*powers, self.max_batch_size}))
            raise ConfigError(
                f"BatchingParameters: allowed_batch_sizes must increase and end with max_batch_size="
                f"{self.max_batch_size}. Received: {sizes}. Give for example allowed_batch_sizes=({usual},)."
            )

    @property
    def warmup_batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes to warm a server up with: the allowed ones, or else the smallest and largest."""
        return self.allowed_batch_sizes or tuple(sorted({1, self.max_batch_size}))

    def to_text(self) -> str:
        """The content of batching_parameters.txt."""
        names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
        lines = [f"{name} {{ value: {getattr(self, name)} }}" for name in names]
        lines += [f"allowed_batch_sizes: {size}" for size in self.allowed_batch_sizes]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str) -> BatchingParameters:
        """Reads the content of a batching_parameters.txt.

        The spelling of every field is checked; the server's further fields (thread_pool_name,
        pad_variable_length_inputs, enable_large_batch_splitting, max_execution_batch_size) are not kept.

        Raises:
            ConfigError: if the text is no BatchingParameters (with line and column), or breaks a rule.

        Example:
            >>> BatchingParameters.from_text("max_batch_size { value: 8 } alowed_batch_sizes: 8")
            Traceback (most recent call last):
            ...
            tfopt.errors.ConfigError: batching_parameters.txt: 1:29 : Message type \
"tensorflow.serving.BatchingParameters" has no field named "alowed_batch_sizes".
        """
        try:
            message = text_format.Parse(text, _message_class()())
        except text_format.ParseError as error:
            raise ConfigError(f"batching_parameters.txt: {error}") from None
        defaults = {**SERVER_DEFAULTS, "num_batch_threads": _cpu_count()}
        values: dict[str, int] = {
            name: getattr(message, name).value if message.HasField(name) else default
            for name, default in defaults.items()
        }
        return cls(**values, allowed_batch_sizes=tuple(message.allowed_batch_sizes))


def _check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"BatchingParameters: {name} must be an integer of at least {least}. Received: {value!r}.")


def _message_class() -> Any:
    """Builds the message in a pool of its own, so that it cannot clash with a server's copy of the proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tfopt/batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, (number, wrapper) in WRAPPED_FIELDS.items():
        message.field.add(
            name=name,
            number=number,
            type=kinds.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
            label=kinds.LABEL_OPTIONAL,
        )
    message.field.add(name="allowed_batch_sizes", number=6, type=kinds.TYPE_INT64, label=kinds.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))
