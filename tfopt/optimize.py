"""The verb: from a trained model to the smallest file that keeps its accuracy, under one budget.

The module is light, so that `import tfopt` loads no TensorFlow; what is heavy is loaded when `optimize` is called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt.budget import parse_budget
from tfopt.errors import ConfigError
from tfopt.optimization.result import Candidate, Result
from tfopt.optimization.targets import Target, target_of
from tfopt.recipe import FineTuning, Recipe

if TYPE_CHECKING:
    import keras

__all__ = ["Candidate", "Result", "optimize"]

NUDGE = 0.1
"""Of the learning rate: a network without its channels learns anew, a rounded one is only nudged."""


def optimize(
    model: keras.Model | str | Path,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    *,
    target: str = "tflite",
    max_drop: float = 0.01,
    budget: str | None = None,
    test: tuple[Any, Any] | None = None,
    out: str | Path | None = None,
    epochs: int = 6,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    recipe: Recipe | None = None,
    loss: Any = None,
    metric: str | Callable[[Any, Any], float] | None = None,
    price_per_hour: float | None = None,
    seed: int = 0,
    verbose: int = 0,
) -> Result:
    """Makes a trained model small and fast, and keeps its accuracy within a bound.

    What costs seconds is tried first: post-training int8. Where it loses more than `max_drop` on the validation data,
    the layers whose rounding costs most stay in float, and then the model is fine-tuned quantization-aware. Where that
    is not within the `budget`, the network is made smaller, by as much as measured files of untrained networks tell: by
    zeros and shared weights where the budget is one of downloads, by fewer channels, by layers of low rank. A
    classifier follows the original model's class probabilities in every fine-tuning.

    Each candidate is exported, verified against Keras, scored, and timed beside the float model in one run. The chosen
    one is scored again on data that nothing was chosen by, with a confidence interval. An interrupted run goes on where
    it was when it is called again with the same model, data and `out`.

    Args:
        model: a trained Keras 3 model, or the path of one (.keras, .h5).
        train: `(x, y)` for calibration and fine-tuning, with x of shape `(n, ...)`.
        validation: `(x, y)` that candidates are chosen by.
        target: "tflite" (int8 for mobile CPUs and microcontrollers), "edge_tpu" (int8 for a Coral Edge TPU), "onnx"
            (int8 for ONNX Runtime) or "serving" (a folder for TF Serving, in float).
        max_drop: how much score may be lost, as a fraction: 0.01 is one point of accuracy.
        budget: what the model may cost: a share of the float model's ("latency: 40%", "size: 25%", "download: 20%" for
            the size after gzip, "flops: 50%"), an amount ("latency: 2.5 ms", "size: 1 MB", "flops: 10 M"), or dollars
            for a million inferences ("cost: 0.05 $"). Without one the first candidate that is accurate enough is taken.
        test: `(x, y)` held back for the chosen file; by default every second sample of `validation` is.
        out: folder for the chosen `model.tflite` (`model.onnx`, `serving/`) with its record, `recipe.yaml`,
            `report.json`, `report.html` and all candidates; default: a new temporary folder.
        epochs: of the training after the network was made smaller; quantization-aware fine-tuning takes half as many.
            With 0 nothing is trained.
        batch_size: of the training.
        learning_rate: Adam's peak rate after the network was made smaller, such as the model was first trained with;
            quantization-aware fine-tuning takes a tenth of it.
        recipe: what is to be done, such as that of an earlier run: nothing else is tried then.
        loss: of the training, as Keras's `compile` takes it; by default what fits the targets.
        metric: as `tfopt.benchmark` takes it; by default accuracy for classes, R² for float targets.
        price_per_hour: what the machine costs in dollars, for a budget in dollars.
        seed: of the training.
        verbose: as in Keras's `fit`, for the training.

    Returns:
        The result: print it; `is_reached` tells whether all that was asked for was had. If not, the artifact is the
        closest, and `obstacles` says what prevents more.

    Raises:
        ConfigError: if an argument is not usable or the folder cannot be written.
        ModelError: if the model is not one that tfopt can work on.
        DataError: if the data does not fit the model.
        ExportError: if no candidate could be exported.

    Example:
        >>> import keras, numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4).astype("float32"), np.arange(64) % 3
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
        >>> result = optimize(model, (x, y), (x, y), max_drop=0.5)
        >>> result.is_reached, result.artifact.verification["full_integer"]
        (True, True)

    References: Wu et al. 2020, arXiv:2004.09602 (the order: post-training, partial quantization, training); Hinton et
    al. 2015, arXiv:1503.02531 (distillation).
    """
    from tfopt.interop.tfmot import in_keras_3
    from tfopt.model_file import load_model
    from tfopt.optimization.conclusion import conclude
    from tfopt.optimization.ladder import climb
    from tfopt.optimization.reductions import reductions_for
    from tfopt.optimization.samples import checked_samples, halves
    from tfopt.optimization.trials import Trials
    from tfopt.schedules.arguments import check_positive, check_steps
    from tfopt.surgery.model import check_model

    place = target_of(target)
    if not 0 <= max_drop < 1:
        hint = f" Did you mean {max_drop / 100:g}?" if 1 <= max_drop <= 100 else ""
        raise ConfigError(f"optimize: max_drop must be a fraction in [0, 1). Received: {max_drop:g}.{hint}")
    for name, number, least in (("epochs", epochs, 0), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        check_steps(f"optimize: {name}", number, minimum=least)
    check_positive("optimize: learning_rate", learning_rate)
    limit = None if budget is None else parse_budget(budget, price_per_hour=price_per_hour)
    if limit is not None and limit.names("latency") and not place.is_timed:
        raise ConfigError(
            f"optimize: the latency on {target} is not measured without its device; give a budget of size or flops. "
            f"Received: {budget!r}."
        )
    if limit is None and recipe is None and place.presets[0] == "none":
        raise ConfigError(f"optimize: {target} has no int8 of its own: give a budget. Received: None.")
    _check_recipe(recipe, place, target)
    model = check_model(in_keras_3(model)) if not isinstance(model, (str, Path)) else load_model(model)
    training = checked_samples(model, train, "training")
    scored = checked_samples(model, validation, "validation")
    scored, held_back = halves(scored) if test is None else (scored, checked_samples(model, test, "test"))
    out = Path(tempfile.mkdtemp(prefix="tfopt-optimize-") if out is None else out)
    trials = Trials(
        model,
        place,
        training,
        scored,
        out / "candidates",
        max_drop=max_drop,
        loss=loss,
        metric=metric,
        verbose=verbose,
    )
    trials.attempt("float32", Recipe(quantization="none", seed=seed if recipe is None else recipe.seed))
    if recipe is not None:
        trials.attempt("recipe", recipe)
        obstacles: tuple[str, ...] = ()
    else:
        after = FineTuning(epochs=max(epochs, 1), learning_rate=learning_rate, batch_size=batch_size, distillation=True)
        aware = after.model_copy(update={"epochs": max(epochs // 2, 1), "learning_rate": NUDGE * learning_rate})
        obstacles = climb(
            trials,
            Recipe(seed=seed),
            reductions=reductions_for(limit, after) if limit and epochs else (),
            training=aware if epochs else None,
            budget=limit,
        )
    return conclude(trials, held_back, out, budget=limit, obstacles=obstacles, price_per_hour=price_per_hour)


def _check_recipe(recipe: Recipe | None, place: Target, target: str) -> None:
    """Refuses what a recipe asks for and the target has not, which would be ignored."""
    if recipe is None:
        return
    is_int8 = recipe.quantization == "int8"
    asked = {
        "layers": bool(recipe.layers) and not (place.keeps_layers_in_float and is_int8),
        "fine_tuning": recipe.fine_tuning is not None and not (place.trains_quantized and is_int8),
    }
    for field, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"optimize: {target} makes no use of the recipe's {field} with quantization {recipe.quantization}. "
                "Leave it out."
            )
    if recipe.quantization not in place.presets:
        raise ConfigError(
            f"optimize: for {target} the recipe's quantization must be one of {', '.join(place.presets)}. "
            f"Received: {recipe.quantization!r}. "
            "For another one use tfopt.export_tflite or tfopt.export_onnx."
        )
