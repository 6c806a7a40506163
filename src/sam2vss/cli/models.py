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
FIRST_NAMES = 6  # of a model's classes, in a terminal
FILE_OF_YOURS = "a file of yours"


def models(
    path: str | None = None, /, *, json_output: Annotated[Flag, Parameter(name="--json", negative="")] = False
) -> int:
    """List what can be used as --segmenter, or say what one checkpoint or folder holds.

    Parameters
    ----------
    path
        A checkpoint file, a model's folder, or a name from the list or a part of one, such as cffm; default: list all.
    json_output
        Print JSON instead of a table: one object for a file, folder or whole name, else a list.
    """
    from ..segmenters.catalogue import find_known_models, known_models

    if path is None:
        _print_lines([_facts(model) for model in known_models()], json_output)
        return EXIT_DONE
    if _is_here(path):
        return _print_held(path, json_output)
    known = find_known_models(path)
    if not known:
        raise WeightsError(
            f"there is no file or folder {path}, and it is no name that is known here; `sam2vss models` lists those. "
            "Other models of the hub work too: --segmenter org/name"
        )
    if len(known) == 1:
        _print_facts(_facts(known[0]), json_output)
    else:
        _print_lines([_facts(model) for model in known], json_output)
    return EXIT_DONE


def _is_here(path: str) -> bool:
    from ..segmenters.vss.contexts import split_context

    return Path(path).exists() or Path(split_context(path)[0]).expanduser().exists()


def _print_held(path: str, json_output: bool) -> int:
    """Print what a file or folder holds; a context behind its name must be one that it has."""
    from ..segmenters.kinds import describe_model
    from ..segmenters.vss.contexts import check_context, split_context

    target, context = split_context(path)
    found = describe_model(Path(target).expanduser())
    if context is not None and not found.problem:
        check_context(context, found.contexts, path)
    _print_facts(_held(found), json_output)
    return EXIT_INPUT if found.problem else EXIT_DONE


def _facts(model: "KnownModel") -> dict[str, Any]:
    """Return a line of the catalogue as plain data, with the paper's figures where it has any."""
    return {
        "name": model.name,
        "family": model.family,
        "class_set": model.class_set,
        "num_classes": model.num_classes,
        "size": model.size,
        "licence": model.licence,
        "weights": model.source,
        "use": model.usage or f"--segmenter {model.name}",
        "published": model.published or _paper_score(model.paper_row),
        "here": model.place,
    }


def _paper_score(row: str) -> str:
    from ..boards.published import find_published

    found = find_published("VSPW", row) if row else None
    return f"{100 * found.values['mIoU']:.1f} mIoU, VSPW val (paper, Table 1)" if found else ""


def _held(found: "ModelDescription") -> dict[str, Any]:
    from ..segmenters.vss.contexts import CONTEXTS

    return {
        "path": str(found.path),
        "family": found.family,
        "class_set": found.class_set,
        "num_classes": found.num_classes,
        "class_names": list(found.class_names),
        "contexts": {f"@{context}": CONTEXTS[context] for context in found.contexts},
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
    words = {
        "num_classes": "classes",
        "class_set": "label set",
        "class_names": "class names",
        "contexts": "also looks at",
        "loads": "can be loaded",
        "here": "on this machine",
    }
    rows = [(words.get(name, name), _in_words(name, value)) for name, value in facts.items() if value or value is False]
    _print_table(rows)


def _in_words(name: str, value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return "\n".join(f"{key}: {meaning}" for key, meaning in value.items())
        case list():
            return ", ".join(value[:FIRST_NAMES]) + ", ..." * (len(value) > FIRST_NAMES)
        case _:
            return f"{value:,}" if name == "parameters" else str(value)


def _print_lines(lines: Sequence[dict[str, Any]], json_output: bool) -> None:
    """Print lines of the catalogue."""
    from ..console import stdout

    if json_output:
        print(json.dumps(lines, indent=2))
        return
    head = ("name", "model", "classes", "size", "licence", "published by others", "weights")
    rows = [
        (
            line["name"],
            line["family"],
            f"{line['class_set']}, {line['num_classes']}",
            line["size"],
            line["licence"],
            line["published"],
            line["here"] if line["here"] != FILE_OF_YOURS else f".pth: {line['weights'].rpartition(' ')[2]}",
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
        "--segmenter takes these names, but for those whose weights come as a .pth file from their authors: there it "
        "takes the file. More of one of them: sam2vss models NAME. Any other segmentation model that transformers "
        "loads works too: --segmenter org/name, or a folder.",
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
