"""One framework's part of the accuracies in benchmarks/compression.py: prune and fine-tune trained networks.

    python benchmarks/compression_worker.py tfopt|tfmot TASK

TASK is JSON: {"do": "train" | "prune", ...}. The answer is the last line of the output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from small_networks import NETWORKS
from worker_files import check_equal, load_data, read_weights, write_weights

Task = dict[str, Any]


def build(keras: Any, task: Task, data: dict[str, np.ndarray]) -> Any:
    keras.utils.set_random_seed(task["seed"])
    return NETWORKS[task["network"]](keras, data["x_train"].shape[1:], int(data["y_train"].max()) + 1)


def steps_of(task: Task, data: dict[str, np.ndarray]) -> int:
    return task["epochs"] * (len(data["x_train"]) // task["batch_size"])


def fit(keras: Any, model: Any, data: dict[str, np.ndarray], task: Task, callbacks: list[Any]) -> float:
    """One `fit` with Adam and a cosine to 0; the order of the samples depends on the seed only. Returns seconds."""
    import tensorflow as tf

    rate = keras.optimizers.schedules.CosineDecay(task["learning_rate"], steps_of(task, data))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    generator, count, batch_size = np.random.default_rng(task["seed"]), len(data["x_train"]), task["batch_size"]
    whole = count // batch_size * batch_size
    order = np.concatenate([generator.permutation(count)[:whole] for _ in range(task["epochs"])])
    x, y = data["x_train"], data["y_train"]
    batches = (
        tf.data.Dataset.from_tensor_slices(order.reshape(-1, batch_size))
        .map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows)))
        .prefetch(2)
    )
    started = time.perf_counter()
    model.fit(batches, epochs=1, verbose=0, callbacks=callbacks)
    return time.perf_counter() - started


def predict(model: Any, data: dict[str, np.ndarray]) -> np.ndarray:
    return model.predict(data["x_test"], batch_size=500, verbose=0)


def accuracy(model: Any, data: dict[str, np.ndarray]) -> float:
    return float(np.mean(predict(model, data).argmax(axis=-1) == data["y_test"]))


def train(task: Task) -> Task:
    """Trains the dense network."""
    import keras

    data, out = load_data(task["data"]), Path(task["out"])
    model = build(keras, task, data)
    fit(keras, model, data, task, [])
    write_weights(model, out / "dense.npz")
    np.save(out / "dense.npy", predict(model, data))
    return {"accuracy": accuracy(model, data)}


def prune(framework: str, task: Task) -> Task:
    """Prunes the dense network in each way of `task["ways"]`, always from the same weights with the same batches."""
    if framework == "tfmot":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras
    else:
        import keras

        from tfopt.callbacks import MagnitudePruning
    data, out = load_data(task["data"]), Path(task["out"])
    ramp_steps = round(task["ramp"] * steps_of(task, data))
    rows = []
    for way in task["ways"]:
        model = build(keras, task, data)
        read_weights(model, out / "dense.npz")
        check_equal(predict(model, data), np.load(out / "dense.npy"), f"the dense model of {framework}")
        if framework == "tfmot":
            sparsity = tfmot.sparsity.keras
            schedule = sparsity.PolynomialDecay(0.0, way["sparsity"], 0, ramp_steps, frequency=task["frequency"])
            pruned = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
            seconds = fit(keras, pruned, data, task, [sparsity.UpdatePruningStep()])
            model = sparsity.strip_pruning(pruned)
        else:
            callback = MagnitudePruning(
                way["sparsity"], end_step=ramp_steps, frequency=task["frequency"], allocation=way["allocation"]
            )
            seconds = fit(keras, model, data, task, [callback])
        kernels = [
            kernel
            for layer in model.layers
            if type(layer).__name__ in {"Conv2D", "Dense"}  # what both prune; depthwise kernels stay
            for kernel in layer.get_weights()[:1]
        ]
        zeros = 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)
        rows.append({**way, "accuracy": accuracy(model, data), "measured_sparsity": zeros, "train_seconds": seconds})
    return {"rows": rows}


def main() -> None:
    framework, task = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(train(task) if task["do"] == "train" else prune(framework, task)))


if __name__ == "__main__":
    main()
