"""What is said of one operator: whether the Edge TPU takes it, why not, and the mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Confidence", "Support", "accepted", "refused"]

Confidence = Literal["documented", "observed", "unknown"]
"""Coral's page says so; compilers were seen to do so; nobody is known to have tried."""


@dataclass(frozen=True)
class Support:
    """Whether the Edge TPU can run an operator, by itself.

    Args:
        supported: whether it can.
        confidence: what this rests on.
        reason: why not, or what is uncertain; empty for an operator that is plainly supported.
        mend: what to change in the model; empty where nothing has to be.
    """

    supported: bool
    confidence: Confidence
    reason: str = ""
    mend: str = ""


def accepted(reason: str = "", confidence: Confidence = "documented") -> Support:
    """An operator that is supported; `reason` tells what is uncertain about it."""
    return Support(supported=True, confidence=confidence, reason=reason)


def refused(reason: str, mend: str, confidence: Confidence = "documented") -> Support:
    """An operator that is not supported."""
    return Support(supported=False, confidence=confidence, reason=reason, mend=mend)
