"""Feature maps compared: brought to one size, squared differences, and where in an image they are large."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["at_one_size", "attention_difference", "attention_map", "squared_difference"]

SMALLEST_SQUARE = 1e-12


def at_one_size(first: Any, second: Any) -> tuple[Any, Any]:
    """Two image features `(batch, height, width, channels)` with the larger one averaged down to the smaller's size.

    Features of other ranks stay as they are.

    Example:
        >>> large, small = at_one_size(ops.ones((1, 4, 4, 2)), ops.ones((1, 2, 2, 3)))
        >>> tuple(large.shape), tuple(small.shape)
        ((1, 2, 2, 2), (1, 2, 2, 3))
    """
    if len(first.shape) != 4 or tuple(first.shape[1:3]) == tuple(second.shape[1:3]):
        return first, second
    size = tuple(min(sizes) for sizes in zip(first.shape[1:3], second.shape[1:3], strict=True))
    return _averaged_down(first, size), _averaged_down(second, size)


def squared_difference(teacher: Any, student: Any) -> Any:
    """The mean squared difference of features of the same number of channels.

    Args:
        teacher: of shape `(batch, channels)`, `(batch, steps, channels)` or `(batch, height, width, channels)`.
        student: likewise.

    Returns:
        The mean over channels (and over an image), of shape `(batch,)`, or `(batch, steps)` for sequences, so that
        steps can be masked.

    Example:
        >>> squared_difference(ops.ones((2, 3)), ops.zeros((2, 3))).numpy().tolist()
        [1.0, 1.0]

    References: Romero et al. 2015 (FitNets), arXiv:1412.6550, eq. 3.
    """
    teacher, student = at_one_size(teacher, student)
    axes = (1, 2, 3) if len(student.shape) == 4 else -1
    return ops.mean(ops.square(teacher - student), axis=axes)


def attention_map(features: Any) -> Any:
    """Where an image's features are large: the sum of their squares over the channels.

    Args:
        features: of shape `(batch, height, width, channels)`.

    Returns:
        The map, of shape `(batch, height, width, 1)`.

    Example:
        >>> float(attention_map(2.0 * ops.ones((1, 1, 1, 3)))[0, 0, 0, 0])
        12.0

    References: Zagoruyko & Komodakis 2017, arXiv:1612.03928, section 3.1, with p = 2.
    """
    return ops.sum(ops.square(features), axis=-1, keepdims=True)


def attention_difference(teacher: Any, student: Any) -> Any:
    """The squared distance of two attention maps, each of them of length 1.

    Args:
        teacher: of shape `(batch, height, width, 1)`.
        student: likewise; the larger map is averaged down to the size of the smaller.

    Returns:
        A value per sample in [0, 2], of shape `(batch,)`.

    Example:
        >>> one, other = ops.reshape([1.0, 0.0], (1, 2, 1, 1)), ops.reshape([0.0, 9.0], (1, 2, 1, 1))
        >>> attention_difference(one, other).numpy().tolist()
        [2.0]

    References: Zagoruyko & Komodakis 2017, arXiv:1612.03928, eq. 2; squared, as in the authors' code.
    """
    teacher, student = (_of_length_1(attention) for attention in at_one_size(teacher, student))
    return ops.sum(ops.square(teacher - student), axis=-1)


def _averaged_down(features: Any, size: tuple[int, ...]) -> Any:
    if tuple(features.shape[1:3]) == size:
        return features
    return ops.image.resize(features, size, interpolation="bilinear", antialias=True, data_format="channels_last")


def _of_length_1(attention: Any) -> Any:
    flat = ops.reshape(attention, (ops.shape(attention)[0], -1))
    squares = ops.sum(ops.square(flat), axis=-1, keepdims=True)
    return flat / ops.sqrt(ops.maximum(squares, SMALLEST_SQUARE))
