"""What `refine` and `classify` share: options of a run, the source of masklets, the run itself and what is printed."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import (
    DEFAULT_SAM2,
    EngineChoice,
    FollowSettings,
    MaskletSettings,
    Mode,
    Preset,
    Smoothing,
    VoteSettings,
    apply_preset,
    check_mode,
)
from .exit_codes import EXIT_DONE, EXIT_INCOMPLETE
from .options import Flag
from .run_folders import check_out

if TYPE_CHECKING:
    from ..console import RunBars
    from ..interfaces import BaseLabelSource, MaskletNamer, MaskletTracker
    from ..types import LabelSpace

    NamerLoader = Callable[[MaskletTracker, LabelSpace, str, str], tuple[MaskletNamer, dict[str, str]]]

LITTLE_COVERAGE = 0.5  # ours: below this share of the pixels, labels of masklets alone come with a warning
TRACKERS = ("sam2", "superpixel", "stored", "none")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that finds masklets and writes a run folder.

    Parameters
    ----------
    out
        Run folder to write: labels/VIDEO/FRAME.png, overlay/VIDEO.mp4, run.json, report.html.
    tracker
        Where masklets come from: sam2, superpixel (no weights), stored:DIR (saved by an earlier run), or none.
    smooth
        Smooth the base labels over time before the votes: majority of frames nearby, or along the optical flow.
    sam2
        SAM 2 weights: alias, hub id, local folder, Meta's .pt file, or "nano" (bundled, small, for tests and demos).
    mode
        exact: SAM 2's memory, as in the paper. fast: masks of every frame, matched. prompt: SAM 2's decoder alone.
        auto: exact on a GPU and with nano, else fast.
    preset
        A bundle of settings; single options override it. paper: exact. fast: mode fast. cpu: fast on small frames.
    image_size
        Size that frames are stretched to before SAM 2, a side or WIDTHxHEIGHT in multiples of 32. Default: the model's.
    device
        auto, cpu, cuda, cuda:1, mps.
    dtype
        Number format of the networks; auto: float32 on a CPU, bfloat16 elsewhere. fastest: what the device does best.
    compiled
        Compile what runs for every masklet (torch.compile); the first windows take minutes longer.
    save_masklets
        Write the masklets of every window, for --tracker stored:DIR.
    overlay
        Write a video with the labels over the frames.
    report
        Write report.html.
    resume
        Go on with the interrupted run in --out.
    overwrite
        Replace the run in --out.
    strict
        Exit with 3 if any frame could not be decoded.
    shard
        Take only the i-th of n parts of the clips, "i/n"; each part is a run of its own under --out.
    dry_run
        Say what would be done, and what it will cost, and do nothing.
    """

    out: Path
    tracker: str = "sam2"
    smooth: Smoothing = "none"
    sam2: str = DEFAULT_SAM2
    mode: Mode = "auto"
    preset: Preset | None = None
    image_size: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "fastest", "float32", "bfloat16", "float16"] = "auto"
    compiled: Annotated[bool, Parameter(name="--compile", negative="")] = False
    save_masklets: Flag = False
    overlay: bool = True
    report: bool = True
    resume: Flag = False
    overwrite: Flag = False
    strict: Flag = False
    shard: str | None = None
    dry_run: Flag = False


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a command labels frames and names masklets.

    Attributes:
        command: Its name.
        base: Loads the base labels, on a device in a number format, with the hashes of their weights.
        namer: Makes what names the masklets, given the tracker, the classes of the base labels, device and number
            format, with the hashes of its weights; None: they are voted for.
        settings: What decides the result besides the options of the run, for run.json.
        inputs: Files and folders that are read.
        plan: Lines for --dry-run, by name.
        has_base: Whether there are base labels; False: what no masklet covers stays void.
        check: Raises if the base model cannot be used; asked once source and folder are known to be good, as it may
            take seconds.
    """

    command: Literal["refine", "classify"]
    base: Callable[[str, str], tuple["BaseLabelSource", dict[str, str]]]
    namer: "NamerLoader | None" = None
    settings: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    plan: Mapping[str, object] = field(default_factory=dict)
    has_base: bool = True
    check: Callable[[], object] = lambda: None


def run_masklets(
    source: Sequence[Path],
    options: RunOptions,
    masklets: MaskletSettings,
    follow: FollowSettings,
    votes: VoteSettings,
    naming: Naming,
) -> int:
    """Check the options, find masklets, name them, paint them, and say what was done."""
    from ..media import find_clips
    from ..refiner import choose_mode, parse_image_size
    from ..segmentor import check_savings
    from ..trackers.stored import StoredMasklets

    started = time.monotonic()
    out, tracker, sam2 = options.out, options.tracker, options.sam2
    kind, stored = parse_tracker(tracker)
    if options.smooth != "none" and votes.vote_weight == "probability":
        raise SettingsError(
            "--smooth gives labels without probabilities, and --vote-weight probability needs them: drop one"
        )
    choice = EngineChoice(options.mode, parse_image_size(options.image_size), options.dtype)
    masklets, engine = apply_preset(options.preset, masklets, choice)
    clips = find_clips(list(source))
    if options.shard is not None:
        index, count = _parse_shard(options.shard)
        clips, out = clips[index - 1 :: count], out / f"shard-{index}-of-{count}"
        if not clips:
            raise SettingsError(f"--shard {options.shard} has no clips: there are fewer clips than parts")
    place = check_out(out, options.resume, options.overwrite)
    naming.check()
    if kind != "sam2" and options.mode != "auto":
        raise SettingsError(
            f"--mode {options.mode} says how SAM 2 follows masklets, and this is --tracker {tracker}: drop one"
        )
    mode = choose_mode(engine.mode, options.device, sam2)
    check_follow(follow, masklets, kind, mode)
    if naming.namer is not None:
        check_savings(follow)
    if stored:
        StoredMasklets(Path(stored))  # raises where there are none
    if options.dry_run:
        from ..plan import print_plan

        print_plan(clips, sam2 if kind == "sam2" else None, masklets, follow, engine, options.device, naming.has_base)
        lines = {**naming.plan, "out": f"{out} ({place})"}
        width = max(8, *(len(name) + 1 for name in lines))
        for name, value in lines.items():
            print(f"{name:<{width}}{value}")
        return EXIT_DONE

    from ..artifacts import RunFolder
    from ..console import RunBars, print_problem, print_summary, stderr
    from ..devices import choose_device, choose_dtype
    from ..files import folder_fingerprint
    from ..pipeline import VoteRule, check_clips, refine_run
    from ..report import write_report
    from ..smoothing import find_smoother

    device = choose_device(options.device)
    dtype_name = str(choose_dtype(engine.dtype, device)).removeprefix("torch.")
    stderr.print(
        _first_line(kind, sam2, tracker, mode, engine.mode == "auto", device, dtype_name), markup=False, highlight=False
    )
    base, weights = naming.base(device, dtype_name)
    check_clips(clips, base)
    bars = RunBars()
    masklet_source, tracker_weights = load_masklet_source(
        tracker, sam2, masklets, follow, mode, engine.image_size, device, dtype_name, bars, options.compiled
    )
    weights |= tracker_weights
    namer = None
    if naming.namer is not None:
        namer, namer_weights = naming.namer(masklet_source, base.label_space, device, dtype_name)
        weights |= namer_weights
    stored_folder = masklet_source.folder if isinstance(masklet_source, StoredMasklets) else None
    run = RunFolder.create(
        out,
        command=naming.command,
        settings={
            **naming.settings,
            "tracker": tracker,
            "stored_fingerprint": None if stored_folder is None else folder_fingerprint(stored_folder, out),
            "smooth": options.smooth,
            "sam2": sam2 if kind == "sam2" else None,
            "mode": mode if kind == "sam2" else None,
            "preset": options.preset,
            "image_size": engine.image_size,
            "compiled": options.compiled,
            "save_masklets": options.save_masklets,
            "masklets": masklets.model_dump(),
            "follow": follow.model_dump(),
            "votes": votes.model_dump(),
        },
        label_space=base.label_space,
        clips=clips,
        device=device,
        dtype=dtype_name,
        weights=weights,
        inputs=[*naming.inputs, *([stored_folder] if stored_folder is not None else [])],
        overwrite=options.overwrite,
        resume=options.resume,
    )
    with bars:
        summary = refine_run(
            run,
            clips,
            base,
            masklet_source,
            masklets.window,
            VoteRule(**votes.model_dump()),
            options.overlay,
            bars,
            smoother=None if options.smooth == "none" else find_smoother(options.smooth, base.label_space.ignore_index),
            namer=namer,
            carry=follow.carry,
            save_masklets=options.save_masklets,
        )
    seconds = time.monotonic() - started
    report_path = write_report(out) if options.report else None  # all files come before stdout, which may be closed
    print_summary(summary, seconds, "refined" if naming.command == "refine" else "classified", naming.has_base)
    if report_path is not None:
        print(f"report  {report_path}")
    print(f"labels  {out / 'labels'}")
    if not summary.masklets and not naming.has_base:
        print_problem("no masklet was found, so nothing is labelled: pass --base, or lower --pred-iou or --stability")
    elif kind != "none" and not summary.masklets:
        print_problem(
            "no masklet was found, so the labels are those that came in; try a lower --pred-iou or --stability"
        )
    if not naming.has_base and summary.masklets and summary.coverage < LITTLE_COVERAGE:
        print_problem(_little_coverage(summary.coverage, kind))
    for problem in summary.problems:
        print_problem(problem)
    return EXIT_INCOMPLETE if options.strict and summary.problems else EXIT_DONE


def parse_tracker(text: str) -> tuple[str, str]:
    """Read `--tracker`: its kind, and the folder of stored masklets or nothing."""
    kind, _, stored = text.partition(":")
    if kind not in TRACKERS or (kind == "stored") != bool(stored):
        raise SettingsError(f"--tracker {text} is unknown, expected sam2, superpixel, stored:DIR or none")
    return kind, stored


def load_masklet_source(
    tracker: str,
    sam2: str,
    masklets: MaskletSettings,
    follow: FollowSettings,
    mode: Mode,
    image_size: tuple[int, int] | None,
    device: str,
    dtype: str,
    bars: "RunBars",
    compiled: bool = False,
) -> tuple["MaskletTracker", dict[str, str]]:
    """Load what `--tracker` names, with the hashes of its weights."""
    kind, stored = parse_tracker(tracker)
    if kind != "sam2":
        return _tracker_without_weights(kind, Path(stored)), {}
    from ..refiner import load_tracker
    from ..sam2.loading import find_sam2

    location = find_sam2(sam2)
    source = load_tracker(
        location,
        masklets,
        follow,
        mode=mode,
        image_size=image_size,
        device=device,
        dtype=dtype,
        compiled=compiled,
        on_frame=bars.tracked_frame,
    )
    return source, {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}


def _parse_shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise SettingsError(f"--shard {text} is not of the form i/n with 1 <= i <= n, such as 2/4")
    return int(found[1]), int(found[2])


def check_follow(follow: FollowSettings, masklets: MaskletSettings, tracker: str, mode: str) -> None:
    """Refuse options that would do nothing, or do not go with the mode."""
    given = [name for name, value in follow.model_dump().items() if value != FollowSettings.model_fields[name].default]
    known = {"sam2": list(FollowSettings.model_fields), "stored": ["carry"]}.get(tracker, [])
    useless = [name for name in given if name not in known]
    if useless:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise SettingsError(f"{options} would do nothing with --tracker {tracker}: leave it out, or use --tracker sam2")
    if tracker != "sam2":
        return
    if follow.discover >= masklets.window:
        raise SettingsError(
            f"--discover {follow.discover} never comes in windows of {masklets.window} frames: pass a smaller number"
        )
    works_on_seeds = masklets.crop_layers or masklets.min_mask_area or follow.drop_contained or follow.skip_settled
    check_mode(mode, follow.discover, bool(works_on_seeds))
    if mode != "fast" and follow.match_every != 1:
        raise SettingsError(f"--match-every is for --mode fast, and this is mode {mode}: leave it out")


def _first_line(kind: str, sam2: str, tracker: str, mode: str, is_auto: bool, device: str, dtype: str) -> str:
    if kind != "sam2":
        return f"masklets: {tracker}; networks on {device}, {dtype}"
    why = " (auto: exact SAM 2 is slow on a CPU; --mode exact is the paper's)" if is_auto and mode == "fast" else ""
    return f"mode {mode}{why} on {device}, {dtype}; masklets: {sam2}"


def _little_coverage(coverage: float, tracker: str) -> str:
    ways = ["--base"]
    if tracker == "sam2":
        ways += ["lower --pred-iou and --stability"]
    if tracker != "superpixel":
        ways += ["--tracker superpixel"]
    return (
        f"masklets cover {100 * coverage:.1f} % of the pixels, the rest is unlabelled: pass "
        f"{', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}"
    )


def _tracker_without_weights(kind: str, folder: Path) -> "MaskletTracker":
    from ..trackers.nothing import NoTracker
    from ..trackers.stored import StoredMasklets
    from ..trackers.superpixels import SuperpixelTracker

    if kind == "stored":
        return StoredMasklets(folder)
    return SuperpixelTracker() if kind == "superpixel" else NoTracker()
