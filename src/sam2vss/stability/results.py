"""How steady sets of labels are, as numbers to store and rows to print."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ..metrics import PairedDifference
from ..metrics.stability_counts import StabilityCounts
from ..metrics.stability_scores import ClassStability, StabilityScores
from ..metrics.switches import SwitchCounts

CAUTION: Final = (
    "These scores know no truth: labels that never change score best, whatever they are. Read them beside scores "
    "against ground truth."
)
UNDEFINED: Final = "-"


@dataclass(frozen=True, eq=False)
class SetStability:
    """Scores of one set of labels.

    Attributes:
        name: Name of the set.
        scores: Over all clips.
        per_video: Of every clip by itself.
        per_class: In the order of train ids.
        class_names: In the same order.
        counts: The counts behind the scores, by clip.
        coverage: Mean share of pixels inside a masklet over the frames of its run, for refined labels of a run.
        switches: Label switches under the masklets of its run by clip, where the run saved them.
        against: Name of the set that differences are against.
        differences: This set minus that one, by score, each with its 95 % interval.
    """

    name: str
    scores: StabilityScores
    per_video: Mapping[str, StabilityScores]
    per_class: tuple[ClassStability, ...]
    class_names: tuple[str, ...]
    counts: Mapping[str, StabilityCounts] = field(repr=False)
    coverage: float | None = None
    switches: Mapping[str, SwitchCounts] | None = None
    against: str | None = None
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)

    @property
    def all_switches(self) -> SwitchCounts | None:
        """Switches of all clips together."""
        return None if self.switches is None else sum(self.switches.values(), SwitchCounts())

    def as_dict(self) -> dict[str, float | None]:
        """Return all scores by name; None where undefined, switches only where there are saved masklets."""
        switches = self.all_switches
        return {
            **self.scores.as_dict(),
            "coverage": self.coverage,
            **({} if switches is None else switches.as_dict()),
        }


@dataclass(frozen=True, eq=False)
class Stability:
    """Scores of several sets of labels of the same clips, and how they came about.

    Attributes:
        sets: In the order of the table.
        flow_name: Name of the flow, "" without.
        checks_occlusion: Whether pixels that are hidden in the next frame were left out, by flow there and back.
        warnings: What was seen but not counted, one sentence each.
    """

    sets: tuple[SetStability, ...]
    flow_name: str = ""
    checks_occlusion: bool = True
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dump` takes; scores in [0, 1], undefined ones null."""
        return {
            "caution": CAUTION,
            "flow": self.flow_name or None,
            "checks_occlusion": bool(self.flow_name) and self.checks_occlusion,
            "sets": {one.name: _set_to_json(one) for one in self.sets},
            "warnings": list(self.warnings),
        }


def _set_to_json(one: SetStability) -> dict[str, Any]:
    return {
        "scores": one.as_dict(),
        "frames": one.scores.frames,
        "clips": one.scores.clips,
        "per_video": {
            clip: {
                **scores.as_dict(),
                "frames": scores.frames,
                **({} if one.switches is None else one.switches[clip].as_dict()),
            }
            for clip, scores in one.per_video.items()
        },
        "per_class": [
            {
                "name": name,
                "flip_rate": _none_if_nan(found.flip_rate),
                "flow_iou": _none_if_nan(found.flow_iou),
                "pixels": found.pixels,
            }
            for name, found in zip(one.class_names, one.per_class, strict=True)
        ],
        "switches": None if one.all_switches is None else asdict(one.all_switches),
        "against": one.against,
        "differences": {
            name: {**asdict(found), "difference": _none_if_nan(found.difference)}
            for name, found in one.differences.items()
        },
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def stability_table(found: Stability) -> list[list[str]]:
    """Return the scores as rows of text: a header, then one row per set, in percent with two digits.

    "DIS mIoU" and "DIS agreement" are flow consistency and flow agreement with that flow. Columns that no set has a
    value for are left out, and "unlabelled" where all pixels have a class. "switches/100" are label switches in 100
    frames of a masklet, "switching" is the share of masklets that switch at all.
    """
    scores = [one.as_dict() for one in found.sets]
    shown = {head: key for head, key in _columns(found).items() if any(row.get(key) is not None for row in scores)}
    if not any(row["unlabelled_share"] for row in scores):
        shown.pop("unlabelled", None)
    rows = [
        [one.name, *(_percent(row.get(key)) for key in shown.values())]
        for one, row in zip(found.sets, scores, strict=True)
    ]
    return [["labels", *shown], *rows]


def differences_table(found: Stability) -> list[list[str]]:
    """Return the differences between sets as rows of text, in percentage points with 95 % intervals.

    A header, then one row per difference; nothing where there is one set. Of one clip there are no intervals.
    """
    pairs = [one for one in found.sets if one.differences]
    shown = {head: key for head, key in _columns(found).items() if any(key in one.differences for one in pairs)}
    rows = [
        [f"{one.name} - {one.against}", *(_points(one.differences.get(key)) for key in shown.values()), _clips(one)]
        for one in pairs
    ]
    return [["difference", *shown, "clips"], *rows] if rows else []


def _columns(found: Stability) -> dict[str, str]:
    flow = found.flow_name
    return {
        "flips": "flip_rate",
        f"{flow.upper()} mIoU": f"flow_consistency_{flow}",
        f"{flow.upper()} agreement": f"flow_agreement_{flow}",
        "unlabelled": "unlabelled_share",
        "coverage": "coverage",
        "switches/100": "switch_rate",
        "switching": "switching_masklets",
    }


def _points(difference: PairedDifference | None) -> str:
    if difference is None or math.isnan(difference.difference):
        return UNDEFINED
    text = f"{100 * difference.difference:+.2f}"
    if difference.interval is None:
        return text
    low, high = difference.interval
    return f"{text} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _clips(one: SetStability) -> str:
    return str(max(difference.clips for difference in one.differences.values()))


def _percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:.2f}"
