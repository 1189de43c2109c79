"""What is tried, in which order: what costs seconds first, and training only where it is needed.

1. Post-training int8.
2. Where it loses too much: the layers whose rounding costs most stay in float; then quantization-aware training.
3. Where the budget is not kept: the target's other presets, since int8 is not always faster.
4. A smaller network, by each way that may keep the budget in turn (`reductions`): as small as the budget asks for by
   measurement, with the preset that needs it least, trained with the original as teacher, quantized by the same steps.
5. Where none can keep the budget: what comes closest to it.
6. Where all of them lose too much: half as much of the one that loses least, so that what the budget costs is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tfopt.budget import Budget
from tfopt.errors import ConfigError, ModelError
from tfopt.optimization.preparation import untrained
from tfopt.optimization.reductions import Reduction
from tfopt.optimization.result import Candidate
from tfopt.optimization.trials import Trials
from tfopt.quantization import sensitivity
from tfopt.recipe import FineTuning, Quantization, Recipe

__all__ = ["climb"]

FLOAT_LAYERS = (1, 2, 4)
"""How many layers stay in float, one after the other."""
STEPS_PER_WHOLE = 20
"""What remains is searched for in steps of 5 %."""
TO_SPARE = 0.95
"""Of the budget, in the search: a latency differs by some percent the next time."""


def climb(
    trials: Trials,
    start: Recipe,
    *,
    reductions: Sequence[Reduction],
    training: FineTuning | None,
    budget: Budget | None,
) -> tuple[str, ...]:
    """Tries recipes until one is good enough.

    Args:
        trials: where candidates are made; it has the float model's.
        start: what all recipes have in common.
        reductions: how the network may be made smaller, in the order in which it is tried.
        training: the quantization-aware fine-tuning, or None for never.
        budget: what the model may cost.

    Returns:
        What prevents a better one, where none was good enough.
    """
    ladder = _Ladder(trials, training, budget)
    recipes = [start.model_copy(update={"quantization": preset}) for preset in trials.target.presets]
    firsts: list[Candidate] = []
    for recipe in recipes if budget else recipes[:1]:
        firsts.append(ladder.unreduced(recipe))
        if ladder.is_good(firsts[-1]):
            return ()
    if budget is None:
        return (f"quantization alone loses more than {trials.max_drop:g}, whatever was tried.",)
    if not reductions:
        return (f"the budget '{budget.text}' takes a smaller network, and making one needs training (epochs).",)
    accurate = [recipe for recipe, first in zip(recipes, firsts, strict=True) if first.is_within(trials.max_drop)]
    obstacles, out_of_reach, trained = list[str](), list[_Smaller](), list[_Trained]()
    for reduction in reductions:
        found = ladder.smallest_loss(reduction, accurate or recipes)
        if isinstance(found, str):
            obstacles.append(found)
        elif found.used > 1:
            obstacles.append(
                f"{reduction.what}: as far as they go, {found.used:.0%} of the budget '{budget.text}' was still taken."
            )
            out_of_reach.append(found)
        else:
            trained.append(ladder.train(found))
            if ladder.is_good(trained[-1].candidate):
                return ()
            obstacles.append(ladder.obstacle(trained[-1]))
    lossy = [one for one in trained if ladder.keeps_budget(one.candidate)]
    if out_of_reach and not trained:
        smaller = min(out_of_reach, key=lambda one: one.used)
        if smaller.used < TO_SPARE * min(first.used(budget, trials.baseline) for first in firsts):
            closest = ladder.train(smaller)
            lossy = [] if closest.candidate.is_within(trials.max_drop) else [closest]
    if lossy:
        ladder.try_half_of(min(lossy, key=lambda one: one.candidate.drop or 0.0).smaller)
    return tuple(obstacles)


@dataclass(frozen=True)
class _Smaller:
    """The most of a network that keeps the budget, as untrained files tell; else what comes about closest.

    Args:
        recipe: its preset.
        reduction: by which it is smaller.
        remains: as a fraction of the network.
        used: how much of the budget that takes.
    """

    recipe: Recipe
    reduction: Reduction
    remains: float
    used: float


@dataclass(frozen=True)
class _Trained:
    """What came of it."""

    smaller: _Smaller
    candidate: Candidate


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

    def unreduced(self, recipe: Recipe) -> Candidate:
        """The network as it is."""
        return self.trials.baseline if recipe.quantization == "none" else self.quantized("", recipe)

    def reduced(self, start: Recipe, reduction: Reduction, remains: float) -> Candidate:
        """The same of a smaller one."""
        return self.quantized(f"{reduction.label(remains)}, ", reduction.apply(start, remains))

    def train(self, smaller: _Smaller) -> _Trained:
        return _Trained(smaller, self.reduced(smaller.recipe, smaller.reduction, smaller.remains))

    def try_half_of(self, smaller: _Smaller) -> None:
        """Half as much of what lost too much."""
        remains = round((1 + smaller.remains) / 2 * STEPS_PER_WHOLE) / STEPS_PER_WHOLE
        if smaller.remains < remains < 1:
            self.reduced(smaller.recipe, smaller.reduction, remains)

    def smallest_loss(self, reduction: Reduction, recipes: Sequence[Recipe]) -> _Smaller | str:
        """With the preset with which most of the network may remain; or why there is nothing smaller."""
        try:
            searches = [found for recipe in recipes if (found := self._most_within_budget(reduction, recipe))]
        except ModelError as error:
            return f"{reduction.what} cannot be had. {error}"
        if not searches:
            return f"{reduction.what} cannot be had: the network has nothing that would go."
        # The preset that is fastest with the whole network need not be with a small one.
        fitting = [found for found in searches if found.used <= 1]
        return max(fitting, key=lambda one: one.remains) if fitting else min(searches, key=lambda one: one.used)

    def obstacle(self, trained: _Trained) -> str:
        """Why a trained smaller network is not good enough."""
        reduction, remains, candidate = trained.smaller.reduction, trained.smaller.remains, trained.candidate
        if self.keeps_budget(candidate):
            return (
                f"{reduction.what}: the budget '{self._budget.text}' leaves {reduction.label(remains)}, and with so "
                f"little the network lost {candidate.drop or 0:+.4f} after its training. Train longer (epochs), or "
                "allow more."
            )
        used = candidate.used(self._budget, self.trials.baseline)
        return f"{reduction.what}: the trained file took {used:.0%} of the budget '{self._budget.text}'."

    @property
    def _budget(self) -> Budget:
        assert self.budget is not None  # nothing is made smaller without one
        return self.budget

    def _most_within_budget(self, reduction: Reduction, start: Recipe) -> _Smaller | None:
        """The largest network that keeps the budget, by measuring untrained files; None where none can be measured.

        Raises:
            ModelError: if the network has nothing that may go.
        """
        budget, baseline = self._budget, self.trials.baseline.figures
        assert baseline is not None  # the float model has a file
        taken: dict[float, float] = {}

        def fits(remains: float) -> bool | None:
            recipe = reduction.apply(start, remains)
            try:
                smaller = untrained(self.trials.model, recipe)
            except ConfigError:  # so little cannot be had
                return None
            found = budget.used(self.trials.trial_figures(smaller, recipe), baseline)
            if found is None:
                return False
            taken[remains] = found
            return found <= TO_SPARE

        def search() -> list[float] | None:
            remains = _largest([step / STEPS_PER_WHOLE for step in range(1, STEPS_PER_WHOLE)], fits)
            if remains is None and taken:
                enough = min(taken.values()) / TO_SPARE
                remains = max(one for one, used in taken.items() if used <= enough)
            return None if remains is None else [remains, taken[remains]]

        found = self.trials.kept.value(
            f"smaller_{reduction.of.replace(' ', '_')}_{start.quantization}",
            budget.text,
            reduction.apply(start, 0.5).to_yaml(),
            compute=search,
        )
        return found and _Smaller(start, reduction, *found)

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
