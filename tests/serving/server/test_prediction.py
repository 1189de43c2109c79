"""Predictor: what it answers, what it refuses, and the cache in front of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.input_pb2 import Input

from tfopt.serving.batching import BatchingParameters
from tfopt.serving.server.loaded_version import LoadedVersion
from tfopt.serving.server.model_store import ModelStore
from tfopt.serving.server.prediction import Prediction, Predictor
from tfopt.serving.server.prediction_cache import MemoryCache
from tfopt.serving.server.request_error import Code, RequestError

BATCHING = BatchingParameters(
    max_batch_size=4, allowed_batch_sizes=(1, 4), num_batch_threads=2, max_enqueued_batches=100
)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def write_classifier(folder: Path) -> None:
    """A model as TF1 wrote them: its signatures take tf.train.Examples and say what they are for."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="examples")
        age = v1.parse_example(examples, {"age": v1.FixedLenFeature([1], tf.float32)})["age"]
        names = tf.tile(tf.constant([[b"young", b"old"]]), [tf.shape(age)[0], 1])
        inputs = {"inputs": v1.saved_model.build_tensor_info(examples)}
        more = v1.saved_model.build_tensor_info(v1.placeholder(tf.string, [None], name="more"))

        def signature(method: str, *, inputs: dict = inputs, **outputs: tf.Tensor) -> Any:
            infos = {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in outputs.items()}
            return v1.saved_model.build_signature_def(inputs, infos, f"tensorflow/serving/{method}")

        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {
                "serving_default": signature("classify", classes=names, scores=tf.concat([1 - age, age], 1)),
                "age": signature("regress", outputs=age),
                "bare": signature("predict", y=age),
                "odd": signature("classify", inputs={"x": inputs["inputs"]}, scores=age),
                "two": signature("regress", inputs={**inputs, "x": more}, outputs=age),
            },
        )
        builder.save()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, write_affine: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_affine(folder / "affine/1", factor=2)
    write_affine(folder / "affine/2", factor=3)
    write_classifier(folder / "people/1")
    (folder / "models.config").write_text(
        """model_config_list {
             config { name: "affine" base_path: "/models/affine" model_platform: "tensorflow"
                      model_version_policy { all { } } version_labels { key: "stable" value: 1 } }
             config { name: "people" base_path: "/models/people" model_platform: "tensorflow" } }"""
    )
    return folder


def ask(
    models: Path, executor: ThreadPoolExecutor, question: Callable[[Predictor], Awaitable[Any]], **options: Any
) -> Any:
    @asynccontextmanager
    async def started() -> AsyncIterator[Predictor]:
        store = ModelStore(models, batching=BATCHING, executor=executor, poll_seconds=0)
        await store.start()
        yield Predictor(store, **options)
        await store.stop()

    async def scenario() -> Any:
        async with started() as predictor:
            return await question(predictor)

    return asyncio.run(scenario())


def people(*ages: float) -> Input:
    request = Input()
    for age in ages:
        request.example_list.examples.add().features.feature["age"].float_list.value.append(age)
    return request


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_prediction_tells_what_gave_it(models: Path, executor: ThreadPoolExecutor) -> None:
    async def question(predictor: Predictor) -> list[Prediction]:
        return [
            await predictor.predict("affine", {"x": X}),
            await predictor.predict("affine", {"x": X}, version=1, signature="negated"),
            await predictor.predict("affine", {"x": X}, label="stable"),
        ]

    latest, negated, stable = ask(models, executor, question)
    np.testing.assert_array_equal(latest.outputs["y"], 3 * X)
    np.testing.assert_array_equal(negated.outputs["y"], -2 * X)
    np.testing.assert_array_equal(stable.outputs["y"], 2 * X)
    assert (latest.model.name, latest.model.version, latest.signature.name) == ("affine", 2, "serving_default")
    assert (negated.model.version, negated.signature.name) == (1, "negated")


def test_classes_and_values_of_examples(models: Path, executor: ThreadPoolExecutor) -> None:
    async def question(predictor: Predictor) -> list[Prediction]:
        return [
            await predictor.classify("people", people(0.25, 1)),
            await predictor.regress("people", people(*range(4)), signature="age"),
        ]

    classes, values = ask(models, executor, question)
    assert classes.outputs["classes"].tolist() == [[b"young", b"old"]] * 2
    np.testing.assert_array_equal(classes.outputs["scores"], [[0.75, 0.25], [0, 1]])
    np.testing.assert_array_equal(values.outputs["outputs"], range(4))


