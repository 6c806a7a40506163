"""Base labels `S_t` that lie in files: one label PNG per frame, written by any model or by hand.

Finds the maps of a clip, decides once how maps and frames belong together, and refuses what does not fit before a run
starts. What a single map means, class ids or panoptic segments, is left to `datasets/label_maps.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ..datasets.label_forms import check_is_folder
from ..datasets.label_maps import open_label_maps
from ..errors import LabelError, ShapeError
from ..images import image_size
from ..media import natural_key
from ..types import BaseLabels, Frame, LabelSpace

MatchedBy = Literal["name", "order"]


@dataclass(frozen=True)
class _ClipMaps:
    """The label maps of one clip in natural order, and how they belong to its frames."""

    files: tuple[Path, ...]
    matched_by: MatchedBy

    def file_of(self, frame: Frame) -> Path:
        folder = self.files[0].parent
        if self.matched_by == "order":
            if frame.index >= len(self.files):
                raise LabelError(
                    f"frame {frame.index} has no label map: {folder} holds {len(self.files)}, expected one per frame"
                )
            return self.files[frame.index]
        if frame.name not in self._by_stem:
            raise LabelError(f"frame {frame.name} has no label map: {folder / frame.name}.png is missing")
        return self._by_stem[frame.name]

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        return {file.stem: file for file in self.files}


class StoredLabels:
    """Label PNGs as base labels of whole clips.

    Layouts, the first one that holds PNGs counts: `DIR/<clip>/<frame>.png`, `DIR/data/<clip>/mask/<frame>.png` (VSPW),
    and `DIR/<frame>.png` for a single clip. Pixels hold raw ids of the label set, or the folder has one of the panoptic
    forms of `find_label_form`, whose classes are taken and whose instances are not.

    Maps belong to the frames of the same name. When no name matches (always so for videos, whose frames have none) and
    there are as many maps as frames, they belong to the frames in natural order (map2 before map10); `check` returns
    which of the two it was, so that a run can record it.
    """

    def __init__(self, folder: Path, label_space: LabelSpace, id_offset: int | None = None) -> None:
        """Point at a folder of label maps.

        Args:
            folder: The folder.
            label_space: Classes of the labels; see `open_label_maps`.
            id_offset: Added to every stored id; 1 for ids from 0 on where the label set counts from 1 (VSPW). None:
                nothing is known, and ids that look shifted are refused.

        Raises:
            LabelError: If it is no folder, its form is unknown, or its ids look shifted.
            SettingsError: If `id_offset` leaves no ids.
        """
        self.folder = Path(folder)
        self.label_space = label_space
        self._clips: dict[str, _ClipMaps] = {}
        self._flat_clip: str | None = None  # DIR/*.png can only be one clip's
        check_is_folder(self.folder)
        self._maps = open_label_maps(self.folder, label_space, id_offset)

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> MatchedBy:
        """Match a clip's maps with its frames before any work is done; decodes one map, reads the heads of all.

        Args:
            clip_name: Name of the clip.
            frame_names: Names of all its frames (file stems), None for a video.
            num_frames: Number of its frames where there are no names; None if nobody knows, see `finish`.
            frame_size: (H, W) of the frames, if known.

        Returns:
            "name" or "order".

        Raises:
            LabelError: If there are no maps, their count or names do not fit, or the first one holds foreign ids.
            ShapeError: If a map has another size than the frames, or than the first map.
            MediaError: If a file is broken.
        """
        files = self._find(clip_name)
        matched_by = self._match(clip_name, files, frame_names, num_frames)
        size = frame_size or image_size(files[0])
        for file in files:
            found = image_size(file)
            if found != size:
                other = "its frame" if frame_size else files[0].name
                raise ShapeError(
                    f"{file} is {found[0]} x {found[1]} (height x width), but {other} is {size[0]} x {size[1]}: "
                    "label maps must have the size of the frames"
                )
        self._maps.read(files[0], size)
        self._clips[clip_name] = _ClipMaps(files, matched_by)
        return matched_by

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Read the maps of some frames of a clip.

        Without a `check` before, maps are matched by name if all these frames have one of their name, else by order.

        Returns:
            Train ids (L, H, W), no probabilities.

        Raises:
            LabelError: If a frame has no map, or a map holds ids outside the label set.
            ShapeError: If a map has another size than its frame, or there are no frames.
            MediaError: If a file is broken.
        """
        if not frames:
            raise ShapeError("labels_for needs at least one frame, found none")
        if clip_name not in self._clips:
            files = self._find(clip_name)
            named = {frame.name for frame in frames} <= {file.stem for file in files}
            self._clips[clip_name] = _ClipMaps(files, "name" if named else "order")
        clip = self._clips[clip_name]
        maps = [self._maps.read(clip.file_of(frame), frame.image.shape[:2]) for frame in frames]
        return BaseLabels(np.stack(maps))

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Raise `LabelError` if a clip whose length nobody knew before turned out shorter than its label maps."""
        clip = self._clips.get(clip_name)
        if clip is not None and len(clip.files) != num_frames:
            raise LabelError(_wrong_count(clip_name, clip.files, num_frames))

    def _find(self, clip_name: str) -> tuple[Path, ...]:
        folder = self._maps.form.folder
        if not clip_name or Path(clip_name).is_absolute() or ".." in Path(clip_name).parts or "\0" in clip_name:
            raise LabelError(f"{clip_name!r} is no name of a clip: it would lead out of {folder}")
        places = (folder / clip_name, folder / "data" / clip_name / "mask", folder)
        for place in places:
            files = _pngs(place)
            if not files:
                continue
            if place == folder:
                self._flat_clip = self._flat_clip or clip_name
                if self._flat_clip != clip_name:
                    raise LabelError(
                        f"the label maps of clip {clip_name} are missing: {folder} holds PNGs of one clip "
                        f"({self._flat_clip}); expected {places[0]}/*.png"
                    )
            return files
        others = sorted((entry.name for entry in folder.iterdir() if entry.is_dir()), key=natural_key)
        raise LabelError(
            f"clip {clip_name} has no label maps: found no PNG in {', '.join(map(str, places))}. "
            f"{folder} holds the folders {', '.join(others[:8]) or '(none)'}{' ...' * (len(others) > 8)}; "
            "name one like the clip"
        )

    @staticmethod
    def _match(
        clip_name: str, files: tuple[Path, ...], frame_names: Sequence[str] | None, num_frames: int | None
    ) -> MatchedBy:
        stems = {file.stem for file in files}
        if frame_names is None or not stems.intersection(frame_names):
            expected = num_frames if frame_names is None else len(frame_names)
            if expected is not None and expected != len(files):
                raise LabelError(_wrong_count(clip_name, files, expected))
            return "order"
        without_map = [name for name in frame_names if name not in stems]
        without_frame = sorted(stems.difference(frame_names), key=natural_key)
        if without_map or without_frame:
            parts = [
                f"{len(names)} of {total} {what} (first: {names[0]})"
                for names, total, what in (
                    (without_map, len(frame_names), "frames have no label map"),
                    (without_frame, len(files), "label maps have no frame"),
                )
                if names
            ]
            raise LabelError(
                f"the label maps in {files[0].parent} do not fit the frames of clip {clip_name}: {' and '.join(parts)}."
                " Expected one PNG per frame, named like the frame"
            )
        return "name"


def _pngs(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    files = (file for file in folder.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith("."))
    return tuple(sorted(files, key=lambda file: natural_key(file.name)))


def _wrong_count(clip_name: str, files: tuple[Path, ...], num_frames: int) -> str:
    return (
        f"clip {clip_name} has {num_frames} frames, but {files[0].parent} holds {len(files)} label maps "
        f"({files[0].name} .. {files[-1].name}), and their names are not the frames'. Expected one PNG per frame"
    )
