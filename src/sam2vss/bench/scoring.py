"""Scores of one row against the truth; its counts are stored, and used again while nothing they rest on changes."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..counts_files import read_counts, write_counts
from ..datasets.predictions import PredictionForm
from ..datasets.truth import other_void_values
from ..errors import RunError
from ..evaluate import Evaluation, evaluate_folders
from ..files import folder_fingerprint
from ..metrics import VideoSegMetrics
from .plan import BenchPlan
from .tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoringKey:
    """Everything that counts rest on; counts of another key are counted anew."""

    text: str

    @classmethod
    def of(cls, plan: BenchPlan, labels: Path) -> "ScoringKey":
        """Name the clips, the truth, the labels, and what is counted."""
        content = {
            "clips": plan.data.names,
            "truth": folder_fingerprint(plan.data.root, plan.out),
            "truth_label_set": plan.data.label_space.to_dict(),
            "labels": plan.fingerprint_of(labels),
            "label_set": plan.label_space_of(labels).to_dict(),
            "id_offset": plan.id_offset,  # ids that look shifted are refused without it only
            "counted": {name: value for name, value in _new_metrics(plan).state_dict().items() if name != "clips"},
        }
        return cls(json.dumps(content, sort_keys=True))


def counts_path(plan: BenchPlan, task: Task) -> Path:
    """Return where the counts of a row lie: in a folder of its base model where it has one."""
    folder = plan.out / "counts"
    return folder / f"{task.row}.npz" if task.model is None else folder / task.model.name / f"{task.row}.npz"


def score_labels(plan: BenchPlan, labels: Path, path: Path) -> Evaluation:
    """Score a folder of label maps; stored counts of the same labels and truth are used again.

    Args:
        plan: Says what is scored and how.
        labels: The folder.
        path: File of the counts.

    Raises:
        MissingPredictionsError: If frames have no label map.
        Sam2VssError: If a file cannot be read or scored.
    """
    key = ScoringKey.of(plan, labels)
    stored = _read(path, key)
    if stored is None:
        found = evaluate_folders(
            plan.data.root,
            labels,
            plan.data.label_space,
            plan.label_space_of(labels),
            protocol=plan.protocol,
            windows=plan.windows,
            only=plan.data.names,
            boundary=plan.boundary,
            form=PredictionForm(id_offset=plan.own_offset_of(labels)),
        )
        clips = {clip: counts.state_dict() for clip, counts in found.counts.items()}
        general = _evaluation(plan, clips, ()).warnings  # those that the protocol gives are made anew each time
        stored = {
            "key": key.text,
            "clips": clips,
            "notes": tuple(note for note in found.warnings if note not in general),
        }
        write_counts(path, stored)
    return _evaluation(plan, stored["clips"], stored["notes"])


def _read(path: Path, key: ScoringKey) -> dict[str, Any] | None:
    """Return stored counts, None where there are none, or where they rest on something else."""
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = read_counts(path)
    except RunError as error:
        logger.warning("%s; the row is scored anew", error)
        return None
    return stored if stored.get("key") == key.text else None


def _evaluation(plan: BenchPlan, clips: Mapping[str, Any], notes: Sequence[str]) -> Evaluation:
    """Score counts by clip under the plan's protocol."""
    metrics = _new_metrics(plan)
    metrics.load_state_dict({**metrics.state_dict(), "clips": clips})
    return Evaluation.from_metrics(metrics, plan.data.label_space, plan.protocol, notes)


def _new_metrics(plan: BenchPlan) -> VideoSegMetrics:
    """Return a counter as `evaluate_folders` has it."""
    space = plan.data.label_space
    other_void = tuple(other_void_values(space).values())
    return VideoSegMetrics(space.num_classes, space.ignore_index, plan.windows, other_void, boundary=plan.boundary)
