"""The same weights, step and schedule give the same mask as tensorflow-model-optimization (tfmot).

tfmot's import sets TF_USE_LEGACY_KERAS, so it runs in a process of its own; its formula is restated in NumPy besides,
for a property test. Four differences are meant:

- Among equal magnitudes at the threshold tfopt keeps the first ones, such that the count is exact; tfmot keeps all.
- Blocks are counted as TFLite stores a kernel, `(out, in)`; tfmot's `block_size` counts Keras's `(in, out)`.
- A zeroed weight may grow back at any update; in tfmot not at the first one of an epoch, since it masks as epochs end.
- Where a kernel is no multiple of the block, tfmot pools windows that are shifted against the blocks it zeroes.
"""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tfopt.pruning.masks import largest
from tfopt.pruning.patterns import Blocks, NOfM, Weights

float32 = np.float32
elements = st.floats(-8, 8, width=32)


def tfmot_mask(weights, sparsity):
    """`Pruning._update_mask` of tfmot 0.8, in float32."""
    magnitudes = np.abs(weights)
    kept = int(np.maximum(np.round(float32(weights.size) * (float32(1) - float32(sparsity))), 1))
    threshold = np.sort(magnitudes.ravel())[::-1][kept - 1]
    return magnitudes >= threshold, kept


def tfopt_mask(pattern, kernel, sparsity):
    scores = pattern.scores(kernel, -2)
    whole, _ = largest(scores, pattern.kept_units(scores.size, sparsity))
    return pattern.mask(kernel, -2, whole)


@given(
    st_numpy.arrays(float32, st_numpy.array_shapes(min_dims=2, max_dims=4, max_side=7), elements=elements),
    st.floats(0, 0.984375, width=32),
)
def test_single_weights(weights, sparsity):
    expected, kept = tfmot_mask(weights, sparsity)
    received = tfopt_mask(Weights(), weights, float32(sparsity))
    assert received.sum() == kept
    assert not np.any(received & ~expected)
    if expected.sum() == kept:  # no ties
        assert np.array_equal(received, expected)


@given(
    st.data(),
    st.sampled_from(["average", "max"]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 0.984375, width=32),
)
def test_blocks(data, pooling, inputs, outputs, sparsity):
    blocks = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shape = blocks[0] * inputs, blocks[1] * outputs
    # Whole numbers: no rounding decides between two blocks.
    weights = data.draw(st_numpy.arrays(float32, shape, elements=st.integers(-50, 50).map(float32)))
    magnitudes = np.abs(weights).reshape(blocks[0], inputs, blocks[1], outputs)
    pooled = magnitudes.max((1, 3)) if pooling == "max" else magnitudes.mean((1, 3), dtype=float32)
    expected, kept = tfmot_mask(pooled, sparsity)
    received = tfopt_mask(Blocks(outputs, inputs, pooling), weights, float32(sparsity))
    if expected.sum() == kept:
        assert np.array_equal(received, np.kron(expected, np.ones((inputs, outputs), bool)))


@given(
    st_numpy.arrays(float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=13), elements=elements),
    st.integers(2, 5).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m))),
)
def test_n_of_m_with_ties_and_remainders(weights, n_of_m):
    n, m = n_of_m
    # `generate_m_by_n_mask` of tfmot: rows along the inputs, padded with zeros, top_k of each group.
    rows = np.abs(weights.T)
    padded = np.pad(rows, ((0, 0), (0, m - rows.shape[1] % m)))
    order = np.argsort(-padded.reshape(-1, m), axis=1, kind="stable")[:, :n]
    expected = np.zeros((padded.size // m, m), bool)
    np.put_along_axis(expected, order, True, axis=1)
    expected = expected.reshape(padded.shape)[:, : rows.shape[1]].T
    assert np.array_equal(tfopt_mask(NOfM(n, m), weights, 1 - n / m), expected)


BOTH = textwrap.dedent("""
    import json, sys
    import numpy as np
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        sys.exit()
    import keras
    from tfopt.callbacks import MagnitudePruning

    sparsity = tfmot.sparsity.keras
    rng = np.random.default_rng(0)

    def network(K, shape):
        layers = K.layers
        if len(shape) == 1:
            return K.Sequential([K.Input(shape), layers.Dense(8, "relu"), layers.Dense(4)])
        middle = [layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(4)]
        return K.Sequential([K.Input(shape), *middle])

    def train(K, model, rate, callbacks, x, epochs):
        model.compile(K.optimizers.SGD(rate, momentum=0.9), "mse")
        y = x.reshape(len(x), -1)[:, :4]
        model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)

    def compare(shape, schedule, theirs, ours, rate, epochs=1, batches=1):
        x = rng.normal(size=(8 * batches, *shape)).astype("float32")
        mine, other = network(keras, shape), network(tf_keras, shape)
        weights = [rng.normal(size=w.shape).astype("float32") * 0.3 for w in mine.get_weights()]
        mine.set_weights(weights)
        other.set_weights(weights)
        wrapped = sparsity.prune_low_magnitude(other, pruning_schedule=schedule, **theirs)
        train(tf_keras, wrapped, rate, [sparsity.UpdatePruningStep()], x, epochs)
        seen = []
        look = lambda batch, logs: seen.append(np.concatenate([np.ravel(w) != 0 for w in mine.get_weights()]))
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        train(keras, mine, rate, [MagnitudePruning(schedule=schedule, **ours), watch], x, epochs)
        pairs = list(zip(sparsity.strip_pruning(wrapped).get_weights(), mine.get_weights()))
        return {
            "same_masks": all(np.array_equal(a != 0, b != 0) for a, b in pairs),
            "apart": max(float(np.abs(a - b).max()) for a, b in pairs),
            "zeros": sum(int((b == 0).sum()) for a, b in pairs if a.ndim > 1),
            "grown_back": sum(int((after & ~before).sum()) for before, after in zip(seen[1:], seen[2:])),
        }

    constant = sparsity.ConstantSparsity
    found = {
        "dense": compare((12,), constant(0.7, 0, frequency=1), {}, {}, 0.0),
        "conv": compare((8, 8, 3), constant(0.85, 0, frequency=1), {}, {}, 0.0),
        "average": compare((16,), constant(0.5, 0, frequency=1), {"block_size": (4, 1)}, {"block": (1, 4)}, 0.0),
        "max": compare(
            (16,), constant(0.5, 0, frequency=1), {"block_size": (4, 2), "block_pooling_type": "MAX"},
            {"block": (2, 4), "block_pooling": "max"}, 0.0,
        ),
        "two_of_four": compare(
            (8, 8, 4), constant(0.5, 0, frequency=1), {"sparsity_m_by_n": (2, 4)}, {"pattern": "2:4"}, 0.0
        ),
        "ramp": compare((8, 8, 3), sparsity.PolynomialDecay(0.1, 0.8, 2, 20, frequency=3), {}, {}, 0.002, 3, 8),
        "regrowth": compare((12,), constant(0.5, 3, 17, frequency=2), {}, {}, 0.05, 1, 20),
    }
    print(json.dumps(found))
""")


@pytest.mark.slow
def test_tfmot_itself():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", BOTH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if "missing" in found:
        pytest.skip(f"tfmot cannot be imported: {found['missing']}")
    assert {name: result["same_masks"] for name, result in found.items()} == dict.fromkeys(found, True)
    assert all(result["apart"] < 1e-4 for result in found.values())
    assert all(result["zeros"] > 0 for result in found.values())
    assert found["regrowth"]["grown_back"] > 0
