import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.synthetic import (
    CLASS_NAMES,
    LABEL_SPACE,
    PALETTE,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    SyntheticClip,
    export_vspw,
    render_clip,
)
from sam2vss.errors import SettingsError
from sam2vss.types import LabelSpace

SMALL = (60, 80)  # (height, width): a quarter of the usual size, for speed
SEED_ALONG, SEED_ACROSS = 1, 0  # one scene of each point of view


@pytest.fixture(scope="module", params=[SEED_ALONG, SEED_ACROSS])
def clip(request: pytest.FixtureRequest) -> SyntheticClip:
    return render_clip(request.param, 12, SMALL)


def areas(clip: SyntheticClip) -> np.ndarray:
    """Pixels per frame and object id, int64 (T, K + 1)."""
    return np.stack([np.bincount(ids.ravel(), minlength=len(clip.object_classes)) for ids in clip.objects])


def test_arrays_have_the_promised_shapes_and_types(clip):
    assert clip.num_frames == 12
    assert clip.size == SMALL
    assert (clip.frames.shape, clip.frames.dtype) == ((12, 60, 80, 3), np.uint8)
    assert (clip.labels.shape, clip.labels.dtype) == ((12, 60, 80), np.uint8)
    assert (clip.objects.shape, clip.objects.dtype) == ((12, 60, 80), np.uint16)
    assert (clip.object_classes.ndim, clip.object_classes.dtype) == (1, np.uint8)


def test_every_pixel_has_the_class_of_its_one_object(clip):
    assert clip.objects.min() >= 1
    assert clip.objects.max() < len(clip.object_classes)
    assert clip.object_classes[0] == 255
    assert clip.object_classes[1:].max() < len(CLASS_NAMES)
    assert np.array_equal(clip.labels, clip.object_classes[clip.objects])


def test_same_seed_renders_the_same_clip_and_another_seed_another_one():
    first = render_clip(5, 2, SMALL)
    render_clip(6, 1, SMALL)  # nothing may leak from one clip into the next
    again = render_clip(5, 2, SMALL)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.objects, again.objects)
    assert not np.array_equal(first.frames, render_clip(6, 2, SMALL).frames)


def test_short_clip_is_the_beginning_of_a_long_one():
    for seed in (SEED_ALONG, SEED_ACROSS):
        short, long = render_clip(seed, 3, SMALL), render_clip(seed, 6, SMALL)
        assert np.array_equal(short.frames, long.frames[:3])
        assert np.array_equal(short.objects, long.objects[:3])
        assert np.array_equal(short.object_classes, long.object_classes)


def test_stride_and_first_frame_pick_frames_of_the_same_clip():
    whole = render_clip(SEED_ALONG, 9, SMALL)
    sparse = render_clip(SEED_ALONG, 3, SMALL, first_frame=2, stride=3)
    assert np.array_equal(sparse.frames, whole.frames[[2, 5, 8]])
    assert np.array_equal(sparse.objects, whole.objects[[2, 5, 8]])


@pytest.mark.parametrize("seed", [SEED_ALONG, SEED_ACROSS])
def test_another_size_shows_the_same_scene_scaled(seed):
    small, large = render_clip(seed, 1, (120, 160)), render_clip(seed, 1, (240, 320))
    agreement = (small.labels[0] == large.labels[0, ::2, ::2]).mean()
    assert agreement > 0.97  # measured 0.990; only outlines differ
    square = render_clip(seed, 1, (160, 160))
    assert square.size == (160, 160)
    columns = np.arange(160) * 2  # 160 of 320 columns
    rows = np.arange(160) * 3 // 2  # 160 of 240 rows
    assert (square.labels[0] == large.labels[0][rows][:, columns]).mean() > 0.95  # measured 0.988


def test_seed_ranges_are_disjoint():
    ranges = (TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS)
    assert len(set().union(*ranges)) == sum(len(seeds) for seeds in ranges) == 100_200


def test_every_class_occurs_within_a_few_seeds():
    seen = set()
    for seed in range(8):
        seen |= set(np.unique(render_clip(seed, 1, SMALL).labels).tolist())
    assert seen == set(range(len(CLASS_NAMES)))


def test_objects_keep_their_ids_from_frame_to_frame(clip):
    # An object of 60 pixels cannot leave, or be hidden, between two frames: motion is a few pixels a frame at 320
    # pixels width, hence less than one here.
    area = areas(clip)
    large = area[:-1] >= 60
    assert large.any()
    assert (area[1:][large] > 0).all()
    same = (clip.objects[1:] == clip.objects[:-1]).mean()
    assert same > 0.85  # measured 0.969 and more: most of the picture stays with its object


