"""One framework's part of accuracies and equality in benchmarks/compression.py: prune and fine-tune trained networks.

    python benchmarks/compression_worker.py tfopt|tfmot TASK

TASK is JSON: {"do": "train" | "prune" | "equal", ...}. The answer is the last line of the output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from small_networks import NETWORKS
from worker_files import check_equal, load_data, read_weights, write_weights

Task = dict[str, Any]


def build(keras: Any, task: Task, data: dict[str, np.ndarray]) -> Any:
    keras.utils.set_random_seed(task["seed"])
    model = NETWORKS[task["network"]](keras, data["x_train"].shape[1:], int(data["y_train"].max()) + 1)
    return model if keras.__version__.startswith("3") else keras.models.clone_model(model, clone_function=unfused)


def unfused(layer: Any) -> Any:
    """tf_keras's layer; its batch norms without the fused kernel, which rounds otherwise than Keras 3's operations."""
    config = layer.get_config()
    return type(layer).from_config({**config, "fused": False} if "moving_mean_initializer" in config else config)


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


def train(framework: str, task: Task) -> Task:
    """Trains the dense network."""
    keras = keras_of(framework)
    data, out = load_data(task["data"]), Path(task["out"])
    model = build(keras, task, data)
    fit(keras, model, data, task, [])
    write_weights(model, out / "dense.npz")
    np.save(out / "dense.npy", predict(model, data))
    return {"accuracy": accuracy(model, data)}


def keras_of(framework: str) -> Any:
    """The Keras that a framework works on."""
    if framework == "tfmot":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tf_keras as keras
    else:
        import keras
    return keras


@dataclass
class TfmotSchedule:
    """tfmot's PolynomialDecay from 0 at step 0, for an environment without tfmot; `MagnitudePruning` takes both."""

    final_sparsity: float
    end_step: int
    frequency: int
    begin_step: int = 0

    def __call__(self, step: int) -> tuple[bool, np.float32]:
        done = np.float32(min(step / self.end_step, 1.0))
        return True, np.float32(self.final_sparsity - self.final_sparsity * (1 - done) ** 3)


def prune_and_train(
    keras: Any, framework: str, model: Any, way: Task, data: dict[str, np.ndarray], task: Task
) -> tuple[Any, float]:
    """One way of pruning in one `fit`; returns the pruned model and seconds."""
    end_step, frequency = round(task["ramp"] * steps_of(task, data)), task["frequency"]
    if framework == "tfopt":
        from tfopt.callbacks import MagnitudePruning

        schedule = TfmotSchedule(way["sparsity"], end_step, frequency)
        return model, fit(keras, model, data, task, [MagnitudePruning(schedule=schedule, allocation=way["allocation"])])
    from tensorflow_model_optimization.sparsity import keras as sparsity

    decay = sparsity.PolynomialDecay(0.0, way["sparsity"], 0, end_step, frequency=frequency)
    pruned = sparsity.prune_low_magnitude(model, pruning_schedule=decay)
    seconds = fit(keras, pruned, data, task, [sparsity.UpdatePruningStep()])
    return sparsity.strip_pruning(pruned), seconds


def equal(framework: str, task: Task) -> Task:
    """Prunes from the same initial weights; writes the weights."""
    keras = keras_of(framework)
    data = {name: array[: task["samples"]] for name, array in load_data(task["data"]).items()}
    model, out = build(keras, task, data), Path(task["out"])
    if framework == "tfopt":
        write_weights(model, out / "initial.npz")
    read_weights(model, out / "initial.npz")
    model, _ = prune_and_train(keras, framework, model, task["way"], data, task)
    trained = [weight.numpy() for weight in model.trainable_weights]
    np.savez(out / f"{framework}.npz", *trained)
    return {"steps": steps_of(task, data), "weights": sum(weight.size for weight in trained)}


def prune(framework: str, task: Task) -> Task:
    """Prunes the dense network in each way of `task["ways"]`, always from the same weights with the same batches."""
    keras = keras_of(framework)
    data, out = load_data(task["data"]), Path(task["out"])
    rows = []
    for way in task["ways"]:
        model = build(keras, task, data)
        read_weights(model, out / "dense.npz")
        check_equal(predict(model, data), np.load(out / "dense.npy"), f"the dense model of {framework}")
        model, seconds = prune_and_train(keras, framework, model, way, data, task)
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
    print(json.dumps({"train": train, "prune": prune, "equal": equal}[task["do"]](framework, task)))


if __name__ == "__main__":
    main()
