"""Keras callbacks: each works alone in `model.fit(callbacks=[...])`, in any order with the others."""

from .compression_logger import CompressionLogger
from .distillation_schedule import DistillationSchedule
from .early_stopping import EarlyStopping
from .input_pipeline_monitor import InputPipelineMonitor
from .learning_rate import LearningRate
from .learning_rate_finder import LearningRateFinder
from .magnitude_pruning import MagnitudePruning
from .preserve_compression import PreserveCompression
from .quantization_schedule import QuantizationSchedule

__all__ = [
    "CompressionLogger",
    "DistillationSchedule",
    "EarlyStopping",
    "InputPipelineMonitor",
    "LearningRate",
    "LearningRateFinder",
    "MagnitudePruning",
    "PreserveCompression",
    "QuantizationSchedule",
]
