"""Files of features: what goes in comes out, and what is no such file is named."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from sam2vss.errors import MediaError, ShapeError
from sam2vss.masklet_features import MaskletFeatures, MaskletTruth, read_features, write_features
from sam2vss.types import Window
from toy_features import make_known

AREAS = [[4, 0, 6], [3, 0, 9]]


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    import toy

    with toy.no_waiting_for_the_disk():
        yield


def known_with_all(seed: int = 0, scale: float = 1.0) -> MaskletFeatures:
    rng = np.random.default_rng(seed)
    return make_known(
        AREAS,
        rng.normal(size=(2, 3, 5)) * scale,
        window=Window(8, 2),
        ids=np.array([7, 2**40, 9]),
        predicted_iou=rng.random(3).astype(np.float32),
        tokens=rng.normal(size=(2, 3, 2, 4)).astype(np.float32),
        votes=rng.integers(0, 9, (2, 3, 4)),
        masses=rng.random((2, 3, 4)).astype(np.float32),
    )


def truth_of(seed: int = 1) -> MaskletTruth:
    rng = np.random.default_rng(seed)
    return MaskletTruth(*(rng.integers(0, 9, (2, 3, 4)) for _ in range(4)))


def test_what_is_written_is_read(tmp_path):
    known, truth = known_with_all(), truth_of()
    write_features(tmp_path / "deep" / "a.npz", known, truth)
    read, read_truth = read_features(tmp_path / "deep" / "a.npz")
    assert (read.window, read.size) == (known.window, known.size)
    for name in ("ids", "predicted_iou", "stability", "frame_iou", "areas", "boxes_xyxy", "votes", "masses"):
        found, expected = getattr(read, name), getattr(known, name)
        assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist()), name
    for name in ("classes", "top_classes", "top_base", "top_kept"):
        assert getattr(read_truth, name).dtype == np.int64
        assert getattr(read_truth, name).tolist() == getattr(truth, name).tolist()


def test_without_base_labels_probabilities_and_truth_none_come_back(tmp_path):
    write_features(tmp_path / "a.npz", make_known(AREAS))
    read, truth = read_features(tmp_path / "a.npz")
    assert (read.votes, read.masses, truth) == (None, None, None)
    assert read.features.shape == (2, 3, 0)


def test_no_masklets_at_all_are_written_and_read(tmp_path):
    write_features(tmp_path / "a.npz", make_known(np.zeros((3, 0))), MaskletTruth(*[np.zeros((3, 0, 4), int)] * 4))
    read, truth = read_features(tmp_path / "a.npz")
    assert (read.num_masklets, read.areas.shape, truth.classes.shape) == (0, (3, 0), (3, 0, 4))


def test_features_are_rounded_to_half_precision(tmp_path):
    known = known_with_all(scale=100)
    write_features(tmp_path / "a.npz", known)
    read, _ = read_features(tmp_path / "a.npz")
    assert (read.features.dtype, read.tokens.dtype) == (np.float32, np.float32)
    for name in ("features", "tokens"):
        np.testing.assert_allclose(getattr(read, name), getattr(known, name), rtol=2**-11, atol=3e-8)
        assert (getattr(read, name) != getattr(known, name)).any()  # it is rounded


def test_one_large_feature_keeps_all_in_single_precision(tmp_path):
    known = known_with_all()
    known.features[0, 1, 2] = -123_456.0
    write_features(tmp_path / "a.npz", known)
    assert read_features(tmp_path / "a.npz")[0].features.tolist() == known.features.tolist()


def test_counts_above_32_bits_are_kept(tmp_path):
    known = known_with_all()
    known.votes[0, 0, 0], known.areas[0, 0] = 2**31, 2**31 + 7
    write_features(tmp_path / "a.npz", known)
    read, _ = read_features(tmp_path / "a.npz")
    assert (read.votes[0, 0, 0], read.areas[0, 0]) == (2**31, 2**31 + 7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["features", "tokens"])
def test_features_that_are_no_numbers_are_not_written(tmp_path, name, value):
    known = known_with_all()
    getattr(known, name)[1, 1] = value
    with pytest.raises(ShapeError, match="features of the window at frame 8 are not all finite numbers"):
        write_features(tmp_path / "a.npz", known)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["predicted_iou", "frame_iou", "boxes_xyxy", "features", "tokens", "votes"])
def test_arrays_that_do_not_fit_are_refused(name):
    known = known_with_all()
    with pytest.raises(ShapeError, match=rf"{name} has shape .* expected"):
        replace(known, **{name: getattr(known, name)[:1]})
    with pytest.raises(ShapeError, match=r"truth has shapes .*expected one of three axes"):
        MaskletTruth(*[np.zeros((1, 2, 3))] * 3, np.zeros((1, 2, 4)))


# --- files that are none ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MediaError, match=r"there is no file .*a\.npz"):
        read_features(tmp_path / "a.npz")


def test_a_file_with_any_byte_changed_is_read_or_named(tmp_path):
    """One byte in 13 is turned over; no other error comes out, whatever the ZIP reader stumbles over."""
    file = tmp_path / "a.npz"
    write_features(file, make_known([[1]], votes=np.ones((1, 1, 2), np.int64)))
    whole, refused = file.read_bytes(), 0
    for place in range(0, len(whole), 13):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        file.write_bytes(broken)
        try:
            read_features(file)
        except MediaError:
            refused += 1
    assert refused > len(whole) / 13 / 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_off_is_named(tmp_path, share):
    file = tmp_path / "a.npz"
    write_features(file, known_with_all(), truth_of())
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MediaError, match=r"a\.npz holds no masklet features .*make them again"):
        read_features(file)


class Trap:
    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_pickled_content_is_refused_and_not_run(tmp_path):
    file = tmp_path / "a.npz"
    write_features(file, known_with_all())
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **{**arrays, "ids": np.array([Trap()] * 3, object)})
    with pytest.raises(MediaError, match="allow_pickle=False"):
        read_features(file)
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(MediaError, match="holds no masklet features"):
        read_features(file)
    assert not Trap.sprung


def rewrite(file, **changes) -> None:
    """Change arrays of a file; None leaves one out."""
    with np.load(file) as content:
        arrays = {**dict(content), **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def changed_head(file, **changes) -> np.ndarray:
    with np.load(file) as content:
        return np.array(json.dumps({**json.loads(str(content["head"])), **changes}))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"format": "another"}, r"is 'another' of version 1, expected 'sam2vss masklet features' of version 1"),
        ({"format_version": 2}, r"of version 2, expected 'sam2vss masklet features' of version 1"),
        ({"window": [0]}, "holds no masklet features"),
        ({"window": [-1, 2]}, "holds no masklet features"),
        ({"size": 3}, "holds no masklet features"),
    ],
)
def test_a_head_that_says_something_else_is_named(tmp_path, head, message):
    file = tmp_path / "a.npz"
    write_features(file, known_with_all())
    rewrite(file, head=changed_head(file, **head))
    with pytest.raises(MediaError, match=message):
        read_features(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": np.array("no JSON")},
        {"head": np.array("[]")},
        {"head": None},
        {"areas": None},
        {"features": np.zeros((2, 2, 5))},
        {"features": np.full((2, 3, 5), "text")},
        {"ids": np.array(3)},
        {"stranger": np.zeros(3)},
        {"truth_classes": np.zeros((2, 3, 4), np.int32)},  # the others are not there
    ],
    ids=str,
)
def test_arrays_that_are_not_as_written_are_named(tmp_path, changes):
    file = tmp_path / "a.npz"
    write_features(file, known_with_all())
    rewrite(file, **changes)
    with pytest.raises(MediaError, match="holds no masklet features"):
        read_features(file)


def test_files_of_other_kinds_are_named(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("not an archive")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("head.npy", "no array")
    (tmp_path / "folder.npz").mkdir()
    for name in ("array.npy", "text.npz", "zip.npz", "folder.npz"):
        with pytest.raises(MediaError, match=rf"{name} holds no masklet features"):
            read_features(tmp_path / name)
