"""`sam2vss evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .exit_codes import EXIT_DONE
from .options import Flag
from .run_folders import refuse_shards


def evaluate(
    truth: Path,
    predictions: Path,
    /,
    *,
    label_set: Path | None = None,
    prediction_label_set: Path | None = None,
    protocol: Literal["vspw", "cffm", "paper", "strict"] = "vspw",
    windows: Annotated[tuple[int, ...], Parameter(negative="")] = (8, 16),
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    per_class: Flag = False,
) -> int:
    """Score label maps against ground truth: mIoU, weighted IoU, mBIoU, mVC.

    Parameters
    ----------
    truth
        Ground truth: ROOT/VIDEO/FRAME.png, VSPW's ROOT/data/VIDEO/mask/FRAME.png, or one video's folder.
    predictions
        Predictions in one of these layouts, or a run folder.
    label_set
        Names and ids of the ground truth (label_set.json); default: the one in TRUTH, or of the run that TRUTH is.
    prediction_label_set
        The same for the predictions; default: that of the run where PREDICTIONS is one, else LABEL_SET.
    protocol
        Which published rule counts windows, clips and void.
    windows
        The n of mVC_n.
    only
        Score only these videos.
    json_file
        Write all scores here.
    per_class
        Print the scores of every class.
    """
    from ..artifacts import atomic_write_json
    from ..console import print_problem, print_rows
    from ..evaluate import evaluate_folders, scores_table
    from ..refiner import run_label_space, stored_label_space
    from ..types import LabelSpace

    for folder in (truth, predictions):
        refuse_shards(folder)
    space = stored_label_space(truth, label_set)
    other = run_label_space(predictions) if prediction_label_set is None else LabelSpace.from_json(prediction_label_set)
    result = evaluate_folders(truth, predictions, space, other, protocol, windows, only or None)
    if json_file is not None:
        atomic_write_json(json_file, result.to_json())
    print_rows(
        scores_table({predictions.resolve().name: result.scores}),
        f"{result.frames} frames, protocol {protocol}, percent",
    )
    if per_class:
        rows = [["class", "IoU", "share of truth"]]
        content = result.to_json()["per_class"]
        total = max(1, sum(entry["pixels"] for entry in content.values()))
        rows += [[name, _percent(entry["IoU"]), _percent(entry["pixels"] / total)] for name, entry in content.items()]
        print_rows(rows)
    for warning in result.warnings:
        print_problem(warning)
    return EXIT_DONE


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
