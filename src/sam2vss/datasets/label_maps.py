"""Label maps of any form as semantic maps: one reader for class ids and the panoptic forms of `label_forms`.

Panoptic ids are numbers that a list or a code explains; colours are never decoded into classes.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import LabelError, ShapeError
from ..images import read_label_map
from ..types import IGNORE_INDEX, LabelSpace
from .deva import DevaMaps
from .folders import read_ids
from .id_checks import check_id_start
from .label_forms import LabelForm, check_not_orphaned, find_label_form, has_codes, step_into
from .label_sets import find_label_space, shift_ids
from .panoptic_codes import decode_vipseg, find_things
from .panoptic_folders import PanopticFolders, open_panoptic, positions
from .panoptic_json import read_panoptic_json
from .predictions import is_matched_by_name, listed, match_classes, respelled
from .truth import look_up
from .vipseg import CODE_FOLDER


class _Decoder(Protocol):
    """Reads a picture as train ids of the label set that it was made with."""

    def read_semantic(self, path: Path) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Label maps of one form.

    Attributes:
        form: What the folder holds.
        label_space: The classes that `read` speaks of.
    """

    form: LabelForm
    label_space: LabelSpace
    _ids: LabelSpace = field(repr=False)  # what class ids mean
    _decoder: _Decoder | None = field(default=None, repr=False)  # of panoptic maps
    _table: np.ndarray | None = field(default=None, repr=False)  # its train ids -> those of `label_space`

    def read(self, path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
        """Read a file below `form.folder` as train ids or the ignore index, uint8 or uint16 (H, W).

        Args:
            path: The file.
            size: (H, W) that the map must have, if given.

        Raises:
            LabelError: If it holds what the label set or its list does not explain, or is broken.
            MediaError: If a map of class ids is broken.
            ShapeError: If it does not have `size`.
        """
        if self._decoder is None:
            return read_label_map(path, self._ids, size)
        labels = self._decoder.read_semantic(path)
        if size is not None and labels.shape != size:
            raise ShapeError(
                f"{path} is {labels.shape[0]} x {labels.shape[1]} (height x width), but its frame is {size[0]} x "
                f"{size[1]}"
            )
        return labels if self._table is None else look_up(self._table, labels)


def find_own_label_space(folder: Path) -> LabelSpace | None:
    """Return the classes that panoptic label maps bring along: those of a JSON, or VIPSeg's; None if there are none.

    Raises:
        LabelError: If the JSON cannot be read.
    """
    form = find_label_form(folder)
    if form.listing is not None:
        space = read_panoptic_json(form.listing).label_space
        return None if space is None else _for_files(space)
    return find_label_space("vipseg") if form.folder.name == CODE_FOLDER else None


def open_label_maps(folder: Path, label_space: LabelSpace, id_offset: int | None = None) -> LabelMaps:
    """Recognise the form of label maps, and read what explains them; no picture is decoded but a sample of class ids.

    Args:
        folder: One of the forms of `find_label_form`.
        label_space: Classes of the labels. Categories of a panoptic JSON are its classes by position, 0..C-1, unless
            the JSON names them, in whatever case; panoptic codes and class ids hold its raw ids.
        id_offset: Added to every stored class id or category before it is looked up among the raw ids; None: categories
            are positions, and class ids that seem to start at another number than the label set's are refused.

    Raises:
        LabelError: If the form is unknown, lists and pictures do not fit together, or ids seem shifted.
        SettingsError: If `id_offset` leaves no ids.
    """
    form = find_label_form(folder, label_space)
    if form.name == "class ids":
        if id_offset is None:
            check_id_start(form.folder, label_space)
        return LabelMaps(form, label_space, shift_ids(label_space, id_offset or 0))
    if form.name == "panoptic codes":
        _check_codes(form, label_space, id_offset or 0)
        return LabelMaps(form, label_space, label_space, _Codes(label_space))
    categories = positions(label_space) if id_offset is None else shift_ids(label_space, id_offset)
    if form.listing is None:
        return LabelMaps(form, label_space, categories, DevaMaps(form.folder, categories))
    return _open_listed(form, form.listing, label_space, categories)


def _open_listed(form: LabelForm, listing: Path, label_space: LabelSpace, categories: LabelSpace) -> LabelMaps:
    """Open maps that one JSON explains, by its own names of categories or by the given ones."""
    panoptic = open_panoptic(listing, label_space, categories, has_crowds=False)
    own = panoptic.label_space
    if own is categories:
        _check_categories(listing, panoptic, label_space, categories)
    else:
        own = respelled(own, label_space)
        _check_names(listing, own, label_space)
    table = np.full(own.ignore_index + 1, label_space.ignore_index, label_space.dtype)
    table[: own.num_classes] = match_classes(label_space, own)
    pictures = next(
        (path.parent.parent for frames in panoptic.frames.values() for path in frames.values()), form.folder
    )
    return LabelMaps(replace(form, folder=pictures), label_space, own, _Segments(panoptic, listing), table)


def _check_names(listing: Path, own: LabelSpace, label_space: LabelSpace) -> None:
    """Refuse a JSON that does not name all classes: they may stand in any order, so positions are no way out."""
    if own.names == label_space.names or is_matched_by_name(label_space, own):
        return
    known = set(own.names)
    absent = [name for name in label_space.names if name not in known]
    reason = f"{len(absent)} of these are not among those ({listed(absent)})" if absent else "two of these are alike"
    raise LabelError(
        f"{listing} names {own.num_classes} categories, and label set {label_space.name or 'in use'} has "
        f"{label_space.num_classes} classes: {reason}. Pass the label set of the predictions; where the categories are "
        'those classes in their order under other names, take "categories" out of the JSON'
    )


def _check_codes(form: LabelForm, label_space: LabelSpace, offset: int) -> None:
    if not has_codes(label_space):
        raise LabelError(
            f"{form.folder} holds VIPSeg's panoptic codes, and label set {label_space.name or 'in use'} has ids "
            f"{min(label_space.raw_ids)}..{max(label_space.raw_ids)}, or does not say which classes are things: pass "
            "--label-set vipseg"
        )
    if offset:
        raise LabelError(f"{form.folder} holds VIPSeg's panoptic codes, which --id-offset cannot shift: drop it")


def _check_categories(
    listing: Path, panoptic: PanopticFolders, label_space: LabelSpace, categories: LabelSpace
) -> None:
    """Refuse categories that are not in the label set, before a picture is decoded."""
    assert panoptic.listed is not None
    low, high = min(categories.raw_ids), max(categories.raw_ids)
    first = label_space.raw_ids[0]
    frames = ((f"{v}/{f}", found) for v, stems in panoptic.listed.frames.items() for f, found in stems.items())
    for name, segments in frames:
        is_outside = (segments.categories < low) | (segments.categories > high)
        if is_outside.any():
            category = int(segments.categories[is_outside][0])
            raise LabelError(
                f"{listing}: segment {int(segments.ids[is_outside][0])} of {name} has category {category}, expected "
                f"{low}..{high}, the classes of label set {categories.name or 'in use'}. Pass the right --label-set, "
                f"or --id-offset={first} where categories count from 0, --id-offset={first - 1} where from 1"
            )


def _for_files(space: LabelSpace) -> LabelSpace:
    """Return the categories of a JSON with void as 255, so that label maps of 8 bits can be written, where it fits."""
    return replace(space, raw_void=(IGNORE_INDEX,)) if max(space.raw_ids) < IGNORE_INDEX else space


def open_panoptic_maps(
    folder: Path, label_space: LabelSpace | None, id_offset: int | None = None, default_space: LabelSpace | None = None
) -> LabelMaps | None:
    """Open a folder as `open_label_maps` does if it is panoptic, else return None: class ids have readers of their own.

    Args:
        folder: The folder.
        label_space: Its classes; None: those that it brings along, else `default_space`.
        id_offset: Added to every category.
        default_space: Classes of a folder that brings none along.

    Raises:
        LabelError: If it is panoptic and cannot be read, or nobody says what its classes are.
    """
    check_not_orphaned(step_into(folder))
    try:
        form = find_label_form(folder, label_space or default_space)
    except LabelError:
        return None  # pictures in colours, which some readers know what to do with
    if not form.is_panoptic:
        return None
    space = label_space or find_own_label_space(folder) or default_space
    if space is None:
        raise LabelError(f"nothing says what the categories in {folder} mean: pass a label set")
    return open_label_maps(folder, space, id_offset)


@dataclass(frozen=True, eq=False)
class _Codes:
    """Pictures in VIPSeg's panoptic code."""

    label_space: LabelSpace

    def read_semantic(self, path: Path) -> np.ndarray:
        frame = decode_vipseg(read_ids(path), self.label_space, str(path))
        is_stuff = np.zeros(self.label_space.ignore_index + 1, bool)
        is_stuff[: self.label_space.num_classes] = [not is_thing for is_thing in find_things(self.label_space)]
        is_wrong = (frame.instance > 0) & np.take(is_stuff, frame.semantic)
        if is_wrong.any():
            name = self.label_space.names[int(frame.semantic[is_wrong][0])]
            raise LabelError(
                f"{path} holds instance {int(frame.instance[is_wrong][0]) - 1} of the stuff class {name!r}, which no "
                "panoptic code has: if its numbers are class ids, save them as 8-bit PNG"
            )
        return frame.semantic


@dataclass(frozen=True, eq=False)
class _Segments:
    """Pictures of segment ids that one JSON explains."""

    panoptic: PanopticFolders
    listing: Path

    def read_semantic(self, path: Path) -> np.ndarray:
        video, frame = path.parent.name, path.stem
        if frame not in self.panoptic.frames.get(video, {}):
            raise LabelError(
                f"{self.listing} does not list {video}/{frame}, and {path} is there: picture and JSON must be written "
                "together"
            )
        return self.panoptic.read(video, frame).semantic
