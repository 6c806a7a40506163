"""The Python API: SAM 2 as refiner of any labels, arrays or files in, `Refinement`s out."""

import re
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from .datasets.label_forms import check_is_folder
from .datasets.label_maps import find_own_label_space
from .datasets.label_sets import find_label_space
from .devices import choose_device
from .errors import LabelError, SettingsError, ShapeError
from .hub import ModelLocation
from .interfaces import BaseLabelSource, MaskletNamer, MaskletTracker, Smoother
from .media import find_clips
from .pipeline import RefinedWindow, VoteRule, check_clips, refine_clip
from .run_info import read_info
from .sam2.loading import NANO_NAMES, check_image_size, find_sam2, load_sam2
from .settings import (
    DEFAULT_SAM2,
    MAX_WINDOW,
    FollowSettings,
    MaskletSettings,
    Mode,
    ResolvedMode,
    VoteSettings,
)
from .types import IGNORE_INDEX, BaseLabels, Frame, LabelSpace, Refinement

if TYPE_CHECKING:
    from .sam2.tracker import Sam2Tracker

Source = str | Path | Sequence[str | Path] | np.ndarray


class Refiner:
    """Refines base labels with a masklet tracker.

    Example:
        >>> refiner = Refiner.from_pretrained("nano")
        >>> windows = refiner.refine(frames, labels=labels)  # frames (T, H, W, 3), labels (T, H, W), both uint8
        >>> refined = np.concatenate([window.labels for window in windows])

    Attributes:
        tracker: Source of masklets.
        window: Frames per window.
        rule: How masklets vote.
        smoother: Smooths the base labels before the votes, if given.
        namer: Finds the masklets' classes; None: they are voted for.
        carry: Whether masklets live on over window borders.
    """

    def __init__(
        self,
        tracker: MaskletTracker,
        window: int = 32,
        rule: VoteRule | None = None,
        smoother: Smoother | None = None,
        carry: bool = False,
        namer: MaskletNamer | None = None,
    ) -> None:
        if not isinstance(window, int) or not 1 <= window <= MAX_WINDOW:
            raise SettingsError(f"window is {window!r}, expected a whole number of frames, 1 to {MAX_WINDOW}")
        self.tracker = tracker
        self.window = window
        self.rule = rule or VoteRule()
        self.smoother = smoother
        self.namer = namer
        self.carry = carry

    @classmethod
    def from_pretrained(
        cls,
        sam2: str | Path = DEFAULT_SAM2,
        *,
        masklets: MaskletSettings | None = None,
        follow: FollowSettings | None = None,
        votes: VoteSettings | None = None,
        mode: Mode = "exact",
        image_size: int | tuple[int, int] | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> "Refiner":
        """Load a SAM 2 model and refine with it.

        Args:
            sam2: "nano" (bundled), an alias such as "sam2.1-large", a hub id, a local folder, or Meta's `.pt` file.
            masklets: Window, point grid and thresholds; default: the paper's.
            follow: How masklets live on from frame to frame and from window to window; default: the paper's.
            votes: Voting and painting; default: the paper's.
            mode: "exact" (memory, the paper's), "fast" (masks of every frame, matched), "prompt" (decoder only), or
                "auto": exact on a GPU and with "nano", else fast.
            image_size: Side of the square that frames are stretched to, or (height, width); default: the model's own.
            device: "auto", "cpu", "cuda", ...
            dtype: "auto" (float32 on a CPU, bfloat16 elsewhere), "fastest", "float32", "bfloat16", "float16".

        Raises:
            WeightsError: If the weights cannot be found or loaded.
            SettingsError: If the device or number format is not available.
        """
        for name, value, kind in (
            ("masklets", masklets, MaskletSettings),
            ("follow", follow, FollowSettings),
            ("votes", votes, VoteSettings),
        ):
            if value is not None and not isinstance(value, kind):
                raise SettingsError(f"{name} is {_type_name(value)}, expected {kind.__name__}(...)")
        masklets, follow = masklets or MaskletSettings(), follow or FollowSettings()
        size = _image_size(image_size)
        tracker = load_tracker(
            find_sam2(sam2), masklets, follow, mode=mode, image_size=size, device=device, dtype=dtype
        )
        rule = VoteRule(**(votes or VoteSettings()).model_dump())
        return cls(tracker, masklets.window, rule, carry=follow.carry)

    def refine(
        self,
        source: Source,
        labels: str | Path | np.ndarray | BaseLabelSource,
        label_set: LabelSpace | str | Path | None = None,
        id_offset: int | None = None,
    ) -> Iterator[Refinement]:
        """Refine one clip and yield one `Refinement` per window.

        Args:
            source: Frames, uint8 RGB (T, H, W, 3), or a video file or folder of pictures.
            labels: Base labels: train ids (T, H, W), a folder of label PNGs or of panoptic predictions (see
                `datasets.label_forms.find_label_form`), or a source of labels such as
                `ModelLabels(load_segmenter(...))`. With frames as an array a folder is given as a source,
                `StoredLabels(folder, label_space)`, both of `sam2vss.segmenters`.
            label_set: Classes of the labels: a `LabelSpace`, a `label_set.json`, or None. Without one a folder's own
                `label_set.json` is taken, else the classes of a uint8 array are numbered from 0 to the largest label,
                255 being void. A uint16 array needs a label set: its void is 65535, and 255 is a class.
            id_offset: Added to every id in a folder of label PNGs: 1 for ids from 0 on where the label set counts from
                1, as that of VSPW does. None: ids that look shifted are refused.

        Raises:
            ShapeError: If frames and labels do not fit.
            LabelError: If a label lies outside the label set, or labels of 16 bits come without one.
            MediaError: If the source cannot be read.
            SettingsError: If the label set is of no known type, or the source holds several clips.
        """
        _check_types(source, labels, label_set)
        if isinstance(source, np.ndarray):
            frames, name = _frames_of(source), "clip"
            if isinstance(labels, str | Path):
                raise SettingsError(
                    "frames given as an array need labels given as an array or as a source of labels, and these are a "
                    f"path: pass sam2vss.segmenters.StoredLabels({str(labels)!r}, label_space), or the frames as a path"
                )
            if isinstance(labels, np.ndarray):
                base: BaseLabelSource = ArrayLabels(labels, _label_space(label_set, labels))
                if len(labels) != len(source):
                    raise ShapeError(f"there are {len(source)} frames and {len(labels)} label maps, expected one each")
            else:
                base = labels
        else:
            clips = find_clips(source)
            if len(clips) != 1:
                raise SettingsError(f"{source} holds {len(clips)} clips; refine them one by one: media.find_clips(...)")
            frames, name = clips[0].frames(), clips[0].name
            if isinstance(labels, np.ndarray):
                base = ArrayLabels(labels, _label_space(label_set, labels))
            elif isinstance(labels, str | Path):
                base = _stored_labels(Path(labels), label_set, id_offset)
            else:
                base = labels
            check_clips(clips, base)
        for window in refine_clip(
            name, frames, base, self.tracker, self.window, self.rule, self.smoother, self.carry, namer=self.namer
        ):
            assert isinstance(window, RefinedWindow)
            yield window.refinement


def refine(
    source: Source,
    *,
    labels: str | Path | np.ndarray | BaseLabelSource,
    sam2: str | Path = DEFAULT_SAM2,
    label_set: LabelSpace | str | Path | None = None,
    id_offset: int | None = None,
    masklets: MaskletSettings | None = None,
    follow: FollowSettings | None = None,
    votes: VoteSettings | None = None,
    mode: Mode = "exact",
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Iterator[Refinement]:
    """Refine one clip in one call; see `Refiner.from_pretrained` and `Refiner.refine` for arguments and errors."""
    refiner = Refiner.from_pretrained(
        sam2,
        masklets=masklets,
        follow=follow,
        votes=votes,
        mode=mode,
        image_size=image_size,
        device=device,
        dtype=dtype,
    )
    yield from refiner.refine(source, labels, label_set, id_offset)


class ArrayLabels:
    """Base labels held in memory, train ids (T, H, W), as a source of labels."""

    def __init__(self, labels: np.ndarray, label_space: LabelSpace) -> None:
        self._labels = BaseLabels(labels).labels
        self.label_space = label_space
        label_space.check(labels, "base labels")

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Raise `ShapeError` if the clip has another length or size."""
        expected = len(frame_names) if frame_names is not None else num_frames
        if expected is not None and expected != len(self._labels):
            raise ShapeError(f"clip {clip_name} has {expected} frames and {len(self._labels)} label maps")
        if frame_size is not None and frame_size != self._labels.shape[1:]:
            raise ShapeError(f"clip {clip_name} is {frame_size}, its label maps are {self._labels.shape[1:]}")
        return "order"

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Return the maps of these frames."""
        first, last = frames[0].index, frames[-1].index
        if last >= len(self._labels):
            raise ShapeError(f"frame {last} of clip {clip_name} has no label map: there are {len(self._labels)}")
        return BaseLabels(self._labels[first : last + 1].copy())  # results share no memory with the caller's array

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Raise `ShapeError` if label maps are left over."""
        self.check(clip_name, num_frames=num_frames)


def choose_mode(mode: Mode, device: str, sam2: str | Path) -> ResolvedMode:
    """Return the mode that "auto" stands for: exact on a GPU and for the small nano weights, else fast."""
    if mode not in get_args(Mode):
        raise SettingsError(f"mode {mode!r} is unknown, expected {', '.join(get_args(Mode))}")
    if mode != "auto":
        return mode
    return "fast" if choose_device(device) == "cpu" and str(sam2) not in NANO_NAMES else "exact"


def load_tracker(
    location: ModelLocation,
    masklets: MaskletSettings,
    follow: FollowSettings | None = None,
    *,
    mode: Mode = "exact",
    image_size: tuple[int, int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    compiled: bool = False,
    on_frame: Callable[[], None] | None = None,
) -> "Sam2Tracker":
    """Load SAM 2 weights and set up the tracker with its thresholds.

    Args:
        location: Where the weights are.
        masklets: Point grid and thresholds.
        follow: How masklets live on.
        mode: See `Refiner.from_pretrained`.
        image_size: (height, width) that frames are stretched to; default: the model's own square.
        device: See `choose_device`.
        dtype: See `choose_dtype`.
        compiled: Compile the parts that run for every masklet.
        on_frame: Called once for every frame tracked.
    """
    from .sam2.finder import MaskFinder
    from .sam2.savings import Savings
    from .sam2.tracker import NANO_FOLDER, Sam2Tracker

    follow = follow or FollowSettings()
    device = choose_device(device)
    network = load_sam2(location, image_size=image_size, device=device, dtype=dtype, compiled=compiled)
    finder = MaskFinder(
        network,
        points=masklets.points,
        pred_iou=masklets.pred_iou,
        stability=masklets.stability,
        stability_offset=masklets.stability_offset,
        box_nms=masklets.box_nms,
        min_area=masklets.min_mask_area,
        crop_layers=masklets.crop_layers,
    )
    return Sam2Tracker(
        finder,
        choose_mode(mode, device, location.id),
        direction=follow.direction,
        discover=follow.discover,
        match_every=follow.match_every,
        knows_clicks_only=location.path == NANO_FOLDER,
        savings=Savings(max_masklets=follow.max_masklets, contained=follow.drop_contained, settled=follow.skip_settled),
        on_frame=on_frame,
        location=location,
    )


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Read "512" or "1024x576", width x height; return (height, width)."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if found is None:
        raise SettingsError(f"--image-size {text} is neither a side such as 512 nor width x height such as 1024x576")
    width = int(found[1])
    size = (int(found[2] or width), width)
    check_image_size(size)
    return size


def _image_size(value: object) -> tuple[int, int] | None:
    """Read a side or (height, width) given from Python."""
    if value is None:
        return None
    sides = (value, value) if isinstance(value, Integral) else value
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not all(isinstance(x, Integral) for x in sides):
        raise SettingsError(f"image_size is {value!r}, expected a side such as 512 or (height, width)")
    return int(sides[0]), int(sides[1])


def _check_types(source: object, labels: object, label_set: object) -> None:
    """Raise our errors where arguments are of types that nothing here can read."""
    is_list_of_paths = isinstance(source, list | tuple) and all(isinstance(entry, str | Path) for entry in source)
    if not (isinstance(source, str | Path | np.ndarray) or is_list_of_paths):
        raise ShapeError(
            f"the source is {_type_name(source)}, expected a path, or frames as NumPy array, uint8 RGB (T, H, W, 3): "
            "np.stack(frames) joins single frames"
        )
    if not isinstance(labels, str | Path | np.ndarray | ArrayLabels) and not hasattr(labels, "labels_for"):
        raise ShapeError(
            f"the labels are {_type_name(labels)}, expected one NumPy array, uint8 or uint16 (T, H, W), a folder of "
            "label PNGs, or a source of labels such as ModelLabels(...)"
        )
    if label_set is not None and not isinstance(label_set, LabelSpace | str | Path):
        raise SettingsError(f"label_set is {_type_name(label_set)}, expected a LabelSpace or a label_set.json")


def _type_name(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _frames_of(frames: np.ndarray) -> Iterator[Frame]:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ShapeError(f"frames are {frames.dtype} {frames.shape}, expected uint8 RGB (T, H, W, 3), none of them 0")
    return (Frame(image, index, f"{index:08d}") for index, image in enumerate(frames))


def _label_space(label_set: LabelSpace | str | Path | None, labels: np.ndarray) -> LabelSpace:
    BaseLabels(labels)  # raises where dtype or shape are wrong
    if isinstance(label_set, LabelSpace):
        return label_set
    if label_set is not None:
        return find_label_space(label_set)
    if labels.dtype == np.uint16:
        raise LabelError(
            "labels of 16 bits need a label_set, since 255 could be a class or void: pass "
            "label_set=LabelSpace.numbered(num_classes) with void as 65535, or turn labels of at most 255 classes into "
            "uint8 with void as 255"
        )
    known = labels[labels != IGNORE_INDEX]
    return LabelSpace.numbered(int(known.max()) + 1 if known.size else 1)


def _stored_labels(
    folder: Path, label_set: LabelSpace | str | Path | None, id_offset: int | None = None
) -> BaseLabelSource:
    from .segmenters.stored import StoredLabels

    return StoredLabels(folder, stored_label_space(folder, label_set), id_offset)


def stored_label_space(folder: Path, label_set: LabelSpace | str | Path | None) -> LabelSpace:
    """Return the label set given, or the `label_set.json` in the folder of label maps or beside it, or its own.

    A run has one, panoptic predictions may list their categories, and VIPSeg's masks are known.

    Raises:
        SettingsError: If there is none.
        LabelError: If the folder is a file.
    """
    if isinstance(label_set, LabelSpace):
        return label_set
    if label_set is not None:
        return find_label_space(label_set)
    if folder.is_file():
        check_is_folder(folder)  # before asking to put a label_set.json into it
    for place in (folder / "label_set.json", folder.parent / "label_set.json"):
        if place.is_file():
            return LabelSpace.from_json(place)
    own = run_label_space(folder) or (find_own_label_space(folder) if folder.is_dir() else None)
    if own is not None:
        return own
    raise SettingsError(
        f"the label maps in {folder} come without names and colours: pass --label-set FILE "
        f"(or put a label_set.json into {folder})"
    )


def model_label_space(
    found: LabelSpace, label_set: str | Path, model: str, names_are_guessed: bool = False
) -> LabelSpace:
    """Return the label set under which a model's labels are written, after making sure that it fits the model.

    Args:
        found: The model's own classes, perhaps without names.
        label_set: Name or file of the label set asked for.
        model: Name of the model, for the message.
        names_are_guessed: Whether the model's names count for nothing.

    Raises:
        LabelError: If it cannot be read, has another number of classes, or other names where the model has names.
    """
    asked = find_label_space(label_set)
    if asked.num_classes != found.num_classes:
        raise LabelError(
            f"{model} tells {found.num_classes} classes apart, but --label-set {label_set} names {asked.num_classes}: "
            "pass the label set that it was trained on, or none"
        )
    pairs = enumerate(zip(found.names, asked.names, strict=True))
    differing = [f"class {i} is {own!r} and {other!r}" for i, (own, other) in pairs if own != other]
    if differing and not names_are_guessed:
        raise LabelError(
            f"{model} and --label-set {label_set} name {len(differing)} of {found.num_classes} classes differently "
            f"({differing[0]}): pass the label set that it was trained on, or none"
        )
    return asked


def run_label_space(folder: Path) -> LabelSpace | None:
    """Return the label set of the run whose folder, or folder of label maps, this is; None if it belongs to no run.

    Raises:
        RunError: If its run.json cannot be read.
    """
    folder = folder.resolve()
    run = folder.parent if folder.name in ("labels", "base", "truth") else folder
    if not (run / "run.json").is_file():
        return None
    return LabelSpace.from_dict(read_info(run)["label_set"])
