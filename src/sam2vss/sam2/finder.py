"""Finds new masklets in one frame: automatic masks with a run's thresholds, in the whole frame or where it is bare."""

from dataclasses import dataclass

import numpy as np
import torch

from .candidates import Proposer, Selection, find_candidates, uncovered
from .crops import find_crop_candidates
from .model import FrameFeatures, Sam2Network

MIN_NEW_SHARE = 0.5  # ours: a mask is new if at least half of it lies outside all masklets


@dataclass(frozen=True)
class MaskFinder:
    """Automatic masks with fixed thresholds.

    Attributes:
        network: The model.
        points: Grid of points x points prompts.
        pred_iou: Predicted-IoU threshold.
        stability: Stability-score threshold.
        stability_offset: Offset of the stability score, in logits.
        box_nms: Box IoU above which the worse of two masks is dropped.
        min_area: Islands and holes of fewer pixels are removed; 0: none.
        crop_layers: Layers of crops that are searched besides the whole frame.
        propose: Gives the candidates of a whole frame.
    """

    network: Sam2Network
    points: int = 16
    pred_iou: float = 0.6
    stability: float = 0.8
    stability_offset: float = 0.9
    box_nms: float = 0.7
    min_area: int = 0
    crop_layers: int = 0
    propose: Proposer = find_candidates

    def find(self, features: FrameFeatures, frame: np.ndarray, covered: np.ndarray | None = None) -> Selection:
        """Return the masks of an encoded frame, uint8 RGB (H, W, 3).

        Args:
            features: The frame's features.
            frame: The frame itself.
            covered: Pixels that belong to masklets already, bool (H, W). Points there are no prompts, and masks that
                lie there with more than half of their pixels are left out.
        """
        thresholds = (self.pred_iou, self.stability, self.stability_offset, self.box_nms)
        is_covered = None if covered is None else torch.from_numpy(covered).to(self.network.device)
        is_wanted = None if is_covered is None else ~is_covered
        if self.crop_layers:
            picture = torch.from_numpy(np.ascontiguousarray(frame))
            crops = find_crop_candidates(
                self.network, picture, self.points, self.crop_layers, features=features, is_wanted=is_wanted
            )
            found = crops.select(*thresholds, min_area=self.min_area)
        else:
            size = (frame.shape[0], frame.shape[1])
            candidates = self.propose(self.network, features, size, self.points, is_wanted=is_wanted)
            found = candidates.select(*thresholds, min_area=self.min_area)
        return found if is_covered is None else uncovered(found, is_covered, MIN_NEW_SHARE)
