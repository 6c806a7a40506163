"""Rows of a classifier, worked out by hand for two masklets in two frames."""

import math

import numpy as np
import pytest

from sam2vss.classifiers.samples import SHAPE_NAMES, feature_columns, frame_weights, join_samples, make_samples
from sam2vss.errors import WeightsError
from toy_features import make_known

# Frame 0 shows masklet 0 (4 pixels) and masklet 2 (100); frame 1 masklet 0 (16); masklet 1 is never seen.
AREAS = [[4, 0, 100], [16, 0, 0]]
FEATURES = np.array([[[1.0, 0], [9, 9], [5, 5]], [[4.0, 3], [9, 9], [9, 9]]])


def known_pair(**more):
    return make_known(AREAS, FEATURES, **more)


def test_scope_frame_has_a_row_for_every_visible_mask():
    rows = make_samples(known_pair(), "frame")
    assert rows.frames.tolist() == rows.groups.tolist() == [0, 0, 1]
    assert rows.masklets.tolist() == [0, 2, 0]
    assert rows.features.tolist() == [[1, 0], [5, 5], [4, 3]]
    assert (rows.features.dtype, rows.shapes.dtype, rows.groups.dtype) == (np.float32, np.float32, np.int64)
    assert len(rows) == 3


def test_scope_window_averages_the_frames_in_which_a_masklet_is_seen():
    rows = make_samples(known_pair(), "window")
    assert (rows.frames.tolist(), rows.groups.tolist(), rows.masklets.tolist()) == ([-1, -1], [0, 0], [0, 2])
    assert rows.features.tolist() == [[2.5, 1.5], [5, 5]]
    assert (rows.features.dtype, rows.groups.dtype, rows.frames.dtype) == (np.float32, np.int64, np.int64)


def test_quality_counts_frames_by_root_of_area_predicted_iou_and_border():
    boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (2, 3, 1))
    boxes[1, 0] = [0.5, 0.0, 0.75, 0.5]  # touches the upper border
    known = known_pair(boxes_xyxy=boxes, frame_iou=np.array([[1.0, 0, 0.8], [0.5, 0, 0]], np.float32))
    # masklet 0: sqrt(4) * 1 * 1 = 2 in frame 0, sqrt(16) * 0.5 * 0.5 = 1 in frame 1; masklet 2: 10 * 0.8
    np.testing.assert_allclose(frame_weights(known, "quality"), [[2, 0, 8], [1, 0, 0]], rtol=1e-6)
    assert frame_weights(known, "uniform").tolist() == [[1, 0, 1], [1, 0, 0]]
    rows = make_samples(known, "window", "quality")
    np.testing.assert_allclose(rows.features, [[(2 * 1 + 4) / 3, 1], [5, 5]], rtol=1e-6)


def test_a_masklet_of_no_predicted_iou_still_counts():
    known = known_pair(frame_iou=np.zeros((2, 3), np.float32))
    rows = make_samples(known, "window", "quality")
    np.testing.assert_allclose(rows.features, [[(1 * 2 + 4 * 4) / 6, 3 * 4 / 6], [5, 5]], rtol=1e-6)


@pytest.mark.parametrize("side", range(4))
def test_a_mask_at_any_side_of_the_picture_is_cut_off(side):
    box = [0.1, 0.1, 0.9, 0.9]
    box[side] = float(side > 1)
    known = make_known([[9]], boxes_xyxy=np.array([[box]], np.float32))
    assert frame_weights(known, "quality")[0, 0] == pytest.approx(1.5)  # sqrt(9) / 2
    assert make_samples(known, "frame").shapes[0, SHAPE_NAMES.index("at border")] == 1


