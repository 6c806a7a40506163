"""SAM 2 as segmentor (paper Sec. 3.1.2): masklets named by a classifier, with or without a base model.

Loads what names masklets and joins it with a tracker; `refiner.py` does the rest. The Python API is `classify`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from .devices import choose_device, choose_dtype
from .errors import LabelError, SettingsError
from .hub import ModelLocation
from .interfaces import BaseLabelSource, FeatureEncoder, MaskletNamer, MaskletTracker
from .pipeline import VoteRule
from .refiner import Refiner, Source, choose_mode, load_tracker, stored_label_space
from .sam2.loading import find_sam2
from .settings import (
    DEFAULT_SAM2,
    ClassifySettings,
    FollowSettings,
    MaskletSettings,
    Mode,
    OverlapOrder,
    VoidPolicy,
    VoteScope,
)
from .types import LabelSpace, Refinement

if TYPE_CHECKING:
    from .classifiers.classifier import MaskletClassifier
    from .namers.classifier import ClassifierNamer
    from .namers.fusion import FusionNamer

BUNDLED = Path(__file__).parent / "classifiers" / "nano"
CLASSIFIER_NAMES = {"nano": str(BUNDLED / "classifier")}
FUSION_NAMES = {"nano": str(BUNDLED / "fusion"), "nano-any": str(BUNDLED / "fusion-any")}

Combine = float | Literal["learned"]


def find_classifier(name: str) -> ModelLocation:
    """Find a masklet classifier by name ("nano" is bundled), hub id or folder.

    Raises:
        WeightsError: If it cannot be had, or is something else.
    """
    from .classifiers.classifier import MaskletClassifier

    return MaskletClassifier.find(name, CLASSIFIER_NAMES)


def find_fusion(name: str) -> ModelLocation:
    """Find a learned fusion by name ("nano" is bundled), hub id or folder; errors as of `find_classifier`."""
    from .classifiers.fusion import MaskletFusion

    return MaskletFusion.find(name, FUSION_NAMES)


def load_classifier(location: ModelLocation, device: str = "cpu") -> "MaskletClassifier":
    """Load a classifier that `find_classifier` found.

    Raises:
        WeightsError: If its files are damaged.
    """
    from .classifiers.classifier import MaskletClassifier

    return MaskletClassifier.load(location, device)


def load_classifier_namer(
    classifier: "MaskletClassifier",
    tracker: MaskletTracker | None = None,
    *,
    encoder: str | None = None,
    vote: VoteScope | None = None,
    combine: Combine | None = None,
    min_share: float = 0.0,
    device: str = "cpu",
    dtype: str = "float32",
) -> "ClassifierNamer":
    """Join a classifier with its encoder, which is the tracker's own where that gives the same features.

    Args:
        classifier: Names masks or masklets.
        tracker: Source of the masklets; one of SAM 2 then encodes every frame for both.
        encoder: Where the encoder lies, if not where the classifier was trained.
        vote: One class per masklet and window, or per frame; None: as the classifier was trained.
        combine: Weight of base votes beside the classifier, or "learned" for the one that validation clips gave; None:
            base labels only fill what no masklet covers.
        min_share: Below this probability a masklet abstains.
        device: Device of a loaded encoder.
        dtype: Its number format.

    Raises:
        SettingsError: If something does not fit together.
        WeightsError: If the encoder cannot be had.
    """
    from .namers.classifier import ClassifierNamer

    weight = 0.0 if combine is None else combine
    if isinstance(weight, str):
        if weight != "learned":
            raise SettingsError(f'combine is {weight!r}, expected "learned" or a weight from 0 to 1')
        if classifier.vote_weight is None:
            raise SettingsError(
                "this classifier was trained without base votes, so it has learned no weight for them: pass a number, "
                "such as --combine 0.5"
            )
        weight = classifier.vote_weight
    found = load_shared_encoder(encoder or classifier.encoder_name, tracker, device, dtype)
    return ClassifierNamer(found, classifier, vote, float(weight), min_share)


def load_fusion_namer(
    location: ModelLocation,
    label_space: LabelSpace,
    tracker: MaskletTracker | None = None,
    *,
    encoder: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> "FusionNamer":
    """Load a learned fusion and, if it looks at features, its encoder; arguments as of `load_classifier_namer`.

    Raises:
        SettingsError: If it does not fit the classes of the base labels, or the encoder is another one.
        WeightsError: If something cannot be had or loaded.
    """
    from .classifiers.fusion import MaskletFusion
    from .namers.fusion import FusionNamer

    network = MaskletFusion.load(location, device)
    network.check_classes(label_space)
    name = encoder or network.encoder_name
    found = None
    if network.encoder_name is not None and name is not None:
        found = load_shared_encoder(name, tracker, device, dtype)
    return FusionNamer(network, label_space, found)


def load_shared_encoder(name: str, tracker: MaskletTracker | None, device: str, dtype: str) -> FeatureEncoder:
    """Load an encoder, or take the tracker's own where that is the same: frames are then encoded once for both."""
    from .encoders import load_encoder, share_encoder
    from .sam2.tracker import Sam2Tracker

    if isinstance(tracker, Sam2Tracker) and tracker.location is not None:
        shared = share_encoder(name, tracker.location, tracker.network)
        if shared is not None:
            tracker.encode = shared.encode_ahead
            return shared
    return load_encoder(name, device, dtype)


