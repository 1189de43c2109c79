"""Early exits as a SavedModel: the rest of the network is in a branch that runs only where samples are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.artifact import Artifact, TensorSpec, record_path, write_whole
from tfopt.data import Samples, check_samples
from tfopt.early_exit.evaluation import exit_outputs
from tfopt.early_exit.policy import ExitPolicy
from tfopt.early_exit.stages import Stages, split_stages
from tfopt.errors import ConfigError, ExportError
from tfopt.export.archive import write_archive
from tfopt.export.saved_model import input_specs
from tfopt.export.signature import SIGNATURE
from tfopt.surgery.model import check_model
from tfopt.surgery.precision import in_float32

__all__ = ["export_early_exit_saved_model"]

ANSWER, EXIT = "answer", "exit"
TOLERANCE = 1e-4
"""The largest error beside Keras, as a fraction of the largest answer."""
EDGE = 1e-5
"""A sample whose confidence is as near as this to a threshold may leave on either side of it."""


def export_early_exit_saved_model(
    network: keras.Model, directory: str | Path, policy: ExitPolicy, *, data: Samples | None = None
) -> Artifact:
    """Writes a network with early exits as a SavedModel that skips what a sample does not need.

    The signature `serving_default` has the network's inputs and two outputs: `answer`, of shape `(batch, classes)`, and
    `exit`, of shape `(batch,)`, the exit at which each sample left, from 0 on. After each stage the samples that are
    sure enough leave, and the next one runs on the others only, within `tf.cond`; where none is left it does not run.
    So a batch costs what its samples cost alone. The thresholds are constants of the file.

    The file is loaded back and compared with Keras, on the data one sample at a time and all at once.

    Args:
        network: a trained network that `tfopt.early_exit` made, or a model whose outputs are exits in order. One of
            mixed precision is written in float32.
        directory: the folder to write; it must not exist. For TF Serving name a version: "model/1".
        policy: the thresholds; see `choose_thresholds`.
        data: samples to compare on, at most 64 are taken; by default uniform in [0, 1).

    Returns:
        The artifact.

    Raises:
        ConfigError: if the folder exists or the policy is of another network.
        ModelError: if the model is not one of several exits, or its inputs have no names.
        DataError: if the data does not fit.
        ExportError: if the file disagrees with Keras; nothing is written then.

    Example:
        >>> import tempfile
        >>> x = keras.Input((4,), name="x")
        >>> h = keras.layers.Dense(8, name="hidden")(x)
        >>> exits = [keras.layers.Dense(3, name="exit_1")(h), keras.layers.Dense(3, name="classes")(h)]
        >>> policy = ExitPolicy(("exit_1", "classes"), (0.8,), from_logits=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     artifact = export_early_exit_saved_model(keras.Model(x, exits), f"{folder}/1", policy)
        >>> [output.name for output in artifact.outputs], artifact.verification["same_exit"]
        (['answer', 'exit'], 1.0)

    References: tensorflow.org/api_docs/python/tf/cond.
    """
    directory = Path(directory)
    if directory.exists():
        raise ConfigError(f"export_early_exit_saved_model: expected a new folder. Received: {directory}, which exists.")
    network = in_float32(check_model(network))
    stages = split_stages(network)
    policy.check_fits(stages.exits, from_logits=stages.from_logits)
    specs = input_specs(network)
    samples = _samples(network, data)
    with write_whole(directory) as temporary:
        inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name) for tensor in network.inputs]
        staged = _StagedAnswers(stages, policy, [tensor.name for tensor in network.inputs])
        write_archive(keras.Model(inputs, staged(inputs)), temporary, outputs=[ANSWER, EXIT], batch_size=None)
        classes = network.outputs[-1].shape[-1]
        artifact = Artifact.of(
            temporary,
            kind="saved_model",
            inputs=specs,
            outputs=(
                TensorSpec(name=ANSWER, shape=(None, classes), dtype="float32"),
                TensorSpec(name=EXIT, shape=(None,), dtype="int32"),
            ),
            verification=_verify(network, policy, specs, samples, temporary),
        ).model_copy(update={"path": directory})
        record_path(temporary).write_text(artifact.to_record())
    return artifact


class _StagedAnswers(keras.Layer):
    """The network run stage by stage, each on the samples that are left."""

    def __init__(self, stages: Stages, policy: ExitPolicy, input_names: list[str]) -> None:
        super().__init__(name="early_exit")
        self.models = [stage.model for stage in stages.stages]  # attributes, so that their weights are saved
        self._stages = stages.stages
        self._policy = policy
        self._input_names = input_names

    def call(self, inputs: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        answer, exits = self._run_from(0, dict(zip(self._input_names, inputs, strict=True)))
        return {ANSWER: answer, EXIT: exits}

    def _run_from(self, index: int, tensors: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The answers and exits of samples that have come as far as a stage."""
        stage = self._stages[index]
        outputs = stage.model([tensors[name] for name in stage.reads], training=False)
        tensors = tensors | dict(zip(stage.writes, keras.tree.flatten(outputs), strict=True))
        answer = tf.cast(tensors[stage.writes[0]], tf.float32)
        exits = tf.fill(tf.shape(answer)[:1], index)
        if index == len(self._stages) - 1:
            return answer, exits
        staying = tf.where(_confidence(answer, self._policy) < self._policy.thresholds[index])[:, 0]
        later = {name for one in self._stages[index + 1 :] for name in one.reads}

        def go_on() -> tuple[tf.Tensor, tf.Tensor]:
            rest = {name: tf.gather(tensor, staying) for name, tensor in tensors.items() if name in later}
            rest_answer, rest_exits = self._run_from(index + 1, rest)
            places = staying[:, tf.newaxis]
            return (
                tf.tensor_scatter_nd_update(answer, places, rest_answer),
                tf.tensor_scatter_nd_update(exits, places, rest_exits),
            )

        return tf.cond(tf.size(staying) > 0, go_on, lambda: (answer, exits))


def _confidence(answer: tf.Tensor, policy: ExitPolicy) -> tf.Tensor:
    """As `tfopt.early_exit.confidence` has it, in tensors."""
    if answer.shape[-1] == 1:
        first = tf.zeros_like(answer) if policy.from_logits else 1 - answer
        answer = tf.concat([first, answer], axis=-1)
    probabilities = tf.nn.softmax(answer) if policy.from_logits else answer
    if policy.confidence == "probability":
        return tf.reduce_max(probabilities, axis=-1)
    entropy = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)
    return 1 - entropy / np.log(probabilities.shape[-1])


