"""The frames that a report shows: chosen, shrunk and encoded as data URIs, with the numbers of their clip.

Stands on what `report_data.py` read; frames whose files are missing or damaged are named in the run's warnings.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .files import safe_name
from .report_data import ClipRecord, RunRecord, counted, is_inside, num_masklets, to_number
from .report_labels import LabelSet
from .types import LabelSpace

MAX_WIDTH = 480  # px; ours: 120 frames of three panels then stay under 10 MB
JPEG_QUALITY = 80  # ours: 33 kB for a 480 x 360 street scene
CLIPS_WORTH = 4  # a page holds at most this many times `max_frames` frames, so many clips get fewer frames each
USUAL_PANELS = 3  # base, refined, truth; with more panels a page holds fewer frames
MIN_CLIP_FRAMES = 8  # below this a clip gets no viewer; the page names how many


@dataclass(frozen=True)
class EmbeddedClip:
    """One clip as the page's script wants it.

    Attributes:
        record: The whole clip.
        positions: Which of its frames are shown.
        size: (width, height) of all embedded pictures and label maps.
        frames: One dictionary a frame: data URIs by panel and "picture".
        panels: Keys of the label sets that have a map of any of these frames, in order.
    """

    record: ClipRecord
    positions: tuple[int, ...]
    size: tuple[int, int]
    frames: tuple[Mapping[str, Any], ...]
    panels: tuple[str, ...]


def share_frames(num_clips: int, max_frames: int, num_panels: int = USUAL_PANELS) -> tuple[int, int]:
    """Return how many frames a clip may show and how many clips get a viewer."""
    budget = CLIPS_WORTH * max_frames * USUAL_PANELS // max(USUAL_PANELS, num_panels)
    per_clip = min(max_frames, max(MIN_CLIP_FRAMES, budget // max(1, num_clips)))
    return per_clip, max(1, budget // per_clip)


def thin(num_items: int, limit: int) -> list[int]:
    """Choose at most `limit` of `num_items` positions, evenly and including both ends."""
    if num_items <= limit:
        return list(range(num_items))
    if limit == 1:
        return [0]
    return [round(i * (num_items - 1) / (limit - 1)) for i in range(limit)]


def embed_clip(run: RunRecord, clip: ClipRecord, max_frames: int) -> EmbeddedClip:
    """Read, shrink and encode the chosen frames. Frames without labels of the run itself are left out and named.

    Further label sets are read whole, for their flicker; frames that they lack are named.
    """
    positions = list(range(len(clip.frames)))
    if len(positions) > max_frames:
        with_picture = [i for i in positions if _find_picture(run.folder, clip.name, clip.frames[i])]
        positions = with_picture if len(with_picture) > 1 else positions  # previews may exist for every k-th frame only
        positions = [positions[i] for i in thin(len(positions), max_frames)]
    troubles: Counter[str] = Counter()
    clip = _with_further_flicker(run, clip, troubles)
    strangers: set[int] = set()
    kept: list[int] = []
    frames: list[Mapping[str, Any]] = []
    size = (0, 0)
    for position in positions:
        maps = {
            labels.key: _read_labels(labels, clip, position, Counter() if labels.is_further else troubles)
            for labels in run.label_sets
        }
        refined = maps["refined"]
        if refined is None:
            continue
        if not frames:
            width = min(MAX_WIDTH, refined.shape[1])
            size = (width, max(1, round(refined.shape[0] * width / refined.shape[1])))
        frame: dict[str, Any] = {"name": clip.frames[position], "index": position, "time": clip.times_s[position]}
        for panel, raw in maps.items():
            if raw is not None:
                frame[panel] = _label_uri(raw, run.label_space, size, strangers)
        picture = _find_picture(run.folder, clip.name, clip.frames[position])
        if picture is not None:
            frame["picture"] = _picture_uri(picture, size, troubles)
        kept.append(position)
        frames.append({key: value for key, value in frame.items() if value is not None})
    for trouble, number in troubles.items():
        run.warnings.append(f"{clip.name}: {counted(number, 'frame')} {trouble}.")
    if strangers:
        run.warnings.append(
            f"{clip.name}: labels hold the ids {sorted(strangers)[:10]} that are not in the label set; shown as void."
        )
    panels = tuple(labels.key for labels in run.label_sets if any(labels.key in frame for frame in frames))
    return EmbeddedClip(clip, tuple(kept), size, tuple(frames), panels)


def _with_further_flicker(run: RunRecord, clip: ClipRecord, troubles: Counter[str]) -> ClipRecord:
    """Add the flicker of further label sets to a clip's series, and count the frames that they lack."""
    series = dict(clip.series)
    for labels in run.label_sets:
        if not labels.is_further:
            continue
        if not is_inside(labels.root, folder := labels.folder / safe_name(clip.name)) or not folder.is_dir():
            run.warnings.append(f"{clip.name}: {labels.name} holds no label maps of this clip.")
            continue
        rates = _flicker(run.label_space, labels, clip, troubles)
        if any(rate is not None for rate in rates):
            series[f"flip_{labels.key}"] = rates
    return replace(clip, series=series)


