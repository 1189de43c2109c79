"""What tfmot did to a model is still there in Keras 3, and is kept while it is trained on."""

import keras
import numpy as np
import pytest
from tf_keras_networks import L, image_network, images, randomized, tf_keras

from tfopt.callbacks import PreserveCompression
from tfopt.errors import ModelError
from tfopt.interop.legacy import import_tfmot
from tfopt.interop.migration import migrate
from tfopt.interop.tfmot import from_tf_keras
from tfopt.quantization.layers import FakeQuantize, FixedFakeQuantize
from tfopt.quantization.quantize_aware import is_quantize_aware
from tfopt.quantization.strip import strip

tfmot = import_tfmot()
sparsity, clustering, quantization = tfmot.sparsity.keras, tfmot.clustering.keras, tfmot.quantization.keras
X, Y = images()
LOSS = "sparse_categorical_crossentropy"
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def fitted(model, callbacks=(), epochs=2):
    model.compile("adam", LOSS)
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


@pytest.fixture(scope="module")
def pruned():
    schedule = sparsity.ConstantSparsity(0.7, 0, frequency=1)
    return fitted(
        sparsity.prune_low_magnitude(image_network(), pruning_schedule=schedule), [sparsity.UpdatePruningStep()]
    )


@pytest.fixture(scope="module")
def clustered():
    linear = clustering.CentroidInitialization.LINEAR
    return fitted(clustering.cluster_weights(image_network(), number_of_clusters=8, cluster_centroids_init=linear))


@pytest.fixture(scope="module")
def quantized():
    return fitted(quantization.quantize_model(randomized(image_network())), epochs=3)


