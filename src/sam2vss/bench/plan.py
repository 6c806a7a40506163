"""What a bench is asked to do, checked before anything is run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..dataset_clips import DatasetClips, find_dataset_clips
from ..datasets.label_forms import find_label_form
from ..datasets.label_sets import LABEL_SET_FILE, shift_ids
from ..datasets.predictions import match_classes
from ..devices import choose_device, choose_dtype
from ..errors import LabelError, SettingsError
from ..files import folder_fingerprint
from ..metrics import BoundaryReadings, VideoSegMetrics, find_protocol
from ..refiner import choose_mode, run_label_space
from ..segmenters import check_segmenter
from ..settings import (
    DEFAULT_SAM2,
    EngineChoice,
    FollowSettings,
    MaskletSettings,
    Mode,
    Preset,
    ResolvedMode,
    VoteSettings,
    apply_preset,
    check_mode,
)
from ..types import LabelSpace
from .naming import look_at
from .tasks import ROWS, BaseModel, NamingModel, RowName, Task, check_names, make_tasks, model_name


@dataclass(frozen=True)
class Engine:
    """How SAM 2 and the votes work; `auto` is resolved already."""

    sam2: str
    mode: ResolvedMode
    image_size: tuple[int, int] | None
    device: str
    dtype: str
    masklets: MaskletSettings
    follow: FollowSettings
    votes: VoteSettings


@dataclass(frozen=True, eq=False)
class BenchPlan:
    """What is run, where it goes, and how it is scored.

    Attributes:
        data: Clips and truth.
        out: Folder of the bench.
        models: Base models.
        rows: Rows of every base model besides its base labels.
        networks: Fusions and classifiers that name masklets in further rows.
        compare: Label folders made elsewhere by name, scored as they are.
        engine: Settings of SAM 2 and of the votes.
        prediction_label_set: What the numbers of label folders mean that do not say so themselves; None: as the truth.
        id_offset: Added to every id stored in such folders before it is looked up; None: ids that look shifted are
            refused when they are scored.
        protocol: Of the scores.
        boundary: "band" for the headline scores, "full" for all boundary scores.
        windows: The n of mVC_n.
        seed: Of the bootstrap.
    """

    data: DatasetClips
    out: Path
    models: tuple[BaseModel, ...]
    rows: tuple[RowName, ...]
    networks: tuple[NamingModel, ...]
    compare: Mapping[str, Path]
    engine: Engine
    prediction_label_set: LabelSpace | None = field(default=None, repr=False)
    id_offset: int | None = None
    protocol: str = "vspw"
    boundary: BoundaryReadings = "band"
    windows: tuple[int, ...] = (8, 16)
    seed: int = 0

    def label_space_of(self, folder: Path) -> LabelSpace:
        """Return what the numbers in a folder of label maps mean: its own word, else the plan's, else the truth's."""
        if (folder / LABEL_SET_FILE).is_file():
            return LabelSpace.from_json(folder / LABEL_SET_FILE)
        return run_label_space(folder) or self.label_space_of_folders

    def own_offset_of(self, folder: Path) -> int | None:
        """Return the offset that is still to be added to ids in a folder; `label_space_of` has the plan's in it.

        Panoptic predictions count their categories from 0, whatever ids other folders hold.
        """
        if self.id_offset is None or find_label_form(folder, self.label_space_of(folder)).is_panoptic:
            return None
        return 0

    def fingerprint_of(self, labels: Path) -> str:
        """Tell a folder of label maps from others; a bench that lies inside the folder does not count."""
        is_made_here = labels.resolve().is_relative_to(self.out.resolve())
        return folder_fingerprint(labels, None if is_made_here else self.out)

    @property
    def label_space_of_folders(self) -> LabelSpace:
        """What the numbers mean in folders of label maps that do not say so themselves."""
        return shift_ids(self.prediction_label_set or self.data.label_space, self.id_offset or 0)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All rows in the order of the table."""
        return tuple(make_tasks(self.models, self.rows, self.networks, self.compare))


