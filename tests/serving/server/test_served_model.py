"""ServedModel: a batcher for each signature, and versions that are needed stay."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.batcher import BatchRecord
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.served_model import ServedModel


def loaded(**functions: Callable) -> LoadedVersion:
    """A version whose signatures take `x`, one float a sample, and give `y`; "total" gives one for all samples."""
    metadata = SignatureDefMap()
    for name in functions:
        for tensors, key in ((metadata.signature_def[name].inputs, "x"), (metadata.signature_def[name].outputs, "y")):
            tensors[key].dtype = tf.float32.as_datatype_enum
            if (name, key) != ("total", "y"):
                tensors[key].tensor_shape.dim.add(size=-1)
    return LoadedVersion("m", 1, Path(), metadata=metadata, functions=functions)


def test_signatures_never_share_a_batch_and_those_without_a_batch_axis_run_alone() -> None:
    version = loaded(
        double=lambda x: {"y": 2 * x}, negated=lambda x: {"y": -x}, total=lambda x: {"y": tf.reduce_sum(x)}
    )
    records: list[BatchRecord] = []

    async def scenario(executor: ThreadPoolExecutor) -> list[dict[str, np.ndarray]]:
        served = ServedModel(version, batching=BatchingParameters(), executor=executor, on_batch=records.append)
        assert served.version is version
        calls = [
            served.batcher(signature).submit({"x": np.float32([value, value])})
            for value in (1, 2)
            for signature in ("double", "negated", "total")
        ]
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(2) as executor:
        answers = asyncio.run(scenario(executor))
    assert [answer["y"].tolist() for answer in answers] == [[2, 2], [-1, -1], 2, [4, 4], [-2, -2], 4]
    assert sorted(record.requests for record in records) == [1, 1, 2, 2]


def test_it_is_drained_when_nobody_holds_it() -> None:
    async def scenario(executor: ThreadPoolExecutor) -> None:
        served = ServedModel(loaded(double=lambda x: {"y": 2 * x}), batching=None, executor=executor)
        with served.held(), served.held():
            drained = asyncio.create_task(served.drain())
            await asyncio.sleep(0)
            answer = await served.batcher("double").submit({"x": np.float32([1])})
            assert answer["y"].tolist() == [2]
            assert not drained.done()
        await drained

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(executor))
