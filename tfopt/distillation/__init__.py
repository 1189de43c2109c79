"""Distillation: a small model learns from a large one inside `fit`."""

from tfopt.distillation.distiller import Distiller
from tfopt.distillation.feature_losses import AngleLoss, AttentionLoss, DistanceLoss, FeatureLoss
from tfopt.distillation.losses import DecoupledLoss, DistillationLoss, LogitsLoss

__all__ = [
    "AngleLoss",
    "AttentionLoss",
    "DecoupledLoss",
    "DistanceLoss",
    "DistillationLoss",
    "Distiller",
    "FeatureLoss",
    "LogitsLoss",
]
