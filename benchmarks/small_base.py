"""Train a small base model with an encoder of its own on the labelled frames of a data set.

    python benchmarks/small_base.py ../shared/data/camvid --out MODEL
    python benchmarks/small_base.py ../shared/data/ycbvideo --out MODEL --steps 800

Makes a folder that `--segmenter MODEL` loads (config.json, model.safetensors, preprocessor_config.json), with the
log of its training in metrics.jsonl. It is segformer-nano with a new classifier for the classes of the data set, at
twice the input size, going on from the bundled weights. Only the clips of train.txt are read, or those named with
--clips; nothing is chosen on others. Void takes no part. One thread, 10 and 5 minutes of processor time. Weights
trained on data that exclude commercial use (CamVid) are not ours to pass on: keep them out of the repository.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from transformers import SegformerForSemanticSegmentation

from sam2vss.dataset_clips import DatasetClips, find_dataset_clips
from sam2vss.hub import quiet_transformers
from sam2vss.segmenters.hub_models import SEGMENTER_NAMES
from sam2vss.training.nano_configs import segformer_nano_config
from sam2vss.training.nano_segformer import save_segformer, train_segformer
from sam2vss.training.scenes import SceneBank
from sam2vss.versions import code_revision, installed_versions

IMAGE_SIZE = 256  # logits on a 64 x 64 grid
BATCH = 8
BANK_SIZE = 480  # the smallest crop, half of it, is then hardly enlarged


def read_bank(data: DatasetClips, side: int = BANK_SIZE) -> SceneBank:
    """Read every labelled frame as a "clip" of one frame on a square; its "objects" are train ids and void (255)."""
    frames, labels = [], []
    for clip in data.clips:
        truth = data.truth_files(clip.name)
        for frame in clip.frames():
            if frame.name not in truth:
                continue
            ids = data.read_truth(truth[frame.name])
            frames.append(cv2.resize(frame.image, (side, side), interpolation=cv2.INTER_AREA))
            labels.append(cv2.resize(ids, (side, side), interpolation=cv2.INTER_NEAREST_EXACT))
    same = np.arange(256, dtype=np.uint8)  # object id -> class
    return SceneBank(np.stack(frames)[:, None], np.stack(labels)[:, None], (same,) * len(frames))


def new_model(names: tuple[str, ...], seed: int) -> SegformerForSemanticSegmentation:
    """Build segformer-nano with the bundled weights everywhere but in the classifier, which starts at random."""
    torch.manual_seed(seed)
    model = SegformerForSemanticSegmentation(segformer_nano_config(names))
    with quiet_transformers():
        bundled = SegformerForSemanticSegmentation.from_pretrained(
            SEGMENTER_NAMES["segformer-nano"], dtype=torch.float32, local_files_only=True
        )
    state = {k: v for k, v in bundled.state_dict().items() if not k.startswith("decode_head.classifier.")}
    difference = model.load_state_dict(state, strict=False)
    assert sorted(difference.missing_keys) == ["decode_head.classifier.bias", "decode_head.classifier.weight"]
    assert not difference.unexpected_keys
    return model


def new_log(folder: Path) -> Callable[[dict], None]:
    """Start folder/metrics.jsonl; return what adds a line to it, and prints it."""
    started, cpu_started = time.monotonic(), time.process_time()
    path = folder / "metrics.jsonl"
    path.write_text("", encoding="utf-8")

    def report(entry: dict) -> None:
        times = {"time_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu_started}
        line = json.dumps({**{name: round(value, 1) for name, value in times.items()}, **entry})
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    return report


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data set with label maps, such as one in VSPW's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--clips", nargs="+", default=[], help="clips to train on; default: those of train.txt")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if (options.out / "preprocessor_config.json").exists():
        parser.error(f"{options.out} holds a model already; choose another --out")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = find_dataset_clips(options.root, None if options.clips else "train", options.clips)
    if data.label_space.dtype != np.uint8:
        parser.error(f"{data.name} has {data.label_space.num_classes} classes, more than the 255 that fit here")
    options.out.mkdir(parents=True, exist_ok=True)
    report = new_log(options.out)
    bank = read_bank(data)
    shares = np.bincount(bank.objects.ravel(), minlength=256) / bank.objects.size
    learned = {name: round(float(share), 4) for name, share in zip(data.label_space.names, shares, strict=False)}
    void = round(float(shares[255]), 4)
    report({"data": data.name, "clips": data.names, "frames": len(bank), "void": void, "shares": learned})
    report({"seed": options.seed, "steps": options.steps, "batch": BATCH, "image_size": IMAGE_SIZE})
    report({"versions": installed_versions(), "revision": code_revision()})
    model = new_model(data.label_space.names, options.seed)
    train_segformer(model, bank, options.steps, options.seed, report, size=IMAGE_SIZE, batch=BATCH)
    save_segformer(model, options.out, IMAGE_SIZE)
    report({"saved": sorted(file.name for file in options.out.iterdir())})
    absent = [name for name, share in learned.items() if share == 0]
    print(f"model  {options.out}: {len(learned) - len(absent)} of {len(learned)} classes occur in training")


if __name__ == "__main__":
    main()
