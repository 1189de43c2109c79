import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.callbacks import PreserveCompression
from tfopt.compression.clustering import cluster
from tfopt.errors import ConfigError, ModelError

layers = keras.layers
generator = np.random.default_rng(0)
X = generator.normal(size=(64, 6, 6, 2)).astype(np.float32)
Y = generator.normal(size=(64, 3)).astype(np.float32)


def small_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(6, activation="relu", name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )


def kernel_of(model, name):
    return np.array(model.get_layer(name).kernel)


def distinct(weights):
    return np.unique(weights).size


def prune(model, sparsity=0.7):
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            weights = np.array(layer.kernel)
            weights[np.abs(weights) < np.quantile(np.abs(weights), sparsity)] = 0
            layer.kernel.assign(weights)
    return model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.mark.slow
@given(
    st.integers(2, 16),
    st.sampled_from(["linear", "density", "kmeans++"]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(0, 100),
)
@settings(max_examples=20, derandomize=True, deadline=None)
def test_kernels_have_few_values_and_keep_their_zeros(n_clusters, start, per_channel, sparsity, seed):
    model = small_model()
    weights = np.random.default_rng(seed).normal(size=(128, 6)).astype(np.float32)
    weights[np.abs(weights) < np.quantile(np.abs(weights), sparsity)] = 0
    model.get_layer("hidden").kernel.assign(weights)
    clustered = kernel_of(cluster(model, n_clusters, start=start, per_channel=per_channel, layers="hidden"), "hidden")
    np.testing.assert_array_equal(clustered == 0, weights == 0)
    groups = clustered.T if per_channel else [clustered]
    assert all(distinct(group) <= n_clusters for group in groups)


def test_everything_else_is_as_it_was(model):
    before = model.get_weights()
    with pytest.warns(UserWarning, match="'head'"):
        clustered = cluster(model, 8)
    for expected, received in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)
    assert [layer.name for layer in clustered.layers][1:] == [layer.name for layer in model.layers]
    for weight, copied in zip(model.weights, clustered.weights, strict=True):
        same = np.array_equal(weight, copied)
        assert same == (weight.path.split("/")[-2:] not in (["conv", "kernel"], ["hidden", "kernel"])), weight.path
    assert distinct(kernel_of(clustered, "conv")) == 8
    np.testing.assert_allclose(clustered(X), model(X), atol=0.5)


def test_kernels_that_are_too_small_are_left_and_named(model):
    message = r"8 values need more than 32 weights to save anything. Received: 'head' \(18\)\. These kernels are left"
    with pytest.warns(UserWarning, match=message):
        cluster(model, 8)
    with pytest.raises(ModelError, match=r"256 values need more than 1024 weights.*'conv' \(144\).*Ask for fewer"):
        cluster(model, 256)
    with pytest.raises(ModelError, match=r"in each channel.*'conv' \(18\).*or leave per_channel out"):
        cluster(model, 16, per_channel=True, layers="conv")


