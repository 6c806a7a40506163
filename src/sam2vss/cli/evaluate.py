"""`sam2vss evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from .exit_codes import EXIT_DONE
from .options import Flag
from .progress import counting_bar
from .run_folders import refuse_shards

if TYPE_CHECKING:
    from ..evaluate import Evaluation
    from ..metrics import PairedDifference
    from ..types import LabelSpace

MAX_BOOTSTRAP = 100_000  # ours: memory grows with draws times clips
NARROW = 64  # columns below which tables are turned, one score a row


def evaluate(
    truth: Path,
    predictions: Path,
    /,
    *others: Path,
    label_set: Path | None = None,
    prediction_label_set: Path | None = None,
    split: str | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    protocol: Literal["vspw", "cffm", "paper", "strict", "dvis-compat"] = "vspw",
    windows: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (8, 16),
    curve: Flag = False,
    boundary: Literal["band", "full"] = "band",
    bootstrap: int = 2000,
    colors: Flag = False,
    id_offset: int | None = None,
    resize_predictions: Flag = False,
    missing: Literal["error", "void"] = "error",
    workers: int = 1,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    per_class: Flag = False,
) -> int:
    """Score label maps against ground truth: mIoU, weighted IoU, mBIoU, mVC.

    Several sets of predictions are compared: differences are against the first, each with its 95 % interval.

    Parameters
    ----------
    truth
        Ground truth: ROOT/VIDEO/FRAME.png, VSPW's ROOT/data/VIDEO/mask/FRAME.png, or one video's folder.
    predictions
        Predictions in one of these layouts, or a run folder, or panoptic predictions as for refine --labels.
    others
        Further sets of predictions; differences are against the first.
    label_set
        Names and ids of the ground truth: vspw, vipseg or a label_set.json; default: that of TRUTH.
    prediction_label_set
        The same for the predictions; default: their own where they have one, else LABEL_SET.
    split
        Score the videos in TRUTH's train.txt, val.txt or test.txt.
    only
        Score only these videos.
    protocol
        Which published rule counts windows, clips and void.
    windows
        The n of mVC_n.
    curve
        Count mVC_n for n = 2..32 as well.
    boundary
        full: boundary scores at 2 % of the diagonal and boundary F as well.
    bootstrap
        Resamples behind the intervals.
    colors
        Predictions are pictures in the colours of their label set.
    id_offset
        Added to every stored id of the predictions: -1 where they are 1-based and the truth is 0-based.
    resize_predictions
        Bring predictions of another size to their truth's, by the nearest pixel.
    missing
        What a frame without prediction is: an error, or void, which counts as wrong.
    workers
        Processes that share the videos.
    json_file
        Write all scores here.
    per_class
        Print the scores of every class.
    """
    from ..artifacts import atomic_write_json
    from ..console import print_problem
    from ..datasets.predictions import PredictionForm
    from ..evaluate import compare, evaluate_folders
    from ..metrics import FEW_CLIPS

    if not 1 <= bootstrap <= MAX_BOOTSTRAP:
        raise SettingsError(f"--bootstrap must be 1 to {MAX_BOOTSTRAP}, found {bootstrap}")
    folders = (predictions, *others)
    for folder in (truth, *folders):
        if folder.is_symlink() and not folder.exists():  # Path.resolve raises where links run in a circle
            raise SettingsError(f"{folder} is a link that leads nowhere: mend it, or name another folder")
        if not folder.exists():
            raise SettingsError(f"{folder} does not exist; expected a folder of label maps")
        refuse_shards(folder)
    names = _distinct_names(folders)
    space = _truth_label_space(truth, label_set)
    form = PredictionForm(colors, id_offset, resize_predictions, missing)
    results: dict[str, Evaluation] = {}
    for name, folder in zip(names, folders, strict=True):
        with counting_bar(name) as progress:
            results[name] = evaluate_folders(
                truth, folder, space, _prediction_label_space(folder, prediction_label_set), protocol, windows,
                only or None, progress, split=split, form=form, boundary=boundary, curve=curve, workers=workers,
            )  # fmt: skip
    base = results[names[0]]
    differences = {name: compare(base, results[name], bootstrap) for name in names[1:]}
    try:  # what one of terminal and file refuses, the other still gets
        _print_scores(results, differences)
        if base.scores.protocol_fault:
            print_problem(base.scores.protocol_fault)
        if differences and 1 < base.scores.clips < FEW_CLIPS:
            print_problem(f"{base.scores.clips} clips are few: intervals over so few clips are too narrow")
        if per_class:
            _print_classes(results)
        for name, result in results.items():
            for warning in result.warnings:
                print_problem(warning if len(results) == 1 else f"{name}: {warning}")
    finally:
        if json_file is not None:
            atomic_write_json(json_file, _to_json(names, results, differences))
    return EXIT_DONE


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last parts, as few as tell them apart."""
    places = [folder.resolve() for folder in folders]
    parts = [place.parts for place in places]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1)
    raise SettingsError(f"{twice} was given twice; name every set of predictions once")


