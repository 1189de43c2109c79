import keras
import numpy as np
import pytest

from tfopt.callbacks import EarlyStopping
from tfopt.errors import ConfigError


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_sparsity": 80}, r"min_sparsity must be in \[0, 1\). Received: 80. Did you mean 0.80\?"),
        ({"min_epochs": -1}, r"min_epochs must be a whole number of at least 0. Received: -1"),
        ({"min_epochs": 1.5}, r"Received: 1.5"),
        ({"layers": "head"}, r"Received: layers='head' with min_sparsity=None. Give both or neither"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ConfigError, match="EarlyStopping: .*" + message):
        EarlyStopping(**options)
