"""The config of a tf_keras layer as a layer of Keras 3 that computes the same."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from tfopt.errors import ModelError, first_line
from tfopt.interop.keras_2_activations import ACTIVATIONS

__all__ = ["CustomObjects", "keras_3_layer", "keras_3_name"]

CustomObjects = Mapping[str, Any]
"""For the name of a class or function of the user's, what takes its place in Keras 3: a layer class or a function."""

_RENAMED_ARGUMENTS = {"LeakyReLU": {"alpha": "negative_slope"}, "ThresholdedReLU": {"theta": "threshold"}}
_RENAMED_CLASSES = {"ThresholdedReLU": "ReLU"}
# What Keras 3 no longer has, and what it may say to be left out: what Keras 3 does anyhow. None: anything.
_GONE: dict[str, tuple[Any, ...] | None] = {
    "batch_input_shape": None,
    "dynamic": None,
    "fused": None,
    "groups": (1,),
    "implementation": None,
    "input_length": None,
    "key_shape": None,
    "query_shape": None,
    "value_shape": None,
    "ragged": (False,),
    "softmax_robust_masking": None,
    "sparse": (False,),
    "synchronized": (False,),
    "time_major": (False,),
}
_EVERY_LAYER = {"name", "dtype", "trainable", "activity_regularizer"}
_OBJECTS = {
    "_initializer": keras.initializers.get,
    "_regularizer": keras.regularizers.get,
    "_constraint": keras.constraints.get,
}
_QUANTIZED_ACTIVATION, _NO_ACTIVATION = "QuantizeAwareActivation", "NoOpActivation"  # of tfmot


def keras_3_name(name: str) -> str:
    """The name of a layer or model, without the slashes that Keras 3 does not allow in it."""
    return name.replace("/", "_")


def keras_3_layer(kind: str, config: Mapping[str, Any], *, custom_objects: CustomObjects, own: bool) -> keras.Layer:
    """Makes the layer of Keras 3.

    Args:
        kind: the name of the class in tf_keras.
        config: what its `get_config()` gave.
        custom_objects: the user's classes and functions.
        own: whether the class is one of tf_keras itself, not the user's.

    Raises:
        ModelError: if Keras 3 has no such layer, or no such setting of it.
    """
    name = config.get("name", kind)
    if kind in custom_objects:
        layer_class = custom_objects[kind]
    elif own:
        layer_class = getattr(keras.layers, _RENAMED_CLASSES.get(kind, kind), None)
    else:
        layer_class = None
    if kind == "Lambda" and kind not in custom_objects:
        layer_class = None  # its code is Python's bytecode, and may call tf_keras
    if layer_class is None:
        raise ModelError(
            f"from_tf_keras: Keras 3 has no layer {kind} (the layer '{name}'). Write one for Keras 3 that computes the "
            f"same, with the same weights in the same order, and pass custom_objects={{{kind!r}: YourKeras3Layer}}."
        )
    renamed = _RENAMED_ARGUMENTS.get(kind, {})
    known = None if kind in custom_objects else _arguments_of(layer_class)
    translated = {}
    for key, value in config.items():
        key = renamed.get(key, key)
        gone = known is not None and key not in known
        if key.endswith("_initializer") and (gone or not _is_initializer(value)):
            continue  # the weights are there already, so the default does as well
        if gone:
            _check_gone(kind, name, key, value)
            continue
        translated[key] = _value(key, value, name, custom_objects)
    if "name" in translated:
        translated["name"] = keras_3_name(translated["name"])
    try:
        # Layers within it are translated already, and only a constructor takes them as they are.
        return layer_class.from_config(translated) if kind in custom_objects else layer_class(**translated)
    except Exception as error:  # whatever the class makes of a config that is not its own
        raise ModelError(
            f"from_tf_keras: the layer '{name}' ({kind}) has settings that Keras 3 does not take: {first_line(error)}. "
            f"Write a layer that takes them and pass custom_objects={{{kind!r}: YourKeras3Layer}}."
        ) from error


def _check_gone(kind: str, name: str, key: str, value: Any) -> None:
    neutral = _GONE.get(key, ())
    if value is not None and neutral is not None and value not in neutral:
        raise ModelError(
            f"from_tf_keras: the layer '{name}' ({kind}) has {key}={value!r}, which Keras 3 has not. Write a layer "
            f"that has it and pass custom_objects={{{kind!r}: YourKeras3Layer}}."
        )


def _arguments_of(layer_class: type) -> set[str]:
    """What a layer's constructor takes, those included that it hands to its base classes."""
    found = set(_EVERY_LAYER)
    for base in layer_class.__mro__:
        if base is keras.Layer:
            break
        if (constructor := vars(base).get("__init__")) is not None:
            found.update(inspect.signature(constructor).parameters)
    return found


def _value(key: str, value: Any, layer: str, custom_objects: CustomObjects) -> Any:
    if key == "dtype":
        return value["config"]["name"] if isinstance(value, dict) else value
    if key == "activation" or key.endswith("_activation"):
        return _activation(value, layer, custom_objects)
    if key == "axis" and isinstance(value, (list, tuple)) and len(value) == 1:
        return value[0]
    for suffix, get in _OBJECTS.items():
        if key.endswith(suffix):
            try:
                return get(value)
            except (TypeError, ValueError) as error:
                raise ModelError(
                    f"from_tf_keras: Keras 3 cannot make the {key} of the layer '{layer}': {first_line(error)}. "
                    "Remove it from the tf_keras model first."
                ) from error
    if isinstance(value, dict) and "class_name" in value:  # a layer within a layer, such as a recurrent cell
        return keras_3_layer(value["class_name"], value["config"], custom_objects=custom_objects, own=True)
    if isinstance(value, (list, tuple)):
        return [_value("", item, layer, custom_objects) for item in value]
    return value


def _activation(value: Any, layer: str, custom_objects: CustomObjects) -> Any:
    while isinstance(value, dict) and value.get("class_name") == _QUANTIZED_ACTIVATION:
        value = value["config"]["activation"]
    if value is None:
        return None
    name = value
    if isinstance(value, dict):
        if value.get("class_name") == _NO_ACTIVATION:
            return "linear"
        inner = value.get("config")
        name = inner if isinstance(inner, str) else value.get("class_name")
    if name in custom_objects:
        return custom_objects[name]
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    if isinstance(value, dict) and not isinstance(value.get("config"), str):
        return keras_3_layer(str(name), value["config"], custom_objects=custom_objects, own=True)
    try:
        return keras.activations.get(name)
    except ValueError as error:
        raise ModelError(
            f"from_tf_keras: Keras 3 has no activation {name!r} (the layer '{layer}'). "
            f"Pass custom_objects={{{name!r}: your_function}}."
        ) from error


def _is_initializer(value: Any) -> bool:
    try:
        keras.initializers.get(value)
    except (TypeError, ValueError):
        return False
    return True
