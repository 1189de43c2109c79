"""How compression proceeds from epoch to epoch, in a CSV file, in TensorBoard and in the logs."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfopt.errors import ConfigError, first_line
from tfopt.surgery.select import LayerFilter

from .compression_measures import CompressionMeasures
from .configurable import Configurable
from .epoch_table import EpochTable

__all__ = ["CompressionLogger"]


class CompressionLogger(Configurable, keras.callbacks.Callback):
    """Writes after each epoch what compression has made of the model: zeros, shared values, ranges, sizes.

    Use it with `MagnitudePruning`, `PreserveCompression` or a quantize-aware model, to see when kernels reach their
    sparsity, whether ranges have settled, and what the weights would take. It only reads: the training is the same.

    Each row, and each step in TensorBoard, is an epoch, with these values:

    | name | value |
    |---|---|
    | `learning_rate` | of the optimizer, at the end of the epoch |
    | `sparsity` | fraction of zeros over all the kernels, in [0, 1] |
    | `raw_bytes` | all weights of the model as they are, in training mostly float32 |
    | `coded_bytes` | the same, Huffman-coded without loss, as `tfopt.compression.save_coded` stores weights |
    | `sparsity/KERNEL` | fraction of zeros |
    | `distinct_values/KERNEL` | where weights share values, as after clustering, how many; else empty |
    | `coded_bytes/KERNEL` | its part of `coded_bytes` |
    | `range_minimum/LAYER`, `range_maximum/LAYER` | of a quantize-aware model's activations; empty until observed |

    KERNEL is the path of the kernel within the model. Sizes are of the weights that are trained, not of an int8 file
    that is made of them: see `tfopt.inspect`.

    The file is replaced as a whole after each epoch, so it never holds part of a row. A fit that resumes with
    `initial_epoch` or `BackupAndRestore` goes on after the rows of the epochs before; a fit that begins at epoch 0
    starts it over. A file with other columns is never touched. TensorBoard's files are added to.

    With `use_ema=True` place this callback after `keras.callbacks.SwapEMAWeights` and `MagnitudePruning`.

    Args:
        csv: the file; None for none.
        tensorboard: the folder for TensorBoard, such as "logs/compression"; None for none.
        layers: whose kernels, as in `MagnitudePruning`: a predicate on a layer, or a regular expression that its whole
            name matches; default: every Dense and Conv kernel, also in nested models.
        coded: whether `coded_bytes` are among the values. They take most of the time: some tenths of a second for a
            million weights.

    Logs: "sparsity" and "coded_bytes" at the end of each epoch, unless another callback has put them there.

    Raises:
        ConfigError: if `csv` or `tensorboard` is not a path; in `fit`, before the first epoch, if the file has other
            columns, a place cannot be written, or `layers` matches nothing.
        ModelError: in `fit`, if the model has no kernel to measure, or one is not a float variable.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="hidden")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.default_rng(0).normal(size=(32, 8))
        >>> history = model.fit(x, x, epochs=2, verbose=0, callbacks=[CompressionLogger(coded=False)])
        >>> history.history["sparsity"]
        [0.0, 0.0]

    References: Han et al. 2016, arXiv:1510.00149, whose tables of layers these are.
    """

    def __init__(
        self,
        csv: str | PathLike[str] | None = None,
        tensorboard: str | PathLike[str] | None = None,
        *,
        layers: LayerFilter | None = None,
        coded: bool = True,
    ) -> None:
        super().__init__()
        for name, place, example in (("csv", csv, "log.csv"), ("tensorboard", tensorboard, "logs/compression")):
            if place is not None and not (isinstance(place, (str, PathLike)) and fspath(place)):
                raise ConfigError(
                    f"CompressionLogger: {name} must be a path, such as '{example}', or None. Received: {place!r}."
                )
        self.csv = None if csv is None else Path(csv)
        # No Path, which would make one slash of the two in "gs://bucket".
        self.tensorboard = None if tensorboard is None else fspath(tensorboard)
        self.layers, self.coded = layers, coded
        self._measures: CompressionMeasures | None = None
        self._table: EpochTable | None = None
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier fit."""
        self._measures, self._table, self._writer = None, None, None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Opens the file and the folder at the first epoch of the fit; only now it is known which one that is."""
        if self._measures is None and self.model.built:
            self._measures = self._open(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures the model and writes what it found."""
        if self._measures is None:  # the first batch has built the model
            self._measures = self._open(epoch)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values: dict[str, float | None] = {"learning_rate": rate, **self._measures.measure()}
        if self._table is not None:
            self._table.add(epoch, values)
        if self._writer is not None:
            with self._writer.as_default(step=epoch):
                for name, value in values.items():
                    if value is not None:
                        tf.summary.scalar(name, value)
            self._writer.flush()
        if logs is not None:
            for name in ("sparsity", "coded_bytes"):
                if name in values:
                    logs.setdefault(name, values[name])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes what TensorBoard reads."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, epoch: int) -> CompressionMeasures:
        measures = CompressionMeasures(self.model, self.layers, coded=self.coded)
        if self.tensorboard is not None:
            try:
                tf.io.gfile.makedirs(self.tensorboard)
            except tf.errors.OpError as error:
                raise ConfigError(
                    f"CompressionLogger: tensorboard must be a folder that can be written. Received: "
                    f"{self.tensorboard!r}. TensorFlow says: {first_line(error)}. Choose another place."
                ) from None
        if self.csv is not None:
            self._table = EpochTable(self.csv, ["learning_rate", *measures.names], first_epoch=epoch)
        if self.tensorboard is not None:
            self._writer = tf.summary.create_file_writer(self.tensorboard)
        return measures
