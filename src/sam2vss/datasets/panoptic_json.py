"""The lists of segments of the COCO panoptic form for videos: `panoptic_gt_*.json` and `pred.json`, in and out.

    {"categories": [{"id", "name", "isthing", "color"?}], "videos": [{"video_id", "images": [...]}],
     "annotations": [{"video_id", "annotations": [{"file_name", "segments_info": [{"id", "category_id", "iscrowd"}]}]}]}

VIPSeg's conversion writes all of it, DVIS, DVIS++ and CAVIS write "annotations" alone. The files come from strangers,
and their names become paths, so names that would lead out of a folder are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import LabelError
from ..types import WIDE_IGNORE_INDEX, LabelSpace, voc_palette
from .panoptic_codes import MAX_SEGMENT_ID, FrameSegments

MAX_NAME_BYTES = 255  # of one part of a path, on the usual file systems
FORM = (
    '{"annotations": [{"video_id": ..., "annotations": [{"file_name": ..., "segments_info": [{"id": ..., '
    '"category_id": ...}]}]}]} (VIPSeg, DVIS, DVIS++, CAVIS)'
)


@dataclass(frozen=True, eq=False)
class PanopticFile:
    """What such a file lists.

    Attributes:
        path: The file.
        label_space: Its categories; None where it has none.
        frames: Segments by video and frame (file stem), in the file's order.
        sizes: (H, W) by video and frame, as far as "videos" says so.
    """

    path: Path
    label_space: LabelSpace | None
    frames: Mapping[str, Mapping[str, FrameSegments]]
    sizes: Mapping[str, Mapping[str, tuple[int, int]]]


def read_panoptic_json(path: Path) -> PanopticFile:
    """Read the segments of all frames.

    Raises:
        LabelError: If the file cannot be read, has another form, lists a video or frame twice, a segment with two
            categories or an image without annotations, or a name would lead out of its folder.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelError(f"cannot read the panoptic JSON {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not valid JSON ({error}); write or fetch it again") from error
    try:
        categories = content.get("categories")
        frames = _read_frames(content["annotations"])
        images = _read_images(content.get("videos", ()))
        _check_annotated(images, frames)
        return PanopticFile(
            path=Path(path),
            label_space=None if categories is None else _label_space(categories, Path(path).stem),
            frames=frames,
            sizes={
                video: {stem: size for stem, size in sizes.items() if size is not None}
                for video, sizes in images.items()
            },
        )
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LabelError(
            f"{path} is no panoptic JSON of videos ({type(error).__name__}: {error}); expected {FORM}"
        ) from error


def panoptic_json(
    frames: Mapping[str, Mapping[str, FrameSegments]],
    label_space: LabelSpace | None = None,
    sizes: Mapping[str, Mapping[str, tuple[int, int]]] | None = None,
) -> dict[str, Any]:
    """Return what `read_panoptic_json` reads: with categories and sizes the truth's form, without that of predictions.

    Args:
        frames: Segments by video and frame (file stem).
        label_space: Its raw ids are the categories.
        sizes: (H, W) by video and frame.
    """
    content: dict[str, Any] = {}
    if sizes is not None:
        content["videos"] = [
            {
                "video_id": video,
                "images": [
                    {"id": stem, "file_name": f"{stem}.png", "height": height, "width": width}
                    for stem, (height, width) in images.items()
                ],
            }
            for video, images in sizes.items()
        ]
    content["annotations"] = [
        {
            "video_id": video,
            "annotations": [
                {"image_id": stem, "file_name": f"{stem}.png", "segments_info": _segments_info(segments)}
                for stem, segments in listed.items()
            ],
        }
        for video, listed in frames.items()
    ]
    if label_space is not None:
        content["categories"] = [
            {"id": raw_id, "name": name, "isthing": int(kind == "thing"), "color": color.tolist()}
            for raw_id, name, kind, color in zip(
                label_space.raw_ids, label_space.names, label_space.kinds, label_space.palette, strict=True
            )
        ]
    return content


