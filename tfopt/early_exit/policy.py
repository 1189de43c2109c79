"""When samples leave: the thresholds of a network's exits, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.early_exit.confidence import CONFIDENCES, Confidence, confidence_of, exit_of_each
from tfopt.errors import ConfigError

__all__ = ["ExitPolicy"]


@dataclass(frozen=True)
class ExitPolicy:
    """From which confidence on each exit's answer is taken. `choose_thresholds` gives one.

    Args:
        exits: the names of the exits, the last answer included.
        thresholds: one for each exit before the last: a sample leaves at the first whose confidence is at least that.
            Infinity (None in a file) where none is to leave.
        confidence: "probability", that of the likeliest class, or "entropy"; see `confidence_of`. Both are in [0, 1].
        from_logits: whether the exits give logits, not probabilities.

    Raises:
        ConfigError: if these do not fit each other.

    Example:
        >>> policy = ExitPolicy(("exit_1", "classes"), (0.8,))
        >>> answers, exits = policy.decide([np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.7, 0.3], [0.2, 0.8]])])
        >>> answers.tolist(), exits.tolist()
        ([[0.9, 0.1], [0.2, 0.8]], [0, 1])
    """

    exits: tuple[str, ...]
    thresholds: tuple[float, ...]
    confidence: Confidence = "probability"
    from_logits: bool = False

    def __post_init__(self) -> None:
        if len(self.exits) < 2 or len(self.thresholds) != len(self.exits) - 1:
            raise ConfigError(
                "ExitPolicy: expected at least two exits and a threshold for each but the last. "
                f"Received: exits {self.exits}, thresholds {self.thresholds}."
            )
        if not all(value >= 0 for value in self.thresholds):
            raise ConfigError(f"ExitPolicy: thresholds must be numbers from 0 on. Received: {self.thresholds}.")
        if self.confidence not in CONFIDENCES:
            raise ConfigError(
                f"ExitPolicy: confidence must be one of {', '.join(CONFIDENCES)}. Received: {self.confidence!r}."
            )

    def check_fits(self, exits: tuple[str, ...], *, from_logits: bool) -> None:
        """Refuses a network with other exits.

        Raises:
            ConfigError: if there are others, or they answer otherwise.
        """
        if (self.exits, self.from_logits) != (exits, from_logits):
            raise ConfigError(
                f"Expected a policy for the exits {exits}, from_logits={from_logits}. "
                f"Received: one for {self.exits}, from_logits={self.from_logits}. Choose thresholds for this network."
            )

    def leaves(self, exit_: int, outputs: np.ndarray) -> np.ndarray:
        """Which samples leave at an exit that they reach.

        Args:
            exit_: its number, from 0 on, before the last.
            outputs: of this exit, of shape `(n, classes)`.

        Returns:
            Truth values, one for each sample.
        """
        confidences = confidence_of(outputs, kind=self.confidence, from_logits=self.from_logits)
        return confidences >= self.thresholds[exit_]

    def decide(self, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The answers of a network that has run whole, as if it had not.

        Args:
            outputs: of all exits, of shape `(n, classes)` each.

        Returns:
            The answers, of the same shape, and the exit of each sample, from 0 on.
        """
        confidences = self.confidences(outputs)
        exits = exit_of_each(confidences, self.thresholds)
        return np.stack([np.asarray(output) for output in outputs])[exits, np.arange(len(exits))], exits

    def confidences(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """How sure the exits before the last are, of shape `(n, exits - 1)`."""
        return np.stack(
            [confidence_of(output, kind=self.confidence, from_logits=self.from_logits) for output in outputs[:-1]],
            axis=1,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "exits": list(self.exits),
            "thresholds": [None if math.isinf(value) else value for value in self.thresholds],
            "confidence": self.confidence,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExitPolicy:
        """Reads what `to_dict` gave.

        Raises:
            ConfigError: if it is something else.
        """
        try:
            return cls(
                exits=tuple(data["exits"]),
                thresholds=tuple(math.inf if value is None else float(value) for value in data["thresholds"]),
                confidence=data["confidence"],
                from_logits=bool(data["from_logits"]),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"ExitPolicy: expected exits, thresholds, confidence and from_logits. Received: {data!r:.200} "
                f"({error!r})."
            ) from None
