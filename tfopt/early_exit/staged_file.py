"""What lies beside a .tflite file of several stages: when samples leave, and which tensor goes where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfopt.artifact import TensorSpec
from tfopt.early_exit.policy import ExitPolicy
from tfopt.errors import DataError

__all__ = ["StageRecord", "StagedFile", "staged_file_path"]


@dataclass(frozen=True)
class StageRecord:
    """One stage of the file: a signature that takes named tensors and gives named tensors.

    Args:
        signature: its key.
        reads: for each input of the signature, in order: the name of the tensor it is given.
        writes: for each output likewise; the exit's answer first.
        inputs: the signature's inputs, in order.
        outputs: its outputs, in order.
    """

    signature: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class StagedFile:
    """The policy and the stages of a file.

    Args:
        policy: when samples leave.
        stages: in the order in which they run.
    """

    policy: ExitPolicy
    stages: tuple[StageRecord, ...]

    def to_json(self) -> str:
        """The record as JSON."""
        stages = [
            {
                "signature": stage.signature,
                "reads": stage.reads,
                "writes": stage.writes,
                "inputs": [spec.model_dump() for spec in stage.inputs],
                "outputs": [spec.model_dump() for spec in stage.outputs],
            }
            for stage in self.stages
        ]
        return json.dumps({"policy": self.policy.to_dict(), "stages": stages}, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> StagedFile:
        """Reads the record that lies beside a .tflite file.

        Raises:
            DataError: if there is none, or it cannot be read.
        """
        record = staged_file_path(path)
        try:
            data = json.loads(record.read_text())
            return cls(ExitPolicy.from_dict(data["policy"]), tuple(map(_stage, data["stages"])))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"Expected the stages of {path} in {record}, as export_early_exit_tflite writes them. "
                f"Received: {type(error).__name__}: {error}"
            ) from None


def staged_file_path(path: Path) -> Path:
    """Where the record of a file's stages lies.

    Example:
        >>> staged_file_path(Path("model.tflite")).name
        'model.exits.json'
    """
    return path.with_suffix(".exits.json")


def _stage(data: dict[str, Any]) -> StageRecord:
    return StageRecord(
        signature=data["signature"],
        reads=tuple(data["reads"]),
        writes=tuple(data["writes"]),
        inputs=tuple(TensorSpec.model_validate(spec) for spec in data["inputs"]),
        outputs=tuple(TensorSpec.model_validate(spec) for spec in data["outputs"]),
    )
