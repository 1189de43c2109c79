"""No answer reaches another's caller: 64 clients, two models, two signatures, versions that change, calls that end."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.prediction import Predictor

CLIENTS = 64
REQUESTS = 12
FACTORS = {("a", 1): 2.0, ("a", 2): 3.0, ("b", 1): 5.0}


@pytest.mark.slow
def test_every_answer_is_that_of_its_own_request(tmp_path: Path, write_affine: Callable[..., None]) -> None:
    for (name, version), factor in FACTORS.items():
        write_affine(tmp_path / ("b" if name == "b" else f"later{version}") / str(version), factor=factor)
    (tmp_path / "later1").rename(tmp_path / "a")
    batching = BatchingParameters(
        max_batch_size=16, allowed_batch_sizes=(4, 16), num_batch_threads=2, max_enqueued_batches=CLIENTS
    )
    sizes, versions, cancelled = [], [], []

    async def client(predictor: Predictor, number: int) -> None:
        random = np.random.default_rng(number)
        for request in range(REQUESTS):
            name, signature = random.choice(["a", "b"]), random.choice(["serving_default", "negated"])
            x = random.random((random.integers(1, 4), 3), np.float32)
            call = asyncio.create_task(predictor.predict(name, {"x": x}, signature=signature))
            if (number + request) % 16 == 0:  # its connection is killed
                await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
                cancelled.append(call.cancelled())
                continue
            prediction = await call
            sign = -1 if signature == "negated" else 1
            expected = np.float32(sign * FACTORS[name, prediction.model.version]) * x
            np.testing.assert_array_equal(prediction.outputs["y"], expected)
            versions.append((name, prediction.model.version))

    async def replace(store: ModelStore) -> None:
        while len(versions) < CLIENTS * REQUESTS // 4:
            await asyncio.sleep(0)
        (tmp_path / "later2" / "2").rename(tmp_path / "a" / "2")
        await store.refresh()

    async def scenario(executor: ThreadPoolExecutor) -> None:
        store = ModelStore(
            tmp_path,
            batching=batching,
            executor=executor,
            poll_seconds=0,
            on_batch=lambda name, record: sizes.append(record.requests),
        )
        (tmp_path / "models.config").write_text(
            "model_config_list {"
            + "".join(
                f'config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}' for name in "ab"
            )
            + "}"
        )
        await store.start()
        predictor = Predictor(store)
        await asyncio.gather(replace(store), *(client(predictor, number) for number in range(CLIENTS)))
        assert store.get("a").version.version == 2
        prediction = await predictor.predict("a", {"x": np.ones((1, 3), np.float32)})
        assert prediction.outputs["y"].tolist() == [[3, 3, 3]]
        await store.stop()

    with ThreadPoolExecutor(2) as executor:
        asyncio.run(scenario(executor))
    assert len(versions) + len(cancelled) == CLIENTS * REQUESTS  # none was lost
    assert all(cancelled)
    assert {("a", 1), ("b", 1)} <= set(versions)
    assert max(sizes) > 1  # they did share batches
