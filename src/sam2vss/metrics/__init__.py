"""Scores of video semantic segmentation: pure counting and formulas, no files and no models."""

from .bootstrap import (
    FEW_CLIPS,
    PairedDifference,
    ScoreInterval,
    paired_bootstrap,
    paired_bootstraps,
    score_interval,
    score_intervals,
)
from .consistency import curve_windows
from .counts import BoundaryReadings, ClipCounts
from .panoptic import PanopticMetrics
from .panoptic_scores import PANOPTIC_PROTOCOLS, PanopticScores
from .protocols import PROTOCOLS, Protocol, ProtocolName, find_protocol
from .scores import ClassScore, Scores
from .stability import StabilityMetrics
from .video import VideoSegMetrics

__all__ = [
    "FEW_CLIPS",
    "PANOPTIC_PROTOCOLS",
    "PROTOCOLS",
    "BoundaryReadings",
    "ClassScore",
    "ClipCounts",
    "PairedDifference",
    "PanopticMetrics",
    "PanopticScores",
    "Protocol",
    "ProtocolName",
    "ScoreInterval",
    "Scores",
    "StabilityMetrics",
    "VideoSegMetrics",
    "curve_windows",
    "find_protocol",
    "paired_bootstrap",
    "paired_bootstraps",
    "score_interval",
    "score_intervals",
]
