"""Requests answered: the model found, its inputs checked, the answer taken from the cache or from a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.export.signature import SIGNATURE
from tfopt.serving.server.batch_arrays import Arrays
from tfopt.serving.server.examples import EXAMPLES, checked_classes, checked_values, serialized_examples
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.model_signature import Signature, check_inputs
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.prediction_cache import PredictionCache, cache_key
from tfopt.serving.server.request_error import Code, RequestError
from tfopt.serving.server.served_model import ServedModel

__all__ = ["Prediction", "Predictor"]

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@dataclass(frozen=True)
class Prediction:
    """An answer, and what gave it.

    Args:
        outputs: by name.
        model: the version that answered.
        signature: the signature that was called.
    """

    outputs: Arrays
    model: LoadedVersion
    signature: Signature


class Predictor:
    """Answers requests from the models of a store, whatever protocol they came by.

    Args:
        store: the models.
        cache: where answers are kept; default: nowhere.
        trusted_callers: whether callers would not make up requests that the cache takes for another's; see
            `tfopt.serving.server.prediction_cache.cache_key`.
        default_deadline_seconds: for requests that have no deadline; default: they wait as long as it takes.

    Example:
        >>> import tempfile
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from pathlib import Path
        >>> import tensorflow as tf
        >>> def double(x):
        ...     return {"y": 2 * x}
        >>> async def ask(folder):
        ...     with ThreadPoolExecutor() as executor:
        ...         store = ModelStore(Path(folder), batching=None, executor=executor)
        ...         await store.start()
        ...         prediction = await Predictor(store).predict("double", {"x": np.float32([1, 2])})
        ...         await store.stop()
        ...     return prediction.outputs["y"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     function = tf.function(double, [tf.TensorSpec([None], name="x")])
        ...     tf.saved_model.save(tf.Module(), f"{folder}/double/1", function)
        ...     asyncio.run(ask(folder))
        array([2., 4.], dtype=float32)
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        cache: PredictionCache | None = None,
        trusted_callers: bool = True,
        default_deadline_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._trusted_callers = trusted_callers
        self._default_deadline_seconds = default_deadline_seconds

    async def predict(
        self,
        name: str,
        inputs: Mapping[str, np.ndarray],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = SIGNATURE,
        deadline: float | None = None,
    ) -> Prediction:
        """Runs a signature on tensors.

        Args:
            name: the model.
            inputs: the tensors that the signature takes.
            version: its number; default: the latest.
            label: a name for the version, instead of its number.
            signature: what to call.
            deadline: the event loop's time at which the answer is of no more use.

        Raises:
            RequestError: if the request cannot be answered, with TF Serving's code.
        """
        served = self._store.get(name, version=version, label=label)
        called = served.version.signatures.get(signature)
        if called is None:
            raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        return await self._run(served, called, inputs, deadline)

    async def classify(
        self,
        name: str,
        examples: Input,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = SIGNATURE,
        deadline: float | None = None,
    ) -> Prediction:
        """Runs a classify signature on tf.train.Examples; the arguments are those of `predict`.

        Returns:
            The outputs "classes", bytes of shape `(n, c)`, and "scores", float32 likewise; or one of them.

        Raises:
            RequestError: if the request cannot be answered, with TF Serving's code.
        """
        served = self._store.get(name, version=version, label=label)
        called = _example_signature(served, signature, CLASSIFY, "classification")
        return await self._run_examples(served, called, examples, deadline, checked_classes)

    async def regress(
        self,
        name: str,
        examples: Input,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = SIGNATURE,
        deadline: float | None = None,
    ) -> Prediction:
        """Runs a regress signature on tf.train.Examples; the arguments are those of `predict`.

        Returns:
            The output "outputs", float32 of shape `(n,)`.

        Raises:
            RequestError: if the request cannot be answered, with TF Serving's code.
        """
        served = self._store.get(name, version=version, label=label)
        called = _example_signature(served, signature, REGRESS, "regression")
        return await self._run_examples(served, called, examples, deadline, checked_values)

    async def _run_examples(
        self,
        served: ServedModel,
        signature: Signature,
        examples: Input,
        deadline: float | None,
        checked: Callable[..., Arrays],
    ) -> Prediction:
        serialized = _serialized(examples)
        prediction = await self._run(served, signature, {EXAMPLES: serialized}, deadline)
        return replace(prediction, outputs=checked(prediction.outputs, count=len(serialized)))

    async def _run(
        self, served: ServedModel, signature: Signature, inputs: Mapping[str, np.ndarray], deadline: float | None
    ) -> Prediction:
        # Held before anything is awaited: the store may unload a version that nobody holds.
        with served.held():
            arrays = check_inputs(signature, inputs)
            if deadline is None and self._default_deadline_seconds is not None:
                deadline = asyncio.get_running_loop().time() + self._default_deadline_seconds
            run = partial(served.batcher(signature.name).submit, arrays)
            if self._cache is None:
                outputs = await run(deadline=deadline)
            else:
                key = cache_key(
                    served.version.name,
                    served.version.version,
                    signature.name,
                    arrays,
                    trusted=self._trusted_callers,
                )
                outputs = await _cached(self._cache, key, run, deadline)
        return Prediction(outputs, served.version, signature)


async def _cached(
    cache: PredictionCache, key: bytes, run: Callable[[], Awaitable[Arrays]], deadline: float | None
) -> Arrays:
    # A run may be shared by callers with other deadlines: it has none itself, and goes on without this caller.
    try:
        async with asyncio.timeout_at(deadline) as timeout:
            return await cache.get_or_run(key, run)
    except TimeoutError:
        if not timeout.expired():
            raise
        raise RequestError(Code.DEADLINE_EXCEEDED, "The deadline passed before the answer was there") from None


def _example_signature(served: ServedModel, name: str, method: str, kind: str) -> Signature:
    signature = served.version.signatures.get(name)
    if signature is None:
        raise _invalid(f"No signature was found with the name: {name}")
    if signature.method != method:
        raise _invalid(f"Expected {kind} signature method_name to be {method}. Was: {signature.method}")
    if len(signature.inputs) != 1:
        raise _invalid("Expected one input Tensor.")
    if EXAMPLES not in signature.inputs:
        raise RequestError(
            Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef. It has: {sorted(signature.inputs)}"
        )
    return signature


def _serialized(examples: Input) -> np.ndarray:
    serialized = serialized_examples(examples)
    if not len(serialized):
        raise _invalid("Input is empty.")
    return serialized


def _invalid(message: str) -> RequestError:
    return RequestError(Code.INVALID_ARGUMENT, message)