def _samples(network: keras.Model, data: Samples | None) -> list[np.ndarray]:
    if data is not None:
        return check_samples(data, network.inputs, what="verification", limit=64)
    generator = np.random.default_rng(0)
    sizes = [tuple(32 if size is None else size for size in tensor.shape[1:]) for tensor in network.inputs]
    return [
        generator.random((8, *size)) if "float" in tensor.dtype else generator.integers(0, 2, (8, *size))
        for size, tensor in zip(sizes, network.inputs, strict=True)
    ]


def _verify(
    network: keras.Model,
    policy: ExitPolicy,
    specs: tuple[TensorSpec, ...],
    samples: list[np.ndarray],
    directory: Path,
) -> dict[str, Any]:
    signature = tf.saved_model.load(str(directory)).signatures[SIGNATURE]
    named = dict(zip((tensor.name for tensor in network.inputs), samples, strict=True))
    outputs = exit_outputs(network, named, what="verification")
    expected, exits = policy.decide(outputs)
    confidences = policy.confidences(outputs)
    on_edge = np.any(np.abs(confidences - np.asarray(policy.thresholds)) <= EDGE, axis=1)
    count, largest, same = len(exits), float(np.abs(expected).max()) or 1.0, []
    worst = 0.0
    for size in (1, count):
        for start in range(0, count, size):
            rows = slice(start, start + size)
            received = signature(
                **{spec.name: tf.constant(x[rows], spec.dtype) for spec, x in zip(specs, samples, strict=True)}
            )
            agrees = received[EXIT].numpy() == exits[rows]
            same.append(agrees)
            errors = np.abs(received[ANSWER].numpy() - expected[rows]).max(axis=-1) / largest
            if not np.all(agrees | on_edge[rows]) or not np.all(errors[agrees] <= TOLERANCE):
                raise ExportError(
                    f"The SavedModel disagrees with Keras: expected the same exits, and answers to {TOLERANCE:g} of "
                    f"the largest. Received: exits {received[EXIT].numpy()[:8]} for {exits[rows][:8]}, errors up to "
                    f"{errors.max():.3g}, at batch size {size}."
                )
            worst = max(worst, float(errors[agrees].max(initial=0.0)))
    return {
        "samples": count,
        "batch_sizes": [1, count],
        "same_exit": float(np.mean(np.concatenate(same))),
        "relative_error": worst,
        "tolerance": TOLERANCE,
        "exit_shares": [float(np.mean(exits == index)) for index in range(len(policy.exits))],
    }
