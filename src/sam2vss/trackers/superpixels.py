"""Superpixels that follow optical flow: masklets without a model, the control behind `--tracker superpixel`."""

from typing import Any

import cv2
import numpy as np

from ..errors import SettingsError, ShapeError
from ..flow import backward_flow, follow_back, look_up_nearest, photometric_difference, to_grey
from ..mask_runs import Runs, encode_runs, label_runs
from ..types import MaskletWindow, Window, WindowContext
from .flooding import cores, flood, seed_grid
from .merging import build_graph, merge_regions

IDS_PER_FRAME = 1 << 20  # ids of a window start at its first frame times this
SIZE_PX = 8  # ours: of 5, 6, 8, 10, 12 on validation clips
MERGE_SCALE = 400.0  # ours: of 0, 50, 100, 200, 400, 800, 3000 on the same clips; 100 to 800 do alike
_NEW_DIFFERENCE = 14.0  # ours, grey levels: more than this off where it seems to come from, a pixel is taken for new
_GRAPH_FRAMES = 8  # ours: frames of a window at most that decide which regions are joined


class SuperpixelTracker:
    """A `MaskletTracker` without weights: every pixel of every frame belongs to exactly one masklet.

    A watershed from a grid of seeds cuts the first frame into superpixels. From frame to frame their map is looked up
    along backward flow (DIS), their cores are kept, and a watershed draws their borders anew at the edges of the new
    frame. Pixels that come from outside, or do not look like where they seem to come from, are taken for new: they get
    superpixels of their own where half a grid cell is new, and go to a neighbour where less is. At last neighbours of
    like colour are joined for the whole window. Deterministic; windows are independent of one another.

    Args:
        size_px: Distance of the seeds in pixels.
        merge: How readily neighbours are joined (`merging.merge_regions`), in squared grey levels times pixels; 0
            leaves all superpixels apart.
    """

    def __init__(self, size_px: int = SIZE_PX, merge: float = MERGE_SCALE) -> None:
        if size_px < 2 or not merge >= 0:
            raise SettingsError(
                f"superpixels need a size of at least 2 px and a merge scale of at least 0, found {size_px} and {merge}"
            )
        self.size_px = size_px
        self.merge = merge

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Cut the first of the frames, uint8 RGB (L, H, W, 3), into regions and follow them; `context` is not used.

        Masklets come in the order of their smallest superpixel; points lie in the middle of the region's longest run
        of pixels in the frame where it appears, predicted IoU and stability are 1.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (L, H, W, 3) with pixels")
        smooth = [np.asarray(cv2.medianBlur(frame, 3)) for frame in frames]
        label_maps = follow_superpixels(frames, smooth, self.size_px)
        if self.merge > 0:
            label_maps = join_superpixels(label_maps, smooth, self.merge)
        return to_masklets(label_maps, start)


def follow_superpixels(frames: np.ndarray, smooth: list[np.ndarray], size_px: int) -> list[np.ndarray]:
    """Return the superpixel of every pixel, int32 (H, W) per frame, in 1..K; a number belongs to one superpixel only.

    New pixels are lent to a neighbour, and stay new, until there is room for a new superpixel.

    Args:
        frames: uint8 RGB (L, H, W, 3).
        smooth: The same frames without noise; their edges are followed.
        size_px: Distance of the seeds.
    """
    labels = flood(smooth[0], seed_grid(smooth[0], size_px))
    label_maps = [labels]
    num_labels = int(labels.max())
    is_lent = np.zeros(labels.shape, bool)
    grey_before = to_grey(frames[0])
    room = np.ones((max(1, size_px // 2),) * 2, np.uint8)  # that a new superpixel needs
    for frame, picture in zip(frames[1:], smooth[1:], strict=True):
        grey = to_grey(frame)
        positions = follow_back(backward_flow(grey, grey_before))
        is_new = photometric_difference(grey, grey_before, positions) > _NEW_DIFFERENCE
        is_new |= look_up_nearest(is_lent, positions)
        markers = cores(np.where(is_new, 0, look_up_nearest(labels, positions)))
        is_roomy = cv2.erode(is_new.view(np.uint8), room) > 0
        seeds = np.flatnonzero(np.where(is_roomy, seed_grid(picture, size_px), 0))
        markers.reshape(-1)[seeds] = num_labels + 1 + np.arange(len(seeds))
        labels = flood(picture, markers)
        is_lent = is_new & (labels <= num_labels)
        num_labels += len(seeds)
        label_maps.append(labels)
        grey_before = grey
    return label_maps


def join_superpixels(label_maps: list[np.ndarray], smooth: list[np.ndarray], scale: float) -> list[np.ndarray]:
    """Join superpixels 1..K that touch and look alike in the window's frames; return maps with numbers in 1..G."""
    chosen = np.unique(np.linspace(0, len(smooth) - 1, _GRAPH_FRAMES).round().astype(int))
    colors = [np.asarray(cv2.cvtColor(smooth[t], cv2.COLOR_RGB2LAB)) for t in chosen]
    num_labels = max(int(labels.max()) for labels in label_maps)
    graph = build_graph([label_maps[t] - 1 for t in chosen], colors, num_labels)
    new_numbers = np.concatenate([[0], merge_regions(graph, scale) + 1]).astype(np.int32)
    return [new_numbers[labels] for labels in label_maps]


def to_masklets(label_maps: list[np.ndarray], start: int) -> MaskletWindow:
    """Make masklets of regions 1..N, int32 (H, W) per frame; the first frame is `start` of the clip."""
    size = (label_maps[0].shape[0], label_maps[0].shape[1])
    num_regions = max(int(labels.max()) for labels in label_maps)
    rles: list[tuple[dict[str, Any], ...]] = []
    points = np.zeros((num_regions, 2), np.float32)
    is_unseen = np.ones(num_regions, bool)
    for labels in label_maps:
        runs = label_runs(labels - 1, num_regions)
        rles.append(encode_runs(runs))
        appears = np.flatnonzero(is_unseen & (runs.areas > 0))
        if len(appears):
            points[appears] = _inner_points(runs, appears)
            is_unseen[appears] = False
    return MaskletWindow(
        window=Window(start, len(label_maps)),
        size=size,
        rles=tuple(rles),
        predicted_iou=np.ones(num_regions, np.float32),
        stability=np.ones(num_regions, np.float32),
        points=points,
        ids=start * IDS_PER_FRAME + np.arange(num_regions),
    )


def _inner_points(runs: Runs, masks: np.ndarray) -> np.ndarray:
    """Return the pixel (x, y) in the middle of each mask's longest run, int64 (M, 2); the masks have runs."""
    by_length = np.lexsort((runs.stops - runs.starts, runs.owners))
    longest = by_length[np.searchsorted(runs.owners, masks, side="right") - 1]
    middles = (runs.starts[longest] + runs.stops[longest]) // 2
    return np.stack(np.divmod(middles, runs.size[0]), axis=1)
