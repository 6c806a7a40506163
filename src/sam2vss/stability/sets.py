"""Sets of label maps that are compared without ground truth: which there are, and that they cover the same frames."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..datasets.folders import LabelFolders, find_label_folders, read_ids
from ..datasets.id_checks import check_id_start
from ..datasets.label_forms import step_into
from ..datasets.label_maps import LabelMaps, open_panoptic_maps
from ..datasets.label_sets import shift_ids
from ..errors import LabelError, MissingPredictionsError, SettingsError
from ..types import WIDE_IGNORE_INDEX, LabelSpace

MAX_NAMES = 5  # how many offenders a message lists
RUN_PARTS = {"base": "base", "labels": "refined"}  # folders of a run, and what their labels are called


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Label maps under one name.

    Attributes:
        name: Row of the table.
        files: PNGs by clip and frame name, both in natural order.
        label_space: What their numbers mean.
        run: Run folder they belong to, None for others.
        is_refined: Whether they are a run's refined labels.
        own_names: Names that clips have in their own place, where `line_up` gave them another one.
        maps: Reads the files where they are panoptic.
    """

    name: str
    files: LabelFolders = field(repr=False)
    label_space: LabelSpace = field(repr=False)
    run: Path | None = None
    is_refined: bool = False
    own_names: Mapping[str, str] = field(default_factory=dict, repr=False)
    maps: LabelMaps | None = field(default=None, repr=False)

    def own_name(self, clip: str) -> str:
        """Return the name of a clip in the run or folder of this set."""
        return self.own_names.get(clip, clip)


def find_label_sets(
    folder: Path, label_space: LabelSpace, name: str | None = None, id_offset: int | None = None
) -> list[LabelSet]:
    """Find the sets in a folder: base and refined labels of a run, or one set of label PNGs.

    Args:
        folder: A run folder, or any layout of `find_label_folders`, a run's `base` or `labels` among them, or panoptic
            predictions (`find_label_form`).
        label_space: What the numbers mean.
        name: Name of the set; default: the folder's, with the part after it for a run.
        id_offset: Added to every id that is not a run's; None: ids that look shifted are refused.

    Raises:
        LabelError: If the folder holds no labels.
    """
    folder = Path(folder)
    place = folder.resolve()
    if (place / "run.json").is_file():
        parts = [part for part in RUN_PARTS if (folder / part).is_dir()] or ["labels"]
        return [_part_of_run(folder, part, label_space, name or place.name) for part in parts]
    if place.name in RUN_PARTS and (place.parent / "run.json").is_file():
        return [_part_of_run(place.parent, place.name, label_space, name or place.parent.name)]
    folder = step_into(folder)
    maps = open_panoptic_maps(folder, label_space, id_offset)
    if maps is not None:
        return [LabelSet(name or place.name, find_label_folders(maps.form.folder), label_space, maps=maps)]
    if id_offset is None:
        check_id_start(folder, label_space)
    return [LabelSet(name or place.name, find_label_folders(folder), shift_ids(label_space, id_offset or 0))]


def _part_of_run(run: Path, part: str, label_space: LabelSpace, name: str) -> LabelSet:
    files = find_label_folders(run / part)
    return LabelSet(f"{name}: {RUN_PARTS[part]}", files, label_space, run, is_refined=part == "labels")


