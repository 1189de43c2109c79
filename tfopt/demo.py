"""`tfopt demo`: the whole way on a small data set, with the public API as a user would call it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.console import Console

import tfopt
from tfopt.artifact import Artifact, write_whole
from tfopt.benchmark.report import Report
from tfopt.callbacks import EarlyStopping, LearningRate, MagnitudePruning
from tfopt.data import ArrayDataset, load_npz
from tfopt.errors import DataError
from tfopt.schedules import constant, cosine, warmup
from tfopt.serving.folder import next_version

__all__ = ["DemoResult", "load_data", "run_demo"]

BATCH_SIZE = 64
EPOCHS = 24
LARGE_DATA_EPOCHS = 6
SPARSITY = 0.5


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote.

    Args:
        report: every stage beside the float model.
        model_path: the trained float model, to try `tfopt optimize` on.
        tflite: the int8 file of the last stage.
        serving: the TF Serving folder's artifact.
        report_page: where report.html is.
    """

    report: Report
    model_path: Path
    tflite: Artifact
    serving: Artifact
    report_page: Path


def load_data(name: str) -> ArrayDataset:
    """Loads "digits" (scikit-learn's, nothing is downloaded), "fashion_mnist" (Keras downloads it) or an NPZ file.

    Raises:
        DataError: if the name is unknown, the file is unusable, or the download fails.

    Example:
        >>> load_data("digits").x_train.shape
        (1347, 8, 8, 1)
    """
    if name == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        x = (digits.images / 16).astype(np.float32)[..., np.newaxis]
        split = train_test_split(x, digits.target, test_size=450, random_state=0, stratify=digits.target)
        x_train, x_test, y_train, y_test = split
        return ArrayDataset(x_train, y_train, x_test, y_test)
    if name == "fashion_mnist":
        try:
            (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
        except Exception as error:  # urllib's and Keras's errors of a machine without network
            raise DataError(
                f"Keras could not download fashion_mnist ({error}). Give a file instead: --data FILE.npz with the "
                "arrays x_train, y_train, x_test, y_test."
            ) from error
        x_train, x_test = (x[..., np.newaxis].astype(np.float32) / 255 for x in (x_train, x_test))
        return ArrayDataset(x_train, y_train, x_test, y_test)
    if not name.endswith(".npz"):
        raise DataError(f"--data must be digits, fashion_mnist or a FILE.npz. Received: {name}.")
    data = load_npz(name)
    if data.x_train.ndim == 3:
        x_train, x_test = (x[..., np.newaxis] for x in (data.x_train, data.x_test))
        data = ArrayDataset(x_train, data.y_train, x_test, data.y_test)
    if data.x_train.ndim != 4 or not np.issubdtype(data.y_train.dtype, np.integer):
        raise DataError(
            "The demo trains an image classifier: x_train must have shape (n, height, width, channels) and y_train "
            f"class numbers. Received: {data.x_train.shape} and {data.y_train.dtype}. "
            "For a model of your own use: tfopt optimize MODEL.keras --data FILE.npz"
        )
    return data


def small_cnn(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A convolutional network of about the size that microcontrollers run."""
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(classes, activation="softmax", name="scores"),
        ],
        name="small_cnn",
    )


def run_demo(data: ArrayDataset, out: Path, console: Console, *, title: str) -> DemoResult:
    """Trains, prunes, quantizes, exports, serves and measures a small model.

    Args:
        data: images of shape `(n, height, width, channels)` and class numbers.
        out: the folder that everything is written to.
        console: where progress is told.
        title: of the report.
    """
    keras.utils.set_random_seed(0)
    classes = int(max(data.y_train.max(), data.y_test.max())) + 1
    epochs = EPOCHS if len(data.x_train) < 10_000 else LARGE_DATA_EPOCHS
    steps = -(-len(data.x_train) // BATCH_SIZE)

    def fit(model: keras.Model, stage: str, epochs: int, callbacks: list[keras.callbacks.Callback]) -> None:
        console.print(f"[bold]{stage}[/bold]")
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            data.x_train,
            data.y_train,
            validation_data=(data.x_test, data.y_test),
            batch_size=BATCH_SIZE,
            epochs=epochs,
            callbacks=callbacks,
            verbose=2 if not console.is_terminal else 1,
        )

    model = small_cnn(data.x_train.shape[1:], classes)
    fit(
        model,
        f"1/5  Training a small CNN ({model.count_params():,} parameters)",
        epochs,
        [
            LearningRate(warmup(cosine(2e-3, steps=epochs * steps), steps=steps)),
            EarlyStopping("val_accuracy", patience=epochs // 3, min_epochs=3, restore_best_weights=True),
        ],
    )
    with write_whole(out / "model.keras") as temporary:
        # Keras takes the format from the suffix, which a temporary name does not have.
        model.save(temporary.with_suffix(".keras"))
        temporary.with_suffix(".keras").rename(temporary)
    baseline = tfopt.export_tflite(model, out / "tflite" / "float32.tflite", "none", calibration=data.x_train)

    pruning_epochs = max(2, epochs // 3)
    prune = MagnitudePruning(SPARSITY, end_step=(pruning_epochs - 1) * steps, frequency=max(1, steps // 4))
    fit(
        model,
        f"2/5  Pruning to {SPARSITY:.0%} zeros",
        pruning_epochs,
        [prune, LearningRate(cosine(5e-4, steps=pruning_epochs * steps))],
    )

    console.print("[bold]3/5  Post-training int8[/bold]")
    post_training = tfopt.export_tflite(model, out / "tflite" / "int8_post_training.tflite", calibration=data.x_train)

    aware = tfopt.quantize_aware(model, calibration=data.x_train)
    hold = MagnitudePruning(schedule=constant(SPARSITY), end_step=0)
    fit(
        aware,
        "4/5  Quantization-aware fine-tuning",
        max(1, epochs // 6),
        [hold, LearningRate(cosine(1e-4, steps=max(1, epochs // 6) * steps))],
    )
    tflite = tfopt.export_tflite(aware, out / "tflite" / "int8_quantization_aware.tflite", calibration=data.x_train)

    console.print("[bold]5/5  TF Serving folder and benchmark[/bold]")
    serving = tfopt.export_serving(
        model, out / "serving", name="small_cnn", version=next_version(out / "serving" / "small_cnn"), data=data.x_test
    )
    report = tfopt.benchmark(
        {
            "float32": baseline,
            "int8 post-training, pruned": post_training,
            "int8 quantization-aware, pruned": tflite,
            "SavedModel, pruned": serving,
        },
        (data.x_test, data.y_test),
        coverage=[(row.layer, row.kind, row.quantized, row.remark) for row in tfopt.quantization.coverage(model).rows],
        title=title,
    )
    return DemoResult(report, out / "model.keras", tflite, serving, report.save(out))
