"""Quantizing a float .tflite file with Google's ai-edge-quantizer."""

from __future__ import annotations

import numpy as np
from ai_edge_quantizer import quantizer, recipe, recipe_manager

from tfopt.export.embedding_lookup import with_embedding_lookups

__all__ = ["RECIPES", "quantize"]

RECIPES = {
    "int8": recipe.static_wi8_ai8,
    "int8_float_io": recipe.static_wi8_ai8,
    "int16x8": recipe.static_wi8_ai16,
    "dynamic": recipe.dynamic_wi8_afp32,
    "weight_only_int8": recipe.weight_only_wi8_afp32,
    "weight_only_int4": recipe.weight_only_wi4_afp32,
}
"""Its recipe for each preset that it has one for."""

EMBEDDING_BITS = {"dynamic": 8, "weight_only_int8": 8, "weight_only_int4": 4}
"""Of the tables of embeddings, where activations stay float."""


def quantize(float_model: bytes, preset: str, samples: dict[str, np.ndarray] | None) -> bytes:
    """Returns the quantized file.

    Args:
        float_model: the content of a float .tflite file with the signature `serving_default`.
        preset: one of `RECIPES`.
        samples: by input name, of shape `(n, ...)`, for the presets that compute on integers.

    References: ai-edge-quantizer, recipe.py.
    """
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(RECIPES[preset]())
    if preset == "int8_float_io":
        for place in (recipe.TFLOperationName.INPUT, recipe.TFLOperationName.OUTPUT):
            manager.add_quantization_config(
                regex=".*", operation_name=place, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
            )
    if bits := EMBEDDING_BITS.get(preset):
        float_model = with_embedding_lookups(float_model, bits=bits)
        # Not as weights elsewhere, which are turned to float as a whole: it turns the rows that it looks up.
        manager.add_dynamic_config(regex=".*", operation_name=recipe.TFLOperationName.EMBEDDING_LOOKUP, num_bits=bits)
    engine = quantizer.Quantizer(bytearray(float_model), manager.get_quantization_recipe())
    ranges = None
    if engine.need_calibration:
        assert samples is not None  # export_tflite asks for them
        rows = range(len(next(iter(samples.values()))))
        one_by_one = [{name: array[row : row + 1] for name, array in samples.items()} for row in rows]
        ranges = engine.calibrate({"serving_default": one_by_one})
    return bytes(engine.quantize(ranges).quantized_model)
