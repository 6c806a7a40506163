import numpy as np
import pytest

from sam2vss.counts_files import read_counts, write_counts
from sam2vss.errors import RunError
from sam2vss.metrics import VideoSegMetrics


def test_the_counts_of_a_metric_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    metrics = VideoSegMetrics(3, windows=(2, 3), boundary="full")
    for clip in ("a", "b/c"):
        metrics.update(rng.integers(0, 4, (5, 6, 7)), rng.integers(0, 3, (5, 6, 7)), clip=clip)
    write_counts(tmp_path / "counts.npz", metrics.state_dict())
    again = VideoSegMetrics(3, windows=(2, 3), boundary="full")
    again.load_state_dict(read_counts(tmp_path / "counts.npz"))
    for protocol in ("vspw", "strict"):
        assert again.compute(protocol) == metrics.compute(protocol)
    assert list(again.counts) == ["a", "b/c"]


def test_a_nesting_keeps_keys_that_are_numbers_and_tuples(tmp_path):
    content = {"x": {8: np.arange(3), "8": (1, 2.5, None, True, "text")}, "empty": ({}, ())}
    write_counts(tmp_path / "counts.npz", content)
    again = read_counts(tmp_path / "counts.npz")
    assert again["x"][8].tolist() == [0, 1, 2]
    assert again["x"]["8"] == (1, 2.5, None, True, "text")
    assert again["empty"] == ({}, ())


def test_no_file_of_ours_holds_a_pickle_and_none_is_read(tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, nesting=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RunError, match="holds no counts that can be read"):
        read_counts(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "counts.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"counts.npz holds no counts that can be read"):
        read_counts(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"counts.npz holds no counts .*FileNotFoundError"):
        read_counts(tmp_path / "counts.npz")


def test_a_file_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2vss.counts_files.FORMAT_VERSION", 7)
    write_counts(tmp_path / "counts.npz", {})
    monkeypatch.undo()
    with pytest.raises(RunError, match="has counts of format 7, expected 1"):
        read_counts(tmp_path / "counts.npz")
