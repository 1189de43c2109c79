import struct

import keras
import numpy as np
import pytest

from tfopt.compression import checkpoint
from tfopt.compression.checkpoint import load_coded, save_coded
from tfopt.compression.clustering import cluster
from tfopt.errors import ConfigError, DataError, ModelError

layers = keras.layers


@keras.saving.register_keras_serializable("test_checkpoint")
class Subclassed(keras.Model):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.units = units
        self.hidden = layers.Dense(8)
        self.head = layers.Dense(units)

    def call(self, x):
        return self.head(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def compressed_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(32, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(24, name="hidden"),
        ],
        name="compressed",
    )
    for layer in (model.get_layer("conv"), model.get_layer("hidden")):
        weights = np.array(layer.kernel)
        weights[np.abs(weights) < np.quantile(np.abs(weights), 0.8)] = 0
        layer.kernel.assign(weights)
    return cluster(model, 16)


def bits(model):
    return [(weight.dtype, np.array(keras.ops.convert_to_numpy(weight)).tobytes()) for weight in model.weights]


def assert_restored(model, path, *samples):
    save_coded(model, path)
    restored = load_coded(path)
    assert type(restored) is type(model)
    assert bits(restored) == bits(model)
    if samples:
        np.testing.assert_array_equal(model(*samples), restored(*samples))
    return restored


@pytest.fixture(scope="module")
def model():
    return compressed_model()


@pytest.fixture
def path(model, tmp_path):
    return save_coded(model, tmp_path / "model.coded").path


def test_a_compressed_model_is_restored_from_a_small_file(model, tmp_path):
    path = tmp_path / "new" / "model.coded"
    written = save_coded(model, path)
    assert [file.name for file in path.parent.iterdir()] == ["model.coded"]
    assert written.size_bytes == path.stat().st_size
    assert written.raw_bytes == sum(np.asarray(weight).nbytes for weight in model.weights)
    assert written.ratio > 12
    restored = load_coded(path)
    assert not restored.compiled
    assert bits(restored) == bits(model)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2))
    np.testing.assert_array_equal(model(x), restored(x))


def test_the_report_names_each_weight(model, tmp_path):
    written = save_coded(model, tmp_path / "model.coded")
    kernel = next(row for row in written.weights if row.path == "hidden/kernel")
    size = 6 * 6 * 32 * 24
    assert (kernel.shape, kernel.distinct_values, kernel.raw_bytes) == ((1152, 24), 16, 4 * size)
    assert kernel.nonzeros == pytest.approx(0.2 * size, rel=0.01)
    assert 8 * kernel.coded_bytes / size < 1.06 * kernel.entropy_bits
    lines = str(written).splitlines()
    assert lines[0].split()[:3] == ["weight", "shape", "distinct"]
    assert len(lines) == len(model.weights) + 2
    assert lines[-1].endswith(
        f"{written.size_bytes:,} bytes, {written.ratio:.1f} times smaller than {4 * model.count_params():,}"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "mixed_bfloat16", "float64"])
def test_weights_of_any_precision_are_restored(dtype, tmp_path):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, dtype=dtype), layers.Dense(2)])
    assert_restored(model, tmp_path / "model.coded", np.ones((2, 16)))


def test_nested_shared_and_recurrent_layers_are_restored(tmp_path):
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    inner = keras.Model(x, shared(shared(x)), name="inner")
    sequence = keras.Input((5, 4))
    outputs = layers.Bidirectional(layers.LSTM(3))(layers.TimeDistributed(inner)(sequence))
    model = keras.Model(sequence, [outputs, layers.MultiHeadAttention(2, 3)(sequence, sequence)])
    assert_restored(model, tmp_path / "model.coded")


def test_layers_with_a_state_of_their_own_are_restored(tmp_path):
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)))
    model = keras.Sequential([keras.Input((4,)), normalization, layers.GaussianDropout(0.3), layers.Dense(2)])
    assert_restored(model, tmp_path / "model.coded", np.ones((2, 4)))