def check_name(name: Any, what: str) -> str:
    """Return the name of a video or file if it is one plain part of a path, else raise `LabelError`."""
    text = str(name)
    is_text = isinstance(name, str | int) and not isinstance(name, bool)
    if not is_text or text in ("", ".", "..") or any(char in text for char in "/\\\0") or PurePath(text).drive:
        raise LabelError(f"{what} {text[:100]!r} is no plain name: it must stay in its folder (no slashes, no ..)")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise LabelError(
            f"{what} {text[:40] + '...'!r} has a name of {len(text)} characters, and no file has more than "
            f"{MAX_NAME_BYTES}: write the file again"
        )
    return text


def _segments_info(segments: FrameSegments) -> list[dict[str, int]]:
    rows = zip(segments.ids.tolist(), segments.categories.tolist(), segments.is_crowd.tolist(), strict=True)
    entries = [{"id": row[0], "category_id": row[1], "iscrowd": int(row[2])} for row in rows]
    if segments.areas is not None:
        for entry, area in zip(entries, segments.areas.tolist(), strict=True):
            entry["area"] = area
    return entries


def _read_frames(annotations: Any) -> dict[str, dict[str, FrameSegments]]:
    frames: dict[str, dict[str, FrameSegments]] = {}
    for entry in annotations:
        video = check_name(entry["video_id"], "the video")
        if video in frames:
            raise LabelError(f"video {video!r} is listed twice; keep one of them")
        frames[video] = {}
        for frame in entry["annotations"]:
            stem = _stem(frame["file_name"] if "file_name" in frame else frame["image_id"])
            if stem in frames[video]:
                raise LabelError(f"frame {stem!r} of video {video!r} is listed twice; keep one of them")
            frames[video][stem] = _segments(frame["segments_info"], f"{video}/{stem}")
    return frames


def _segments(entries: Any, where: str) -> FrameSegments:
    listed: dict[int, tuple[int, bool]] = {}
    for entry in entries:
        segment_id, category = _integer(entry["id"], where), _integer(entry["category_id"], where)
        found = (category, _flag(entry.get("iscrowd", 0)))
        if not 1 <= segment_id <= MAX_SEGMENT_ID:
            raise LabelError(f"{where} lists segment {segment_id}, expected 1..{MAX_SEGMENT_ID} (0 is void)")
        if listed.setdefault(segment_id, found) != found:
            raise LabelError(f"{where} lists segment {segment_id} twice, with different categories")
    ids = sorted(listed)
    return FrameSegments(
        np.array(ids, np.int64),
        np.array([listed[segment_id][0] for segment_id in ids], np.int64),
        np.array([listed[segment_id][1] for segment_id in ids], bool),
    )


def _read_images(videos: Any) -> dict[str, dict[str, tuple[int, int] | None]]:
    """Return (H, W) of the images that "videos" lists, None where it does not say."""
    return {
        check_name(video["video_id"], "the video"): {
            _stem(image["file_name"]): (
                (_integer(image["height"]), _integer(image["width"]))
                if "height" in image and "width" in image
                else None
            )
            for image in video["images"]
        }
        for video in videos
    }


def _check_annotated(
    images: Mapping[str, Mapping[str, object]], frames: Mapping[str, Mapping[str, FrameSegments]]
) -> None:
    """Refuse images without annotations: they would not be scored, and nobody would notice."""
    without = [
        f"{video}/{stem}" for video, stems in images.items() for stem in stems if stem not in frames.get(video, {})
    ]
    if without:
        raise LabelError(
            f'"videos" lists {len(without)} images that have no annotations (first: {without[0]}): write the file again'
        )


def _label_space(categories: Any, name: str) -> LabelSpace:
    palette = voc_palette(len(categories) + 1)[1:]
    raw_ids = tuple(_integer(category["id"]) for category in categories)
    return LabelSpace(
        names=tuple(str(category["name"]) for category in categories),
        palette=np.array([category.get("color", palette[i].tolist()) for i, category in enumerate(categories)]),
        raw_ids=raw_ids,
        raw_void=(next(i for i in range(WIDE_IGNORE_INDEX, -1, -1) if i not in raw_ids),),
        kinds=tuple("thing" if category["isthing"] else "stuff" for category in categories),
        name=name,
    )


def _stem(file_name: Any) -> str:
    return check_name(PurePath(check_name(file_name, "the frame")).stem, "the frame")


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise TypeError(f"found iscrowd {value!r}, expected 0 or 1")
    return bool(value)


def _integer(value: Any, where: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"found {value!r}, expected an integer{' in ' * bool(where)}{where}")
    return value
