"""TF Serving's text files: read by their proto, and what is wrong in one told by line and column."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from tfopt.errors import ConfigError

__all__ = ["batching_parameters", "monitoring_config", "parse_text"]

_KINDS = descriptor_pb2.FieldDescriptorProto
_NO_FIELD = re.compile(r'has no field named "(\w+)"')
_LINE_AND_COLUMN = re.compile(r"^(\d+):(\d+) : ")


def parse_text(text: str, message: Any, *, file: str) -> Any:
    """Reads a text proto into a message, as the server does, and returns the message.

    Args:
        text: the content of the file.
        message: an empty message of its type.
        file: what the error calls it.

    Raises:
        ConfigError: if the text does not fit, with file, line and column, and the field that was meant where one is
            spelled nearly so.

    Example:
        >>> parse_text("max_batch_size { value: 8 }", batching_parameters(), file="a.txt").max_batch_size.value
        8
        >>> parse_text("max_batch_sise { value: 8 }", batching_parameters(), file="a.txt")
        Traceback (most recent call last):
        ...
        tfopt.errors.ConfigError: a.txt:1:1: Message type "tensorflow.serving.BatchingParameters" has no field named \
"max_batch_sise". Did you mean max_batch_size?
    """
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        told = str(error)
        if unknown := _NO_FIELD.search(told):
            near = difflib.get_close_matches(unknown[1], _field_names(message.DESCRIPTOR, set()), n=1)
            told += f" Did you mean {near[0]}?" if near else ""
        elif isinstance(message, type(batching_parameters())):
            told += " Numbers are written as `max_batch_size { value: 8 }`, sizes as `allowed_batch_sizes: 8`."
        place_and_reason = _LINE_AND_COLUMN.sub(r"\1:\2: ", told)
        raise ConfigError(f"{file}:{place_and_reason}") from None


def batching_parameters() -> Any:
    """An empty BatchingParameters of session_bundle_config.proto, which tensorflow-serving-api leaves out."""
    return _message_class("BatchingParameters")()


def monitoring_config() -> Any:
    """An empty MonitoringConfig of monitoring_config.proto, which tensorflow-serving-api leaves out."""
    return _message_class("MonitoringConfig")()


def _field_names(descriptor: Any, seen: set[str]) -> list[str]:
    if descriptor.full_name in seen:
        return []
    seen.add(descriptor.full_name)
    nested = [_field_names(field.message_type, seen) for field in descriptor.fields if field.message_type]
    return [field.name for field in descriptor.fields] + [name for names in nested for name in names]


@cache
def _message_class(name: str) -> Any:
    """Built in a pool of its own, so that it cannot clash with a server's copy of the proto in the same process."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tfopt/serving_text_files.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    batching = file.message_type.add(name="BatchingParameters")
    for number, field, wrapper in (
        (1, "max_batch_size", "Int64Value"),
        (2, "batch_timeout_micros", "Int64Value"),
        (3, "max_enqueued_batches", "Int64Value"),
        (4, "num_batch_threads", "Int64Value"),
        (5, "thread_pool_name", "StringValue"),
        (8, "enable_large_batch_splitting", "BoolValue"),
        (9, "max_execution_batch_size", "Int64Value"),
    ):
        _add(batching, number, field, _KINDS.TYPE_MESSAGE, type_name=f".google.protobuf.{wrapper}")
    _add(batching, 6, "allowed_batch_sizes", _KINDS.TYPE_INT64, label=_KINDS.LABEL_REPEATED)
    _add(batching, 7, "pad_variable_length_inputs", _KINDS.TYPE_BOOL)
    prometheus = file.message_type.add(name="PrometheusConfig")
    _add(prometheus, 1, "enable", _KINDS.TYPE_BOOL)
    _add(prometheus, 2, "path", _KINDS.TYPE_STRING)
    monitoring = file.message_type.add(name="MonitoringConfig")
    _add(
        monitoring,
        1,
        "prometheus_config",
        _KINDS.TYPE_MESSAGE,
        type_name=".tensorflow.serving.PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


def _add(message: Any, number: int, name: str, kind: int, *, label: int = _KINDS.LABEL_OPTIONAL, **more: str) -> None:
    message.field.add(number=number, name=name, type=kind, label=label, **more)
