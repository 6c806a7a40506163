"""The paper's defaults, their bounds, and what presets change."""

import pytest
from pydantic import ValidationError

from sam2vss.pipeline import VoteRule
from sam2vss.settings import (
    DEFAULT_SAM2,
    DEFAULT_SEGMENTER,
    PRESETS,
    SAM2_ALIASES,
    SEGMENTER_ALIASES,
    EngineChoice,
    FollowSettings,
    MaskletSettings,
    VoteSettings,
    apply_preset,
)


def test_the_defaults_are_those_of_the_paper():
    # arXiv 2512.01774, Sec. 3.1: 16 x 16 points, windows of 32 frames, predicted IoU 0.6, stability 0.8, offset 0.9
    assert MaskletSettings().model_dump() == {
        "window": 32, "points": 16, "pred_iou": 0.6, "stability": 0.8, "stability_offset": 0.9, "box_nms": 0.7,
        "min_mask_area": 0, "crop_layers": 0,
    }  # fmt: skip
    assert FollowSettings().model_dump() == {
        "carry": False, "discover": 0, "direction": "forward", "match_every": 1, "max_masklets": None,
        "drop_contained": False, "skip_settled": False,
    }  # fmt: skip
    assert VoteSettings().model_dump() == {
        "vote": "window", "vote_weight": "majority", "min_share": 0.0, "overlap": "small-on-top",
        "void": "keep",
    }  # fmt: skip


def test_the_pipeline_votes_by_the_same_defaults():
    assert VoteRule() == VoteRule(**VoteSettings().model_dump())


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (MaskletSettings, {"window": 0}, "greater than or equal to 1"),
        (MaskletSettings, {"points": 257}, "less than or equal to 256"),
        (MaskletSettings, {"pred_iou": -0.1}, "greater than or equal to 0"),
        (MaskletSettings, {"stability": float("nan")}, "less than or equal to 1|greater than or equal to 0"),
        (MaskletSettings, {"windw": 32}, "windw"),
        (MaskletSettings, {"crop_layers": 4}, "less than or equal to 3"),
        (FollowSettings, {"discover": -1}, "greater than or equal to 0"),
        (FollowSettings, {"direction": "backward"}, "'forward' or 'both'"),
        (FollowSettings, {"max_masklets": 0}, "greater than or equal to 1"),
        (VoteSettings, {"min_share": 1.5}, "less than or equal to 1"),
        (VoteSettings, {"overlap": "none"}, "'small-on-top', 'large-on-top'"),
    ],
)
def test_values_out_of_bounds_and_unknown_keys_are_refused(model, values, message):
    with pytest.raises(ValidationError, match=message):
        model(**values)


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        MaskletSettings().window = 8


def test_the_preset_of_the_paper_changes_only_the_mode():
    assert apply_preset("paper", MaskletSettings(), EngineChoice()) == (MaskletSettings(), EngineChoice(mode="exact"))


def test_without_a_preset_nothing_changes():
    masklets, engine = MaskletSettings(points=3), EngineChoice("prompt", (64, 96), "bfloat16")

    assert apply_preset(None, masklets, engine) == (masklets, engine)


def test_a_preset_fills_in_what_was_not_given():
    masklets, engine = apply_preset("cpu", MaskletSettings(window=8), EngineChoice())
    assert masklets == MaskletSettings(window=8, points=12)
    assert engine == EngineChoice("fast", (512, 512), "fastest")
    # the same value as the default, but given by name
    masklets, engine = apply_preset("cpu", MaskletSettings(points=16), EngineChoice("exact", (1024, 1024), "float32"))
    assert masklets.points == 16
    assert engine == EngineChoice("exact", (1024, 1024), "float32")


def test_the_values_of_presets_are_settings():
    for preset in PRESETS.values():
        MaskletSettings(points=preset.points)


def test_the_defaults_are_known_names():
    assert DEFAULT_SAM2 in SAM2_ALIASES
    assert DEFAULT_SEGMENTER in SEGMENTER_ALIASES
