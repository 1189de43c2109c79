"""What tfopt raises: every message says what happened, what was expected, what was received, and the mend.

TfoptError
├── ConfigError (ValueError)          an argument, an option or a recipe field is not usable
├── ModelError (ValueError)           the model is not one that tfopt can work on
├── DataError (ValueError)            calibration, training or benchmark data does not fit
├── ExportError (RuntimeError)        a conversion, an audit or a verification failed: nothing was written
├── BenchmarkError (RuntimeError)     a file could not be run
└── MissingExtraError (ImportError)   an optional dependency is absent; the message names the extra
"""

from __future__ import annotations

__all__ = [
    "BenchmarkError",
    "ConfigError",
    "DataError",
    "ExportError",
    "MissingExtraError",
    "ModelError",
    "TfoptError",
    "first_line",
]


class TfoptError(Exception):
    """Anything that tfopt itself refuses; catch it to catch them all."""


class ConfigError(TfoptError, ValueError):
    """An argument, an option or a recipe field is not usable."""


class ModelError(TfoptError, ValueError):
    """The model is not one that tfopt can work on."""


class DataError(TfoptError, ValueError):
    """Calibration, training or benchmark data does not fit the model."""


class ExportError(TfoptError, RuntimeError):
    """A conversion, an audit or a verification failed; no artifact was written."""


class BenchmarkError(TfoptError, RuntimeError):
    """A file could not be loaded or run."""


class MissingExtraError(TfoptError, ImportError):
    """An optional dependency is absent.

    Example:
        >>> raise MissingExtraError("The Ethos-U estimate", extra="edge")
        Traceback (most recent call last):
        ...
        tfopt.errors.MissingExtraError: The Ethos-U estimate needs the extra 'edge'. Install it with: \
pip install 'tfopt[edge]'
    """

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}'. Install it with: pip install 'tfopt[{extra}]'")
        self.extra = extra


def first_line(error: Exception) -> str:
    r"""The first words of another library's error, to be quoted; its class where it says nothing.

    Example:
        >>> first_line(ValueError("\n  bad file\nsee the log"))
        'bad file'
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
