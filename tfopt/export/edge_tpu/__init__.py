"""The Edge TPU: files for it, and what its compiler takes: told by the compiler itself, or predicted by its rules."""

from tfopt.export.edge_tpu.prediction import EdgeTpuPrediction, OperatorPrediction, predict

__all__ = ["EdgeTpuPrediction", "OperatorPrediction", "predict"]
