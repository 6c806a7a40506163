"""`sam2vss evaluate-panoptic`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .exit_codes import EXIT_DONE
from .options import Flag
from .progress import counting_bar


def evaluate_panoptic(
    truth: Path,
    predictions: Path,
    /,
    *,
    label_set: Path | None = None,
    prediction_label_set: Path | None = None,
    split: str | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    protocol: Literal["paper", "deeplab2", "vipseg", "deva"] = "paper",
    k: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (1, 2, 4, 6, 8),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    per_class: Flag = False,
) -> int:
    """Score panoptic label maps against ground truth: STQ and VPQ.

    Parameters
    ----------
    truth
        Ground truth: VIPSeg raw or at 720p, its panoptic_gt_*.json, or VIDEO/FRAME.png in VIPSeg's panoptic code.
    predictions
        Predictions in one of these forms, or a folder with pred.json and pan_pred (DVIS, DVIS++, CAVIS), or with a JSON
        list beside each picture (DEVA).
    label_set
        Classes of the ground truth: vspw, vipseg or a label_set.json; default: its own.
    prediction_label_set
        The same for the predictions; default: their own where they have one, else those of TRUTH.
    split
        Score only the videos of this list of TRUTH: train, val or test.
    only
        Score only these videos.
    protocol
        paper: as defined. deeplab2: as its script of STQ. vipseg: as VIPSeg's scripts. deva: as DEVA's copies of them.
    k
        Frames of the windows of VPQ.
    json_file
        Write all scores here, of every video and class too.
    per_class
        Print the scores of every class.
    """
    from ..artifacts import atomic_write_json
    from ..console import print_problem, print_rows
    from ..datasets.label_sets import find_label_space
    from ..evaluate_panoptic import evaluate_panoptic as score
    from ..evaluate_panoptic import panoptic_table, percent

    with counting_bar("frames") as progress:
        result = score(
            truth,
            predictions,
            None if label_set is None else find_label_space(label_set),
            None if prediction_label_set is None else find_label_space(prediction_label_set),
            protocol,
            k,
            split,
            only or None,
            progress,
        )
    title = f"{result.scores.frames} frames of {result.scores.clips} videos, protocol {protocol}, percent"
    try:  # what one of terminal and file refuses, the other still gets
        print_rows(panoptic_table({predictions.resolve().name: result.scores}), title)
        if per_class:
            rows = [["class", "IoU", "AQ", *(f"VPQ{n}" for n in result.scores.vpq), "tubes"]]
            for name, entry in zip(result.class_names, result.per_class, strict=True):
                *values, tubes = entry.as_dict().values()
                rows.append([name, *map(percent, values), str(tubes)])
            print_rows(rows)
        for warning in result.warnings:
            print_problem(warning)
    finally:
        if json_file is not None:
            atomic_write_json(json_file, result.to_json())
    return EXIT_DONE
