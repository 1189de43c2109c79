"""The recipe: how a model is made small, as one frozen value that Python, the command line and YAML share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfopt.artifact import write_whole
from tfopt.errors import ConfigError
from tfopt.yaml_text import read_yaml

__all__ = [
    "RANGE_METHODS",
    "ChannelPruning",
    "Factorization",
    "FineTuning",
    "Preset",
    "Quantization",
    "QuantizationConfig",
    "RangeMethod",
    "Recipe",
    "WeightPruning",
    "described",
]

Quantization = Literal["int8", "int16x8", "float16", "dynamic", "weight_only_int8", "none"]
Preset = Literal[Quantization, "int8_float_io", "weight_only_int4"]
RangeMethod = Literal["min_max", "percentile", "mse", "entropy"]
RANGE_METHODS: tuple[str, ...] = get_args(RangeMethod)


class QuantizationConfig(BaseModel):
    """How a model, or one layer of it, computes after quantization.

    Args:
        mode: "int8": int8 weights and activations; "int16x8": int8 weights, int16 activations (for what 8 bits
            are too few for; slow on CPUs); "dynamic" and "weight_only_int8": int8 weights, float activations;
            "float16": float16 weights; "none": float.
        ranges: how calibration samples set the activation ranges: "min_max": all values; "percentile": all but the
            outermost; "mse": with the least squared error; "entropy": with the least loss of information.
        learn_ranges: whether the ranges are trained with the weights (LSQ+), instead of following the data.
        per_channel_dense: whether dense kernels have a scale per unit; False gives them one scale. Convolutions
            always have one per channel.

    Example:
        >>> QuantizationConfig.of("int16x8").activation_bits
        16

    References:
        Bhalgat et al. 2020, arXiv:2004.09576 (LSQ+).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Quantization = "int8"
    ranges: RangeMethod = "min_max"
    learn_ranges: bool = False
    per_channel_dense: bool = True

    @property
    def activation_bits(self) -> int | None:
        """Bits of an activation; None where activations are float."""
        return {"int8": 8, "int16x8": 16}.get(self.mode)

    @property
    def weight_type(self) -> str | None:
        """What weights are rounded to: "int8", "float16", or None."""
        return {"float16": "float16", "none": None}.get(self.mode, "int8")

    @classmethod
    def of(cls, value: object) -> Self:
        """A config from itself, from a mode's name, or from a mapping of its fields.

        Raises:
            ConfigError: if it is none of them, or a value is not allowed.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate({"mode": value} if isinstance(value, str) else value)
        except ValidationError as error:
            raise ConfigError(f"QuantizationConfig: {described(error)}.") from None


class FineTuning(BaseModel):
    """How a changed model is trained on: how long, and how hard.

    Args:
        epochs: passes over the training data.
        learning_rate: Adam's peak rate; it warms up over the first tenth and decays along a cosine.
        batch_size: samples in a training step.
        distillation: whether a classifier also follows the class probabilities of the model it was made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=64, ge=1)
    distillation: bool = False


class ChannelPruning(BaseModel):
    """The removal of the least important channels, and the training after it (`tfopt.prune_channels`).

    Args:
        flops: what remains of the operations, as a fraction in (0, 1).
        importance: what ranks the channels: "l1", the weights that make them, or "batch_norm", the gammas.
        multiple_of: each layer that loses channels keeps a multiple of it.
        fine_tuning: the training that wins the accuracy back.

    Example:
        >>> ChannelPruning(flops=0.5).fine_tuning.epochs
        6
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops: float = Field(gt=0, lt=1, allow_inf_nan=False)
    importance: Literal["l1", "batch_norm"] = "l1"
    multiple_of: int = Field(default=8, ge=1)
    fine_tuning: FineTuning = FineTuning(epochs=6, learning_rate=1e-3, distillation=True)


class Factorization(BaseModel):
    """Layers as products of smaller ones, and the training after it (`tfopt.factorize`).

    Args:
        flops: what remains of the operations of Dense layers and convolutions, as a fraction in (0, 1).
        fine_tuning: the training that wins the accuracy back.

    Example:
        >>> Factorization(flops=0.5).fine_tuning.distillation
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops: float = Field(gt=0, lt=1, allow_inf_nan=False)
    fine_tuning: FineTuning = FineTuning(epochs=6, learning_rate=1e-3, distillation=True)