def check_classes(base: LabelSpace, named: LabelSpace) -> None:
    """Raise `LabelError` unless base labels and classifier speak of the same classes in the same order."""
    if base.names == named.names:
        return
    differing = [f"{i}: {a} / {b}" for i, (a, b) in enumerate(zip(base.names, named.names, strict=False)) if a != b]
    raise LabelError(
        f"the base labels have {base.num_classes} classes ({base.name or 'without a name'}), the classifier names "
        f"{named.num_classes} ({named.name or 'without a name'})"
        + (f"; first difference, base / classifier, is {differing[0]}" if differing else "")
        + ". Take base labels of the classifier's classes, or train a classifier for yours"
    )


def base_label_space(folder: Path, named: LabelSpace, label_set: str | Path | None = None) -> LabelSpace:
    """Return the classes of stored base labels: those given, the folder's own, else those that masklets are named with.

    Raises:
        LabelError: If a label set cannot be read.
        RunError: If the folder belongs to a run whose run.json cannot be read.
    """
    try:
        return stored_label_space(folder, label_set)
    except SettingsError:
        if label_set is not None:
            raise
        return named


def check_savings(follow: FollowSettings) -> None:
    """Raise `SettingsError` for savings that foresee the vote of base labels, where something else names masklets."""
    if follow.skip_settled or follow.drop_contained:
        raise SettingsError(
            "--skip-settled and --drop-contained drop masklets by the base votes, and here something else names them: "
            "leave them out, or use --max-masklets"
        )


def classify(
    source: Source,
    *,
    classifier: "str | Path | MaskletClassifier",
    base: str | Path | np.ndarray | BaseLabelSource | None = None,
    combine: Combine | None = None,
    sam2: str | Path = DEFAULT_SAM2,
    masklets: MaskletSettings | None = None,
    follow: FollowSettings | None = None,
    vote: VoteScope | None = None,
    min_share: float = 0.0,
    overlap: OverlapOrder = "small-on-top",
    void: VoidPolicy = "keep",
    mode: Mode = "exact",
    device: str = "auto",
    dtype: str = "auto",
) -> Iterator[Refinement]:
    """Label one clip with SAM 2's masklets and a classifier of their features; one `Refinement` per window.

    Args:
        source: Frames, uint8 RGB (T, H, W, 3), or a video file or folder of pictures.
        classifier: "nano" (bundled), a hub id or folder, or a loaded `MaskletClassifier`.
        base: Labels that fill what no masklet covers (the paper's base mode), in any form that `Refiner.refine` takes;
            None: such pixels stay void.
        combine: Weight of base votes beside the classifier, [0, 1], or "learned"; None: they have no say.
        sam2: SAM 2 weights, see `Refiner.from_pretrained`, as are the arguments that follow.
        masklets: Window, point grid and thresholds.
        follow: How masklets live on.
        vote: One class per masklet and window, or per frame; None: as the classifier was trained.
        min_share: Below this probability a masklet abstains.
        overlap: Which masklet wins where several overlap.
        void: What becomes of pixels without a base label; see `VoteSettings`.
        mode: How masklets are followed.
        device: Device of all networks.
        dtype: Number format of SAM 2 and of the encoder.

    Raises:
        SettingsError: If options do not fit together.
        WeightsError: If weights cannot be had or loaded.
        LabelError: If the base labels are of other classes than the classifier's.
    """
    from .classifiers.classifier import MaskletClassifier
    from .segmenters.in_space import LabelsInSpace
    from .segmenters.stored import StoredLabels
    from .segmenters.void import VoidLabels

    if combine is not None and base is None:
        raise SettingsError("combine weighs base votes, and there is no base: pass base=, or leave combine out")
    check_savings(follow or FollowSettings())
    try:
        ClassifySettings(vote=vote, min_share=min_share, overlap=overlap, void=void)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise SettingsError(f"{wrong['loc'][0]} is {wrong['input']!r}: {wrong['msg']}") from None
    device = choose_device(device)
    number_format = str(choose_dtype(dtype, device)).removeprefix("torch.")
    masklets, follow = masklets or MaskletSettings(), follow or FollowSettings()
    if not isinstance(classifier, MaskletClassifier):
        classifier = load_classifier(find_classifier(str(classifier)), device)
    tracker = load_tracker(
        find_sam2(sam2),
        masklets,
        follow,
        mode=choose_mode(mode, device, sam2),
        device=device,
        dtype=number_format,
    )
    namer: MaskletNamer = load_classifier_namer(
        classifier, tracker, vote=vote, combine=combine, min_share=min_share, device=device, dtype=number_format
    )
    refiner = Refiner(tracker, masklets.window, VoteRule(overlap=overlap, void=void), namer=namer, carry=follow.carry)
    if base is None:
        yield from refiner.refine(source, VoidLabels(classifier.label_space))
        return
    space = classifier.label_space
    if isinstance(base, str | Path) and not isinstance(source, np.ndarray):
        base = StoredLabels(Path(base), base_label_space(Path(base), space))
    if not isinstance(base, str | Path | np.ndarray):
        check_classes(base.label_space, space)
        base = LabelsInSpace(base, space)
    yield from refiner.refine(source, base, space)
