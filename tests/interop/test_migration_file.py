"""Files of tf_keras become files of Keras 3, whole or not at all, and a report says what came along."""

import json
import signal
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tf_keras_networks import L, image_network, images, randomized, tf_keras

from tfopt.cli import main
from tfopt.errors import ConfigError, ModelError
from tfopt.interop.legacy import import_tfmot
from tfopt.interop.migration_file import load_tf_keras, migrate_file
from tfopt.model_file import load_model
from tfopt.quantization.quantize_aware import is_quantize_aware

MLPERF = Path(__file__).parents[3] / "shared" / "data" / "mlperf_tiny"
X, _ = images()
# tf_keras and tfmot use what NumPy 2 and TensorFlow 2.21 will take away.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ["old.h5", "old.hdf5", "old.keras", "old"])
def test_every_format_of_tf_keras(tmp_path, name):
    old = randomized(image_network())
    old.save(tmp_path / name)
    migration = migrate_file(tmp_path / name, tmp_path / "below" / "new.keras")
    new = load_model(tmp_path / "below" / "new.keras")
    np.testing.assert_allclose(new(X), old(X), atol=1e-5)
    assert migration.largest_difference < 1e-5
    assert [row.layer for row in migration.layers][:2] == ["conv", "norm"]


@pytest.mark.parametrize(
    ("what", "suffix"),
    [("pruned", ".h5"), ("clustered", ".h5"), ("quantized", ".h5"), ("pruned", ".keras"), ("clustered", ".keras")],
)
def test_files_with_layers_of_tfmot(tmp_path, what, suffix):
    tfmot = import_tfmot()
    small = randomized(tf_keras.Sequential([L.Input((4,)), L.Dense(16, "relu"), L.Dense(3, "softmax")]))
    wrap = {
        "pruned": tfmot.sparsity.keras.prune_low_magnitude,
        "clustered": lambda model: tfmot.clustering.keras.cluster_weights(
            model, number_of_clusters=4, cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.LINEAR
        ),
        "quantized": tfmot.quantization.keras.quantize_model,
    }[what]
    old = wrap(small)
    old.save(tmp_path / f"old{suffix}")
    migration = migrate_file(tmp_path / f"old{suffix}", tmp_path / "new.keras")
    assert {row.origin for row in migration.layers} == {what}
    new = load_model(tmp_path / "new.keras")
    assert is_quantize_aware(new) == (what == "quantized")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    np.testing.assert_allclose(new(x), old(x), atol=3 / 256 if what == "quantized" else 1e-5)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not MLPERF.exists(), reason="the data folder is absent")
@pytest.mark.parametrize("name", ["vww_96.h5", "ad01.h5"])
def test_files_of_mlperf_tiny(tmp_path, name):
    assert migrate_file(MLPERF / name, tmp_path / "new.keras").largest_difference <= 1e-5
    assert load_model(tmp_path / "new.keras").count_params() > 200_000


def test_the_command_line(tmp_path, monkeypatch, capsys):
    randomized(image_network()).save(tmp_path / "old.h5")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["tfopt", "migrate", str(tmp_path / "old.h5")])
    with pytest.raises(SystemExit) as end:
        main()
    signal.signal(signal.SIGTERM, before)
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert "depthwise  DepthwiseConv2D     plain  160 weights" in printed
    assert "Outputs on random inputs differ by at most" in printed
    assert "compile the model before training" in printed
    assert str(tmp_path / "old_keras_3.keras") in printed
    assert isinstance(load_model(tmp_path / "old_keras_3.keras"), keras.Model)


def of_keras_3(path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path / "new.keras")
    return path / "new.keras"


def of_keras_3_in_hdf5(path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path / "new.h5")
    return path / "new.h5"


def with_a_lambda(suffix):
    def make(path):
        tf_keras.Sequential([L.Input((4,)), L.Lambda(lambda x: x + 1)]).save(path / f"code{suffix}")
        return path / f"code{suffix}"

    return make


def with_custom_layer(path):
    class Mine(L.Layer):
        pass

    tf_keras.Sequential([L.Input((4,)), Mine()]).save(path / "mine.h5")
    return path / "mine.h5"


def quantize_aware_in_the_new_format(path):
    import_tfmot().quantization.keras.quantize_model(image_network()).save(path / "aware.keras")
    return path / "aware.keras"


def truncated(path):
    image_network().save(path / "cut.h5")
    content = (path / "cut.h5").read_bytes()
    (path / "cut.h5").write_bytes(content[: len(content) // 2])
    return path / "cut.h5"


def without_weights_of_a_config(path):
    with h5py.File(path / "odd.h5", "w") as file:
        file.attrs["model_config"] = "no JSON"
    return path / "odd.h5"


def archive_without_a_model(path):
    with zipfile.ZipFile(path / "odd.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15"}))
    return path / "odd.keras"


def folder_without_layers(path):
    (path / "saved").mkdir()
    (path / "saved" / "saved_model.pb").write_bytes(b"")
    return path / "saved"


def other_kind(path):
    (path / "model.tflite").write_bytes(b"TFL3")
    return path / "model.tflite"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_keras_3, r"file of Keras 3.*needs no migration"),
        (of_keras_3_in_hdf5, r"file of Keras 3.*needs no migration"),
        (with_a_lambda(".h5"), "has a Lambda layer '.*', whose code is in the file"),
        (with_a_lambda(".keras"), r"deserialization of a Lambda layer.*disallowed by default"),
        (with_a_lambda(""), "has no layer Lambda"),
        (with_custom_layer, r"layers of your own.*custom_objects=\.\.\..*tf_keras says:.*Mine"),
        (quantize_aware_in_the_new_format, r"does not read the \.keras files that it writes.*save it as \.h5"),
        (truncated, "the file is damaged"),
        (without_weights_of_a_config, "the file is damaged"),
        (archive_without_a_model, "the file is damaged"),
        (folder_without_layers, "a folder without keras_metadata.pb"),
        (other_kind, r"Expected a model of tf_keras.*model\.tflite"),
        (lambda path: path / "absent.h5", r"No model at .*absent\.h5"),
    ],
)
def test_what_cannot_be_migrated_writes_nothing(tmp_path, make, message):
    with pytest.raises(ModelError, match=message):
        migrate_file(make(tmp_path), tmp_path / "out" / "new.keras")
    assert not (tmp_path / "out").exists()


def test_the_new_file_is_named_as_one(tmp_path):
    image_network().save(tmp_path / "old.keras")
    before = (tmp_path / "old.keras").read_bytes()
    with pytest.raises(ConfigError, match=r"ending in \.keras\. Received: .*new\.h5"):
        migrate_file(tmp_path / "old.keras", tmp_path / "new.h5")
    with pytest.raises(ConfigError, match="must have another name than the old one"):
        migrate_file(tmp_path / "old.keras", tmp_path / "old.keras")
    assert (tmp_path / "old.keras").read_bytes() == before


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    image_network().save(tmp_path / "old.h5")
    (tmp_path / "new.keras").write_bytes(b"before")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        migrate_file(tmp_path / "old.h5", tmp_path / "new.keras")
    assert (tmp_path / "new.keras").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"old.h5", "new.keras"}


def test_a_loaded_file_is_the_model(tmp_path):
    old = randomized(image_network())
    old.save(tmp_path / "old.h5")
    np.testing.assert_array_equal(load_tf_keras(tmp_path / "old.h5")(X), old(X))
