"""`sam2vss demo`: an unseen synthetic clip, segmented, refined, scored and reported, all offline."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from .artifacts import RunFolder, atomic_write_json
from .datasets.synthetic import LABEL_SPACE, TEST_SEEDS, SyntheticClip, export_vspw, render_clip
from .errors import RunError
from .evaluate import Evaluation, evaluate_folders
from .pipeline import Progress, RunSummary, VoteRule, refine_run
from .refiner import ArrayLabels, find_sam2, load_tracker
from .report import write_report
from .run_info import recorded_command
from .segmenters import ModelLabels, load_segmenter
from .settings import MaskletSettings, VoteSettings
from .types import Frame

DEMO_FRAMES = 48  # ours: one and a half windows, so that a window border is part of the picture
DEMO_SIZE = (240, 320)
FRAME_RATE = Fraction(15)  # VSPW's


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """A synthetic clip as a source of frames."""

    name: str
    clip: SyntheticClip
    path: Path
    kind: str = "images"
    frame_rate: Fraction | None = FRAME_RATE
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
            yield Frame(image, index, f"{index:08d}", time_s=index / FRAME_RATE)

    def fingerprint(self) -> str:
        """Hash the pixels."""
        return hashlib.sha256(self.clip.frames.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo made: scores of base and refined labels, the run's summary, and where everything lies."""

    base: Evaluation
    refined: Evaluation
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
    """Render a test clip, predict it with segformer-nano, refine it with sam2-nano, score and report both.

    An earlier demo in `out` is replaced. `out/scene` gets the clip as a data set in VSPW layout.

    Raises:
        RunError: If `out` holds something else.
        WeightsError: If the bundled weights are damaged.
    """
    command = recorded_command(out)
    if command not in (None, "demo"):
        raise RunError(f"{out} holds a run of `{command}`, and only an earlier demo is replaced; choose another --out")
    masklets, votes = masklets or MaskletSettings(), votes or VoteSettings()
    clip = RenderedClip(f"synthetic_{seed:06d}", render_clip(seed, num_frames, DEMO_SIZE), out / "scene")
    location = find_sam2("nano")
    segmenter = load_segmenter("segformer-nano")
    tracker = load_tracker(location, masklets, device="cpu")
    run = RunFolder.create(
        out,
        command="demo",
        settings={
            "masklets": masklets.model_dump(),
            "votes": votes.model_dump(),
            "sam2": "nano",
            "mode": "exact",
            "segmenter": "segformer-nano",
        },
        label_space=LABEL_SPACE,
        clips=[clip],
        seed=seed,
        weights={f"{location.id}/{name}": digest for name, digest in location.sha256().items()},
        overwrite=True,
    )
    export_vspw(out / "scene", [seed], num_frames, DEMO_SIZE)
    summary = refine_run(
        run,
        [clip],
        ModelLabels(segmenter),
        tracker,
        masklets.window,
        VoteRule(**votes.model_dump()),
        progress=progress,
        truth=ArrayLabels(clip.clip.labels, LABEL_SPACE),
    )
    base = evaluate_folders(out / "truth", out / "base", LABEL_SPACE)
    refined = evaluate_folders(out / "truth", out / "labels", LABEL_SPACE)
    atomic_write_json(run.scores_path, {"base": base.to_json(), "refined": refined.to_json()})
    return DemoResult(base, refined, summary, out, write_report(out))
