"""`sam2vss demo`: an unseen synthetic clip, segmented, refined, classified, scored and reported, all offline."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from .artifacts import RunFolder, atomic_write_json
from .datasets.synthetic import FRAME_RATE, LABEL_SPACE, TEST_SEEDS, SyntheticClip, export_vspw, render_clip
from .errors import RunError
from .evaluate import Evaluation, evaluate_folders
from .interfaces import BaseLabelSource, MaskletNamer, MaskletTracker
from .pipeline import Progress, RunSummary, VoteRule, refine_run
from .refiner import ArrayLabels, load_tracker
from .report import write_report
from .run_info import recorded_command
from .sam2.loading import find_sam2
from .segmenters import ModelLabels, StoredLabels, load_segmenter
from .segmenters.void import VoidLabels
from .segmentor import find_classifier, find_fusion, load_classifier, load_classifier_namer, load_fusion_namer
from .settings import FollowSettings, MaskletSettings, VoteSettings
from .trackers.stored import StoredMasklets
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
    """What the demo made: scores of base labels and of all that was made of them, and where everything lies.

    Attributes:
        scores: Scores by name, see `ROWS`; "base" and "refined" (mode exact, as in the paper) are among them.
        summary: What the exact run did.
        folder: Its run folder; the others are folders in it.
        report: Its report.
    """

    scores: dict[str, Evaluation]
    summary: RunSummary
    folder: Path
    report: Path


# Rows of scores.json besides "base", and the folder of their run under the demo's.
ROWS = {
    "fast": Path("fast"),
    "refined": Path(),
    "fusion": Path("fusion"),
    "I-SAM2": Path("i-sam2"),
    "I-SAM2 base": Path("i-sam2-base"),
}
SHOWN = ("fusion", "I-SAM2", "I-SAM2 base")  # beside base and refined labels in the report


def run_demo(
    out: Path,
    seed: int = TEST_SEEDS[0],
    num_frames: int = DEMO_FRAMES,
    masklets: MaskletSettings | None = None,
    votes: VoteSettings | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Render a test clip, predict it with segformer-nano, refine and classify it with sam2-nano, score and report.

    It is refined in modes exact and fast and by the learned fusion, and classified (I-SAM2) without and with base
    labels; all but fast share the masklets and features of the exact run. An earlier demo in `out` is replaced.
    `out/scene` gets the clip as a data set in VSPW layout, `ROWS` names the folders of the runs.

    Raises:
        RunError: If `out` holds something else.
        WeightsError: If the bundled weights are damaged.
    """
    for folder in (out / place for place in ROWS.values()):
        command = recorded_command(folder)
        if command not in (None, "demo"):
            raise RunError(
                f"{folder} holds a run of `{command}`, and only an earlier demo is replaced; choose another --out"
            )
    masklets, votes = masklets or MaskletSettings(), votes or VoteSettings()
    clip = RenderedClip(f"synthetic_{seed:06d}", render_clip(seed, num_frames, DEMO_SIZE), out / "scene")
    runs = _DemoRuns(out, clip, masklets, votes, seed, progress)
    summary = runs.refine_exact()
    export_vspw(out / "scene", [seed], num_frames, DEMO_SIZE)
    runs.classify(has_base=False)
    runs.classify(has_base=True)
    runs.fuse()
    runs.refine_fast()
    scores = {"base": evaluate_folders(out / "truth", out / "base", LABEL_SPACE)}
    for name, place in ROWS.items():
        scores[name] = evaluate_folders(out / "truth", out / place / "labels", LABEL_SPACE)
        if name != "refined":
            own = {"base": scores["base"].to_json(), "refined": scores[name].to_json()}
            atomic_write_json(out / place / "scores.json", own)
            write_report(out / place)
    atomic_write_json(out / "scores.json", {name: part.to_json() for name, part in scores.items()})
    report = write_report(out, others={name: out / ROWS[name] / "labels" for name in SHOWN})
    return DemoResult(scores, summary, out, report)


