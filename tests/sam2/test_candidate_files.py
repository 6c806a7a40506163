from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from meta_generator import smooth_logits
from sam2vss.errors import MediaError
from sam2vss.sam2.candidate_files import read_candidates, write_candidates
from sam2vss.sam2.candidates import Candidates, Selection, find_candidates, grid_points
from sam2vss.sam2.model import FrameFeatures, Sam2Network


def some_candidates(dtype: torch.dtype = torch.float32) -> Candidates:
    logits, iou = smooth_logits(5, count=27, side=16)
    return Candidates(logits.to(dtype), iou, grid_points(3, (33, 47)).repeat_interleave(3, dim=0), (33, 47))


def is_equal(a: Selection, b: Selection) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Selection))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_candidates_come_back_bit_for_bit_in_their_own_types(tmp_path: Path, dtype: torch.dtype):
    candidates = some_candidates(dtype)
    write_candidates(tmp_path / "new" / "frame.safetensors", candidates)

    again = read_candidates(tmp_path / "new" / "frame.safetensors")

    assert again.logits.dtype == dtype
    for name in ("logits", "iou", "points"):
        assert torch.equal(getattr(again, name), getattr(candidates, name))
    assert (again.size, again.floor) == (candidates.size, candidates.floor)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["frame.safetensors"]


def test_selecting_from_a_file_equals_running_the_network_again(
    tmp_path: Path, network: Sam2Network, features: list[FrameFeatures]
):
    first, second = (find_candidates(network, features[0], (90, 130), points_per_side=3) for _ in range(2))
    write_candidates(tmp_path / "frame.safetensors", first)

    kept = read_candidates(tmp_path / "frame.safetensors")

    for thresholds in [(0.0, 0.0, 0.3, 1.0), (0.5, 0.1, 0.3, 0.95), (0.4, 0.05, 0.9, 0.7)]:
        assert len(kept.select(*thresholds)) > 0
        assert is_equal(kept.select(*thresholds), second.select(*thresholds))


def test_pruned_candidates_keep_their_floor_in_a_smaller_file(tmp_path: Path):
    candidates = some_candidates()
    write_candidates(tmp_path / "all", candidates)
    write_candidates(tmp_path / "few", candidates.pruned(0.7))

    again = read_candidates(tmp_path / "few")

    assert again.floor == 0.7
    assert is_equal(again.select(0.8, 0.5, 0.9, 0.7), candidates.pruned(0.7).select(0.8, 0.5, 0.9, 0.7))
    assert (tmp_path / "few").stat().st_size < 0.7 * (tmp_path / "all").stat().st_size


def test_no_candidates_at_all_come_back(tmp_path: Path):
    none = some_candidates().pruned(2.0)
    write_candidates(tmp_path / "none", none)

    assert read_candidates(tmp_path / "none").logits.shape == (0, 16, 16)


def test_a_file_can_be_replaced_while_what_was_read_from_it_is_in_use(tmp_path: Path):
    write_candidates(tmp_path / "frame", some_candidates())
    kept = read_candidates(tmp_path / "frame")
    (tmp_path / "frame").write_bytes(b"")

    assert torch.equal(kept.logits, some_candidates().logits)


@pytest.mark.parametrize("length", [0, 5, 100, 2000])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, length: int):
    path = tmp_path / "frame.safetensors"
    write_candidates(path, some_candidates())
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(MediaError, match=r"frame\.safetensors holds no candidates, or is cut short"):
        read_candidates(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "text").write_text("not tensors at all")
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights")
    save_file({"iou": torch.zeros(3)}, tmp_path / "later", {"format": "sam2vss candidates", "format_version": "2"})

    with pytest.raises(MediaError, match="text holds no candidates"):
        read_candidates(tmp_path / "text")
    with pytest.raises(MediaError, match=r"weights has the format None, version None; expected 'sam2vss candidates'"):
        read_candidates(tmp_path / "weights")
    with pytest.raises(MediaError, match="later has the format 'sam2vss candidates', version '2'"):
        read_candidates(tmp_path / "later")


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"cannot read .*nothing: "):
        read_candidates(tmp_path / "nothing")
    with pytest.raises(MediaError, match=r"cannot read .*: "):
        read_candidates(tmp_path)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"iou": None}, "33 47", "'iou'"),
        ({"iou": torch.zeros(26)}, "33 47", r"shapes \(27, 16, 16\), \(26,\), \(27, 2\)"),
        ({"logits": torch.zeros(27, 256)}, "33 47", r"shapes \(27, 256\)"),
        ({"points": torch.zeros(27, 3)}, "33 47", r"shapes .*\(27, 3\)"),
        ({"logits": torch.zeros(27, 16, 16, dtype=torch.uint8)}, "33 47", r"types torch\.uint8"),
        ({"iou": torch.zeros(27, dtype=torch.float16)}, "33 47", r"types torch\.float32, torch\.float16"),
        ({}, "33", "not enough values"),
        ({}, "0 47", "a frame of 0 x 47 pixels"),
        ({}, "wide", "invalid literal"),
    ],
)
def test_damaged_parts_are_named(tmp_path: Path, changes: dict[str, torch.Tensor | None], size: str, message: str):
    candidates = some_candidates()
    parts = {"logits": candidates.logits, "iou": candidates.iou, "points": candidates.points, **changes}
    metadata = {"format": "sam2vss candidates", "format_version": "1", "size": size, "floor": "-inf"}
    save_file({name: part for name, part in parts.items() if part is not None}, tmp_path / "frame", metadata)

    with pytest.raises(MediaError, match=rf"frame is damaged \(.*{message}.*find the candidates again"):
        read_candidates(tmp_path / "frame")
