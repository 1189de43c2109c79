"""A tf_keras model, built anew of layers of Keras 3 with its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.errors import ModelError
from tfopt.interop.layer_configs import CustomObjects, keras_3_layer, keras_3_name
from tfopt.interop.legacy import import_tf_keras
from tfopt.interop.tf_functions import call_tf_function, slice_tensor
from tfopt.interop.tf_keras_graph import LayerCall, Tensor, read_tf_keras, tensors_in
from tfopt.interop.tfmot_wrappers import Range, Unwrapped, input_range, is_quantize_layer, unwrap
from tfopt.surgery.graph import unique_name

__all__ = ["TranslatedLayer", "Translation", "translate"]


@dataclass(frozen=True)
class TranslatedLayer:
    """A layer of tf_keras beside its translation.

    Args:
        unwrapped: the layer, out of tfmot's wrapper.
        layer: what it became in Keras 3.
    """

    unwrapped: Unwrapped
    layer: keras.Layer


@dataclass
class Translation:
    """What `translate` found.

    Args:
        layers: every layer, nested ones too, in the order in which they were met.
        tensor_ranges: the ranges of QuantizeLayers, by the name of the layer of Keras 3 (or of the input) before.
    """

    custom_objects: CustomObjects
    layers: list[TranslatedLayer] = field(default_factory=list)
    tensor_ranges: dict[str, Range] = field(default_factory=dict)
    known: dict[int, Any] = field(default_factory=dict)


def translate(model: Any, custom_objects: CustomObjects) -> tuple[keras.Model, Translation]:
    """Returns the float model in Keras 3, and what its layers were.

    Raises:
        ModelError: if the model is subclassed or not built, or a layer has no translation.
    """
    translation = Translation(custom_objects)
    translated = _model(model, translation)
    for pair in translation.layers:
        _set_weights(pair)
    return translated, translation


def _model(model: Any, translation: Translation) -> keras.Model:
    tf_keras = import_tf_keras()
    if not model.built:
        raise ModelError(
            f"The tf_keras model '{model.name}' is not built: its weights have no shape yet. "
            "Give it an Input or call it once on data."
        )
    sequential = isinstance(model, tf_keras.Sequential)
    result = _sequential(model, translation) if sequential else _functional(model, translation)
    if not model.trainable:
        result.trainable = False
    return result


def _sequential(model: Any, translation: Translation) -> keras.Model:
    try:
        tensor = model.inputs[0]
    except (TypeError, AttributeError):
        raise ModelError(
            f"The Sequential tf_keras model '{model.name}' has no input of a known shape. Build it anew as "
            "tf_keras.Sequential([tf_keras.Input(shape), *model.layers])."
        ) from None
    result = keras.Sequential([_input(tensor)], name=keras_3_name(model.name))
    before = _input_name(tensor)
    for layer in model.layers:
        if is_quantize_layer(layer):
            _note_range(layer, before, translation)
            continue
        if type(layer).__name__ == "InputLayer":
            continue
        translated = _layer(layer, translation)
        result.add(translated)
        before = translated.name
    return result


def _functional(model: Any, translation: Translation) -> keras.Model:
    graph = read_tf_keras(model)
    taken = {keras_3_name(layer.name) for layer in model.layers}
    inputs = [_input(tensor) for tensor in tf.nest.flatten(model.input)]
    tensors: dict[Tensor, Any] = dict(zip(graph.inputs, inputs, strict=True))
    origins: dict[Tensor, str] = {tensor: keras_3_name(tensor.layer) for tensor in graph.inputs}
    for call in graph.calls:
        args, kwargs = tf.nest.map_structure(
            lambda leaf: tensors[leaf] if isinstance(leaf, Tensor) else leaf, (call.inputs, call.kwargs)
        )
        origin = call.layer.name
        if is_quantize_layer(call.layer):
            origin = origins[next(tensors_in(call.inputs))]
            _note_range(call.layer, origin, translation)
            outputs = args
        elif (outputs := _call_function(call, args, kwargs)) is not None:
            _name_operations((args, kwargs), outputs, origin.replace(".", "_"), taken)
        else:
            layer = _layer(call.layer, translation)
            given = {name: value for name, value in kwargs.items() if value is not None}
            if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)) and isinstance(args, (list, tuple)):
                args, given["initial_state"] = args[0], list(args[1:])  # tf_keras lists them as one argument
            outputs = layer(args, **given)
            origin = layer.name
        for index, tensor in enumerate(tf.nest.flatten(outputs)):
            key = Tensor(call.layer.name, call.node, index)
            tensors[key], origins[key] = tensor, origin
    return keras.Model(
        tf.nest.pack_sequence_as(model.input, inputs),
        tf.nest.pack_sequence_as(model.output, [tensors[tensor] for tensor in graph.outputs]),
        name=keras_3_name(model.name),
    )


def _call_function(call: LayerCall, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a call of a function of TensorFlow gives; None if the call is one of a layer."""
    match type(call.layer).__name__:
        case "TFOpLambda":
            return call_tf_function(call.layer.get_config()["function"], call.layer.name, args, kwargs)
        case "SlicingOpLambda":
            return slice_tensor(args, kwargs["slice_spec"])
    return None


