import numpy as np
import pytest

from tfopt.errors import ConfigError
from tfopt.pruning.sparse_targets import TARGETS, check_target, why_pruning_is_not_faster, zero_blocks, zeros_use


def kernel(shape, zeros, block):
    """Whole blocks along the last axis are zero."""
    blocks = np.random.default_rng(0).random((shape[0], shape[1] // block)) >= zeros
    return np.repeat(blocks, block, axis=1).astype(np.float32)


@pytest.mark.parametrize("block", [1, 4, 16])
def test_zero_blocks(block):
    weights = kernel((64, 64), 0.7, block)
    assert zero_blocks(weights, block) == pytest.approx(np.mean(weights == 0))
    assert zero_blocks(np.ones((3, 5)), block) == 0.0
    assert zero_blocks(np.zeros((3, 5)), block) == 1.0


@pytest.mark.parametrize(
    ("block", "zeros", "integer", "pays"),
    [
        (4, 0.9, False, True),
        (1, 0.8, False, False),  # single zeros seldom lie in fours
        (4, 0.5, False, False),
        (16, 0.9, False, True),
        (16, 0.9, True, False),  # int8: measured slower than dense
    ],
)
def test_a_dense_layer_on_tflite_needs_blocks_and_many(block, zeros, integer, pays):
    use = zeros_use("tflite", kernel((64, 64), zeros, block), "dense", integer=integer)
    assert use.startswith("can: Dense in blocks" if pays else "no: ")


def test_a_pointwise_convolution_pays_in_float_on_arm_only():
    weights = kernel((64, 64), 0.8, 1)
    assert zeros_use("tflite", weights, "pointwise").startswith("can on ARM")
    assert zeros_use("tflite", weights, "pointwise", integer=True).startswith("no")
    assert zeros_use("tflite", weights, "other").startswith("no")


@pytest.mark.parametrize(("columns", "can"), [(None, False), (1, False), (2, False), (4, True), (16, True)])
def test_only_blocks_of_four_inputs_can_be_faster_on_tflite(columns, can):
    reason = why_pruning_is_not_faster("tflite", block_columns=columns)
    assert reason is None if can else "block=(1, 4), exported in float32" in reason


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_has_an_answer(target):
    check_target("name", target)
    assert zeros_use(target, np.zeros((4, 4)), "other").startswith(("no", "yes"))


def test_other_targets_are_refused():
    with pytest.raises(ConfigError, match=r"name must be one of tflite, .* Received: 'phone'"):
        check_target("name", "phone")
