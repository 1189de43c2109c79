"""How the samples of a batch lie to one another: their distances, and the angles of their triangles."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["angle_difference", "distance_difference"]

SMALLEST_SQUARE = 1e-12  # below it two samples count as one, and give no gradient: that of a root is infinite at 0


def distance_difference(teacher: Any, student: Any) -> Any:
    """How much the distances from each sample to the others differ, once each side's mean distance is 1.

    The mean over the other samples of `huber(distance(teacher) - distance(student))`, with the Huber function of delta
    1.

    Args:
        teacher: of shape `(batch, teacher_features)`.
        student: of shape `(batch, student_features)`; the sizes may differ.

    Returns:
        The difference per sample, of shape `(batch,)`; 0 for a batch of one.

    Example:
        >>> distance_difference([[0.0], [1.0], [2.0]], [[0.0, 0.0], [0.0, 5.0], [0.0, 10.0]]).numpy().round(3).tolist()
        [0.0, 0.0, 0.0]

    References: Park et al. 2019, arXiv:1904.05068, eqs. 3 to 6.
    """
    teacher, student = _relative_distances(teacher), _relative_distances(student)
    partners = ops.maximum(ops.cast(ops.shape(teacher)[0], teacher.dtype) - 1, 1)
    return ops.sum(_huber(teacher - student), axis=-1) / partners


def angle_difference(teacher: Any, student: Any) -> Any:
    """How much the angles at each sample, between the directions to any two others, differ.

    The mean over pairs of other samples of `huber(cos(teacher) - cos(student))`. Takes memory for the batch size cubed.

    Args:
        teacher: of shape `(batch, teacher_features)`.
        student: of shape `(batch, student_features)`; the sizes may differ.

    Returns:
        The difference per sample, of shape `(batch,)`; 0 for a batch of less than three.

    Example:
        >>> corner = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        >>> angle_difference(corner, [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).numpy().round(3).tolist()
        [0.0, 0.0, 0.0]

    References: Park et al. 2019, arXiv:1904.05068, eqs. 7 to 9.
    """
    teacher, student = _cosines(teacher), _cosines(student)
    others = ops.cast(ops.shape(teacher)[0], teacher.dtype) - 1
    return ops.sum(_huber(teacher - student), axis=(1, 2)) / ops.maximum(others * (others - 1), 1)


def _relative_distances(features: Any) -> Any:
    features = ops.convert_to_tensor(features)
    squares = ops.sum(ops.square(features[:, None] - features[None, :]), axis=-1)
    apart = squares > SMALLEST_SQUARE
    distances = ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)
    count = ops.sum(ops.cast(apart, distances.dtype))
    return distances / ops.maximum(ops.sum(distances) / ops.maximum(count, 1), SMALLEST_SQUARE)


def _cosines(features: Any) -> Any:
    """The cosine at sample a between b and c, of shape (a, b, c)."""
    features = ops.convert_to_tensor(features)
    differences = features[None, :] - features[:, None]
    squares = ops.sum(ops.square(differences), axis=-1, keepdims=True)
    apart = squares > SMALLEST_SQUARE
    directions = ops.where(apart, differences / ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)
    return ops.matmul(directions, ops.transpose(directions, (0, 2, 1)))


def _huber(difference: Any) -> Any:
    size = ops.absolute(difference)
    return ops.where(size < 1, 0.5 * ops.square(difference), size - 0.5)
