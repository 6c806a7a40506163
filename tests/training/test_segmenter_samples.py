"""What is learned from: which frames are samples, in what order, and what is read of them."""

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.errors import MediaError, SettingsError, ShapeError
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


# --- before the start ------------------------------------------------------------------------------------------------


def cut(path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def pictures(tmp_path, number: int):
    return next((tmp_path / "data" / "data" / "a" / "origin").glob(f"{number:04d}.*"))


def test_sizes_of_all_frames_are_counted(data):
    assert SampleSet(data, 1).check_files() == {(24, 36): 17}
    assert SampleSet(data, 4).check_files() == {(24, 36): 12}  # clip b is too short for a sample


@pytest.mark.parametrize("size", [0, 40, 100])
@pytest.mark.parametrize("what", ["picture", "label map"])
def test_a_file_cut_short_is_found_before_the_start(data, tmp_path, what, size):
    mask = tmp_path / "data" / "data" / "a" / "mask" / "0003.png"
    file = mask if what == "label map" else pictures(tmp_path, 3)
    cut(file, size)
    with pytest.raises(MediaError, match=rf"trained on: .*{file.name} (cannot be read|is an empty|is not a picture)"):
        SampleSet(data, 1).check_files()


def test_a_jpeg_cut_short_is_found_before_the_start(data, tmp_path):
    picture = pictures(tmp_path, 3)
    image = Image.open(picture).convert("RGB")
    picture.unlink()
    image.save(picture.with_suffix(".jpg"))
    samples = SampleSet(toy_data(tmp_path / "data"), 1)
    assert samples.check_files() == {(24, 36): 17}
    cut(picture.with_suffix(".jpg"), 700)
    with pytest.raises(MediaError, match=r"cannot be trained on: .*0003\.jpg cannot be read, it may be cut short"):
        samples.check_files()


def test_label_maps_of_other_sizes_are_counted_before_the_start(data, tmp_path):
    for number in (2, 5):
        mask = tmp_path / "data" / "data" / "a" / "mask" / f"{number:04d}.png"
        Image.fromarray(np.zeros((5, 7), np.uint8)).save(mask)
    message = r"0002\.png is \(5, 7\) .*, its frame is \(24, 36\): .*\(2 such problems in 17 frames\)"
    with pytest.raises(MediaError, match=message):
        SampleSet(data, 1).check_files()


def test_frames_of_a_clip_that_differ_in_size_are_found_before_the_start(data, tmp_path):
    for file in (pictures(tmp_path, 6), tmp_path / "data" / "data" / "a" / "mask" / "0006.png"):
        Image.open(file).resize((18, 12)).save(file)
    assert SampleSet(data, 1).check_files() == {(24, 36): 16, (12, 18): 1}  # each frame is a sample of its own
    with pytest.raises(MediaError, match=r"the frames of clip a differ in size, \((24|12), .*\): scale them$"):
        SampleSet(data, 4).check_files()


def test_files_that_no_sample_needs_are_not_looked_at(data, tmp_path):
    (tmp_path / "data" / "data" / "a" / "mask" / "0002.png").unlink()
    cut(pictures(tmp_path, 2), 40)
    samples = SampleSet(toy_data(tmp_path / "data"), 1)
    assert samples.check_files() == {(24, 36): 16}
    with pytest.raises(MediaError, match=r"0002\.\w+ is not a picture"):
        SampleSet(toy_data(tmp_path / "data"), 4).check_files()


def test_views_must_show_something_and_fit_into_memory():
    network_input = NetworkInput(Preprocessing({"shortest_edge": 48, "longest_edge": 64}))
    sizes = [(24, 36), (36, 24)]
    network_input.check_views(sizes, (0.2, 100.0))  # 43 x 64 is made 8.5 x 12.8 to 4267 x 6400
    message = r"frames of 36 x 24 pixels become 6 x 4 with --smallest 0\.1, .*: mend --smallest or --scale"
    with pytest.raises(SettingsError, match=message):
        network_input.check_views(sizes, (0.1, 2.0))
    with pytest.raises(SettingsError, match=r"with --largest 1000\.0, expected .* at most 268435456 pixels in all"):
        network_input.check_views(sizes, (0.5, 1000.0))
    line = NetworkInput(Preprocessing({"shortest_edge": 1, "longest_edge": 99999999}))
    with pytest.raises(SettingsError, match=r"become \d x 1 with --smallest"):
        line.check_views(sizes, (0.5, 2.0))


# --- steps -----------------------------------------------------------------------------------------------------------


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
