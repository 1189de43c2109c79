"""What is to remain of a resource, as text: "flops: 50%"."""

from __future__ import annotations

import re

from tfopt.errors import ConfigError

__all__ = ["parse_resource_target"]

_TARGET = re.compile(r"\s*(\w+)\s*:\s*(\d+(?:\.\d+)?)\s*%\s*")


def parse_resource_target(name: str, target: str, resources: tuple[str, ...]) -> tuple[str, float]:
    """Reads a target.

    Args:
        name: whose argument it is, for the error.
        target: the resource and the percentage of it that remains.
        resources: those that may be named.

    Returns:
        The resource, and the fraction that remains, in (0, 1].

    Raises:
        ConfigError: if the text says something else.

    Example:
        >>> parse_resource_target("prune_channels", "flops: 50%", ("flops", "params"))
        ('flops', 0.5)
    """
    match = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None or match[1] not in resources or not 0 < float(match[2]) <= 100:
        examples = " or ".join(f"'{resource}: 50%'" for resource in resources)
        raise ConfigError(
            f"{name}: target must tell what remains, as {examples}, above 0 and at most 100%. Received: {target!r}."
        )
    return match[1], float(match[2]) / 100