def test_more_clusters_lose_less(model):
    weights = kernel_of(model, "hidden")
    errors = [np.sum((kernel_of(cluster(model, k, layers="hidden"), "hidden") - weights) ** 2) for k in (2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True)
    whole, apart = (
        np.sum((kernel_of(cluster(model, 8, layers="hidden", per_channel=each), "hidden") - weights) ** 2)
        for each in (False, True)
    )
    assert apart < whole


def test_a_clustered_model_is_left_as_it_is(model):
    once = cluster(model, 8, layers="conv|hidden")
    twice = cluster(once, 8, layers="conv|hidden")
    for expected, received in zip(once.get_weights(), twice.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)


def test_without_preserving_zeros_are_weights_like_others():
    pruned = prune(small_model(), 0.5)
    kept = kernel_of(cluster(pruned, 2, layers="hidden"), "hidden")
    lost = kernel_of(cluster(pruned, 2, layers="hidden", preserve_sparsity=False), "hidden")
    np.testing.assert_array_equal(kept == 0, kernel_of(pruned, "hidden") == 0)
    assert np.count_nonzero(lost == 0) == 0


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (layers.Conv2D(5, 4, name="it"), 3),
        (layers.Conv1D(5, 8, name="it"), 2),
        (layers.Conv2DTranspose(5, 4, name="it"), 2),
        (layers.DepthwiseConv2D(5, name="it"), 2),
        (layers.Dense(5, name="it"), 1),
        (layers.SeparableConv2D(5, 3, name="it"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else str(value),
)
def test_channels_are_those_of_the_output(layer, axis):
    one = isinstance(layer, layers.Conv1D)
    model = keras.Sequential([keras.Input((9, 20) if one else (9, 9, 20)), layer])
    clustered = cluster(model, 4, per_channel=True, layers="it").get_layer("it")
    kernel = np.array(clustered.kernel if hasattr(clustered, "kernel") else clustered.pointwise_kernel)
    assert all(distinct(channel) == 4 for channel in np.moveaxis(kernel, axis, 0))
    assert distinct(kernel) == 4 * kernel.shape[axis]


def test_nested_and_shared_layers_and_wrappers():
    shared = layers.Dense(8, name="shared")
    x = keras.Input((8,))
    inner = keras.Model(x, shared(shared(x)), name="inner")
    sequence = keras.Input((5, 8))
    outputs = layers.Bidirectional(layers.LSTM(8, name="lstm"))(layers.TimeDistributed(inner)(sequence))
    model = keras.Model(sequence, outputs)
    clustered = cluster(model, 4, layers=lambda layer: True)
    kernels = [weight for weight in clustered.weights if weight.name == "kernel"]
    assert [distinct(np.array(kernel)) for kernel in kernels] == [4, 4, 4]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_any_precision(dtype):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, name="it", dtype=dtype)])
    kernel = cluster(model, 4).get_layer("it").kernel
    assert kernel.dtype == model.layers[0].kernel.dtype
    assert distinct(keras.ops.convert_to_numpy(kernel)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
def test_the_centroids_are_trained_in_a_fit(sparsity):
    """The way to trainable centroids: cluster, then fit with PreserveCompression."""
    clustered = cluster(prune(small_model(), sparsity), 8, layers="conv|hidden")
    before = {name: kernel_of(clustered, name) for name in ("conv", "hidden")}
    clustered.compile(keras.optimizers.Adam(0.01), "mse")
    preserve = PreserveCompression()
    losses = clustered.fit(X, Y, epochs=4, batch_size=16, verbose=0, callbacks=[preserve]).history["loss"]
    assert losses[-1] < losses[0]
    assert [text for path, text in preserve.preserved.items() if "conv" in path] == ["8 shared values"]
    for name, weights in before.items():
        after = kernel_of(clustered, name)
        pairs = np.unique(np.stack([weights.reshape(-1), after.reshape(-1)]), axis=1)
        assert pairs.shape[1] == 8  # equal weights are equal still
        moved = pairs[0] != pairs[1]
        assert np.array_equal(moved, pairs[0] != 0)  # all but the zeros were trained
        np.testing.assert_array_equal(after == 0, weights == 0)


@pytest.mark.parametrize("n_clusters", [1, 0, 257, 4.0, "16"])
def test_counts_of_clusters_that_make_no_sense_are_refused(model, n_clusters):
    with pytest.raises(ConfigError, match=rf"n_clusters must be an int in \[2, 256\]. Received: {n_clusters!r}"):
        cluster(model, n_clusters)


def test_other_bad_input_is_refused(model):
    with pytest.raises(ConfigError, match="cluster: start must be one of"):
        cluster(model, start="random")
    with pytest.raises(ConfigError, match="layers='nowhere' matches no layer"):
        cluster(model, layers="nowhere")
    with pytest.raises(ModelError, match="Expected a Keras 3 model"):
        cluster("model.keras")
    with pytest.raises(ModelError, match="no Dense or Conv layer"):
        cluster(keras.Sequential([keras.Input((4,)), layers.ReLU()]))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(20)

        def call(self, x):
            return self.dense(x)

    subclassed = Subclassed()
    subclassed(np.ones((1, 20)))
    with pytest.raises(ModelError, match="is subclassed"):
        cluster(subclassed)
