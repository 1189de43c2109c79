"""What a model costs, estimated."""

import keras
import numpy as np

from tfopt.quantization import quantize_aware
from tfopt.surgery.flops import costs
from tfopt.tuning.compression_cost import estimated_figures

layers = keras.layers


def model() -> keras.Model:
    return keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu", name="hidden"), layers.Dense(2)])


def test_bits_change_bytes_and_not_operations() -> None:
    float_model = model()
    aware = quantize_aware(float_model, calibration=np.random.default_rng(0).normal(size=(8, 64)))
    figures, original = estimated_figures(aware), estimated_figures(float_model)
    assert figures.size < 0.35 * original.size
    assert figures.download < 0.4 * original.download
    assert figures.flops == original.flops == costs(float_model).flops
    assert figures.latency is None


def test_zeros_change_the_download_alone() -> None:
    full, sparse = model(), model()
    kernel = sparse.get_layer("hidden").kernel
    kernel.assign(np.where(np.arange(64 * 64).reshape(64, 64) % 10 == 0, kernel, 0))
    figures, original = estimated_figures(sparse), estimated_figures(full)
    assert (figures.size, figures.flops) == (original.size, original.flops)
    assert figures.download < 0.4 * original.download


def test_operations_that_are_not_counted_are_no_number() -> None:
    assert estimated_figures(keras.Sequential([keras.Input((4,)), layers.ReLU()])).flops is None
