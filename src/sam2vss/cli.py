"""The command line: turns words into calls, errors into exit codes. Nothing else knows that it exists.

Exit codes: 0 done, 1 our bug, 2 the user's input, 3 done but incomplete under --strict, 130 interrupted. Heavy
libraries are imported inside the commands, so that `--help` stays fast.
"""

import errno
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from .errors import RunError, Sam2VssError, SettingsError
from .settings import (
    DEFAULT_SAM2,
    DEFAULT_SEGMENTER,
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

if TYPE_CHECKING:
    from .interfaces import BaseLabelSource, MaskletTracker

EXIT_DONE, EXIT_BUG, EXIT_INPUT, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

TRACKERS = ("sam2", "superpixel", "stored", "none")
COMMANDS = ("refine", "evaluate", "demo", "report", "doctor", "train")

Flag = Annotated[bool, Parameter(negative="")]

app = App(
    name="sam2vss",
    help="Temporally consistent, sharp-edged semantic masks for any video.",
    version=lambda: version("sam2vss"),
    suppress_keyboard_interrupt=False,  # `run` answers it
)
app.meta.suppress_keyboard_interrupt = False
train = App(name="train", help="Train models.")
app.command(train)


@app.command
def refine(
    *source: Path,
    out: Path,
    labels: Path | None = None,
    segmenter: str | None = None,
    label_set: Path | None = None,
    tracker: str = "sam2",
    smooth: Smoothing = "none",
    sam2: str = DEFAULT_SAM2,
    mode: Mode = "auto",
    preset: Preset | None = None,
    image_size: str | None = None,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    follow: Annotated[FollowSettings, Parameter(name="*")] = FollowSettings(),  # noqa: B008 (frozen)
    votes: Annotated[VoteSettings, Parameter(name="*")] = VoteSettings(),  # noqa: B008 (frozen)
    device: str = "auto",
    dtype: Literal["auto", "fastest", "float32", "bfloat16", "float16"] = "auto",
    compiled: Annotated[bool, Parameter(name="--compile", negative="")] = False,
    save_masklets: Flag = False,
    overlay: bool = True,
    report: bool = True,
    resume: Flag = False,
    overwrite: Flag = False,
    strict: Flag = False,
    shard: str | None = None,
    dry_run: Flag = False,
) -> int:
    """Make the labels of videos consistent over time and sharp at the edges.

    Parameters
    ----------
    source
        Video files, folders of pictures, data-set roots, or text files that list them.
    out
        Run folder to write: labels/VIDEO/FRAME.png, overlay/VIDEO.mp4, run.json, report.html.
    labels
        Base labels: a folder of label PNGs.
    segmenter
        Base labels by a model: alias, hub id or local folder. Default where --labels is not given: segformer-b2.
    label_set
        Names, colours and ids of the label PNGs (label_set.json).
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
        Write a video with the refined labels over the frames.
    report
        Write report.html.
    resume
        Go on with the interrupted run in --out.
    overwrite
        Replace the run in --out.
    strict
        Exit with 3 if any frame could not be decoded.
    shard
        Refine only the i-th of n parts of the clips, "i/n"; each part is a run of its own under --out.
    dry_run
        Say what would be done, and what it will cost, and do nothing.
    """
    from .console import RunBars, print_problem, print_summary, stderr
    from .media import find_clips
    from .refiner import choose_mode, parse_image_size
    from .trackers.stored import StoredMasklets

    _limit_noise()
    started = time.monotonic()
    kind, _, stored = tracker.partition(":")
    if kind not in TRACKERS or (kind == "stored") != bool(stored):
        raise SettingsError(f"--tracker {tracker} is unknown, expected sam2, superpixel, stored:DIR or none")
    if labels is not None and segmenter is not None:
        raise SettingsError("--labels and --segmenter both give base labels: pass one of them")
    if labels is not None and not labels.exists():
        raise SettingsError(f"--labels {labels} does not exist")
    if smooth != "none" and votes.vote_weight == "probability":
        raise SettingsError(
            "--smooth gives labels without probabilities, and --vote-weight probability needs them: drop one"
        )
    masklets, engine = apply_preset(preset, masklets, EngineChoice(mode, parse_image_size(image_size), dtype))
    clips = find_clips(list(source))
    if shard is not None:
        index, count = _parse_shard(shard)
        clips, out = clips[index - 1 :: count], out / f"shard-{index}-of-{count}"
        if not clips:
            raise SettingsError(f"--shard {shard} has no clips: there are fewer clips than parts")
    place = _check_out(out, resume, overwrite)
    if kind != "sam2" and mode != "auto":
        raise SettingsError(f"--mode {mode} says how SAM 2 follows masklets, and this is --tracker {tracker}: drop one")
    mode = choose_mode(engine.mode, device, sam2)
    _check_follow(follow, masklets, kind, mode)
    if stored:
        StoredMasklets(Path(stored))  # raises where there are none
    if dry_run:
        from .plan import print_plan

        print_plan(clips, sam2 if kind == "sam2" else None, masklets, follow, engine, device)
        print(f"labels  {labels or segmenter or DEFAULT_SEGMENTER}")
        print(f"out     {out} ({place})")
        return EXIT_DONE

    from .artifacts import RunFolder
    from .devices import choose_device, choose_dtype
    from .files import folder_fingerprint
    from .pipeline import VoteRule, check_clips, refine_run
    from .report import write_report
    from .smoothing import find_smoother

    device = choose_device(device)
    dtype_name = str(choose_dtype(engine.dtype, device)).removeprefix("torch.")
    stderr.print(
        _first_line(kind, sam2, tracker, mode, engine.mode == "auto", device, dtype_name), markup=False, highlight=False
    )
    base, base_weights = _load_base(labels, segmenter, label_set, device, dtype_name, votes)
    check_clips(clips, base)
    bars = RunBars()
    if kind == "sam2":
        from .refiner import find_sam2, load_tracker

        location = find_sam2(sam2)
        masklet_source: MaskletTracker = load_tracker(
            location,
            masklets,
            follow,
            mode=mode,
            image_size=engine.image_size,
            device=device,
            dtype=dtype_name,
            compiled=compiled,
            on_frame=bars.tracked_frame,
        )
        weights = {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}
    else:
        masklet_source, weights = _tracker_without_weights(kind, Path(stored)), {}
    stored_folder = masklet_source.folder if isinstance(masklet_source, StoredMasklets) else None
    run = RunFolder.create(
        out,
        command="refine",
        settings={
            "labels": None if labels is None else str(labels.resolve()),
            "labels_fingerprint": None if labels is None else folder_fingerprint(labels, out),
            "segmenter": None if labels is not None else segmenter or DEFAULT_SEGMENTER,
            "tracker": tracker,
            "stored_fingerprint": None if stored_folder is None else folder_fingerprint(stored_folder, out),
            "smooth": smooth,
            "sam2": sam2 if kind == "sam2" else None,
            "mode": mode if kind == "sam2" else None,
            "preset": preset,
            "image_size": engine.image_size,
            "compiled": compiled,
            "save_masklets": save_masklets,
            "masklets": masklets.model_dump(),
            "follow": follow.model_dump(),
            "votes": votes.model_dump(),
        },
        label_space=base.label_space,
        clips=clips,
        device=device,
        dtype=dtype_name,
        weights={**base_weights, **weights},
        inputs=[path for path in (labels, label_set, stored_folder) if path is not None],
        overwrite=overwrite,
        resume=resume,
    )
    with bars:
        summary = refine_run(
            run,
            clips,
            base,
            masklet_source,
            masklets.window,
            VoteRule(**votes.model_dump()),
            overlay,
            bars,
            smoother=None if smooth == "none" else find_smoother(smooth, base.label_space.ignore_index),
            carry=follow.carry,
            save_masklets=save_masklets,
        )
    seconds = time.monotonic() - started
    report_path = write_report(out) if report else None  # all files come before stdout, which may be closed
    print_summary(summary, seconds)
    if report_path is not None:
        print(f"report  {report_path}")
    print(f"labels  {out / 'labels'}")
    if kind != "none" and not summary.masklets:
        print_problem(
            "no masklet was found, so the labels are those that came in; try a lower --pred-iou or --stability"
        )
    for problem in summary.problems:
        print_problem(problem)
    return EXIT_INCOMPLETE if strict and summary.problems else EXIT_DONE


@app.command
def evaluate(
    truth: Path,
    predictions: Path,
    /,
    *,
    label_set: Path | None = None,
    prediction_label_set: Path | None = None,
    protocol: Literal["vspw", "cffm", "paper", "strict"] = "vspw",
    windows: Annotated[tuple[int, ...], Parameter(negative="")] = (8, 16),
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    per_class: Flag = False,
) -> int:
    """Score label maps against ground truth: mIoU, weighted IoU, mBIoU, mVC.

    Parameters
    ----------
    truth
        Ground truth: ROOT/VIDEO/FRAME.png, VSPW's ROOT/data/VIDEO/mask/FRAME.png, or one video's folder.
    predictions
        Predictions in one of these layouts, or a run folder.
    label_set
        Names and ids of the ground truth (label_set.json); default: the one in TRUTH, or of the run that TRUTH is.
    prediction_label_set
        The same for the predictions; default: that of the run where PREDICTIONS is one, else LABEL_SET.
    protocol
        Which published rule counts windows, clips and void.
    windows
        The n of mVC_n.
    only
        Score only these videos.
    json_file
        Write all scores here.
    per_class
        Print the scores of every class.
    """
    from .artifacts import atomic_write_json
    from .console import print_problem, print_rows
    from .evaluate import evaluate_folders, scores_table
    from .refiner import run_label_space, stored_label_space
    from .types import LabelSpace

    for folder in (truth, predictions):
        _refuse_shards(folder)
    space = stored_label_space(truth, label_set)
    other = run_label_space(predictions) if prediction_label_set is None else LabelSpace.from_json(prediction_label_set)
    result = evaluate_folders(truth, predictions, space, other, protocol, windows, only or None)
    if json_file is not None:
        atomic_write_json(json_file, result.to_json())
    print_rows(
        scores_table({predictions.resolve().name: result.scores}),
        f"{result.frames} frames, protocol {protocol}, percent",
    )
    if per_class:
        rows = [["class", "IoU", "share of truth"]]
        content = result.to_json()["per_class"]
        total = max(1, sum(entry["pixels"] for entry in content.values()))
        rows += [[name, _percent(entry["IoU"]), _percent(entry["pixels"] / total)] for name, entry in content.items()]
        print_rows(rows)
    for warning in result.warnings:
        print_problem(warning)
    return EXIT_DONE


@app.command
def demo(
    *,
    out: Path = Path("runs/demo"),
    seed: int | None = None,
    frames: int | None = None,
) -> int:
    """Render, segment, refine, score and report a synthetic clip, offline, in under a minute.

    Parameters
    ----------
    out
        Run folder to write; an earlier demo there is replaced.
    seed
        Scene to render; default: the first test seed, which no model was trained on.
    frames
        Length of the clip; default 48.
    """
    from .console import RunBars, print_rows, print_summary, stderr
    from .datasets.synthetic import TEST_SEEDS
    from .demo import DEMO_FRAMES, run_demo
    from .evaluate import scores_table

    _limit_noise()
    started = time.monotonic()
    stderr.print(
        "rendering a clip, segmenting it with segformer-nano, refining it with sam2-nano: mode exact, then fast ..."
    )
    with RunBars() as bars:
        result = run_demo(
            out, TEST_SEEDS[0] if seed is None else seed, DEMO_FRAMES if frames is None else frames, progress=bars
        )
    print_summary(result.summary, time.monotonic() - started)
    named = {"base": result.base, "refined, mode fast": result.fast, "refined, mode exact": result.refined}
    rows = scores_table({name: part.scores for name, part in named.items()})
    print_rows(rows, f"scores of {result.base.frames} frames, percent")
    print(f"report  {result.report}")
    print(f"        {out / 'fast' / 'report.html'} (mode fast)")
    print(f"labels  {out / 'labels'}")
    print(f"scene   {out / 'scene'}")
    return EXIT_DONE


@app.command
def report(*runs: Path) -> int:
    """Write report.html of run folders again, also of unfinished ones.

    Parameters
    ----------
    runs
        Folders written by `refine` or `demo`.
    """
    from .report import write_report

    if not runs:
        raise SettingsError("no run folder was given; pass the --out folder of a run")
    for run in runs:
        _refuse_shards(run)
    reports = [write_report(run) for run in runs]
    for path in reports:
        print(path)
    return EXIT_DONE


@app.command
def doctor(*, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Say what is installed, which devices there are, and which weights are in reach.

    Parameters
    ----------
    json_output
        Print JSON instead of a table.
    """
    from . import doctor as checks
    from .console import print_rows

    _limit_noise()
    found = checks.collect()
    if json_output:
        print(json.dumps(checks.to_json(found), indent=2))
    else:
        print_rows([["check", "state", "found"], *checks.rows(found)])
    return EXIT_DONE


@train.command
def nano(
    *,
    out: Path = Path("runs/nano"),
    part: Literal["all", "sam2", "segformer"] = "all",
    seed: int = 0,
    threads: int = 2,
    smoke: Flag = False,
) -> int:
    """Train the bundled weights, sam2-nano and segformer-nano, from scratch on synthetic train scenes.

    Parameters
    ----------
    out
        Folder for metrics.jsonl, one checkpoint per stage and the models; finished stages are not repeated.
    part
        Which model.
    seed
        Seed of everything random.
    threads
        CPU threads.
    smoke
        A few steps only, to see that it runs.
    """
    import torch

    from .console import stderr
    from .training.nano import FULL, SMOKE, train_nano

    _limit_noise()
    torch.set_num_threads(threads)
    parts: tuple[Literal["sam2", "segformer"], ...] = ("segformer", "sam2") if part == "all" else (part,)
    train_nano(out, parts, SMOKE if smoke else FULL, seed, progress=lambda entry: stderr.print(entry))
    print(f"models  {out}")
    return EXIT_DONE


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> int:
    """Run a command; options can also come from a file.

    Parameters
    ----------
    config
        YAML file of options, such as "window: 16"; the command line wins over it.
    """
    for previous, token in zip(("", *tokens), tokens, strict=False):
        if not token.strip() or re.fullmatch(r"--[\w-]+=\s*", token):
            raise SettingsError(f"an empty value was given {f'after {previous}' * bool(previous)}".rstrip())
    if config is not None:
        from cyclopts.config import Dict

        options = _read_config(config)
        # one entry a command: with a flat file cyclopts would silently drop options named like a command (report)
        data = {**dict.fromkeys(COMMANDS, options), "train": {"nano": options}}
        app.config = (Dict(data, source=str(config.absolute())),)
    code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else EXIT_DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; only our own bugs raise."""
    app.config = ()  # forget the file of an earlier call in this process
    try:
        return _call(arguments)
    except Sam2VssError as error:
        _print_error(type(error).__name__, str(error))
        return EXIT_INPUT
    except CycloptsError as error:
        _print_error("usage", _usage_message(error))
        return EXIT_INPUT
    except KeyboardInterrupt:
        _print_error("interrupted", _way_on(arguments))
        return EXIT_INTERRUPTED


def _call(arguments: Sequence[str]) -> int:
    """Run the command and write out what it printed; a reader that left early is no failure, a full disk is."""
    try:
        code = app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except SystemExit as stop:  # how rich, which prints the help texts, answers a closed pipe
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return EXIT_DONE
    except OSError as error:
        is_stream = error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT)
        if not is_stream:
            raise
        with suppress(OSError, ValueError):  # what is left in the buffer must not fail once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return EXIT_DONE
        raise RunError(f"cannot write the standard output: {error.strerror}") from error
    return code if isinstance(code, int) else EXIT_DONE


def _way_on(arguments: Sequence[str]) -> str:
    """Say how to go on after an interruption."""
    if "refine" in arguments:
        return "finished windows are kept; go on with the same command and --resume"
    if "train" in arguments:
        return "the same command goes on from the last checkpoint"
    return "the same command starts again"


def _read_config(config: Path) -> dict[str, Any]:
    """Read a file of options: a flat mapping from option names to values."""
    import yaml

    if not config.is_file():
        raise SettingsError(f"--config {config} does not exist")
    try:
        options = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {config} cannot be read as YAML: {error}") from error
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise SettingsError(
            f'--config {config} must be a mapping such as "window: 16", but got {type(options).__name__}'
        )
    for key, value in options.items():
        if not isinstance(key, str):
            raise SettingsError(
                f'--config {config} has the key {key!r}, expected names of options such as "window: 16"'
            )
        if isinstance(value, dict) or (key in COMMANDS and key != "report"):
            raise SettingsError(
                f'--config {config} nests options under "{key}": options stand at top level, such as "window: 16", and '
                "belong to the command that is called"
            )
        if key == "config":
            raise SettingsError(f"--config {config} names another config: give all options in one file")
        if isinstance(value, str) and not value.strip():
            raise SettingsError(f"--config {config} gives an empty value for {key}")
    return options


def _check_out(out: Path, resume: bool, overwrite: bool) -> str:
    """Refuse a folder that is in use before weights are loaded or fetched; say in a word what becomes of it."""
    from .files import is_temporary
    from .run_info import describe

    if resume and overwrite:
        raise RunError("--overwrite starts again and --resume goes on: give one of them")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    if not (out.is_dir() and any(not is_temporary(entry) for entry in out.iterdir())):
        return "free"
    if not (resume or overwrite):
        raise RunError(f"{out} {describe(out)}")
    return "the run there goes on" if resume else "the run there is replaced"


def _refuse_shards(folder: Path) -> None:
    """Raise `RunError` for the folder around the runs that `refine --shard` wrote."""
    shards = sorted(shard.name for shard in folder.glob("shard-*-of-*")) if folder.is_dir() else []
    if shards and not (folder / "run.json").exists():
        raise RunError(f"{folder} holds {len(shards)} shards ({', '.join(shards[:4])}), each a run: pass one of them")


def _usage_message(error: CycloptsError) -> str:
    """Say what was wrong with the words; pydantic's findings become one line per option."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ValidationError):
        lines = [
            f"--{'-'.join(str(part).replace('_', '-') for part in found['loc'])} {found['input']}: {found['msg']}"
            for found in cause.errors()
        ]
        return "\n".join(lines)
    return f"{error} (sam2vss --help lists commands and options)"


def _print_error(kind: str, text: str) -> None:
    from .console import print_error

    print_error(kind, text)


def _limit_noise() -> None:
    """Keep the libraries' chatter and telemetry off; must come before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on a busy machine multiply the time


def _parse_shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise SettingsError(f"--shard {text} is not of the form i/n with 1 <= i <= n, such as 2/4")
    return int(found[1]), int(found[2])


def _load_base(
    labels: Path | None, segmenter: str | None, label_set: Path | None, device: str, dtype: str, votes: VoteSettings
) -> tuple["BaseLabelSource", dict[str, str]]:
    from .refiner import stored_label_space
    from .segmenters import ModelLabels, StoredLabels, load_segmenter

    wants_probabilities = votes.vote_weight == "probability"
    if labels is not None:
        if wants_probabilities:
            raise SettingsError("--vote-weight probability needs a model: stored label PNGs hold no probabilities")
        return StoredLabels(labels, stored_label_space(labels, label_set)), {}
    model = load_segmenter(segmenter or DEFAULT_SEGMENTER, device, dtype, want_probabilities=wants_probabilities)
    return ModelLabels(model), {f"{model.location.id}/{name}": sha for name, sha in model.location.sha256().items()}


def _check_follow(follow: FollowSettings, masklets: MaskletSettings, tracker: str, mode: str) -> None:
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
        return f"masklets: {tracker}; base labels on {device}, {dtype}"
    why = " (auto: exact SAM 2 is slow on a CPU; --mode exact is the paper's)" if is_auto and mode == "fast" else ""
    return f"mode {mode}{why} on {device}, {dtype}; masklets: {sam2}"


def _tracker_without_weights(kind: str, folder: Path) -> "MaskletTracker":
    from .trackers.nothing import NoTracker
    from .trackers.stored import StoredMasklets
    from .trackers.superpixels import SuperpixelTracker

    if kind == "stored":
        return StoredMasklets(folder)
    return SuperpixelTracker() if kind == "superpixel" else NoTracker()


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
