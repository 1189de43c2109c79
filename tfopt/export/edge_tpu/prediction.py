"""What `edgetpu_compiler` would make of a .tflite file, predicted by its documented rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tfopt.artifact import Artifact, record_path
from tfopt.errors import DataError
from tfopt.export.edge_tpu.memory import cached_and_streamed, parameter_bytes
from tfopt.export.edge_tpu.operators import RULES, operator_support
from tfopt.export.edge_tpu.partition import cut_off_by
from tfopt.export.edge_tpu.support import Confidence, Support, refused
from tfopt.export.tflite_file import Operator, read_tflite
from tfopt.plain_table import aligned

__all__ = ["EdgeTpuPrediction", "OperatorPrediction", "predict"]

LISTED = 4
"""How many places are named of operators that have the same reason."""


@dataclass(frozen=True)
class OperatorPrediction:
    """What is predicted of one operator.

    Args:
        name: "CONV_2D", …
        layer: the Keras layer that it comes from; "" where that is not known.
        output: the name of its first output tensor.
        mapped: whether it runs on the Edge TPU.
        confidence: "documented", "observed" (compilers were seen to do so) or "unknown" (an operator, a version or
            sizes that nobody is known to have tried).
        reason: why it is not mapped, or what is uncertain; empty for one that is plainly mapped.
        mend: what to change in the model.
        cut_off: whether the Edge TPU has the operator, and only its place behind a CPU operator keeps it off.
    """

    name: str
    layer: str
    output: str
    mapped: bool
    confidence: Confidence
    reason: str = ""
    mend: str = ""
    cut_off: bool = False

    @property
    def place(self) -> str:
        """Where it is: its layer, or else what it writes."""
        # The converter joins the names of what it fused by ";".
        return f"layer `{self.layer}`" if self.layer else f"`{self.output.partition(';')[0]}`"

    def __str__(self) -> str:
        return _line([self])


@dataclass(frozen=True)
class EdgeTpuPrediction:
    """What is predicted of a file; nothing in it was measured or compiled.

    Args:
        operators: in the order of the file.
        cached_bytes: weights and other constants that stay on chip.
        streamed_bytes: those beyond, which are sent at every inference.
        first_runtime: the oldest version of the Edge TPU runtime that has every mapped operator; 0 if none is mapped.

    Example:
        >>> conv = OperatorPrediction("CONV_2D", "stem", "stem/out", mapped=True, confidence="documented")
        >>> mend = "use ReLU6"
        >>> elu = OperatorPrediction("ELU", "elu_3", "elu/out", False, "documented", "the Edge TPU has no ELU", mend)
        >>> print(EdgeTpuPrediction((conv, elu), cached_bytes=320, streamed_bytes=0, first_runtime=10))
        Edge TPU, predicted (not compiled): 1 of 2 operators run on it, in 1 subgraph
        parameters, predicted: 320 bytes cached on chip, 0 bytes streamed at every inference
        needs Edge TPU runtime 10 or newer
        <BLANKLINE>
        operator  count  predicted  confidence
        CONV_2D       1  Edge TPU   documented
        ELU           1  CPU        documented
        <BLANKLINE>
        on the CPU:
          layer `elu_3`: ELU: the Edge TPU has no ELU; use ReLU6
    """

    operators: tuple[OperatorPrediction, ...]
    cached_bytes: int
    streamed_bytes: int
    first_runtime: int

    @property
    def mapped_count(self) -> int:
        """How many operators run on the Edge TPU."""
        return sum(operator.mapped for operator in self.operators)

    @property
    def subgraphs(self) -> int:
        """How many Edge TPU operators the compiled file would hold: the compiler makes at most one."""
        return min(self.mapped_count, 1)

    @property
    def is_fully_mapped(self) -> bool:
        """Whether every operator runs on the Edge TPU."""
        return self.mapped_count == len(self.operators)

    def __str__(self) -> str:
        lines = [
            f"Edge TPU, predicted (not compiled): {self.mapped_count} of {len(self.operators)} operators run on it, "
            f"in {self.subgraphs} subgraph{'' if self.subgraphs else 's'}",
            f"parameters, predicted: {self.cached_bytes:,} bytes cached on chip, {self.streamed_bytes:,} bytes "
            "streamed at every inference",
            *([f"needs Edge TPU runtime {self.first_runtime} or newer"] if self.first_runtime else []),
            "",
        ]
        counts = Counter(
            (one.name, "Edge TPU" if one.mapped else "CPU, cut off" if one.cut_off else "CPU", one.confidence)
            for one in self.operators
        )
        rows = [("operator", "count", "predicted", "confidence")]
        rows += [(name, str(count), place, confidence) for (name, place, confidence), count in counts.items()]
        lines += aligned(rows, "<><<")
        for title, chosen in (
            ("on the CPU:", [one for one in self.operators if not one.mapped and not one.cut_off]),
            ("on the Edge TPU, not certain:", [one for one in self.operators if one.mapped and one.reason]),
        ):
            alike: dict[tuple[str, str, str], list[OperatorPrediction]] = {}
            for one in chosen:
                alike.setdefault((one.name, one.reason, one.mend), []).append(one)
            lines += ["", title, *(f"  {_line(group)}" for group in alike.values())] if chosen else []
        return "\n".join(lines)


def _line(alike: list[OperatorPrediction]) -> str:
    """What is said of one operator, or of several for the same reason."""
    places = list(dict.fromkeys(one.place for one in alike))
    where = ", ".join(places[:LISTED]) + (f" and {len(places) - LISTED} more" if len(places) > LISTED else "")
    first = alike[0]
    return f"{where}: {first.name}: {first.reason}" + (f"; {first.mend}" if first.mend else "")


def predict(source: str | Path | Artifact) -> EdgeTpuPrediction:
    """Predicts which operators of a .tflite file `edgetpu_compiler` (version 16) puts on the Edge TPU.

    Use it where the compiler is not installed, or to read reasons in terms of layers; the compiler has the last word.

    Args:
        source: a .tflite file, or its artifact, which knows the Keras layers that messages are about. The record of an
            artifact that lies beside a file is read.

    Raises:
        DataError: if the file cannot be read or has changed since its record was written, or an operator lacks inputs.

    Example:
        >>> predict("absent.tflite")
        Traceback (most recent call last):
        ...
        tfopt.errors.DataError: Cannot read absent.tflite. Received: [Errno 2] No such file or directory: \
