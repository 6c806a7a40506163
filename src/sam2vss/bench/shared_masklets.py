"""Masklets of SAM 2 that are found once and serve all rows of a bench.

What SAM 2 finds and follows depends on the frames and the engine's settings, not on base labels, unless savings look
at these: `--skip-settled` and `--drop-contained` choose masklets by their votes, `--max-masklets` those on unsteady
labels. Then every row finds its own. Else the first row that is made saves its masklets in its run folder, and the
others read them there. Carried masklets (`--carry`) are no exception: they go on from the masks of the window before,
and their ids, by which votes are carried, are saved with them.
"""

from collections.abc import Mapping

from ..artifacts import RunFolder
from ..run_info import compared_entries
from .plan import BenchPlan
from .recipes import run_folder


def is_worth_sharing(plan: BenchPlan) -> bool:
    """Tell whether several rows need masklets and all need the same ones."""
    follow = plan.engine.follow
    looks_at_labels = follow.skip_settled or follow.drop_contained or follow.max_masklets is not None
    return not looks_at_labels and sum(task.uses_sam2 for task in plan.tasks) > 1


def find_run_with_masklets(
    plan: BenchPlan, run: RunFolder | None = None, weights: Mapping[str, str] | None = None
) -> RunFolder | None:
    """Return a finished run of the bench that saved the masklets of all clips, None if there is none.

    Args:
        plan: Of the bench.
        run: The run that the masklets are for; those of other frames or weights are not taken. None: this is not
            looked at.
        weights: SHA-256 of SAM 2's files as they are now.
    """
    if not is_worth_sharing(plan):
        return None
    for task in plan.tasks:
        if not task.uses_sam2 or not (run_folder(plan, task) / "run.json").is_file():
            continue
        found = RunFolder.open(run_folder(plan, task))
        if _has_all(plan, found) and (run is None or _serves(found, run, weights or {})):
            return found
    return None


def _has_all(plan: BenchPlan, run: RunFolder) -> bool:
    """Tell whether all clips are done and the masklets of all their windows lie there."""
    return all(
        run.is_done(clip.name)
        and all(run.masklets_path(clip.name, window.start).is_file() for window in run.finished_windows(clip.name))
        for clip in plan.data.clips
    )


def _serves(found: RunFolder, run: RunFolder, weights: Mapping[str, str]) -> bool:
    """Tell whether masklets were found on the same frames with the same weights.

    All else that decides them stands in the bench's plan.json, and is compared before anything is run.
    """
    old, new = compared_entries(found.info), compared_entries(run.info)
    known = found.info["weights"]
    is_of_frames = all(old.get(key) == new[key] for key in new if key.startswith("clips."))
    return is_of_frames and all(known.get(name) == digest for name, digest in weights.items())
