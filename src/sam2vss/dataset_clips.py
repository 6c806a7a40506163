"""The clips of a data set that a bench runs on: frames, truth and classes, by split or by name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .datasets.catalogue import Dataset, VideoFolders, find_dataset
from .datasets.folders import find_frames, read_ids
from .datasets.panoptic_codes import decode_vipseg
from .errors import MediaError, SettingsError
from .files import safe_name
from .images import read_label_map
from .media import ImageClip, open_clip
from .types import LabelSpace

DEFAULT_SPLIT = "val"  # the paper scores the validation sets of VSPW and VIPSeg
MAX_NAMES = 5  # how many offenders a message lists


@dataclass(frozen=True, eq=False)
class DatasetClips:
    """Clips with truth.

    Attributes:
        root: Folder of the data set, truth and frames alike.
        name: Name of the data set.
        label_space: What the truth's numbers mean.
        clips: Clips to refine and score.
        split: Name of the split, "" if all clips were to choose from.
        is_subset: Whether clips of the split were left out by name.
        masks: Folder of the truth's label maps by clip.
        is_panoptic: Whether they hold VIPSeg's panoptic codes instead of class ids.
    """

    root: Path
    name: str
    label_space: LabelSpace
    clips: tuple[ImageClip, ...] = field(repr=False)
    split: str = ""
    is_subset: bool = False
    masks: Mapping[str, Path] = field(default_factory=dict, repr=False)
    is_panoptic: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(clip.name for clip in self.clips)

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return sum(clip.num_frames_estimate or 0 for clip in self.clips)

    @property
    def height_px(self) -> int | None:
        """Height of the frames, None where clips differ."""
        heights = {clip.size[0] for clip in self.clips}
        return heights.pop() if len(heights) == 1 else None

    def truth_files(self, clip: str) -> dict[str, Path]:
        """Return the label maps of a clip's truth by frame, in natural order."""
        return find_frames(self.masks[clip])

    def read_truth(self, path: Path) -> np.ndarray:
        """Read a label map of the truth as train ids, (H, W)."""
        if self.is_panoptic:
            return decode_vipseg(read_ids(path), self.label_space, str(path)).semantic
        return read_label_map(path, self.label_space)

    @property
    def title(self) -> str:
        """Name, split, and which part of it, for tables."""
        parts = [self.name, self.split] if self.split else [self.name]
        if self.is_subset:
            named = ", ".join(self.names) if len(self.names) <= 2 else f"{len(self.names)} clips by name"
            parts.append(f"({named})")
        return " ".join(parts)


def find_dataset_clips(
    root: Path, split: str | None = None, only: Collection[str] = (), label_space: LabelSpace | None = None
) -> DatasetClips:
    """Find the clips of a data set, in the order of its list.

    Args:
        root: Its folder.
        split: Name of a list of clips, such as "val"; None takes "val" where there is such a list, else all clips;
            where clips are named, all clips.
        only: Names of the clips to take; all others are left out.
        label_space: What the truth's numbers mean; default: the data set's own.

    Raises:
        LabelError: If the folder is no data set, or clips of the list are not there or have no truth.
        MediaError: If a clip has no pictures.
        SettingsError: If the split or a named clip is unknown, or the classes are.
    """
    dataset = find_dataset(root, label_space)
    if dataset.label_space is None:
        raise SettingsError(f"nothing in {root} says what the numbers of its label maps mean: pass --label-set FILE")
    if split is None and not only and DEFAULT_SPLIT in dataset.splits:
        split = DEFAULT_SPLIT
    listed = dataset.videos(split)
    _check_named(dataset, split, listed, only)
    wanted = [name for name in listed if name in only] if only else list(listed)
    chosen = replace(dataset, folders={name: listed[name] for name in wanted}).videos(needs_masks=True)
    clips = tuple(_open(name, folders) for name, folders in chosen.items())
    return DatasetClips(
        root=Path(root),
        name=dataset.name,
        label_space=dataset.label_space,
        clips=clips,
        split=split or "",
        is_subset=len(clips) < len(listed),
        masks={name: folders.masks for name, folders in chosen.items() if folders.masks is not None},
        is_panoptic=dataset.is_panoptic,
    )


def list_clips(data: DatasetClips) -> str:
    """Return the content of a list of clips as `find_clips` reads it, a folder a line."""
    folders = [clip.path.parent if clip.path.name == "origin" else clip.path for clip in data.clips]
    return "".join(f"{folder.resolve()}\n" for folder in folders)


def _open(name: str, folders: VideoFolders) -> ImageClip:
    if folders.frames is None:
        raise MediaError(f"clip {name} has label maps in {folders.masks} and no pictures: bench needs both")
    clip = open_clip(folders.frames)
    assert isinstance(clip, ImageClip)
    if safe_name(name) != name:
        raise MediaError(f"the folder name {name!r} of a clip cannot be kept on every system: rename it")
    return replace(clip, name=name)


def _check_named(
    dataset: Dataset, split: str | None, listed: Mapping[str, VideoFolders], only: Collection[str]
) -> None:
    unknown = [name for name in only if name not in listed]
    if unknown:
        place = f"split {split} of {dataset.root}" if split else str(dataset.root)
        raise SettingsError(
            f"{len(unknown)} of {len(only)} named clips are not in {place} ({_shown(unknown)}); it has {_shown(listed)}"
        )


def _shown(names: Collection[str]) -> str:
    return ", ".join(list(names)[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
