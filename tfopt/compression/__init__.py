"""Fewer bits for the same weights: shared values, entropy coding, low-rank factors.

The package is light: what needs Keras is imported when its name is first used, so that files are inspected without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfopt.compression.coding import coded_size_bytes, decode_array, encode_array, entropy_bits
from tfopt.compression.coding_report import CodedCheckpoint, CodedWeight
from tfopt.lazy_names import lazy_names

if TYPE_CHECKING:
    from tfopt.compression.checkpoint import load_coded, save_coded
    from tfopt.compression.factorization_plan import FactorizationPlan, FactorizationRow, plan_factorization

__all__ = [
    "CodedCheckpoint",
    "CodedWeight",
    "FactorizationPlan",
    "FactorizationRow",
    "coded_size_bytes",
    "decode_array",
    "encode_array",
    "entropy_bits",
    "load_coded",
    "plan_factorization",
    "save_coded",
]

__getattr__ = lazy_names(
    __name__,
    {
        "FactorizationPlan": "tfopt.compression.factorization_plan",
        "FactorizationRow": "tfopt.compression.factorization_plan",
        "load_coded": "tfopt.compression.checkpoint",
        "plan_factorization": "tfopt.compression.factorization_plan",
        "save_coded": "tfopt.compression.checkpoint",
    },
)
