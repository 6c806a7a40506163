"""The refiner's maths: masklets vote on base labels (Eq. 2) and are painted over them (Eq. 1).

Pure functions on arrays and RLE masks; where frames, labels and masklets come from is `pipeline.py`'s business.
Everything works on runs of pixels (`mask_runs.py`), never on full masks of every object.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from .errors import LabelError, SettingsError, ShapeError
from .mask_runs import Pieces, Runs, cut_runs, decode_runs, pool_runs
from .settings import OverlapOrder, VoteScope, VoteWeight
from .types import BaseLabels, LabelSpace, MaskletWindow, Naming, Refinement

ABSTAINED = -1  # class of a masklet that changes nothing
_POOLED_VALUES = 4_000_000  # masks are pooled in groups that stay below this, 32 MB


def count_votes(window: MaskletWindow, labels: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Count the base classes under every masklet, over all frames of its window.

    Pixels with the ignore index do not vote. A masklet with no voting pixel gets a row of zeros.

    Args:
        window: N masklets over L frames of size (H, W).
        labels: Base labels, uint8 or uint16 (L, H, W), train ids or the ignore index.
        label_space: Gives C and the ignore index.

    Returns:
        Votes, int64 (N, C); row i sums to the number of voting pixels of masklet i.

    Raises:
        ShapeError: If `labels` does not have the window's length and size.
        LabelError: If `labels` holds anything but train ids and the ignore index.

    Source: paper Eq. 2. The paper writes the sum over (x, y) only; we also sum over the frames of the window, so that
    a masklet keeps one class (docs/method.md, "Voting").
    """
    votes = np.zeros((window.num_masklets, label_space.num_classes), np.int64)
    for frame_votes in _each_frame_votes(window, labels, label_space):
        votes += frame_votes
    return votes


