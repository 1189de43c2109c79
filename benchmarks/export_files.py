"""One file of benchmarks/export.py: how near to Keras it is, how fast, and what is wrong with one not from tfopt.

    python benchmarks/export_files.py from_keras_model|litert MODEL SAMPLES FILE
    python benchmarks/export_files.py look_over FILE SAMPLES from_keras_model|litert

converts a model as the documentation of TensorFlow or Keras shows it, and tells what a file is like, as JSON in the
last line: in processes of their own, since either may crash.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfopt.errors import ExportError
from tfopt.export.audit import float_operators
from tfopt.export.edge_tpu import predict
from tfopt.export.onnx_runtime import run_onnx
from tfopt.export.presets import PRESETS
from tfopt.export.tflite_file import Operator, read_tflite
from tfopt.export.tflite_runtime import run_tflite
from tfopt.export.verify import compare, relative_error
from tfopt.quantization.spec import ActivationGrid

__all__ = ["PLAIN", "Samples", "look_over", "plain_row", "scores", "timed_call"]

Arrays = list[np.ndarray]
Row = dict[str, Any]

PLAIN = {"from_keras_model": "int8", "litert": "none"}
"""Ways without tfopt, with the preset that each is like."""
STATEFUL = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
ERROR = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception): )(?:<unknown>:0: error: loc\(.*\): )?(.+)", re.MULTILINE)
LONGEST = 200


@dataclass(frozen=True, eq=False)
class Samples:
    """Test samples with what Keras answers, and calibration samples; on the way to another process a file of arrays.

    Args:
        x: test samples of shape `(n, ...)` for each input.
        y: their classes, of shape `(n,)` for each output.
        answers: Keras's logits, of shape `(n, classes)` for each output.
        calibration: samples of shape `(m, ...)` for each input.
    """

    x: Arrays
    y: Arrays
    answers: Arrays
    calibration: Arrays

    def save(self, path: Path) -> None:
        arrays = {f"{name}/{number}": array for name, one in vars(self).items() for number, array in enumerate(one)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Samples:
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
        return cls(
            *(
                [found[key] for key in found if key.startswith(f"{name}/")]
                for name in ("x", "y", "answers", "calibration")
            )
        )


def fitting(shape: Any, arrays: Arrays) -> np.ndarray:
    """Which of the arrays a tensor is for. A plain file calls its tensors as it likes; sizes tell them apart."""
    found = [array for array in arrays if tuple(array.shape[1:]) == tuple(shape)[1:]]
    if len(found) != 1:
        raise ExportError(f"it has a tensor of shape {tuple(shape)}, of which the model has {len(found)}")
    return found[0]


def scores(path: Path, samples: Samples) -> Row:
    """How near to Keras a file is on the test samples, and how often it is right.

    Raises:
        ExportError: if a runtime cannot run it.
    """
    if path.suffix == ".onnx":
        from tfopt.export.onnx_file import read_onnx

        inputs = {name: fitting(tensor.shape, samples.x) for name, tensor in read_onnx(path).inputs.items()}
        received = run_onnx(path, inputs, batch_size=50)
    else:
        inputs = {name: fitting(tensor.static_shape, samples.x) for name, tensor in read_tflite(path).inputs.items()}
        run_tflite(path, {name: x[:1] for name, x in inputs.items()}, xnnpack=False)
        received = run_tflite(path, inputs)
    outputs = [fitting(answer.shape, list(received.values())) for answer in samples.answers]
    agreement = compare(samples.answers, outputs).to_dict()
    accuracies = [float(np.mean(output.argmax(-1) == y)) for output, y in zip(outputs, samples.y, strict=True)]
    return {
        "size_bytes": path.stat().st_size,
        **{name: agreement[name] for name in ("sqnr_db", "top1_agreement", "max_absolute_error")},
        "relative_error": relative_error(samples.answers, outputs),
        "accuracy": accuracies,
    }


def timed_call(path: Path, samples: Samples) -> Callable[[], object]:
    """Runs the first test sample on one thread."""
    first = [x[:1] for x in samples.x]
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = {tensor.name: fitting(tensor.shape, first) for tensor in session.get_inputs()}
        return lambda: session.run(None, given)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        sample, dtype, (scale, zero_point) = fitting(detail["shape"], first), detail["dtype"], detail["quantization"]
        grid = ActivationGrid(scale, zero_point, 8 * np.dtype(dtype).itemsize) if scale else None
        interpreter.set_tensor(detail["index"], grid.quantize(sample) if grid else sample.astype(dtype))
    return interpreter.invoke


def look_over(path: Path, samples: Samples, way: str) -> Row:
    """What tfopt's audit finds in a file that it did not make, and its scores where it runs."""
    file, preset = read_tflite(path), PRESETS[PLAIN[way]]
    wrong = [
        *_found(file.operators, lambda one: one.name.startswith("CUSTOM Flex"), "TensorFlow's own (Flex)"),
        *_found(file.operators, lambda one: one.name in STATEFUL, "with state outside the graph"),
        *_found(file.operators, lambda one: any(-1 in tensor.shape for tensor in one.outputs), "of dynamic shape"),
    ]
    if preset.is_integer:
        floats = {id(one) for one in float_operators(file, float_edges=False)}
        wrong += _found(file.operators, lambda one: id(one) in floats, "in float")
        edges = (*file.inputs.values(), *file.outputs.values())
        wrong += ["float inputs or outputs"] if any(tensor.is_float for tensor in edges) else []
    found: Row = {"operators": len(file.operators), "wrong": wrong, "size_bytes": path.stat().st_size}
    if preset.is_integer:
        prediction = predict(path)
        found["edge_tpu"] = {"operators": len(prediction.operators), "mapped_operators": prediction.mapped_count}
    try:
        found |= scores(path, samples)
    except ExportError as error:
        reason = str(error).removeprefix("The TFLite runtime cannot run the converted file: ").partition(". ")[0]
        wrong.append(f"does not run under ai-edge-litert: {_short(reason)}")
        return {**found, "runs": False}
    ratio = found["sqnr_db"]
    if ratio == "no signal" or (ratio != "exact" and not ratio >= preset.minimum_sqnr_db):
        wrong.append("disagrees with Keras")
    return {**found, "runs": True}


