"""`sam2vss refine`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import DEFAULT_SEGMENTER, FollowSettings, MaskletSettings, VoteSettings
from .masklet_run import Naming, RunOptions, run_masklets

if TYPE_CHECKING:
    from ..interfaces import BaseLabelSource, MaskletNamer, MaskletTracker
    from ..types import LabelSpace
    from .masklet_run import NamerLoader


def refine(
    *source: Path,
    labels: Path | None = None,
    segmenter: str | None = None,
    label_set: Path | None = None,
    id_offset: int | None = None,
    fusion: str | None = None,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    follow: Annotated[FollowSettings, Parameter(name="*")] = FollowSettings(),  # noqa: B008 (frozen)
    votes: Annotated[VoteSettings, Parameter(name="*")] = VoteSettings(),  # noqa: B008 (frozen)
    options: Annotated[RunOptions, Parameter(name="*")],
) -> int:
    """Make the labels of videos consistent over time and sharp at the edges.

    Parameters
    ----------
    source
        Video files, folders of pictures, data-set roots, or text files that list them.
    labels
        Base labels: a folder of label PNGs, or of panoptic predictions: pred.json with pan_pred (DVIS, CAVIS, VidEoMT),
        a JSON list beside each picture (DEVA), or VIPSeg's code. Of those the classes are taken.
    segmenter
        Base labels by a model: alias, hub id, folder or checkpoint (.pth); `sam2vss models` lists them. Behind a native
        one, @clip (default) lets labels depend on earlier frames, @frame on none, @stream (TV3S) on a carried state:
        cffm_b1.pth@frame. `sam2vss models FILE` says which it has. Default without --labels: segformer-b2.
    label_set
        Names, colours and ids of the label PNGs: vspw (ids 1..124, void 0 and 255), vipseg or a label_set.json.
        Categories of panoptic predictions are its classes by position, 0 being the first, or with --id-offset by id.
        With a model: what its classes are called, and written as.
    id_offset
        Added to every id in the label PNGs, or category of panoptic predictions, to give an id of the label set: 1
        where they count from 0 and the label set from 1, as VSPW's and VIPSeg's do. Default: ids are the label set's,
        and refused if they look shifted; categories count from 0.
    fusion
        Decide by a learned network in place of the majority vote: what `sam2vss train fusion` made, or "nano-any"
        (bundled, any label set), or "nano" (bundled, rendered street scenes and sam2-nano only).
    """
    from ..files import folder_fingerprint

    if labels is not None and segmenter is not None:
        raise SettingsError("--labels and --segmenter both give base labels: pass one of them")
    if labels is not None and not labels.exists():
        raise SettingsError(f"--labels {labels} does not exist")
    if labels is None and id_offset is not None:
        raise SettingsError("--id-offset is for ids in label PNGs, and a model makes the labels: pass --labels")
    load_namer = None
    if fusion is not None:
        if votes != VoteSettings(overlap=votes.overlap, void=votes.void):
            raise SettingsError(
                "--vote, --vote-weight and --min-share say how masklets vote, and --fusion decides: drop one"
            )
        load_namer = _fusion_loader(fusion)
    naming = Naming(
        command="refine",
        base=lambda device, dtype: load_base(labels, segmenter, label_set, device, dtype, votes, id_offset),
        namer=load_namer,
        settings={
            "fusion": fusion,
            "labels": None if labels is None else str(labels.resolve()),
            "labels_fingerprint": None if labels is None else folder_fingerprint(labels, options.out),
            "id_offset": id_offset,
            "segmenter": None if labels is not None else segmenter or DEFAULT_SEGMENTER,
        },
        inputs=[path for path in (labels, label_set) if path is not None],
        plan={
            **({"labels": labels} if labels is not None else {"segmenter": segmenter or DEFAULT_SEGMENTER}),
            **({"fusion": fusion} if fusion is not None else {}),
        },
        check=lambda: check_model(segmenter or DEFAULT_SEGMENTER, label_set) if labels is None else None,
    )
    return run_masklets(source, options, masklets, follow, votes, naming)


def check_model(name: str, label_set: Path | None = None) -> "LabelSpace | None":
    """Return a base model's classes, None if it is still on a hub; what cannot be used is known before any work."""
    from ..refiner import model_label_space
    from ..segmenters import describe_segmenter

    found = describe_segmenter(name)
    space = None if found is None else found.label_space
    if found is not None and space is not None and label_set is not None:
        return model_label_space(space, label_set, name, found.names_are_guessed)
    return space


def load_base(
    labels: Path | None,
    segmenter: str | None,
    label_set: Path | None,
    device: str,
    dtype: str,
    votes: VoteSettings,
    id_offset: int | None = None,
) -> tuple["BaseLabelSource", dict[str, str]]:
    """Load base labels, stored or of a model, with the hashes of its weights."""
    from ..refiner import model_label_space, stored_label_space
    from ..segmenters import ModelLabels, StoredLabels, load_segmenter
    from ..segmenters.in_space import LabelsInSpace

    wants_probabilities = votes.vote_weight == "probability"
    if labels is not None:
        if wants_probabilities:
            raise SettingsError("--vote-weight probability needs a model: stored label PNGs hold no probabilities")
        return StoredLabels(labels, stored_label_space(labels, label_set), id_offset), {}
    model = load_segmenter(segmenter or DEFAULT_SEGMENTER, device, dtype, want_probabilities=wants_probabilities)
    source: BaseLabelSource = ModelLabels(model)
    if label_set is not None:
        space = model_label_space(model.label_space, label_set, model.location.id, model.names_are_guessed)
        source = LabelsInSpace(source, space)
    return source, {f"{model.location.id}/{name}": sha for name, sha in model.location.sha256().items()}


def _fusion_loader(fusion: str) -> "NamerLoader":
    """Find a fusion now, so that a wrong name is known before any work; return what loads it."""
    from ..segmentor import find_fusion, load_fusion_namer

    location = find_fusion(fusion)

    def load(
        tracker: "MaskletTracker", label_space: "LabelSpace", device: str, dtype: str
    ) -> tuple["MaskletNamer", dict[str, str]]:
        namer = load_fusion_namer(location, label_space, tracker, device=device, dtype=dtype)
        return namer, {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}

    return load
