"""The ways to make a network smaller before it is quantized, each with one number: how much remains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tfopt.budget import Budget
from tfopt.recipe import ChannelPruning, Factorization, FineTuning, Recipe, WeightPruning

__all__ = ["Reduction", "reductions_for"]


@dataclass(frozen=True)
class Reduction:
    """A way to make a network smaller.

    Args:
        what: what it brings, for messages.
        of: what the number is a fraction of.
        apply: the recipe with it, so that a fraction in (0, 1) remains.
    """

    what: str
    of: str
    apply: Callable[[Recipe, float], Recipe]

    def label(self, remains: float) -> str:
        """How candidates are called."""
        return f"{remains:.0%} of {self.of}"


def reductions_for(budget: Budget, training: FineTuning) -> tuple[Reduction, ...]:
    """What may help to keep a budget, in the order in which it is tried.

    Zeros and shared values cost the least accuracy, but only a file that is compressed gets smaller by them.

    Args:
        budget: what the model may cost.
        training: after each of them.

    Example:
        >>> from tfopt.budget import parse_budget
        >>> [one.label(0.2) for one in reductions_for(parse_budget("download: 10%"), FineTuning())]
        ['20% of the weights', '20% of FLOPs', '20% of FLOPs by low rank']
    """

    def zeros(recipe: Recipe, remains: float) -> Recipe:
        settings = WeightPruning(sparsity=round(1 - remains, 6), fine_tuning=training)
        return recipe.model_copy(update={"weight_pruning": settings})

    def channels(recipe: Recipe, remains: float) -> Recipe:
        settings = ChannelPruning(flops=remains, fine_tuning=training)
        return recipe.model_copy(update={"channel_pruning": settings})

    def low_rank(recipe: Recipe, remains: float) -> Recipe:
        settings = Factorization(flops=remains, fine_tuning=training)
        return recipe.model_copy(update={"factorization": settings})

    smaller_download = (Reduction("zeros and shared values", "the weights", zeros),)
    return (
        *(smaller_download if budget.names("download") else ()),
        Reduction("fewer channels", "FLOPs", channels),
        Reduction("low rank", "FLOPs by low rank", low_rank),
    )
