"""What TF Serving's requests name and what its responses hold: its protos, read and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2, inference_pb2, model_pb2, regression_pb2

from tfopt.export.signature import SIGNATURE
from tfopt.serving.server.prediction import Prediction
from tfopt.serving.server.request_error import Code, RequestError

__all__ = [
    "CLASSIFY",
    "REGRESS",
    "checked_tasks",
    "classifications",
    "model_spec",
    "named_by",
    "regressions",
    "wanted_outputs",
]

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def named_by(request: Any) -> dict[str, Any]:
    """The model, version and signature that a request names, as the arguments of a `Predictor`."""
    if not request.HasField("model_spec"):
        raise RequestError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return {
        "name": spec.name,
        "version": spec.version.value if choice == "version" else None,
        "label": spec.version_label if choice == "version_label" else None,
        "signature": spec.signature_name or SIGNATURE,
    }


def model_spec(prediction: Prediction) -> model_pb2.ModelSpec:
    """Which version and signature answered."""
    spec = model_pb2.ModelSpec(name=prediction.model.name, signature_name=prediction.signature.name)
    spec.version.value = prediction.model.version
    return spec


def wanted_outputs(output_filter: Sequence[str], outputs: Mapping[str, np.ndarray]) -> list[str]:
    """The outputs that a response holds: those of the request's filter, or else all."""
    for name in output_filter:
        if name not in outputs:
            expected = ",".join(sorted(outputs))
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}.",
            )
    repeated = [name for name, count in Counter(output_filter).items() if count > 1]
    if repeated:
        raise RequestError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {repeated[0]}")
    return list(output_filter or outputs)


def checked_tasks(tasks: Sequence[inference_pb2.InferenceTask]) -> list[dict[str, Any]]:
    """What each task of a MultiInference asks for, where the tasks go together."""
    if not tasks:
        raise RequestError(Code.INVALID_ARGUMENT, "Inference request must have at least one inference task")
    asked = [named_by(task) for task in tasks]
    seen = set()
    for task, each in zip(tasks, asked, strict=True):
        if not each["name"]:
            raise RequestError(Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
        if each["name"] != asked[0]["name"]:
            raise RequestError(
                Code.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        if each["signature"] in seen:
            raise RequestError(Code.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {each['signature']}")
        seen.add(each["signature"])
        if task.method_name not in {CLASSIFY, REGRESS}:
            raise RequestError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
    return asked


def classifications(prediction: Prediction) -> classification_pb2.ClassificationResult:
    """The labels, scores or both that a classification signature gave to each example."""
    result = classification_pb2.ClassificationResult()
    classes, scores = prediction.outputs.get("classes"), prediction.outputs.get("scores")
    for row in range(len(next(iter(prediction.outputs.values())))):
        added = result.classifications.add().classes
        labels = [] if classes is None else [label.decode(errors="replace") for label in classes[row]]
        values = [] if scores is None else scores[row].tolist()
        for label, value in zip_longest(labels, values):
            added.add(label=label, score=value)
    return result


def regressions(prediction: Prediction) -> regression_pb2.RegressionResult:
    """The value that a regression signature gave to each example."""
    result = regression_pb2.RegressionResult()
    for value in prediction.outputs["outputs"].tolist():
        result.regressions.add(value=value)
    return result
