"""What torch.save wrote, in both its formats, and what lies where a checkpoint should."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sam2vss.checkpoints import check_names, read_torch_file, read_weights
from sam2vss.errors import WeightsError

FORMATS = pytest.mark.parametrize("as_archive", [True, False], ids=["zip", "legacy"])
WEIGHTS = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}


def save(data: object, file: Path, as_archive: bool = True) -> Path:
    torch.save(data, file, _use_new_zipfile_serialization=as_archive)
    return file


@FORMATS
@pytest.mark.parametrize(
    "data",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "meta": {"CLASSES": ("wall",), "PALETTE": [[0, 0, 0]], "config": "a = 1"}},
        {"model": WEIGHTS, "iteration": 9, "optimizer": {"state": {0: {"step": torch.ones(())}}}, "scheduler": {}},
        {"state_dict": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}},
    ],
    ids=["bare", "mmcv", "detectron2", "several GPUs"],
)
def test_the_weights_are_found_wherever_a_trainer_keeps_them(data: object, as_archive: bool, tmp_path: Path):
    read = read_weights(save(data, tmp_path / "a.pth", as_archive))

    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


def test_module_is_taken_off_only_where_every_name_has_it(tmp_path: Path):
    data = {"module.x": torch.ones(1), "other": torch.ones(1)}

    assert list(read_weights(save(data, tmp_path / "a.pth"))) == ["module.x", "other"]


@FORMATS
def test_numbers_and_arrays_of_numpy_beside_the_weights_do_no_harm(as_archive: bool, tmp_path: Path):
    meta = {"best_score": np.float64(0.5), "epoch": np.int64(3), "PALETTE": np.arange(6, dtype=np.uint8).reshape(2, 3)}

    read = read_torch_file(save({"state_dict": WEIGHTS, "meta": meta}, tmp_path / "a.pth", as_archive))

    assert read["meta"]["best_score"] == 0.5
    assert read["meta"]["PALETTE"].tolist() == [[0, 1, 2], [3, 4, 5]]


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("was_run",)


@FORMATS
def test_code_in_a_file_is_named_and_not_run(as_archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save({"model": {}, "x": Malicious()}, Path("a.pt"), as_archive)

    with pytest.raises(WeightsError, match=r"code or objects beside tensors \(found \S*mkdir\) and was not run"):
        read_torch_file(Path("a.pt"))

    assert not Path("was_run").exists()


@FORMATS
def test_a_whole_pickled_module_is_refused(as_archive: bool, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"found torch\.nn\.modules\.linear\.Linear"):
        read_torch_file(save(torch.nn.Linear(2, 2), tmp_path / "a.pt", as_archive))


def test_a_torchscript_archive_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"")

    with pytest.raises(WeightsError, match="is a TorchScript archive, which holds code, and was not run"):
        read_torch_file(tmp_path / "a.pt")


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 182839\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty, expected a checkpoint that torch\.save wrote"),
        (LFS_POINTER, r"is a Git LFS pointer.* stand for 182839 bytes of weights: .*`git lfs pull`"),
        (LFS_POINTER[:30], r"is a Git LFS pointer.* stand for the weights: "),
        (b"PK\x03\x04 and no more", r"is cut short or damaged: its archive has no end"),
        (b"\x80\x02\x8a\nl\xfc", r"is cut short: it ends before the weights begin"),
        (b"\x80\x02}q\x00.", r"is a bare pickle, which can run code when opened and was not opened"),
        (b"\n<!DOCTYPE html><title>Google Drive", r"is a web page, perhaps of a download that asked for something"),
        (b"\x89PNG\r\n\x1a\n", r"is no PyTorch checkpoint: it begins with b'\\x89PNG"),
    ],
)
def test_files_that_torch_save_did_not_write_are_told_apart(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a.pth").write_bytes(content)

    with pytest.raises(WeightsError, match=message):
        read_torch_file(tmp_path / "a.pth")


def test_a_safetensors_file_is_called_by_its_name(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.pth")

    with pytest.raises(WeightsError, match="is a safetensors file; pass the folder with it"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_the_pickle_of_mmsegmentations_test_script_leads_to_the_folder_beside_it(protocol: int, tmp_path: Path):
    paths = [f".efficient_test/tmpab{number}.npy" for number in range(5000)]  # longer than what is looked at
    (tmp_path / "res.pkl").write_bytes(pickle.dumps(paths, protocol=protocol))

    with pytest.raises(WeightsError, match=r"holds only paths of temporary files.* folder result_submission"):
        read_torch_file(tmp_path / "res.pkl")


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("data", [["weights.pth"], [], [np.ones(1), "a.npy"]])
def test_other_pickles_of_the_first_protocols_are_not_taken_for_it(protocol: int, data: object, tmp_path: Path):
    (tmp_path / "res.pkl").write_bytes(pickle.dumps(data, protocol=protocol))

    with pytest.raises(WeightsError, match="is no PyTorch checkpoint: it begins with"):
        read_torch_file(tmp_path / "res.pkl")


@pytest.mark.parametrize("data", [["a.npy", "weights.pth"], [], [np.ones(1), "a.npy"]])
def test_other_pickles_are_not_taken_for_it(data: object, tmp_path: Path):
    (tmp_path / "res.pkl").write_bytes(pickle.dumps(data, protocol=2))

    with pytest.raises(WeightsError, match="is a bare pickle"):
        read_torch_file(tmp_path / "res.pkl")


@FORMATS
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_part_of_a_checkpoint_is_refused_in_one_line_of_our_own(as_archive: bool, share: float, tmp_path: Path):
    file = save({"model": {f"layer{i}": torch.ones(100) for i in range(9)}}, tmp_path / "a.pt", as_archive)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(WeightsError, match=r"cut short|cannot be read as a PyTorch checkpoint: \S") as info:
        read_torch_file(file)

    assert "weights_only" not in str(info.value)  # torch's advice to load it unsafely
    assert "can still be loaded" not in str(info.value)


def test_a_damaged_pickle_inside_is_not_called_code(tmp_path: Path):
    file = save({"model": {"a": torch.ones(1)}}, tmp_path / "a.pt")
    content = file.read_bytes()
    assert content.count(b"\x80\x02}q\x00") == 1
    file.write_bytes(content.replace(b"\x80\x02}q\x00", b"\x07\x02}q\x00", 1))

    with pytest.raises(WeightsError, match="cannot be read as a PyTorch checkpoint"):
        read_torch_file(file)


@pytest.mark.parametrize("missing", ["absent.pth", ""])
def test_a_file_that_is_not_there_and_a_folder_are_errors_of_the_user(missing: str, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"cannot be read as a PyTorch checkpoint: .*Errno"):
        read_torch_file(tmp_path / missing)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], r"holds a list, expected a dictionary of weights"),
        ({}, r"only tensors, at the top or under 'state_dict' or 'model', found nothing"),
        ({"epoch": 1, "lr": 0.1}, r"is no checkpoint of a network: .*found epoch \(int\), lr \(float\)"),
        ({"model": {"a": 1}}, r"found a \(int\)"),
    ],
)
def test_other_data_is_named_by_its_kind(data: object, message: str, tmp_path: Path):
    with pytest.raises(WeightsError, match=message):
        read_weights(save(data, tmp_path / "a.pth"))


def shapes_of(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def test_every_difference_to_a_network_is_named():
    held = {"a.weight": torch.ones(4), "d": torch.ones(1)}

    with pytest.raises(WeightsError) as info:
        check_names(held, shapes_of(WEIGHTS), Path("a.pth"), "Take another.")

    assert str(info.value) == (
        "a.pth does not hold exactly the 2 tensors of its network: 1 missing: b; 1 not part of the network: d; "
        "1 of another shape: a.weight (4,) instead of (3,). Take another."
    )
    check_names(WEIGHTS, shapes_of(WEIGHTS), Path("a.pth"), "")


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [(torch.ones(2, 2).to_sparse(), "sparse"), (torch.ones(2, dtype=torch.complex64), "complex")],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tensor: Tensor, kind: str, tmp_path: Path):
    with pytest.raises(WeightsError, match=rf"no plain real numbers: odd \({kind}\)"):
        read_weights(save({"odd": tensor, **WEIGHTS}, tmp_path / "a.pth"))
