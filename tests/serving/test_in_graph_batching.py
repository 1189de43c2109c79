"""Batching within the graph: calls that meet share a batch, and each gets its own answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.errors import ConfigError
from tfopt.export.image_bytes import BYTES_SIGNATURE, ImageBytes
from tfopt.serving.batching import BatchingParameters
from tfopt.serving.folder import export_serving
from tfopt.serving.in_graph_batching import batched_call

CALLERS = 64
SMALL = BatchingParameters(max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2, max_enqueued_batches=2)


def in_graph(**values: object) -> BatchingParameters:
    defaults = {
        "max_batch_size": 16,
        "allowed_batch_sizes": (4, 16),
        "batch_timeout_micros": 20_000,
        "num_batch_threads": 2,
        "max_enqueued_batches": 100,
    }
    return BatchingParameters(**{**defaults, **values})  # type: ignore[arg-type]


def test_calls_that_meet_run_as_one() -> None:
    sizes: list[int] = []

    def double(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        tf.py_function(lambda size: sizes.append(int(size)), [tf.shape(tensors[0])[0]], [])
        return [2 * tensors[0]]

    spec = tf.TensorSpec((None, 1), tf.float32)
    batched = batched_call(double, [spec], in_graph())
    call = tf.function(lambda x: batched([x])[0], input_signature=[spec]).get_concrete_function()
    together = threading.Barrier(12)

    def ask(number: int) -> float:
        together.wait()
        return float(call(tf.constant([[number]], tf.float32))[0, 0])

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == [2 * number for number in range(12)]
    assert len(sizes) < 12
    assert set(sizes) <= {4, 16}  # padded to an allowed size


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[keras.Model, Any]]:
    """Two models of one name and version, and their SavedModels, loaded in one process."""
    found = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [keras.Input((8, 8, 3), name="image"), keras.layers.Flatten(), keras.layers.Dense(3, name="kind")]
        )
        folder = tmp_path_factory.mktemp("models")
        options = {"batching": SMALL, "in_graph_batching": in_graph(), "image_bytes": ImageBytes()}
        artifact = export_serving(model, folder, name="m", **options)  # type: ignore[arg-type]
        found.append((model, tf.saved_model.load(str(artifact.path))))
    return found


@pytest.mark.slow
def test_no_caller_gets_the_answer_of_another(models: list[tuple[keras.Model, Any]]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (CALLERS, 8, 8, 3)).astype(np.uint8)
    pixels = (images / 255).astype(np.float32)
    expected = [model.predict(pixels, verbose=0) for model, _ in models]
    together = threading.Barrier(CALLERS)

    def ask(number: int) -> float:
        signatures, wrong = models[number % 2][1].signatures, 0.0
        together.wait()
        for index in (number, (number + 7) % CALLERS, (number + 31) % CALLERS):
            if number % 4 < 2:
                answer = signatures["serving_default"](image=tf.constant(pixels[index : index + 1]))
            else:
                answer = signatures[BYTES_SIGNATURE](image_bytes=tf.io.encode_png(images[index])[tf.newaxis])
            wrong = max(wrong, float(np.abs(answer["kind"].numpy()[0] - expected[number % 2][index]).max()))
        return wrong

    with ThreadPoolExecutor(CALLERS) as pool:
        assert max(pool.map(ask, range(CALLERS))) < 1e-4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (in_graph(pad_variable_length_inputs=True), "pad_variable_length_inputs=True"),
        (in_graph(thread_pool_name="pool"), "thread_pool_name='pool'"),
        (in_graph(max_batch_size=2, allowed_batch_sizes=()), "max_batch_size=2"),
    ],
)
def test_what_a_graph_cannot_do_is_refused(tmp_path: Path, parameters: BatchingParameters, message: str) -> None:
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    with pytest.raises(ConfigError, match=message):
        export_serving(model, tmp_path / "models", name="m", batching=SMALL, in_graph_batching=parameters)
    assert not (tmp_path / "models").exists()
