"""`sam2vss check-data`."""

from collections.abc import Sequence
from pathlib import Path

from .exit_codes import EXIT_DONE, EXIT_INPUT
from .options import Flag
from .progress import counting_bar


def check_data(root: Path, /, *, split: str | None = None, deep: Flag = False, label_set: Path | None = None) -> int:
    """Say which data set a folder is and what is wrong with it, before it costs a run.

    Parameters
    ----------
    root
        Folder of the data set: VSPW, VIPSeg, or videos with a label_set.json.
    split
        Look only at the videos in its train.txt, val.txt or test.txt.
    deep
        Decode every picture and every label map; else only names, sizes and the ends of files are read.
    label_set
        What the ids mean: vspw, vipseg or a label_set.json; default: the data set's own.
    """
    from ..datasets.catalogue import find_dataset
    from ..datasets.checks import check_dataset

    dataset = find_dataset(root, label_set)
    with counting_bar("checking") as progress:
        findings = check_dataset(root, split, deep, label_set, progress)
    classes = "unknown" if dataset.label_space is None else str(dataset.label_space.num_classes)
    facts = {"data set": dataset.name, "folder": str(root), "videos": str(len(dataset.folders)), "classes": classes}
    facts |= {
        f"split {name}": f"{len(videos)} video" + "s" * (len(videos) != 1) for name, videos in dataset.splits.items()
    }
    _print_texts([*facts.items(), *(("note", note) for note in dataset.notes)])
    lines = []
    for found in findings:
        number = f" ({found.count} in all)" if found.count > 1 else ""
        lines.append((found.severity, found.place, f"{found.problem}{number}: {found.fix}"))
    if findings:
        _print_texts([("", "where", "what, and what to do"), *lines])
    is_usable = not any(found.severity == "error" for found in findings)
    print("ready to use" if is_usable else "not ready: see the errors above")
    return EXIT_DONE if is_usable else EXIT_INPUT


def _print_texts(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of words, all columns left-aligned."""
    from rich.markup import escape
    from rich.table import Table

    from ..console import stdout

    table = Table(show_header=False, show_lines=len(rows[0]) > 2)
    for _ in rows[0]:
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    stdout.print(table)
