"""Scores of several sets of labels side by side: what `bench` and `ablate` find, ready to be stored and shown.

Plain data: names, fractions in [0, 1] and intervals. How they are computed is `metrics`' business, how they look is
that of the modules that write tables, plots and pages.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from ..errors import RunError
from ..metrics import PairedDifference

FORMAT_VERSION: Final = "1"
HEADLINE: Final = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")  # the columns of the paper's Table 1

RowKind = Literal["base", "control", "refined", "other"]
BoardKind = Literal["bench", "ablate"]
Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Published:
    """Figures copied from a publication, to stand beside ours.

    Attributes:
        values: Fractions by the name of the score; what was not published is left out.
        source: Where they were copied from, e.g. "arXiv 2512.01774, Table 1, SAM2-CFFM MiT-B1".
    """

    values: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class BoardRow:
    """One set of labels with its scores.

    Attributes:
        name: Name of the row, unique on its board.
        model: Base model that the row belongs to; rows of one model stand together.
        kind: "base", "control" (no SAM 2), "refined", or "other" (named by a classifier, or made elsewhere).
        scores: Fractions by name; None where undefined.
        against: Row that the differences are against; None where there is none.
        differences: This row minus `against`, by score, each with its 95 % interval.
        per_class: Scores by class name, then by score.
        per_clip: Scores by clip, then by score; `frames` is among them.
        settings: What made the row, e.g. {"window": 32, "points": 16}.
        facts: What it took: "masklets" (a window), "coverage" (fraction), "seconds" (a frame).
        published: Figures of the same row in a publication.
        command: Command that makes the labels of the row again.
    """

    name: str
    model: str
    kind: RowKind
    scores: Mapping[str, float | None]
    against: str | None = None
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    per_class: Mapping[str, Mapping[str, float | int | None]] = field(default_factory=dict)
    per_clip: Mapping[str, Mapping[str, float | int | None]] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    published: Published | None = None
    command: str = ""

    @property
    def vc_curve(self) -> dict[int, float]:
        """mVC_n by n, for every n that was counted."""
        found = {int(name[3:]): value for name, value in self.scores.items() if re.fullmatch(r"mVC[0-9]+", name)}
        return {n: value for n, value in sorted(found.items()) if value is not None}


@dataclass(frozen=True)
class Axis:
    """Rows that differ in one setting only.

    Attributes:
        setting: Name of the setting.
        values: Its values, in order.
        rows: Names of the rows, one a value.
        default: Value that the differences are against; None where the axis has none.
        title: What the axis is, e.g. "Window length (Table 4)".
    """

    setting: str
    values: tuple[Setting, ...]
    rows: tuple[str, ...]
    default: Setting = None
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """One frame of a clip in several versions side by side.

    Attributes:
        clip: Name of the clip.
        frame: Name of the frame.
        caption: What it shows, e.g. "best clip: +6.1 mIoU".
        panels: PNG files by what they show ("frame", "truth", "base", "SAM2-unet"), relative to the board's folder.
    """

    clip: str
    frame: str
    caption: str
    panels: Mapping[str, str]


@dataclass(frozen=True)
class Scoreboard:
    """Rows of scores on the same clips.

    Attributes:
        title: What was compared.
        kind: "bench" or "ablate".
        dataset: Name of the data set and split.
        protocol: Protocol of the scores.
        clips: Clips scored.
        frames: Frames scored.
        class_names: By train id.
        rows: In the order of the table.
        statistics: Scores that tables show, in order.
        protocol_note: What is wrong with the protocol, where something is.
        axes: For an ablation, the rows that belong together.
        pictures: Frames worth looking at.
        work: What a cache saved: work done and work that separate runs would need, by kind.
        warnings: What was seen but not scored, or scored as an error, one sentence each.
        command: Command that makes the board again.
        versions: Of the packages, the weights and the device.
    """

    title: str
    kind: BoardKind
    dataset: str
    protocol: str
    clips: int
    frames: int
    class_names: tuple[str, ...]
    rows: tuple[BoardRow, ...]
    statistics: tuple[str, ...] = HEADLINE
    protocol_note: str = ""
    axes: tuple[Axis, ...] = ()
    pictures: tuple[Picture, ...] = ()
    work: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def row(self, name: str) -> BoardRow:
        """Return the row of that name.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def models(self) -> tuple[str, ...]:
        """Base models in the order of the rows."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def of_model(self, model: str) -> tuple[BoardRow, ...]:
        """Return the rows of one base model, in order."""
        return tuple(row for row in self.rows if row.model == model)

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dump` takes; undefined numbers are null."""
        return {"format_version": FORMAT_VERSION, **_without_nan(asdict(self))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Scoreboard":
        """Make a board again from what `to_json` gave.

        Raises:
            RunError: If this is no board, or one of another format.
        """
        if content.get("format_version") != FORMAT_VERSION:
            raise RunError(
                f"scores of format {content.get('format_version')!r}, expected {FORMAT_VERSION!r}: make them again "
                "with this version, by the same command and --resume"
            )
        values = {key: value for key, value in content.items() if key != "format_version"}
        try:
            values["rows"] = tuple(_row_from_json(row) for row in values["rows"])
            values["axes"] = tuple(_axis_from_json(axis) for axis in values["axes"])
            values["pictures"] = tuple(Picture(**picture) for picture in values["pictures"])
            values["work"] = {kind: (int(done), int(needed)) for kind, (done, needed) in values["work"].items()}
            for key in ("class_names", "statistics", "warnings"):
                values[key] = tuple(values[key])
            board = cls(**values)
            TypeAdapter(cls).validate_python(asdict(board))
            return board
        except ValidationError as error:
            found = error.errors()[0]
            place = ".".join(map(str, found["loc"]))
            raise RunError(f"these are no stored scores ({place}: {found['msg']})") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"these are no stored scores ({type(error).__name__}: {error})") from error

    @classmethod
    def read(cls, path: Path) -> "Scoreboard":
        """Read a stored board.

        Raises:
            RunError: If the file cannot be read or holds no board.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"cannot read the scores {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} holds no scores, found {type(content).__name__}")
        try:
            return cls.from_json(content)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error


def _row_from_json(content: Mapping[str, Any]) -> BoardRow:
    values = dict(content)
    values["differences"] = {name: _difference_from_json(found) for name, found in values["differences"].items()}
    if values["published"] is not None:
        values["published"] = Published(**values["published"])
    return BoardRow(**values)


def _difference_from_json(content: Mapping[str, Any]) -> PairedDifference:
    values = dict(content)
    values["difference"] = math.nan if values["difference"] is None else values["difference"]
    if values["interval"] is not None:
        low, high = values["interval"]
        values["interval"] = (low, high)
    return PairedDifference(**values)


def _axis_from_json(content: Mapping[str, Any]) -> Axis:
    values = dict(content)
    return Axis(**{**values, "values": tuple(values["values"]), "rows": tuple(values["rows"])})


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(entry) for entry in value]
    return value
