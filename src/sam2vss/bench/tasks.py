"""The rows of a bench: what each is made of, and what it is called."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from ..boards.scoreboard import RowKind
from ..errors import SettingsError
from ..files import safe_name

RowName = Literal["static", "flow", "superpixel", "sam2"]
ROWS: Final[tuple[RowName, ...]] = get_args(RowName)
BASE: Final = "base"  # the row that the others are compared with


@dataclass(frozen=True)
class BaseModel:
    """Where base labels come from: a folder of label PNGs, or a model to run.

    Attributes:
        name: Name of the model in tables and folders.
        labels: Folder of label maps; None for a model.
        segmenter: Alias, hub id or folder of a model; None for label maps.
        is_named: Whether the user gave the name; only then can it be that of a published row.
    """

    name: str
    labels: Path | None = None
    segmenter: str | None = None
    is_named: bool = True

    @property
    def source(self) -> str:
        """Where the labels come from, in words."""
        return str(self.labels.resolve()) if self.labels is not None else f"model {self.segmenter}"


@dataclass(frozen=True)
class NamingModel:
    """A network that names SAM 2's masklets in place of the vote.

    Attributes:
        kind: A classifier of their features, or a learned fusion.
        name: Name in tables and folders.
        source: Alias, hub id or folder.
        is_named: As of `BaseModel`.
        encoder: Encoder of the features; None: it looks at none.
        encoder_fingerprint: Tells the encoder's features.
        vote: What a classifier names: "frame" (masks) or "window" (masklets).
    """

    kind: Literal["classifier", "fusion"]
    name: str
    source: str
    is_named: bool = True
    encoder: str | None = None
    encoder_fingerprint: str | None = None
    vote: str | None = None

    @property
    def row(self) -> str:
        """Row over base labels, the same whatever else is on the board: `I-cffm-b2_base`, `fusion-nano`."""
        return f"I-{self.name}_base" if self.kind == "classifier" else f"fusion-{self.name}"


@dataclass(frozen=True)
class Task:
    """One row to make and to score.

    Attributes:
        name: Name of the row in tables, unique on its board.
        row: "base", one of `ROWS`, `NamingModel.row`, or `name` where there is no base model.
        model: Its base model; None for a classifier alone and for labels made elsewhere.
        network: What names the masklets; None: votes, or there are no masklets.
    """

    name: str
    row: str
    model: BaseModel | None = None
    network: NamingModel | None = None

    @property
    def uses_sam2(self) -> bool:
        """Whether it needs masklets of SAM 2."""
        return self.network is not None or (self.model is not None and self.row == "sam2")

    @property
    def is_made_elsewhere(self) -> bool:
        """Whether its labels are only scored."""
        return self.model is None and self.network is None

    @property
    def is_base(self) -> bool:
        """Whether it holds the base labels of a model."""
        return self.model is not None and self.row == BASE

    @property
    def kind(self) -> RowKind:
        """What boards take it for."""
        if self.is_base:
            return "base"
        if self.is_made_elsewhere or (self.network is not None and self.network.kind == "classifier"):
            return "other"
        return "refined" if self.uses_sam2 else "control"


def make_tasks(
    models: Sequence[BaseModel], rows: Sequence[str], networks: Sequence[NamingModel], compare: Mapping[str, Path]
) -> Iterator[Task]:
    """Yield all rows of a bench in the order of its table."""
    for model in models:
        yield Task(model.name, BASE, model)
        for row in rows:
            yield Task(row_name(model.name, row), row, model)
        for network in networks:
            yield Task(_name_over_base(network, model, models, networks), network.row, model, network)
    for network in networks:
        if network.kind == "classifier":
            yield Task(f"I-{network.name}", f"I-{network.name}", None, network)
    for name in compare:
        yield Task(name, name)


def row_name(model: str, row: str) -> str:
    """Return the name of a row in tables: `unet`, `static-unet`, `SAM2-unet`."""
    return {BASE: model, "sam2": f"SAM2-{model}"}.get(row, f"{row}-{model}")


def _name_over_base(
    network: NamingModel, model: BaseModel, models: Sequence[BaseModel], networks: Sequence[NamingModel]
) -> str:
    """Return the paper's name where it is clear whose base labels are meant: `I-SAM2_base`, `fusion-unet`.

    That is where there is one base model, or where the classifier is called like it: the paper's I-CFFM_base is the
    classifier on CFFM's features over CFFM's labels.
    """
    if network.kind == "fusion":
        is_only = len([other for other in networks if other.kind == "fusion"]) == 1
        return f"fusion-{model.name}" if is_only and not network.is_named else f"{network.row}-{model.name}"
    is_clear = len(models) == 1 or model.name.casefold() == network.name.casefold()
    return network.row if is_clear else f"{network.row}-{model.name}"


def model_name(text: str) -> str:
    """Return the name of a model that was given without one: the last part of its id or path."""
    return safe_name(text.rstrip("/").rsplit("/", 1)[-1])


def check_names(models: Sequence[BaseModel], networks: Sequence[NamingModel], compare: Mapping[str, Path]) -> None:
    """Refuse names that cannot be folders, and names that two rows would share.

    Rows that are not asked for count too, since they may join later.

    Raises:
        SettingsError: With the name.
    """
    if not models and not compare and not any(network.kind == "classifier" for network in networks):
        raise SettingsError(
            "there is nothing to bench: pass --labels NAME=DIR, --segmenter ID, --classifier PATH or --compare NAME=DIR"
        )
    for name in (*(model.name for model in models), *(network.name for network in networks), *compare):
        if not name or safe_name(name) != name:
            raise SettingsError(f"{name!r} cannot be the name of a folder; give another one: NAME=...")
    taken: set[str] = set()
    tasks = make_tasks(models, ROWS, networks, compare)
    for task in sorted(tasks, key=lambda task: not (task.is_base or task.is_made_elsewhere)):  # given names first
        if task.name.casefold() in taken:
            raise SettingsError(f"two rows would be called {task.name}; give one of them another name: NAME=...")
        taken.add(task.name.casefold())
