"""What a check of mixed precision found, as values and as a table with a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from tfopt.benchmark.units import factor, human_bytes, percent, significant
from tfopt.plain_table import aligned

__all__ = ["MixedPrecisionReport", "PrecisionTrial"]

_WORTH_IT = 1.05  # a smaller gain is within what two measurements of the same step show
_UNDERFLOW = 0.01
_LOSS_DIFFERENCE = 0.05


@dataclass(frozen=True)
class PrecisionTrial:
    """Training steps in one precision.

    Args:
        policy: Keras's dtype policy.
        step_ms: the median step.
        memory_bytes: what a step takes on the GPU beside the models; None on a CPU, where it is not measured.
        loss_is_finite: whether all losses were.
        loss_scale: what the loss was multiplied by so that gradients are finite and not zero; 1 but for float16.
        underflow: share of the gradients that are zero although float32's are not, in [0, 1]; None if some gradients
            were not finite.
        loss_difference: loss at the end of the steps less float32's, as a fraction of that.
    """

    policy: str
    step_ms: float
    memory_bytes: int | None
    loss_is_finite: bool
    loss_scale: float
    underflow: float | None
    loss_difference: float

    @property
    def problem(self) -> str | None:
        """Why it is not safe, in words; None if nothing was seen."""
        if not self.loss_is_finite:
            return "the loss is not finite"
        if self.underflow is None:
            return "gradients are not finite"
        if self.underflow > _UNDERFLOW:
            return f"{percent(self.underflow)} of the gradients underflow"
        if self.loss_difference > _LOSS_DIFFERENCE:
            return f"the loss is {percent(self.loss_difference)} higher"
        return None


@dataclass(frozen=True)
class MixedPrecisionReport:
    """What `mixed_precision_check` found; printing it gives a table.

    Args:
        trials: float32 first, then the policies.
        batch_size: samples in a step.
        steps: that the losses are compared over.

    Example:
        >>> plain = PrecisionTrial("float32", 10.0, None, True, 1.0, 0.0, 0.0)
        >>> mixed = PrecisionTrial("mixed_bfloat16", 14.0, None, True, 1.0, 0.001, 0.002)
        >>> print(MixedPrecisionReport((plain, mixed), batch_size=32, steps=20))
        policy          step ms  faster        memory  underflow  loss
        float32            10.0   1.00×  not measured      0.0 %  +0.0 %
        mixed_bfloat16     14.0  0.714×  not measured      0.1 %  +0.2 %
        Stay with float32 here (batches of 32, 20 steps): mixed_bfloat16 does not pay, 0.714× as fast.
    """

    trials: tuple[PrecisionTrial, ...]
    batch_size: int
    steps: int

    @property
    def recommended(self) -> str:
        """The fastest policy that is safe and faster than float32 by more than noise; else "float32"."""
        good = [one for one in self.trials[1:] if one.problem is None and self.speedup(one) >= _WORTH_IT]
        return max(good, key=self.speedup).policy if good else "float32"

    def speedup(self, trial: PrecisionTrial) -> float:
        """The step time of float32 divided by the trial's: above 1 is faster."""
        return self.trials[0].step_ms / trial.step_ms

    @property
    def verdict(self) -> str:
        """What to do, and why, in a sentence."""
        reasons = []
        for trial in self.trials[1:]:
            faster = factor(self.speedup(trial))
            if trial.problem is not None:
                reasons.append(f"{trial.policy} is not safe: {trial.problem}")
            elif self.speedup(trial) < _WORTH_IT:
                reasons.append(f"{trial.policy} does not pay, {faster} as fast")
            else:
                reasons.append(f"{trial.policy} is safe and {faster} as fast")
        advice = "Stay with float32" if self.recommended == "float32" else f"Train with {self.recommended}"
        return f"{advice} here (batches of {self.batch_size}, {self.steps} steps): {'; '.join(reasons)}."

    def __str__(self) -> str:
        rows = [("policy", "step ms", "faster", "memory", "underflow", "loss")]
        rows += [
            (
                trial.policy,
                significant(trial.step_ms),
                factor(self.speedup(trial)),
                human_bytes(trial.memory_bytes),
                "not finite" if trial.underflow is None else percent(trial.underflow),
                f"{100 * trial.loss_difference:+.1f} %" if trial.loss_is_finite else "not finite",
            )
            for trial in self.trials
        ]
        return "\n".join([*aligned(rows, "<>>>><"), self.verdict])