'absent.tflite'.

    References: Coral, "TensorFlow models on the Edge TPU"; see `tfopt.export.edge_tpu.limits`.
    """
    if not isinstance(source, Artifact) and record_path(Path(source)).exists():
        source = Artifact.load(source)
    path, layers = (source.path, source.layers) if isinstance(source, Artifact) else (Path(source), ())
    operators = read_tflite(path).operators
    names = [" + ".join(computed) for computed in layers] or [""] * len(operators)
    found = [_support(operator, path) for operator in operators]
    cuts = cut_off_by(operators, [support.supported for support in found])
    on_tpu = [support.supported and cut is None for support, cut in zip(found, cuts, strict=True)]
    predictions = []
    for operator, layer, support, cut, mapped in zip(operators, names, found, cuts, on_tpu, strict=True):
        cut_off = support.supported and not mapped
        if cut is not None and cut_off:
            support = _cut_off(operators[cut], names[cut], found[cut])
        predictions.append(
            OperatorPrediction(
                name=operator.name,
                layer=layer,
                output=operator.outputs[0].name if operator.outputs else "",
                mapped=mapped,
                confidence=support.confidence,
                reason=support.reason,
                mend=support.mend,
                cut_off=cut_off,
            )
        )
    mapped_operators = [operator for operator, mapped in zip(operators, on_tpu, strict=True) if mapped]
    cached, streamed = cached_and_streamed(parameter_bytes(mapped_operators))
    return EdgeTpuPrediction(
        tuple(predictions),
        cached,
        streamed,
        max((RULES[operator.name].first_runtime for operator in mapped_operators), default=0),
    )


def _support(operator: Operator, path: str | Path) -> Support:
    if operator.subgraph > 0:
        return refused(
            "it is not in the main graph, but in control flow or another signature",
            "unroll loops, avoid branches, and export one signature",
        )
    try:
        return operator_support(operator)
    except (ArithmeticError, LookupError, ValueError) as error:
        output = operator.outputs[0].name if operator.outputs else ""
        raise DataError(
            f"{path} is damaged: its operator {operator.name} (it writes '{output}') lacks inputs or sizes "
            f"({type(error).__name__}: {error})."
        ) from None


def _cut_off(blocker: Operator, layer: str, support: Support) -> Support:
    what = f"{blocker.name} (layer `{layer}`)" if layer else blocker.name
    return refused(
        f"it comes after {what}, which runs on the CPU, and the compiler makes one subgraph",
        f"mend layer `{layer}` first" if layer else f"mend that {blocker.name} first",
        support.confidence,
    )
