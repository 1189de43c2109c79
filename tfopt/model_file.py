"""Loading Keras model files, quantize-aware ones included."""

from __future__ import annotations

from pathlib import Path

import keras

import tfopt.interop.keras_2_activations
import tfopt.quantization  # noqa: F401  (both register with Keras what models are made of)
from tfopt.errors import ModelError, first_line
from tfopt.surgery.model import check_model

__all__ = ["load_model"]


def load_model(path: str | Path) -> keras.Model:
    """Loads a Keras 3 model from a .keras, .h5 or .hdf5 file and checks it.

    Raises:
        ModelError: if the file is missing, damaged, or does not hold a usable Keras 3 model.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"No model at {path}: the file does not exist. Give the path of a .keras or .h5 file.")
    if path.suffix not in {".keras", ".h5", ".hdf5"}:
        raise ModelError(
            f"Expected a Keras model file (.keras, .h5, .hdf5). Received: {path}. "
            "Save the model with model.save('NAME.keras')."
        )
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the damaged part raises: zip, h5py, JSON, TypeError
        raise ModelError(
            f"Keras {keras.__version__} cannot load {path}: the file is damaged, or it was written by tf_keras "
            f"(then: tfopt migrate {path.name}) or needs custom objects that are not registered. "
            f"Keras says: {first_line(error)}"
        ) from error
    return check_model(model)
