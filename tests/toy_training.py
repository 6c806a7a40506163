"""A network of two convolutions and the toy clips, for tests of the training of segmenters."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import toy
from sam2vss.dataset_clips import DatasetClips, find_dataset_clips
from sam2vss.segmenters.preprocessing import Preprocessing
from sam2vss.segmenters.vss.segformer import WeightedLogits
from sam2vss.training.segmenter import SegmenterRecipe
from sam2vss.training.segmenter_input import NetworkInput
from sam2vss.types import BaseLabels, LabelSpace
from toy_bench import write_data

RECIPE = SegmenterRecipe(steps=6, batch=2, rate=1e-2, head_factor=1.0, crop=24, seed=3)


class ToyNetwork(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.1))
        self.decode_head = nn.Conv2d(16, num_classes, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decode_head(self.backbone(pixels))


class ToyTrainable:
    """A `TrainableSegmenter`; with several frames only the last one's logits count."""

    def __init__(self, num_frames: int = 1, label_space: LabelSpace = toy.CLASSES) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = ToyNetwork(label_space.num_classes)
        mean, std = (0.2, 0.1, 0.5), (0.2, 0.1, 0.3)
        self.network_input = NetworkInput(Preprocessing(None, mean=mean, std=std))
        self.num_frames = num_frames
        self.label_space = label_space
        self.about = {"family": "toy", "start": "nothing"}
        self.notes = ("this is a toy",)

    def training_logits(self, pixels: Tensor) -> list[WeightedLogits]:
        rows = tuple(range(self.num_frames - 1, len(pixels), self.num_frames))
        return [WeightedLogits(self.network(pixels)[list(rows)], rows, 1.0)]

    def segmenter(self) -> "ToySegmenter":
        return ToySegmenter(self)

    def save(self, folder: Path) -> None:
        save_file(dict(self.network.state_dict()), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"family": "toy"}))


class ToySegmenter:
    def __init__(self, trained: ToyTrainable) -> None:
        self.trained = trained
        self.label_space = trained.label_space
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    @torch.inference_mode()
    def predict(self, frames: np.ndarray) -> BaseLabels:
        logits = self.trained.network(self.trained.network_input.normalize(torch.from_numpy(frames)))
        return BaseLabels(logits.argmax(1).numpy().astype(np.uint8))


def toy_data(root: Path, clips: dict[str, int] | None = None) -> DatasetClips:
    """Write and find toy clips: two of 12 and 5 frames."""
    if not root.exists():
        write_data(root, clips=clips or {"a": 12, "b": 5}, split="train")
    return find_dataset_clips(root)
