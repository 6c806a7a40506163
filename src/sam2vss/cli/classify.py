"""`sam2vss classify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import ClassifySettings, FollowSettings, MaskletSettings, VoteSettings
from .masklet_run import Naming, RunOptions, run_masklets
from .refine import load_base

if TYPE_CHECKING:
    from ..classifiers.classifier import MaskletClassifier
    from ..interfaces import BaseLabelSource, MaskletNamer, MaskletTracker


def classify(
    *source: Path,
    classifier: str,
    base: str | None = None,
    label_set: Path | None = None,
    combine: str | None = None,
    encoder: str | None = None,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    follow: Annotated[FollowSettings, Parameter(name="*")] = FollowSettings(),  # noqa: B008 (frozen)
    naming: Annotated[ClassifySettings, Parameter(name="*")] = ClassifySettings(),  # noqa: B008 (frozen)
    options: Annotated[RunOptions, Parameter(name="*")],
) -> int:
    """Label videos by SAM 2's masklets and a classifier of their features (I-SAM2), with or without a base model.

    Parameters
    ----------
    source
        Video files, folders of pictures, data-set roots, or text files that list them.
    classifier
        What `sam2vss train classifier` made: folder, hub id, or "nano" (bundled, for rendered street scenes).
    base
        Labels where no masklet is: a folder of label PNGs, or a model as for refine --segmenter. Default: none, such
        pixels stay void.
    label_set
        Names, colours and ids of the label PNGs: vspw, vipseg or a label_set.json. Default: the classifier's.
    combine
        Give base votes a say in the classes too: their weight, 0 to 1, or "learned".
    encoder
        Where the classifier's encoder lies, if it has moved.
    """
    from ..segmentor import find_classifier, load_classifier

    weight = _parse_combine(combine)
    if combine is not None and base is None:
        raise SettingsError("--combine weighs base votes, and there is no base: pass --base, or leave --combine out")
    if base is None and (label_set is not None or options.smooth != "none"):
        raise SettingsError("--label-set and --smooth are for base labels, and there are none: pass --base")
    location = find_classifier(classifier)
    network = load_classifier(location)
    labels = _label_folder(base)

    def load_labels(device: str, dtype: str) -> tuple["BaseLabelSource", dict[str, str]]:
        return _load_base(base, labels, label_set, network, device, dtype)

    def load_namer(tracker: "MaskletTracker", device: str, dtype: str) -> tuple["MaskletNamer", dict[str, str]]:
        from ..segmentor import load_classifier_namer

        namer = load_classifier_namer(
            network.to(device),
            tracker,
            encoder=encoder,
            vote=naming.vote,
            combine=weight,
            min_share=naming.min_share,
            device=device,
            dtype=dtype,
        )
        return namer, {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}

    how = Naming(
        command="classify",
        base=load_labels,
        namer=load_namer,
        settings={
            "classifier": classifier,
            "encoder": network.encoder_name,
            "encoder_fingerprint": network.encoder_fingerprint,
            "base": base if labels is None else str(labels.resolve()),
            **_fingerprint(labels, options.out),
            "combine": network.vote_weight if weight == "learned" else weight,
            "vote": naming.vote or network.scope,
        },
        inputs=[path for path in (labels, label_set) if path is not None],
        plan={"names": f"{classifier} on features of {network.encoder_name}", "base": base or "none"},
    )
    painting = VoteSettings(vote=naming.vote or network.scope, min_share=naming.min_share, overlap=naming.overlap)
    return run_masklets(source, options, masklets, follow, painting, how)


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
    network: "MaskletClassifier",
    device: str,
    dtype: str,
) -> tuple["BaseLabelSource", dict[str, str]]:
    """Load what fills the pixels outside all masklets, after making sure that it speaks of the same classes."""
    from ..refiner import stored_label_space
    from ..segmenters import StoredLabels
    from ..segmenters.void import VoidLabels
    from ..segmentor import check_classes

    if base is None:
        return VoidLabels(network.label_space), {}
    if labels is None:
        source, weights = load_base(None, base, None, device, dtype, VoteSettings())
    else:
        own = (labels / "label_set.json", labels.parent / "label_set.json", labels.parent / "run.json")
        given = label_set if label_set is not None or any(file.is_file() for file in own) else network.label_space
        source, weights = StoredLabels(labels, stored_label_space(labels, given)), {}
    check_classes(source.label_space, network.label_space)
    return source, weights
