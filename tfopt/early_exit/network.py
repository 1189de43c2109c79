"""The model that early exits are trained in."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["EarlyExitNetwork"]


@keras.saving.register_keras_serializable(package="tfopt")
class EarlyExitNetwork(keras.Model):
    """A Functional model of several outputs that are all trained on the same targets.

    `tfopt.early_exit` makes it. It is fitted, evaluated and saved as any Keras model; but the targets and sample
    weights are given once, for all exits, as are the loss and the metrics where they are not given by exit.

    Example:
        >>> import numpy as np
        >>> x = keras.Input((4,))
        >>> h = keras.layers.Dense(8, activation="relu")(x)
        >>> exits = [keras.layers.Dense(3, name="exit_1")(h), keras.layers.Dense(3, name="classes")(h)]
        >>> model = EarlyExitNetwork(x, exits)
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", loss, loss_weights=[0.5, 1.0], metrics=["accuracy"])
        >>> history = model.fit(np.zeros((6, 4)), np.arange(6) % 3, verbose=0)
        >>> sorted(history.history)
        ['classes_accuracy', 'classes_loss', 'exit_1_accuracy', 'exit_1_loss', 'loss']
    """

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures the training, as `keras.Model.compile`.

        Args:
            optimizer: as in Keras.
            loss: one for all exits, or a list or dict with one for each.
            loss_weights: how much each exit counts, a list in their order or a dict by their names; default: all alike.
            metrics: those of every exit; or a list of lists or a dict with those of each.
            weighted_metrics: likewise.
            **kwargs: as in Keras.
        """
        if loss is not None and not isinstance(loss, (list, tuple, dict)):
            loss = [loss] * len(self.outputs)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=self._for_each_exit(metrics),
            weighted_metrics=self._for_each_exit(weighted_metrics),
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a model that is loaded; Keras asks for this where `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)  # so that its state can be loaded

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum of the exits' losses and the model's penalties."""
        return super().compute_loss(x, self._targets(y), y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics of each exit."""
        return super().compute_metrics(x, self._targets(y), y_pred, sample_weight)

    def _targets(self, y: Any) -> Any:
        return y if y is None or keras.tree.is_nested(y) else [y] * len(self.outputs)

    def _for_each_exit(self, metrics: Any) -> Any:
        if not isinstance(metrics, (list, tuple)) or any(isinstance(one, (list, tuple, dict)) for one in metrics):
            return metrics

        def copy(metric: Any) -> Any:  # one that keeps count must do so for each exit
            return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric

        return [[copy(metric) for metric in metrics] for _ in self.outputs]
