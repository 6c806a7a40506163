"""What an ablation is asked to do, checked before anything is run."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..dataset_clips import DatasetClips, find_dataset_clips
from ..devices import choose_device, choose_dtype
from ..errors import LabelError, SettingsError
from ..metrics.protocols import find_protocol
from ..refiner import run_label_space
from ..sam2.loading import check_image_size
from ..segmenters import check_segmenter
from ..settings import DEFAULT_SAM2, DEFAULT_SEGMENTER, VoidPolicy
from ..types import LabelSpace
from .grid import Grid, built_in_grid
from .labels import ClipTruth
from .tally import new_metrics

CANDIDATE_GB = 4.0  # ours: candidates of 80 first frames of sam2-nano, 16 x 16 points at the lowest threshold 0.4


@dataclass(frozen=True, eq=False)
class AblationPlan:
    """What is run, where it goes, and how it is scored; goes to other processes as it is.

    Attributes:
        data: Clips and truth.
        out: Folder of the ablation.
        grid: Points to try.
        left_out: Names of points that cannot be tried with these labels.
        labels: Folder of base labels; None: a model is run.
        id_offset: Added to every id in that folder; None: ids that look shifted are refused.
        segmenter: The model.
        label_space: Classes of the base labels.
        sam2: SAM 2 weights.
        image_size: (height, width) that frames are stretched to; None: the model's own.
        device: Device of the networks.
        dtype: Number format of the networks.
        chunk: Objects propagated at once; None: see `Engine.load`.
        protocol: Of the scores.
        windows: The n of mVC_n.
        candidate_gb: Room for candidates on the disk, in GB.
    """

    data: DatasetClips
    out: Path
    grid: Grid
    left_out: tuple[str, ...] = ()
    labels: Path | None = None
    id_offset: int | None = None
    segmenter: str = DEFAULT_SEGMENTER
    label_space: LabelSpace = field(repr=False, kw_only=True)
    sam2: str = DEFAULT_SAM2
    image_size: tuple[int, int] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    chunk: int | None = None
    protocol: str = "vspw"
    windows: tuple[int, ...] = (8, 16)
    candidate_gb: float = CANDIDATE_GB

    @property
    def wants_probabilities(self) -> bool:
        return any(point.vote_weight == "probability" for point in self.grid.points)

    @cached_property
    def model(self) -> str:
        """Name of the base model in tables."""
        if self.labels is None:
            return self.segmenter
        folder = self.labels.resolve()
        name = folder.parent.name if folder.name == "labels" and (folder.parent / "run.json").is_file() else folder.name
        return f"{name} (labels)" if name in map(self.grid.name_of, self.grid.points) else name

    def truth(self) -> dict[str, ClipTruth]:
        """Find the label maps of every clip."""
        data = self.data
        return {
            name: ClipTruth(name, data.truth_files(name), data.label_space, data.is_panoptic) for name in data.names
        }


def plan_ablation(
    data: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    segmenter: str | None = None,
    id_offset: int | None = None,
    grid: Grid | None = None,
    label_set: LabelSpace | None = None,
    split: str | None = None,
    only: Collection[str] = (),
    sam2: str = DEFAULT_SAM2,
    image_size: tuple[int, int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    chunk: int | None = None,
    protocol: str = "vspw",
    windows: Sequence[int] = (8, 16),
    candidate_gb: float = CANDIDATE_GB,
    void: VoidPolicy | None = None,
) -> AblationPlan:
    """Check what is asked and find the clips; no network is loaded.

    Args:
        data: Folder of a data set with pictures and truth.
        out: Folder for everything that is made.
        labels: Base labels: a folder of label PNGs or of panoptic predictions, or a run folder.
        segmenter: Base labels by a model; default where `labels` is not given: segformer-b2.
        id_offset: Added to every id in the label PNGs; None: ids that look shifted are refused.
        grid: Points to try; default: the paper's Tables 4 to 7 and our own axes.
        label_set: Classes of the truth; default: the data set's own.
        split: List of clips, such as "val"; default: "val" where there is one, else all clips.
        only: Names of the clips to take.
        sam2: SAM 2 weights, as in `Refiner.from_pretrained`.
        image_size: (height, width) that frames are stretched to; default: the model's own.
        device: See `choose_device`.
        dtype: See `choose_dtype`.
        chunk: Objects propagated at once; default: 1 on a CPU, so that a row's labels are those of a run with that
            chunk, to the last bit.
        protocol: As for `VideoSegMetrics.compute`.
        windows: The n of mVC_n.
        candidate_gb: Room for candidates on the disk, in GB; another sweep in the same folder uses them again.
        void: What becomes of pixels without a base label, in all points; default: as the grid says.

    Raises:
        SettingsError: If something is unknown, or does not fit together.
        LabelError: If labels or truth are not there, or have other classes than one another.
        MediaError: If a clip has no pictures.
        WeightsError: If the model is on this machine and cannot be loaded.
    """
    grid = grid or built_in_grid()
    grid = grid if void is None else grid.with_void(void)
    left_out: tuple[str, ...] = ()
    if labels is not None and segmenter is not None:
        raise SettingsError("--labels and --segmenter both give base labels: pass one of them")
    if labels is None and id_offset is not None:
        raise SettingsError("--id-offset is for ids in label PNGs, and a model makes the labels: pass --labels")
    if not 0 <= candidate_gb < math.inf:
        raise SettingsError(f"--candidate-gb is {candidate_gb}, expected 0 or more")
    find_protocol(protocol)
    check_image_size(image_size)
    clips = find_dataset_clips(Path(data), split, only, label_set)
    space = clips.label_space
    if labels is not None:
        labels = _label_folder(Path(labels))
        space = _space_of(labels) or space
        grid, left_out = grid.without_probabilities()
    else:
        _check_model(segmenter or DEFAULT_SEGMENTER, space)
    new_metrics(clips.label_space, windows)  # raises for windows that cannot be counted
    device = choose_device(device)
    return AblationPlan(
        data=clips,
        out=Path(out),
        grid=grid,
        left_out=left_out,
        labels=labels,
        id_offset=id_offset,
        segmenter=segmenter or DEFAULT_SEGMENTER,
        label_space=_with_classes_of(space, clips.label_space, labels),
        sam2=str(sam2),
        image_size=image_size,
        device=device,
        dtype=str(choose_dtype(dtype, device)).removeprefix("torch."),
        chunk=chunk,
        protocol=protocol,
        windows=tuple(sorted({int(n) for n in windows})),
        candidate_gb=candidate_gb,
    )


def _check_model(name: str, truth: LabelSpace) -> None:
    """Refuse a model on this machine that cannot be loaded, or has other classes than the truth."""
    space = check_segmenter(name)
    if space is not None:
        check_same_classes(space, truth, f"the labels of {name}")


def _label_folder(folder: Path) -> Path:
    """Return the folder of label maps that a user means: that of a run lies inside it."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise SettingsError(f"--labels {folder} {found}, expected a folder of label PNGs")
    return folder / "labels" if (folder / "run.json").is_file() and (folder / "labels").is_dir() else folder


def _space_of(folder: Path) -> LabelSpace | None:
    """Return what the numbers of label maps mean if they say so themselves."""
    if (folder / "label_set.json").is_file():
        return LabelSpace.from_json(folder / "label_set.json")
    return run_label_space(folder)


def _with_classes_of(space: LabelSpace, truth: LabelSpace, folder: Path | None) -> LabelSpace:
    """Return the label set of the base labels after making sure that it has the truth's classes in their order."""
    check_same_classes(space, truth, f"the label maps in {folder}")
    return space


def check_same_classes(space: LabelSpace, truth: LabelSpace, what: str) -> None:
    """Raise `LabelError` unless base labels have the truth's classes in their order."""
    if space.names == truth.names:
        return
    pairs = enumerate(zip(space.names, truth.names, strict=False))
    first = next(
        (f"class {i} is {own!r} there and {true!r} in the truth" for i, (own, true) in pairs if own != true), ""
    )
    raise LabelError(
        f"{what} have {space.num_classes} classes and the truth {truth.num_classes}{': ' * bool(first)}{first}. "
        "Expected the truth's classes in its order: use a model trained on them, or convert the labels"
    )
