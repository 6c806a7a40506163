"""What a run remembers of a finished window: one line of `windows.jsonl`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import RunError, ShapeError
from .types import Frame, Refinement


@dataclass(frozen=True)
class MaskletRecord:
    """One masklet of a window.

    Attributes:
        id: Its number within the clip.
        class_id: Train id that won the vote, -1 where it abstained or had no votes.
        vote_share: Winning votes / all votes, [0, 1].
        predicted_iou: The model's own quality estimate, [0, 1].
        votes: Train id -> votes, without zeros; pixels, or probability mass.
    """

    id: int
    class_id: int
    vote_share: float
    predicted_iou: float
    votes: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WindowRecord:
    """One finished window; all sequences but `masklets` have one entry per frame.

    Attributes:
        video: Name of the clip.
        start: First frame.
        frames: Frame names, the stems of the files.
        pts: Timestamps in units of the clip's time base, None where there are none.
        coverage: Fraction of pixels inside at least one masklet.
        changed: Fraction of pixels whose refined label differs from the base label.
        flip_base: Fraction of pixels whose base label differs from the frame before, None for a clip's first frame.
        flip_refined: The same for refined labels.
        masklets: Summary of the masklets.
        seconds: Time spent, by stage.
        void: Fraction of pixels without a base label, before any were filled; empty where nobody noted it.
        void_left: Fraction of pixels without a refined label; the same.
    """

    video: str
    start: int
    frames: tuple[str, ...]
    pts: tuple[int | None, ...]
    coverage: tuple[float, ...]
    changed: tuple[float, ...]
    flip_base: tuple[float | None, ...]
    flip_refined: tuple[float | None, ...]
    masklets: tuple[MaskletRecord, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    void: tuple[float, ...] = ()
    void_left: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.start < 0 or not self.frames or len(set(self.frames)) != len(self.frames):
            raise ShapeError(f"a window needs start >= 0 and distinct frames, found {self.start} and {self.frames}")
        for name in ("pts", "coverage", "changed", "flip_base", "flip_refined"):
            if len(getattr(self, name)) != self.length:
                raise ShapeError(f"{name} has {len(getattr(self, name))} entries for {self.length} frames")
        for name in ("void", "void_left"):
            if len(getattr(self, name)) not in (0, self.length):
                raise ShapeError(f"{name} has {len(getattr(self, name))} entries for {self.length} frames")

    @property
    def length(self) -> int:
        return len(self.frames)

    @property
    def num_masklets(self) -> int:
        return len(self.masklets)

    def without_votes(self) -> "WindowRecord":
        """Leave out the votes, most of what a record weighs."""
        return replace(self, masklets=tuple(replace(masklet, votes={}) for masklet in self.masklets))

    @classmethod
    def of(
        cls,
        video: str,
        frames: Sequence[Frame],
        refinement: Refinement,
        last_base: np.ndarray | None = None,
        last_refined: np.ndarray | None = None,
        seconds: Mapping[str, float] | None = None,
        void_share: np.ndarray | None = None,
        void_left: np.ndarray | None = None,
    ) -> "WindowRecord":
        """Summarise a refined window.

        Args:
            video: Name of the clip.
            frames: The window's frames.
            refinement: Labels, votes and masklets of the window.
            last_base: Base labels (H, W) of the frame before the window, None at the start of a clip.
            last_refined: Its refined labels.
            seconds: Time spent, by stage.
            void_share: Fraction of the pixels of each frame without a base label, (L,).
            void_left: Fraction without a refined label, (L,).
        """
        masklets = refinement.masklets
        return cls(
            video=video,
            start=refinement.window.start,
            frames=tuple(frame.name for frame in frames),
            pts=tuple(frame.pts for frame in frames),
            coverage=tuple(float(share) for share in refinement.coverage),
            changed=tuple(
                float(np.mean(labels != base)) for labels, base in zip(refinement.labels, refinement.base, strict=True)
            ),
            flip_base=flip_rates(refinement.base, last_base),
            flip_refined=flip_rates(refinement.labels, last_refined),
            masklets=tuple(
                MaskletRecord(int(masklet_id), int(class_id), float(share), float(iou), _without_zeros(votes))
                for masklet_id, class_id, share, iou, votes in zip(
                    masklets.ids,
                    refinement.classes,
                    refinement.vote_share,
                    masklets.predicted_iou,
                    refinement.votes,
                    strict=True,
                )
            ),
            seconds=dict(seconds or {}),
            void=() if void_share is None else tuple(float(share) for share in void_share),
            void_left=() if void_left is None else tuple(float(share) for share in void_left),
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "WindowRecord":
        """Read what `to_dict` gives.

        Raises:
            RunError: If an entry is missing or of another kind.
        """
        try:
            return cls(
                video=str(content["video"]),
                start=int(content["start"]),
                frames=tuple(str(name) for name in content["frames"]),
                pts=tuple(None if pts is None else int(pts) for pts in content["pts"]),
                coverage=tuple(float(share) for share in content["coverage"]),
                changed=tuple(float(share) for share in content["changed"]),
                flip_base=_floats_or_none(content["flip_base"]),
                flip_refined=_floats_or_none(content["flip_refined"]),
                masklets=tuple(
                    MaskletRecord(
                        int(m["id"]),
                        int(m["class"]),
                        float(m["vote_share"]),
                        float(m["predicted_iou"]),
                        {int(label): _number(count) for label, count in m.get("votes", {}).items()},
                    )
                    for m in content["masklets"]
                ),
                seconds={str(stage): float(spent) for stage, spent in content["seconds"].items()},
                void=tuple(float(share) for share in content.get("void", ())),  # older runs have none
                void_left=tuple(float(share) for share in content.get("void_left", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ShapeError) as error:
            raise RunError(f"not the record of a window ({type(error).__name__}: {error})") from error

    def to_dict(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "start": self.start,
            "length": self.length,
            "frames": list(self.frames),
            "pts": list(self.pts),
            "coverage": list(self.coverage),
            "changed": list(self.changed),
            "flip_base": list(self.flip_base),
            "flip_refined": list(self.flip_refined),
            "void": list(self.void),
            "void_left": list(self.void_left),
            "num_masklets": self.num_masklets,
            "masklets": [
                {
                    "id": m.id,
                    "class": m.class_id,
                    "vote_share": m.vote_share,
                    "predicted_iou": m.predicted_iou,
                    "votes": dict(m.votes),
                }
                for m in self.masklets
            ],
            "seconds": dict(self.seconds),
        }


def _without_zeros(votes: np.ndarray) -> dict[int, float]:
    return {int(label): votes[label].item() for label in np.flatnonzero(votes)}


def flip_rates(labels: np.ndarray, before: np.ndarray | None) -> tuple[float | None, ...]:
    """Return the fraction of pixels of each frame whose label differs from the frame before.

    Args:
        labels: (L, H, W).
        before: (H, W) of the frame before the first one; without it the first entry is None.
    """
    earlier = [before, *labels[:-1]]
    return tuple(
        None if last is None else float(np.mean(now != last)) for now, last in zip(labels, earlier, strict=True)
    )


def _number(value: Any) -> float:
    return value if isinstance(value, int) else float(value)  # pixel counts stay whole numbers


def _floats_or_none(values: Sequence[Any]) -> tuple[float | None, ...]:
    return tuple(None if value is None else float(value) for value in values)
