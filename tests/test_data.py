"""Data is checked at the door: what fits passes unchanged, what does not is told with the received value."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfopt.artifact import TensorSpec
from tfopt.data import ArrayDataset, check_samples, load_npz
from tfopt.errors import DataError

ONE = [TensorSpec(name="image", shape=(None, 4, 2), dtype="float32")]
TWO = [
    TensorSpec(name="left", shape=(None, 2), dtype="float32"),
    TensorSpec(name="right", shape=(None, None, 3), dtype="float32"),
]


def numbered(count: int, *shape: int) -> np.ndarray:
    """Samples that each hold their own number."""
    return np.broadcast_to(np.arange(count, dtype=np.float32).reshape(-1, *[1] * len(shape)), (count, *shape))


def test_an_array_passes_unchanged() -> None:
    x = numbered(5, 4, 2)
    (checked,) = check_samples(x, ONE)
    np.testing.assert_array_equal(checked, x)
    assert check_samples(x.tolist(), ONE)[0].shape == (5, 4, 2)


@pytest.mark.parametrize("container", [list, tuple])
def test_a_sequence_goes_by_position(container: type) -> None:
    left, right = check_samples(container([numbered(5, 2), numbered(5, 7, 3)]), TWO)
    assert (left.shape, right.shape) == ((5, 2), (5, 7, 3))


def test_a_mapping_goes_by_name() -> None:
    left, right = check_samples({"right": numbered(5, 7, 3), "left": numbered(5, 2), "unused": 0}, TWO)
    assert (left.shape, right.shape) == ((5, 2), (5, 7, 3))


@pytest.mark.parametrize("form", ["x", "(x, y)", "(x, y, weight)"])
def test_batches_of_a_dataset_are_joined(form: str) -> None:
    x, y = numbered(7, 4, 2), np.zeros(7)
    elements: Any = {"x": x, "(x, y)": (x, y), "(x, y, weight)": (x, y, y)}[form]
    (checked,) = check_samples(tf.data.Dataset.from_tensor_slices(elements).batch(3), ONE)
    np.testing.assert_array_equal(checked, x)


@pytest.mark.parametrize("form", ["mapping", "sequence"])
def test_a_dataset_of_several_inputs(form: str) -> None:
    left, right = numbered(5, 2), numbered(5, 7, 3)
    x = {"left": left, "right": right} if form == "mapping" else (left, right)
    checked = check_samples(tf.data.Dataset.from_tensor_slices((x, np.zeros(5))).batch(2), TWO)
    np.testing.assert_array_equal(checked[0], left)
    np.testing.assert_array_equal(checked[1], right)


@given(count=st.integers(1, 200), limit=st.integers(1, 200))
@settings(derandomize=True, deadline=None)
def test_a_limit_takes_evenly_spaced_samples(count: int, limit: int) -> None:
    (checked,) = check_samples(numbered(count, 4, 2), ONE, limit=limit)
    taken = checked[:, 0, 0]
    assert len(taken) == min(count, limit)
    assert taken[0] == 0
    if len(taken) > 1:
        assert taken[-1] == count - 1
        gaps = np.diff(taken)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_a_limit_reads_no_more_of_a_dataset_than_it_needs() -> None:
    read = []

    def batches() -> Any:
        for number in range(100):
            read.append(number)
            yield numbered(4, 4, 2)

    signature = tf.TensorSpec((None, 4, 2), tf.float32)
    endless = tf.data.Dataset.from_generator(batches, output_signature=signature)
    assert len(check_samples(endless, ONE, limit=6)[0]) == 6
    assert len(read) <= 4


def test_every_input_gets_the_same_samples_of_a_limit() -> None:
    left, right = check_samples([numbered(9, 2), numbered(9, 7, 3)], TWO, limit=4)
    np.testing.assert_array_equal(left[:, 0], right[:, 0, 0])


@pytest.mark.parametrize(
    ("data", "specs", "message"),
    [
        (numbered(5, 4, 3), ONE, r"'image' must have shape \(n, 4, 2\)\. Received: \(5, 4, 3\)"),
        (numbered(4, 2), ONE, r"'image' must have shape \(n, 4, 2\)\. Received: \(4, 2\)"),
        ([numbered(5, 2), numbered(5, 3)], TWO, r"'right' must have shape \(n, any, 3\)\. Received: \(5, 3\)"),
        (np.zeros((0, 4, 2)), ONE, "'image' is empty: give at least one sample"),
        (np.full((5, 4, 2), np.nan), ONE, "'image' must be finite. Received: 40 NaN or infinite values"),
        (np.where(numbered(5, 4, 2) == 3, np.inf, 0), ONE, "Received: 8 NaN or infinite values"),
        (np.full((5, 4, 2), "a"), ONE, "'image' must be numbers. Received dtype: <U1"),
        ([numbered(5, 2)], TWO, r"each of the model's 2 inputs \(left, right\)\. Received: 1"),
        (numbered(5, 2), TWO, r"each of the model's 2 inputs \(left, right\)\. Received: 1"),
        ([numbered(5, 2), numbered(6, 7, 3)], TWO, r"as many samples for every input\. Received: \[5, 6\]"),
        ({"left": numbered(5, 2), "center": 0}, TWO, r"lacks the inputs \['right'\]\. .*\['center', 'left'\]"),
        (tf.data.Dataset.from_tensor_slices(numbered(5, 4, 2)).batch(2).take(0), ONE, "empty tf.data.Dataset"),
        (tf.data.Dataset.from_tensor_slices(numbered(5, 4, 2)), ONE, r"must have shape \(n, 4, 2\)"),
    ],
)
def test_what_does_not_fit_is_told(data: Any, specs: list[TensorSpec], message: str) -> None:
    with pytest.raises(DataError, match=f"^validation data .*{message}"):
        check_samples(data, specs, what="validation")


def arrays(**changed: Any) -> dict[str, np.ndarray]:
    return {
        "x_train": np.zeros((6, 3), np.float32),
        "y_train": np.arange(6),
        "x_test": np.zeros((4, 3), np.float32),
        "y_test": np.arange(4),
    } | changed


def test_an_npz_file_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays())
    data = load_npz(tmp_path / "data.npz")
    assert (data.x_train.shape, data.x_test.shape) == ((6, 3), (4, 3))
    np.testing.assert_array_equal(data.y_train, np.arange(6))


def test_images_of_bytes_are_scaled(tmp_path: Path) -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1)
    np.savez(tmp_path / "data.npz", **arrays(x_train=images, y_train=np.arange(3), x_test=np.zeros((4, 1, 1, 1))))
    data = load_npz(tmp_path / "data.npz")
    assert data.x_train.shape == (3, 1, 1)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    np.testing.assert_allclose(data.x_train.ravel(), [0, 0.2, 1])


def test_other_integers_keep_their_values(tmp_path: Path) -> None:
    tokens = np.arange(18).reshape(6, 3)
    np.savez(tmp_path / "data.npz", **arrays(x_train=tokens))
    np.testing.assert_array_equal(load_npz(tmp_path / "data.npz").x_train, tokens)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_train=np.zeros(2), labels=np.zeros(2))
    with pytest.raises(DataError, match=r"Missing: y_train, x_test, y_test; found: x_train, labels\."):
        load_npz(tmp_path / "data.npz")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves a damaged file open
@pytest.mark.parametrize("damage", ["absent", "folder", "random", "truncated", "empty", "pickled"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(y_test=np.array([{}, None, "a", 1], dtype=object)) if damage == "pickled" else arrays())
    content = path.read_bytes()
    if damage in {"absent", "folder"}:
        path.unlink()
    if damage == "folder":
        path.mkdir()
    if damage == "random":
        path.write_bytes(np.random.default_rng(0).bytes(999))
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    if damage == "empty":
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"Cannot read .*data\.npz as an NPZ file \("):
        load_npz(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_train": np.arange(5)}, r"x_train and y_train must hold as many samples.*\(6, 3\) and \(5,\)"),
        (
            {"x_test": np.zeros((0, 3)), "y_test": np.zeros(0)},
            r"x_test and y_test .* at least 1\. Received the shapes \(0, 3\) and \(0,\)",
        ),
        ({"x_train": np.full((6, 3), np.nan)}, "x_train must hold finite numbers. Received: NaN"),
        ({"x_test": np.full((4, 3), "a")}, "x_test must hold finite numbers. .* dtype <U1"),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayDataset(**arrays(**changed))
    np.savez(tmp_path / "data.npz", **arrays(**changed))
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "data.npz")


@pytest.mark.parametrize(
    "data",
    [None, 5.0, [np.zeros((2, 4)), np.zeros((3, 4))], (row for row in np.zeros((2, 4)))],
    ids=["none", "number", "ragged", "generator"],
)
def test_what_is_no_array_is_told(data: object) -> None:
    with pytest.raises(DataError, match="must be an array"):
        check_samples(data, [TensorSpec(name="x", shape=(None, 4), dtype="float32")])


def test_an_npy_under_the_name_of_an_npz(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="Cannot read"):
        load_npz(tmp_path / "a.npz")


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((2, 3)), y_train=np.zeros(2), y_test=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("x_test.npy", b"no array")
    with pytest.raises(DataError, match=r"expected arrays\. Received for x_test: what NumPy did not write"):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["complex64", "m8[s]"])
def test_numbers_that_no_model_takes(dtype: str) -> None:
    with pytest.raises(DataError, match=f"x_train must hold finite numbers.*{np.dtype(dtype)}".replace("[", r"\[")):
        ArrayDataset(**arrays(x_train=np.zeros((6, 3), dtype)))


def test_arrays_without_an_axis(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x_train=1.0, y_train=1, x_test=1.0, y_test=1)
    with pytest.raises(DataError, match="as many samples"):
        load_npz(tmp_path / "b.npz")
