"""`sam2vss demo`: an unseen synthetic clip, segmented, refined, scored and reported, all offline."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from .artifacts import RunFolder, atomic_write_json
from .datasets.synthetic import FRAME_RATE, LABEL_SPACE, TEST_SEEDS, SyntheticClip, export_vspw, render_clip
from .errors import RunError
from .evaluate import Evaluation, evaluate_folders
from .pipeline import Progress, RunSummary, VoteRule, refine_run
from .refiner import ArrayLabels, load_tracker
from .report import write_report
from .run_info import recorded_command
from .sam2.loading import find_sam2
from .segmenters import ModelLabels, load_segmenter
from .settings import FollowSettings, MaskletSettings, VoteSettings
from .types import Frame

DEMO_FRAMES = 48  # ours: one and a half windows, so that a window border is part of the picture
DEMO_SIZE = (240, 320)
FAST_EVERY = 4  # ours: automatic masks on every 4th frame keep the demo under a minute


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """A synthetic clip as a source of frames."""

    name: str
    clip: SyntheticClip
    path: Path
    kind: str = "images"
    frame_rate: Fraction | None = Fraction(FRAME_RATE)
    time_base: Fraction | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    @property
    def num_frames_expected(self) -> int:
        return self.clip.num_frames

    @property
    def num_frames_estimate(self) -> int:
        return self.clip.num_frames

    def frames(self) -> Iterator[Frame]:
        """Stream the rendered frames."""
        for index, image in enumerate(self.clip.frames):
            yield Frame(image, index, f"{index:08d}", time_s=index / Fraction(FRAME_RATE))

    def fingerprint(self) -> str:
        """Hash the pixels."""
        return hashlib.sha256(self.clip.frames.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo made: scores of base and refined labels, the run's summary, and where everything lies.

    Attributes:
        base: Scores of the base labels.
        refined: Scores of the labels refined in mode exact, as in the paper.
        fast: Scores of those refined in mode fast.
        summary: What the exact run did.
        folder: Its run folder; the fast one is the folder `fast` in it.
        report: Its report.
    """

    base: Evaluation
    refined: Evaluation
    fast: Evaluation
    summary: RunSummary
    folder: Path
    report: Path


def run_demo(
    out: Path,
    seed: int = TEST_SEEDS[0],
    num_frames: int = DEMO_FRAMES,
    masklets: MaskletSettings | None = None,
    votes: VoteSettings | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Render a test clip, predict it with segformer-nano, refine it with sam2-nano in two modes, score and report.

    An earlier demo in `out` is replaced. `out/scene` gets the clip as a data set in VSPW layout, `out/fast` the run in
    mode fast.

    Raises:
        RunError: If `out` holds something else.
        WeightsError: If the bundled weights are damaged.
    """
    for folder in (out, out / "fast"):
        command = recorded_command(folder)
        if command not in (None, "demo"):
            raise RunError(
                f"{folder} holds a run of `{command}`, and only an earlier demo is replaced; choose another --out"
            )
    masklets, votes = masklets or MaskletSettings(), votes or VoteSettings()
    clip = RenderedClip(f"synthetic_{seed:06d}", render_clip(seed, num_frames, DEMO_SIZE), out / "scene")
    summary = _refine(out, clip, "exact", masklets, votes, seed, progress)
    export_vspw(out / "scene", [seed], num_frames, DEMO_SIZE)
    _refine(out / "fast", clip, "fast", masklets, votes, seed, progress)
    base = evaluate_folders(out / "truth", out / "base", LABEL_SPACE)
    refined = evaluate_folders(out / "truth", out / "labels", LABEL_SPACE)
    fast = evaluate_folders(out / "truth", out / "fast" / "labels", LABEL_SPACE)
    atomic_write_json(
        out / "scores.json", {"base": base.to_json(), "refined": refined.to_json(), "fast": fast.to_json()}
    )
    atomic_write_json(out / "fast" / "scores.json", {"base": base.to_json(), "refined": fast.to_json()})
    write_report(out / "fast")
    return DemoResult(base, refined, fast, summary, out, write_report(out))


def _refine(
    out: Path,
    clip: RenderedClip,
    mode: Literal["exact", "fast"],
    masklets: MaskletSettings,
    votes: VoteSettings,
    seed: int,
    progress: Progress | None,
) -> RunSummary:
    location = find_sam2("nano")
    follow = FollowSettings(match_every=FAST_EVERY if mode == "fast" else 1)
    tracker = load_tracker(location, masklets, follow, mode=mode, device="cpu")
    run = RunFolder.create(
        out,
        command="demo",
        settings={
            "masklets": masklets.model_dump(),
            "follow": follow.model_dump(),
            "votes": votes.model_dump(),
            "sam2": "nano",
            "mode": mode,
            "segmenter": "segformer-nano",
        },
        label_space=LABEL_SPACE,
        clips=[clip],
        seed=seed,
        weights={f"{location.id}/{name}": digest for name, digest in location.sha256().items()},
        overwrite=True,
    )
    return refine_run(
        run,
        [clip],
        ModelLabels(load_segmenter("segformer-nano")),
        tracker,
        masklets.window,
        VoteRule(**votes.model_dump()),
        progress=progress,
        truth=ArrayLabels(clip.clip.labels, LABEL_SPACE),
    )
