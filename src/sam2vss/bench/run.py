"""Runs a bench: base models first, then their rows, each made and scored by itself, in as many processes as asked."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

from ..boards.scoreboard import Scoreboard
from ..errors import RunError, Sam2VssError, SettingsError
from ..files import atomic_write_json
from ..pipeline import Progress
from ..sam2.loading import find_sam2
from .board import ScoredRow, make_board
from .folder import BOARD_FILE, describe_folder, locked, take_folder
from .pictures import make_pictures
from .plan import BenchPlan
from .rows import MadeRow, make_base, make_row
from .scoring import counts_path, score_labels
from .shared_masklets import find_run_with_masklets, is_worth_sharing
from .tasks import Task


class RowProgress(Progress, Protocol):
    """Told what goes on in one row."""

    def row_finished(self, is_made: bool) -> None:
        """The row is made and scored, or has failed."""
        ...


MakeProgress = Callable[[str, int], RowProgress]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a scored row, or the reason why there is none."""

    task: Task
    scored: ScoredRow | None = None
    problem: str = ""


def run_bench(
    plan: BenchPlan,
    *,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    progress: MakeProgress | None = None,
    say: Callable[[str], None] | None = None,
    command: str = "",
) -> Scoreboard:
    """Make and score every row, and write the board (`bench.json`) and its pictures.

    A row that fails is named in the board's warnings, and the others are made all the same. Tables, plots and a page
    come from the board: `boards.writing.write_board_files`.

    Args:
        plan: What to do.
        resume: Go on with what lies in the plan's folder: finished windows, runs and counts are kept.
        overwrite: Make everything anew.
        workers: Processes; each makes whole rows with its share of the machine's threads.
        progress: Gives what is told of a row's frames, from its name and its number of frames; with several processes
            it hears of whole rows only.
        say: Told in a sentence when a row is done or has failed.
        command: Command that makes the board again, for the record.

    Raises:
        RunError: If the folder is in use, or holds another bench than the one asked for.
        WeightsError: If SAM 2's weights cannot be had.
        Sam2VssError: If not one row could be made.
    """
    if workers < 1:
        raise SettingsError(f"--workers must be at least 1, found {workers}")
    describe_folder(plan.out, resume, overwrite)  # before a lock file is written into a folder of others
    with locked(plan.out):
        take_folder(plan, resume, overwrite)
        return _run(plan, _Runner(plan, overwrite, workers, progress, say or logger.info), command)


def _run(plan: BenchPlan, runner: "_Runner", command: str) -> Scoreboard:
    """Run all tasks in a folder that is ours alone, and write the board."""
    if any(task.uses_sam2 for task in plan.tasks):
        find_sam2(plan.engine.sam2)  # weights that cannot be had are known before hours of work
    first = [task for task in plan.tasks if task.is_made_elsewhere] + [task for task in plan.tasks if task.is_base]
    bases = runner.run(first)
    ready = [outcome.task.model for outcome in bases if outcome.scored and outcome.task.model]
    others = [task for task in plan.tasks if task not in first and (task.model is None or task.model in ready)]
    outcomes = bases + _run_rows(plan, runner, others)
    scored = {outcome.task: outcome.scored for outcome in outcomes if outcome.scored}
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    problems += [
        f"{model.name}: no row was made, since it has no base labels" for model in plan.models if model not in ready
    ]
    if not scored:
        raise RunError(f"no row could be made: {'; '.join(problems)}")
    rows = [scored[task] for task in plan.tasks if task in scored]
    board = make_board(plan, rows, make_pictures(plan, rows), problems, command)
    atomic_write_json(plan.out / BOARD_FILE, board.to_json())
    return board


