import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.distillation import DistanceLoss, Distiller, FeatureLoss, LogitsLoss
from tfopt.distillation.fixed_data import FixedData, WithTeacher
from tfopt.distillation.teacher_cache import RECORD, TeacherCache
from tfopt.distillation.teachers import Teachers
from tfopt.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3


def network(units, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), L.Dense(units, "relu", name="hidden"), L.Dropout(0.5), L.Dense(3)])


def cache(folder, teacher=None, losses=None):
    return TeacherCache(folder, Teachers(teacher or network(8), network(2), losses or [LogitsLoss()]))


def fitted(teacher, cache=None, data=(X, Y), epochs=2, losses=None, **options):
    student = network(4, seed=1)
    distiller = Distiller(student, teacher, losses, cache=cache)
    distiller.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    keras.utils.set_random_seed(2)
    history = distiller.fit(*data, epochs=epochs, verbose=0, **options).history
    return student, history


def test_a_fit_on_stored_answers_is_that_with_the_teachers(tmp_path):
    teachers = [network(8), network(6, seed=5)]
    losses = [LogitsLoss(), DistanceLoss("hidden", "hidden")]
    plain, history = fitted(teachers, losses=losses, batch_size=8)
    for _ in range(2):  # written, then read
        cached, again = fitted(teachers, tmp_path / "answers", losses=losses, batch_size=8)
        assert all(np.allclose(history[name], again[name], rtol=1e-5) for name in history)
        assert all(
            np.allclose(*pair, atol=1e-5) for pair in zip(plain.get_weights(), cached.get_weights(), strict=True)
        )


def test_epochs_do_not_run_the_teacher(tmp_path):
    teacher = network(8)
    ran = []
    layer, call = teacher.get_layer("hidden"), teacher.get_layer("hidden").call

    def counted(x, **kwargs):
        tf.py_function(lambda: ran.append(True), [], [])
        return call(x, **kwargs)

    layer.call = counted
    fitted(teacher, tmp_path / "answers", batch_size=8, epochs=3)
    assert len(ran) == 2  # 40 samples in one batch, and one batch again for the comparison
    fitted(teacher, tmp_path / "answers", batch_size=8, epochs=3)
    assert len(ran) == 3


def test_datasets_of_a_fixed_order(tmp_path):
    teacher = network(8)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    plain, _ = fitted(teacher, data=(dataset,), shuffle=False)
    cached, _ = fitted(teacher, tmp_path / "answers", data=(dataset,), shuffle=False)
    assert all(np.allclose(*pair, atol=1e-5) for pair in zip(plain.get_weights(), cached.get_weights(), strict=True))

    distiller = Distiller(network(4), teacher, cache=tmp_path / "answers")
    attached = distiller.attach_answers(dataset)
    assert int(attached.cardinality()) == 6
    for sample, _ in attached.unbatch().shuffle(100, seed=0).batch(5):
        assert isinstance(sample, WithTeacher)
        assert np.allclose(sample.answers[0][0], teacher(sample.inputs), atol=1e-5)
    assert distiller.attach_answers(attached) is attached


def test_samples_without_labels(tmp_path):
    teacher = network(8)
    for number, data in enumerate([X, tf.data.Dataset.from_tensor_slices(X).batch(8)]):
        distiller = Distiller(network(4), teacher, cache=tmp_path / str(number))
        distiller.compile("adam")
        history = distiller.fit(data, epochs=2, verbose=0, shuffle=False).history
        assert 0 < history["logits_loss"][1] < history["logits_loss"][0]


def test_structures_of_samples_and_float16_answers(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    teacher = keras.Model({"a": a, "b": b}, L.Dense(3, dtype="mixed_bfloat16")(L.Concatenate()([a, b])))
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    student = keras.Model({"a": a, "b": b}, L.Dense(3)(L.Concatenate()([a, b])))
    data = {"a": X[:, :2], "b": X[:, 2:]}
    attached = TeacherCache(tmp_path / "c", Teachers(teacher, student, [LogitsLoss()])).attach(data)
    assert attached.inputs is data
    assert attached.answers[0][0].dtype == np.float32
    assert np.allclose(attached.answers[0][0], np.asarray(teacher(data)).astype(np.float32), atol=1e-2)


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (lambda folder: cache(folder), X + 1, "answers of other data"),
        (lambda folder: cache(folder), X[:20], "answers of other data"),
        (lambda folder: cache(folder, network(8, seed=9)), X, "answers of other teachers or losses"),
        (lambda folder: cache(folder, losses=[FeatureLoss("hidden", "hidden")]), X, "other teachers or losses"),
    ],
)
def test_a_cache_of_something_else_is_refused(tmp_path, make, data, message):
    folder = tmp_path / "answers"
    cache(folder).attach(X)
    with pytest.raises(
        DataError, match=f"answers does not belong to this training: .*{message}.*Choose another folder"
    ):
        make(folder).attach(data)


def test_a_teacher_that_computes_otherwise_with_the_same_weights_is_refused(tmp_path):
    teacher = network(8)
    cache(tmp_path / "answers", teacher).attach(X)
    teacher.get_layer("hidden").activation = keras.activations.tanh
    with pytest.raises(DataError, match="the teachers now give other answers"):
        cache(tmp_path / "answers", teacher).attach(X)


def test_damaged_folders_are_refused(tmp_path):
    folder = tmp_path / "answers"
    cache(folder).attach(X)
    record = json.loads((folder / RECORD).read_text())
    file = folder / record["answers"][0]["file"]
    whole = file.read_bytes()
    for damage in (whole[:-4], whole + b"0000", bytes(len(whole)), b""):
        file.write_bytes(damage)
        with pytest.raises(DataError, match="does not belong to this training"):
            cache(folder).attach(X)
    file.unlink()
    with pytest.raises(DataError, match="its files are damaged"):
        cache(folder).attach(X)
    for text in ("{", "[]", '{"data_sha256": "0"}'):
        (folder / RECORD).write_text(text)
        with pytest.raises(DataError, match="must be a new folder, or one that a Distiller wrote"):
            cache(folder).attach(X)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new folder"):
        cache(tmp_path / "other").attach(X)
    assert (tmp_path / "other" / "mine.txt").read_text() == "mine"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(seen, batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("tfopt.distillation.teacher_cache.update_digest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "new" / "answers").attach(np.repeat(X, 20, axis=0))
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_shuffles_is_refused(tmp_path):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(40).batch(8)
    with pytest.raises(DataError, match=r"yields the same batches at every pass.*attach_answers"):
        cache(tmp_path / "answers").attach(dataset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([X]), "Received: list_iterator"),
        ([X, X[:3]], "arrays of as many samples each"),
        (tf.data.Dataset.from_tensors(X).repeat(), "Received: a dataset without an end"),
        (np.array(["a", 1], dtype=object), "Received: dtype object"),
    ],
)
def test_data_without_a_place_for_each_sample_is_refused(tmp_path, data, message):
    with pytest.raises(ConfigError, match=message):
        cache(tmp_path / "answers").attach(data)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="is empty"):
        _ = FixedData(tf.data.Dataset.from_tensors(X).take(0)).sizes


def test_without_a_cache_there_are_no_answers_to_attach():
    with pytest.raises(ConfigError, match="there is no cache"):
        Distiller(network(4), network(8)).attach_answers(X)
