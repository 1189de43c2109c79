import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tfopt.callbacks import EarlyStopping, MagnitudePruning
from tfopt.callbacks.stopping_backup import read_backup, write_backup
from tfopt.errors import ConfigError
from tfopt.quantization import quantize_aware


class Play(keras.callbacks.Callback):
    """Sets the monitored value and the number of zeros (of 10 weights) that each epoch ends with."""

    def __init__(self, values, zeros=None, stop_at=None):
        super().__init__()
        self.values, self.zeros, self.stop_at = values, zeros or [0] * len(values), stop_at
        self.ended = 0

    def on_epoch_end(self, epoch, logs=None):
        self.ended += 1
        kernel = np.full((5, 2), float(epoch + 1), np.float32)
        kernel.reshape(-1)[: self.zeros[epoch]] = 0
        self.model.layers[0].kernel.assign(kernel)
        logs["val_loss"] = self.values[epoch]
        if epoch == self.stop_at:
            self.model.stop_training = True


def run(stopping, play, epochs=10, initial_epoch=0):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name="head")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(
        np.ones((1, 5)),
        np.ones((1, 2)),
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[play, stopping],
    )
    return model, len(history.epoch)


WORSE = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]


def test_without_its_own_arguments_it_is_keras():
    options = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
    ours, epochs = run(EarlyStopping(**options), Play(WORSE))
    theirs, expected = run(keras.callbacks.EarlyStopping(**options), Play(WORSE))
    assert epochs == expected == 3
    assert np.array_equal(ours.get_weights()[0], theirs.get_weights()[0])


@pytest.mark.parametrize(("min_epochs", "expected"), [(0, 3), (3, 3), (6, 6), (99, 10)])
def test_it_does_not_stop_before_min_epochs(min_epochs, expected):
    stopping = EarlyStopping("val_loss", patience=2, min_epochs=min_epochs)
    assert run(stopping, Play(WORSE))[1] == expected


def test_improvement_during_min_epochs_counts():
    model, epochs = run(
        EarlyStopping("val_loss", patience=1, min_epochs=5, restore_best_weights=True),
        Play([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]),
    )
    assert epochs == 5
    assert model.layers[0].kernel[0, 0] == 2.0  # those of the second epoch


def test_min_epochs_counts_the_epochs_before_a_resumed_fit():
    stopping = EarlyStopping("val_loss", patience=1, min_epochs=6)
    assert run(stopping, Play(WORSE), initial_epoch=4)[1] == 2


def test_dense_epochs_neither_count_nor_become_the_best():
    zeros = [0, 2, 4, 6, 8, 8, 8, 8, 8, 8]
    scores = [1.0, 2.0, 3.0, 4.0, 9.0, 8.0, 8.5, 8.6, 8.7, 8.8]
    model, epochs = run(
        EarlyStopping("val_loss", patience=2, restore_best_weights=True, min_sparsity=0.8),
        Play(scores, zeros),
    )
    assert epochs == 8  # best at the sixth, two without improvement
    assert model.layers[0].kernel[4, 1] == 6.0
    assert np.count_nonzero(model.layers[0].kernel) == 2


def test_sparsity_is_reached_to_one_weight():
    # 10 weights at 0.85: round(1.5) = 2 are kept, so 8 zeros are all that pruning gives.
    stopping = EarlyStopping("val_loss", patience=1, min_sparsity=0.85)
    assert run(stopping, Play(WORSE, [7] * 2 + [8] * 8))[1] == 4


def test_it_warns_when_no_epoch_was_sparse_enough():
    stopping = EarlyStopping("val_loss", min_sparsity=0.8)
    with pytest.warns(UserWarning, match=r"no epoch reached min_sparsity=0.8 \(the last one had 0.5000\)"):
        _, epochs = run(stopping, Play(WORSE, [5] * 10))
    assert epochs == 10


def test_it_does_not_cancel_a_stop_of_another_callback():
    stopping = EarlyStopping("val_loss", min_epochs=9)
    assert run(stopping, Play(WORSE, stop_at=3))[1] == 4
    dense = EarlyStopping("val_loss", min_sparsity=0.8)
    with pytest.warns(UserWarning, match="no epoch reached"):
        assert run(dense, Play(WORSE, stop_at=3))[1] == 4


def test_a_filter_that_matches_nothing_fails_before_the_first_epoch():
    play = Play(WORSE)
    with pytest.raises(ConfigError, match=r"layers='tail' matches no layer .* Available: head\."):
        run(EarlyStopping("val_loss", min_sparsity=0.5, layers="tail"), play)
    assert play.ended == 0


