"""How figures read: sizes in KiB, three significant digits, points of accuracy."""

from __future__ import annotations

import math

from tfopt.benchmark.metric import ACCURACIES

__all__ = [
    "NOT_MEASURED",
    "TIMES",
    "factor",
    "human_bytes",
    "percent",
    "score_change_text",
    "score_text",
    "signed",
    "significant",
    "span",
]

NOT_MEASURED = "not measured"
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"


def significant(value: float | None, unit: str = "") -> str:
    """A number with three significant digits and its unit.

    Example:
        >>> significant(0.24567, "ms"), significant(1.5), significant(12345.0), significant(None)
        ('0.246 ms', '1.50', '12,300', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.2e}")
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{digits}f} {unit}".strip()


def span(low: float, high: float) -> str:
    """From where to where.

    Example:
        >>> span(0.24567, 0.2514), span(1.0, 1.0), span(0.98765, 1.01)
        ('0.246–0.251', '1.00–1.00', '0.988–1.01')
    """
    return f"{significant(low)}–{significant(high)}"


def signed(value: float, unit: str = "") -> str:
    """The same with its sign.

    Example:
        >>> signed(0.24567), signed(-1.5, "σ"), signed(0.0)
        ('+0.246', '−1.50 σ', '0')
    """
    sign = MINUS if value < 0 else "+" if value > 0 else ""
    return sign + significant(abs(value), unit)


def factor(ratio: float | None) -> str:
    """A ratio with three significant digits.

    Example:
        >>> factor(1.8449), factor(None)
        ('1.84×', 'not measured')
    """
    return NOT_MEASURED if ratio is None else f"{significant(ratio)}{TIMES}"


def human_bytes(count: int | None) -> str:
    """A size in B, KiB, MiB or GiB.

    Example:
        >>> human_bytes(812), human_bytes(333_288), human_bytes(8_930_000)
        ('812 B', '325 KiB', '8.52 MiB')
    """
    if count is None:
        return NOT_MEASURED
    if count < 1024:
        return f"{count} B"
    value, units = count / 1024, iter(("KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1000 and unit != "GiB":
        value, unit = value / 1024, next(units)
    return significant(value, unit)


def percent(share: float | None) -> str:
    """A share as a percentage.

    Example:
        >>> percent(0.8), percent(None)
        ('80.0 %', 'not measured')
    """
    return NOT_MEASURED if share is None else f"{100 * share:.1f} %"


def score_text(metric: str | None, value: float | None) -> str:
    """A score: a percentage if it is an accuracy.

    Example:
        >>> score_text("top-1 accuracy", 0.97778), score_text("R²", 0.5), score_text(None, None)
        ('97.78 %', '0.5000', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    return f"{100 * value:.2f} %" if metric in ACCURACIES else f"{value:.4f}"


def score_change_text(metric: str | None, change: float | None) -> str:
    """A difference of scores, signed: in points if it is an accuracy.

    Example:
        >>> score_change_text("top-1 accuracy", -0.002), score_change_text("R²", 0.01)
        ('−0.20 points', '+0.0100')
    """
    if change is None:
        return NOT_MEASURED
    text = f"{100 * change:+.2f} points" if metric in ACCURACIES else f"{change:+.4f}"
    return text.replace("-", MINUS)
