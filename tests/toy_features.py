"""Fake encoders for toy pictures, a classifier that is right by construction, and made-up features of masklets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sam2vss.classifiers.classifier import MaskletClassifier, describe_encoder
from sam2vss.classifiers.samples import Samples
from sam2vss.masklet_features import MaskletFeatures, MaskletTruth
from sam2vss.types import Window
from toy import CLASSES

NUM_CLASSES = CLASSES.num_classes


class ClassEncoder:
    """Gives the class that a toy picture carries, as one-hot vectors of every pixel."""

    name = "toy-classes"
    level_names = ("class",)
    channels = (NUM_CLASSES,)

    def __init__(self, fingerprint: str = "exact") -> None:
        self.fingerprint = fingerprint
        self.calls = 0

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return (np.eye(NUM_CLASSES, dtype=np.float32)[frame[..., 1] // 20].transpose(2, 0, 1),)


class NoiseEncoder:
    """Gives two maps of numbers that depend on the picture only."""

    name = "toy-noise"
    fingerprint = "noise"
    level_names = ("fine", "coarse")
    channels = (4, 3)
    grids = ((6, 9), (5, 4))

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(int(frame.astype(np.int64).sum()))
        shapes = [(d, *grid) for d, grid in zip(self.channels, self.grids, strict=True)]
        return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def perfect_classifier(scope: str = "frame", encoder: Any = None, **options: Any) -> MaskletClassifier:
    """A linear probe of `ClassEncoder`'s features that gives the class with the largest share."""
    encoder = encoder or ClassEncoder()
    network = MaskletClassifier(
        label_set=CLASSES.to_dict(), encoder=describe_encoder(encoder), head="linear", scope=scope, **options
    )
    with torch.no_grad():
        network.head.layers[0].weight.copy_(40 * torch.eye(NUM_CLASSES))
        network.head.layers[0].bias.zero_()
    return network.eval()


def make_known(
    areas: Sequence[Sequence[int]], features: np.ndarray | None = None, size: tuple[int, int] = (10, 20), **more: Any
) -> MaskletFeatures:
    """Features of masklets of these areas (L, N); boxes in the middle of the picture, scores of 1."""
    found = np.array(areas, np.int64)
    length, count = found.shape
    box = np.array([0.25, 0.25, 0.75, 0.75], np.float32)
    values: dict[str, Any] = {
        "window": Window(0, length),
        "size": size,
        "ids": np.arange(count),
        "predicted_iou": np.ones(count, np.float32),
        "stability": np.ones(count, np.float32),
        "frame_iou": (found > 0).astype(np.float32),
        "areas": found,
        "boxes_xyxy": (found > 0)[..., None] * box,
        "features": np.zeros((length, count, 0), np.float32) if features is None else features.astype(np.float32),
        "tokens": np.zeros((length, count, 0, 0), np.float32),
    }
    return MaskletFeatures(**{**values, **more})


def make_truth(classes: np.ndarray) -> MaskletTruth:
    """Truth of masklets that do not overlap, without base labels; (L, N, C)."""
    return MaskletTruth(classes, classes, np.zeros_like(classes), np.zeros_like(classes))


def make_rows(rng: np.random.Generator, groups: Sequence[int], width: int, tokens: tuple[int, int] = (0, 0)) -> Samples:
    """Random rows (M, width), with so many tokens of so many channels."""
    count = len(groups)
    return Samples(
        features=rng.normal(size=(count, width)).astype(np.float32),
        tokens=rng.normal(size=(count, *tokens)).astype(np.float32),
        shapes=rng.random((count, 11)).astype(np.float32),
        groups=np.array(groups, np.int64),
        frames=np.array(groups, np.int64),
        masklets=np.arange(count),
    )