def fit_scores(stopping, scores, **options):
    """Fits with values of several names in the logs of each epoch."""

    class PlayScores(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update({name: values[epoch] for name, values in scores.items()})
            self.model.layers[0].kernel.assign(np.full((5, 2), float(epoch + 1), np.float32))

    return run(stopping, PlayScores(), **options)


LOSS = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]  # improves last at the second epoch
SCORE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]  # at the fifth


@pytest.mark.parametrize(("stop_when", "epochs"), [("all", 7), ("any", 4)])
@pytest.mark.parametrize("first", ["loss", "score"])
def test_several_values(stop_when, epochs, first):
    monitor = {"a_loss": "min", "a_score": "max"}
    if first == "score":
        monitor = dict(reversed(monitor.items()))
    stopping = EarlyStopping(monitor, patience=2, stop_when=stop_when, restore_best_weights=True)
    model, ran = fit_scores(stopping, {"a_loss": LOSS, "a_score": SCORE})
    assert ran == epochs
    # The first decides which weights are the best.
    best = 2 if first == "loss" else min(5, ran)
    assert model.layers[0].kernel[0, 0] == best
    assert stopping.summary.best_epoch == best - 1
    assert stopping.summary.best == {"a_loss": LOSS[best - 1], "a_score": SCORE[best - 1]}
    stagnant = " and ".join(monitor) + " have" if stop_when == "all" else "a_loss has"
    assert stopping.summary.reason == f"{stagnant} not improved 2 times in a row"


def test_each_value_has_its_own_delta():
    deltas = EarlyStopping(["a_loss", "a_score"], mode="max", min_delta={"a_score": 0.15}, stop_when="any", patience=2)
    # In steps of 0.1 every other epoch beats the best by 0.15, so the score improves; the loss never does.
    assert fit_scores(deltas, {"a_loss": SCORE, "a_score": SCORE})[1] == 7
    relative = EarlyStopping({"a_score": "max"}, min_delta=0.3, relative_delta=True, patience=2)
    # 0.2, 0.3 and 0.4 are 30 % above the last best; 0.5 is not.
    assert fit_scores(relative, {"a_score": SCORE})[1] == 6


def test_a_value_that_is_not_logged_is_named_at_once():
    with pytest.raises(ConfigError, match=r"Received: 'val_accurcy'. Available: loss, val_loss\."):
        run(EarlyStopping("val_accurcy"), Play(WORSE))
    with pytest.raises(ConfigError, match=r"Received: 'sparsity'.*callback before this one"):
        run(EarlyStopping({"sparsity": "max"}), Play(WORSE))


@pytest.mark.slow
def test_epochs_without_validation_are_passed_over():
    x = np.ones((4, 5), np.float32)
    model = compiled_model()
    stopping = EarlyStopping("val_loss", patience=2)
    history = model.fit(
        x, x[:, :2], epochs=9, verbose=0, validation_data=(x, x[:, :2]), validation_freq=2, callbacks=[stopping]
    )
    assert len(history.epoch) == 6  # validated after 2, 4 and 6; a rate of 0 never improves
    stopping = EarlyStopping("val_loss")
    with pytest.warns(UserWarning, match=r"never had val_loss.* Give fit\(\) validation_data"):
        compiled_model().fit(x, x[:, :2], verbose=0, callbacks=[stopping])


def compiled_model(rate=0.0, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name="head")])
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"], **options)
    return model


X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
Y = X[:, :2] * 2


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count = int(self.model.optimizer.iterations)


@pytest.mark.parametrize(("per_execution", "steps"), [(1, 13), (5, 15)])
def test_a_budget_of_steps_ends_the_fit_inside_an_epoch(per_execution, steps):
    model, counted = compiled_model(steps_per_execution=per_execution), Steps()
    stopping = EarlyStopping("loss", patience=99, max_steps=13, min_epochs=9)
    model.fit(X, Y, batch_size=4, epochs=9, verbose=0, callbacks=[stopping, counted])
    assert counted.count == steps
    assert stopping.summary.reason == "the budget of max_steps=13 is spent"
    assert stopping.summary.epochs_run == pytest.approx(steps / 10)
    assert stopping.summary.epochs_saved == pytest.approx(9 - steps / 10)


def test_a_budget_of_steps_counts_those_before_a_resumed_fit():
    model, counted = compiled_model(), Steps()
    model.fit(X, Y, batch_size=4, verbose=0, epochs=1)
    model.fit(
        X,
        Y,
        batch_size=4,
        verbose=0,
        initial_epoch=1,
        epochs=9,
        callbacks=[EarlyStopping("loss", max_steps=12), counted],
    )
    assert counted.count == 12


def test_a_budget_of_seconds_ends_the_fit(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tfopt.callbacks.early_stopping.time.monotonic", lambda: now[0])

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            now[0] += 1

    stopping = EarlyStopping("loss", patience=99, max_seconds=25, verbose=1)
    compiled_model().fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[Slow(), stopping])
    summary = stopping.summary
    assert summary.reason == "the budget of max_seconds=25 is spent"
    assert (summary.epochs_run, summary.epochs_planned, summary.seconds) == (2.5, 5, 25)
    assert (summary.seconds_per_epoch, summary.seconds_saved) == (10, 25)


