"""What `train classifier` and `train fusion` learn from: options of features, and how they are made or gone on with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import DEFAULT_SAM2, FollowSettings, MaskletSettings, Mode, PoolingPart, VoteSettings
from .options import Flag

if TYPE_CHECKING:
    from ..interfaces import BaseLabelSource
    from ..training.feature_folder import FeatureFolder
    from ..training.masklet_networks import TrainingData
    from ..types import LabelSpace

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]
Folders = Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")]
Parts = Annotated[tuple[PoolingPart, ...], Parameter(consume_multiple=True, negative="")]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Where the features to train on come from.

    Parameters
    ----------
    out
        Folder for the network (config.json, model.safetensors, model card), metrics.jsonl, TensorBoard events and
        features.
    data
        Data set with pictures and truth: VSPW, VIPSeg, or a folder in such a layout.
    val_data
        Data set of validation clips, which decide when training stops; default: a part of --data.
    features
        Features made by earlier calls (OUT/features), in place of --data or besides it. They are used as they are
        stored: options that say how features are made go with --data.
    val_features
        The same for validation (OUT/val-features).
    split
        List of training clips; default: train where there is one, else val, else all clips.
    only
        Take only these training clips.
    val_split
        List of validation clips; default: val where there is one, else all clips.
    val_only
        Take only these validation clips.
    val_share
        Without validation data such a share is held out: the last clips where there are ten or more, else the last
        windows of every clip, or the last frames of its only window. Scores on parts of training clips are optimistic.
    label_set
        Names and ids of the truth: vspw, vipseg or a label_set.json; default: those of DATA.
    encoder
        sam2:ID[/LEVELS], segmenter:ID[/LEVELS] or backbone:ID[/LEVELS], see the README; levels are joined by "+".
    pool
        What is pooled over a mask: mean is Eq. 3 of the paper, max and ring (its surroundings) are ours. With
        --features: which of the stored parts are used.
    tokens
        Cells per mask that are kept one by one, for --use-tokens.
    labels
        Base labels of the training clips: a folder of label PNGs or panoptic predictions, as for refine --labels.
    val_labels
        The same of the validation clips, if they lie elsewhere.
    id_offset
        Added to every id in these label PNGs: 1 where they count from 0 and the label set from 1, as VSPW's does.
    segmenter
        Base labels by a model: alias, hub id, folder or checkpoint (.pth, with @clip, @frame or @stream as for refine
        --segmenter); `sam2vss models` lists them.
    tracker
        Where masklets come from: sam2, superpixel, or stored:DIR.
    val_tracker
        The same for the validation clips, if it is another.
    sam2
        SAM 2 weights: alias, hub id, local folder, Meta's .pt file, or "nano".
    mode
        How masklets are followed: auto, exact, fast or prompt.
    image_size
        Size that frames are stretched to before SAM 2, a side or WIDTHxHEIGHT.
    device
        auto, cpu, cuda, cuda:1, mps; training itself runs on the CPU.
    dtype
        Number format of SAM 2 and the encoder.
    resume
        Go on with features that were begun.
    overwrite
        Replace the network in --out; features are kept.
    """

    out: Path
    data: Path | None = None
    val_data: Path | None = None
    features: Folders = ()
    val_features: Folders = ()
    split: str | None = None
    only: Several = ()
    val_split: str | None = None
    val_only: Several = ()
    val_share: float = 0.1
    label_set: str | None = None
    encoder: str | None = None
    pool: Parts = ("mean",)
    tokens: int = 0
    labels: Path | None = None
    val_labels: Path | None = None
    id_offset: int | None = None
    segmenter: str | None = None
    tracker: str = "sam2"
    val_tracker: str | None = None
    sam2: str = DEFAULT_SAM2
    mode: Mode = "auto"
    image_size: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "fastest", "float32", "bfloat16", "float16"] = "auto"
    resume: Flag = False
    overwrite: Flag = False


def gather(
    options: FeatureOptions, masklets: MaskletSettings, needs_encoder: bool, needs_votes: bool
) -> "TrainingData":
    """Make the features that are asked for, or go on with them, and read all."""
    from ..console import print_problem
    from ..training.feature_folder import FeatureFolder
    from ..training.masklet_networks import check_place, read_training_data

    check_place(options.out, options.overwrite)
    _check_options(options, masklets, needs_encoder, needs_votes)
    folders = [FeatureFolder.open(path) for path in options.features]
    held = [FeatureFolder.open(path) for path in options.val_features]
    if options.data is not None:
        split = options.split or default_split(options.data, "train", options.only, options.label_set)
        place = options.out / "features"
        folders.append(_make(options, masklets, options.data, split, options.only, place))
    if options.val_data is not None:
        validation = replace(
            options,
            labels=options.val_labels or options.labels,
            tracker=options.val_tracker or options.tracker,
        )
        place = options.out / "val-features"
        held.append(_make(validation, masklets, options.val_data, options.val_split, options.val_only, place))
    found = read_training_data(folders, held, options.val_share)
    if found.shares_clips:
        print_problem(
            f"validation is by the {found.facts['validation']}, so its scores are optimistic: --val-data with other "
            "clips gives honest ones"
        )
    return found


