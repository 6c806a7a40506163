"""Training of segformer-nano on views of any size: what is saved says which, and void pixels are left out."""

import json

import numpy as np
import pytest
import torch

from sam2vss.training.nano_configs import segformer_nano_config
from sam2vss.training.nano_segformer import save_segformer, train_segformer
from sam2vss.training.scenes import SceneBank


@pytest.fixture(autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


def new_model():
    from transformers import SegformerForSemanticSegmentation

    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(segformer_nano_config(("left", "right")))


def half_labelled(void: int) -> SceneBank:
    """One still of 32 x 32, white on the right; the truth of its upper half is `void`."""
    frame, labels = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    frame[:, 16:], labels[:, 16:], labels[:16] = 255, 1, void
    return SceneBank(frame[None, None], labels[None, None], (np.arange(256, dtype=np.uint8),))


def test_pixels_with_the_ignore_index_do_not_train():
    """Taken for a class, 255 would be out of bounds of the two there are."""
    model = new_model()
    train_segformer(model, half_labelled(void=255), steps=2, seed=0, report=lambda entry: None, size=32, batch=2)
    bias = model.decode_head.classifier.bias.detach().numpy()
    assert np.isfinite(bias).all()
    assert (bias != 0).all()  # the other half did train


def test_views_and_batches_have_the_asked_sizes(monkeypatch):
    model, seen = new_model(), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda pixel_values: seen.append(pixel_values.shape) or forward(pixel_values))
    train_segformer(model, half_labelled(void=0), steps=1, seed=0, report=lambda entry: None, size=64, batch=3)
    assert seen == [(3, 3, 64, 64)]


def test_a_saved_model_says_its_input_size(tmp_path):
    save_segformer(new_model(), tmp_path, size=96)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["size"] == {"height": 96, "width": 96}
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {"0": "left", "1": "right"}
