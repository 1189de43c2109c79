"""A SavedModel behind LitServe: `serving_litserve.py SAVED_MODEL PORT MAX_BATCH_SIZE`.

Time-out of a batch and queue are those of LitServe's own benchmark (tests/perf_test/bert/server.py); batches are made
by its own `batch` and `unbatch`, which its documentation recommends for arrays. An answer is made a response here:
FastAPI would look at every number of it first, which took a third of the throughput. Each request has one instance.
"""

from __future__ import annotations

import json
import sys

import litserve
import numpy as np
from starlette.responses import Response

BATCH_TIMEOUT_SECONDS = 0.01


class Model(litserve.LitAPI):
    def __init__(self, saved_model: str, max_batch_size: int) -> None:
        path = "/v1/models/m:predict"
        super().__init__(max_batch_size=max_batch_size, batch_timeout=BATCH_TIMEOUT_SECONDS, api_path=path)
        self.saved_model = saved_model

    def setup(self, device):
        import tensorflow as tf

        self.loaded = tf.saved_model.load(self.saved_model)
        self.signature = self.loaded.signatures["serving_default"]

    def decode_request(self, request):
        return np.asarray(request["instances"][0], np.float32)

    def predict(self, x):
        return self.signature(x=x)["y"].numpy()

    def encode_response(self, output):
        return Response(json.dumps({"predictions": [output.tolist()]}), media_type="application/json")


if __name__ == "__main__":
    saved_model, port, max_batch_size = sys.argv[1:]
    server = litserve.LitServer(Model(saved_model, int(max_batch_size)), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)
