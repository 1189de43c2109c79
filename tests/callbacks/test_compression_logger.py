import csv
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfopt
from tfopt.callbacks import CompressionLogger, MagnitudePruning, PreserveCompression
from tfopt.callbacks.compression_measures import CompressionMeasures
from tfopt.callbacks.epoch_table import EpochTable
from tfopt.compression.coding import coded_size_bytes
from tfopt.errors import ConfigError, ModelError
from tfopt.quantization import quantize_aware
from tfopt.schedules import as_keras, polynomial

rng = np.random.default_rng(0)
X = rng.normal(size=(32, 10)).astype(np.float32)
Y = rng.normal(size=(32, 4)).astype(np.float32)


def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((10,)), layers.Dense(20, activation="relu", name="hidden"), layers.Dense(4, name="head")]
    )


def fit(model, *callbacks, optimizer="adam", epochs=2, initial_epoch=0, **options):
    model.compile(optimizer, "mse", **options)
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, initial_epoch=initial_epoch, verbose=0, callbacks=list(callbacks)
    ).history


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scalars(folder):
    """Tag to {step: value}, of all files of a folder."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


@pytest.mark.slow
def test_rows_say_what_the_model_was_after_each_epoch(tmp_path):
    model, kernels = make_model(), []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernels.append([np.array(layer.kernel) for layer in self.model.layers])

    prune = MagnitudePruning(0.75, end_step=6, frequency=1, layers="hidden")
    history = fit(model, prune, CompressionLogger(tmp_path / "log.csv"), Keep())
    rows = read(tmp_path / "log.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for row, (hidden, head) in zip(rows, kernels, strict=True):
        assert float(row["sparsity/hidden/kernel"]) == np.mean(hidden == 0)
        assert float(row["sparsity/head/kernel"]) == 0
        assert float(row["sparsity"]) == np.mean(np.append(hidden, head) == 0)
        assert int(row["coded_bytes/hidden/kernel"]) == coded_size_bytes(hidden)
        assert float(row["learning_rate"]) == pytest.approx(1e-3)
    assert float(rows[1]["sparsity/hidden/kernel"]) == 0.75
    # What pruning logged stays: the sparsity of what it prunes.
    assert history["sparsity"][1] == 0.75
    assert history["coded_bytes"] == [int(row["coded_bytes"]) for row in rows]


def test_totals_are_those_of_inspect_and_go_to_the_logs(tmp_path):
    model = make_model()
    history = fit(model, CompressionLogger(tmp_path / "log.csv"))
    found = tfopt.inspect(model)
    last = read(tmp_path / "log.csv")[-1]
    assert int(last["raw_bytes"]) == found.size_bytes
    assert int(last["coded_bytes"]) == sum(part.coded_bytes for part in found.parts) == history["coded_bytes"][-1]
    assert history["sparsity"] == [0.0, 0.0]


def test_shared_values_are_counted_where_they_are_few(tmp_path):
    model = make_model()
    model.layers[0].kernel.assign(np.where(np.array(model.layers[0].kernel) > 0, 0.5, -0.25))
    fit(model, PreserveCompression(), CompressionLogger(tmp_path / "log.csv"))
    for row in read(tmp_path / "log.csv"):
        assert row["distinct_values/hidden/kernel"] == "2"
        assert row["distinct_values/head/kernel"] == ""
        assert int(row["coded_bytes/hidden/kernel"]) < 100


def test_a_sparse_kernel_shares_no_values_but_its_zeros():
    model = make_model()
    kernel = np.array(model.layers[0].kernel)
    sparse = np.where(np.arange(200).reshape(10, 20) % 10 == 0, kernel, 0)
    for weights, expected in ((sparse, None), (np.where(sparse, 0.5, 0), 2)):
        model.layers[0].kernel.assign(weights)
        assert CompressionMeasures(model).measure()["distinct_values/hidden/kernel"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_ranges_of_a_quantize_aware_model(tmp_path, learned):
    model = quantize_aware(make_model(), calibration=X, config=tfopt.QuantizationConfig(learn_ranges=learned))
    fit(model, CompressionLogger(tmp_path / "log.csv", tmp_path / "board"), epochs=1)
    [row] = read(tmp_path / "log.csv")
    layer = model.get_layer("hidden_activation_range")
    minimum, maximum = (float(end) for end in layer.range())
    assert float(row["range_minimum/hidden_activation_range"]) == minimum
    assert float(row["range_maximum/hidden_activation_range"]) == maximum
    assert maximum > 0.5
    assert scalars(tmp_path / "board")["range_maximum/hidden_activation_range"] == {0: pytest.approx(maximum)}


def test_a_range_that_was_not_observed_is_left_empty():
    measured = CompressionMeasures(quantize_aware(make_model())).measure()
    ranges = {name: value for name, value in measured.items() if name.startswith("range_")}
    assert len(ranges) == 6
    assert set(ranges.values()) == {None}


def test_tensorboard_has_what_the_file_has(tmp_path):
    fit(make_model(), CompressionLogger(tmp_path / "log.csv", tmp_path / "board"), epochs=3)
    rows = read(tmp_path / "log.csv")
    found = scalars(tmp_path / "board")
    names = [name for name in rows[0] if name != "epoch" and rows[0][name]]
    assert sorted(found) == sorted(names)
    for name in names:
        assert found[name] == {epoch: pytest.approx(float(row[name])) for epoch, row in enumerate(rows)}


@pytest.mark.slow
def test_nested_models_and_shared_names_have_columns_of_their_own(tmp_path):
    inner = [keras.Sequential([keras.Input((10,)), layers.Dense(10, name="same")], name=f"block_{i}") for i in (1, 2)]
    model = keras.Sequential([keras.Input((10,)), *inner, layers.Dense(4, name="head")])
    fit(model, CompressionLogger(tmp_path / "log.csv"), epochs=1)
    [row] = read(tmp_path / "log.csv")
    sparsities = [name for name in row if name.startswith("sparsity/")]
    assert sparsities == ["sparsity/block_1/same/kernel", "sparsity/block_2/same/kernel", "sparsity/head/kernel"]

    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = (layers.Dense(4, name="same") for _ in range(2))

        def call(self, x):
            return self.second(self.first(x))

    fit(Twice(), CompressionLogger(tmp_path / "twice.csv"), epochs=1)
    [row] = read(tmp_path / "twice.csv")
    assert len([name for name in row if name.startswith("sparsity/")]) == 2


def test_a_model_that_the_first_batch_builds(tmp_path):
    model = keras.Sequential([layers.Dense(4, name="dense")])
    fit(model, CompressionLogger(tmp_path / "log.csv"), epochs=2)
    assert [row["epoch"] for row in read(tmp_path / "log.csv")] == ["0", "1"]


@pytest.mark.slow
def test_it_changes_nothing_of_the_training(tmp_path):
    first, second = make_model(), make_model()
    fit(first, CompressionLogger(tmp_path / "log.csv", tmp_path / "board"))
    fit(second)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"steps_per_execution": 4}, {"jit_compile": True}, {"run_eagerly": True}])
def test_however_steps_run(tmp_path, options):
    fit(
        make_model(), MagnitudePruning(0.5, end_step=4, frequency=1), CompressionLogger(tmp_path / "log.csv"), **options
    )
    assert [float(row["sparsity"]) for row in read(tmp_path / "log.csv")] == [0.5, 0.5]


def test_a_rate_that_is_a_schedule(tmp_path):
    optimizer = keras.optimizers.SGD(as_keras(polynomial(0.1, 0.0, end_step=8, power=1.0)))
    fit(make_model(), CompressionLogger(tmp_path / "log.csv"), optimizer=optimizer)
    rates = [float(row["learning_rate"]) for row in read(tmp_path / "log.csv")]
    assert rates == [pytest.approx(0.05), pytest.approx(0)]


def test_layers_and_sizes_can_be_left_out(tmp_path):
    history = fit(make_model(), CompressionLogger(tmp_path / "log.csv", layers="head", coded=False))
    assert list(read(tmp_path / "log.csv")[0]) == [
        *("epoch", "learning_rate", "sparsity", "raw_bytes"),
        *("sparsity/head/kernel", "distinct_values/head/kernel"),
    ]
    assert "coded_bytes" not in history
    assert "sparsity" in history


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_fit_leaves_the_file_of_an_uninterrupted_one(tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    fit(make_model(), CompressionLogger(tmp_path / "whole.csv"), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), CompressionLogger(tmp_path / "log.csv"), backup(), Interrupt(), epochs=4)
    assert len(read(tmp_path / "log.csv")) == 2
    fit(make_model(), CompressionLogger(tmp_path / "log.csv"), backup(), epochs=4)
    assert (tmp_path / "log.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.slow
def test_epochs_that_are_run_again_replace_their_rows(tmp_path):
    model, logger = make_model(), CompressionLogger(tmp_path / "log.csv")
    fit(model, logger, epochs=3)
    before = read(tmp_path / "log.csv")
    fit(model, logger, epochs=4, initial_epoch=2)
    after = read(tmp_path / "log.csv")
    assert [row["epoch"] for row in after] == ["0", "1", "2", "3"]
    assert after[:2] == before[:2]
    fit(model, logger, epochs=1)
    assert [row["epoch"] for row in read(tmp_path / "log.csv")] == ["0"]


@pytest.mark.parametrize("initial_epoch", [0, 1])
def test_a_file_with_other_columns_is_refused_before_training_and_left_alone(tmp_path, initial_epoch):
    path = tmp_path / "log.csv"
    fit(make_model(), CompressionLogger(path, layers="hidden"))
    written, model = path.read_text(), make_model()
    weights = model.get_weights()
    with pytest.raises(
        ConfigError,
        match=r"^CompressionLogger: csv='.*log.csv' has other columns than this fit writes: it lacks "
        r"'sparsity/head/kernel', 'distinct_values/head/kernel', 'coded_bytes/head/kernel' and only it has "
        r"'sparsity/hidden/kernel'",
    ):
        fit(model, CompressionLogger(path, layers="head"), initial_epoch=initial_epoch)
    assert path.read_text() == written
    assert all(np.array_equal(one, other) for one, other in zip(weights, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,price\nbread,2\n", r"it lacks 'epoch', 'loss' and only it has 'name', 'price'"),
        ("loss,epoch\n", "they are in another order"),
        ("epoch,loss\n0,0.5\n1", r"row 3 of csv=.* must be an epoch and 1 values. Received: '1'"),
        ("epoch,loss\nfirst,0.5\n", r"row 2 .*Received: 'first,0.5'"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        ('epoch,loss\n0,"0.5', "cannot be read as a table"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        EpochTable(path, ["loss"], first_epoch=1)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_file_is_begun_and_names_with_commas_are_read_back(tmp_path):
    path = tmp_path / "table.csv"
    path.touch()
    EpochTable(path, ['a, "b"'], first_epoch=0).add(0, {'a, "b"': 1e-9})
    EpochTable(path, ['a, "b"'], first_epoch=1)
    assert read(path) == [{"epoch": "0", 'a, "b"': "1e-09"}]


def test_a_write_that_fails_leaves_the_rows_before(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    table = EpochTable(path, ["loss"], first_epoch=0)
    table.add(0, {"loss": 0.5})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ConfigError, match=r"Cannot write .*table\.csv: expected free space"):
        table.add(1, {"loss": 0.25})
    assert path.read_text() == "epoch,loss\n0,0.5\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("arguments", [{"csv": 5}, {"csv": ""}, {"tensorboard": True}])
def test_what_is_no_path_is_refused(arguments):
    [(name, received)] = arguments.items()
    with pytest.raises(ConfigError, match=rf"^CompressionLogger: {name} must be a path.*Received: {received!r}\."):
        CompressionLogger(**arguments)


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"tensorboard must be a folder that .* Received: .*file/board"):
        fit(make_model(), CompressionLogger(tensorboard=tmp_path / "file" / "board"))
    with pytest.raises(ConfigError, match=r"tensorboard must be a folder"):
        fit(make_model(), CompressionLogger(tensorboard=tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be read as a table .*Is a directory"):
        fit(make_model(), CompressionLogger(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be read as a table .*Not a directory"):
        fit(make_model(), CompressionLogger(tmp_path / "file" / "log.csv"))
    assert (tmp_path / "file").read_text() == "mine"


def test_layers_that_match_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer.*hidden, head"):
        fit(make_model(), CompressionLogger(layers="tail"))
    with pytest.raises(ModelError, match=r"has no Dense or Conv layer"):
        fit(keras.Sequential([keras.Input((4, 10)), layers.LSTM(4)]), CompressionLogger())


def test_config_has_paths_as_text(tmp_path):
    config = CompressionLogger(tmp_path / "log.csv", "gs://bucket/logs", layers="head", coded=False).get_config()
    assert config == {
        "csv": str(tmp_path / "log.csv"),
        "tensorboard": "gs://bucket/logs",
        "layers": "head",
        "coded": False,
    }
    again = CompressionLogger.from_config(config)
    assert again.csv == tmp_path / "log.csv"
    assert again.tensorboard == "gs://bucket/logs"


# Logical devices must be set before TensorFlow starts, hence a process of its own.
MIRRORED = textwrap.dedent("""
    import sys
    import keras, numpy as np, tensorflow as tf
    from tfopt.callbacks import CompressionLogger, MagnitudePruning
    from tfopt.quantization import quantize_aware

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        plain = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(4)])
        model = quantize_aware(plain)
        model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(32, 10)).astype("float32")
    folder = sys.argv[1]
    callbacks = [MagnitudePruning(0.5, end_step=2, frequency=1), CompressionLogger(f"{folder}/log.csv", folder)]
    history = model.fit(x, x[:, :4], batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    print(*history.history["sparsity"])
""")


@pytest.mark.thorough
def test_it_reads_a_model_under_a_mirrored_strategy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, tmp_path], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0.5 0.5"]
    rows = read(tmp_path / "log.csv")
    assert [row["sparsity"] for row in rows] == ["0.5", "0.5"]
    assert all(float(row["range_maximum/hidden_range"]) > float(row["range_minimum/hidden_range"]) for row in rows)
    assert scalars(tmp_path)["sparsity"] == {0: 0.5, 1: 0.5}