def _truth_label_space(truth: Path, label_set: Path | None) -> "LabelSpace":
    from ..datasets.label_sets import LABEL_SET_FILE, find_label_space
    from ..datasets.vipseg import find_vipseg
    from ..datasets.vspw import is_vspw
    from ..refiner import stored_label_space

    if label_set is not None:
        return find_label_space(label_set)
    if find_vipseg(truth) is not None:
        return find_label_space("vipseg")
    if is_vspw(truth) and not (truth / LABEL_SET_FILE).is_file():
        return find_label_space("vspw")
    return stored_label_space(truth, None)


def _prediction_label_space(predictions: Path, label_set: Path | None) -> "LabelSpace | None":
    from ..datasets.label_sets import LABEL_SET_FILE, find_label_space
    from ..refiner import run_label_space

    if label_set is not None:
        return find_label_space(label_set)
    if (predictions / LABEL_SET_FILE).is_file():
        return find_label_space(predictions)
    return run_label_space(predictions)


def _print_scores(
    results: "Mapping[str, Evaluation]", differences: "Mapping[str, Mapping[str, PairedDifference]]"
) -> None:
    from ..console import print_rows, stdout
    from ..evaluation_tables import boundary_table, curve_table, narrow_tables, scores_table

    base_name, base = next(iter(results.items()))
    scores = {name: result.scores for name, result in results.items()}
    named = {f"{name} - {base_name}": found for name, found in differences.items()}
    is_narrow = stdout.width < NARROW
    tables = narrow_tables(scores, named) if is_narrow else [scores_table(scores, named)]
    for number, rows in enumerate(tables):
        print_rows(rows, None if number else f"{base.frames} frames, protocol {base.protocol}, percent")

    def turn(rows: list[list[str]]) -> list[list[str]]:
        return [list(column) for column in zip(*rows, strict=True)] if is_narrow else rows

    if base.boundary == "full":
        print_rows(turn(boundary_table(scores)), "boundaries, percent")
    if base.curve:
        print_rows(turn(curve_table({name: result.curve for name, result in results.items()})))


def _print_classes(results: "Mapping[str, Evaluation]") -> None:
    from ..console import print_rows

    base = next(iter(results.values())).to_json()["per_class"]
    total = max(1, sum(entry["pixels"] for entry in base.values()))
    ious = {name: result.to_json()["per_class"] for name, result in results.items()}
    heads = ["IoU"] if len(ious) == 1 else [f"IoU {name}" for name in ious]
    rows = [["class", *heads, "share of truth"]]
    for name, entry in base.items():
        rows.append([name, *(_percent(own[name]["IoU"]) for own in ious.values()), _percent(entry["pixels"] / total)])
    print_rows(rows)


def _to_json(
    names: Sequence[str],
    results: "Mapping[str, Evaluation]",
    differences: "Mapping[str, Mapping[str, PairedDifference]]",
) -> dict[str, Any]:
    """The first set at top level; the others under "compared", each with its differences against the first."""
    from ..evaluation_tables import difference_json

    compared = {
        name: {
            **results[name].to_json(),
            "difference": {score: difference_json(found) for score, found in differences[name].items()},
        }
        for name in names[1:]
    }
    return {**results[names[0]].to_json(), "name": names[0], "compared": compared}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
