"""What Vela estimates for a compiled file, in the user's terms: as a value, in an artifact's record, and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tfopt.artifact import Artifact
from tfopt.errors import DataError
from tfopt.plain_table import aligned

__all__ = ["CpuOperator", "EthosUEstimate"]


@dataclass(frozen=True)
class CpuOperator:
    """An operator that the accelerator does not run.

    Args:
        operator: its kind in the .tflite, such as "RSQRT".
        layers: the Keras layers that it computes.
        reason: Vela's.
    """

    operator: str
    layers: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} of {', '.join(self.layers) or 'no layer'} ({self.reason})"


@dataclass(frozen=True)
class EthosUEstimate:
    """What the compiler expects of the accelerator: no figure here was measured. Printing it gives a table.

    Args:
        target: the accelerator, such as "ethos-u55-128".
        source: who estimates it, and for which system.
        latency_ms: of one inference, without the operators left on the CPU.
        cycles: clock cycles of the accelerator.
        sram_bytes: working memory.
        operators: how many the .tflite had before it was compiled.
        cpu_operators: those left on the CPU.

    Example:
        >>> left = CpuOperator("NEG", ("norm",), "Feature-map dataTypes must be one of INT16, INT8")
        >>> print(EthosUEstimate("ethos-u55-128", "ethos-u-vela", 0.5, 250_000, 4096, 8, (left,)))
        ethos-u55-128, estimated by ethos-u-vela; nothing was run on a device
          0.5 ms, 250,000 cycles, 4.0 KiB SRAM, 7 of 8 operators (88 %) on the accelerator
        on the CPU  layers  reason
        NEG         norm    Feature-map dataTypes must be one of INT16, INT8
    """

    target: str
    source: str
    latency_ms: float
    cycles: int
    sram_bytes: int
    operators: int
    cpu_operators: tuple[CpuOperator, ...]

    @property
    def accelerator_share(self) -> float:
        """Share of the .tflite's operators that run on the accelerator, in [0, 1]."""
        return 1 - len(self.cpu_operators) / self.operators

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the artifact's record."""
        left = [{**asdict(one), "layers": list(one.layers)} for one in self.cpu_operators]
        return {**asdict(self), "accelerator_share": self.accelerator_share, "cpu_operators": left}

    @classmethod
    def of(cls, artifact: Artifact) -> EthosUEstimate:
        """Reads what `export_ethos_u` recorded.

        Raises:
            DataError: if the artifact is not one of an Ethos-U export.
        """
        try:
            fields = dict(artifact.verification["estimated"])
            fields.pop("accelerator_share")
            left = (CpuOperator(**{**one, "layers": tuple(one["layers"])}) for one in fields.pop("cpu_operators"))
            return cls(**fields, cpu_operators=tuple(left))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"EthosUEstimate.of: expected an artifact of export_ethos_u. Received: {artifact.path}, whose record "
                f"has no such estimate ({type(error).__name__}: {error})."
            ) from None

    def __str__(self) -> str:
        on_accelerator = self.operators - len(self.cpu_operators)
        lines = [
            f"{self.target}, estimated by {self.source}; nothing was run on a device",
            f"  {self.latency_ms:.3g} ms, {self.cycles:,} cycles, {self.sram_bytes / 1024:.1f} KiB SRAM, "
            f"{on_accelerator} of {self.operators} operators ({100 * self.accelerator_share:.0f} %) on the accelerator",
        ]
        if self.cpu_operators:
            cells = [("on the CPU", "layers", "reason")]
            cells += [(one.operator, ", ".join(one.layers) or "–", one.reason) for one in self.cpu_operators]
            lines += aligned(cells, "<<<")
        return "\n".join(lines)