def test_objects_move_over_the_clip():
    clip = render_clip(SEED_ACROSS, 2, (120, 160), stride=12)
    moving = [CLASS_NAMES.index(name) for name in ("car", "person", "truck")]
    shifts = []
    for object_id in range(1, len(clip.object_classes)):
        places = [np.argwhere(ids == object_id) for ids in clip.objects]
        if clip.object_classes[object_id] in moving and min(len(place) for place in places) >= 30:
            shifts.append(np.abs(places[1].mean(axis=0) - places[0].mean(axis=0)).max())
    assert max(shifts) > 5  # pixels in 12 frames


def test_frames_change_by_sensor_noise_even_where_nothing_moves():
    clip = render_clip(SEED_ACROSS, 2, SMALL)
    assert (clip.frames[0] != clip.frames[1]).mean() > 0.5


def test_neighbouring_buildings_differ_by_object_but_share_their_class(clip):
    building = CLASS_NAMES.index("building")
    buildings = np.unique(clip.objects[0][clip.labels[0] == building])
    assert len(buildings) >= 3
    assert (clip.object_classes[buildings] == building).all()


def test_sky_and_road_are_one_object_each(clip):
    for name in ("sky", "road"):
        assert (clip.object_classes == CLASS_NAMES.index(name)).sum() == 1
    assert (clip.object_classes == CLASS_NAMES.index("pavement")).sum() == 2  # one on each side


def test_classes_look_different_on_average():
    # Sky is bluish, vegetation greenish, the road dark and grey: what a small network has to learn.
    frames, labels = [], []
    for seed in range(6):
        clip = render_clip(seed, 1, SMALL)
        frames.append(clip.frames[0])
        labels.append(clip.labels[0])
    pixels, classes = np.stack(frames).astype(float), np.stack(labels)
    red, green, blue = (pixels[classes == CLASS_NAMES.index("vegetation")].mean(axis=0)).tolist()
    assert green > red
    assert green > blue
    road, pavement = (pixels[classes == CLASS_NAMES.index(name)].mean() for name in ("road", "pavement"))
    sky = pixels[classes == CLASS_NAMES.index("sky")].mean()
    assert road + 20 < pavement < sky


def test_visible_objects_lists_the_ids_of_one_frame(clip):
    assert clip.visible_objects(3).tolist() == sorted(set(clip.objects[3].ravel().tolist()))


def test_far_frames_of_a_clip_still_render():
    clip = render_clip(SEED_ALONG, 1, SMALL, first_frame=400)  # everything has driven past
    assert clip.objects.min() >= 1


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 0}, {"size": (0, 80)}, {"stride": 0}, {"first_frame": -1}, {"seed": -1}]
)
def test_impossible_requests_say_what_was_asked(wrong):
    with pytest.raises(SettingsError, match="cannot render num_frames="):
        render_clip(**{"seed": 0, "num_frames": 1, "size": SMALL} | wrong)


def test_export_writes_the_vspw_layout(tmp_path: Path):
    root = tmp_path / "synthetic"
    export_vspw(root, [3, 100_001], 2, SMALL, split_name="test")
    assert (root / "test.txt").read_text().split() == ["synthetic_000003", "synthetic_100001"]
    clip = render_clip(100_001, 2, SMALL)
    folder = root / "data" / "synthetic_100001"
    assert sorted(path.name for path in (folder / "origin").iterdir()) == ["00000000.jpg", "00000001.jpg"]
    for number in range(2):
        with Image.open(folder / "mask" / f"{number:08d}.png") as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.asarray(mask), clip.labels[number])
            assert mask.getpalette()[:30] == PALETTE.ravel().tolist()
        with Image.open(folder / "origin" / f"{number:08d}.jpg") as frame:
            difference = np.abs(np.asarray(frame).astype(int) - clip.frames[number])
        assert difference.mean() < 6  # JPEG of a noisy picture; measured 2.7


def test_export_writes_a_label_set_that_reads_back(tmp_path: Path):
    export_vspw(tmp_path, [], 1, SMALL)
    assert (tmp_path / "val.txt").read_text() == ""
    space = LabelSpace.from_json(tmp_path / "label_set.json")
    assert space.names == CLASS_NAMES
    assert np.array_equal(space.palette, PALETTE)
    assert space.kinds == LABEL_SPACE.kinds
    assert (space.ignore_index, space.raw_void) == (255, (255,))
    assert json.loads((tmp_path / "label_set.json").read_text())["ignore_index"] == 255
