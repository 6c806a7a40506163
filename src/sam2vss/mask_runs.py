"""Masks as runs of pixels, so that work on many masks costs time per run and not per pixel.

COCO RLE stores a mask as lengths of runs in column-major order. Here the masks of one frame are decoded together, by
whole-array operations, and cut where other runs or labels begin. `voting.py` votes and paints on these pieces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ShapeError

_MAX_DIGITS = 7  # base-32 digits of a run length below 2**31, sign included


@dataclass(frozen=True, eq=False)
class Runs:
    """The foreground runs of the N masks of one frame, ordered by mask and position.

    Positions are column-major: pixel (y, x) has position x * H + y, and a run may go on into the next column.

    Attributes:
        starts: First position of each run, int64 (R,).
        stops: Position after the last one, int64 (R,).
        owners: Mask of each run, int64 (R,), ascending.
        num_masks: N; masks without a run are empty.
        size: (H, W) of the frame.
    """

    starts: np.ndarray
    stops: np.ndarray
    owners: np.ndarray
    num_masks: int
    size: tuple[int, int]

    @property
    def areas(self) -> np.ndarray:
        """Mask areas in pixels, int64 (N,)."""
        return np.bincount(self.owners, self.stops - self.starts, self.num_masks).astype(np.int64)

    def select(self, first: int, stop: int) -> "Runs":
        """Return the runs of the masks `first` to `stop` (not included), renumbered from 0."""
        stop = max(first, min(stop, self.num_masks))
        chosen = slice(*np.searchsorted(self.owners, [first, stop]))
        return Runs(self.starts[chosen], self.stops[chosen], self.owners[chosen] - first, stop - first, self.size)


@dataclass(frozen=True, eq=False)
class Pieces:
    """Runs cut into pieces, each of which fills one of S segments that tile the frame.

    Attributes:
        bounds: Segment s covers the positions bounds[s] to bounds[s + 1], int64 (S + 1,), ascending from 0 to H * W.
        segments: Segment of each piece, int64 (P,).
        owners: Mask of each piece, int64 (P,).
    """

    bounds: np.ndarray
    segments: np.ndarray
    owners: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Length of each segment in pixels, int64 (S,)."""
        lengths: np.ndarray = np.diff(self.bounds)
        return lengths

    @property
    def num_covered(self) -> int:
        """Number of pixels inside at least one mask."""
        is_covered = np.zeros(len(self.bounds) - 1, bool)
        is_covered[self.segments] = True
        return int(self.lengths[is_covered].sum())


