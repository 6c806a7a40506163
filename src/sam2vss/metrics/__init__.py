"""Scores of video semantic segmentation: pure counting and formulas, no files and no models."""

from .bootstrap import PairedDifference, paired_bootstrap
from .counts import ClipCounts
from .scores import PROTOCOLS, ClassScore, ProtocolName, Scores
from .video import VideoSegMetrics

__all__ = [
    "PROTOCOLS",
    "ClassScore",
    "ClipCounts",
    "PairedDifference",
    "ProtocolName",
    "Scores",
    "VideoSegMetrics",
    "paired_bootstrap",
]
