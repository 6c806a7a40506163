"""Data sets as they lie on a disk: which one a folder is, its label set, its splits, and where its videos are.

Nothing is decoded here; `checks.py` looks into the files, `folders.py` reads label maps.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import LabelError, MediaError, SettingsError
from ..images import image_size
from ..types import LabelSpace
from . import vspw
from .folders import natural_key, subfolders
from .label_sets import LABEL_SET_FILE, find_label_space
from .vipseg import NO_TEST_MASKS, VipsegDataset, find_vipseg

SPLITS: Final = ("train", "val", "test")
VIDEOS_FILE: Final = "videos.json"
RUN_FILE: Final = "run.json"
MAX_FRAME_RATE: Final = 1e6  # ours: what is above, or not finite, is no rate
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
LAYOUTS: Final = (
    "ROOT/data/<video>/{origin,mask}/ (VSPW), ROOT/<video>/{origin,mask}/, ROOT/<video>/<frame>.png with "
    "ROOT/label_set.json, or a run folder"
)


@dataclass(frozen=True)
class VideoFolders:
    """Where one video's pictures and label maps lie; None where it has none.

    Attributes:
        frames: Folder of pictures.
        masks: Folder of label maps.
    """

    frames: Path | None
    masks: Path | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set on the disk.

    Attributes:
        name: E.g. "VSPW_480p", "camvid11", or the folder's name.
        root: Its folder.
        folders: Folders of every video by name, in natural order.
        label_space: What the numbers of its label maps mean; None where nothing says so.
        splits: Names of videos by "train", "val", "test", as far as there are lists.
        frame_rates: Frames per second by video, where known.
        notes: What a user should know, one sentence each.
        is_panoptic: Whether its label maps hold VIPSeg's panoptic codes instead of class ids.
        no_test_masks: What to say where its test split comes without label maps; "" where it should have them.
    """

    name: str
    root: Path
    folders: Mapping[str, VideoFolders]
    label_space: LabelSpace | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frame_rates: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_panoptic: bool = False
    no_test_masks: str = ""

    def videos(self, split: str | None = None, needs_masks: bool = False) -> dict[str, VideoFolders]:
        """Return the folders of the videos of a split, in the order of its list; of all videos by default.

        Args:
            split: "train", "val" or "test".
            needs_masks: Whether videos without label maps are an error.

        Raises:
            SettingsError: If there is no list of that name, or it is empty.
            LabelError: If it names videos that are not there, or whose label maps are missing.
        """
        names = tuple(self.folders) if split is None else self._listed(split)
        absent = [name for name in names if name not in self.folders]
        if absent:
            raise LabelError(
                f"{self.root / f'{split}.txt'} lists {len(names)} videos, and {len(absent)} of them are not in "
                f"{self.root} (first: {absent[0]}): fetch them, or take them off the list"
            )
        found = {name: self.folders[name] for name in names}
        without = [name for name, video in found.items() if video.masks is None]
        if needs_masks and without:
            is_test = len(without) == len(found) and split == "test"
            fix = (self.no_test_masks if is_test else "") or "fetch them, or name the videos to score with --only"
            raise LabelError(
                f"{len(without)} of {len(found)} videos {f'of split {split} ' if split else ''}in {self.root} have no "
                f"label maps (first: {without[0]}): {fix}"
            )
        return found

    def _listed(self, split: str) -> tuple[str, ...]:
        if not self.splits.get(split):
            has = f"it has {', '.join(self.splits)}" if self.splits else "it has no lists of videos"
            state = "is empty" if split in self.splits else "does not exist"
            raise SettingsError(f"{self.root / f'{split}.txt'} {state}; {has}. Name a split that is there, or none")
        return self.splits[split]