def decode_runs(rles: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Runs:
    """Decode compressed COCO RLE masks of one frame, all at once.

    Args:
        rles: N masks {"size": [H, W], "counts": bytes or str}.
        size: (H, W) of the frame.

    Raises:
        ShapeError: If a mask is no RLE of H * W pixels.

    Source: `rleFrString` of the COCO API. A count is a sequence of base-32 digits, lowest first, each the low 5 bits of
    a byte minus 48; bit 6 says that another digit follows, and the last digit's highest bit is the sign. From the
    fourth count of a mask on, the difference to the count two before is stored.
    """
    strings = [rle["counts"] for rle in rles]
    packed = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text for text in strings]
    data = np.frombuffer(b"".join(packed), np.uint8) - np.uint8(48)
    string_stops = np.cumsum([len(text) for text in packed], dtype=np.int64)
    lasts = np.flatnonzero(data & 0x20 == 0)  # last digit of each count
    value_stops = np.searchsorted(lasts, string_stops)  # counts before the end of each string
    is_cut_short = (string_stops == 0) | (data[string_stops - 1] & 0x20 != 0) if len(data) else string_stops == 0
    if (data >= 64).any() or is_cut_short.any() or (len(lasts) and np.diff(lasts, prepend=-1).max() > _MAX_DIGITS):
        raise ShapeError("a mask is not compressed COCO RLE: its counts end too early or hold foreign characters")

    counts = _read_numbers(data, lasts)
    num_values = np.diff(value_stops, prepend=0)
    indices = np.arange(len(counts)) - np.repeat(value_stops - num_values, num_values)  # of each count in its mask
    is_foreground = indices & 1 == 1
    _undo_differences(counts, np.flatnonzero(is_foreground), num_values // 2)
    _undo_differences(counts, np.flatnonzero(~is_foreground & (indices > 0)), np.maximum(num_values - 1, 0) // 2)

    num_pixels = size[0] * size[1]
    ends = np.cumsum(counts)  # counted on from mask to mask
    totals = np.diff(ends[value_stops - 1], prepend=0) if len(counts) else np.zeros(0, np.int64)
    is_wrong = totals != num_pixels
    if is_wrong.any():
        i = int(is_wrong.argmax())
        raise ShapeError(f"mask {i} has runs of {totals[i]} pixels in total, expected {num_pixels} for size {size}")
    if counts.min(initial=0) < 0:
        raise ShapeError("a mask is not COCO RLE: it holds runs of negative length")
    owners = np.repeat(np.arange(len(rles)), num_values // 2)
    chosen = is_foreground & (counts > 0)
    owners = owners[counts[is_foreground] > 0]
    stops = ends[chosen] - owners * num_pixels
    return Runs(stops - counts[chosen], stops, owners, len(rles), size)


def _read_numbers(data: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """Join base-32 digits to signed numbers, int64, one per entry of `lasts`."""
    firsts = np.concatenate([[0], lasts[:-1] + 1])[: len(lasts)]
    num_digits = lasts - firsts + 1
    numbers: np.ndarray = (data[firsts] & 0x1F).astype(np.int64)
    for digit in range(1, num_digits.max(initial=1)):
        longer = np.flatnonzero(num_digits > digit)
        numbers[longer] |= (data[firsts[longer] + digit] & 0x1F).astype(np.int64) << (5 * digit)
    negative = np.flatnonzero(data[lasts] & 0x10)
    numbers[negative] -= np.int64(1) << (5 * num_digits[negative])
    return numbers


def _undo_differences(counts: np.ndarray, chosen: np.ndarray, per_mask: np.ndarray) -> None:
    """Replace the chosen entries, `per_mask` of them for each mask, by their running sums within the mask."""
    sums = np.concatenate([[0], np.cumsum(counts[chosen])])
    before = sums[np.cumsum(per_mask) - per_mask]
    counts[chosen] = sums[1:] - np.repeat(before, per_mask)


def cut_runs(runs: Runs, flat: np.ndarray | None = None) -> Pieces:
    """Cut runs wherever a run of any mask begins or ends, and where the values of `flat` change.

    Args:
        runs: The masks of one frame.
        flat: Values of all pixels in column-major order, (H * W,); every segment then holds one value.
    """
    num_pixels = runs.size[0] * runs.size[1]
    is_bound = np.zeros(num_pixels + 1, bool)
    if flat is not None:
        np.not_equal(flat[1:], flat[:-1], out=is_bound[1:-1])
    is_bound[runs.starts] = True
    is_bound[runs.stops] = True
    is_bound[[0, -1]] = True
    bounds = np.flatnonzero(is_bound)
    segment_at = np.empty(num_pixels + 1, np.int32)  # looked up at bounds only
    segment_at[bounds] = np.arange(len(bounds), dtype=np.int32)
    first = segment_at[runs.starts].astype(np.int64)
    num_pieces = segment_at[runs.stops] - first
    offsets = np.cumsum(num_pieces) - num_pieces
    segments = np.arange(num_pieces.sum()) + np.repeat(first - offsets, num_pieces)
    return Pieces(bounds, segments, np.repeat(runs.owners, num_pieces))


def pool_runs(runs: Runs, grid: tuple[int, int], is_counted: np.ndarray | None = None) -> np.ndarray:
    """Pool masks to a coarser (or finer) grid, so that products with maps on that grid can be summed there.

    This is the adjoint of a bilinear resize from the grid to the frame (pixel centres at half integers, edges
    repeated, no antialiasing): for every map M on the grid, `(pooled[i] * M).sum()` equals the sum of the resized M
    over the pixels of mask i.

    Args:
        runs: The masks of one frame of size (H, W).
        grid: (h, w).
        is_counted: Pixels that take part, bool (H, W); None means all.

    Returns:
        float64 (N, h, w); entry sums are the mask areas.
    """
    height, width = runs.size
    return _pool(runs, _bilinear_taps(height, grid[0]), _bilinear_taps(width, grid[1]), grid, is_counted)


def pool_areas(runs: Runs, grid: tuple[int, int]) -> np.ndarray:
    """Return how much of every mask lies in each cell of a grid that is stretched over the frame.

    A pixel on the border of cells counts in each with the share of its area that lies there.

    Args:
        runs: The masks of one frame of size (H, W).
        grid: (h, w).

    Returns:
        Areas in pixels, float64 (N, h, w); entry sums are the mask areas.
    """
    height, width = runs.size
    return _pool(runs, _area_taps(height, grid[0]), _area_taps(width, grid[1]), grid, None)


_Taps = tuple[
    np.ndarray, np.ndarray
]  # the cells that each pixel of an axis belongs to, int64 (K, P), and their weights


def _pool(
    runs: Runs, row_taps: _Taps, column_taps: _Taps, grid: tuple[int, int], is_counted: np.ndarray | None
) -> np.ndarray:
    """Add up the weights of every mask's pixels by cell, float64 (N, h, w)."""
    height, width = runs.size
    # A value that changes at every column, so that pieces end with their column; the lowest bit says who is counted.
    flat = np.repeat(np.arange(width, dtype=np.uint8) % 2 * 2, height)
    flat |= 1 if is_counted is None else is_counted.T.reshape(-1)
    pieces = cut_runs(runs, flat)
    is_kept = flat[pieces.bounds[pieces.segments]] & 1 == 1
    segments, owners = pieces.segments[is_kept], pieces.owners[is_kept]

    columns, tops = np.divmod(pieces.bounds[segments], height)
    bottoms = tops + pieces.lengths[segments]
    row_cells, row_weights = row_taps
    sums = np.zeros((height + 1, grid[0]))  # sums[y] = weight that pixel rows 0..y-1 give to each grid row
    for cells_of_tap, weights_of_tap in zip(row_cells, row_weights, strict=True):
        sums[np.arange(height) + 1, cells_of_tap] += weights_of_tap
    sums = sums.cumsum(axis=0)

    first_rows = row_cells[0][tops]
    num_rows = row_cells[-1][bottoms - 1] - first_rows + 1
    offsets = np.cumsum(num_rows) - num_rows
    piece = np.repeat(np.arange(len(segments)), num_rows)  # one entry per piece and grid row it touches
    rows = np.arange(len(piece)) + (first_rows - offsets)[piece]
    weights = sums[bottoms[piece], rows] - sums[tops[piece], rows]
    cells = (owners[piece] * grid[0] + rows) * grid[1]
    pooled = np.zeros(runs.num_masks * grid[0] * grid[1])
    for cells_of_tap, weights_of_tap in zip(*column_taps, strict=True):
        pooled += np.bincount(
            cells + cells_of_tap[columns][piece], weights * weights_of_tap[columns][piece], len(pooled)
        )
    return pooled.reshape(runs.num_masks, *grid)


def _bilinear_taps(num_pixels: int, num_cells: int) -> _Taps:
    """Return the two cells that each pixel of an axis is interpolated from, and their weights."""
    positions = ((np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5).clip(0, num_cells - 1)
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, num_cells - 1)
    return np.stack([lower, upper]), np.stack([1 - (positions - lower), positions - lower])


def _area_taps(num_pixels: int, num_cells: int) -> _Taps:
    """Return the cells that each pixel of an axis lies in, and the share of the pixel in each.

    In units in which a pixel is `num_cells` and a cell `num_pixels` long all borders are whole numbers.
    """
    starts = np.arange(num_pixels) * num_cells
    cells = starts // num_pixels + np.arange(num_cells // num_pixels + 2)[:, None]
    overlaps = np.minimum(starts + num_cells, (cells + 1) * num_pixels) - np.maximum(starts, cells * num_pixels)
    is_inside = (overlaps > 0) & (cells < num_cells)
    last = (starts + num_cells - 1) // num_pixels  # cells beyond it repeat it, with weight 0
    return np.minimum(cells, last), np.where(is_inside, overlaps, 0) / num_cells


def mask_boxes(runs: Runs) -> np.ndarray:
    """Return the box of every mask in pixels, int64 (N, 4): x0, y0, x1, y1, half-open; zeros for empty masks."""
    height, _ = runs.size
    first_columns, tops = np.divmod(runs.starts, height)
    last_columns, bottoms = np.divmod(runs.stops - 1, height)
    spans = first_columns != last_columns  # goes over the bottom of a column: touches both edges
    edges = (
        (first_columns, np.minimum),
        (np.where(spans, 0, tops), np.minimum),
        (last_columns + 1, np.maximum),
        (np.where(spans, height, bottoms + 1), np.maximum),
    )
    boxes = np.zeros((runs.num_masks, 4), np.int64)
    owners, firsts = np.unique(runs.owners, return_index=True)  # ascending, so each mask's runs lie together
    for side, (values, reduce) in enumerate(edges):
        if len(owners):
            boxes[owners, side] = reduce.reduceat(values, firsts)
    return boxes


def label_runs(labels: np.ndarray, num_masks: int) -> Runs:
    """Turn a map of mask numbers into runs; no mask overlaps another.

    Args:
        labels: Integers (H, W): the mask 0..N-1 that a pixel belongs to, or a negative number for none.
        num_masks: N; masks that no pixel belongs to are empty.
    """
    height, width = labels.shape
    flat = np.ascontiguousarray(labels.T).reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])[: flat.size]
    stops = np.append(starts[1:], flat.size)[: len(starts)]
    owners = flat[starts].astype(np.int64)
    order = np.argsort(owners, kind="stable")
    order = order[np.count_nonzero(owners < 0) :]
    return Runs(starts[order], stops[order], owners[order], num_masks, (height, width))


def encode_runs(runs: Runs) -> tuple[dict[str, Any], ...]:
    """Compress the masks of one frame to COCO RLE, all at once; the inverse of `decode_runs`.

    Args:
        runs: Masks whose runs do not touch one another within a mask, as `label_runs` and `decode_runs` give them for
            masks that were encoded without empty runs.

    Returns:
        One dict {size, counts} a mask, equal to what pycocotools gives for the same mask.

    Source: `rleEncode` and `rleToString` of the COCO API; see `decode_runs` for the format.
    """
    num_pixels = runs.size[0] * runs.size[1]
    num_runs = np.bincount(runs.owners, minlength=runs.num_masks)
    last_runs = np.cumsum(num_runs) - 1
    has_runs = num_runs > 0
    ends = np.zeros(runs.num_masks, np.int64)  # where the last run of each mask stops
    ends[has_runs] = runs.stops[last_runs[has_runs]]
    has_tail = ends < num_pixels  # a last count of background
    num_counts = 2 * num_runs + has_tail
    count_stops = np.cumsum(num_counts)

    counts = np.empty(count_stops[-1] if len(count_stops) else 0, np.int64)
    gaps = runs.starts.copy()
    gaps[1:] -= np.where(runs.owners[1:] == runs.owners[:-1], runs.stops[:-1], 0)
    num_tails: np.ndarray = np.cumsum(has_tail) - has_tail  # of the masks before
    places = 2 * np.arange(len(gaps)) + num_tails[runs.owners]
    counts[places] = gaps
    counts[places + 1] = runs.stops - runs.starts
    counts[count_stops[has_tail] - 1] = num_pixels - ends[has_tail]

    numbers = counts.copy()
    indices = np.arange(len(counts)) - np.repeat(count_stops - num_counts, num_counts)  # of each count in its mask
    differs = np.flatnonzero(indices > 2)
    numbers[differs] -= counts[differs - 2]
    data, number_stops = _write_numbers(numbers)
    string_stops = np.concatenate([[0], number_stops])[count_stops].tolist()
    size = [int(side) for side in runs.size]
    starts = [0, *string_stops]
    return tuple({"size": list(size), "counts": data[a:b]} for a, b in zip(starts, string_stops, strict=False))


def _write_numbers(numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Write signed numbers as base-32 digits, lowest first; return the text and where each number stops in it."""
    magnitudes = np.where(numbers < 0, ~numbers, numbers)  # a number and its complement need as many digits
    num_digits = np.ones(len(numbers), np.int64)
    for digit in range(1, _MAX_DIGITS):
        num_digits += magnitudes >= 1 << (5 * digit - 1)  # the highest bit of the last digit is the sign
    stops = np.cumsum(num_digits)
    firsts = stops - num_digits
    data = np.empty(stops[-1] if len(stops) else 0, np.uint8)
    for digit in range(num_digits.max(initial=0)):
        chosen = np.flatnonzero(num_digits > digit)
        has_more = (num_digits[chosen] > digit + 1).astype(np.uint8) << 5
        data[firsts[chosen] + digit] = ((numbers[chosen] >> (5 * digit)) & 0x1F).astype(np.uint8) + has_more + 48
    return data.tobytes(), stops
