"""Networks that answer early where they are sure: exits, thresholds, a report, and files that skip the rest.

The package is light: what needs Keras is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    import keras

    from tfopt.early_exit.export_saved_model import export_early_exit_saved_model
    from tfopt.early_exit.export_tflite import export_early_exit_tflite
    from tfopt.early_exit.network import EarlyExitNetwork
    from tfopt.early_exit.policy import ExitPolicy
    from tfopt.early_exit.report import ExitReport, exit_report
    from tfopt.early_exit.runner import EarlyExitRunner
    from tfopt.early_exit.stages import split_stages
    from tfopt.early_exit.thresholds import choose_thresholds

__all__ = [
    "EarlyExitNetwork",
    "EarlyExitRunner",
    "ExitPolicy",
    "ExitReport",
    "choose_thresholds",
    "early_exit",
    "exit_report",
    "export_early_exit_saved_model",
    "export_early_exit_tflite",
    "split_stages",
]

__getattr__ = lazy_names(
    __name__,
    {
        "EarlyExitNetwork": "tfopt.early_exit.network",
        "EarlyExitRunner": "tfopt.early_exit.runner",
        "ExitPolicy": "tfopt.early_exit.policy",
        "ExitReport": "tfopt.early_exit.report",
        "choose_thresholds": "tfopt.early_exit.thresholds",
        "exit_report": "tfopt.early_exit.report",
        "export_early_exit_saved_model": "tfopt.early_exit.export_saved_model",
        "export_early_exit_tflite": "tfopt.early_exit.export_tflite",
        "split_stages": "tfopt.early_exit.stages",
    },
)


def early_exit(
    model: keras.Model, exits: Sequence[str], *, head: Callable[[keras.KerasTensor, str], Any] | None = None
) -> keras.Model:
    """Returns a model that also answers at layers within it, so that easy samples need not run all of it.

    Use it on a classifier whose samples differ in difficulty and are answered one at a time. What comes back is a
    Functional model of several outputs, the exits in order and the original one last. Train it (from scratch, or from
    the trained model that was given) with the targets given once:

        network.compile("adam", "sparse_categorical_crossentropy", loss_weights=[0.3, 0.3, 1.0], metrics=["accuracy"])
        network.fit(x, y)

    Then `choose_thresholds` tells on validation data from which confidence on an exit may answer,
    `export_early_exit_tflite` and `export_early_exit_saved_model` write files that skip the rest, and `exit_report`
    tells what is saved; `from tfopt.early_exit import` them. The given model is left as it is; nested models are laid
    flat.

    Exits after about a quarter and a half of the FLOPs (`tfopt.inspect` tells them by layer) are a good start. An exit
    needs layers that see enough of the input; the first convolution's output is too early.

    Args:
        model: a built Functional or Sequential classifier with one output of shape `(batch, classes)`, or
            `(batch, 1)` for two classes: probabilities or logits.
        exits: names of layers, in the order in which they run, each called once.
        head: `(features, name) -> output` builds what makes an exit's answer of the layer's output, of the same shape
            as the model's output and of the same kind (probabilities or logits); its last layer should bear the name.
            By default global average pooling where the features have positions, and a Dense layer with the activation
            that the model ends in. Exits are called `exit_1`, `exit_2`, ….

    Raises:
        ConfigError: if `exits` is empty, names no layer, or one that the output does not depend on, or is not in
            order; or a head makes an output of another shape.
        ModelError: if the model is not a built Keras 3 model, is subclassed, or has not one output of such a shape.

    Example:
        >>> import keras
        >>> x = keras.Input((8, 8, 1))
        >>> h = keras.layers.Conv2D(4, 3, activation="relu", name="early")(x)
        >>> h = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu")(h))
        >>> model = keras.Model(x, keras.layers.Dense(3, activation="softmax", name="classes")(h))
        >>> early_exit(model, ["early"]).output_names
        ['exit_1', 'classes']

    References: Teerapittayanon et al. 2016 (BranchyNet), arXiv:1709.01686.
    """
    from tfopt.early_exit.heads import attach_exits

    return attach_exits(model, exits, head)