def _run_rows(plan: BenchPlan, runner: "_Runner", tasks: Sequence[Task]) -> list[Outcome]:
    """Run all rows but the bases; one row that needs masklets goes before the others, which then use its masklets.

    Where it fails, or was made without saving them, the next one finds them.
    """
    outcomes: list[Outcome] = []
    waiting = [task for task in tasks if task.uses_sam2]
    others = [task for task in tasks if not task.uses_sam2]
    while waiting and is_worth_sharing(plan) and find_run_with_masklets(plan) is None:
        outcomes += runner.run([*others, waiting.pop(0)])
        others = []
    return outcomes + runner.run([*others, *waiting])


@dataclass(frozen=True)
class _Runner:
    """Runs tasks in this process, or in several."""

    plan: BenchPlan
    overwrite: bool
    workers: int
    progress: MakeProgress | None
    say: Callable[[str], None]

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        if not tasks:
            return outcomes
        for outcome in self._here(tasks) if self.workers == 1 else self._in_processes(tasks):
            self.say(_in_words(outcome))
            outcomes.append(outcome)
        return outcomes

    def _here(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in tasks:
            bar = self._bar(task)
            outcome = do_task(self.plan, task, self.overwrite, bar)
            _finish(bar, outcome)
            yield outcome

    def _in_processes(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        share = max(1, (os.cpu_count() or 1) // self.workers)
        pool = ProcessPoolExecutor(
            self.workers, get_context("spawn"), initializer=_limit_threads, initargs=(share,)
        )  # spawn: a forked process cannot use CUDA
        try:
            futures = {pool.submit(do_task, self.plan, task, self.overwrite): self._bar(task) for task in tasks}
            for future in as_completed(futures):
                try:
                    outcome = future.result()
                except BrokenProcessPool as error:
                    raise RunError(
                        "a process of the bench ended, perhaps for want of memory: go on with --resume, with fewer "
                        "--workers"
                    ) from error
                _finish(futures[future], outcome)
                yield outcome
        finally:
            pool.shutdown(cancel_futures=True)

    def _bar(self, task: Task) -> RowProgress | None:
        return self.progress(task.name, self.plan.data.num_frames) if self.progress is not None else None


def _finish(bar: RowProgress | None, outcome: Outcome) -> None:
    if bar is not None:
        bar.row_finished(outcome.scored is not None)


def do_task(plan: BenchPlan, task: Task, overwrite: bool = False, progress: Progress | None = None) -> Outcome:
    """Make and score one row; what a user, the disk or the device can cause ends up in the outcome, not as an error."""
    try:
        made = _make(plan, task, overwrite, progress)
        scored = ScoredRow(task, made, score_labels(plan, made.labels, counts_path(plan, task)))
    except Sam2VssError as error:
        return Outcome(task, problem=f"{task.name} failed ({type(error).__name__}): {error}")
    except (RuntimeError, MemoryError, OSError) as error:  # what a device or a disk may say
        logger.exception("%s failed", task.name)
        return Outcome(task, problem=f"{task.name} failed ({type(error).__name__}): {error}")
    return Outcome(task, scored)


def _make(plan: BenchPlan, task: Task, overwrite: bool, progress: Progress | None) -> MadeRow:
    if task.is_made_elsewhere:
        folder = plan.compare[task.name]
        return MadeRow(folder, {}, {"labels": str(folder)}, "")
    if task.is_base and task.model is not None:
        return make_base(plan, task.model, overwrite, progress)
    return make_row(plan, task, overwrite, progress)


def _limit_threads(count: int) -> None:
    """Let a process have its share of the machine's threads."""
    import cv2
    import torch

    cv2.setNumThreads(count)
    torch.set_num_threads(count)


def _in_words(outcome: Outcome) -> str:
    if outcome.scored is None:
        return outcome.problem
    scores = outcome.scored.evaluation.scores
    seconds = outcome.scored.made.facts.get("seconds")
    took = "" if seconds is None else f", {seconds:.3f} s a frame"
    return f"{outcome.task.name}: mIoU {100 * scores.miou:.2f}, mBIoU {100 * scores.mbiou:.2f}{took}"