def _found(operators: tuple[Operator, ...], chosen: Callable[[Operator], bool], what: str) -> list[str]:
    names = Counter(one.name.removeprefix("CUSTOM ") for one in operators if chosen(one))
    listed = ", ".join(name for name, _ in names.most_common(3)) + (", …" if len(names) > 3 else "")
    return [f"{names.total()} of {len(operators)} operators {what} ({listed})"] if names else []


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def plain_row(way: str, model: Path, samples: Path, path: Path, timeout_seconds: float) -> Row:
    """Converts in one process and looks the file over in another; what ends badly is told."""
    for arguments, what in (
        ((way, model, samples, path), "fails with"),
        (("look_over", path, samples, way), "converted, but the runtime fails with"),
    ):
        command = [sys.executable, __file__, *map(str, arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
        except subprocess.TimeoutExpired:
            return {"wrong": [f"{what.replace('fails with', 'does not end')} within {timeout_seconds:.0f} s"]}
        if done.returncode < 0:
            crash = signal.Signals(-done.returncode).name
            return {"wrong": [f"{what.replace('fails', 'crashes')} signal {-done.returncode} ({crash})"]}
        if done.returncode:
            errors = ["".join(words) for words in ERROR.findall(done.stderr)] or done.stderr.splitlines()[-1:]
            return {"wrong": [f"{what} {_short((errors or ['no message'])[-1])}"]}
    return json.loads(done.stdout.splitlines()[-1])


def _convert(way: str, model_path: str, samples_path: str, path: str) -> None:
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(model_path)
    if way == "litert":
        model.export(path, format="litert")
        return
    calibration = Samples.load(Path(samples_path)).calibration

    def representative_dataset() -> Iterator[Any]:
        for row in range(len(calibration[0])):
            sample = [array[row : row + 1] for array in calibration]
            # By name: the converter takes several inputs in another order than Keras's.
            yield dict(zip([x.name for x in model.inputs], sample, strict=True)) if len(sample) > 1 else sample

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(path).write_bytes(converter.convert())


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "look_over":
        path, samples, way = arguments
        print(json.dumps(look_over(Path(path), Samples.load(Path(samples)), way)))
    else:
        _convert(what, *arguments)


if __name__ == "__main__":
    main()