def _check_options(options: FeatureOptions, masklets: MaskletSettings, needs_encoder: bool, needs_votes: bool) -> None:
    """Refuse what is missing, and options that would do nothing, before any work is done."""
    if not 0 < options.val_share < 1:
        raise SettingsError(f"--val-share is {options.val_share}, expected more than 0 and less than 1")
    if options.data is None and not options.features:
        raise SettingsError("there is nothing to train on: pass --data ROOT, or --features DIR of an earlier call")
    of_validation = (options.val_labels, options.val_tracker, options.val_split, options.val_only)
    if options.val_data is None and any(of_validation):
        raise SettingsError(
            "--val-labels, --val-tracker, --val-split and --val-only are for clips of --val-data, and there are none: "
            "pass --val-data, or leave them out"
        )
    if options.data is None and (options.split or options.only):
        raise SettingsError("--split and --only choose clips of --data, and there are none: pass --data")
    if options.labels is not None and options.segmenter is not None:
        raise SettingsError("--labels and --segmenter both give base labels: pass one of them")
    if options.data is None and options.val_data is None:
        _refuse_options_of_making(options, masklets)
        return
    if needs_encoder and options.encoder is None:
        raise SettingsError("features need an encoder: pass --encoder sam2:nano, or another one (see --help)")
    if needs_votes and options.labels is None and options.segmenter is None:
        raise SettingsError("a fusion weighs base votes: pass --labels DIR or --segmenter ID")


def _refuse_options_of_making(options: FeatureOptions, masklets: MaskletSettings) -> None:
    """Raise `SettingsError` for options that say how features are made, where all of them are there already."""
    names = (
        "label_set",
        "encoder",
        "tokens",
        "labels",
        "id_offset",
        "segmenter",
        "tracker",
        "sam2",
        "mode",
        "image_size",
    )
    given = [name for name in names if getattr(options, name) != getattr(FeatureOptions, name)]
    fields = MaskletSettings.model_fields
    given += [name for name, value in masklets.model_dump().items() if value != fields[name].default]
    if given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingsError(
            f"{listed} would do nothing: features are stored as they were made, and none are made here. "
            f"Leave {'it' if len(given) == 1 else 'them'} out, or make new features with --data"
        )


def default_split(root: Path, name: str, only: tuple[str, ...], label_set: str | None) -> str | None:
    """Return the list of training clips where the data set has one and no clips are named."""
    from ..datasets.catalogue import find_dataset

    return name if not only and name in find_dataset(root, _label_space(label_set)).splits else None


def _label_space(label_set: str | None) -> Any:
    from ..datasets.label_sets import find_label_space

    return None if label_set is None else find_label_space(label_set)


def _make(
    options: FeatureOptions,
    masklets: MaskletSettings,
    root: Path,
    split: str | None,
    only: tuple[str, ...],
    place: Path,
) -> "FeatureFolder":
    """Make the features of a data set, or go on with them."""
    from ..console import RunBars, stderr
    from ..dataset_clips import find_dataset_clips
    from ..devices import choose_device, choose_dtype
    from ..files import folder_fingerprint
    from ..pipeline import check_clips
    from ..pooling import Pooling
    from ..refiner import choose_mode, parse_image_size
    from ..segmentor import load_shared_encoder
    from ..trackers.stored import StoredMasklets
    from ..training.feature_folder import FeatureMaker, make_features
    from .masklet_run import load_masklet_source

    data = find_dataset_clips(root, split, only, _label_space(options.label_set))
    device = choose_device(options.device)
    dtype = str(choose_dtype(options.dtype, device)).removeprefix("torch.")
    base, weights = _load_base(options, data.label_space, device, dtype)
    if base is not None:
        check_clips(data.clips, base)
    bars = RunBars()
    tracker, tracker_weights = load_masklet_source(
        options.tracker,
        options.sam2,
        masklets,
        FollowSettings(),
        options.mode,
        parse_image_size(options.image_size),
        device,
        dtype,
        bars,
    )
    encoder = None if options.encoder is None else load_shared_encoder(options.encoder, tracker, device, dtype)
    source = {
        "tracker": options.tracker,
        "sam2": options.sam2 if options.tracker == "sam2" else None,
        "mode": choose_mode(options.mode, device, options.sam2) if options.tracker == "sam2" else None,
        "image_size": options.image_size,
        "stored_fingerprint": folder_fingerprint(tracker.folder) if isinstance(tracker, StoredMasklets) else None,
        "masklets": masklets.model_dump(),
        "labels": None if options.labels is None else str(options.labels.resolve()),
        "labels_fingerprint": None if options.labels is None else folder_fingerprint(options.labels),
        **({} if options.id_offset is None else {"id_offset": options.id_offset}),
        "segmenter": options.segmenter,
        "weights": {**weights, **tracker_weights},
    }
    maker = FeatureMaker(tracker, encoder, Pooling(options.pool, options.tokens), masklets.window, base, source)
    stderr.print(f"features of {data.title}: {len(data.clips)} clips, {data.num_frames} frames", highlight=False)
    with bars:
        return make_features(place, data, maker, options.resume, bars)


def _load_base(
    options: FeatureOptions, space: "LabelSpace", device: str, dtype: str
) -> tuple["BaseLabelSource | None", dict[str, str]]:
    """Load base labels, if any are asked for, and the hashes of weights; stored ones without a set have the truth's."""
    from ..segmenters import StoredLabels
    from ..segmentor import base_label_space
    from .refine import load_base

    if options.labels is not None:
        return StoredLabels(options.labels, base_label_space(options.labels, space), options.id_offset), {}
    if options.segmenter is None:
        return None, {}
    return load_base(None, options.segmenter, None, device, dtype, VoteSettings())