class WeightPruning(BaseModel):
    """Zeros among the weights, and few values for the others: what makes a file small once it is compressed.

    Args:
        sparsity: the fraction of zeros in kernels (`callbacks.MagnitudePruning`), in [0, 1); small kernels keep more.
        values: how many distinct values the weights of a kernel share (`tfopt.cluster`), or None for as many as they
            have. Kernels that have too few weights to gain from it keep theirs.
        fine_tuning: the training in which the zeros come, over its first half. Where values are shared, a third of its
            epochs at a tenth of its rate follow.

    Example:
        >>> WeightPruning(sparsity=0.8).values
        16
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sparsity: float = Field(ge=0, lt=1, allow_inf_nan=False)
    values: int | None = Field(default=16, ge=2, le=256)
    fine_tuning: FineTuning = FineTuning(epochs=6, learning_rate=1e-3, distillation=True)


class Recipe(BaseModel):
    """What is done to a model between `fit` and the device.

    Args:
        quantization: the preset of the export: "int8" (int8 in and out, no float op), "int8_float_io" (float in and
            out), "int16x8" (int16 activations), "float16" (weights), "dynamic" (int8 weights, float in and out),
            "weight_only_int8", "weight_only_int4" or "none".
        channel_pruning: the removal of channels and the training after it, or None. It comes first.
        factorization: layers as products of smaller ones and the training after it, or None. It comes second.
        weight_pruning: zeros and shared values among the weights, and their training, or None. It comes third.
        layers: other modes than the preset's for some layers, by name: "none" keeps a layer in float.
        fine_tuning: quantization-aware fine-tuning before the export, or None for post-training only.
        calibration_samples: how many samples the activation ranges are measured on.
        seed: of whatever is random in the training.

    Example:
        >>> recipe = Recipe(fine_tuning=FineTuning(epochs=2))
        >>> print(recipe.to_yaml())
        quantization: int8
        channel_pruning: null
        factorization: null
        weight_pruning: null
        layers: {}
        fine_tuning:
          epochs: 2
          learning_rate: 0.0001
          batch_size: 64
          distillation: false
        calibration_samples: 256
        seed: 0
        <BLANKLINE>
        >>> Recipe.from_yaml(recipe.to_yaml()) == recipe
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantization: Preset = "int8"
    channel_pruning: ChannelPruning | None = None
    factorization: Factorization | None = None
    weight_pruning: WeightPruning | None = None
    layers: dict[str, Quantization] = {}
    fine_tuning: FineTuning | None = None
    calibration_samples: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def makes_smaller(self) -> bool:
        """Whether the network itself changes before it is quantized."""
        return any((self.channel_pruning, self.factorization, self.weight_pruning))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The recipe as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def save(self, path: str | Path) -> Path:
        """Writes the recipe as YAML and returns where."""
        with write_whole(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")
        return Path(path)

    @classmethod
    def from_dict(cls, fields: object) -> Self:
        """Reads plain data; an unknown field is an error.

        Raises:
            ConfigError: if a field is unknown or its value is not allowed.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(f"Recipe: {described(error)}. Known fields: {', '.join(cls.model_fields)}.") from None

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Reads YAML or JSON text (JSON is YAML).

        Raises:
            ConfigError: if the text is not YAML, a field is unknown, or its value is not allowed.
        """
        try:
            documents = read_yaml(text, file="recipe")
        except ConfigError as error:
            raise ConfigError(f"Recipe: expected YAML or JSON. Received: {error}") from None
        return cls.from_dict(documents[0] if len(documents) == 1 else documents or None)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a recipe file.

        Raises:
            ConfigError: if the file cannot be read or does not hold a recipe.
        """
        try:
            return cls.from_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Recipe: cannot read {path}. Received: {error}") from None


def described(error: ValidationError) -> str:
    """The problems that pydantic found, in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'the whole'}: {problem['msg']}. "
        f"Received: {problem['input']!r:.200}"
        for problem in error.errors()
    )
