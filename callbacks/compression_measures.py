"""What compression has made of a model so far: zeros, shared values, activation ranges and bytes, by name."""

from __future__ import annotations

import keras
import numpy as np

from tfopt.compression.coding import coded_size_bytes
from tfopt.compression.sharing import shared_values
from tfopt.pruning.masks import sparsity_of
from tfopt.quantization.layers import FakeQuantize, LearnedFakeQuantize
from tfopt.surgery.graph import unique_name
from tfopt.surgery.select import LayerFilter, iterate_layers, select_kernels

__all__ = ["CompressionMeasures"]


class CompressionMeasures:
    """Measures a model again and again, under names that stay the same.

    The totals come first: "sparsity" of the kernels together, "raw_bytes" and "coded_bytes" of all weights of the
    model. Then for each kernel "sparsity/NAME", "distinct_values/NAME" and "coded_bytes/NAME", and for each activation
    range that follows the data or is trained "range_minimum/NAME" and "range_maximum/NAME". NAME is the path of the
    kernel within the model, and the name of the layer that rounds.

    Args:
        model: a built model.
        layers: whose kernels, as in `select_kernels`; default: Dense and Conv.
        coded: whether bytes are also counted after coding, which takes most of the time.

    Raises:
        ConfigError: if `layers` matches nothing.
        ModelError: if the model has no such kernel, or it is not a float variable.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False, name="hidden")])
        >>> model.layers[0].set_weights([np.array([[0, 1], [2, 3]])])
        >>> CompressionMeasures(model, coded=False).measure()
        {'sparsity': 0.25, 'raw_bytes': 16, 'sparsity/hidden/kernel': 0.25, 'distinct_values/hidden/kernel': None}
    """

    def __init__(self, model: keras.Model, layers: LayerFilter | None = None, *, coded: bool = True) -> None:
        self._model, self._coded = model, coded
        taken: set[str] = set()
        # Without the model's own name: an unnamed one has another in the process that resumes.
        self._kernels = {
            unique_name(kernel.path.removeprefix(f"{model.name}/"), taken): kernel
            for _, kernel in select_kernels(model, layers)
        }
        self._ranges = {
            unique_name(layer.name, taken): layer
            for layer in iterate_layers(model)
            if isinstance(layer, (FakeQuantize, LearnedFakeQuantize))
        }

    @property
    def names(self) -> list[str]:
        """What `measure` returns values for, in the same order."""
        totals = ["sparsity", "raw_bytes", *(["coded_bytes"] if self._coded else [])]
        by_kernel = ["sparsity", "distinct_values", *(["coded_bytes"] if self._coded else [])]
        return [
            *totals,
            *(f"{what}/{name}" for name in self._kernels for what in by_kernel),
            *(f"{what}/{name}" for name in self._ranges for what in ("range_minimum", "range_maximum")),
        ]

    def measure(self) -> dict[str, float | None]:
        """The values as they are now; None for distinct values that are not few, and for ranges not observed yet."""
        kernels = {name: keras.ops.convert_to_numpy(kernel) for name, kernel in self._kernels.items()}
        raw_bytes, coded_bytes = 0, {}
        for weight in self._model.weights:
            array = keras.ops.convert_to_numpy(weight)
            raw_bytes += array.nbytes
            if self._coded:
                coded_bytes[id(weight)] = coded_size_bytes(array)
        values: dict[str, float | None] = {"sparsity": sparsity_of(*kernels.values()), "raw_bytes": raw_bytes}
        values["coded_bytes"] = sum(coded_bytes.values())
        for name, array in kernels.items():
            values[f"sparsity/{name}"] = sparsity_of(array)
            values[f"distinct_values/{name}"] = _few_distinct_values(array)
            values[f"coded_bytes/{name}"] = coded_bytes.get(id(self._kernels[name]))
        for name, layer in self._ranges.items():
            ends = map(_number, layer.range()) if layer.is_known else (None, None)
            values[f"range_minimum/{name}"], values[f"range_maximum/{name}"] = ends
        return {name: values[name] for name in self.names}


def _few_distinct_values(weights: np.ndarray) -> int | None:
    nonzeros = weights[weights != 0]
    # A sparse kernel shares its zeros, which "sparsity" tells: it is the other weights that count.
    if shared_values(weights) is None or 4 * np.unique(nonzeros).size >= nonzeros.size:
        return None
    return np.unique(weights).size


def _number(tensor: object) -> float:
    return float(keras.ops.convert_to_numpy(tensor))