def line_up(sets: Sequence[LabelSet], only: Collection[str] | None = None) -> list[LabelSet]:
    """Give the sets distinct names, and make sure that they cover the same frames.

    Where every set has one clip, the clips need not share a name: that of the first set is taken.

    Args:
        sets: The sets.
        only: Names of the clips to keep; None keeps all.

    Raises:
        MissingPredictionsError: If a set lacks a clip or a frame that another one has.
        LabelError: If the sets differ in their classes.
        SettingsError: If there is no set, or a name in `only` is unknown.
    """
    if not sets:
        raise SettingsError("no labels were given, expected at least one folder")
    names = _distinct([one.name for one in sets])
    sets = [replace(one, name=name) for one, name in zip(sets, names, strict=True)]
    first = sets[0]
    for other in sets[1:]:
        if other.label_space.names != first.label_space.names:
            raise LabelError(
                f"{other.name} has {other.label_space.num_classes} classes and {first.name} has "
                f"{first.label_space.num_classes}, or their names differ; labels of other classes flip in other ways, "
                "so compare sets of the same classes (--label-set says what the numbers mean)"
            )
    if all(len(one.files) == 1 for one in sets):
        clip = next(iter(first.files))
        sets = [
            replace(one, files={clip: files}, own_names={clip: own}) for one in sets for own, files in one.files.items()
        ]
    if only is not None:
        sets = [replace(one, files={clip: one.files[clip] for clip in _chosen(one.files, only)}) for one in sets]
    for other in sets[1:]:
        _check_same_frames(sets[0], other)
        _check_same_frames(other, sets[0])
    return list(sets)


def compared_with(sets: Sequence[LabelSet]) -> list[int | None]:
    """Return, for every set, the number of the one that differences are against.

    Refined labels of a run are compared with its base labels where these are the set before, all others with the first
    set; that one with nothing.
    """
    partners: list[int | None] = []
    for number, one in enumerate(sets):
        before = sets[number - 1] if number else None
        is_pair = before is not None and one.is_refined and not before.is_refined and before.run == one.run
        partners.append(number - 1 if is_pair else 0 if number else None)
    return partners


def _check_same_frames(first: LabelSet, second: LabelSet) -> None:
    missing = [
        f"{clip}/{frame}"
        for clip, frames in first.files.items()
        for frame in frames
        if frame not in second.files.get(clip, {})
    ]
    if missing:
        raise MissingPredictionsError(
            f"{second.name} lacks {len(missing)} frames that {first.name} has (first: {listed(missing)}); labels can "
            "be compared on the same frames of the same clips only. Write the missing ones, or compare fewer sets"
        )


def _chosen(files: LabelFolders, only: Collection[str]) -> list[str]:
    unknown = sorted(set(only) - files.keys())
    if unknown or not only:
        raise SettingsError(
            f"there are no labels of the clips {listed(unknown) or '(none named)'}; there are {listed(files)}"
        )
    return [clip for clip in files if clip in only]


def _distinct(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        number, new = 1, name
        while new in taken:
            number += 1
            new = f"{name} ({number})"
        taken.append(new)
    return taken


class LabelReader:
    """Reads the label maps of a set as train ids and remembers ids that are not in its label set."""

    def __init__(self, label_space: LabelSpace, maps: LabelMaps | None = None) -> None:
        self._space = label_space
        self._maps = maps
        self._table = np.full(WIDE_IGNORE_INDEX + 1, label_space.ignore_index, label_space.dtype)
        self._table[list(label_space.raw_ids)] = np.arange(label_space.num_classes)
        self._strangers: dict[int, Path] = {}

    def read(self, path: Path) -> np.ndarray:
        """Return train ids or the ignore index, (H, W).

        Raises:
            LabelError: If the file cannot be read or holds no numbers.
        """
        if self._maps is not None:
            return self._maps.read(path)
        raw = read_ids(path)
        labels: np.ndarray = self._table[raw]
        is_unlabelled = labels == self._space.ignore_index
        if is_unlabelled.any():
            for raw_id in np.unique(raw[is_unlabelled]).tolist():
                if raw_id not in self._space.raw_void:
                    self._strangers.setdefault(raw_id, path)
        return labels

    def warnings(self) -> list[str]:
        """Return what was seen and has no class, in words."""
        if not self._strangers:
            return []
        ids = [str(raw_id) for raw_id in sorted(self._strangers)]
        first = next(iter(self._strangers.values()))
        return [
            f"labels hold {len(ids)} ids without a class in the label set ({listed(ids)}; first in {first}); their "
            "pixels count as unlabelled. If the ids mean something else, pass the right --label-set"
        ]


def listed(names: Collection[str]) -> str:
    """Return the first few names."""
    return ", ".join(islice(names, MAX_NAMES)) + (", ..." if len(names) > MAX_NAMES else "")