def count_frame_votes(window: MaskletWindow, labels: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Count the base classes under every masklet, each frame on its own: `count_votes` before the sum.

    Returns:
        Votes, int64 (L, N, C).

    Source: paper Eq. 2, read per frame.
    """
    return np.stack(list(_each_frame_votes(window, labels, label_space)))


def _each_frame_votes(window: MaskletWindow, labels: np.ndarray, label_space: LabelSpace) -> Iterator[np.ndarray]:
    _check_frames(window, labels)
    for rles, frame_labels in zip(window.rles, labels, strict=True):
        yield _count(decode_runs(rles, window.size), frame_labels, label_space)


def _count(runs: Runs, labels: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Count the votes of one frame, int64 (N, C), from labels (H, W)."""
    flat = _to_columns(labels)
    pieces = cut_runs(runs, flat)
    segment_labels = flat[pieces.bounds[:-1]]
    label_space.check(segment_labels, "base labels")  # every value of the frame is among them
    num_bins = label_space.num_classes + 1  # the last one takes the ignored pixels
    segment_bins = np.minimum(segment_labels, label_space.num_classes).astype(np.int64)
    bins = pieces.owners * num_bins + segment_bins[pieces.segments]
    # float64 sums of pixel counts are exact up to 2**53
    votes = np.bincount(bins, pieces.lengths[pieces.segments], runs.num_masks * num_bins)
    return votes.reshape(runs.num_masks, num_bins)[:, :-1].astype(np.int64)


def add_probabilities(
    window: MaskletWindow, probabilities: np.ndarray, is_voting: np.ndarray | None = None
) -> np.ndarray:
    """Add up the class probabilities under every masklet, over all frames of its window.

    Defined as the sum over the masklet's pixels of the probabilities resized to (H, W), bilinearly, pixel centres at
    half integers, no antialiasing. Computed the other way round: the masks are pooled to the probabilities' grid.

    Args:
        window: N masklets over L frames of size (H, W).
        probabilities: Class probabilities, floats (L, C, h, w) on any grid that covers the frame.
        is_voting: Pixels that take part, bool (L, H, W); None means all.

    Returns:
        Votes, float64 (N, C); relative error up to about 1e-6, as products are taken in float32.

    Raises:
        ShapeError: If frames do not fit.
        LabelError: If values are negative or not finite, as logits are.

    Source: ours; the soft form of paper Eq. 2.
    """
    votes = np.zeros((window.num_masklets, probabilities.shape[1]))
    for frame_votes in _each_frame_masses(window, probabilities, is_voting):
        votes += frame_votes
    return votes


def add_frame_probabilities(
    window: MaskletWindow, probabilities: np.ndarray, is_voting: np.ndarray | None = None
) -> np.ndarray:
    """Add up the class probabilities under every masklet, each frame on its own: `add_probabilities` before the sum.

    Returns:
        Votes, float64 (L, N, C).

    Source: ours.
    """
    return np.stack(list(_each_frame_masses(window, probabilities, is_voting)))


def _each_frame_masses(
    window: MaskletWindow, probabilities: np.ndarray, is_voting: np.ndarray | None
) -> Iterator[np.ndarray]:
    if probabilities.ndim != 4 or len(probabilities) != window.window.length:
        raise ShapeError(
            f"probabilities have shape {probabilities.shape}, expected (L={window.window.length}, C, h, w): "
            "one map per frame of the window"
        )
    if is_voting is not None:
        _check_frames(window, is_voting)
    for t, rles in enumerate(window.rles):
        runs = decode_runs(rles, window.size)
        yield _add_masses(runs, probabilities[t], None if is_voting is None else is_voting[t])


def _add_masses(runs: Runs, probabilities: np.ndarray, is_voting: np.ndarray | None) -> np.ndarray:
    """Add up the probabilities (C, h, w) of one frame, float64 (N, C)."""
    if not (probabilities.min() >= 0 and np.isfinite(probabilities.max())):  # a NaN fails the first test
        raise LabelError(
            f"probabilities range from {probabilities.min()} to {probabilities.max()}, expected finite values of at "
            "least 0. Logits need a softmax first."
        )
    num_classes, *grid = probabilities.shape
    table = probabilities.reshape(num_classes, -1).T.astype(np.float32, copy=False)
    masses = np.zeros((runs.num_masks, num_classes))
    step = max(1, _POOLED_VALUES // len(table))
    for first in range(0, runs.num_masks, step):
        part = runs.select(first, first + step)
        pooled = pool_runs(part, (grid[0], grid[1]), is_voting)
        masses[first : first + step] = pooled.reshape(part.num_masks, -1).astype(np.float32) @ table
    return masses


def choose_classes(votes: np.ndarray, min_share: float = 0.0) -> np.ndarray:
    """Return the class with most votes, or -1 where a masklet abstains.

    Args:
        votes: Votes, (N, C), or (L, N, C) for each frame on its own.
        min_share: A masklet abstains when its winner's share of the votes is smaller than this, in [0, 1].

    Returns:
        int64 (N,) or (L, N). A tie goes to the smallest class id; a masklet without votes gets -1.

    Source: paper Eq. 2; ties and abstention are ours.
    """
    abstains = (votes.sum(axis=-1) <= 0) | (vote_shares(votes) < min_share)
    return np.where(abstains, ABSTAINED, votes.argmax(axis=-1))


def vote_shares(votes: np.ndarray) -> np.ndarray:
    """Return winning votes / all votes, float64 (N,) for votes (N, C) [or (L, N) for (L, N, C)]; 0 without votes."""
    totals = votes.sum(axis=-1, dtype=np.float64)
    shares: np.ndarray = votes.max(axis=-1) / np.where(totals > 0, totals, 1)
    return shares


def paint_order(window: MaskletWindow, overlap: OverlapOrder = "small-on-top") -> np.ndarray:
    """Return the masklets' positions in the order they are painted, bottom first, int64 (N,).

    One order serves the whole window: were areas compared frame by frame, two masklets of similar size would swap
    places now and then, and their overlap would flicker. Area is the mean over the frames in which a masklet is
    visible, so that leaving the picture early does not make an object small. Of equals the earlier one lies on top,
    as trackers list their best candidates first.
    """
    if overlap == "confident-on-top":
        heights = window.predicted_iou
    elif overlap == "stable-on-top":
        heights = window.stability
    else:
        areas = np.array([window.areas(t) for t in range(window.window.length)])
        mean_areas = areas.sum(axis=0) / np.maximum(np.count_nonzero(areas, axis=0), 1)
        heights = {"small-on-top": -mean_areas, "large-on-top": mean_areas}[overlap]
    positions = np.arange(window.num_masklets)
    return np.lexsort((-positions, heights))


def paint_masklets(
    labels: np.ndarray,
    window: MaskletWindow,
    classes: np.ndarray,
    overlap: OverlapOrder = "small-on-top",
) -> np.ndarray:
    """Paint every masklet's class over the base labels.

    Masklets of class -1 change nothing and hide nothing: what lies beneath them shows. Pixels outside all masklets keep
    the base label. Pixels with the ignore index are painted like any other.

    Args:
        labels: Base labels, uint8 or uint16 (L, H, W).
        window: N masklets over L frames of size (H, W).
        classes: Integers (N,), or (L, N) when each frame has its own; -1 abstains.
        overlap: Which masklet wins where several overlap, see `paint_order`.

    Returns:
        Refined labels, a new array like `labels`.

    Raises:
        ShapeError: If arrays do not fit the window.
        LabelError: If a class does not fit the labels' dtype.

    Source: paper Eq. 1, which leaves overlaps open.
    """
    _check_frames(window, labels)
    length, num_masklets = window.window.length, window.num_masklets
    if classes.shape not in ((num_masklets,), (length, num_masklets)) or classes.dtype.kind not in "iu":
        raise ShapeError(
            f"classes are {classes.dtype} {classes.shape}, expected integers ({num_masklets},), one per masklet, or "
            f"({length}, {num_masklets}), one per frame and masklet"
        )
    _check_classes(classes, labels.dtype)
    order = paint_order(window, overlap)
    refined = np.empty_like(labels)
    for t, frame_classes in enumerate(np.broadcast_to(classes, (length, num_masklets))):
        pieces = cut_runs(decode_runs(window.rles[t], window.size))
        refined[t] = _paint(labels[t], pieces, frame_classes, order)
    return refined


def top_masklets(window: MaskletWindow, t: int, order: np.ndarray) -> np.ndarray:
    """Return which masklet lies on top at every pixel of frame `t`, int32 (H, W); -1 where there is none.

    Args:
        window: N masklets.
        t: Frame of the window.
        order: Positions of the masklets, bottom first, as `paint_order` gives them.
    """
    nothing = np.full(window.size, -1, np.int32)
    return _paint(nothing, cut_runs(decode_runs(window.rles[t], window.size)), np.arange(window.num_masklets), order)


def _paint(labels: np.ndarray, pieces: Pieces, classes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Paint one frame, labels (H, W), in the given order."""
    voiced = order[classes[order] != ABSTAINED]
    heights = np.full(len(order), -1)
    heights[voiced] = np.arange(len(voiced))
    tops = np.full(len(pieces.bounds) - 1, -1)
    np.maximum.at(tops, pieces.segments, heights[pieces.owners])  # assignment does not promise that the last one wins
    is_painted = tops >= 0
    segment_labels = np.zeros(len(tops), labels.dtype)
    segment_labels[is_painted] = classes[voiced[tops[is_painted]]]
    flat = _to_columns(labels)
    np.copyto(flat, np.repeat(segment_labels, pieces.lengths), where=np.repeat(is_painted, pieces.lengths))
    return cv2.transpose(flat.reshape(labels.shape[::-1]))


def refine_window(
    base: BaseLabels,
    window: MaskletWindow,
    label_space: LabelSpace,
    vote: VoteScope = "window",
    vote_weight: VoteWeight = "majority",
    min_share: float = 0.0,
    overlap: OverlapOrder = "small-on-top",
    earlier_votes: np.ndarray | None = None,
) -> Refinement:
    """Let the masklets of one window vote on its base labels, and paint the winners: Eq. 2, then Eq. 1.

    Args:
        base: Base labels of the window's L frames; with probabilities when `vote_weight` is "probability".
        window: N masklets over the same frames.
        label_space: The classes of `base`.
        vote: "window" gives a masklet one class for all frames, "frame" one per frame.
        vote_weight: "majority" counts labels, "probability" adds the probabilities of the pixels that may vote.
        min_share: Below this share of the votes a masklet abstains and the base labels stay.
        overlap: Which masklet wins where several overlap.
        earlier_votes: (N, C) votes that masklets carried over from earlier windows bring along; they are added.

    Raises:
        ShapeError: If frames, sizes or classes do not fit together.
        LabelError: If labels lie outside the label space.
        SettingsError: If probabilities are asked for and `base` has none.
    """
    labels, probabilities = base.labels, base.probabilities
    _check_frames(window, labels)
    if vote_weight == "probability":
        probabilities = _check_probabilities(probabilities, label_space)
    all_runs = [decode_runs(rles, window.size) for rles in window.rles]  # some MB, much less than masks

    def count(t: int) -> np.ndarray:
        if vote_weight == "majority":
            return _count(all_runs[t], labels[t], label_space)
        assert probabilities is not None
        label_space.check(labels[t], "base labels")
        return _add_masses(all_runs[t], probabilities[t], labels[t] != label_space.ignore_index)

    frame_classes = np.empty((window.window.length, window.num_masklets), np.int64)
    votes = np.zeros((window.num_masklets, label_space.num_classes), np.int64 if vote_weight == "majority" else float)
    for t in range(window.window.length):
        frame_votes = count(t)
        frame_classes[t] = choose_classes(frame_votes, min_share)
        votes += frame_votes
    if earlier_votes is not None:
        votes += _check_earlier(earlier_votes, votes)
    classes = choose_classes(votes, min_share)
    if vote == "window":
        frame_classes[:] = classes
    return _refinement(base, window, Naming(votes, classes, frame_classes, vote_shares(votes)), all_runs, overlap)


def paint_window(
    base: BaseLabels, window: MaskletWindow, naming: Naming, overlap: OverlapOrder = "small-on-top"
) -> Refinement:
    """Paint masklets whose classes were found in any way over base labels, Eq. 1.

    Args:
        base: Labels of the window's L frames; they show where no masklet is, and where masklets abstain.
        window: N masklets over the same frames.
        naming: Their classes.
        overlap: Which masklet wins where several overlap.

    Raises:
        ShapeError: If frames, sizes or masklets do not fit together.
        LabelError: If a class does not fit the labels' dtype.
    """
    _check_frames(window, base.labels)
    if naming.frame_classes.shape != (window.window.length, window.num_masklets):
        raise ShapeError(
            f"classes are named for {naming.frame_classes.shape} frames and masklets, expected "
            f"({window.window.length}, {window.num_masklets})"
        )
    _check_classes(naming.frame_classes, base.labels.dtype)
    return _refinement(base, window, naming, [decode_runs(rles, window.size) for rles in window.rles], overlap)


def _refinement(
    base: BaseLabels, window: MaskletWindow, naming: Naming, all_runs: list[Runs], overlap: OverlapOrder
) -> Refinement:
    """Paint every frame of a window."""
    order = paint_order(window, overlap)
    refined = np.empty_like(base.labels)
    coverage = np.empty(window.window.length)
    for t, runs in enumerate(all_runs):
        pieces = cut_runs(runs)
        refined[t] = _paint(base.labels[t], pieces, naming.frame_classes[t], order)
        coverage[t] = pieces.num_covered / base.labels[t].size
    return Refinement(
        window=window.window,
        labels=refined,
        base=base.labels,
        votes=naming.scores,
        classes=naming.classes,
        vote_share=naming.confidence,
        coverage=coverage,
        masklets=window,
    )


def _to_columns(labels: np.ndarray) -> np.ndarray:
    """Return a copy of labels (H, W) in column-major order, (H * W,)."""
    return cv2.transpose(labels).reshape(-1)  # 8 times faster than numpy's transposed copy


def _check_frames(window: MaskletWindow, labels: np.ndarray) -> None:
    expected = (window.window.length, *window.size)
    if labels.shape != expected:
        raise ShapeError(
            f"labels have shape {labels.shape}, the masklets are of {expected[0]} frames of size {tuple(window.size)}: "
            "both must come from the same frames at the same resolution"
        )


def _check_classes(classes: np.ndarray, dtype: np.dtype) -> None:
    """Raise `LabelError` unless classes can be written into labels of this dtype; numpy would wrap them."""
    highest = np.iinfo(dtype).max
    if classes.min(initial=0) < ABSTAINED or classes.max(initial=0) > highest:
        raise LabelError(
            f"classes range from {classes.min()} to {classes.max()}, expected {ABSTAINED} to {highest} for labels of "
            f"dtype {dtype}"
        )


def _check_earlier(earlier_votes: np.ndarray, votes: np.ndarray) -> np.ndarray:
    if earlier_votes.shape != votes.shape:
        raise ShapeError(f"earlier votes have shape {earlier_votes.shape}, expected {votes.shape}: masklets x classes")
    return earlier_votes.astype(votes.dtype, copy=False)


def _check_probabilities(probabilities: np.ndarray | None, label_space: LabelSpace) -> np.ndarray:
    if probabilities is None:
        raise SettingsError(
            "the vote weight 'probability' needs class probabilities, and these base labels have none. "
            "Use --vote-weight majority, or a segmenter that gives probabilities."
        )
    if probabilities.shape[1] != label_space.num_classes:
        raise ShapeError(
            f"probabilities have shape {probabilities.shape}, expected {label_space.num_classes} classes on axis 1"
        )
    return probabilities
