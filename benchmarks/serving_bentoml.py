"""A SavedModel behind BentoML: `serving_bentoml.py SAVED_MODEL PORT MAX_BATCH_SIZE`.

Adaptive batching of a single service, as in docs.bentoml.com, "Adaptive batching": the window is BentoML's to find. Its
example's 1000 ms are raised, as it advises where requests are refused with 503. Answers are a bare list in JSON, as
BentoML writes an array.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType

SAVED_MODEL, MAX_BATCH_SIZE = "SERVED_MODEL", "SERVED_MAX_BATCH_SIZE"
"""Environment variables: BentoML imports this file in processes of its own."""


@bentoml.service(traffic={"timeout": 60})
class Model:
    def __init__(self) -> None:
        import tensorflow as tf

        self.loaded = tf.saved_model.load(os.environ[SAVED_MODEL])
        self.signature = self.loaded.signatures["serving_default"]

    @bentoml.api(
        route="/v1/models/m:predict",
        batchable=True,
        batch_dim=(0, 0),
        max_batch_size=int(os.environ.get(MAX_BATCH_SIZE, "32")),
        max_latency_ms=10_000,
    )
    def predict(self, instances: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self.signature(x=instances)["y"].numpy()


if __name__ == "__main__":
    os.environ[SAVED_MODEL], port, os.environ[MAX_BATCH_SIZE] = sys.argv[1:]
    options = ["--host", "127.0.0.1", "--port", port, "--working-dir", str(Path(__file__).parent)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "serving_bentoml:Model", *options])