@dataclass(frozen=True)
class _Titled:
    """Passes progress on under the name of a row, as all runs have the same clip."""

    progress: Progress
    title: str

    def clip_started(self, name: str, num_frames: int | None) -> None:
        self.progress.clip_started(self.title, num_frames)

    def frames_done(self, name: str, count: int) -> None:
        self.progress.frames_done(self.title, count)

    def clip_finished(self, name: str) -> None:
        self.progress.clip_finished(self.title)


class _DemoRuns:
    """The runs of a demo; the first one, `refine_exact`, leaves its masklets and features to the others."""

    def __init__(
        self,
        out: Path,
        clip: RenderedClip,
        masklets: MaskletSettings,
        votes: VoteSettings,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.out, self.clip, self.masklets, self.votes = out, clip, masklets, votes
        self.seed, self.progress = seed, progress
        self.sam2 = find_sam2("nano")
        self.tracker = load_tracker(self.sam2, masklets, FollowSettings(), mode="exact", device="cpu")
        self.base: BaseLabelSource = ModelLabels(load_segmenter("segformer-nano"))

    def refine_exact(self) -> RunSummary:
        """Refine in mode exact; base labels, masklets and features are kept for the other runs."""
        classifier = load_classifier(find_classifier("nano"))
        self.namer = load_classifier_namer(classifier, self.tracker)
        summary = self._run("refined", {"sam2": "nano", "mode": "exact"}, self.tracker, self.base, save_masklets=True)
        self.base = StoredLabels(self.out / "base", LABEL_SPACE)
        return summary

    def refine_fast(self) -> None:
        """Refine in mode fast."""
        follow = FollowSettings(match_every=FAST_EVERY)
        tracker = load_tracker(self.sam2, self.masklets, follow, mode="fast", device="cpu")
        settings = {"sam2": "nano", "mode": "fast", "follow": follow.model_dump()}
        self._run("fast", settings, tracker, self.base)

    def classify(self, has_base: bool) -> None:
        """Let the bundled classifier name the masklets; base labels fill what they leave, or nothing does."""
        title = "I-SAM2 base" if has_base else "I-SAM2"
        base = self.base if has_base else VoidLabels(LABEL_SPACE)
        settings = {"classifier": "nano", "base": "segformer-nano" if has_base else None}
        self._run(title, settings, StoredMasklets(self.out), base, self.namer)

    def fuse(self) -> None:
        """Let the bundled fusion decide on the masklets."""
        namer = load_fusion_namer(find_fusion("nano"), LABEL_SPACE, self.tracker)
        namer.encoder = self.namer.encoder  # which has seen the frames
        self._run("fusion", {"fusion": "nano"}, StoredMasklets(self.out), self.base, namer)

    def _run(
        self,
        title: str,
        settings: Mapping[str, Any],
        tracker: MaskletTracker,
        base: BaseLabelSource,
        namer: MaskletNamer | None = None,
        save_masklets: bool = False,
    ) -> RunSummary:
        """Make the row of a name."""
        run = RunFolder.create(
            self.out / ROWS[title],
            command="demo",
            settings={
                "masklets": self.masklets.model_dump(),
                "votes": self.votes.model_dump(),
                "segmenter": "segformer-nano",
                **settings,
            },
            label_space=LABEL_SPACE,
            clips=[self.clip],
            seed=self.seed,
            weights={f"{self.sam2.id}/{name}": digest for name, digest in self.sam2.sha256().items()},
            overwrite=True,
        )
        return refine_run(
            run,
            [self.clip],
            base,
            tracker,
            self.masklets.window,
            VoteRule(**self.votes.model_dump()),
            progress=None if self.progress is None else _Titled(self.progress, title),
            truth=ArrayLabels(self.clip.clip.labels, LABEL_SPACE),
            namer=namer,
            save_masklets=save_masklets,
        )
