"""The door for models: what comes in is a built Keras 3 model with finite weights, or a clear error."""

from __future__ import annotations

import keras
import numpy as np

from tfopt.errors import ModelError
from tfopt.surgery.select import iterate_layers

__all__ = ["check_model"]


def check_model(model: object) -> keras.Model:
    """Returns the model if it is a built Keras 3 model with finite weights.

    Raises:
        ModelError: if it is a tf_keras model, not a Keras model at all, not built, already converted by
            `model.quantize`, or has NaN or infinite weights.
    """
    if not isinstance(model, keras.Model):
        origin = {base.__module__.partition(".")[0] for base in type(model).__mro__}
        if "tf_keras" in origin:
            raise ModelError(
                "Expected a Keras 3 model (keras.Model). Received: a tf_keras (Keras 2) model. "
                "Translate it with tfopt.from_tf_keras(model), or its file with `tfopt migrate FILE`."
            )
        raise ModelError(f"Expected a Keras 3 model (keras.Model). Received: {type(model).__name__}.")
    if not model.built:
        raise ModelError(
            f"The model '{model.name}' is not built: its weights have no shape yet. "
            "Give it a keras.Input or call it once on data."
        )
    for layer in iterate_layers(model):
        mode = getattr(layer.dtype_policy, "quantization_mode", None)
        if mode is not None:
            raise ModelError(
                f"The model '{model.name}' was converted by model.quantize(): its layer '{layer.name}' is {mode}, "
                "which the TFLite converter cannot read. Give the float model; tfopt quantizes it."
            )
    for weight in model.weights:
        dtype = keras.backend.standardize_dtype(weight.dtype)
        if "float" in dtype and not np.all(np.isfinite(keras.ops.convert_to_numpy(weight).astype(np.float32))):
            raise ModelError(
                f"The weight '{weight.path}' of the model '{model.name}' has NaN or infinite values. "
                "Training diverged: lower the learning rate, or restore an earlier checkpoint."
            )
    return model
