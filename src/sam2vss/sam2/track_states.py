"""What fast mode knows of every object: its last mask, where it is heading, what it looks like, how long it is gone."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .association import appearances, centre_boxes, move_masks


@dataclass(frozen=True)
class TrackStates:
    """N objects as rows. Constant in time; boxes are (cx, cy, width, height) as fractions of the picture.

    Attributes:
        logits: Mask logits where the object was last seen (N, h, w).
        box: Box of that mask (N, 4).
        velocity: Change of the box per frame (N, 4).
        appearance: Unit vectors (N, D), see `association.appearances`.
        missing: Frames since the object was last seen, int64 (N,); 0: seen in the latest frame.
    """

    logits: Tensor
    box: Tensor
    velocity: Tensor
    appearance: Tensor
    missing: Tensor

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, rows: Tensor) -> "TrackStates":
        return TrackStates(
            self.logits[rows], self.box[rows], self.velocity[rows], self.appearance[rows], self.missing[rows]
        )

    @classmethod
    def born(cls, logits: Tensor, low: Tensor, never: int) -> "TrackStates":
        """Begin with masks (N, h, w) in a frame with features `low` (1, D, h', w').

        Empty masks count as `never` frames missing.
        """
        masks = logits > 0
        box = centre_boxes(masks)
        missing = torch.where(masks.flatten(1).any(1), 0, never)
        return cls(logits.float(), box, torch.zeros_like(box), appearances(masks, low), missing)

    def joined(self, others: "TrackStates") -> "TrackStates":
        """Append the rows of others."""
        return TrackStates(
            torch.cat([self.logits, others.logits]),
            torch.cat([self.box, others.box]),
            torch.cat([self.velocity, others.velocity]),
            torch.cat([self.appearance, others.appearance]),
            torch.cat([self.missing, others.missing]),
        )

    def predicted_masks(self) -> Tensor:
        """Masks in the coming frame if boxes go on as they did, bool (N, h, w)."""
        return move_masks(self.logits, self.box, self.box + self.velocity * (self.missing + 1)[:, None])

    def seen(self, logits: Tensor, low: Tensor, inertia: float) -> "TrackStates":
        """Take in the next frame's masks (N, h, w), empty where an object was not seen.

        Velocity and appearance move by 1 - `inertia` of the way to what this frame says.
        """
        masks = logits > 0
        is_seen = masks.flatten(1).any(1)
        box = centre_boxes(masks)
        velocity = torch.lerp((box - self.box) / (self.missing + 1)[:, None], self.velocity, inertia)
        appearance = F.normalize(torch.lerp(appearances(masks, low), self.appearance, inertia), dim=1)
        return TrackStates(
            torch.where(is_seen[:, None, None], logits.float(), self.logits),
            torch.where(is_seen[:, None], box, self.box),
            torch.where(is_seen[:, None], velocity, self.velocity),
            torch.where(is_seen[:, None], appearance, self.appearance),
            torch.where(is_seen, 0, self.missing + 1),
        )
