"""How long layers take on this machine as a .tflite computes them: each kind measured once, networks added up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfopt.artifact import Artifact, write_whole
from tfopt.benchmark.candidates import candidates
from tfopt.benchmark.loading import load_runner
from tfopt.errors import ConfigError
from tfopt.export.tflite import export_tflite
from tfopt.recipe import Preset
from tfopt.surgery.graph import Call, Graph, Value, read_graph

__all__ = ["LatencyTable"]

FUSED = ("Activation", "BatchNormalization", "Dropout", "ReLU", "SpatialDropout2D")
"""What the converter makes a part of the operator before it, where nothing else reads that one's output."""
CALIBRATION_SAMPLES = 8
WEIGHTS = ("initializer", "regularizer", "constraint")
"""Of a layer's config, by the end of the name: what changes its numbers and not its time."""


@dataclass(frozen=True)
class _Block:
    """A layer with those fused into it, at the shapes of its inputs."""

    layers: tuple[keras.Layer, ...]
    inputs: tuple[Value, ...]

    @property
    def key(self) -> str:
        """What its time depends on."""
        shapes = [[list(value.shape), value.dtype] for value in self.inputs]
        return json.dumps([*shapes, *map(_described, self.layers)], sort_keys=True, default=str)


class LatencyTable:
    """The latency of any network of known layers, from measured ones; no network needs to be exported for it.

    Use it where many networks are compared, as `search_architecture` does. A convolution with the batch norm and
    activation after it is one entry, at its input's shape. What a network has that the table lacks is measured when it
    is asked for: all of it in one file, each operator by itself, on one thread (`tfopt.benchmark`'s operator times).

    The sum is an estimate: operators that follow each other share caches, so that networks of some hundred microseconds
    take 0.75 to 1.3 times as long as their parts. It ranks networks; measure the one that is chosen.

    Args:
        file: where the table is kept, as JSON, for the next search on this machine; None keeps it in memory.
        quantization: a preset of `export_tflite`: what the network will be, such as "int8" or "none".

    Raises:
        ConfigError: if the file holds something else, or another quantization.

    Example:
        >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3), keras.layers.ReLU(), keras.layers.Flatten()]
        >>> small, table = keras.Sequential(layers), LatencyTable(quantization="none")
        >>> table.predict_ms(small) > 0, len(table)  # the convolution with its ReLU; and what flattens
        (True, 2)
        >>> deep = keras.Sequential([*layers[:3], keras.layers.Conv2D(16, 3), keras.layers.Flatten()])
        >>> table.predict_ms(deep) > table.predict_ms(small)
        True

    References: Cai et al. 2019, arXiv:1812.00332 (ProxylessNAS: a latency model from measured layers).
    """

    def __init__(self, file: str | Path | None = None, *, quantization: Preset = "int8") -> None:
        self._file, self._quantization = None if file is None else Path(file), quantization
        self._milliseconds: dict[str, float] = {}
        if self._file is not None and self._file.exists():
            self._milliseconds = self._read(self._file)

    def __len__(self) -> int:
        return len(self._milliseconds)

    def predict_ms(self, model: keras.Model) -> float:
        """The latency of one inference on one thread, in ms.

        Args:
            model: a Functional or Sequential model; its weights do not matter.

        Raises:
            ModelError: if the model is subclassed, or cannot be exported.
            ExportError: if a layer of it cannot be exported.
        """
        blocks = _blocks(read_graph(model))
        missing = {block.key: block for block in blocks if block.key not in self._milliseconds}
        if missing:
            self._milliseconds |= self._measured(missing)
            if self._file is not None:
                with write_whole(self._file) as temporary:
                    temporary.write_text(
                        json.dumps({"quantization": self._quantization, "milliseconds": self._milliseconds}, indent=1)
                    )
        return sum(self._milliseconds[block.key] for block in blocks)

    def _read(self, file: Path) -> dict[str, float]:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            times = {str(key): float(time_ms) for key, time_ms in found["milliseconds"].items()}
            quantization = found["quantization"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"LatencyTable: expected a table in {file}. Received: {error!r}.") from None
        if quantization != self._quantization:
            raise ConfigError(
                f"LatencyTable: {file} must be of {self._quantization}. Received: one of {quantization}. Choose "
                "another file for each quantization."
            )
        return times

    def _measured(self, blocks: dict[str, _Block]) -> dict[str, float]:
        """The time of each block, by its key: all of them beside each other in one file."""
        inputs, outputs = [], []
        for number, block in enumerate(blocks.values()):
            tensors = [keras.Input(value.shape[1:], dtype=value.dtype) for value in block.inputs]
            inputs += tensors
            output: Any = tensors if len(tensors) > 1 else tensors[0]
            for position, layer in enumerate(block.layers):
                # The name says whose an operator is.
                output = type(layer).from_config({**layer.get_config(), "name": f"block_{number}_{position}"})(output)
            outputs.append(output)
        model = keras.Model(inputs, outputs)
        generator = np.random.default_rng(0)
        samples = {tensor.name: _samples(tensor, generator) for tensor in inputs}
        with tempfile.TemporaryDirectory(prefix="tfopt-latency-") as folder:
            path = Path(folder, "blocks.tflite")
            artifact = export_tflite(model, path, self._quantization, calibration=samples, verify=False)
            times = _operator_times(artifact)
        found = dict.fromkeys(blocks, 0.0)  # what the converter left out takes no time
        for layers, time_ms in times:
            numbers = {int(name.split("_")[1]) for name in layers if name.startswith("block_")}
            for number in numbers:
                found[list(blocks)[number]] += time_ms / len(numbers)
        return found


def _operator_times(artifact: Artifact) -> list[tuple[Sequence[str], float]]:
    """Of each operator, the Keras layers it computes and its time in ms."""
    times = load_runner(candidates([artifact])[0], (1,)).operator_times(1)
    return [(layers, time.time_ms) for layers, time in zip(artifact.layers, times, strict=True)]


def _blocks(graph: Graph) -> list[_Block]:
    """The calls of a graph, each with what is fused into it."""
    found, taken = [], set[Call]()
    for call in graph.calls:
        if call in taken:
            continue
        chain, last = [call.operation], call
        while (following := graph.consumers.get(last.output, [])) and len(following) == 1:
            (after,) = following
            if type(after.operation).__name__ not in FUSED or graph.is_output(last.output):
                break
            chain.append(after.operation)
            taken.add(after)
            last = after
        found.append(_Block(tuple(chain), tuple(call.inputs)))
    return found


def _described(layer: keras.Layer) -> Any:
    """A layer as its time depends on it."""
    config = {key: value for key, value in layer.get_config().items() if not key.endswith(WEIGHTS)}
    return [type(layer).__name__, {key: value for key, value in config.items() if key not in ("name", "trainable")}]


def _samples(tensor: keras.KerasTensor, generator: np.random.Generator) -> np.ndarray:
    shape = (CALIBRATION_SAMPLES, *tensor.shape[1:])
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return generator.normal(size=shape).astype(dtype) if "float" in dtype else np.zeros(shape, dtype)
