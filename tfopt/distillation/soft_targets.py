"""How far a student's class distribution is from its teacher's: maths on logits, a value per sample or position."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["decoupled_divergence", "tempered_divergence"]

MINUS_INFINITY = -1e30  # finite, so that a difference of two is a number


def tempered_divergence(teacher: Any, student: Any, temperature: float) -> Any:
    """The Kullback-Leibler divergence of softened class distributions, times the squared temperature.

    `T² * sum(p * (log p - log q))` with `p = softmax(teacher / T)` and `q = softmax(student / T)`. Softening divides
    the gradients by about T²; the factor keeps them as large as those of the labels.

    Args:
        teacher: logits of shape `(..., classes)`.
        student: logits of the same shape.
        temperature: T, above 0.

    Returns:
        The divergence, of shape `(...)`.

    Example:
        >>> round(float(tempered_divergence([2.0, 0.0], [0.0, 0.0], 1.0)), 4)
        0.3278

    References: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    teacher = ops.log_softmax(ops.convert_to_tensor(teacher) / temperature)
    student = ops.log_softmax(ops.convert_to_tensor(student) / temperature)
    return _divergence(teacher, student) * temperature**2


def decoupled_divergence(
    teacher: Any, student: Any, target: Any, *, temperature: float, target_weight: float, other_weight: float
) -> Any:
    """The divergence in two parts with weights of their own: target class against the rest, and among the rest.

    `T² * (target_weight * KL(b(teacher), b(student)) + other_weight * KL(r(teacher), r(student)))`, where b is the
    probability of the target class and that of all others together, and r the distribution over the others. In the
    plain divergence the second part has the weight "1 - the teacher's probability of the target", so what a confident
    teacher knows about the other classes hardly counts.

    Args:
        teacher: logits of shape `(..., classes)`.
        student: logits of the same shape.
        target: the true class of each, one-hot, of the same shape.
        temperature: T, above 0.
        target_weight: the weight of the first part (alpha in the paper).
        other_weight: that of the second (beta).

    Returns:
        The divergence, of shape `(...)`.

    Example:
        >>> part = dict(temperature=1.0, target_weight=0.0, other_weight=1.0)
        >>> round(float(decoupled_divergence([5.0, 2.0, 0.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0], **part)), 4)
        0.3278

    References: Zhao et al. 2022, arXiv:2203.08679, eq. 7.
    """
    is_target = ops.convert_to_tensor(target) > 0
    teacher = ops.log_softmax(ops.convert_to_tensor(teacher) / temperature)
    student = ops.log_softmax(ops.convert_to_tensor(student) / temperature)
    target_part = _divergence(_target_and_rest(teacher, is_target), _target_and_rest(student, is_target))
    other_part = _divergence(_among_the_rest(teacher, is_target), _among_the_rest(student, is_target))
    return (target_weight * target_part + other_weight * other_part) * temperature**2


def _divergence(teacher: Any, student: Any) -> Any:
    return ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def _target_and_rest(log_probabilities: Any, is_target: Any) -> Any:
    target = ops.logsumexp(ops.where(is_target, log_probabilities, MINUS_INFINITY), axis=-1)
    rest = ops.logsumexp(ops.where(is_target, MINUS_INFINITY, log_probabilities), axis=-1)
    return ops.stack([target, rest], axis=-1)


def _among_the_rest(log_probabilities: Any, is_target: Any) -> Any:
    return ops.log_softmax(ops.where(is_target, MINUS_INFINITY, log_probabilities))
