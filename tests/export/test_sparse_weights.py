"""Files whose weights are stored without their zeros."""

import keras
import numpy as np
import pytest
from keras import layers

from tfopt.errors import ConfigError, ExportError
from tfopt.export.tflite import export_tflite
from tfopt.export.tflite_file import read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.quantization import quantize_aware

pytestmark = pytest.mark.usefixtures("conversion_in_this_process")
X = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)


def pruned(block, sparsity=0.9):
    """A dense model that keeps the largest blocks along the input of its kernels."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(96, "relu"), layers.Dense(32)])
    for layer in model.layers:
        blocks = layer.kernel.numpy().T.reshape(layer.units, -1, block)
        size = np.abs(blocks).max(axis=-1, keepdims=True)
        layer.kernel.assign((blocks * (size > np.quantile(size, sparsity))).reshape(layer.units, -1).T)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 4])
def test_float_files_are_smaller_and_compute_the_same(block, tmp_path):
    model = pruned(block)
    dense = export_tflite(model, tmp_path / "dense.tflite", "none", calibration=X)
    sparse = export_tflite(model, tmp_path / "sparse.tflite", "none", calibration=X, sparse_weights=True)
    assert sparse.size_bytes < 0.6 * dense.size_bytes
    x = {dense.inputs[0].name: X}
    (expected,), (received,) = (run_tflite(one.path, x).values() for one in (dense, sparse))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_the_reader_gives_the_weights_with_their_zeros(tmp_path):
    model = pruned(4)
    export_tflite(model, tmp_path / "sparse.tflite", "none", calibration=X, sparse_weights=True)
    operators = read_tflite(tmp_path / "sparse.tflite").operators
    kernels = [tensor for one in operators for tensor in one.inputs if tensor.sparse_layout is not None]
    assert len(kernels) == 2
    for kernel, layer in zip(kernels, model.layers, strict=True):
        np.testing.assert_array_equal(kernel.values(), layer.kernel.numpy().T)


@pytest.mark.slow
def test_int8_in_blocks_of_16(tmp_path):
    model = quantize_aware(pruned(16), calibration=X)
    dense = export_tflite(model, tmp_path / "dense.tflite", calibration=X)
    sparse = export_tflite(model, tmp_path / "sparse.tflite", calibration=X, sparse_weights=True)
    assert sparse.verification["full_integer"]
    assert sparse.size_bytes < dense.size_bytes
    assert sparse.verification["max_lsb"] <= 1.001


def test_int8_without_blocks_is_refused(tmp_path):
    with pytest.raises(ExportError, match="blocks of 16 along the input"):
        export_tflite(pruned(1), tmp_path / "sparse.tflite", "int8", calibration=X, sparse_weights=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantization", ["float16", "int16x8", "weight_only_int8"])
def test_other_quantizations_are_refused(quantization, tmp_path):
    with pytest.raises(ConfigError, match=f"Received: {quantization}"):
        export_tflite(pruned(16), tmp_path / "model.tflite", quantization, calibration=X, sparse_weights=True)