def test_vocabularies_are_restored(tmp_path):
    lookup = layers.StringLookup(vocabulary=["ant", "bee", "cat"], output_mode="multi_hot")
    model = keras.Sequential([keras.Input((2,), dtype="string"), lookup, layers.Dense(2)])
    restored = assert_restored(model, tmp_path / "model.coded")
    assert restored.layers[0].get_vocabulary() == lookup.get_vocabulary()


def test_a_subclassed_model_is_restored(tmp_path):
    model = Subclassed(units=5)
    model(np.ones((1, 4)))
    assert_restored(model, tmp_path / "model.coded", np.ones((1, 4)))


@pytest.mark.slow
def test_how_it_was_compiled_and_the_optimizer_stay_behind(model, tmp_path):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile("adam", "mse")
    clone.fit(np.ones((2, 8, 8, 2)), np.ones((2, 24)), verbose=0, epochs=1)
    clone.set_weights(model.get_weights())
    compiled, plain = (save_coded(each, tmp_path / f"{each.compiled}.coded") for each in (clone, model))
    assert abs(compiled.size_bytes - plain.size_bytes) < 100
    assert not load_coded(compiled.path).compiled


def test_any_changed_byte_is_noticed(path):
    data = path.read_bytes()
    places = [0, 8, 9, 10, 41, 42, 45, 46, len(data) // 2, len(data) - 1]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match=r"damaged|not a coded checkpoint|format version"):
            load_coded(path)


def test_a_file_that_was_cut_off_is_refused(path):
    data = path.read_bytes()
    for length in (0, 5, 8, 20, 45, 46, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"damaged|not a coded checkpoint"):
            load_coded(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(DataError, match="damaged: its sha256 is not the one"):
        load_coded(path)


def test_other_files_are_refused(model, path, tmp_path):
    with pytest.raises(DataError, match=r"expected a file that save_coded wrote.*No such file"):
        load_coded(tmp_path / "missing.coded")
    with pytest.raises(DataError, match="expected a file that save_coded wrote"):
        load_coded(tmp_path)
    keras_file = tmp_path / "model.keras"
    model.save(keras_file)
    with pytest.raises(DataError, match=r"model\.keras is not a coded checkpoint: it does not begin with TFOPTCKP"):
        load_coded(keras_file)
    data = path.read_bytes()
    path.write_bytes(data[:8] + struct.pack("<H", 2) + data[10:])
    with pytest.raises(DataError, match=r"expected format version 1\. Received: 2"):
        load_coded(path)


def test_a_write_that_fails_leaves_the_old_file(model, path, monkeypatch):
    before = path.read_bytes()

    def fail(array):
        raise MemoryError

    monkeypatch.setattr(checkpoint, "encode_array", fail)
    with pytest.raises(MemoryError):
        save_coded(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_model_that_cannot_be_saved_or_built_is_named(tmp_path):
    class Unregistered(layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((4,)), Unregistered(), layers.Dense(2)])
    save_coded(model, tmp_path / "model.coded")
    with pytest.raises(ModelError, match=r"cannot build the model of .*Register its own layers"):
        load_coded(tmp_path / "model.coded")

    class Unsavable(layers.Layer):
        def get_config(self):
            raise RuntimeError("no config")

        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((4,)), Unsavable(), layers.Dense(2)])
    with pytest.raises(ModelError, match=r"Keras cannot save the model .*no config"):
        save_coded(model, tmp_path / "other.coded")
    assert not (tmp_path / "other.coded").exists()


def test_other_bad_input_is_refused(tmp_path, model):
    with pytest.raises(ModelError, match="Expected a Keras 3 model"):
        save_coded("model", tmp_path / "model.coded")
    with pytest.raises(ConfigError, match="which is a folder"):
        save_coded(model, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot write"):
        save_coded(model, tmp_path / "file" / "model.coded")
