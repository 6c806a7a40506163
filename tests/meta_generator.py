"""Meta's automatic mask generator run on given mask logits, and logits to give it.

`generate` needs the public sam2 package (facebookresearch/sam2, commit 2b90b9f) and torchvision; the golden values in
tests/sam2 were made by it and stand for it where the package is missing.
"""

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sam2vss.sam2.candidates import Selection


def smooth_logits(seed: int, count: int, side: int, speckle: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mask logits (count, side, side) of ellipses, a quarter of them copies, and predicted IoUs with ties (count,).

    `speckle` is the share of cells in and around an ellipse that change sides, which makes islands and holes.
    """
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[:side, :side] / side
    centre_y, centre_x = rng.uniform(0, 1, (2, count, 1, 1))
    radius_y, radius_x = rng.uniform(0.05, 0.4, (2, count, 1, 1))
    ellipse = 1 - ((y - centre_y) / radius_y) ** 2 - ((x - centre_x) / radius_x) ** 2
    noise = rng.standard_normal((count, side, side))
    logits = np.clip(ellipse * rng.uniform(3, 40, (count, 1, 1)), -9, 9) + 0.7 * noise
    logits[(rng.uniform(size=logits.shape) < speckle) & (ellipse > -1)] *= -1
    copies = rng.randint(0, count, (count // 4, 2))
    logits[copies[:, 0]] = logits[copies[:, 1]]
    iou = np.round(rng.uniform(0.3, 1, count), 1)
    return torch.from_numpy(logits).float(), torch.from_numpy(iou).float()


def generate(
    monkeypatch: pytest.MonkeyPatch,
    logits: Tensor,
    iou: Tensor,
    size: tuple[int, int],
    points_per_side: int,
    min_area: int = 0,
    **options: Any,
) -> list[dict[str, Any]]:
    """Run Meta's generator on (K, s, s) logits and (K,) predicted IoUs, fed in the order in which it asks for them.

    `min_area` runs its `postprocess_small_regions`, which nothing calls in SAM 2, where SAM 1 called it; the option
    `min_mask_region_area` gets OpenCV in the place of the CUDA extension that it would need.
    """
    monkeypatch.delitem(sys.modules, "sam2", raising=False)  # pytest knows the folder tests/sam2 by that name
    meta = pytest.importorskip("sam2.automatic_mask_generator", reason="Meta's sam2 package is not installed")
    monkeypatch.setattr("torch.jit.script", lambda module: module)
    monkeypatch.setattr(import_module("sam2.utils.misc"), "get_connected_components", _components)
    generator = meta.SAM2AutomaticMaskGenerator(
        SimpleNamespace(image_size=4 * logits.shape[-1]), points_per_side=points_per_side, **options
    )
    predictor = generator.predictor
    asked = {"size": size, "next": 0}

    def predict(points: Tensor, labels: Tensor, multimask_output: bool, return_logits: bool) -> tuple[Tensor, ...]:
        part = slice(asked["next"], asked["next"] + 3 * len(points))
        asked["next"] = part.stop
        low = logits[part].unflatten(0, (-1, 3))
        return predictor._transforms.postprocess_masks(low, asked["size"]), iou[part].unflatten(0, (-1, 3)), low

    monkeypatch.setattr(predictor, "set_image", lambda image: asked.update(size=image.shape[:2]))
    monkeypatch.setattr(predictor, "_predict", predict)
    monkeypatch.setattr(type(predictor), "device", torch.device("cpu"))
    if min_area:
        original = generator._generate_masks
        nms = generator.box_nms_thresh
        if generator.crop_n_layers:
            nms = max(nms, generator.crop_nms_thresh)
        monkeypatch.setattr(
            generator,
            "_generate_masks",
            lambda image: generator.postprocess_small_regions(original(image), min_area, nms),
        )
    found = generator.generate(np.zeros((*size, 3), np.uint8))
    assert asked["next"] == len(logits)
    return found


def assert_same(selection: Selection, records: list[dict[str, Any]]) -> None:
    """Compare masks, order, scores and points with what Meta's generator returned."""
    assert len(selection) == len(records)
    for row, record in enumerate(records):
        assert np.array_equal(selection.masks[row].numpy(), record["segmentation"])
        assert selection.predicted_iou[row].item() == record["predicted_iou"]
        assert selection.stability[row].item() == record["stability_score"]
        assert selection.points[row].tolist() == pytest.approx(record["point_coords"][0])


def _components(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and areas of 8-connected components, (N, 1, h, w) each, as Meta's CUDA extension gives them."""
    labels, areas = torch.zeros(masks.shape, dtype=torch.int32), torch.zeros(masks.shape, dtype=torch.int32)
    for mask, label, area in zip(masks, labels, areas, strict=True):
        _, found, stats, _ = cv2.connectedComponentsWithStats(mask[0].numpy().astype(np.uint8), connectivity=8)
        label[0] = torch.from_numpy(found)
        area[0] = torch.from_numpy(np.where(found > 0, stats[found, cv2.CC_STAT_AREA], 0))
    return labels, areas
