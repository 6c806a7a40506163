"""Classifiers and fusions of a bench: looked at before anything is run, loaded for the rows that need them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..interfaces import MaskletNamer, MaskletTracker
from ..segmentor import find_classifier, find_fusion, load_classifier, load_classifier_namer, load_fusion_namer
from ..types import LabelSpace
from .tasks import NamingModel

if TYPE_CHECKING:
    from ..hub import ModelLocation
    from .plan import Engine


def look_at(network: NamingModel, truth: LabelSpace) -> NamingModel:
    """Return a network with what is known of it only when its files are read.

    Whether a fusion fits base labels is seen when these are there.

    Args:
        network: A classifier or fusion by its source.
        truth: Classes of the data set.

    Raises:
        WeightsError: If it cannot be had, or is something else.
        SettingsError: If a classifier names other classes than the data set has.
    """
    from ..classifiers.fusion import MaskletFusion

    location = locate(network)
    if network.kind == "fusion":
        fusion = MaskletFusion.load(location)
        return replace(network, encoder=fusion.encoder_name, encoder_fingerprint=fusion.encoder_fingerprint)
    found = load_classifier(location)
    _check_classes(network.name, found.label_space, truth)
    return replace(network, encoder=found.encoder_name, encoder_fingerprint=found.encoder_fingerprint, vote=found.scope)


def _check_classes(name: str, own: LabelSpace, truth: LabelSpace) -> None:
    if own.names == truth.names:
        return
    pairs = enumerate(zip(own.names, truth.names, strict=False))
    differing = [f"{i}: {a} / {b}" for i, (a, b) in pairs if a != b]
    raise SettingsError(
        f"--classifier {name} names {own.num_classes} classes ({own.name or 'without a name'}), the data set has "
        f"{truth.num_classes} ({truth.name or 'without a name'})"
        + (f"; first difference, classifier / data set, is {differing[0]}" if differing else "")
        + ". Train one for the data set with `sam2vss train classifier`, or leave it out"
    )


def locate(network: NamingModel) -> "ModelLocation":
    """Return where its files lie.

    Raises:
        WeightsError: If it cannot be had.
    """
    return find_classifier(network.source) if network.kind == "classifier" else find_fusion(network.source)


def load_namer(
    network: NamingModel, label_space: LabelSpace, tracker: MaskletTracker, engine: "Engine"
) -> MaskletNamer:
    """Load what names masklets, with its encoder.

    Args:
        network: The classifier or fusion.
        label_space: Classes of the base labels, for a fusion.
        tracker: Source of the masklets; SAM 2 may lend its own encoder.
        engine: Device and number format.

    Raises:
        SettingsError: If it does not fit the classes, or the encoder is another one.
        WeightsError: If something cannot be had or loaded.
    """
    device, dtype = engine.device, engine.dtype
    location = locate(network)
    if network.kind == "fusion":
        return load_fusion_namer(location, label_space, tracker, device=device, dtype=dtype)
    return load_classifier_namer(load_classifier(location, device), tracker, device=device, dtype=dtype)
