"""The exponential moving average of values that come one by one."""

from __future__ import annotations

from tfopt.errors import ConfigError
from tfopt.schedules.arguments import check_number

__all__ = ["MovingAverage", "check_smoothing"]


class MovingAverage:
    """An exponential moving average that is not drawn towards zero at its start.

    After n values it is their mean with the weights `smoothing**(n - 1), ..., smoothing, 1`.

    Args:
        smoothing: how much of the past stays, in [0, 1); 0 returns each value as it is.

    Example:
        >>> average = MovingAverage(0.5)
        >>> [round(average.update(value), 3) for value in (4.0, 1.0, 1.0)]
        [4.0, 2.0, 1.429]

    References: Kingma & Ba 2015, arXiv:1412.6980, section 3 (the correction at the start).
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.sum = 0.0
        self.weight = 0.0

    def update(self, value: float) -> float:
        """Takes a value and returns the average."""
        self.sum = self.smoothing * self.sum + value
        self.weight = self.smoothing * self.weight + 1
        return self.sum / self.weight


def check_smoothing(name: str, smoothing: float) -> float:
    """Returns the value if it is a number in [0, 1).

    Raises:
        ConfigError: if it is not; the message starts with `name`.
    """
    number = check_number(name, smoothing)
    if not 0 <= number < 1:
        raise ConfigError(f"{name} must be in [0, 1). Received: {smoothing!r}.")
    return number
