"""A SavedModel behind Ray Serve: `serving_ray.py SAVED_MODEL PORT MAX_BATCH_SIZE`.

`serve.batch` waits its default of 10 ms; the model runs beside the event loop and more requests may be in flight than
two batches hold, as docs.ray.io has it, "Dynamic Request Batching" and "Performance Tuning". Each request has one
instance.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

MAX_BATCH_SIZE = int(sys.argv[3]) if len(sys.argv) == 4 else 32
CORES = len(os.sched_getaffinity(0))


@serve.deployment(max_ongoing_requests=4 * MAX_BATCH_SIZE, ray_actor_options={"num_cpus": CORES})
class Model:
    def __init__(self, saved_model: str) -> None:
        import tensorflow as tf

        self.loaded = tf.saved_model.load(saved_model)
        self.signature = self.loaded.signatures["serving_default"]

    def run(self, x: np.ndarray) -> np.ndarray:
        return self.signature(x=x)["y"].numpy()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE)
    async def batch(self, samples: list[np.ndarray]) -> list[np.ndarray]:
        return list(await asyncio.to_thread(self.run, np.stack(samples)))

    async def __call__(self, request: Request) -> dict[str, list[list[float]]]:
        sample = np.asarray((await request.json())["instances"][0], np.float32)
        return {"predictions": [(await self.batch(sample)).tolist()]}


if __name__ == "__main__":
    try:
        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=os.getcwd())
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
        serve.run(Model.bind(sys.argv[1]), route_prefix="/")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()
