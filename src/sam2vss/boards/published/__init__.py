"""Figures copied from the paper (arXiv 2512.01774, Tables 1 to 7), to stand beside ours, and how names are matched.

The figures lie in `tables.json` as printed, in percent. Nothing here is a result of this package.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ..scoreboard import Published, Setting

_FILE: Final = Path(__file__).with_name("tables.json")
_LEFT_OUT: Final = frozenset({"mit"})  # "MiT-B0" and "B0" are one backbone


@dataclass(frozen=True)
class PublishedRow:
    """One row of one of the paper's tables.

    Attributes:
        table: Number of the table.
        datasets: Names of the data set, the one to show first: "VSPW" or "VIPSeg", and what its forms are called.
        split: "val".
        names: Names that the row answers to, the one to show first.
        values: Fractions by the name of the score; what the paper leaves out is left out.
        setting: For an ablation, the setting that changes, else "".
        value: Its value in this row.
        height_px: Height of the frames that were scored, where the paper says it.
    """

    table: int
    datasets: tuple[str, ...]
    split: str
    names: tuple[str, ...]
    values: dict[str, float]
    setting: str = ""
    value: Setting = None
    height_px: int | None = None


def find_published(dataset: str, name: str, split: str = "val", height_px: int | None = None) -> Published | None:
    """Find the paper's row of Tables 1 to 3 for a data set and a model.

    A name is cut into its letters and digits, upper and lower case being the same and "MiT" left out; it matches if it
    has exactly the parts of the row's method and backbone, in any order: `cffm-b0`, `CFFM_MiT-B0` and `CFFM-B0` are
    CFFM with MiT-B0, `sam2-cffm-b0` is SAM2-CFFM with MiT-B0, `cffm` is nothing, since it names no backbone. Backbones
    may be left out only on VIPSeg, where the paper has one a method. Where two tables have the same row the first
    one counts.

    Args:
        dataset: Name of the data set, upper or lower case: VSPW, VSPW_480p, VIPSeg, VIPSeg_720P; others have no
            figures.
        name: Name of the model or row.
        split: Only "val" has figures.
        height_px: Height of the frames, where it is known: figures of another height do not match.

    Returns:
        The figures, or None.
    """
    parts = _parts(name)
    for row in read_published():
        is_set = dataset.casefold() in [known.casefold() for known in row.datasets] and row.split == split
        is_size = height_px is None or row.height_px in (None, height_px)
        if is_set and is_size and not row.setting and any(_parts(known) == parts for known in row.names):
            return Published(dict(row.values), f"{_source()}, Table {row.table}, {row.names[0]}")
    return None


def find_published_setting(setting: str, value: Setting) -> Published | None:
    """Find the paper's row of Tables 4 to 7 (SAM2-CFFM with MiT-B1 on VSPW) for one value of a setting.

    Args:
        setting: "window", "points", "pred_iou" or "stability"; others have no figures.
        value: Its value.

    Returns:
        The figures, or None.
    """
    for row in read_published():
        if row.setting and row.setting == setting and row.value == value and not isinstance(value, bool):
            return Published(dict(row.values), f"{_source()}, Table {row.table}, {row.names[0]}, {row.datasets[0]}")
    return None


def published_notes() -> tuple[str, ...]:
    """Return what is to be known about the figures, such as where the paper's tables disagree."""
    return tuple(_content()["notes"])


@cache
def read_published() -> tuple[PublishedRow, ...]:
    """Return all rows in the order of the tables."""
    return tuple(_rows())


def _rows() -> Iterator[PublishedRow]:
    for table in _content()["tables"]:
        for row in table["rows"]:
            method = " ".join(part for part in (row.get("method") or table["method"], _backbone(row, table)) if part)
            yield PublishedRow(
                table=table["table"],
                datasets=(table["dataset"], *table["also_called"]),
                split=table["split"],
                names=(method, *row.get("also", ())),
                values={name: round(percent / 100, 6) for name, percent in row["values"].items()},
                setting=table.get("setting", ""),
                value=row.get("value"),
                height_px=table.get("height_px"),
            )


def _backbone(row: dict[str, Any], table: dict[str, Any]) -> str:
    return str(row.get("backbone", table.get("backbone", "")))


def _parts(name: str) -> list[str]:
    """Cut a name into what tells one model from another; "++" belongs to a name ("DVIS++" is not "DVIS")."""
    return sorted(part for part in re.findall(r"[^\W_]+\+*", name.casefold()) if part not in _LEFT_OUT)


def _source() -> str:
    return str(_content()["source"])


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    assert content["unit"] == "percent", "tables.json holds percent"
    return content
