"""Which settings an ablation tries: one-at-a-time axes around a base, as in the paper's tables, and full products.

A grid comes from a YAML file, of the user or of the package (`grids/`). No heavy library is needed to read one.
"""

import hashlib
import itertools
import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import Field, ValidationError

from ..boards.scoreboard import Setting
from ..errors import SettingsError
from ..settings import (
    FollowSettings,
    MaskletSettings,
    ResolvedMode,
    Smoothing,
    StrictModel,
    VoidPolicy,
    VoteSettings,
    check_mode,
)

GRID_FOLDER: Final = Path(__file__).parent / "grids"
BuiltIn = Literal["4", "5", "6", "7", "ours"]
DEFAULT_NAME: Final = "default"
MAX_POINTS: Final = 2000  # ours: all points of a frame are held at a time, and a page lists them all
_shorten = reprlib.Repr()  # a small file may repeat itself to any length by its anchors
_shorten.maxlevel = 2


class Point(MaskletSettings, FollowSettings, VoteSettings):
    """One setting of everything that an ablation can vary; defaults as in `settings.py`."""

    mode: ResolvedMode = Field("exact", description="How masklets are followed")  # the paper's
    smooth: Smoothing = Field("none", description="Smoothing of the base labels before the votes")  # ours; paper: none

    @property
    def masklets(self) -> MaskletSettings:
        """How masklets are found."""
        return MaskletSettings(**{name: getattr(self, name) for name in MaskletSettings.model_fields})

    @property
    def follow(self) -> FollowSettings:
        """How masklets live on."""
        return FollowSettings(**{name: getattr(self, name) for name in FollowSettings.model_fields})

    @property
    def votes(self) -> VoteSettings:
        """How masklets vote."""
        return VoteSettings(**{name: getattr(self, name) for name in VoteSettings.model_fields})

    @property
    def filling(self) -> VoidPolicy:
        """How void base labels are filled before the votes."""
        return self.void if self.void in ("nearest", "previous") else "keep"

    @property
    def begins_shared(self) -> bool:
        """Whether the masklets of its first window are independent rows that all begin on the first frame."""
        return self.mode != "fast" and self.direction == "forward" and not self.discover

    @property
    def is_shareable(self) -> bool:
        """Whether those of all windows are, so that points share them."""
        return self.begins_shared and not self.carry

    @property
    def key(self) -> str:
        """A name for files that tells the point from every other one."""
        return _hashed(self.model_dump())

    @property
    def tracks_key(self) -> str:
        """A name for what its masklets depend on: all but the votes, and the base labels only where they are used."""
        content = {name: value for name, value in self.model_dump().items() if name not in VoteSettings.model_fields}
        if not (self.drop_contained or self.skip_settled or self.max_masklets):
            del content["smooth"]
        elif self.filling != "keep":
            content["void"] = self.filling
        return _hashed(content)

    @property
    def seeds_key(self) -> str:
        """A name for what the automatic masks of its first frames depend on."""
        names = [name for name in MaskletSettings.model_fields if name != "window"]
        return _hashed({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class GridAxis:
    """Points that differ in one setting only.

    Attributes:
        setting: Name of the setting.
        values: Its values, in the order of the file.
        points: One point a value.
        title: What the axis is.
    """

    setting: str
    values: tuple[Setting, ...]
    points: tuple[Point, ...]
    title: str = ""


@dataclass(frozen=True)
class Grid:
    """Distinct points, the base first, and the axes they belong to."""

    points: tuple[Point, ...]
    axes: tuple[GridAxis, ...]

    @property
    def base(self) -> Point:
        """The point that differences are against."""
        return self.points[0]

    def name_of(self, point: Point) -> str:
        """Name a point by what sets it apart from the base, e.g. "window 8" or "pred_iou 0.7, vote frame"."""
        base = self.base.model_dump()
        parts = [f"{name} {_shown(value)}" for name, value in point.model_dump().items() if value != base[name]]
        return ", ".join(parts) or DEFAULT_NAME

    def with_void(self, policy: VoidPolicy) -> "Grid":
        """Return the same grid with one void policy in all its points.

        Raises:
            SettingsError: If the grid tries several.
        """
        if len({point.void for point in self.points}) > 1:
            raise SettingsError("the grid varies void, and --void sets it for all points: drop one of them")

        def change(points: tuple[Point, ...]) -> tuple[Point, ...]:
            return tuple(point.model_copy(update={"void": policy}) for point in points)

        return Grid(change(self.points), tuple(replace(axis, points=change(axis.points)) for axis in self.axes))

    def without_probabilities(self) -> tuple["Grid", tuple[str, ...]]:
        """Leave out the points that need class probabilities; also return their names.

        Raises:
            SettingsError: If the base is one of them.
        """
        if self.base.vote_weight == "probability":
            raise SettingsError(
                "the base of the grid has vote_weight probability, and stored labels hold no probabilities: "
                "pass --segmenter, or take vote_weight majority"
            )
        left_out = tuple(self.name_of(point) for point in self.points if point.vote_weight == "probability")
        points = tuple(point for point in self.points if point.vote_weight != "probability")
        axes = []
        for axis in self.axes:
            kept = [(v, p) for v, p in zip(axis.values, axis.points, strict=True) if p.vote_weight != "probability"]
            if len(kept) > 1:
                axes.append(GridAxis(axis.setting, tuple(v for v, _ in kept), tuple(p for _, p in kept), axis.title))
        return Grid(points, tuple(axes)), left_out


class GridFile(StrictModel):
    """The content of a grid file.

    Attributes:
        base: Settings that all points share; what is not named keeps its default.
        axes: Values by setting, tried one at a time around the base.
        product: Each entry gives values by setting, and all their combinations are tried.
        titles: What the axes are, by setting.
    """

    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    product: list[dict[str, list[Any]]] = Field(default_factory=list)
    titles: dict[str, str] = Field(default_factory=dict)


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        SettingsError: If it cannot be read, or names settings or values that are unknown or do not go together.
    """
    return expand([(path.name, _read_file(path))])


def built_in_grid(names: Sequence[BuiltIn] = get_args(BuiltIn)) -> Grid:
    """Return grids of the package in one: the paper's Tables 4 to 7 by their numbers, and "ours"."""
    if not names:
        raise SettingsError(f"no table was named, expected some of {', '.join(get_args(BuiltIn))}")
    unknown = [name for name in names if name not in get_args(BuiltIn)]
    if unknown:
        raise SettingsError(f"there is no grid {unknown[0]!r}, expected {', '.join(get_args(BuiltIn))}")
    files = [name if name == "ours" else f"table{name}" for name in dict.fromkeys(names)]
    return expand([(name, _read_file(GRID_FOLDER / f"{name}.yaml")) for name in files])


def expand(files: Sequence[tuple[str, GridFile]]) -> Grid:
    """Make the points of grid files with one base; what occurs twice becomes one point.

    Raises:
        SettingsError: If the bases differ, or a setting or value is unknown or does not go with the others.
    """
    first, base_values = files[0][0], files[0][1].base
    base = _point(base_values, f"the base of {first}")
    points, axes = [base], []
    for name, file in files:
        if _point(file.base, f"the base of {name}") != base:
            raise SettingsError(f"the grids {first} and {name} have different bases: sweep them one by one")
        for setting in file.titles:
            if setting not in file.axes:
                raise SettingsError(f"{name} has a title for {setting!r}, which is no axis of it")
        for setting, values in file.axes.items():
            _check_number(sum(len(given) for given in file.axes.values()), name)
            members = tuple(_point({**base_values, setting: v}, f"axis {setting!r} of {name}") for v in values)
            if len(set(members)) != len(members) or not members:
                raise SettingsError(f"axis {setting!r} of {name} has {values}, expected values that differ")
            values_read = tuple(getattr(point, setting) for point in members)
            axes.append(GridAxis(setting, values_read, members, file.titles.get(setting, "")))
            points += members
        for product in file.product:
            for setting, values in product.items():
                if not values:
                    raise SettingsError(f"{setting!r} in a product of {name} is an empty list, expected values")
            _check_number(math.prod(len(values) for values in product.values()), name)
            points += _product(base_values, product, name)
    return Grid(tuple(dict.fromkeys(points)), tuple(axes))


def _check_number(points: int, name: str) -> None:
    if points > MAX_POINTS:
        raise SettingsError(
            f"{name} asks for {points} points, expected at most {MAX_POINTS}: give fewer values, or several grids one "
            "after the other in the same --out with --resume"
        )


def _product(base: Mapping[str, Any], product: Mapping[str, list[Any]], name: str) -> Iterator[Point]:
    for values in itertools.product(*product.values()):
        yield _point({**base, **dict(zip(product, values, strict=True))}, f"a product of {name}")


def _read_file(path: Path) -> GridFile:
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), path, set())
        content = yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(f"cannot read the grid {path}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"the grid {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(
            f"the grid {path} holds {type(content).__name__}, expected a mapping with base, axes or product"
        )
    try:
        file = GridFile.model_validate(content, strict=True)
    except ValidationError as error:
        raise SettingsError(f"the grid {path} cannot be used: {_first_finding(error)}") from error
    if not file.axes and not file.product:
        raise SettingsError(f"the grid {path} varies nothing: give axes or a product")
    return file


def _check_keys(node: Any, path: Path, seen: set[int]) -> None:
    """Raise `SettingsError` for a key that stands twice, of which YAML keeps the last one alone."""
    if id(node) in seen or not isinstance(getattr(node, "value", None), list):
        return
    seen.add(id(node))
    names: set[str] = set()
    for entry in node.value:
        if isinstance(entry, tuple) and isinstance(entry[0].value, str):
            if entry[0].value in names:
                line = entry[0].start_mark.line + 1
                raise SettingsError(
                    f"line {line} of the grid {path} has a second {entry[0].value!r}: put them into one"
                )
            names.add(entry[0].value)
        for part in entry if isinstance(entry, tuple) else (entry,):
            _check_keys(part, path, seen)


def _point(values: Mapping[str, Any], where: str) -> Point:
    """Make one point.

    Raises:
        SettingsError: Saying where, which setting, and what was expected.
    """
    try:
        point = Point.model_validate(dict(values), strict=True)
    except ValidationError as error:
        raise SettingsError(f"{where}: {_first_finding(error)}") from error
    try:
        _check(point)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    return point


def _first_finding(error: ValidationError) -> str:
    found = error.errors()[0]
    name = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        known = Point.model_fields if error.title == "Point" else GridFile.model_fields
        return f"{name!r} is unknown, expected {', '.join(known)}"
    return f"{name!r} is {_shorten.repr(found['input'])}: {found['msg']}"


def _check(point: Point) -> None:
    """Raise `SettingsError` for settings that do not go together or never act."""
    works_on_seeds = point.crop_layers or point.min_mask_area or point.drop_contained or point.skip_settled
    check_mode(point.mode, point.discover, bool(works_on_seeds))
    if point.match_every != 1 and point.mode != "fast":
        raise SettingsError(f"match_every is for mode fast, and this is mode {point.mode}: leave it out")
    if point.discover >= point.window:
        raise SettingsError(f"discover {point.discover} never comes in windows of {point.window} frames")
    if point.smooth != "none" and point.vote_weight == "probability":
        raise SettingsError("smooth gives labels without probabilities, and vote_weight probability needs them")


def _shown(value: Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _hashed(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
