"""What a sweep will do, before it starts: windows of every point, and how much of their work is shared."""

from dataclasses import dataclass
from typing import Final

from ..types import split_windows
from .grid import Point
from .plan import AblationPlan
from .work import Work, compare

ASSUMED_MASKLETS: Final = 15  # ours: sam2-nano finds so many with the paper's thresholds; SAM 2 finds 20 to 60
COMMON_SHARE: Final = 0.7  # ours: of the masks of one setting, so many are among those of the others


@dataclass(frozen=True)
class PointForecast:
    """What one point needs.

    Attributes:
        name: Its name.
        windows: Windows of all clips.
        masklets: Where its masklets come from, in words.
    """

    name: str
    windows: int
    masklets: str


@dataclass(frozen=True)
class Forecast:
    """What all points need.

    Attributes:
        points: One entry a point.
        work: Work that will be done and work of separate runs, by kind in words; masks are a guess.
    """

    points: tuple[PointForecast, ...]
    work: dict[str, tuple[int, int]]


def forecast(plan: AblationPlan) -> Forecast:
    """Count windows, frames and points, and guess the masks that are followed."""
    lengths = [clip.num_frames_expected for clip in plan.data.clips]
    done, needed = Work(), Work()
    for length in lengths:
        clip_done, clip_needed = _clip_work(plan.grid.points, length)
        done += clip_done
        needed += clip_needed
    entries = [
        PointForecast(
            name=plan.grid.name_of(point),
            windows=sum(len(split_windows(length, point.window)) for length in lengths),
            masklets="shared" if point.is_shareable else "of its own",
        )
        for point in plan.grid.points
    ]
    return Forecast(tuple(entries), dict(compare(done, needed)))


def _clip_work(points: tuple[Point, ...], num_frames: int) -> tuple[Work, Work]:
    """Return work that will be done, and that of separate runs, on a clip of so many frames."""
    done, needed = Work(encoded=num_frames), Work()
    prompted: dict[tuple[int, int], int] = {}  # grids by frame: each is prompted once
    for number in range(num_frames):
        due = [point for point in points if number % point.window == 0]
        steps: dict[tuple[str, str], int] = {}
        for key, point in {point.tracks_key: point for point in due}.items():
            length = min(point.window, num_frames - number)
            seen = range(number, number + length, point.match_every) if point.mode == "fast" else (number,)
            prompted |= {(t, point.points): point.points**2 for t in seen}
            kind = (point.mode, point.seeds_key) if point.is_shareable else (point.mode, key)
            steps[kind] = max(steps.get(kind, 0), 0 if point.mode == "fast" else length - 1)
            users = sum(other.tracks_key == key for other in due)
            followed = 0 if point.mode == "fast" else ASSUMED_MASKLETS * (length - 1)
            needed += Work(users * length, users * len(seen) * point.points**2, users * followed)
        done += Work(followed=_shared_steps(list(steps.values())))
    return done + Work(prompted=sum(prompted.values())), needed


def _shared_steps(steps: list[int]) -> int:
    longest = max(steps, default=0)
    return round(ASSUMED_MASKLETS * (longest + (1 - COMMON_SHARE) * (sum(steps) - longest)))