@pytest.mark.slow
def test_it_says_what_it_saved(capsys):
    stopping = EarlyStopping("val_loss", patience=2, verbose=1)
    run(stopping, Play([3.0, 2.0, *WORSE[2:]]))
    shown = capsys.readouterr().out
    assert shown.startswith(
        "EarlyStopping: Stopped after 4 of 10 epochs: val_loss has not improved 2 times in a row. Saved 6 epochs, "
    )
    assert shown.endswith("Best: epoch 2, val_loss 2.\n")
    run(stopping, Play(WORSE[::-1]))
    assert str(stopping.summary).startswith("All 10 epochs ran; nothing was saved.")
    run(stopping, Play(WORSE[::-1], stop_at=3))
    assert stopping.summary.reason == "something else stopped it"
    assert stopping.summary.epochs_run == 4


def test_it_judges_inside_an_epoch():
    model, counted = compiled_model(rate=0.1), Steps()
    stopping = EarlyStopping(
        {"val_mae": "max"}, patience=2, validation_data=(X, Y), every_steps=3, restore_best_weights=True
    )
    weights = {}

    class Remember(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights[int(self.model.optimizer.iterations)] = self.model.get_weights()

    model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[Remember(), stopping, counted])
    assert counted.count == 9  # the error falls, so the best is the first, at step 3; 6 and 9 are no better
    assert stopping.summary.epochs_run == pytest.approx(0.9)
    for received, expected in zip(model.get_weights(), weights[3], strict=True):
        assert np.array_equal(received, expected)


@pytest.mark.slow
@pytest.mark.parametrize("per_execution", [1, 3])
def test_validations_inside_an_epoch_leave_training_as_it_is(per_execution):
    x = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    plain, judged = (compiled_model(rate=0.1, steps_per_execution=per_execution) for _ in range(2))
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0, "validation_data": (X, Y)}
    expected = plain.fit(X, Y, **options)
    stopping = EarlyStopping("val_loss", patience=99, validation_data=x, every_steps=4)
    received = judged.fit(X, Y, **options, callbacks=[stopping])
    assert received.history == expected.history
    assert np.array_equal(plain.get_weights()[0], judged.get_weights()[0])
    assert stopping.summary.best_epoch == 1


def step_of_tenths(step):
    return {0: 0.2, 10: 0.5, 20: 0.8}[step]


@pytest.mark.parametrize("stop_first", [True, False])
def test_the_best_weights_come_back_with_their_masks(stop_first):
    model = compiled_model(rate=0.1)
    stopping = EarlyStopping({"loss": "max"}, patience=9, restore_best_weights=True)
    # The loss is highest in the first epoch, when half of the weights are pruned; 8 of 10 are when the fit ends.
    pruning = MagnitudePruning(schedule=step_of_tenths, end_step=20, frequency=10)
    after_first = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: after_first.append(model.get_weights()))
    callbacks = [stopping, pruning] if stop_first else [pruning, stopping]
    history = model.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[*callbacks, note])
    assert history.history["sparsity"] == [0.5, 0.8, 0.8]
    assert stopping.summary.best_epoch == 0
    for received, expected in zip(model.get_weights(), after_first[0], strict=True):
        assert np.array_equal(received, expected)


def test_the_best_weights_come_back_with_their_ranges():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
    aware = quantize_aware(model)
    aware.compile(keras.optimizers.SGD(0.1), "mse")
    stopping = EarlyStopping({"loss": "max"}, patience=9, restore_best_weights=True)
    noted = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: noted.append(aware.get_weights()))
    aware.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[stopping, note])
    moved = [not np.array_equal(first, second) for first, second in zip(*noted, strict=True)]
    names = [weight.name for weight in aware.weights]
    assert sum(moved) > len(aware.trainable_weights), names  # ranges moved as well
    for received, expected in zip(aware.get_weights(), noted[0], strict=True):
        assert np.array_equal(received, expected)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_backup_keeps_patience_and_the_best(tmp_path):
    backup = tmp_path / "folder" / "stopping.npz"
    options = {"patience": 4, "restore_best_weights": True, "smoothing": 0.3}
    scores = [3.0, 1.0, *[2.0] * 8]
    _, epochs = run(whole := EarlyStopping(**options), Play(scores))

    class Both(Play, Interrupt):
        """Plays, and interrupts at the fourth epoch."""

    with pytest.raises(KeyboardInterrupt):
        run(EarlyStopping(**options, backup=backup), Both(scores))
    assert backup.exists()
    resumed = EarlyStopping(**options, backup=backup)
    model, remaining = run(resumed, Play(scores), initial_epoch=3)
    assert 3 + remaining == epochs < 10
    assert resumed.summary.best_epoch == whole.summary.best_epoch == 1
    assert resumed.summary.best == {"val_loss": 1.0}
    assert model.layers[0].kernel[0, 0] == 2.0
    assert not backup.exists()


