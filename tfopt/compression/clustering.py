"""The verb: the weights of each kernel become a few shared values."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from tfopt.compression.centroids import Start, check_start, find_centroids, nearest_centroids
from tfopt.compression.sharing import MAXIMUM_SHARED_VALUES
from tfopt.errors import ConfigError, ModelError
from tfopt.surgery.graph import Call, Copier, copy_call, read_graph, rebuild
from tfopt.surgery.model import check_model
from tfopt.surgery.select import LayerFilter, select_kernels

__all__ = ["cluster", "is_large_enough"]

WEIGHTS_PER_VALUE = 4

_CHANNELS_BEFORE_LAST = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


def cluster(
    model: keras.Model,
    n_clusters: int = 16,
    *,
    start: Start = "linear",
    per_channel: bool = False,
    preserve_sparsity: bool = True,
    layers: LayerFilter | None = None,
) -> keras.Model:
    """Returns a model in which each kernel has at most `n_clusters` distinct weights.

    Use it on a trained (and perhaps pruned) model that is to be stored or sent small: 16 values need 4 bits a weight,
    and fewer with `tfopt.compression.save_coded`. The file of a .keras or float .tflite export stays as large until it
    is zipped or coded, and inference as fast. The given model is left as it is; nested models are laid flat.

    Each kernel's weights are replaced by their centroids (k-means, see `tfopt.compression.centroids`). **To train the
    centroids**, compile the returned model and fit it with `tfopt.callbacks.PreserveCompression()`: each group of equal
    weights then moves as one, by the mean of what the optimizer makes of its members, and zeros stay zeros. A few
    epochs at a tenth of the learning rate win most of the lost accuracy back.

    A kernel with fewer than `4 * n_clusters + 1` weights (with `per_channel`, in a channel) is left as it is and named
    in a warning: its centroids would take as much room as its weights.

    Args:
        model: a built Functional or Sequential model.
        n_clusters: distinct weights of a kernel, in [2, 256].
        start: where k-means starts: "linear" (default), "density" or "kmeans++".
        per_channel: gives each output channel centroids of its own: less error, and as many times the centroids.
        preserve_sparsity: keeps 0 a value of its own: exact zeros stay zeros and other weights do not become zeros.
            Otherwise a pruned kernel may lose its zeros.
        layers: a predicate on a layer, or a regular expression that its whole name matches; default: every Dense and
            Conv kernel (see `tfopt.surgery.select.select_kernels`).

    Raises:
        ConfigError: if an argument is out of range, or `layers` matches nothing.
        ModelError: if the model is not a built Keras 3 model, is subclassed, has NaN weights, or all of the chosen
            kernels are too small.

    Warns:
        UserWarning: names the kernels that are too small.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10, name="hidden")])
        >>> clustered = cluster(model, 4)
        >>> np.unique(clustered.get_layer("hidden").kernel).size
        4

    References: Han et al. 2016, arXiv:1510.00149, section 3.
    """
    if not isinstance(n_clusters, int) or not 2 <= n_clusters <= MAXIMUM_SHARED_VALUES:
        raise ConfigError(
            f"cluster: n_clusters must be an int in [2, {MAXIMUM_SHARED_VALUES}]. Received: {n_clusters!r}."
        )
    check_start("cluster: start", start)
    check_model(model)
    clustered: dict[int, np.ndarray] = {}
    too_small = []
    for layer, kernel in select_kernels(model, layers):
        weights = keras.ops.convert_to_numpy(kernel)
        axis = _channel_axis(layer)
        size = weights.size // weights.shape[axis] if per_channel else weights.size
        if not is_large_enough(size, n_clusters):
            too_small.append(f"'{layer.name}' ({size})")
        elif per_channel:
            channels = [_shared(each, n_clusters, start, preserve_sparsity) for each in np.moveaxis(weights, axis, 0)]
            clustered[id(kernel)] = np.stack(channels, axis=axis)
        else:
            clustered[id(kernel)] = _shared(weights, n_clusters, start, preserve_sparsity)
    if too_small:
        what = (
            f"cluster: {n_clusters} values need more than {WEIGHTS_PER_VALUE * n_clusters} weights"
            f"{' in each channel' if per_channel else ''} to save anything. Received: {', '.join(too_small)}. "
        )
        if not clustered:
            raise ModelError(f"{what}Ask for fewer clusters{', or leave per_channel out' if per_channel else ''}.")
        warnings.warn(f"{what}These kernels are left as they are.", UserWarning, stacklevel=2)

    pairs: dict[int, tuple[keras.Operation, keras.Operation]] = {}

    def remember(call: Call, copy: Copier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pairs[id(call.operation)] = call.operation, copy(call.operation)
        return copy_call(call, copy, args, kwargs)

    result = rebuild(read_graph(model), on_call=remember)
    for original, duplicate in pairs.values():
        if isinstance(original, keras.Layer):
            for weight, copied in zip(original.weights, duplicate.weights, strict=True):
                if id(weight) in clustered:
                    copied.assign(clustered[id(weight)])
    return result


def is_large_enough(size: int, n_clusters: int) -> bool:
    """Whether shared values take clearly less room than the weights of a kernel, or channel, of so many."""
    return size > WEIGHTS_PER_VALUE * n_clusters


def _shared(weights: np.ndarray, n_clusters: int, start: Start, keep_zero: bool) -> np.ndarray:
    centroids = find_centroids(weights, n_clusters, start=start, keep_zero=keep_zero)
    return centroids[nearest_centroids(weights, centroids, keep_zero=keep_zero)].astype(weights.dtype)


def _channel_axis(layer: keras.layers.Layer) -> int:
    return -2 if isinstance(layer, _CHANNELS_BEFORE_LAST) else -1
