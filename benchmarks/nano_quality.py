"""How good are the bundled weights? On unseen synthetic clips, for the model cards and docs/results.md.

    python benchmarks/nano_quality.py --split test --clips 20

One-click: best-of-3 IoU of one click in the middle of every region above 0.2 % of the picture. Propagation: IoU over
the 31 frames after the first, given the true mask on the first, for objects above 0.2 % there that stay visible.
Base model: scores of segformer-nano on the same clips.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

LENGTH = 32
SMALLEST_SHARE = 0.002


def measure(seed: int) -> dict:
    """Measure one clip."""
    import torch

    from sam2vss.datasets.synthetic import LABEL_SPACE, render_clip
    from sam2vss.metrics import VideoSegMetrics
    from sam2vss.sam2.candidates import enlarge
    from sam2vss.sam2.propagate import MemoryPropagator
    from sam2vss.sam2.tracker import NANO_FOLDER
    from sam2vss.sam2.weights import load_network
    from sam2vss.segmenters import load_segmenter
    from sam2vss.training.nano_sam2 import centre_point

    torch.set_num_threads(1)
    clip = render_clip(seed, LENGTH)
    size = clip.size
    network = load_network(NANO_FOLDER)
    ids, areas = np.unique(clip.objects[0], return_counts=True)
    ids = ids[areas >= SMALLEST_SHARE * clip.objects[0].size]
    masks = torch.from_numpy(clip.objects[0][None] == ids[:, None, None])

    def encode(t: int):
        return network.encode(network.pixels(torch.from_numpy(clip.frames[t : t + 1])))

    with torch.inference_mode():
        features = encode(0)
        scale = torch.tensor([network.image_size / size[1], network.image_size / size[0]])
        points = torch.tensor([centre_point(mask.numpy()) for mask in masks], dtype=torch.float32) * scale
        low = network.without_memory(features.low)
        decoded = network.decode(low, features, network.embed_points(points), network.no_mask())
        clicked = torch.stack([enlarge(decoded.logits[:, k], size) > 0 for k in (1, 2, 3)], dim=1)
        one_click = iou(clicked.numpy(), masks[:, None].numpy()).max(axis=1)

        stays = np.array([(clip.objects == i).any((1, 2)).all() for i in ids])
        ids = ids[stays]
        propagator = MemoryPropagator(network, chunk=4)
        propagator.start(features, masks[torch.from_numpy(stays)])
        followed = []
        for t in range(1, LENGTH):
            shown = enlarge(propagator.step(encode(t)).logits, size) > 0
            followed.append(iou(shown.numpy(), clip.objects[t][None] == ids[:, None, None]))
    labels = load_segmenter("segformer-nano").predict(clip.frames).labels
    metrics = VideoSegMetrics(LABEL_SPACE.num_classes)
    metrics.update(labels, clip.labels, clip=str(seed))
    return {"one_click": one_click, "propagation": np.stack(followed), "base": metrics.state_dict()}


def iou(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """IoU over the last two axes of bool masks."""
    overlap, union = (left & right).sum((-1, -2)), (left | right).sum((-1, -2))
    return overlap / np.maximum(union, 1)


def main() -> None:
    """Measure and print."""
    from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, VALIDATION_SEEDS
    from sam2vss.metrics import VideoSegMetrics

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.split][: options.clips]
    with ProcessPoolExecutor(options.workers) as pool:
        results = list(pool.map(measure, seeds))
    one_click = np.concatenate([result["one_click"] for result in results])
    per_object = np.concatenate([result["propagation"].mean(axis=0) for result in results])
    by_frame = np.concatenate([result["propagation"] for result in results], axis=1).mean(axis=1)
    base = VideoSegMetrics(LABEL_SPACE.num_classes)
    for result in results:
        part = VideoSegMetrics(LABEL_SPACE.num_classes)
        part.load_state_dict(result["base"])
        base.merge(part)
    scores = base.compute().as_dict()
    print(f"{len(seeds)} {options.split} clips of {LENGTH} frames")
    print(f"one click, best of 3: mean IoU {one_click.mean():.3f} over {len(one_click)} regions")
    print(f"propagation: mean IoU {per_object.mean():.3f} over {len(per_object)} objects that stay visible; ", end="")
    print(", ".join(f"frame {t} {by_frame[t - 1]:.3f}" for t in (1, 8, 16, 31)))
    print("segformer-nano: " + ", ".join(f"{k} {100 * scores[k]:.2f}" for k in ("mIoU", "wIoU", "mBIoU", "mVC16")))
    if options.out is not None:
        content = {
            "clips": len(seeds),
            "one_click": float(one_click.mean()),
            "regions": len(one_click),
            "propagation": float(per_object.mean()),
            "objects": len(per_object),
            "base": scores,
        }
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
