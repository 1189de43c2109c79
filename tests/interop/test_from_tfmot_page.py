"""docs/from-tfmot.md names every public call of tfmot."""

import types
from pathlib import Path

import pytest
from tf_keras_networks import tf_keras  # noqa: F401  (before tfmot, which would choose it for the whole process)

from tfopt.interop.legacy import import_tfmot

PAGE = Path(__file__).parents[2] / "docs" / "from-tfmot.md"
tfmot = import_tfmot()


def public(module):
    for name in dir(module):
        value = getattr(module, name)
        if not name.startswith("_") and not isinstance(value, types.ModuleType):
            yield name


@pytest.mark.parametrize(
    "module",
    [
        tfmot.sparsity.keras,
        tfmot.clustering.keras,
        tfmot.quantization.keras,
        tfmot.quantization.keras.quantizers,
        tfmot.experimental.combine,
    ],
    ids=lambda module: module.__name__.rpartition("api.")[2],
)
def test_every_call_has_its_line(module):
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = "".join(row.split(" | ")[0] for row in rows)
    assert [name for name in public(module) if name not in cells] == []