def _name_operations(arguments: Any, outputs: Any, name: str, taken: set[str]) -> None:
    """Names the operations that were just called, whose own names might be those of layers."""
    inputs = [leaf for leaf in keras.tree.flatten(arguments) if isinstance(leaf, keras.KerasTensor)]
    for operation in keras.Function(inputs, outputs).operations:
        if not isinstance(operation, keras.Layer):
            operation.name = unique_name(name, taken)


def _layer(layer: Any, translation: Translation) -> keras.Layer:
    if id(layer) in translation.known:
        return translation.known[id(layer)][1]
    tf_keras = import_tf_keras()
    if isinstance(layer, tf_keras.Model):
        translated: Any = _model(layer, translation)
    else:
        unwrapped = unwrap(layer)
        inner = unwrapped.layer
        kind = type(inner).__name__
        if isinstance(inner, tf_keras.layers.TimeDistributed) and unwrapped.weights is None:
            # The layer within may be a model, and has its weights by itself.
            within = _layer(inner.layer, translation)
            translated = keras.layers.TimeDistributed(within, name=keras_3_name(inner.name))
        else:
            own = type(inner).__module__.partition(".")[0] in {"tf_keras", "tensorflow_model_optimization"}
            translated = keras_3_layer(kind, inner.get_config(), custom_objects=translation.custom_objects, own=own)
            translation.layers.append(TranslatedLayer(unwrapped, translated))
    translation.known[id(layer)] = layer, translated
    return translated


def _input(tensor: Any) -> Any:
    shape = tuple(tensor.shape)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype.name, name=_input_name(tensor))


def _input_name(tensor: Any) -> str:
    return keras_3_name(str(tensor.name).partition(":")[0])


def _note_range(layer: Any, before: str, translation: Translation) -> None:
    if (found := input_range(layer)) is not None:
        translation.tensor_ranges[before] = found


def _set_weights(pair: TranslatedLayer) -> None:
    unwrapped, layer = pair.unwrapped, pair.layer
    weights = unwrapped.layer.get_weights() if unwrapped.weights is None else unwrapped.weights
    expected, received = [tuple(w.shape) for w in layer.weights], [np.shape(w) for w in weights]
    if expected != received:
        raise ModelError(
            f"from_tf_keras: the weights of the layer '{layer.name}' do not fit. Expected by Keras 3: {expected}. "
            f"Received from tf_keras: {received}. Pass custom_objects={{{type(layer).__name__!r}: YourKeras3Layer}} "
            "with a layer that has these weights in this order."
        )
    layer.set_weights(weights)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()  # it computes with what it derives from its weights