def find_dataset(root: Path | str, label_set: LabelSpace | Path | str | None = None) -> Dataset:
    """Recognise the data set in a folder.

    Known are VSPW (480p and full size), VIPSeg, run folders, and every folder of videos in VSPW's layout
    (`data/<video>/{origin,mask}`), as `<video>/{origin,mask}` or as `<video>/<frame>.png`. The label set is the one
    given, else `label_set.json` in the folder or beside it, else that of the data set or the run.

    Args:
        root: The folder.
        label_set: Label set that replaces the data set's own, by name, as a file or as it is.

    Raises:
        LabelError: If the folder does not exist, holds no video, or its label set or lists cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise LabelError(f"data set {root} {what}; expected {LAYOUTS}")
    given = label_set if label_set is None or isinstance(label_set, LabelSpace) else find_label_space(label_set)
    if (root / RUN_FILE).is_file():
        return _run_folder(root, given)
    vipseg = find_vipseg(root)
    if vipseg is not None:
        return _vipseg(vipseg, given)
    folders = _find_videos(root)
    if not any(video.frames or video.masks for video in folders.values()):
        raise LabelError(f"no video found in {root}; expected {LAYOUTS}")
    is_vspw = not (root / LABEL_SET_FILE).is_file() and (root / "data").is_dir() and vspw.is_vspw(root)
    label_space = given or _own_label_space(root, is_vspw)
    frame_rates = dict.fromkeys(folders, vspw.FRAME_RATE) if is_vspw else _frame_rates(root)
    notes = []
    if label_space is None:
        notes.append(f"nothing says what the numbers of its label maps mean: pass --label-set, or add {LABEL_SET_FILE}")
    if is_vspw:
        notes.append("VSPW's test split comes without masks")
    return Dataset(
        name=_vspw_name(folders) if is_vspw else (label_space.name if label_space else "") or root.resolve().name,
        root=root,
        folders=folders,
        label_space=label_space,
        splits=_read_splits(root),
        frame_rates=frame_rates,
        notes=tuple(notes),
        no_test_masks=vspw.NO_TEST_MASKS if is_vspw else "",
    )


def _vipseg(found: VipsegDataset, given: LabelSpace | None) -> Dataset:
    frames, masks = found.image_folders, found.mask_folders
    names = sorted({**frames, **masks}, key=natural_key)
    return Dataset(
        name=found.name,
        root=found.root,
        folders={name: VideoFolders(frames.get(name), masks.get(name)) for name in names},
        label_space=given or found.label_space,
        splits=found.splits,
        notes=("its label maps hold panoptic codes, which are turned into classes where they are read",),
        is_panoptic=True,
        no_test_masks=NO_TEST_MASKS,
    )


def _find_videos(root: Path) -> dict[str, VideoFolders]:
    place = root / "data" if subfolders(root / "data") else root
    found = {folder.name: _video_folders(folder) for folder in subfolders(place)}
    if place == root:  # here folders of other things may lie beside the videos
        found = {name: video for name, video in found.items() if video.frames or video.masks}
    return found


def _video_folders(folder: Path) -> VideoFolders:
    frames, masks = folder / "origin", folder / "mask"
    if frames.is_dir() or masks.is_dir():
        return VideoFolders(frames if _has_pictures(frames) else None, masks if _has_pictures(masks) else None)
    files = {path.suffix.lower() for path in visible(folder)}
    return VideoFolders(folder if {".jpg", ".jpeg"} & files else None, folder if ".png" in files else None)


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in PICTURE_SUFFIXES for path in visible(folder))


def visible(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder but hidden files, such as the ._ files that macOS leaves."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _own_label_space(root: Path, is_vspw: bool) -> LabelSpace | None:
    if is_vspw:
        return find_label_space("vspw")
    for place in (root, root.parent):
        if (place / LABEL_SET_FILE).is_file():
            return LabelSpace.from_json(place / LABEL_SET_FILE)
    return None


def _vspw_name(folders: Mapping[str, VideoFolders]) -> str:
    """Tell VSPW_480p from the full-size release by the height of the first picture."""
    for video in folders.values():
        for folder in (video.masks, video.frames):
            for path in sorted(visible(folder))[:1] if folder else []:
                try:
                    return "VSPW_480p" if image_size(path)[0] == vspw.SMALL_HEIGHT else "VSPW"
                except MediaError:  # damaged; what is wrong with it is for `checks.py` to say
                    continue
    return "VSPW"


def _read_splits(root: Path) -> dict[str, tuple[str, ...]]:
    """Read `train.txt`, `val.txt`, `test.txt`: a name a line, with or without a newline after the last one."""
    splits = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise LabelError(f"cannot read the list of videos {path}: {error}") from error
        splits[split] = tuple(name for line in lines if (name := line.strip()))
    return splits


def read_video_facts(root: Path) -> dict[str, dict[str, Any]]:
    """Read `videos.json`: facts by video, such as `fps` and `frames`; empty where there is no such file.

    Raises:
        LabelError: If it is no such file.
    """
    path = root / VIDEOS_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return {str(name): dict(facts) for name, facts in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LabelError(
            f'{path} cannot be read ({error}); expected {{"VIDEO": {{"fps": 15, "frames": 51}}}}'
        ) from error


def _frame_rates(root: Path) -> dict[str, float]:
    facts = read_video_facts(root)
    rates = {name: entry.get("fps") for name, entry in facts.items()}
    return {
        name: float(rate)
        for name, rate in rates.items()
        if isinstance(rate, int | float) and 0 < rate <= MAX_FRAME_RATE
    }


def _run_folder(root: Path, given: LabelSpace | None) -> Dataset:
    """A run folder as a data set: its refined labels are the label maps."""
    try:
        content = json.loads((root / RUN_FILE).read_text(encoding="utf-8"))
        own = given or LabelSpace.from_dict(content["label_set"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, LabelError) as error:
        raise LabelError(f"{root / RUN_FILE} cannot be read as that of a run ({error!r})") from error
    folders = {folder.name: VideoFolders(None, folder) for folder in subfolders(root / "labels")}
    if not folders:
        raise LabelError(f"{root} is a run folder without finished labels (no folder in {root / 'labels'})")
    in_order = dict(sorted(folders.items(), key=lambda item: natural_key(item[0])))
    return Dataset(root.resolve().name, root, in_order, own, notes=("a run folder: its label maps are refined labels",))