@pytest.mark.slow
def test_a_backup_that_does_not_fit_is_named(tmp_path):
    backup = tmp_path / "stopping.npz"
    with pytest.warns(UserWarning, match=r"does not exist, so patience and the best begin anew at epoch 3"):
        run(EarlyStopping(backup=backup), Play(WORSE), initial_epoch=3)

    class Both(Play, Interrupt):
        """Plays, and interrupts at the fourth epoch."""

    with pytest.raises(KeyboardInterrupt):
        run(EarlyStopping(patience=9, backup=backup, restore_best_weights=True), Both(WORSE))
    with pytest.warns(UserWarning, match=r"is of epoch 2 and of \['val_loss'\], not of epoch 4"):
        run(EarlyStopping(patience=9, backup=backup), Play(WORSE), initial_epoch=5)

    with pytest.raises(KeyboardInterrupt):
        run(EarlyStopping(patience=9, backup=backup, restore_best_weights=True), Both(WORSE))
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    stopping = EarlyStopping("loss", patience=9, backup=backup)
    with pytest.raises(ConfigError, match="are those of another model"):
        other.fit(X, Y[:, :1], initial_epoch=3, epochs=4, verbose=0, callbacks=[stopping])
    backup.write_text("not a backup")
    with pytest.raises(ConfigError, match="is not a file that it wrote"):
        run(EarlyStopping(patience=9, backup=backup), Play(WORSE), initial_epoch=3)


def test_a_backup_keeps_bfloat16(tmp_path):
    weights = [np.array([1.5, -2.0], ml_dtypes.bfloat16), np.array([[0.25]], np.float32)]
    write_backup(tmp_path / "backup", {"epoch": 3}, weights)
    state, received = read_backup(tmp_path / "backup", weights)
    assert state["epoch"] == 3
    assert [array.dtype for array in received] == [array.dtype for array in weights]
    assert all(np.array_equal(one, other) for one, other in zip(received, weights, strict=True))


def test_data_is_no_configuration(tmp_path):
    stopping = EarlyStopping(["val_loss", "loss"], min_delta={"loss": 0.1}, backup=tmp_path / "seen", max_steps=5)
    again = EarlyStopping.from_config(stopping.get_config())
    assert again.get_config() == stopping.get_config()
    assert again.backup == tmp_path / "seen"
    with pytest.raises(ConfigError, match=r"validation_data cannot be written down"):
        EarlyStopping(validation_data=(X, Y), every_steps=3).get_config()
    with pytest.raises(ConfigError, match=r"EarlyStopping: layers cannot be written down. Received: <function"):
        EarlyStopping(min_sparsity=0.5, layers=lambda layer: True).get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_sparsity": 80}, r"min_sparsity must be in \[0, 1\). Received: 80. Did you mean 0.80\?"),
        ({"min_epochs": -1}, r"min_epochs must be a whole number of at least 0. Received: -1"),
        ({"min_epochs": 1.5}, r"Received: 1.5"),
        ({"monitor": []}, r"monitor must be a name, or several. Received: \[\]"),
        ({"monitor": {"loss": "low"}}, r"the mode of 'loss' must be one of .* Received: 'low'"),
        ({"mode": "up"}, r"Received: 'up'"),
        ({"min_delta": {"loss": 0.1}}, r"min_delta names a value that is not monitored. Received: 'loss'"),
        ({"min_delta": "small"}, r"min_delta must be a finite number. Received: 'small'"),
        ({"smoothing": 1}, r"smoothing must be in \[0, 1\). Received: 1"),
        ({"patience": -1}, r"patience .* Received: -1"),
        ({"stop_when": "one"}, r"stop_when must be 'all' or 'any'. Received: 'one'"),
        ({"monitor": ["a", "b"], "baseline": 0.5}, r"one monitored value. Received: 0.5 with \['a', 'b'\]"),
        ({"max_steps": 0}, r"max_steps .* at least 1. Received: 0"),
        ({"max_seconds": -5}, r"max_seconds must be above 0. Received: -5"),
        ({"every_steps": 5}, r"Received: every_steps=5 without validation_data"),
        ({"validation_data": (X, Y)}, r"Received: every_steps=None with validation_data"),
        ({"layers": "head"}, r"Received: layers='head' with min_sparsity=None. Give both or neither"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ConfigError, match="EarlyStopping: .*" + message):
        EarlyStopping(**options)
