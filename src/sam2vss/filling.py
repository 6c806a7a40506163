"""Pixels without a base label (void): how many there are, and where their labels come from, `--void`.

Panoptic predictions leave void where no segment was sure enough, some models where nothing was. Base labels can be
filled before the masklets vote (`FilledLabels`), or the voters go first and what they leave void is filled at the end.
"""

from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np

from .errors import SettingsError
from .interfaces import BaseLabelSource, FollowsFrames
from .settings import VoidPolicy
from .types import BaseLabels, Frame, LabelSpace


def void_shares(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return the fraction of pixels with the ignore index in each frame of labels (L, H, W), float64 (L,)."""
    return np.array([np.count_nonzero(frame == ignore_index) / frame.size for frame in labels])


def fill_nearest(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Give every void pixel the label of the nearest pixel that has one.

    Distances are those of OpenCV's 5 x 5 mask, so the pixel may be up to 4 % farther than the nearest one (measured).
    Which of several equally near ones is taken is OpenCV's choice, always the same. A frame without any label stays as
    it is.

    Args:
        labels: uint8 or uint16 (H, W).
        ignore_index: Label that means void.

    Returns:
        A new array like `labels`.

    Source: ours.
    """
    is_void = labels == ignore_index
    if not is_void.any() or is_void.all():
        return labels.copy()
    _, owners = cv2.distanceTransformWithLabels(
        is_void.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    label_of = np.zeros(int(owners.max()) + 1, labels.dtype)  # every labelled pixel owns itself and what it is next to
    label_of[owners[~is_void]] = labels[~is_void]
    filled: np.ndarray = label_of[owners]
    return filled


def fill_from_previous(labels: np.ndarray, before: np.ndarray | None, ignore_index: int) -> np.ndarray:
    """Give every void pixel the label that it has in the frame before, and what is still void that of the nearest.

    Args:
        labels: uint8 or uint16 (H, W).
        before: The filled labels of the frame before; None, or of another size: there is none.
        ignore_index: Label that means void.

    Returns:
        A new array like `labels`.

    Source: ours.
    """
    if before is not None and before.shape == labels.shape:
        labels = np.where(labels == ignore_index, before, labels)
    return fill_nearest(labels, ignore_index)


def fill_rest(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Fill every frame of labels (L, H, W) as `fill_nearest` does; what the policy "vote" leaves to the end."""
    return np.stack([fill_nearest(frame, ignore_index) for frame in labels])


class FilledLabels:
    """A `BaseLabelSource` that fills what another one leaves void.

    Filling from the frame before goes on from window to window of a clip; of windows that a resumed run passes over the
    labels are made again, so that it goes on as if it had not been interrupted.

    Args:
        source: Where the labels come from.
        policy: "nearest" or "previous".

    Raises:
        SettingsError: If the policy fills nothing before the vote.
    """

    def __init__(self, source: BaseLabelSource, policy: VoidPolicy) -> None:
        if policy not in ("nearest", "previous"):
            raise SettingsError(
                f"the void policy {policy!r} leaves base labels as they are, expected nearest or previous"
            )
        self.source = source
        self.policy = policy
        self._clip_name: str | None = None
        self._before: np.ndarray | None = None  # filled labels (H, W) of the frame before

    @property
    def label_space(self) -> LabelSpace:
        return self.source.label_space

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Ask the other source."""
        return self.source.check(clip_name, frame_names, num_frames, frame_size)

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Return the other source's labels without void, and how much of it there was.

        A frame stays void if it has no label at all and, for "previous", none came before it.
        """
        base = self.source.labels_for(clip_name, frames)
        ignore_index = self.label_space.ignore_index
        shares = base.void_share if base.void_share is not None else void_shares(base.labels, ignore_index)
        if self.policy == "nearest":
            return BaseLabels(fill_rest(base.labels, ignore_index), base.probabilities, shares)
        if clip_name != self._clip_name or frames[0].index == 0:
            self._clip_name, self._before = clip_name, None
        filled = np.empty_like(base.labels)
        for t, labels in enumerate(base.labels):
            filled[t] = self._before = fill_from_previous(labels, self._before, ignore_index)
        return BaseLabels(filled, base.probabilities, shares)

    def pass_over(self, clip_name: str, frames: Sequence[Frame]) -> None:
        """Note the labels of frames that nobody asks for."""
        if self.policy == "previous":
            self.labels_for(clip_name, frames)
        elif isinstance(self.source, FollowsFrames):
            self.source.pass_over(clip_name, frames)

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Tell the other source."""
        self.source.finish(clip_name, num_frames)


def fill_before_votes(source: BaseLabelSource, policy: VoidPolicy) -> BaseLabelSource:
    """Return a source as the masklets vote on it under a void policy.

    Raises:
        SettingsError: If the policy is unknown.
    """
    if policy not in get_args(VoidPolicy):
        raise SettingsError(f"the void policy {policy!r} is unknown, expected {', '.join(get_args(VoidPolicy))}")
    return FilledLabels(source, policy) if policy in ("nearest", "previous") else source
