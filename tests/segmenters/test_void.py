"""No base labels: every pixel void, any clip welcome."""

import pytest

from sam2vss.segmenters.void import VoidLabels
from sam2vss.types import LabelSpace
from toy import CLASSES, SIZE, ToyClip

WIDE = LabelSpace.numbered(300)


@pytest.mark.parametrize(("space", "void", "dtype"), [(CLASSES, 255, "uint8"), (WIDE, 65535, "uint16")])
def test_every_pixel_is_void(space, void, dtype):
    source = VoidLabels(space)
    assert source.check("toy", ["a"], 7, (1, 1)) == "none"
    base = source.labels_for("toy", list(ToyClip(3).frames()))
    source.finish("toy", 99)
    assert (base.labels.shape, base.labels.dtype, base.probabilities) == ((3, *SIZE), dtype, None)
    assert (base.labels == void).all()
    space.check(base.labels)