def test_shapes_are_those_of_the_mask():
    known = make_known(
        [[50, 0], [0, 2]],
        boxes_xyxy=np.array([[[0.2, 0.4, 0.6, 1.0], [0] * 4], [[0] * 4, [0.5, 0.5, 0.6, 0.7]]], np.float32),
        predicted_iou=np.array([0.9, 0.8], np.float32),
        stability=np.array([0.7, 0.6], np.float32),
        frame_iou=np.array([[0.5, 0], [0, 0.4]], np.float32),
    )
    rows = make_samples(known, "frame")
    found = [dict(zip(SHAPE_NAMES, row.tolist(), strict=True)) for row in rows.shapes]
    assert found[0] == pytest.approx(
        {
            "log area": math.log10(50 / 200) / 5 + 0.5,
            "root area": 0.5,
            "center x": -0.2,
            "center y": 0.4,
            "width": 0.4,
            "height": 0.6,
            "at border": 1,
            "predicted IoU": 0.9,
            "stability": 0.7,
            "IoU in frame": 0.5,
            "visible": 0.5,
        },
        abs=1e-6,
    )
    assert found[1]["at border"] == 0
    assert found[1]["log area"] == pytest.approx(math.log10(2 / 200) / 5 + 0.5)
    window = make_samples(known, "window")
    np.testing.assert_allclose(window.shapes, rows.shapes, atol=1e-6)  # either is seen in one frame only


def test_tokens_of_a_window_come_from_frames_spread_over_it():
    tokens = np.arange(4 * 1 * 4 * 2, dtype=np.float32).reshape(4, 1, 4, 2)
    rows = make_samples(make_known([[5], [5], [0], [5]], tokens=tokens), "window")
    # three frames are seen; the four tokens stand at 1/8, 3/8, 5/8 and 7/8 of them: frames 0, 1, 1, 3
    assert rows.tokens[0].tolist() == [tokens[t, 0, s].tolist() for s, t in enumerate((0, 1, 1, 3))]
    by_frame = make_samples(make_known([[5], [5], [0], [5]], tokens=tokens), "frame")
    assert by_frame.tokens.tolist() == tokens[[0, 1, 3], 0].tolist()


@pytest.mark.parametrize("scope", ["frame", "window"])
@pytest.mark.parametrize("areas", [np.zeros((2, 0)), [[0, 0], [0, 0]]], ids=["no masklets", "no masks"])
def test_without_masks_there_are_no_rows(scope, areas):
    shape = np.array(areas).shape
    known = make_known(areas, np.zeros((*shape, 5)), tokens=np.zeros((*shape, 3, 4), np.float32))
    rows = make_samples(known, scope, "quality")
    assert len(rows) == 0
    assert (rows.features.shape, rows.tokens.shape, rows.shapes.shape) == ((0, 5), (0, 3, 4), (0, 11))


@pytest.mark.parametrize("scope", ["frame", "window"])
def test_rows_of_several_windows_keep_their_groups_apart(scope):
    empty = make_samples(make_known([[0, 0, 0]] * 2, np.zeros((2, 3, 2))), scope)
    one = make_samples(known_pair(), scope)
    joined = join_samples([one, empty, one])
    assert joined.groups.tolist() == ([0, 0, 1, 2, 2, 3] if scope == "frame" else [0, 0, 1, 1])
    assert joined.features.tolist() == one.features.tolist() * 2
    assert joined.frames.tolist() == one.frames.tolist() * 2
    assert joined.masklets.tolist() == one.masklets.tolist() * 2


# --- columns ---------------------------------------------------------------------------------------------------------

LEVELS = (("mean", "max"), (2, 3), ("low", "high"))  # columns: mean low 01, mean high 234, max low 56, max high 789


@pytest.mark.parametrize(
    ("parts", "levels", "columns"),
    [
        (("mean", "max"), ("low", "high"), list(range(10))),
        (("mean",), ("low", "high"), [0, 1, 2, 3, 4]),
        (("max",), ("high",), [7, 8, 9]),
        (("max", "mean"), ("low",), [5, 6, 0, 1]),
    ],
)
def test_columns_are_those_of_the_wanted_parts_and_levels(parts, levels, columns):
    assert feature_columns(*LEVELS, parts, levels).tolist() == columns


@pytest.mark.parametrize(("parts", "levels", "lack"), [(("ring",), ("low",), "ring"), (("mean",), ("top",), "top")])
def test_parts_and_levels_that_were_not_stored_are_named(parts, levels, lack):
    with pytest.raises(WeightsError, match=rf"hold mean, max of low, high, and {lack} is not among them: make them"):
        feature_columns(*LEVELS, parts, levels)
