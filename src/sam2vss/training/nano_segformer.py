"""Training of segformer-nano: a small, plausible, flickering base model for the synthetic scenes, or for others."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .scenes import Augmentation, SceneBank

SEGFORMER_SIZE = 128  # ours: logits on a 32 x 32 grid, as blurry against the picture as VSS models' 1/4 logits
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
BATCH = 12


def train_segformer(
    model: Any,
    bank: SceneBank,
    steps: int,
    seed: int,
    report: Callable[[dict[str, Any]], None],
    rate: float = 2e-3,
    size: int = SEGFORMER_SIZE,
    batch: int = BATCH,
) -> None:
    """Train with cross entropy on enlarged logits (AdamW, warm-up, polynomial decay). Changes `model` in place.

    Pixels with the ignore index take no part.

    Args:
        model: A `SegformerForSemanticSegmentation`.
        bank: What views are drawn from.
        steps: Steps in all; the rate falls to zero over them.
        seed: Seed of the views.
        report: Gets the running loss every 50 steps.
        rate: Highest learning rate.
        size: Side of the square views, in pixels.
        batch: Views a step.
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    mean, std = torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
    average = math.nan
    model.train()
    for step in range(steps):
        frames, labels = [], []
        for _ in range(batch):
            clip, t = int(rng.integers(len(bank))), int(rng.integers(bank.frames.shape[1]))
            view = Augmentation.draw(rng, smallest=0.5)
            frames.append(view.frame(bank.frames[clip, t], size))
            labels.append(view.ids(bank.labels(clip, t), size))
        pixels = (torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255 - mean) / std
        logits = model(pixel_values=pixels).logits
        logits = F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack(labels)).long(), ignore_index=255)
        warm = min(1.0, (step + 1) / 200)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (1 - step / steps) ** 0.9
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 49:
            report({"path": "segformer", "step": step + 1, "loss": average})
    model.eval()


def save_segformer(model: Any, folder: Path, size: int = SEGFORMER_SIZE) -> None:
    """Save a model in half precision with the input it was trained on, so that `--segmenter FOLDER` loads it.

    `preprocessor_config.json` is written last: where it is, the folder is whole. Changes `model` to half precision.
    """
    model.half().save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        "do_reduce_labels": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n", encoding="utf-8")
