"""`sam2vss stability`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from .exit_codes import EXIT_DONE
from .progress import counting_bar
from .run_folders import refuse_shards


def stability(
    *labels: Path,
    frames: Path | None = None,
    flow: Literal["dis", "none"] = "dis",
    occlusion_check: bool = True,
    label_set: Path | None = None,
    id_offset: int | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Say how steady labels are, without ground truth: flips, and agreement along optical flow.

    Labels that never change score best, so these scores say how much labels flicker and not how good they are.

    Parameters
    ----------
    labels
        Run folders (base and refined labels are compared), or folders of label PNGs or panoptic predictions of the same
        clips.
    frames
        The pictures: video files, folders of pictures, or a data-set root; default: those that a run was made of.
    flow
        Optical flow that labels are followed along: dis (OpenCV), or none, which needs no pictures.
    occlusion_check
        Leave out pixels that are hidden in the next frame; finds flow there and back.
    label_set
        Names and ids of label PNGs (label_set.json); default: the one in the folder. A run's labels have its own.
    id_offset
        Added to every id in label PNGs: 1 where they count from 0 and the label set from 1, as VSPW's does.
    only
        Look only at these clips.
    json_file
        Write all scores here.
    """
    from ..artifacts import atomic_write_json
    from ..console import print_problem, print_rows
    from ..refiner import run_label_space, stored_label_space
    from ..stability import (
        CAUTION,
        differences_table,
        find_flow_method,
        find_label_sets,
        measure_stability,
        stability_table,
    )

    if not labels:
        raise SettingsError("no labels were given: pass run folders or folders of label PNGs")
    for folder in labels:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise SettingsError(f"{folder} {what}, expected a run folder or a folder of label PNGs")
        refuse_shards(folder)
    sets = [
        one
        for folder in labels
        for one in find_label_sets(
            folder, run_label_space(folder) or stored_label_space(folder, label_set), id_offset=id_offset
        )
    ]
    with counting_bar("frames") as progress:
        found = measure_stability(sets, frames, find_flow_method(flow), occlusion_check, only or None, progress)
    scores = found.sets[0].scores
    clips = "1 clip" if scores.clips == 1 else f"{scores.clips} clips"
    try:  # what one of terminal and file refuses, the other still gets
        print_rows(stability_table(found), f"{scores.frames} frames of {clips}, percent")
        if differences := differences_table(found):
            title = "differences in points" + (
                ", 95 % intervals over clips" if scores.clips > 1 else "; no intervals of 1 clip"
            )
            print_rows(differences, title)
        print(CAUTION)
        for warning in found.warnings:
            print_problem(warning)
    finally:
        if json_file is not None:
            atomic_write_json(json_file, found.to_json())
    return EXIT_DONE
