"""`sam2vss train segmenter`."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from .exit_codes import EXIT_DONE
from .options import Flag
from .training_features import Several

if TYPE_CHECKING:
    from ..dataset_clips import DatasetClips
    from ..training.segmenter import SegmenterRecipe
    from ..training.segmenter_folder import SegmenterJob


MIN_CROP = 32  # their deepest features have 1/32 of the sides; below 29 a kernel of SegFormer's does not fit in


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """What is trained on which data, and where it goes.

    Parameters
    ----------
    data
        Data set with pictures and truth: VSPW, VIPSeg, or a folder in such a layout.
    out
        Folder for the network (config.json, model.safetensors, model card), metrics.jsonl and TensorBoard events.
    model
        Where to start: segformer-nano (bundled), segformer-b0 to -b5 or another SegFormer or UPerNet by hub id or
        folder; a native model by name (segformer-vss-b2, cffm-b1, mrcfa-b0, tv3s-b1), which starts from random weights;
        a native checkpoint (.pth) or folder.
    backbone
        Encoder weights for a native model by name: ImageNet's mit_b1.pth, a hub id or folder (nvidia/mit-b1), or a
        native checkpoint or folder, of which all that fits is taken.
    split
        List of training clips; default: train where there is one, else val, else all clips.
    only
        Take only these training clips.
    val_data
        Data set of validation clips, by which the best weights are kept; default with --val-split or --val-only: DATA.
    val_split
        List of validation clips; default: val where there is one, else all clips.
    val_only
        Take only these validation clips.
    val_every
        Steps between validations; default: a tenth of all.
    label_set
        Names and ids of the truth: vspw, vipseg or a label_set.json; default: those of DATA.
    scale
        Longer x shorter side that frames are fitted into, in training (times --smallest to --largest) and at inference;
        "model": as the model's own preprocessing says.
    device
        auto, cpu, cuda, cuda:1, mps.
    workers
        Threads that make views while the network works; 0: none.
    save_every
        Steps between checkpoints, from which --resume goes on.
    resume
        Go on with a training that was begun; the outcome is the same.
    overwrite
        Replace the segmenter in --out.
    dry_run
        Say what would be trained, time two steps, and stop.
    """

    data: Path
    out: Path
    model: str
    backbone: str | None = None
    split: str | None = None
    only: Several = ()
    val_data: Path | None = None
    val_split: str | None = None
    val_only: Several = ()
    val_every: int | None = None
    label_set: str | None = None
    scale: str = "853x480"
    device: str = "auto"
    workers: int = 1
    save_every: int = 500
    resume: Flag = False
    overwrite: Flag = False
    dry_run: Flag = False


def segmenter(
    *,
    steps: int = 20_000,
    batch: int = 8,
    lr: float = 6e-5,
    head_factor: float = 10.0,
    decay: float = 0.01,
    warmup: int = 1500,
    crop: int = 480,
    smallest: float = 0.5,
    largest: float = 2.0,
    max_share: float = 0.75,
    light: bool = True,
    loss_mean: Literal["all", "labelled"] = "all",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    seed: int = 0,
    options: Annotated[SegmenterOptions, Parameter(name="*")],
) -> int:
    """Train or fine-tune a base model on labelled frames, for `refine --segmenter OUT`.

    Rates, views and loss are those of the published SegFormer, CFFM, MRCFA and TV3S configurations for VSPW.

    Parameters
    ----------
    steps
        Steps in all, over which the rate falls to zero. The published models take 160000 from ImageNet weights.
    batch
        Views a step; of video models each has four frames.
    lr
        Learning rate of the encoder.
    head_factor
        Factor of the head's rate.
    decay
        Weight decay of matrices and kernels; norms and biases have none.
    warmup
        Steps over which the rate grows from almost nothing; at most a tenth of all.
    crop
        Side of the square views, in pixels.
    smallest
        Least factor of the size at inference.
    largest
        Greatest factor.
    max_share
        A crop whose commonest class has this share of its labelled pixels is drawn again, up to ten times.
    light
        Vary brightness, contrast, saturation and hue, in each frame of a clip by itself.
    loss_mean
        all: void pixels count in the mean with a loss of 0, as the published models are trained; labelled: they do not.
    dtype
        Number format of the forward pass; auto: float32 on a CPU, bfloat16 elsewhere. Weights are float32.
    seed
        Seed of new weights, views and dropout.
    """
    from ..console import stderr
    from ..devices import choose_device, choose_dtype
    from ..training.segmenter import SegmenterRecipe
    from ..training.segmenter_folder import check_place, make_segmenter

    device = choose_device(options.device)
    chosen: Any = str(choose_dtype(dtype, device)).removeprefix("torch.")
    recipe = SegmenterRecipe(
        steps=steps,
        batch=batch,
        rate=_positive("--lr", lr),
        head_factor=_positive("--head-factor", head_factor),
        decay=_not_negative("--decay", decay),
        warmup=int(_not_negative("--warmup", warmup)),
        crop=crop,
        smallest=smallest,
        largest=largest,
        max_share=_positive("--max-share", max_share),
        light=light,
        loss_mean=loss_mean,
        dtype=chosen,
        seed=int(_not_negative("--seed", seed)),
    )
    _check(options, crop)
    goes_on = check_place(options.out, options.resume, options.overwrite)
    job = _job(options, recipe, device)
    for line in _notes(job, options, warmup):
        stderr.print(line, highlight=False, markup=False, soft_wrap=True)
    if options.dry_run:
        _print_plan(job)
        return EXIT_DONE
    with _steps(recipe.steps) as (say, on_step):
        progress = make_segmenter(job, goes_on, say, on_step)
    rows = [["training", "value"], ["steps", str(progress.step)]]
    if job.validation is not None:
        rows += [
            ["weights kept, of step", str(progress.best_step or progress.step)],
            [f"mIoU of {job.validation.title}", f"{100 * progress.best_miou:.2f}"],
            ["the same, last step", f"{100 * progress.last_miou:.2f}"],
        ]
    if progress.void_views:
        rows.append(["views without a label", f"{progress.void_views} of {recipe.steps * recipe.batch}"])
    _print_end(rows, job, progress.seen)
    return EXIT_DONE


def _check(options: SegmenterOptions, crop: int) -> None:
    if crop < MIN_CROP:
        raise SettingsError(
            f"--crop is {crop}, expected at least {MIN_CROP}: the networks look at 1/{MIN_CROP} of a view's sides"
        )
    if options.workers < 0:
        raise SettingsError(f"--workers is {options.workers}, expected 0 or more")
    for name, value in (("--save-every", options.save_every), ("--val-every", options.val_every)):
        if value is not None and value < 1:
            raise SettingsError(f"{name} is {value}, expected at least 1")
    if options.val_every is not None and not _validates(options):
        raise SettingsError("--val-every says how often to validate, and there are no clips for it: pass --val-data")
    if options.resume and options.overwrite:
        raise SettingsError("--resume keeps what was begun and --overwrite replaces it: pass one of them")


def _validates(options: SegmenterOptions) -> bool:
    return bool(options.val_data or options.val_split or options.val_only)


def _job(options: SegmenterOptions, recipe: "SegmenterRecipe", device: str) -> "SegmenterJob":
    """Find the data and load the model."""
    from ..dataset_clips import find_dataset_clips
    from ..datasets.label_sets import find_label_space
    from ..training.segmenter_folder import SegmenterJob
    from ..training.segmenter_samples import SampleSet
    from ..training.segmenter_start import load_start
    from .training_features import default_split

    label_space = None if options.label_set is None else find_label_space(options.label_set)
    split = options.split or default_split(options.data, "train", options.only, options.label_set)
    data = find_dataset_clips(options.data, split, options.only, label_space)
    validation: DatasetClips | None = None
    if _validates(options):
        root = options.val_data or options.data
        validation = find_dataset_clips(root, options.val_split, options.val_only, label_space)
    trainable = load_start(options.model, options.backbone, data.label_space, _scale(options.scale), recipe.seed)
    return SegmenterJob(
        trainable,
        SampleSet(data, trainable.num_frames),
        validation,
        recipe,
        options.out,
        device,
        options.workers,
        options.save_every,
        options.val_every or max(1, recipe.steps // 10),
    )


def _notes(job: "SegmenterJob", options: SegmenterOptions, warmup: int) -> Iterator[str]:
    """Say what a user should know before it starts."""
    samples, recipe = job.samples, job.recipe
    data = samples.data
    yield (
        f"{data.title}: {samples.num_labelled} labelled frames in {len(data.clips)} clips, "
        f"{data.label_space.num_classes} classes; {recipe.steps} steps of {recipe.batch} are "
        f"{recipe.steps * recipe.batch / len(samples):.1f} passes"
    )
    if len(samples) < samples.num_labelled:
        yield (
            f"{samples.num_labelled - len(samples)} labelled frames are left out: there are no frames 9, 6 and 3 "
            "before or after them"
        )
    yield from job.trainable.notes
    if recipe.warmup_steps < warmup:
        yield f"warm-up takes {recipe.warmup_steps} steps, a tenth of all, instead of {warmup}"
    if job.validation is None:
        yield "no validation: the last weights are kept; --val-data, --val-split or --val-only keep the best ones"
        return
    shared = sorted(set(data.names) & set(job.validation.names)) if _is_same_root(data, job.validation) else []
    if shared:
        yield f"{len(shared)} clips are for training and validation (first: {shared[0]}), so scores are optimistic"


def _is_same_root(data: "DatasetClips", other: "DatasetClips") -> bool:
    return data.root.resolve() == other.root.resolve()


def _print_plan(job: "SegmenterJob") -> None:
    """Print what would be trained and what it would cost on this machine."""
    from ..console import print_rows

    recipe, network = job.recipe, job.trainable.network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    job.check()
    seconds = job.training().time_step()
    shown = f"{recipe.batch} of {job.trainable.num_frames} frame{'s' * (job.trainable.num_frames > 1)}"
    rows = [
        ["plan", "value"],
        ["model", f"{job.trainable.about['family']} from {job.trainable.about['start']}"],
        ["parameters", f"{parameters / 1e6:.2f} M"],
        ["views a step", f"{shown}, {recipe.crop} x {recipe.crop}"],
        ["number format", recipe.dtype],
        ["time of a step here", f"{seconds:.2f} s on {job.device}"],
        ["time of all steps", _time(seconds * recipe.steps)],
        ["checkpoint", f"{12 * parameters / 1e6:.1f} MB"],  # weights and two averages, 4 bytes each
    ]
    if job.device.startswith("cuda"):
        import torch

        rows.append(["memory of the GPU", f"{torch.cuda.max_memory_allocated(job.device) / 1e9:.1f} GB"])
    if job.validation is not None:
        times = math.ceil(recipe.steps / job.validate_every)
        rows.append(["validation on top", f"{times} times {job.validation.num_frames} frames"])
    print_rows(rows)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _steps(total: int) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[int], None]]]:
    """Show a bar of training steps with time left, loss and mIoU, on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    from ..console import stderr

    columns = (
        TextColumn("training"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeLeftColumn(), console=stderr) as progress:
        task = progress.add_task("training", total=total, numbers="")
        latest = {"loss": "", "mIoU": ""}

        def say(entry: dict[str, Any]) -> None:
            latest["loss"] = f"loss {entry['loss']:.3f}"
            if entry.get("val_miou") is not None:
                latest["mIoU"] = f" mIoU {100 * entry['val_miou']:.2f}"
            progress.update(task, numbers="".join(latest.values()))

        def on_step(step: int) -> None:
            progress.update(task, completed=step)

        yield say, on_step


def _print_end(rows: list[list[str]], job: "SegmenterJob", seen: list[int]) -> None:
    from ..console import print_problem, print_rows, stderr
    from ..training.metrics_log import FILE_NAME, TENSORBOARD_FOLDER

    print_rows(rows)
    print(f"segmenter {job.out}")
    print(f"metrics   {job.out / FILE_NAME}")
    if (job.out / TENSORBOARD_FOLDER).is_dir():
        print(f"          {job.out / TENSORBOARD_FOLDER} (tensorboard --logdir)")
    else:
        stderr.print(
            'no TensorBoard events were written: it is not installed (pip install "sam2vss[train]")', markup=False
        )
    names = job.trainable.label_space.names
    absent = [name for name, count in zip(names, seen, strict=True) if not count]
    if absent:
        print_problem(f"no training pixels: {', '.join(absent)}; these classes are not learned")


def _scale(text: str) -> tuple[int, int] | None:
    """Read "853x480" as longer and shorter side; "model" is None."""
    if text == "model":
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or not min(sides := (int(found[1]), int(found[2]))):
        raise SettingsError(f'--scale is {text!r}, expected two sides such as 853x480, or "model"')
    return max(sides), min(sides)


def _positive(option: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise SettingsError(f"{option} is {value}, expected a positive number")
    return value


def _not_negative(option: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise SettingsError(f"{option} is {value}, expected 0 or more")
    return value
