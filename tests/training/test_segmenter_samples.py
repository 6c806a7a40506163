"""What is learned from: which frames are samples, in what order, and what is read of them."""

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.errors import SettingsError, ShapeError
from sam2vss.segmenters.preprocessing import Preprocessing
from sam2vss.training.segmenter_input import NetworkInput
from sam2vss.training.segmenter_samples import SampleSet, ViewMaker
from sam2vss.training.segmenter_views import ViewRecipe
from toy_training import toy_data

STILL = ViewRecipe(crop=36, scales=(1.0, 1.0), max_share=1.0, flips=0.0, light=False)


class Half:
    """A generator that always draws the same number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


FORWARDS, BACKWARDS = Half(0.7), Half(0.2)


@pytest.fixture
def data(tmp_path):
    return toy_data(tmp_path / "data")


def numbers_of(frames: list[np.ndarray]) -> list[int]:
    """Blue of a toy picture's first column is 7 times the frame's number."""
    return [int(frame[0, 0, 2]) // 7 for frame in frames]


def maker(samples: SampleSet, batch: int = 3, seed: int = 0) -> ViewMaker:
    return ViewMaker(samples, NetworkInput(Preprocessing(None)), ViewRecipe(crop=20), batch, seed)


def test_every_labelled_frame_is_a_sample(data):
    samples = SampleSet(data, 1)
    assert (len(samples), samples.num_labelled) == (17, 17)
    frames, labels = samples.read(3, FORWARDS)
    assert numbers_of(frames) == [3]
    assert (labels[0] == toy.toy_labels(toy.toy_objects(4))[3]).all()


def test_a_frame_without_a_label_map_is_no_target(data, tmp_path):
    (tmp_path / "data" / "data" / "a" / "mask" / "0002.png").unlink()
    samples = SampleSet(toy_data(tmp_path / "data"), 1)
    assert samples.num_labelled == 16
    assert [numbers_of(samples.read(i, FORWARDS)[0])[0] for i in range(4)] == [0, 1, 3, 4]


def test_clips_run_to_their_target_from_before_or_after(data):
    """Clip a has 12 frames: targets 0, 1, 2 have 9 frames after them, 9, 10, 11 have 9 before them; b is too short."""
    samples = SampleSet(data, 4)
    assert (len(samples), samples.num_labelled) == (6, 17)
    found = [numbers_of(samples.read(i, FORWARDS)[0]) for i in range(6)]
    assert found == [[9, 6, 3, 0], [10, 7, 4, 1], [11, 8, 5, 2], [0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_half_of_the_clips_run_backwards_where_both_ways_are_open(tmp_path):
    samples = SampleSet(toy_data(tmp_path / "long", {"a": 20}), 4)
    assert len(samples) == 20
    assert numbers_of(samples.read(10, BACKWARDS)[0]) == [19, 16, 13, 10]
    assert numbers_of(samples.read(10, FORWARDS)[0]) == [1, 4, 7, 10]


def test_frames_around_a_target_without_a_label_map_are_void(data, tmp_path):
    for number in (0, 6):
        (tmp_path / "data" / "data" / "a" / "mask" / f"{number:04d}.png").unlink()
    samples = SampleSet(toy_data(tmp_path / "data"), 4)
    numbers = [numbers_of(samples.read(i, FORWARDS)[0])[-1] for i in range(len(samples))]
    assert numbers == [1, 2, 9, 10, 11]
    _, labels = samples.read(2, FORWARDS)  # frames 0, 3, 6, 9
    assert [bool((ids == 255).all()) for ids in labels] == [True, False, True, False]


def test_without_labels_nothing_can_be_learned(data, tmp_path):
    for file in (tmp_path / "data").rglob("mask/*.png"):
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(
        SettingsError, match=r"no frame of toy has a label map: 2 clips with 17 frames in .*names of th"
    ):
        SampleSet(toy_data(tmp_path / "data"), 1)


def test_stills_cannot_train_a_video_model(tmp_path):
    with pytest.raises(SettingsError, match=r"no clip of toy has these 10 frames: the longest has 9\. .*--backbone"):
        SampleSet(toy_data(tmp_path / "stills", {"a": 9, "b": 1}), 4)


def test_a_label_map_of_another_size_is_refused(data, tmp_path):
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "data" / "data" / "a" / "mask" / "0001.png")
    with pytest.raises(ShapeError, match=r"0001.png is \(5, 7\) \(height, width\), its frame is \(24, 36\)"):
        SampleSet(data, 1).read(1, FORWARDS)


def test_a_pass_shows_every_sample_once(data):
    samples = SampleSet(data, 1)
    first, second = samples.order(5, 0), samples.order(5, 1)
    assert sorted(first) == sorted(second) == list(range(17))
    assert first.tolist() != second.tolist()
    assert first.tolist() != samples.order(6, 0).tolist()


def test_steps_follow_the_order_over_the_end_of_a_pass(data):
    samples = SampleSet(data, 1)
    order = [*samples.order(0, 0), *samples.order(0, 1)]
    views = ViewMaker(samples, NetworkInput(Preprocessing(None)), STILL, 4, 0)
    shown = [views.make(step, row) for step in range(6) for row in range(4)]  # 24 of 17 + 17
    for number, view in zip(order, shown, strict=False):
        frames, labels = samples.read(int(number), FORWARDS)
        assert (view.frames[0, :24] == frames[0]).all()
        assert (view.labels[0, :24] == labels[0]).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_change_what_is_drawn(data, workers):
    views = maker(SampleSet(data, 1))
    plain, threaded = (list(views.batches(2, 6, count)) for count in (0, workers))
    assert len(plain) == len(threaded) == 4
    for first, second in zip(plain, threaded, strict=True):
        assert all((a.frames == b.frames).all() for a, b in zip(first, second, strict=True))


def test_a_seed_a_step_and_a_row_draw_a_view(data):
    samples = SampleSet(data, 1)
    first = maker(samples).make(1, 2)
    assert (first.frames == maker(samples).make(1, 2).frames).all()
    assert first.frames.tobytes() != maker(samples, seed=1).make(1, 2).frames.tobytes()


def test_leaving_early_ends_the_threads(data):
    import threading

    batches = maker(SampleSet(data, 1)).batches(0, 100, 2)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("views")]


def test_an_error_of_a_thread_is_raised(data, tmp_path):
    samples = SampleSet(data, 1)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "data" / "data" / "a" / "mask" / "0001.png")
    with pytest.raises(ShapeError, match="0001"):
        list(maker(samples, batch=17).batches(0, 1, 2))


def test_a_fingerprint_tells_data_apart(data, tmp_path):
    before = SampleSet(data, 1).fingerprint()
    assert before == SampleSet(toy_data(tmp_path / "data"), 4).fingerprint()
    (tmp_path / "data" / "data" / "a" / "mask" / "0002.png").unlink()
    assert before != SampleSet(toy_data(tmp_path / "data"), 1).fingerprint()


def test_a_sample_looks_different_in_every_pass(tmp_path):
    views = maker(SampleSet(toy_data(tmp_path / "one", {"a": 1}), 1), batch=1)
    assert len({views.make(step, 0).frames.tobytes() for step in range(4)}) == 4