def plan_bench(
    data: Path,
    out: Path,
    *,
    labels: Mapping[str, Path] | None = None,
    segmenters: Mapping[str, str] | None = None,
    classifiers: Mapping[str, str] | None = None,
    fusions: Mapping[str, str] | None = None,
    compare: Mapping[str, Path] | None = None,
    rows: Sequence[str] = ROWS,
    label_set: LabelSpace | None = None,
    prediction_label_set: LabelSpace | None = None,
    id_offset: int | None = None,
    split: str | None = None,
    only: Collection[str] = (),
    protocol: str = "vspw",
    boundary: BoundaryReadings = "band",
    windows: Sequence[int] = (8, 16),
    seed: int = 0,
    sam2: str = DEFAULT_SAM2,
    mode: Mode = "auto",
    preset: Preset | None = "paper",
    image_size: tuple[int, int] | None = None,
    masklets: MaskletSettings | None = None,
    follow: FollowSettings | None = None,
    votes: VoteSettings | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> BenchPlan:
    """Check what is asked and find the clips; nothing is run, and no model is loaded but classifiers and fusions.

    Args:
        data: Folder of the data set, with truth.
        out: Folder for everything that is made.
        labels: Folders of base labels by model name.
        segmenters: Models to run by name; one that is called as `model_name` calls it counts as unnamed.
        classifiers: Classifiers of masklets by name, each alias, hub id or folder: a row alone, and one a base model.
        fusions: Learned fusions by name, which decide in place of the vote: a row of every base model.
        compare: Label folders made elsewhere by row name.
        rows: Which of "static", "flow", "superpixel" and "sam2" to make for every base model.
        label_set: Classes of the truth; default: the data set's own.
        prediction_label_set: Classes of label folders that have no `label_set.json`; default: the truth's.
        id_offset: Added to every id stored in such folders: 1 where they are 0-based and the truth is 1-based (VSPW).
        split: List of clips; see `find_dataset_clips`.
        only: Names of the clips to take.
        protocol: As for `VideoSegMetrics.compute`.
        boundary: "band", or "full" for all boundary scores.
        windows: The n of mVC_n.
        seed: Seed of the bootstrap.
        sam2: SAM 2 weights of the row "sam2"; the options that follow are those of `Refiner.from_pretrained`.
        mode: How masklets are followed.
        preset: Bundle of settings; single ones given win over it.
        image_size: (height, width) that frames are stretched to.
        masklets: Window, point grid, thresholds.
        follow: How masklets live on.
        votes: Voting and painting.
        device: Device of models and SAM 2.
        dtype: Number format of the networks.

    Raises:
        SettingsError: If something is unknown, or does not fit together.
        LabelError: If a folder of labels or a listed clip is not there, or a model on this machine has classes that
            cannot be scored against the truth's.
        WeightsError: If a classifier or fusion cannot be had, or is something else; or a model on this machine cannot
            be loaded.
        MediaError: If there are no clips.
    """
    labels, segmenters, compare = labels or {}, segmenters or {}, compare or {}
    classifiers, fusions = classifiers or {}, fusions or {}
    models = [BaseModel(name, labels=_label_folder(folder)) for name, folder in labels.items()]
    models += [BaseModel(name, segmenter=text, is_named=name != model_name(text)) for name, text in segmenters.items()]
    networks = [NamingModel("fusion", name, text, name != model_name(text)) for name, text in fusions.items()]
    networks += [NamingModel("classifier", name, text, name != model_name(text)) for name, text in classifiers.items()]
    check_names(models, networks, compare)
    _check_rows(rows)
    if fusions and not models:
        raise SettingsError("--fusion decides on base labels, and there are none: pass --labels or --segmenter")
    find_protocol(protocol)
    if seed < 0:
        raise SettingsError(f"--seed is {seed}, expected 0 or more")
    votes = votes or VoteSettings()
    if votes.vote_weight == "probability":
        raise SettingsError("--vote-weight probability needs a model's probabilities, and bench stores labels only")
    chosen, engine = apply_preset(preset, masklets or MaskletSettings(), EngineChoice(mode, image_size, dtype))
    device = choose_device(device)
    resolved = choose_mode(engine.mode, device, sam2)
    follow = follow or FollowSettings()
    if "sam2" in rows or networks:
        _check_follow(follow, chosen, resolved)
    if classifiers and follow.skip_settled:
        raise SettingsError(
            "--skip-settled leaves out masklets whose votes would change nothing, and a classifier does not vote: drop "
            "one of --skip-settled and --classifier"
        )
    clips = find_dataset_clips(Path(data), split, only, label_set)
    space = clips.label_space
    VideoSegMetrics(space.num_classes, space.ignore_index, windows, boundary=boundary)  # raises where these do not fit
    shift_ids(prediction_label_set or space, id_offset or 0)  # raises where it leaves no ids
    for name, text in segmenters.items():
        found = check_segmenter(text)
        if found is not None:
            check_scorable(name, found, space)
    return BenchPlan(
        data=clips,
        out=Path(out),
        models=tuple(models),
        rows=tuple(row for row in ROWS if row in rows),
        networks=tuple(look_at(network, space) for network in networks),
        compare={name: _label_folder(folder) for name, folder in compare.items()},
        engine=Engine(
            sam2=str(sam2),
            mode=resolved,
            image_size=engine.image_size,
            device=device,
            dtype=str(choose_dtype(engine.dtype, device)).removeprefix("torch."),
            masklets=chosen,
            follow=follow,
            votes=votes,
        ),
        prediction_label_set=prediction_label_set,
        id_offset=id_offset,
        protocol=protocol,
        boundary=boundary,
        windows=tuple(sorted({int(n) for n in windows})),
        seed=seed,
    )


def check_scorable(model: str, found: LabelSpace, truth: LabelSpace) -> None:
    """Refuse a model whose labels could not be scored, before it labels anything.

    Raises:
        LabelError: As the scoring of its labels would.
    """
    try:
        match_classes(truth, found)
    except LabelError as error:
        raise LabelError(f"{model}: {error}") from error


def _label_folder(folder: Path) -> Path:
    """Return the folder of label maps that a user means: that of a run lies inside it."""
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise SettingsError(f"the label folder {folder} {found}, expected a folder of label PNGs")
    is_run = (folder / "run.json").is_file() and (folder / "labels").is_dir()
    return folder / "labels" if is_run else folder


def _check_rows(rows: Sequence[str]) -> None:
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise SettingsError(f"the row {unknown[0]!r} is unknown, expected {', '.join(ROWS)}")


def _check_follow(follow: FollowSettings, masklets: MaskletSettings, mode: ResolvedMode) -> None:
    """Refuse options that would do nothing, or do not go with the mode."""
    works_on_seeds = masklets.crop_layers or masklets.min_mask_area or follow.drop_contained or follow.skip_settled
    check_mode(mode, follow.discover, bool(works_on_seeds))
    if follow.discover >= masklets.window:
        raise SettingsError(
            f"--discover {follow.discover} never comes in windows of {masklets.window} frames: pass a smaller number"
        )
    if mode != "fast" and follow.match_every != 1:
        raise SettingsError(f"--match-every is for --mode fast, and this is mode {mode}: leave it out")
