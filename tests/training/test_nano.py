"""The whole recipe in its smallest size: what comes out can be loaded, and an interrupted run goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2vss.datasets.synthetic import CLASS_NAMES, TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS
from sam2vss.errors import RunError
from sam2vss.sam2.weights import load_network
from sam2vss.segmenters import load_segmenter
from sam2vss.training import nano
from sam2vss.training.nano import FULL, SMOKE, train_nano

BUNDLED = Path(nano.__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("nano")
    train_nano(out, recipe=SMOKE)
    return out


def entries(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_models_can_be_loaded_and_used(trained):
    network = load_network(trained / "sam2-nano", "cpu", torch.float32)
    assert network.image_size == 384
    frames = torch.zeros(1, 48, 64, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert network.encode(network.pixels(frames)).low.shape == (1, 128, 24, 24)
    segmenter = load_segmenter(str(trained / "segformer-nano"))
    assert segmenter.label_space.names == CLASS_NAMES
    labels = segmenter.predict(np.zeros((2, 48, 64, 3), np.uint8)).labels
    assert (labels.shape, labels.dtype) == ((2, 48, 64), np.uint8)


def test_the_models_are_half_precision_and_of_the_bundled_shape(trained):
    from safetensors import safe_open

    total = 0
    for name, bundled in (("sam2-nano", "sam2/nano"), ("segformer-nano", "segmenters/nano")):
        shapes = []
        for folder in (trained / name, BUNDLED / bundled):
            with safe_open(folder / "model.safetensors", "pt") as file:
                tensors = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
                shapes.append({key: (value.get_dtype(), tuple(value.get_shape())) for key, value in tensors.items()})
        assert shapes[0] == shapes[1]
        kinds = {dtype for key, (dtype, _) in shapes[0].items() if "num_batches_tracked" not in key}
        assert kinds == {"F16"}
        total += (trained / name / "model.safetensors").stat().st_size
    assert total < 12 * 2**20


def test_progress_is_written_line_by_line(trained):
    lines = entries(trained)
    assert [line["rendered"] for line in lines if "rendered" in line] == ["images", "clips"]
    validated = [line["path"] for line in lines if "validation_one_click_iou" in line]
    assert validated == ["image"] * len(SMOKE.image_stages) + ["memory"] * len(SMOKE.memory_stages)
    assert all(line["time_s"] >= 0 for line in lines)


def test_an_interrupted_run_repeats_only_what_is_not_finished(trained, monkeypatch):
    last = len(SMOKE.memory_stages) - 1
    weights = [trained / name / "model.safetensors" for name in ("sam2-nano", "segformer-nano")]
    before = [file.read_bytes() for file in weights]
    (trained / f"memory{last}.pt").unlink()
    weights[0].unlink()
    monkeypatch.setattr(nano, "train_image_path", lambda *arguments: pytest.fail("trained the image path again"))
    monkeypatch.setattr(nano, "train_segformer", lambda *arguments: pytest.fail("trained the segformer again"))
    (trained / "metrics.jsonl").unlink()
    train_nano(trained, recipe=SMOKE)
    assert [line["path"] for line in entries(trained) if "path" in line] == ["memory"]
    assert [file.read_bytes() for file in weights] == before  # from the same checkpoint and seed to the same bits


def test_checkpoints_of_another_recipe_or_seed_are_not_taken_for_ones_own(trained):
    for changes in ({"recipe": FULL}, {"recipe": SMOKE, "seed": 1}):
        with pytest.raises(RunError, match=r"holds checkpoints of another recipe or seed .*choose another --out"):
            train_nano(trained, **changes)


def test_the_same_seed_gives_the_same_weights(trained, tmp_path):
    train_nano(tmp_path, ("segformer",), SMOKE)
    assert not (tmp_path / "sam2-nano").exists()
    file = Path("segformer-nano", "model.safetensors")
    assert (tmp_path / file).read_bytes() == (trained / file).read_bytes()


def test_only_train_seeds_are_trained_on_and_only_validation_seeds_are_validated_on(tmp_path, monkeypatch):
    """With the full recipe; rendering and training are left out."""
    rendered: list[set[int]] = []

    def render_bank(seeds, num_frames, stride, image_size):
        rendered.append(set(seeds))
        return nano.SceneBank(np.zeros((1, 1, 8, 8, 3), np.uint8), np.zeros((1, 1, 8, 8), np.uint8), ())

    monkeypatch.setattr(nano, "render_bank", render_bank)
    for name in ("train_image_path", "train_memory_path", "train_segformer"):
        monkeypatch.setattr(nano, name, lambda *arguments: None)
    monkeypatch.setattr(nano, "one_click_iou", lambda *arguments: np.zeros(1))
    train_nano(tmp_path, recipe=FULL)
    images, validation, clips = rendered
    assert images | clips <= set(TRAIN_SEEDS)
    assert not images & clips
    assert validation <= set(VALIDATION_SEEDS)
    assert not (images | clips | validation) & set(TEST_SEEDS)
    assert not set(TRAIN_SEEDS) & set(VALIDATION_SEEDS)
    assert (len(images), len(clips), len(validation)) == (1500, 600, 20)