@pytest.mark.parametrize(
    ("method", "arguments", "code", "message"),
    [
        ("predict", {"name": "none", "inputs": {}}, Code.NOT_FOUND, "Servable not found for request: Latest(none)"),
        (
            "predict",
            {"name": "affine", "inputs": {}, "version": 9},
            Code.NOT_FOUND,
            "Servable not found for request: Specific(affine, 9)",
        ),
        (
            "predict",
            {"name": "affine", "inputs": {"x": X}, "signature": "s"},
            Code.FAILED_PRECONDITION,
            'Serving signature key "s" not found.',
        ),
        ("predict", {"name": "affine", "inputs": {"x": X.astype(int)}}, Code.INVALID_ARGUMENT, "of type float32"),
        ("predict", {"name": "affine", "inputs": {"z": X}}, Code.INVALID_ARGUMENT, "Missing but required: {x}"),
        (
            "predict",
            {"name": "affine", "inputs": {"x": np.zeros((5, 3), np.float32)}},
            Code.INVALID_ARGUMENT,
            "Task size 5 is larger than maximum input batch size 4",
        ),
        (
            "classify",
            {"name": "affine", "examples": people(1)},
            Code.INVALID_ARGUMENT,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
        ),
        (
            "regress",
            {"name": "people", "examples": people(1)},
            Code.INVALID_ARGUMENT,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/classify",
        ),
        (
            "classify",
            {"name": "people", "examples": people(1), "signature": "s"},
            Code.INVALID_ARGUMENT,
            "No signature was found with the name: s",
        ),
        ("classify", {"name": "people", "examples": people()}, Code.INVALID_ARGUMENT, "Input is empty."),
        (
            "classify",
            {"name": "people", "examples": people(1), "signature": "odd"},
            Code.FAILED_PRECONDITION,
            "No classification inputs found in SignatureDef",
        ),
        (
            "regress",
            {"name": "people", "examples": people(1), "signature": "two"},
            Code.INVALID_ARGUMENT,
            "Expected one input Tensor.",
        ),
    ],
)
def test_refusals_have_tf_servings_codes_and_words(
    models: Path, executor: ThreadPoolExecutor, method: str, arguments: dict, code: Code, message: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        ask(models, executor, lambda predictor: getattr(predictor, method)(**arguments))
    assert caught.value.code == code


def test_an_example_without_the_feature_is_refused_in_tensorflows_words(
    models: Path, executor: ThreadPoolExecutor
) -> None:
    request = Input()
    request.example_list.examples.add()
    with pytest.raises(RequestError, match=r"Feature: age .data type: float. is required") as caught:
        ask(models, executor, lambda predictor: predictor.classify("people", request))
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_the_cache_answers_what_was_asked_before(
    models: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, run = [], LoadedVersion.run

    def counted(self: LoadedVersion, signature: str, inputs: dict) -> dict:
        ran.append((self.version, signature, len(inputs["x"])))
        return run(self, signature, inputs)

    monkeypatch.setattr(LoadedVersion, "run", counted)

    async def question(predictor: Predictor) -> None:
        await asyncio.gather(*(predictor.predict("affine", {"x": X}) for _ in range(10)))
        prediction = await predictor.predict("affine", {"x": X})
        np.testing.assert_array_equal(prediction.outputs["y"], 3 * X)
        assert prediction.model.version == 2
        assert ran == [(2, "serving_default", 4)]
        prediction = await predictor.predict("affine", {"x": X}, label="stable")
        np.testing.assert_array_equal(prediction.outputs["y"], 2 * X)
        prediction = await predictor.predict("affine", {"x": X}, signature="negated")
        np.testing.assert_array_equal(prediction.outputs["y"], -3 * X)
        assert ran[1:] == [(1, "serving_default", 4), (2, "negated", 4)]

    ask(models, executor, question, cache=MemoryCache(10**6), trusted_callers=False)


@pytest.mark.parametrize("cached", [False, True])
def test_deadlines(models: Path, executor: ThreadPoolExecutor, cached: bool) -> None:
    async def question(predictor: Predictor) -> None:
        now = asyncio.get_running_loop().time()
        with pytest.raises(RequestError) as caught:
            await predictor.predict("affine", {"x": X}, deadline=now - 1)
        assert caught.value.code == Code.DEADLINE_EXCEEDED
        prediction = await predictor.predict("affine", {"x": X}, deadline=now + 100)
        np.testing.assert_array_equal(prediction.outputs["y"], 3 * X)

    ask(models, executor, question, cache=MemoryCache(10**6) if cached else None)


def test_a_default_deadline_bounds_requests_that_have_none(models: Path, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(RequestError) as caught:
        ask(
            models,
            executor,
            lambda predictor: predictor.predict("affine", {"x": X}),
            default_deadline_seconds=-1.0,
        )
    assert caught.value.code == Code.DEADLINE_EXCEEDED
