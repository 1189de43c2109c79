"""What is tried, in which order: what costs seconds first, and training only where it is needed.

1. Post-training int8.
2. Where it loses too much: the layers whose rounding costs most stay in float; then quantization-aware training.
3. Where the budget is not kept: the target's other presets, since int8 is not always faster.
4. Fewer channels: as few as the budget asks for by measurement, with the preset that needs to lose fewest, trained
   with the original as teacher, and quantized by the same steps.
5. Where that loses too much: half as many channels are removed, so that what the budget costs is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tfopt.budget import Budget
from tfopt.errors import ConfigError, ModelError
from tfopt.optimization.preparation import remove_channels
from tfopt.optimization.result import Candidate
from tfopt.optimization.trials import Trials
from tfopt.quantization import sensitivity
from tfopt.recipe import ChannelPruning, FineTuning, Quantization, Recipe

__all__ = ["climb"]

FLOAT_LAYERS = (1, 2, 4)
"""How many layers stay in float, one after the other."""
STEPS_PER_WHOLE = 20
"""The operations that remain are searched for in steps of 5 %."""
TO_SPARE = 0.95
"""Of the budget, in the search: a latency differs by some percent the next time."""


def climb(
    trials: Trials, start: Recipe, *, pruning: ChannelPruning | None, training: FineTuning | None, budget: Budget | None
) -> tuple[str, ...]:
    """Tries recipes until one is good enough.

    Args:
        trials: where candidates are made; it has the float model's.
        start: what all recipes have in common.
        pruning: how channels are removed (whatever its `flops`), or None for never.
        training: the quantization-aware fine-tuning, or None for never.
        budget: what the model may cost.

    Returns:
        What prevents a better one, where none was good enough.
    """
    ladder = _Ladder(trials, training, budget)
    recipes = [start.model_copy(update={"quantization": preset}) for preset in trials.target.presets]
    firsts: list[Candidate] = []
    for recipe in recipes if budget else recipes[:1]:
        firsts.append(ladder.unpruned(recipe))
        if ladder.is_good(firsts[-1]):
            return ()
    if budget is None:
        return (f"quantization alone loses more than {trials.max_drop:g}, whatever was tried.",)
    if pruning is None:
        return (f"without fewer channels the budget '{budget.text}' is not kept, and removing them needs training.",)
    accurate = [recipe for recipe, first in zip(recipes, firsts, strict=True) if first.is_within(trials.max_drop)]
    try:
        searches = [(*ladder.flops_for_budget(recipe, pruning), recipe) for recipe in accurate or recipes]
    except ModelError as error:
        return (f"fewer channels are not to be had. {error}",)
    # The preset that is fastest with all channels need not be with few: whichever leaves most of them.
    flops, _, start = max(searches, key=lambda found: found[0] or 0.0)
    if flops is None:
        least = min(least for _, least, _ in searches)
        return (f"with the fewest channels the network still took {least:.0%} of the budget '{budget.text}'.",)
    best = ladder.pruned(start, pruning.model_copy(update={"flops": flops}))
    if ladder.is_good(best):
        return ()
    milder = round((1 + flops) / 2 * STEPS_PER_WHOLE) / STEPS_PER_WHOLE
    if flops < milder < 1:
        ladder.pruned(start, pruning.model_copy(update={"flops": milder}))
    if ladder.keeps_budget(best):
        return (
            f"the budget '{budget.text}' leaves {flops:.0%} of the operations, and with so few the network lost "
            f"{best.drop or 0:+.4f} after its training. Train longer (epochs), or allow more.",
        )
    return (f"the trained file took {best.used(budget, trials.baseline):.0%} of the budget '{budget.text}'.",)


class _Ladder:
    """The steps, with what they have in common."""

    def __init__(self, trials: Trials, training: FineTuning | None, budget: Budget | None) -> None:
        self.trials, self.training, self.budget = trials, training, budget

    def is_good(self, candidate: Candidate) -> bool:
        return candidate.is_within(self.trials.max_drop) and self.keeps_budget(candidate)

    def keeps_budget(self, candidate: Candidate) -> bool:
        return candidate.used(self.budget, self.trials.baseline) <= 1

    def quantized(self, prefix: str, recipe: Recipe) -> Candidate:
        """The first that is good, or the last of what was tried on one float model."""
        name = recipe.quantization
        if name == "none":
            return self.trials.attempt(f"{prefix}float32", recipe)
        candidate = self.trials.attempt(f"{prefix}{name} post-training", recipe)
        if name != "int8":
            return candidate
        if candidate.is_within(self.trials.max_drop) or (not self.keeps_budget(candidate) and candidate.artifact):
            return candidate
        for layers in self._layers_in_float(recipe):
            mixed = recipe.model_copy(update={"layers": layers})
            candidate = self.trials.attempt(f"{prefix}{name}, {len(layers)} layers in float", mixed)
            if self.is_good(candidate):
                return candidate
        if self.trials.target.trains_quantized and self.training is not None:
            aware = recipe.model_copy(update={"fine_tuning": self.training})
            return self.trials.attempt(f"{prefix}{name} quantization-aware", aware)
        return candidate

    def unpruned(self, recipe: Recipe) -> Candidate:
        """With all channels."""
        return self.trials.baseline if recipe.quantization == "none" else self.quantized("", recipe)

    def pruned(self, start: Recipe, pruning: ChannelPruning) -> Candidate:
        """The same with fewer channels."""
        return self.quantized(f"{pruning.flops:.0%} of FLOPs, ", start.model_copy(update={"channel_pruning": pruning}))

    def flops_for_budget(self, start: Recipe, pruning: ChannelPruning) -> tuple[float | None, float]:
        """The largest fraction of the operations with which the budget is kept, by measuring untrained files.

        Returns:
            The fraction, or None where there is none; and how much of the budget the cheapest network takes.

        Raises:
            ModelError: if no channel of the model may go.
        """
        assert self.budget is not None  # nothing is removed without one
        budget, baseline = self.budget, self.trials.baseline.figures
        assert baseline is not None  # the float model has a file
        taken: list[float] = []

        def fits(flops: float) -> bool | None:
            try:
                smaller = remove_channels(self.trials.model, pruning.model_copy(update={"flops": flops}))
            except ConfigError:  # so few operations cannot be had
                return None
            found = budget.used(self.trials.trial_figures(smaller, start), baseline)
            taken.append(float("inf") if found is None else found)
            return taken[-1] <= TO_SPARE

        def search() -> list[float | None]:
            fractions = [step / STEPS_PER_WHOLE for step in range(1, STEPS_PER_WHOLE)]
            return [_largest(fractions, fits), min(taken, default=float("inf"))]

        found = self.trials.kept(
            f"flops_for_budget_{start.quantization}",
            budget.text,
            start.to_yaml(),
            pruning.model_dump_json(),
            compute=search,
        )
        return found[0], found[1]

    def _layers_in_float(self, recipe: Recipe) -> Iterator[dict[str, Quantization]]:
        if not self.trials.target.keeps_layers_in_float:
            return
        model = self.trials.float_model(recipe)
        found = sensitivity(model, self.trials.train.x)
        most = sum(row.kind != "InputLayer" for row in found.rows) // 2
        for count in FLOAT_LAYERS:
            if count <= most:
                layers: list[str] = found.suggest(count=count)
                yield dict.fromkeys(layers, "none")


def _largest(values: list[float], fits: Callable[[float], bool | None]) -> float | None:
    """The largest of rising values that fits; those that cannot be had (None) are the smallest."""
    low, high, found = 0, len(values) - 1, None
    while low <= high:
        middle = (low + high) // 2
        fitting = fits(values[middle])
        if fitting is None:
            low = middle + 1
        elif fitting:
            found, low = values[middle], middle + 1
        else:
            high = middle - 1
    return found
