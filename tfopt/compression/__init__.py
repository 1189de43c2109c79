"""Fewer bits for the same weights: shared values, entropy coding, low-rank factors."""

from tfopt.compression.checkpoint import load_coded, save_coded
from tfopt.compression.coding import coded_size_bytes, decode_array, encode_array, entropy_bits
from tfopt.compression.coding_report import CodedCheckpoint, CodedWeight
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