def _flicker(label_space: LabelSpace, labels: LabelSet, clip: ClipRecord, troubles: Counter[str]) -> list[float | None]:
    """Return the fraction of pixels whose class differs from the frame before, as `records.flip_rates` does.

    None for the first frame, and where this frame or the one before has no map or another size.
    """
    rates: list[float | None] = []
    last: np.ndarray | None = None
    for position in range(len(clip.frames)):
        raw = _read_labels(labels, clip, position, troubles)
        now = None if raw is None else _train_ids(raw, label_space)
        is_pair = now is not None and last is not None and now.shape == last.shape
        rates.append(float(np.mean(now != last)) if is_pair else None)
        last = now
    return rates


def _read_labels(labels: LabelSet, clip: ClipRecord, position: int, troubles: Counter[str]) -> np.ndarray | None:
    """Read raw ids, or return None and count the trouble; base labels and truth may be missing."""
    path = labels.folder / safe_name(clip.name) / f"{safe_name(clip.frames[position])}.png"
    if not is_inside(labels.root, path) or not path.is_file():
        if labels.is_further:
            troubles[f"without a label map of {labels.name}"] += 1
        elif labels.key == "refined":
            troubles["named in windows.jsonl, but without a label file; left out"] += 1
        return None
    try:
        with Image.open(path) as image:
            raw = np.array(image)
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for damaged PNG chunks
        troubles[f"with an unreadable file {labels.place}; left out"] += 1
        return None
    if raw.ndim != 2:
        troubles[f"with a colour picture instead of class ids {labels.place}; left out"] += 1
        return None
    return raw


def _label_uri(raw: np.ndarray, label_space: LabelSpace, size: tuple[int, int], strangers: set[int]) -> str:
    """Encode train ids as an opaque PNG of `size`: grey, or (low byte, high byte, 0) for more than 255 classes."""
    rows = (np.arange(size[1]) * raw.shape[0] + raw.shape[0] // 2) // size[1]  # nearest, pixel centres
    columns = (np.arange(size[0]) * raw.shape[1] + raw.shape[1] // 2) // size[0]
    small = raw[rows[:, None], columns]
    strangers.update(set(np.unique(small).tolist()) - set(label_space.raw_ids) - set(label_space.raw_void))
    ids = _train_ids(small, label_space)
    if label_space.dtype == np.uint8:
        return png_uri(ids.astype(np.uint8))
    return png_uri(np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8))


def _train_ids(raw: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Return the classes of raw ids, uint16 of the same shape; what is no class becomes the ignore index."""
    table = np.full(65536, label_space.ignore_index, np.uint16)
    table[list(label_space.raw_ids)] = np.arange(label_space.num_classes)
    return np.asarray(table[raw.astype(np.int64)])


def png_uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _find_picture(run_dir: Path, clip: str, frame: str) -> Path | None:
    path = run_dir / "preview" / safe_name(clip) / f"{safe_name(frame)}.jpg"
    return path if is_inside(run_dir, path) and path.is_file() else None


def _picture_uri(path: Path, size: tuple[int, int], troubles: Counter[str]) -> str | None:
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError):
        troubles["with an unreadable picture in preview/; shown without it"] += 1
        return None
    buffer = io.BytesIO()
    small = rgb if rgb.size == size else rgb.resize(size, Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)  # re-encoded: metadata of the source stays behind
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def clip_data(clip: EmbeddedClip, label_space: LabelSpace, masklet_rows: int) -> tuple[dict[str, Any], int]:
    """Return what the script needs to know about a clip, and the rows left for the masklets of later clips."""
    windows = []
    for window in clip.record.windows:
        masklets = [_masklet_row(masklet, label_space) for masklet in window.get("masklets") or []]
        fits = len(masklets) <= masklet_rows
        masklet_rows -= len(masklets) if fits else 0
        windows.append(
            {
                "start": int(window["start"]),
                "length": len(window.get("frames") or []),
                "masklets": num_masklets(window),
                "rows": masklets if fits else None,
            }
        )
    series = {
        key: [None if value is None else round(value, 5) for value in values]
        for key, values in clip.record.series.items()
    }
    return {
        "name": clip.record.name,
        "total": len(clip.record.frames),
        "size": list(clip.size),
        "panels": list(clip.panels),
        "frames": clip.frames,
        "series": series,
        "windows": windows,
    }, masklet_rows


def _masklet_row(masklet: Mapping[str, Any], label_space: LabelSpace) -> list[Any]:
    """Return [id, train id or name or None, vote share, predicted IoU]; a masklet that abstained has no class."""
    winner = masklet.get("class")
    if isinstance(winner, str):
        winner = label_space.names.index(winner) if winner in label_space.names else winner
    elif not isinstance(winner, int) or not 0 <= winner < label_space.num_classes:
        winner = None
    share, iou = to_number(masklet.get("vote_share")), to_number(masklet.get("predicted_iou"))
    number = to_number(masklet.get("id"))
    return [
        None if number is None else int(number),
        winner,
        None if share is None else round(share, 4),
        None if iou is None else round(iou, 4),
    ]
