"""Classify and regress: tf.train.Examples in, and classes with scores or one value each out."""

from __future__ import annotations

import numpy as np
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.serving.server.batch_arrays import Arrays
from tfopt.serving.server.request_error import Code, RequestError

__all__ = ["EXAMPLES", "checked_classes", "checked_values", "serialized_examples"]

EXAMPLES = "inputs"
"""The one input of a classify or regress signature: examples in their serialized form."""
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"


def serialized_examples(examples: Input) -> np.ndarray:
    r"""Each example of a request in its serialized form.

    Features of a shared context are in every example; what an example says itself counts more.

    Args:
        examples: an example list, or one with a context.

    Returns:
        An array of bytes of shape `(n,)`; n is 0 where the request has no examples.

    Example:
        >>> request = Input()
        >>> feature = request.example_list.examples.add().features.feature["age"]
        >>> feature.int64_list.value.append(7)
        >>> serialized_examples(request)
        array([b'\n\x0e\n\x0c\n\x03age\x12\x05\x1a\x03\n\x01\x07'], dtype=object)

    References: InputToSerializedExampleTensor in TF Serving's servables/tensorflow/util.cc.
    """
    if examples.WhichOneof("kind") == "example_list_with_context":
        listed = examples.example_list_with_context
        # Serialized messages put after one another are the messages merged.
        context = listed.context.SerializeToString()
        serialized = [context + example.SerializeToString() for example in listed.examples]
    else:
        serialized = [example.SerializeToString() for example in examples.example_list.examples]
    array = np.empty(len(serialized), object)
    array[:] = serialized
    return array


def checked_classes(outputs: Arrays, *, count: int) -> Arrays:
    """The classes and scores that a classify signature gave, if they are as clients expect them.

    Args:
        outputs: "classes", bytes of shape `(count, c)`, and "scores", float32 likewise; or one of them.
        count: how many examples there were.

    Raises:
        RequestError: FAILED_PRECONDITION if there is neither, INVALID_ARGUMENT if one has another dtype or shape.

    Example:
        >>> checked_classes({"scores": np.float32([[0.1, 0.9]])}, count=1)
        {'scores': array([[0.1, 0.9]], dtype=float32)}

    References: PostProcessClassificationResult in TF Serving's servables/tensorflow/classifier.cc.
    """
    found = {name: outputs[name] for name in (CLASSES, SCORES) if name in outputs}
    if not found:
        raise RequestError(
            Code.FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            f"Signature has: {sorted(outputs)}",
        )
    for name, dtype, called in ((CLASSES, np.object_, "DT_STRING"), (SCORES, np.float32, "DT_FLOAT")):
        if name in found:
            array = found[name]
            if array.ndim != 2:
                raise _invalid(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
            if array.dtype != dtype:
                raise _invalid(f"Expected {name} Tensor of {called}. Got: {array.dtype}")
            if len(array) != count:
                raise _invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")
    widths = [array.shape[1] for array in found.values()]
    if len(set(widths)) > 1:
        raise _invalid(f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}")
    return found


def checked_values(outputs: Arrays, *, count: int) -> Arrays:
    """The values that a regress signature gave, if they are as clients expect them.

    Args:
        outputs: "outputs", float32 of shape `(count,)` or `(count, 1)`.
        count: how many examples there were.

    Returns:
        "outputs" of shape `(count,)`.

    Raises:
        RequestError: FAILED_PRECONDITION if there are none, INVALID_ARGUMENT if they have another dtype or shape.

    Example:
        >>> checked_values({"outputs": np.float32([[7]])}, count=1)
        {'outputs': array([7.], dtype=float32)}

    References: PostProcessRegressionResult in TF Serving's servables/tensorflow/regressor.cc.
    """
    if VALUES not in outputs:
        raise RequestError(
            Code.FAILED_PRECONDITION,
            f"No regression outputs found in SignatureDef. Expected: {VALUES}. It has: {sorted(outputs)}",
        )
    array = outputs[VALUES]
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise _invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(array.shape)}"
        )
    if len(array) != count:
        raise _invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if array.dtype != np.float32:
        raise _invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    return {VALUES: array.reshape(count)}


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
