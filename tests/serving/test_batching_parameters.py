"""BatchingParameters: TF Serving's rules, and the text that its parser reads."""

import os

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from tfopt.errors import ConfigError
from tfopt.serving.batching import BatchingParameters


def server_message():
    """The message as session_bundle_config.proto declares it, written down independently."""
    file = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(
        """
        name: "session_bundle_config.proto" package: "test.serving" syntax: "proto3"
        dependency: "google/protobuf/wrappers.proto"
        message_type { name: "BatchingParameters"
          field { name: "max_batch_size" number: 1 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.Int64Value" }
          field { name: "batch_timeout_micros" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.Int64Value" }
          field { name: "max_enqueued_batches" number: 3 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.Int64Value" }
          field { name: "num_batch_threads" number: 4 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.Int64Value" }
          field { name: "thread_pool_name" number: 5 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.StringValue" }
          field { name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }
          field { name: "pad_variable_length_inputs" number: 7 type: TYPE_BOOL label: LABEL_OPTIONAL }
          field { name: "enable_large_batch_splitting" number: 8 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.BoolValue" }
          field { name: "max_execution_batch_size" number: 9 type: TYPE_MESSAGE label: LABEL_OPTIONAL
                  type_name: ".google.protobuf.Int64Value" }
        }
        """,
        file,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.serving.BatchingParameters"))()


def test_the_text_is_what_the_server_parses() -> None:
    message = text_format.Parse(BatchingParameters().to_text(), server_message())
    assert message.max_batch_size.value == 32
    assert message.batch_timeout_micros.value == 1000
    assert message.max_enqueued_batches.value == os.cpu_count()
    assert message.num_batch_threads.value == os.cpu_count()
    assert list(message.allowed_batch_sizes) == [1, 2, 4, 8, 16, 32]


def test_all_nine_fields_are_what_the_server_parses() -> None:
    parameters = BatchingParameters(
        max_batch_size=64,
        allowed_batch_sizes=(1, 16),
        thread_pool_name='the "pool"\n',
        pad_variable_length_inputs=True,
        enable_large_batch_splitting=True,
        max_execution_batch_size=16,
    )
    message = text_format.Parse(parameters.to_text(comments=["measured\non this", ""]), server_message())
    assert message.thread_pool_name.value == 'the "pool"\n'
    assert message.pad_variable_length_inputs
    assert message.enable_large_batch_splitting.value
    assert message.max_execution_batch_size.value == 16
    assert parameters.execution_batch_size == 16
    assert BatchingParameters.from_text(parameters.to_text()) == parameters
    assert parameters.to_text(comments=["measured\non this"]).startswith("# measured\n# on this\nmax_batch_size")


def test_the_file_of_a_version_leaves_out_the_threads_that_all_models_share() -> None:
    text = BatchingParameters(thread_pool_name="pool").to_text(thread_pool=False)
    assert "num_batch_threads" not in text
    assert "thread_pool_name" not in text
    assert BatchingParameters.from_text(text, file="batching_params.pbtxt") == BatchingParameters()


@given(
    sizes=st.sets(st.integers(1, 512), min_size=1, max_size=12).map(sorted),
    timeout=st.integers(0, 10**7),
    queue=st.integers(1, 10**4),
    threads=st.integers(1, 128),
    pool=st.none() | st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    pad=st.booleans(),
    limit=st.none() | st.integers(0, 1000),
)
def test_the_text_reads_back(
    sizes: list[int], timeout: int, queue: int, threads: int, pool: str | None, pad: bool, limit: int | None
) -> None:
    parameters = BatchingParameters(
        max_batch_size=sizes[-1] + (limit or 0),
        thread_pool_name=pool,
        pad_variable_length_inputs=pad,
        enable_large_batch_splitting=limit is not None,
        max_execution_batch_size=None if limit is None else sizes[-1],
        batch_timeout_micros=timeout,
        max_enqueued_batches=queue,
        num_batch_threads=threads,
        allowed_batch_sizes=tuple(sizes),
    )
    assert BatchingParameters.from_text(parameters.to_text()) == parameters
    assert parameters.warmup_batch_sizes == tuple(sizes)


def test_a_field_that_is_left_out_has_the_servers_default() -> None:
    parameters = BatchingParameters.from_text("# measured\nthread_pool_name { value: 'pool' }\n")
    assert (parameters.max_batch_size, parameters.batch_timeout_micros) == (1000, 0)
    assert parameters.max_enqueued_batches == 10
    assert parameters.allowed_batch_sizes == ()
    assert parameters.warmup_batch_sizes == (1, 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch_size": 0}, r"max_batch_size must be an integer of at least 1\. Received: 0"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros must be an integer of at least 0"),
        ({"max_enqueued_batches": 0}, "max_enqueued_batches must be an integer of at least 1"),
        ({"num_batch_threads": 2.5}, r"num_batch_threads .* Received: 2\.5"),
        ({"num_batch_threads": True}, "num_batch_threads .* Received: True"),
        ({"allowed_batch_sizes": (0, 32)}, "each of allowed_batch_sizes must be an integer of at least 1"),
        ({"allowed_batch_sizes": (8, 4, 32)}, r"must increase .* Received: \(8, 4, 32\)"),
        ({"allowed_batch_sizes": (1, 1, 32)}, "must increase"),
        ({"thread_pool_name": ""}, r"thread_pool_name must be a text, or None\. Received: ''"),
        ({"pad_variable_length_inputs": 1}, r"must be True or False\. Received: 1"),
        ({"max_execution_batch_size": 8}, "no effect without large batch splitting"),
        (
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 64},
            r"at most max_batch_size=32\. Received: 64",
        ),
        (
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 8},
            r"end with max_execution_batch_size=8\. Received: \(1, 2, 4, 8, 16, 32\)\. .*=\(1, 2, 4, 8,\)",
        ),
        ({"max_batch_size": 6}, r"end with max_batch_size=6\. .* allowed_batch_sizes=\(1, 2, 4, 6,\)"),
    ],
)
def test_the_servers_rules_hold(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchingParameters(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size { value: 8 }\nmax_batchsize { value: 8 }",
            "^batching_parameters.txt:2:1: .*no field named .max_batchsize",
        ),
        ("max_batch_size: 8", r"^batching_parameters.txt:1:\d+: "),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "^batching_parameters.txt: .*end with max_batch_size=8"),
    ],
)
def test_a_wrong_text_is_reported_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchingParameters.from_text(text)
