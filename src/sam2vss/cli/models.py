"""`sam2vss models`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import WeightsError
from .exit_codes import EXIT_DONE, EXIT_INPUT
from .options import Flag

if TYPE_CHECKING:
    from ..segmenters.catalogue import KnownModel
    from ..segmenters.kinds import ModelDescription

WIDE_TERMINAL = 170  # columns from which every line of the list fits into one row of a table


def models(
    path: str | None = None, /, *, json_output: Annotated[Flag, Parameter(name="--json", negative="")] = False
) -> int:
    """List what can be used as --segmenter, or say what one checkpoint or folder holds.

    Parameters
    ----------
    path
        A checkpoint file, a model's folder, or a name from the list; default: list all.
    json_output
        Print JSON instead of a table.
    """
    from ..segmenters.catalogue import find_known_model, known_models
    from ..segmenters.kinds import describe_model

    if path is None:
        lines = [_facts(model) for model in known_models()]
        print(json.dumps(lines, indent=2)) if json_output else _print_list(lines)
        return EXIT_DONE
    known = None if Path(path).exists() else find_known_model(path)
    if known is not None:
        _print_facts(_facts(known), json_output)
        return EXIT_DONE
    if not Path(path).exists():
        raise WeightsError(
            f"there is no file or folder {path}, and it is no name that is known here; `sam2vss models` lists those. "
            "Other models of the hub work too: --segmenter org/name"
        )
    found = describe_model(Path(path))
    _print_facts(_held(found), json_output)
    return EXIT_INPUT if found.problem else EXIT_DONE


def _facts(model: "KnownModel") -> dict[str, Any]:
    """Return a line of the catalogue as plain data, with the paper's figures where it has any."""
    return {
        "segmenter": model.name,
        "family": model.family,
        "class_set": model.class_set,
        "num_classes": model.num_classes,
        "size": model.size,
        "licence": model.licence,
        "weights": model.source,
        "published": model.published or _paper_score(model.paper_row),
        "here": model.place,
    }


def _paper_score(row: str) -> str:
    from ..boards.published import find_published

    found = find_published("VSPW", row) if row else None
    return f"{100 * found.values['mIoU']:.1f} mIoU, VSPW val (paper, Table 1)" if found else ""


def _held(found: "ModelDescription") -> dict[str, Any]:
    return {
        "path": str(found.path),
        "family": found.family,
        "class_set": found.class_set,
        "num_classes": found.num_classes,
        "parameters": found.parameters,
        "megabytes": found.megabytes,
        "licence": found.licence,
        "loads": not found.problem,
        "problem": found.problem,
    }


def _print_facts(facts: dict[str, Any], json_output: bool) -> None:
    """Print facts one below the other; what is not known is left out."""
    if json_output:
        print(json.dumps(facts, indent=2))
        return
    words = {"num_classes": "classes", "class_set": "label set", "loads": "can be loaded", "here": "on this machine"}
    rows = []
    for name, value in facts.items():
        if value in ("", None):
            continue
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        rows.append((words.get(name, name), f"{value:,}" if name == "parameters" else text))
    _print_table(rows)


def _print_list(lines: Sequence[dict[str, Any]]) -> None:
    from ..console import stdout

    head = ("--segmenter", "model", "classes", "size", "licence", "published by others", "weights")
    rows = [
        (
            line["segmenter"],
            line["family"],
            f"{line['class_set']}, {line['num_classes']}",
            line["size"],
            line["licence"],
            line["published"],
            line["here"] if line["here"] != "a file of yours" else line["weights"].rpartition(" ")[2],
        )
        for line in lines
    ]
    if stdout.width >= WIDE_TERMINAL:
        _print_table([head, *rows], has_head=True)
    else:
        for name, *facts in rows:
            stdout.print(name, style="bold", markup=False, highlight=False, soft_wrap=True)
            stdout.print("  " + "; ".join(fact for fact in facts if fact), markup=False, highlight=False)
    stdout.print(
        "More of one of them: sam2vss models NAME. Any other segmentation model that transformers loads works too: "
        "--segmenter org/name, or a folder.",
        markup=False,
        highlight=False,
    )


def _print_table(rows: Sequence[Sequence[str]], has_head: bool = False) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..console import stdout

    table = Table(show_header=has_head, show_lines=False)
    for number, name in enumerate(rows[0]):
        table.add_column(escape(name) if has_head else "", overflow="fold", no_wrap=not number)
    for row in rows[has_head:]:
        table.add_row(*map(escape, row))
    stdout.print(table)