def kernels(model):
    return {layer.name: np.asarray(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}


def assert_same(old, new):
    np.testing.assert_allclose(new(X, training=False), old(X, training=False), atol=1e-5, rtol=0)


def test_a_pruned_model_stays_pruned(pruned):
    migration = migrate(pruned)
    new = migration.model
    assert_same(pruned, new)
    assert_same(sparsity.strip_pruning(pruned), new)
    before = {name: kernel == 0 for name, kernel in kernels(new).items()}
    chosen = ["conv", "left", "right", "scores"]  # tfmot prunes no depthwise kernels
    for name in chosen:
        assert np.mean(before[name]) == pytest.approx(0.7, abs=0.01)
        assert "% zeros, kept by PreserveCompression" in str(migration)
    preserve = PreserveCompression()
    fitted(new, [preserve])
    assert {path.split("/")[-2] for path in preserve.preserved} == set(chosen)
    for name in chosen:
        np.testing.assert_array_equal(kernels(new)[name] == 0, before[name])


def test_masks_that_are_not_applied_yet_are_applied(pruned):
    other = sparsity.prune_low_magnitude(
        image_network(), pruning_schedule=sparsity.ConstantSparsity(0.7, 0, frequency=1)
    )
    other.set_weights(pruned.get_weights())
    for layer in other.layers:
        for weight, _, _ in getattr(layer, "pruning_vars", []):
            weight.assign_add(0.1 * np.ones(weight.shape, np.float32))  # as an optimizer does before the callback masks
    for name in ("conv", "scores"):
        np.testing.assert_array_equal(
            kernels(from_tf_keras(other))[name] == 0, kernels(from_tf_keras(pruned))[name] == 0
        )


def test_a_clustered_model_stays_clustered(clustered):
    migration = migrate(clustered)
    new = migration.model
    assert_same(clustered, new)
    assert_same(clustering.strip_clustering(clustered), new)
    chosen = ["conv", "left", "right", "scores"]
    before = kernels(new)
    assert all(np.unique(before[name]).size <= 8 for name in chosen)
    assert "8 shared values, kept by PreserveCompression" in str(migration)
    fitted(new, [PreserveCompression()])
    for name in chosen:
        after, groups = kernels(new)[name], before[name]
        assert not np.array_equal(after, groups)
        for value in np.unique(groups):
            assert np.unique(after[groups == value]).size == 1


def test_a_recurrent_layer_stays_clustered():
    old = tf_keras.Sequential([L.Input((5, 6)), L.LSTM(8, name="memory"), L.Dense(3)])
    old = clustering.cluster_weights(
        old, number_of_clusters=4, cluster_centroids_init=clustering.CentroidInitialization.LINEAR
    )
    migration = migrate(old)
    new = migration.model
    # PreserveCompression holds the kernel of a recurrent layer, not its recurrent kernel, and the report says so.
    assert "kept by PreserveCompression; 4 shared values, lost where it is trained on" in migration.layers[0].carried
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(new(x), old(x), atol=1e-5)
    assert all(np.unique(weight).size <= 4 for weight in new.get_layer("memory").get_weights()[:2])


def ranges_of(model):
    return {
        layer.name.removesuffix("_range"): tuple(float(end) for end in layer.range())
        for layer in model.layers
        if isinstance(layer, FakeQuantize)
    }


def tfmot_ranges(model):
    """By the names that tfmot's variables have, as an independent way to them."""
    found = {}
    for weight in model.weights:
        layer, _, what = weight.name.removesuffix(":0").rpartition("/")
        if what.endswith(("_min", "_max")) and weight.shape.rank == 0 and "kernel" not in what:
            found.setdefault((layer.removeprefix("quant_"), what[:-4]), {})[what[-3:]] = float(weight)
    return {key: (ends["min"], ends["max"]) for key, ends in found.items()}


def test_a_quantize_aware_model_stays_so(quantized):
    migration = migrate(quantized)
    aware, theirs = migration.model, tfmot_ranges(quantized)
    assert is_quantize_aware(aware)
    assert not migration.ranges_missing
    ours = ranges_of(aware)
    (input_range,) = (ends for (layer, _), ends in theirs.items() if layer.startswith("quantize_layer"))
    assert ours["image"] == input_range
    assert ours["conv_relu"] == theirs["conv_relu", "output"]
    assert ours["scores"] == theirs["scores", "pre_activation"]
    assert ours["depthwise_activation"] == theirs["depthwise", "post_activation"]
    # TFLite's concatenation has one grid, that of its output, for all that it takes.
    low, high = ours["left_activation"]
    joined = [theirs["both", "output"], theirs["left", "post_activation"], theirs["right", "post_activation"]]
    assert low == min(ends[0] for ends in joined)
    assert high == max(ends[1] for ends in joined)
    assert any(isinstance(layer, FixedFakeQuantize) for layer in aware.layers)  # after the softmax
    assert np.mean(np.abs(aware(X) - quantized(X))) < 2 / 256
    inner = [layer.layer for layer in quantized.layers if hasattr(layer, "quantize_config")]
    old = {layer.name: layer for layer in inner}
    floats = strip(aware)
    np.testing.assert_array_equal(floats.get_layer("norm").moving_variance, old["norm"].moving_variance)
    np.testing.assert_array_equal(floats.get_layer("depthwise").bias, old["depthwise"].bias)


def test_ranges_move_no_faster_than_later(quantized):
    aware = from_tf_keras(quantized)
    before = ranges_of(aware)
    aware.compile(keras.optimizers.SGD(0.0), LOSS)
    aware.fit(X[:16] * 100, Y[:16], batch_size=16, verbose=0)
    for name, (low, high) in ranges_of(aware).items():
        assert high - low >= 0.98 * (before[name][1] - before[name][0])
    low, high = ranges_of(aware)["image"]
    reached = X[:16].max() * 100
    assert high == pytest.approx(0.99 * before["image"][1] + 0.01 * reached, rel=1e-3)


def test_a_quantize_aware_model_trains_on(quantized, tmp_path):
    aware = fitted(from_tf_keras(quantized))
    aware.save(tmp_path / "aware.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "aware.keras")(X), aware(X), atol=1e-6)


def test_a_pruned_quantize_aware_model_keeps_its_zeros(pruned):
    from_pruned = sparsity.strip_pruning(pruned)
    annotated = quantization.quantize_annotate_model(from_pruned)
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    old = fitted(quantization.quantize_apply(annotated, scheme))
    aware = fitted(from_tf_keras(old), [PreserveCompression()])
    for name in ("conv", "scores"):
        assert np.mean(kernels(strip(aware))[name] == 0) == pytest.approx(0.7, abs=0.01)


def test_clusters_that_quantization_preserves_have_to_be_stripped_first(clustered):
    annotated = quantization.quantize_annotate_model(clustering.strip_clustering(clustered))
    scheme = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme()
    old = fitted(quantization.quantize_apply(annotated, scheme), epochs=1)
    with pytest.raises(ModelError, match="strip_clustering_cqat"):
        from_tf_keras(old)
    aware = from_tf_keras(tfmot.experimental.combine.strip_clustering_cqat(old))
    assert np.unique(kernels(strip(aware))["scores"]).size <= 8


def test_layers_that_were_not_annotated_stay_in_float():
    annotate = quantization.quantize_annotate_layer
    model = tf_keras.Sequential([L.Input((4,)), L.Dense(4, name="free"), annotate(L.Dense(3, name="rounded"))])
    migration = migrate(quantization.quantize_apply(model))
    wrapped = [layer.name for layer in migration.model.layers if "int8" in layer.name]
    assert len(wrapped) == 1
    assert "rounded" in wrapped[0]
    rows = {row.layer: row.origin for row in migration.layers}
    assert rows == {"free": "quantized", "rounded": "quantized"}  # only the output of the first


def test_calibration_sets_the_ranges_that_tfmot_has_not():
    model = tf_keras.Sequential([L.Input((4,)), L.Dense(8, name="hidden"), L.Softmax(name="scores")])

    def annotate(layer):
        return quantization.quantize_annotate_layer(layer) if layer.name == "hidden" else layer

    old = quantization.quantize_apply(tf_keras.models.clone_model(model, clone_function=annotate))
    assert migrate(old).ranges_missing
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    aware = from_tf_keras(old, calibration=x)
    assert all(layer.is_known for layer in aware.layers if isinstance(layer, FakeQuantize))
