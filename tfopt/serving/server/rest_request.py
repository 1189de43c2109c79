"""The body of a `:predict` request as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.export.signature import SIGNATURE
from tfopt.serving.server.loaded_version import Signature, TensorInfo
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.rest_arrays import array_from_json, is_base64, json_text
from tfopt.serving.server.rest_json import Layout, load_json, signature_name
from tfopt.serving.server.rest_numbers import parse_numbers, read_numbers

__all__ = ["PredictRequest", "predict_request"]


@dataclass(frozen=True)
class PredictRequest:
    """What a body of `:predict` asks for."""

    signature: str
    inputs: dict[str, np.ndarray]
    layout: Layout


def predict_request(body: bytes, signature_of: Callable[[str], Signature]) -> PredictRequest:
    """Reads the body of a `:predict` request.

    A body of rectangular arrays of numbers is read by simdjson; any other by orjson, and one with NaN or Infinity by
    the standard library.

    Args:
        body: the JSON text.
        signature_of: finds the signature of a name, whose inputs say how values are to be read.

    Raises:
        RequestError: INVALID_ARGUMENT with TF Serving's message, or whatever `signature_of` raises.

    Example:
        >>> inputs = {"x": TensorInfo("x", np.dtype("float32"), (None, 2))}
        >>> signature = Signature("serving_default", "tensorflow/serving/predict", inputs, {})
        >>> predict_request(b'{"instances": [[1, 2.5], [3, 4]]}', lambda name: signature).inputs["x"]
        array([[1. , 2.5],
               [3. , 4. ]], dtype=float32)

    References: tensorflow.org/tfx/serving/api_rest; util/json_tensor.cc of TF Serving.
    """
    parsed = parse_numbers(body)
    if parsed is not None:
        name = parsed.signature or SIGNATURE
        arrays = read_numbers(parsed, body, signature_of(name).inputs)
        if arrays is not None:
            return PredictRequest(name, arrays, parsed.layout)
    document = load_json(body)
    name = signature_name(document)
    inputs = signature_of(name).inputs
    if not inputs:
        raise _invalid(f"Failed to get input map for signature: {name}")
    layouts = [layout for layout in Layout if layout.value in document]
    if not layouts:
        raise _invalid("Missing 'inputs' or 'instances' key")
    if len(layouts) > 1:
        raise _invalid(
            f"JSON Value: {json_text(document)} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    (layout,) = layouts
    read = _from_rows if layout is Layout.ROWS else _from_columns
    return PredictRequest(name, read(document, inputs), layout)


def _from_rows(document: dict[str, Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise _invalid(f"JSON Value: {json_text(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise _invalid(f"JSON Value: {json_text(document)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_named(instances[0])
    # Only objects need a look at each.
    for index, instance in enumerate(instances if dict in set(map(type, instances)) else ()):
        if _is_named(instance) != named:
            raise _invalid(
                f"Expecting object but got list at item {index} of input list"
                if named
                else f"Expecting value/list but got object at item {index} of input list"
            )
    try:
        if not named:
            ((name, info),) = inputs.items()
            return {name: array_from_json(instances, info.dtype)}
        for index, instance in enumerate(instances):
            _check_names(instance, inputs, index)
        return {
            name: array_from_json([instance[name] for instance in instances], info.dtype)
            for name, info in inputs.items()
        }
    except RequestError as error:
        if error.code is not Code.INVALID_ARGUMENT:
            raise
        _explain(instances, inputs, named=named)
        raise


def _explain(instances: Sequence[Any], inputs: Mapping[str, TensorInfo], *, named: bool) -> None:
    """Goes over instances one by one, for an error that says which one is at fault."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, instance in enumerate(instances):
        items = instance if named else {next(iter(inputs)): instance}
        for name, value in items.items():
            try:
                if name not in inputs:
                    raise _invalid(f"JSON object: does not have named input: {name}")
                array = array_from_json(value, inputs[name].dtype)
                expected = shapes.setdefault(name, array.shape)
                if math.prod(expected) != array.size:
                    raise _invalid(f"Expecting tensor size: {math.prod(expected)} but got: {array.size}")
                if expected != array.shape:
                    raise _invalid(f"Expecting shape {_shape_text(expected)} but got: {_shape_text(array.shape)}")
            except RequestError as error:
                key = f" key: {name}" if named else ""
                raise _invalid(
                    f"Failed to process element: {index}{key} of 'instances' list. Error: "
                    f"{error.code.name}: {error.message}"
                ) from None


def _from_columns(document: dict[str, Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    values = document["inputs"]
    if not _is_named(values):
        if len(inputs) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        values = {next(iter(inputs)): values}
    for name in inputs:
        if name not in values:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
    # Other names in it are not looked at, as in TF Serving.
    return {name: array_from_json(values[name], info.dtype) for name, info in inputs.items()}


def _check_names(instance: dict[str, Any], inputs: Mapping[str, TensorInfo], index: int) -> None:
    if instance.keys() != inputs.keys():
        raise _invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: {json_text(instance)} "
            f"keys must be equal to: {','.join(sorted(inputs))}"
        )


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
