"""Which classes a checkpoint speaks of, when it holds little more than their number."""

from collections.abc import Sequence
from functools import lru_cache

from ..datasets.label_sets import find_label_space, plain_name
from ..types import LabelSpace
from .palettes import CITYSCAPES_NAMES, palette_of

NUM_VSPW_CLASSES = 124


def label_space_of(num_classes: int, names: Sequence[str] = ()) -> LabelSpace:
    """Return the label set of a model.

    Names say which it is. Without them 124 classes are VSPW's, train ids 0..123 for "wall" to "train", and 19 are
    Cityscapes'; other numbers leave the classes unnamed.

    Args:
        num_classes: C, as the model scores them.
        names: C names, or none (an empty one, or another number of them, is taken as none).
    """
    named = tuple(names) if len(names) == num_classes else ()
    if num_classes == NUM_VSPW_CLASSES and (not named or _plain(named) == _plain(vspw().names)):
        return vspw()
    if not named and num_classes == len(CITYSCAPES_NAMES):
        named = CITYSCAPES_NAMES
    if not named:
        return LabelSpace.numbered(num_classes, name=f"{num_classes} unnamed classes")
    set_name, palette = palette_of(named)
    return LabelSpace(named, palette, name=set_name or f"{num_classes} classes of the model")


def vspw() -> LabelSpace:
    """VSPW's label set: 124 classes, raw ids 1..124."""
    return find_label_space("vspw")


@lru_cache
def vipseg_training_order() -> tuple[int, ...]:
    """VSPW's train ids in the order in which models trained on VIPSeg count them: things first, then stuff.

    Source: the data set mappers for VIPSeg of DVIS, DVIS++, CAVIS and VidEoMT.
    """
    kinds = find_label_space("vipseg").kinds
    return tuple(i for kind in ("thing", "stuff") for i, found in enumerate(kinds) if found == kind)


def _plain(names: Sequence[str]) -> list[str]:
    return [plain_name(name) for name in names]
