"""The time of each operator of a .tflite file, measured on the operator alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfopt.benchmark.measurements import OperatorTime
from tfopt.benchmark.operator_files import floor_file, operator_files
from tfopt.errors import DataError, first_line

__all__ = ["operator_times"]

UNRECORDED_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS = 3, 10, 200
SECONDS = 1.0


def operator_times(
    path: Path,
    inputs: Sequence[np.ndarray],
    *,
    threads: int,
    xnnpack: bool = True,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[OperatorTime, ...]:
    """Measures how long each operator of a file takes.

    The runtime has a profiler for C++ only. So each operator is made a file of its own, with its weights and with the
    input that it has within the whole. In each of up to 200 rounds every one of them is called once, in the order of
    the file, so that weights leave the caches between two calls about as they do within the whole. A time is the
    median over the rounds, less that of a file with one operator on one number: the way from Python to an operator.

    So it is what an operator costs by itself, not a part seen within the whole: what it gains from an input that is
    still in the cache is not in it, nor what XNNPACK saves by joining neighbours. Of some twenty files that take
    longer than 0.01 ms the times added up to 0.75 to 1.3 of the latency of the whole; of smaller ones to less, for most
    of their time is the way to the operators.

    Args:
        path: the file.
        inputs: a value for each input tensor in the order of the file, of its type.
        threads: of the runtime.
        xnnpack: whether the XNNPACK delegate computes.
        clock: monotonic time in nanoseconds.

    Raises:
        DataError: if the file has several graphs, or an operator does not run by itself.
    """
    content = path.read_bytes()
    values = _intermediate_values(path, inputs)
    files = list(operator_files(content, {index: value.shape for index, value in values.items()}))
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreters = []
    for file in files:
        try:
            interpreter = Interpreter(
                model_content=file.content, num_threads=threads, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
            for detail, index in zip(interpreter.get_input_details(), file.inputs, strict=True):
                interpreter.set_tensor(detail["index"], values[index])
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"the operator {file.kind} ({file.name}) does not run alone: {first_line(error)}") from None
        interpreters.append(interpreter)
    floor = Interpreter(model_content=floor_file(), num_threads=threads, experimental_op_resolver_type=resolver)
    floor.allocate_tensors()
    *medians_ms, floor_ms = _medians_ms([*interpreters, floor], clock)
    return tuple(
        OperatorTime(name=file.name, kind=file.kind, time_ms=max(median_ms - floor_ms, 0.0))
        for file, median_ms in zip(files, medians_ms, strict=True)
    )


def _intermediate_values(path: Path, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """All tensors of one inference by TFLite's own kernels; XNNPACK does not keep those within the graph."""
    try:
        interpreter = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise DataError(f"TFLite's own kernels cannot run the file: {first_line(error)}") from None
    values = {}
    for detail in interpreter.get_tensor_details():
        try:
            values[detail["index"]] = interpreter.get_tensor(detail["index"])
        except (RuntimeError, ValueError):  # a tensor that nothing needs has no value
            continue
    return values


def _medians_ms(interpreters: Sequence[Any], clock: Callable[[], int]) -> list[float]:
    calls = [interpreter.invoke for interpreter in interpreters]
    for _ in range(UNRECORDED_ROUNDS):
        for call in calls:
            call()
    rounds: list[list[int]] = []
    begin = clock()
    while len(rounds) < LEAST_ROUNDS or (len(rounds) < MOST_ROUNDS and clock() - begin < SECONDS * 1e9):
        durations = []
        for call in calls:
            start = clock()
            call()
            durations.append(clock() - start)
        rounds.append(durations)
    return [float(median) / 1e6 for median in np.median(rounds, axis=0)]
