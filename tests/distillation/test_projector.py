import keras
import numpy as np
import pytest

from tfopt.distillation.projector import Projector


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 4, 4, 3)])
def test_channels_are_mapped_linearly(shape):
    projector = Projector(6)
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    projected = projector(features)
    projector.bias.assign(np.arange(6))
    assert projected.shape == projector.compute_output_shape(shape) == (*shape[:-1], 6)
    assert np.allclose(projector(features), features @ np.asarray(projector.matrix) + np.arange(6), atol=1e-5)


def test_masks_of_padded_steps_go_along():
    embedded = keras.layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 2, 0]]))
    projected = Projector(2)(embedded)
    pooled = keras.layers.GlobalAveragePooling1D()(projected)
    assert np.allclose(pooled, np.asarray(projected)[:, :2].mean(1), atol=1e-6)


def test_it_computes_in_float32_and_is_rebuilt_from_its_config():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        projector = Projector(2, name="p")
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(projector(np.ones((1, 3), np.float16)).dtype) == "float32"
    assert Projector.from_config(projector.get_config()).get_config() == {"channels": 2, "name": "p"}
    assert not isinstance(projector, keras.layers.Dense)
