"""What several test modules need."""

from __future__ import annotations

import builtins
import functools
import gc
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import keras
import numpy as np
import pytest

from tfopt.export import conversion, onnx_conversion

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("tfopt", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("tfopt")


def _compile_without_xla() -> None:
    """Unless a test asks for it: Keras's default compiles each fit, which takes longer than a small fit itself."""
    home = next(base for base in keras.Model.__mro__ if "compile" in vars(base))
    compile_model = home.compile

    @functools.wraps(compile_model)
    def compile_plainly(self: keras.Model, *args: object, **options: object) -> None:
        compile_model(self, *args, **{"jit_compile": False, **options})

    home.compile = compile_plainly


_compile_without_xla()

# A collection of garbage goes over every object of TensorFlow each time, a fifth of the whole run's time.
gc.freeze()
gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    keras.utils.set_random_seed(0)


def _in_this_process(convert: Callable[..., None]) -> Callable[..., None]:
    def run(
        saved_model: Path,
        path: Path,
        *,
        quantization: str,
        calibration: dict[str, np.ndarray] | None = None,
        **options: object,
    ) -> None:
        samples = []
        if calibration is not None:
            samples = [str(path.with_suffix(".npz"))]
            np.savez(samples[0], **calibration)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert(str(saved_model), str(path), quantization, json.dumps(options), *samples)

    return run


@pytest.fixture(scope="module")
def conversion_in_this_process() -> Iterator[None]:
    """Converts without a process of its own, which would load TensorFlow anew each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfopt.export.tflite.convert_saved_model", _in_this_process(conversion._convert))
        patch.setattr("tfopt.export.onnx.convert_to_onnx", _in_this_process(onnx_conversion._convert))
        yield


@pytest.fixture
def in_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a notebook's kernel has, and rich looks for: the shell of IPython, and colours asked for."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
