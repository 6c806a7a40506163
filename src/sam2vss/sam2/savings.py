"""Fewer masklets to follow: a budget, masklets inside others of their class, masklets that cannot change a label.

Following one masklet costs the same whatever it does to the labels, so what is dropped on the seed frame is time saved
in all frames of the window. Pure functions on the masks of one seed frame and on base labels; all of it is ours and off
by default. docs/method.md says what each does to the labels, `benchmarks/savings.py` measures it.

Terms: the class of a mask is the winner of its votes on the seed frame alone (paper Eq. 2); a tie goes to the smallest
class, and without a vote there is none. Masks are painted with the small ones on top (`voting.paint_order`).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingsError, ShapeError
from .candidates import Selection, mask_boxes

CONTAINED_SHARE = 0.98  # ours: three quarters of what 0.95 saves, at a fifth of its deviation (benchmarks/savings.py)
MARGIN_PX = 16  # ours: how far an object's outline moves within a window, at least
MARGIN_SHARE = 0.1  # ours: the same, as a share of the longer side of its box
UNSTEADY_WEIGHT = 100  # ours: large, so that quiet pixels hardly more than break ties
PIXELS_AT_ONCE = 1 << 16  # as float32 of 150 masks 39 MB
NO_CLASS = -1


@dataclass(frozen=True)
class Savings:
    """Which masklets are not followed; by default all are.

    Attributes:
        max_masklets: Follow at most so many, see `keep_best`.
        contained: Drop masklets inside others, see `drop_contained`.
        settled: Drop masklets that cannot change a label, see `drop_settled`.
    """

    max_masklets: int | None = None
    contained: bool = False
    settled: bool = False

    def choose(
        self,
        selection: Selection,
        labels: np.ndarray | None,
        ignore_index: int,
        seed_time: int = 0,
        num_followed: int = 0,
    ) -> Tensor:
        """Return the rows of a selection to follow, int64, ascending.

        Args:
            selection: Masks of the seed frame.
            labels: Base labels of the window, uint8 or uint16 (L, H, W); needed unless only `max_masklets` is set.
            ignore_index: The label in them that is no class.
            seed_time: Frame of the window that the masks belong to.
            num_followed: Masklets that the window has already, carried or found before; they count for `max_masklets`.

        Raises:
            SettingsError: If base labels are needed and there are none.
            ShapeError: If they do not have the masks' size.
        """
        if labels is not None and labels.shape[1:] != selection.masks.shape[1:]:
            raise ShapeError(
                f"base labels are {labels.shape}, expected (L, H, W) of the masks' size "
                f"{tuple(selection.masks.shape[1:])}: both must come from the same frames at the same resolution"
            )
        rows = torch.arange(len(selection), device=selection.masks.device)
        if self.contained or self.settled:
            if labels is None:
                raise SettingsError(
                    "dropping contained or settled masklets looks at the base labels, and the tracker was given none: "
                    "pass WindowContext(labels=...), or use max_masklets alone"
                )
            if self.settled:
                rows = rows[drop_settled(selection.masks, labels, ignore_index, seed_time)]
            if self.contained:
                rows = rows[drop_contained(selection.masks[rows], labels[seed_time], ignore_index)]
        if self.max_masklets is not None:
            limit = max(0, self.max_masklets - num_followed)
            rows = rows[keep_best(selection.masks[rows], limit, labels, seed_time)]
        return rows


def keep_best(masks: Tensor, limit: int, labels: np.ndarray | None = None, seed_time: int = 0) -> Tensor:
    """Choose at most `limit` masks: greedily the one that adds most weight of pixels that no chosen one covers yet.

    With base labels a pixel that is unsteady, where votes can change most, weighs `UNSTEADY_WEIGHT` times as much as
    another one: its label changes during the window, or differs from a neighbour's on the seed frame.

    Args:
        masks: bool (N, H, W), best predicted IoU first; of masks that add equally much the earlier is taken.
        limit: How many to keep, >= 0.
        labels: Base labels of the window, uint8 or uint16 (L, H, W), or None.
        seed_time: Frame of the window that the masks belong to.

    Returns:
        Rows to keep, int64, ascending.
    """
    count, device = len(masks), masks.device
    if count <= limit:
        return torch.arange(count, device=device)
    flat = masks.flatten(1)
    weights = torch.ones(flat.shape[1], device=device)
    if labels is not None:
        weights[torch.from_numpy(is_unsteady(labels, seed_time)).flatten().to(device)] = UNSTEADY_WEIGHT
    gains = _weigh(flat, weights)
    is_bare = torch.ones_like(flat[0])
    is_kept = torch.zeros(count, dtype=torch.bool, device=device)
    tie_break = torch.arange(count, device=device)
    for _ in range(limit):
        best = (gains * count - tie_break).masked_fill(is_kept, -count).argmax()
        is_kept[best] = True
        added = torch.nonzero(flat[best] & is_bare)[:, 0]  # every pixel is added once, whatever the limit
        gains -= _weigh(flat[:, added], weights[added])
        is_bare[added] = False
    return torch.nonzero(is_kept)[:, 0]


def drop_contained(masks: Tensor, labels: np.ndarray, ignore_index: int, share: float = CONTAINED_SHARE) -> Tensor:
    """Drop masks inside another one of the same class, where hardly a pixel of the seed frame can tell.

    A mask is dropped if at least `share` of its pixels certainly keep their class on the seed frame without it: they
    lie in one larger mask of its class, and not in a mask of another class that is painted between the two. The larger
    mask may be dropped for a still larger one; changed pixels then add up, and stay below (1 - share) times the area
    of all dropped masks.

    With `share=1` the refined labels of the seed frame are exactly those of all masks, as long as every masklet wins
    the same class in the window's vote as on this frame, none abstains (`min_share` 0), and small masklets lie on top
    in the order of their areas on this frame. On later frames masklets move apart; benchmarks/savings.py measures it.

    Args:
        masks: bool (N, H, W).
        labels: Base labels of the masks' frame, uint8 or uint16 (H, W).
        ignore_index: The label that is no class. Masks without votes are kept, and count as of another class.
        share: In (0, 1].

    Returns:
        Rows to keep, int64, ascending.
    """
    overlaps = _measure(masks, labels, ignore_index)
    classes, areas, shared, is_above = overlaps.classes, overlaps.areas, overlaps.shared, overlaps.is_above
    is_same = (classes[:, None] == classes) & (classes != NO_CLASS)
    beneath = torch.where(is_above & ~is_same, shared, 0)  # of another class, painted before mask i
    between = beneath @ is_above.long()  # [i, j]: of these, painted after mask j
    safe = shared - between
    is_inside = is_same & is_above & (safe >= share * areas[:, None].double())
    return torch.nonzero(~is_inside.any(1))[:, 0].to(masks.device)


def drop_settled(
    masks: Tensor,
    labels: np.ndarray,
    ignore_index: int,
    seed_time: int = 0,
    margin_px: int = MARGIN_PX,
    margin_share: float = MARGIN_SHARE,
) -> Tensor:
    """Drop masks that cannot change a label because the base labels all around them agree through the whole window.

    A mask is settled if no pixel within its margin changes its base label during the window or borders on another one,
    so that it would vote for the class that is there already; the margin is how far the masklet may move. It also hides
    what is painted before it, so a settled mask is kept where a mask of another class lies beneath it.

    Exact, on all frames, as long as every masklet stays within its margin, wins the class in the window's vote that it
    wins on the seed frame, small masklets lie on top in the order of their areas there, and no masklet of another class
    comes to lie beneath a dropped one later. Base labels that stay wrong everywhere are settled too.

    Args:
        masks: bool (N, H, W); empty ones are dropped.
        labels: Base labels of the window, uint8 or uint16 (L, H, W).
        ignore_index: The label that is no class; a mask all on ignored pixels paints nothing and hides nothing.
        seed_time: Frame of the window that the masks belong to.
        margin_px: The margin in pixels, at least, along each axis.
        margin_share: The margin as a share of the longer side of the mask's box, at least.

    Returns:
        Rows to keep, int64, ascending.
    """
    overlaps = _measure(masks, labels[seed_time], ignore_index)
    distance = torch.from_numpy(_distance_to(is_unsteady(labels, seed_time))).flatten().to(masks.device)
    reach = torch.full((len(masks),), torch.inf, device=masks.device)
    for part, part_distance in zip(
        masks.flatten(1).split(PIXELS_AT_ONCE, 1), distance.split(PIXELS_AT_ONCE), strict=True
    ):
        reach = torch.minimum(reach, torch.where(part, part_distance, torch.inf).amin(1))
    left, top, right, bottom = mask_boxes(masks).unbind(1)
    longer_side = torch.maximum(right - left, bottom - top) + 1
    margin = (longer_side * margin_share).ceil().clamp(min=margin_px)
    is_settled = (reach > margin).cpu() & overlaps.is_unanimous
    is_foreign = overlaps.classes[:, None] != overlaps.classes
    is_hiding = (overlaps.is_above & is_foreign & (overlaps.shared > 0)).any(1) & (overlaps.classes != NO_CLASS)
    return torch.nonzero(~is_settled | is_hiding)[:, 0].to(masks.device)


def is_unsteady(labels: np.ndarray, seed_time: int = 0) -> np.ndarray:
    """Tell where base labels (L, H, W) change during the window, or border on another label in one frame, bool (H, W).

    Neighbours share a side; both pixels of a border count.
    """
    found: np.ndarray = labels.min(axis=0) != labels.max(axis=0)
    frame = labels[seed_time]
    down, right = frame[1:] != frame[:-1], frame[:, 1:] != frame[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def _distance_to(targets: np.ndarray) -> np.ndarray:
    """Return the distance of every pixel to the nearest target, bool (H, W), along the farther axis; float32 pixels."""
    if not targets.any():
        return np.full(targets.shape, np.inf, np.float32)
    distance: np.ndarray = cv2.distanceTransform((~targets).astype(np.uint8), cv2.DIST_C, 3)
    return distance


def _weigh(flat: Tensor, weights: Tensor) -> Tensor:
    """Add up the weights (P,) under masks (N, P), int64 (N,)."""
    total = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    for part, part_weights in zip(flat.split(PIXELS_AT_ONCE, 1), weights.split(PIXELS_AT_ONCE), strict=True):
        total += (part.float() @ part_weights).long()  # whole numbers below 2**24 are exact in float32
    return total


@dataclass(frozen=True)
class _Overlaps:
    """How the N masks of a frame lie over one another, and what they vote for; on the CPU.

    Attributes:
        shared: Pixels that two masks share, int64 (N, N); the diagonal holds the areas.
        classes: Class of each mask, int64 (N,), NO_CLASS without votes.
        is_unanimous: All pixels of the mask have one label, ignored or not, bool (N,).
        is_above: Mask i is painted later than mask j, bool (N, N) at [i, j].
    """

    shared: Tensor
    classes: Tensor
    is_unanimous: Tensor
    is_above: Tensor

    @property
    def areas(self) -> Tensor:
        return self.shared.diagonal()


def _measure(masks: Tensor, labels: np.ndarray, ignore_index: int) -> _Overlaps:
    """Count shared pixels and votes of masks, bool (N, H, W), on the labels of their frame, (H, W)."""
    values, inverse = np.unique(labels, return_inverse=True)
    indices = torch.from_numpy(inverse.reshape(-1)).to(masks.device)
    shared = torch.zeros(len(masks), len(masks), dtype=torch.int64, device=masks.device)
    votes = torch.zeros(len(masks), len(values), dtype=torch.int64, device=masks.device)
    for part, part_indices in zip(
        masks.flatten(1).split(PIXELS_AT_ONCE, 1), indices.split(PIXELS_AT_ONCE), strict=True
    ):
        covers = part.float()  # counts below 2**24 are exact in float32
        shared += (covers @ covers.T).long()
        votes += (covers @ F.one_hot(part_indices, len(values)).float()).long()
    shared, votes = shared.cpu(), votes.cpu()
    areas = shared.diagonal()
    is_unanimous = votes.amax(1) == areas
    ids = torch.from_numpy(values.astype(np.int64))
    votes[:, ids == ignore_index] = 0
    classes = torch.where(votes.any(1), ids[votes.argmax(1)], NO_CLASS)
    rows = torch.arange(len(masks))
    is_tie = (areas[:, None] == areas) & (rows[:, None] < rows)  # of equals the earlier lies on top
    return _Overlaps(shared, classes, is_unanimous, (areas[:, None] < areas) | is_tie)
