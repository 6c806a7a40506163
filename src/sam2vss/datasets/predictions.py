"""Predicted label maps in files, turned into the truth's train ids: whatever form they are stored in, nothing guessed.

A form that was not named is an error or a warning that says which option names it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from ..errors import LabelError, SettingsError, ShapeError
from ..types import WIDE_IGNORE_INDEX, LabelSpace
from .folders import read_colors, read_ids
from .label_sets import plain_name
from .truth import look_up

if TYPE_CHECKING:
    from .label_maps import LabelMaps

Missing = Literal["error", "void"]
MAX_NAMES: Final = 5  # how many offenders a message lists


@dataclass(frozen=True)
class PredictionForm:
    """How predictions are stored, as far as it is not as the truth is.

    Attributes:
        colors: They are pictures in the colours of their label set.
        id_offset: Added to every stored id before it is looked up in their label set; None: nothing is known, and ids
            that look shifted are refused.
        resize: Those of another size are brought to their truth's, by the nearest pixel centre.
        missing: What a frame without prediction is: an "error", or "void", i.e. wrong everywhere.
    """

    colors: bool = False
    id_offset: int | None = None
    resize: bool = False
    missing: Missing = "error"

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise SettingsError(f"--missing {self.missing!r} is unknown, expected error or void")
        if abs(self.id_offset or 0) > WIDE_IGNORE_INDEX:
            raise SettingsError(f"--id-offset {self.id_offset} leaves no id in 0..{WIDE_IGNORE_INDEX}")
        if self.colors and self.id_offset:
            raise SettingsError("--colors gives classes by colour and --id-offset moves stored ids: drop one of them")


@dataclass
class Findings:
    """What was seen while predictions were read, with the first file of each kind.

    Attributes:
        unlabelled_ids: Stored ids without a class in the truth's label set, void ones included.
        resized: How many maps were resized, and the first.
        missing: How many frames had no prediction, and the first.
    """

    unlabelled_ids: dict[int, str] = field(default_factory=dict)
    resized: int = 0
    first_resized: str = ""
    missing: int = 0
    first_missing: str = ""

    def add(self, later: "Findings") -> None:
        """Take over what was seen in later files."""
        self.unlabelled_ids = {**later.unlabelled_ids, **self.unlabelled_ids}
        self.resized += later.resized
        self.first_resized = self.first_resized or later.first_resized
        self.missing += later.missing
        self.first_missing = self.first_missing or later.first_missing


class PredictionReader:
    """Reads predictions as train ids of the truth's label set and remembers what was odd about them.

    Args:
        label_space: The truth's label set.
        stored: The predictions' own. Classes are matched by name where it knows all names of the truth's, in whatever
            case, else by position.
        form: How they are stored.
        maps: Reads them where they are panoptic; its classes are `stored`.

    Attributes:
        keeps_order: Whether stored ids are the truth's train ids plus a constant.

    Raises:
        LabelError: If the two label sets do not fit.
    """

    def __init__(
        self, label_space: LabelSpace, stored: LabelSpace, form: PredictionForm, maps: "LabelMaps | None" = None
    ) -> None:
        stored = respelled(stored, label_space)
        self._form = form
        self._maps = maps
        self._stored = stored
        self._label_space = label_space
        train_ids = match_classes(label_space, stored)
        self._colors = _ColorTable(stored, train_ids, label_space) if form.colors else None
        self._classes = np.full(stored.ignore_index + 1, label_space.ignore_index, label_space.dtype)
        self._classes[: stored.num_classes] = train_ids
        offset = form.id_offset or 0
        stored_ids = np.asarray(stored.raw_ids) - offset
        is_storable = (stored_ids >= 0) & (stored_ids <= WIDE_IGNORE_INDEX)
        self._table = np.full(WIDE_IGNORE_INDEX + 1, label_space.ignore_index, label_space.dtype)
        self._table[stored_ids[is_storable]] = train_ids[is_storable]
        # void may have been moved with the classes, or have stayed where it was
        self._void_ids = {raw_id - shift for raw_id in stored.raw_void for shift in (0, offset)}
        is_identity = np.array_equal(train_ids, np.arange(label_space.num_classes))
        self.keeps_order = is_identity and bool((np.diff(stored.raw_ids) == 1).all())
        self.findings = Findings()

    def read(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """Return the prediction of a frame of size (H, W) as train ids; the ignore index where it has no class.

        Raises:
            LabelError: If the file cannot be read, or holds colours that are not in the label set.
            ShapeError: If it has another size and `resize` was not asked for.
        """
        labels = self._colors.read(path) if self._colors else self._read_ids(path)
        if labels.shape == size:
            return labels
        found = (labels.shape[0], labels.shape[1])
        if not self._form.resize:
            raise ShapeError(
                f"prediction {path} is {size_text(found)}, its truth {size_text(size)}. Write predictions at the size "
                "of the truth, or pass --resize-predictions"
            )
        self.findings.first_resized = self.findings.first_resized or f"{path}, {size_text(found)} to {size_text(size)}"
        self.findings.resized += 1
        return resize_nearest(labels, size)

    def missing(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """Return a map without any class in place of a missing prediction, and remember it."""
        self.findings.first_missing = self.findings.first_missing or name
        self.findings.missing += 1
        return np.full(size, self._label_space.ignore_index, self._label_space.dtype)

    def warnings(self, findings: Findings) -> list[str]:
        """Return what a user should know of what was seen, one sentence each."""
        notes = []
        names, own = self._label_space.names, self._stored.names
        if own != names and not is_matched_by_name(self._label_space, self._stored):
            first_own, first_true = next((a, b) for a, b in zip(own, names, strict=True) if a != b)
            notes.append(
                "the class names of the predictions differ from the truth's, and classes are matched by position "
                f"(first difference: {first_own!r} counts as {first_true!r})"
            )
        strangers = {i: path for i, path in sorted(findings.unlabelled_ids.items()) if i not in self._void_ids}
        if strangers:
            notes.append(
                f"predictions hold {len(strangers)} ids without a class in the label set "
                f"({listed([str(i) for i in strangers])}; first in {next(iter(strangers.values()))}); their pixels "
                "count as errors. If the ids mean something else, pass the predictions' own label set or --id-offset."
            )
        if findings.resized:
            notes.append(
                f"{findings.resized} predictions were resized to their truth's size by the nearest pixel (first: "
                f"{findings.first_resized}); boundary scores tell little about them"
            )
        if findings.missing:
            notes.append(
                f"{findings.missing} frames have no prediction and count as wrong everywhere (first: "
                f"{findings.first_missing}); mVC takes frames without labels for alike"
            )
        return notes

    def _read_ids(self, path: Path) -> np.ndarray:
        if self._maps is not None:
            return look_up(self._classes, self._maps.read(path))
        raw = read_ids(path)
        labels = look_up(self._table, raw)
        is_unlabelled = labels == self._label_space.ignore_index
        if is_unlabelled.any():
            for raw_id in np.flatnonzero(np.bincount(raw[is_unlabelled])).tolist():
                self.findings.unlabelled_ids.setdefault(raw_id, str(path))
        return labels


class _ColorTable:
    """Colours of a label set to train ids, exact matches only; black stands for void unless a class is black."""

    def __init__(self, stored: LabelSpace, train_ids: np.ndarray, label_space: LabelSpace) -> None:
        self._set_name = stored.name or "in use"
        names: dict[int, list[str]] = {}
        for code, name in zip(_color_codes(stored.palette).tolist(), stored.names, strict=True):
            names.setdefault(code, []).append(name)
        self._shared = {code: found for code, found in names.items() if len(found) > 1}
        by_code = {0: label_space.ignore_index}
        by_code |= dict(zip(_color_codes(stored.palette).tolist(), train_ids.tolist(), strict=True))
        self._codes = np.array(sorted(by_code))
        self._labels = np.array([by_code[code] for code in sorted(by_code)], label_space.dtype)

    def read(self, path: Path) -> np.ndarray:
        codes = _color_codes(read_colors(path))
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        is_unknown = self._codes[places] != codes
        if is_unknown.any():
            raise LabelError(
                f"{path} holds colours that are not in the label set {self._set_name}: {np.count_nonzero(is_unknown)} "
                f"pixels, first {_color_text(codes[is_unknown][0])}. Pass the predictions' own label set with "
                "--prediction-label-set, and save them without loss (no JPEG, no smoothing)"
            )
        for code, names in self._shared.items():
            if (codes == code).any():
                raise LabelError(
                    f"{path} holds the colour {_color_text(code)}, which the label set {self._set_name} gives to "
                    f"{' and '.join(names)}: save class ids instead"
                )
        labels: np.ndarray = self._labels[places]
        return labels


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring labels (h, w) to (H, W): every pixel takes the label of the source pixel that holds its centre.

    OpenCV's INTER_NEAREST takes the pixel that holds its upper left corner instead, which shifts labels.
    """
    rows, columns = (
        (2 * np.arange(to) + 1) * came_from // (2 * to) for came_from, to in zip(labels.shape, size, strict=True)
    )
    resized: np.ndarray = np.take(np.take(labels, rows, axis=0), columns, axis=1)
    return resized


