"""What is special about VIPSeg as it is distributed, raw and after its own conversion to 720p and the COCO form.

Raw: `imgs/<video>/<frame>.jpg`, `panomasks/<video>/<frame>.png` (panoptic code, 16 bits), `train.txt`, `val.txt`,
`test.txt`; the test videos come without masks. `change2_720p.py` writes `VIPSeg_720P/{images,panomasks}`, and
`create_panoptic_video_labels.py` adds `panomasksRGB` and `panoptic_gt_VIPSeg.json`, which `splitjson.py` splits. The
lists of videos stay one folder higher.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np

from ..errors import LabelError, SettingsError
from ..types import LabelSpace
from .folders import find_label_folders, natural_key, read_ids, subfolders
from .label_sets import find_label_space
from .panoptic_codes import PanopticMap, decode_vipseg

SPLITS: Final = ("train", "val", "test")
CODE_FOLDER: Final = "panomasks"
SEGMENT_FOLDER: Final = "panomasksRGB"
SMALL_FOLDER: Final = "VIPSeg_720P"
CATEGORY_LIST: Final = "panoVIPSeg_categories.json"
NO_TEST_MASKS: Final = "VIPSeg's test split is distributed without masks: take the split val"

Form = Literal["raw", "720p"]


@dataclass(frozen=True, eq=False)
class VipsegDataset:
    """VIPSeg on the disk.

    Attributes:
        root: Folder that holds `panomasks`.
        form: "raw" (pictures in `imgs`, any size) or "720p" (pictures in `images`).
    """

    root: Path
    form: Form

    @property
    def name(self) -> str:
        return "VIPSeg" if self.form == "raw" else SMALL_FOLDER

    @property
    def label_space(self) -> LabelSpace:
        """Classes 1..124 and void 0, as the panoptic codes have them."""
        return find_label_space("vipseg")

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Names of the videos of "train", "val" and "test", as far as there are lists, here or one folder higher.

        Raises:
            LabelError: If a list cannot be read or names a video twice.
        """
        return read_splits(self.root)

    @cached_property
    def mask_folders(self) -> dict[str, Path]:
        """Folder of panoptic codes by video, in natural order."""
        return {folder.name: folder for folder in subfolders(self.root / CODE_FOLDER)}

    @cached_property
    def image_folders(self) -> dict[str, Path]:
        """Folder of pictures by video, in natural order; test videos are among them."""
        return {folder.name: folder for folder in subfolders(self.root / ("imgs" if self.form == "raw" else "images"))}

    def videos(self, split: str | None = None) -> dict[str, dict[str, Path]]:
        """Return the label maps of every video by frame, in natural order; all videos with masks by default.

        Raises:
            SettingsError: If there is no list of that name.
            LabelError: If a listed video, or the label map of a picture, is missing.
        """
        found = find_label_folders(self.root / CODE_FOLDER)
        names = tuple(found) if split is None else select_split(self.splits, split, self.root)
        absent = [name for name in names if not found.get(name)]
        if absent:
            fix = NO_TEST_MASKS if split == "test" and len(absent) == len(names) else "unpack the archive again"
            raise LabelError(
                f"{len(absent)} of {len(names)} videos {f'of split {split} ' if split else ''}have no label maps in "
                f"{self.root / CODE_FOLDER} (first: {absent[0]}): {fix}"
            )
        for name in names:
            self._check_complete(name, found[name])
        return {name: found[name] for name in names}

    def read_panoptic(self, path: Path) -> PanopticMap:
        """Read a label map as classes and instances.

        Raises:
            LabelError: If the file cannot be read or holds what is no panoptic code.
        """
        return decode_vipseg(read_ids(path), self.label_space, str(path))

    def read_truth(self, path: Path) -> np.ndarray:
        """Read a label map as train ids 0..123 or 255, uint8 (H, W); see `read_panoptic`."""
        return self.read_panoptic(path).semantic

    def _check_complete(self, video: str, masks: Mapping[str, Path]) -> None:
        folder = self.image_folders.get(video)
        if folder is None:
            return
        frames = sorted((path.stem for path in folder.iterdir() if not path.name.startswith(".")), key=natural_key)
        missing = [frame for frame in frames if frame not in masks]
        if missing:
            fix = "unpack the archive again" if self.form == "raw" else "run VIPSeg's change2_720p.py again"
            raise LabelError(
                f"{len(missing)} of {len(frames)} pictures of video {video} have no label map in "
                f"{self.root / CODE_FOLDER / video} (first: {missing[0]}): {fix}"
            )


def find_vipseg(root: Path) -> VipsegDataset | None:
    """Return VIPSeg if it lies in a folder, or None; `root` may also be its `panomasks`."""
    place = root.parent if root.name == CODE_FOLDER else root
    if not (place / CODE_FOLDER).is_dir():
        return None
    is_small = (place / "images").is_dir() or (place / SEGMENT_FOLDER).is_dir() or place.name == SMALL_FOLDER
    return VipsegDataset(place, "720p" if is_small else "raw")


def read_splits(root: Path) -> dict[str, tuple[str, ...]]:
    """Read `train.txt`, `val.txt` and `test.txt`, a name a line, in a folder or, where absent, one folder higher.

    Raises:
        LabelError: If a list cannot be read or names a video twice.
    """
    splits: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        for path in (root / f"{split}.txt", root.resolve().parent / f"{split}.txt"):
            if path.is_file():
                splits[split] = _read_names(path)
                break
    return splits


def select_split(splits: Mapping[str, tuple[str, ...]], split: str, root: Path) -> tuple[str, ...]:
    """Return the names of a split.

    Raises:
        SettingsError: If there is no list of that name, or it is empty.
    """
    if not splits.get(split):
        has = f"found lists for {', '.join(splits)}" if splits else "there is none"
        raise SettingsError(
            f"{split}.txt, the list of the videos of split {split}, is neither in {root} nor one folder higher, or is "
            f"empty; {has}. It comes with the data set"
        )
    return splits[split]


def find_category_difference(root: Path) -> str | None:
    """Compare the release's own list of categories, where it is there, with our label set; say the first difference.

    Raises:
        LabelError: If the list cannot be read.
    """
    path = root / CATEGORY_LIST
    if not path.is_file():
        return None
    try:
        listed = [
            (int(entry["id"]) + 1, str(entry["name"]), "thing" if entry["isthing"] else "stuff")
            for entry in json.loads(path.read_text("utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise LabelError(
            f'{path} is no list of categories such as {{"id": 0, "name": "wall", ...}}: {error}'
        ) from error
    space = find_label_space("vipseg")
    ours = list(zip(space.raw_ids, space.names, space.kinds, strict=True))
    if len(listed) != len(ours):
        return f"it has {len(listed)} categories, label set vipseg {len(ours)}"
    pairs = zip(sorted(listed), ours, strict=True)
    return next((f"it has {theirs}, label set vipseg {own}" for theirs, own in pairs if theirs != own), None)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"cannot read the list of videos {path}: {error}") from error
    names = tuple(name for line in lines if (name := line.strip()))
    twice = (
        next((name for i, name in enumerate(names) if name in names[:i]), None)
        if len(names) > len(set(names))
        else None
    )
    if twice is not None:
        raise LabelError(f"{path} names the video {twice} twice; take one of them off the list")
    return names
