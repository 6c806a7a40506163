"""`sam2vss classify`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import (
    DEFAULT_TEXT_MODEL,
    ClassifySettings,
    FollowSettings,
    MaskletSettings,
    TextSettings,
    VoteSettings,
)
from .masklet_run import Naming, RunOptions, run_masklets
from .refine import check_model, load_base

if TYPE_CHECKING:
    from ..interfaces import BaseLabelSource, MaskletNamer, MaskletTracker
    from ..namers.vocabulary import Vocabulary
    from ..types import LabelSpace
    from .masklet_run import NamerLoader


@dataclass(frozen=True)
class _Namer:
    """What names masklets: how it is loaded, what of it decides the result, and a line for --dry-run."""

    load: "NamerLoader"
    settings: Mapping[str, Any]
    plan: Mapping[str, object]


def classify(
    *source: Path,
    classifier: str | None = None,
    labels_text: str | None = None,
    prompts: Path | None = None,
    text_model: str = DEFAULT_TEXT_MODEL,
    base: str | None = None,
    label_set: Path | None = None,
    id_offset: int | None = None,
    combine: str | None = None,
    encoder: str | None = None,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    follow: Annotated[FollowSettings, Parameter(name="*")] = FollowSettings(),  # noqa: B008 (frozen)
    naming: Annotated[ClassifySettings, Parameter(name="*")] = ClassifySettings(),  # noqa: B008 (frozen)
    text: Annotated[TextSettings, Parameter(name="*")] = TextSettings(),  # noqa: B008 (frozen)
    options: Annotated[RunOptions, Parameter(name="*")],
) -> int:
    """Label videos by SAM 2's masklets and what a classifier or a text model sees in them (I-SAM2).

    Give --classifier, or name the classes in words: --labels-text "sky,person,red car", or --prompts FILE.

    Parameters
    ----------
    source
        Video files, folders of pictures, data-set roots, or text files that list them.
    classifier
        What `sam2vss train classifier` made: folder, hub id, or "nano" (bundled, for rendered street scenes).
    labels_text
        Classes in words, without training: "sky,person=person|pedestrian,red car"; what follows = are synonyms.
    prompts
        The same from a file: YAML or JSON with classes, their synonyms and templates, or a class a line.
    text_model
        Model that compares pictures with words (CLIP, SigLIP, SigLIP 2): alias, hub id or local folder.
    base
        Labels where no masklet is: a folder of label PNGs or panoptic predictions as for refine --labels, or a model as
        for refine --segmenter. Default: none, such pixels stay void.
    label_set
        Names, colours and ids of the label PNGs: vspw, vipseg or a label_set.json. Default: the classifier's. With
        --prompts or without --labels-text also the classes to look for by words.
    id_offset
        Added to every id in the label PNGs: 1 where they count from 0 and the label set from 1, as VSPW's does.
        Default: as the label set says; ids that look shifted are refused.
    combine
        Give base votes a say in the classes too: their weight, 0 to 1, or "learned".
    encoder
        Where the classifier's encoder lies, if it has moved.
    """
    weight = _parse_combine(combine)
    if combine is not None and base is None:
        raise SettingsError("--combine weighs base votes, and there is no base: pass --base, or leave --combine out")
    if base is None and options.smooth != "none":
        raise SettingsError("--smooth is for base labels, and there are none: pass --base")
    if base is None and naming.void in ("nearest", "previous"):
        raise SettingsError(
            f"--void {naming.void} fills base labels, and there are none: pass --base, or --void vote, which fills "
            "what masklets leave"
        )
    by_text = labels_text is not None or prompts is not None
    if by_text == (classifier is not None):
        raise SettingsError("pass either --classifier, or classes in words with --labels-text or --prompts")
    labels = _label_folder(base)
    base_space = check_model(base) if base is not None and labels is None else None
    if labels is None and id_offset is not None:
        raise SettingsError("--id-offset is for ids in label PNGs, and there are none: pass --base FOLDER")
    if by_text:
        if combine is not None or encoder is not None or naming.vote == "frame":
            raise SettingsError("--combine, --encoder and --vote frame go with --classifier, not with classes in words")
        vocabulary = _read_vocabulary(labels_text, prompts, label_set if base is None else None)
        space, how = vocabulary.label_space, _by_text(vocabulary, text_model, text, naming)
    else:
        if base is None and label_set is not None:
            raise SettingsError("--label-set says what base labels mean, and there are none: pass --base")
        if text != TextSettings() or text_model != DEFAULT_TEXT_MODEL:
            raise SettingsError("--text-model, --views, --crop-weight, --margin and --fade go with classes in words")
        assert classifier is not None
        space, how = _by_classifier(classifier, encoder, naming, weight)
    if base_space is not None:
        from ..segmentor import check_classes

        check_classes(base_space, space)
    request = Naming(
        command="classify",
        base=lambda device, dtype: _load_base(base, labels, label_set, space, by_text, device, dtype, id_offset),
        namer=how.load,
        settings={
            **how.settings,
            "base": base if labels is None else str(labels.resolve()),
            "id_offset": id_offset,
            **_fingerprint(labels, options.out),
        },
        inputs=[path for path in (labels, label_set, prompts) if path is not None],
        plan={**how.plan, "base": base or "none"},
        has_base=base is not None,
    )
    vote = how.settings["vote"]
    painting = VoteSettings(vote=vote, min_share=naming.min_share, overlap=naming.overlap, void=naming.void)
    return run_masklets(source, options, masklets, follow, painting, request)


def _by_classifier(
    classifier: str, encoder: str | None, naming: ClassifySettings, combine: Any
) -> tuple["LabelSpace", _Namer]:
    """Say how a classifier names masklets, and of which classes."""
    from ..segmentor import find_classifier, load_classifier, load_classifier_namer

    location = find_classifier(classifier)
    network = load_classifier(location)

    def load(
        tracker: "MaskletTracker", label_space: "LabelSpace", device: str, dtype: str
    ) -> tuple["MaskletNamer", dict[str, str]]:
        namer = load_classifier_namer(
            network.to(device),
            tracker,
            encoder=encoder,
            vote=naming.vote,
            combine=combine,
            min_share=naming.min_share,
            device=device,
            dtype=dtype,
        )
        return namer, {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}

    settings = {
        "classifier": classifier,
        "encoder": network.encoder_name,
        "encoder_fingerprint": network.encoder_fingerprint,
        "combine": network.vote_weight if combine == "learned" else combine,
        "vote": naming.vote or network.scope,
    }
    plan = {"names": f"{classifier} on features of {network.encoder_name}"}
    return network.label_space, _Namer(load, settings, plan)


def _by_text(vocabulary: "Vocabulary", text_model: str, text: TextSettings, naming: ClassifySettings) -> _Namer:
    """Say how words name masklets; a model that cannot be had is known before any work."""
    from ..encoders.image_text import find_text_model

    find_text_model(text_model)

    def load(
        tracker: "MaskletTracker", label_space: "LabelSpace", device: str, dtype: str
    ) -> tuple["MaskletNamer", dict[str, str]]:
        from ..namers.text import load_text_namer

        return load_text_namer(vocabulary, text_model, device, dtype, **text.model_dump(), min_share=naming.min_share)

    settings = {
        "text_model": text_model,
        "vocabulary": vocabulary.to_dict(),
        "text": text.model_dump(),
        "vote": "window",
    }
    plan = {"names": f"{text_model} by words for {vocabulary.label_space.num_classes} classes"}
    return _Namer(load, settings, plan)


def _read_vocabulary(labels_text: str | None, prompts: Path | None, label_set: Path | None) -> "Vocabulary":
    """Read the classes in words; those of a label set get their synonyms from the prompts."""
    from ..datasets.label_sets import find_label_space
    from ..namers.vocabulary import Vocabulary

    if labels_text is not None and (prompts is not None or label_set is not None):
        raise SettingsError("--labels-text names the classes itself: leave --prompts and --label-set out")
    if labels_text is not None:
        return Vocabulary.from_text(labels_text)
    assert prompts is not None
    vocabulary = Vocabulary.from_file(prompts)
    if label_set is None:
        return vocabulary
    return Vocabulary.from_label_space(find_label_space(label_set), vocabulary)


def _parse_combine(text: str | None) -> Any:
    """Read "learned" or a number from 0 to 1."""
    if text is None or text == "learned":
        return text
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise SettingsError(f'--combine {text} is neither "learned" nor a weight from 0 to 1')
    return weight


def _label_folder(base: str | None) -> Path | None:
    """Return the folder of label maps that `--base` names; None where it names a model, or nothing."""
    if base is None:
        return None
    folder = Path(base)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return None
    is_run = (folder / "run.json").is_file() and (folder / "labels").is_dir()
    return folder / "labels" if is_run else folder


def _fingerprint(labels: Path | None, out: Path) -> dict[str, str]:
    from ..files import folder_fingerprint

    return {} if labels is None else {"base_fingerprint": folder_fingerprint(labels, out)}


def _load_base(
    base: str | None,
    labels: Path | None,
    label_set: Path | None,
    space: "LabelSpace",
    by_text: bool,
    device: str,
    dtype: str,
    id_offset: int | None,
) -> tuple["BaseLabelSource", dict[str, str]]:
    """Load what fills the pixels outside all masklets, after making sure that it speaks of the same classes.

    Colours and raw ids of the run are the classifier's; classes in words have none of their own worth keeping.
    """
    from ..segmenters import StoredLabels
    from ..segmenters.in_space import LabelsInSpace
    from ..segmenters.void import VoidLabels
    from ..segmentor import base_label_space, check_classes

    if base is None:
        return VoidLabels(space), {}
    if labels is None:
        source, weights = load_base(None, base, None, device, dtype, VoteSettings())
    else:
        source, weights = StoredLabels(labels, base_label_space(labels, space, label_set), id_offset), {}
    check_classes(source.label_space, space)
    return source if by_text else LabelsInSpace(source, space), weights