@dataclass(frozen=True)
class Shift:
    """An offset that would make most predicted ids right.

    Attributes:
        offset: -1, 1, or 0 where none clearly does.
        share_as_stored: Fraction of the pixels that are right as they are.
        share_moved: The same with the offset added to every id.
        classes: Classes of the truth with most of their pixels right when moved.
    """

    offset: int
    share_as_stored: float
    share_moved: float
    classes: int


def find_shift(confusion: np.ndarray) -> Shift:
    """Find out whether predicted ids look one off.

    They do if at least half of all pixels would be right when moved, and more than twice as many as are.

    Args:
        confusion: int64 (C, C+1), rows truth, last column unlabelled.
    """
    total = max(1, int(confusion.sum()))
    right = {offset: int(np.trace(confusion[:, :-1], -offset)) for offset in (-1, 0, 1)}
    best = max((-1, 1), key=lambda offset: right[offset])
    is_clear = 2 * right[best] >= total and right[best] > 2 * right[0]
    moved = np.zeros(len(confusion), np.int64)
    rows = np.arange(max(0, best), len(confusion) + min(0, best))
    moved[rows] = confusion[rows, rows - best]
    classes = int(np.count_nonzero(2 * moved > confusion.sum(axis=1)))
    return Shift(best if is_clear else 0, right[0] / total, right[best] / total, classes)


