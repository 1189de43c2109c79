"""Small SavedModels whose answers tell which of them gave them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def write_affine() -> Callable[..., None]:
    """Writes a SavedModel: `serving_default` gives factor * x + offset, `negated` the same times -1, for any batch."""

    def write(folder: Path, *, factor: float, offset: float = 0.0, width: int = 3) -> None:
        module = tf.Module()
        module.factor = tf.Variable(factor, dtype=tf.float32)
        spec = tf.TensorSpec([None, width], tf.float32, name="x")
        signatures = {
            "serving_default": tf.function(lambda x: {"y": module.factor * x + offset}, [spec]),
            "negated": tf.function(lambda x: {"y": -module.factor * x - offset}, [spec]),
        }
        tf.saved_model.save(
            module, str(folder), {key: each.get_concrete_function() for key, each in signatures.items()}
        )

    return write
