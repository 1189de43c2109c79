"""The Edge TPU: what its compiler takes, predicted by rules or told by the compiler itself."""

from tfopt.export.edge_tpu.prediction import EdgeTpuPrediction, OperatorPrediction, predict

__all__ = ["EdgeTpuPrediction", "OperatorPrediction", "predict"]