def is_matched_by_name(label_space: LabelSpace, stored: LabelSpace) -> bool:
    """Whether the truth's names are distinct and the predictions know all of them."""
    return len(set(label_space.names)) == label_space.num_classes and set(label_space.names) <= set(stored.names)


def listed(names: Sequence[str] | Mapping[str, object]) -> str:
    """Return the first few names for a message."""
    return ", ".join(islice(names, MAX_NAMES)) + (", ..." if len(names) > MAX_NAMES else "")


def size_text(size: tuple[int, int]) -> str:
    """Return (H, W) in words."""
    return f"{size[1]} x {size[0]} pixels"


def respelled(stored: LabelSpace, label_space: LabelSpace) -> LabelSpace:
    """Return `stored` with the spelling of `label_space` for names that differ in case, blanks and underscores alone.

    Names that would then be there twice stay as they are.
    """
    known, own = set(label_space.names), set(stored.names)
    same = Counter(map(plain_name, stored.names))
    theirs = Counter(map(plain_name, label_space.names))
    spelling = {
        plain_name(name): name
        for name in label_space.names
        if name not in own and theirs[plain_name(name)] == 1 and same[plain_name(name)] == 1
    }
    names = tuple(name if name in known else spelling.get(plain_name(name), name) for name in stored.names)
    return stored if names == stored.names else replace(stored, names=names)


def match_classes(label_space: LabelSpace, stored: LabelSpace) -> np.ndarray:
    """Return the train id in `label_space` of every class of `stored`, or the ignore index.

    Classes are matched by name where `stored` knows all names of `label_space`, else by position.

    Raises:
        LabelError: If neither is possible, or a name stands at another position than it would be matched with.
    """
    if is_matched_by_name(label_space, stored):
        train_ids = {name: i for i, name in enumerate(label_space.names)}
        return np.array([train_ids.get(name, label_space.ignore_index) for name in stored.names])
    names = set(label_space.names)
    if stored.num_classes != label_space.num_classes:
        absent = [name for name in label_space.names if name not in stored.names]
        raise LabelError(
            f"predictions have {stored.num_classes} classes, the truth {label_space.num_classes}, and "
            f"{len(absent)} of its names are not among theirs ({listed(absent)}); convert them, or take a "
            "model that was trained on these classes"
        )
    moved = [name for name, true in zip(stored.names, label_space.names, strict=True) if name in names and name != true]
    if moved and len(set(stored.names)) == stored.num_classes:
        stranger = next(name for name in stored.names if name not in names)
        raise LabelError(
            f"the classes of the predictions stand in another order than the truth's ({len(moved)} of "
            f"{stored.num_classes} names, first {moved[0]!r}), and are not all called alike ({stranger!r} is unknown "
            "there): give both label sets the same names"
        )
    return np.arange(label_space.num_classes)


def _color_codes(colors: np.ndarray) -> np.ndarray:
    """Return colours uint8 (..., 3) as one number each, int64 (...)."""
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    codes: np.ndarray = red << 16 | green << 8 | blue
    return codes


def _color_text(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
