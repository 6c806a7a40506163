import pytest
import torch

from sam2vss.ablate import frame_cache
from sam2vss.ablate.frame_cache import FrameCache
from sam2vss.ablate.work import Work, compare
from sam2vss.ablate.work_files import StartWork, read_work, write_work
from sam2vss.errors import SettingsError
from sam2vss.images import frame_digest
from sam2vss.sam2.ahead import encode_ahead
from sam2vss.sam2.candidates import find_candidates
from tiny_sam2 import moving_frames, tiny_network

SIZE = (45, 65)
THRESHOLDS = (0.5, 0.1, 0.5, 0.7)  # predicted IoU, stability, offset, NMS


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return tiny_network(64)


@pytest.fixture
def frames():
    return moving_frames(4, SIZE)


def digests(frames):
    return [frame_digest(frame) for frame in frames]


def test_features_are_those_of_the_network_and_each_frame_is_encoded_once(network, frames):
    cache = FrameCache(0.0)
    cache.begin(digests(frames))
    expected = list(encode_ahead(network, frames))
    for _ in range(2):
        for found, features in zip(cache.encode(network, frames), expected, strict=True):
            assert torch.equal(found.low, features.low)
            assert torch.equal(found.high, features.high)
    assert cache.done == Work(encoded=4)
    assert cache.asked == Work(encoded=8)


def test_frames_in_any_order_get_their_own_features(network, frames):
    cache = FrameCache(0.0)
    list(cache.encode(network, frames[1:3]))
    found = list(cache.encode(network, frames[::-1]))
    for features, expected in zip(found, encode_ahead(network, frames[::-1]), strict=True):
        assert torch.equal(features.mid, expected.mid)
    assert cache.done.encoded == 4


def test_frames_that_are_not_at_hand_are_forgotten(network, frames):
    cache = FrameCache(0.0)
    list(cache.encode(network, frames))
    cache.begin(digests(frames[2:]))
    list(cache.encode(network, frames[1:]))
    assert cache.done.encoded == 4 + 1


def test_features_beyond_the_room_are_made_again(network, frames, monkeypatch):
    monkeypatch.setattr(frame_cache, "FEATURE_BYTES", 0)
    cache = FrameCache(0.0)
    list(cache.encode(network, frames))
    list(cache.encode(network, frames))
    assert cache.done.encoded == 8


def first_features(cache, network, frames):
    return next(iter(cache.encode(network, frames[:1])))


def test_candidates_are_prompted_once_and_select_as_those_of_the_network(network, frames):
    cache = FrameCache(0.4)
    features = first_features(cache, network, frames)
    expected = find_candidates(network, features, SIZE, 3).select(*THRESHOLDS)
    for _ in range(2):
        found = cache.propose(network, features, SIZE, 3).select(*THRESHOLDS)
        assert torch.equal(found.masks, expected.masks)
        assert len(found)
        assert torch.equal(found.predicted_iou, expected.predicted_iou)
    assert (cache.done.prompted, cache.asked.prompted) == (9, 18)


def test_grids_of_other_sizes_and_frames_are_others(network, frames):
    cache = FrameCache(0.4)
    first, second = list(cache.encode(network, frames[:2]))
    sizes = [len(cache.propose(network, features, SIZE, n).points) for features in (first, second) for n in (2, 3)]
    assert cache.done.prompted == 2 * (4 + 9)
    assert len(sizes) == 4


def test_a_threshold_below_the_floor_is_refused(network, frames):
    cache = FrameCache(0.6)
    found = cache.propose(network, first_features(cache, network, frames), SIZE, 2)
    with pytest.raises(SettingsError, match=r"kept above 0\.6 only"):
        found.select(0.5, 0.3, 0.5, 0.7)


def test_prompts_on_bare_pixels_are_not_kept(network, frames):
    cache = FrameCache(0.4)
    features = first_features(cache, network, frames)
    left = torch.zeros(SIZE, dtype=torch.bool)
    left[:, :32] = True
    for _ in range(2):
        found = cache.propose(network, features, SIZE, 4, is_wanted=left)
        assert len(found) == 3 * 8  # 2 of 4 columns, 4 rows, three masks each
    assert cache.done == cache.asked == Work(encoded=1, prompted=16)


def test_files_serve_another_sweep_where_they_are_worth_one(network, frames, tmp_path):
    first = FrameCache(0.4, tmp_path, file_bytes=1 << 30)
    features = first_features(first, network, frames)
    digest = frame_digest(frames[0])
    first.begin([digest], [(digest, 3)])
    kept = first.propose(network, features, SIZE, 3)
    first.propose(network, features, SIZE, 2)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1

    second = FrameCache(0.5, tmp_path)
    features = first_features(second, network, frames)
    found = second.propose(network, features, SIZE, 3)
    assert torch.equal(found.logits, kept.logits)
    assert second.done.prompted == 0

    third = FrameCache(0.2, tmp_path)  # the file lacks what lies between 0.2 and 0.4
    third.propose(network, first_features(third, network, frames), SIZE, 3)
    assert third.done.prompted == 9


def test_no_file_is_written_beyond_the_room(network, frames, tmp_path):
    cache = FrameCache(0.0, tmp_path, file_bytes=100)
    features = first_features(cache, network, frames)
    digest = frame_digest(frames[0])
    cache.begin([digest], [(digest, 3)])
    cache.propose(network, features, SIZE, 3)
    assert not list(tmp_path.rglob("*"))
    assert cache.room == 100


def test_work_is_compared_by_kind():
    assert compare(Work(1, 2, 3), Work(10, 20, 30)) == {
        "frames encoded": (1, 10),
        "points prompted": (2, 20),
        "masks followed a frame on": (3, 30),
    }


def test_accounts_are_read_as_written_and_damaged_ones_are_none(tmp_path):
    path = tmp_path / "a.json"
    account = StartWork(Work(1, 2, 3), {"key": Work(4, 5, 6)})
    write_work(path, account)
    assert read_work(path) == account
    path.write_text(path.read_text()[:-9])
    assert read_work(path) == read_work(tmp_path / "none.json") == StartWork()
