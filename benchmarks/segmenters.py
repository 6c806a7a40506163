"""Time the native video models frame by frame against the published schedule, side by side in one run.

    python benchmarks/segmenters.py [--models cffm-b0 mrcfa-b0 tv3s-b1] [--timed 2] [--device cpu]

Ours encodes a frame once and keeps what later frames need of it; the published test scripts encode, and fuse, all four
frames of the clip anew for each target. Both run here with our networks and the same random weights (their own code:
published_segmenters.py), on frames of 480 x 853 of which every target has its full clip (-9, -6, -3, 0).

Prints, for each model: millions of parameters; GMACs a frame (matrix products and convolutions as torch counts them;
Mamba's scan, which is none, is left out); frames per second from picture to labels (best of the timed frames; on the
CPU seconds of the processor, one thread); megabytes kept from frame to frame. `labels` is the share of pixels on which
both schedules agree.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sam2vss.hub import ModelLocation
from sam2vss.segmenters.scores import argmax_at_size
from sam2vss.segmenters.vss.architecture import FAMILIES, build, default_architecture
from sam2vss.segmenters.vss.frames import NUM_EARLIER, OFFSETS, network_input, network_size
from sam2vss.segmenters.vss.segformer import VssModel
from sam2vss.segmenters.vss.segmenter import VssSegmenter
from sam2vss.types import LabelSpace

SIZE = (480, 853)
NUM_CLASSES = 124
MODELS = ("segformer-b0", "segformer-b1", "cffm-b0", "cffm-b1", "mrcfa-b0", "mrcfa-b1", "tv3s-b1", "tv3s-b1@stream")


def make(name: str, device: str) -> tuple[VssModel, str]:
    """Build a model such as "cffm-b1" or "tv3s-b1@stream" with random weights; return it and its context."""
    name, _, context = name.partition("@")
    family, _, size = name.rpartition("-")
    known = {known.lower(): known for known in FAMILIES}
    torch.manual_seed(0)
    model = build(default_architecture(known[family], size, NUM_CLASSES))
    with torch.no_grad():  # the classifiers' own start is so small that all classes tie
        for part in ("linear_pred", "linear_pred2"):
            if hasattr(model.decode_head, part):
                getattr(model.decode_head, part).weight.normal_()
    return model.eval().to(device), context or "clip"


@torch.inference_mode()
def label_by_published_schedule(model: VssModel, frames: np.ndarray, device: str) -> np.ndarray:
    """Label the last frame of a clip as the test scripts do: encode and fuse all its frames at once, then decode."""
    head = model.decode_head
    stages = model.backbone(torch.stack([network_input(frame) for frame in frames]).to(device))
    fused = head.fuse(stages)
    if head.num_frames == 1:
        logits = head.classify(fused)
    else:
        clip = [head.encode(tuple(s[i : i + 1] for s in stages), fused[i : i + 1]) for i in range(len(frames))]
        logits = head.decode(clip)
    return argmax_at_size(logits[0].float(), SIZE, by_way_of=network_size(SIZE)).cpu().numpy()


def gmacs(work: Callable[[], object]) -> float:
    """Count billions of multiply-adds; attention as the two matrix products that it is."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops() / 2e9


def run_timed(work: Callable[[], np.ndarray], device: str) -> tuple[np.ndarray, float]:
    """Return what `work` returns and the seconds it took; what it returns is on the CPU, so the work is done.

    On the CPU these are seconds of the processor, so that others who use the machine do not count.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    started = clock()
    result = work()
    return result, clock() - started


def kept_megabytes(segmenter: VssSegmenter) -> float:
    """Size of the tensors that a segmenter keeps from frame to frame."""
    seen: dict[int, int] = {}
    waiting = [list(segmenter._earlier), segmenter._state]
    while waiting:
        part = waiting.pop()
        if isinstance(part, torch.Tensor):
            seen[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        elif isinstance(part, list | tuple):
            waiting.extend(part)
        elif hasattr(part, "__dataclass_fields__"):
            waiting.extend(getattr(part, field) for field in part.__dataclass_fields__)
    return sum(seen.values()) / 1e6


def measure(name: str, timed: int, device: str) -> str:
    """Run both schedules on the same frames, turn by turn; return a row of the table."""
    model, context = make(name, device)
    frames = draw_frames(NUM_EARLIER + timed + 2)
    segmenter = VssSegmenter(model, LabelSpace.numbered(NUM_CLASSES), ModelLocation(name, Path(name)), context=context)
    for frame in frames[: NUM_EARLIER + 1]:  # now every frame has its full clip, and those before it are encoded
        segmenter.predict(frame[None])
    offsets = OFFSETS if model.decode_head.num_frames > 1 else (0,)
    ours, published, agreement = [], [], []
    for t in range(NUM_EARLIER + 1, NUM_EARLIER + 1 + timed):
        clip = frames[[t + offset for offset in offsets]]
        labels, took = run_timed(lambda t=t: segmenter.predict(frames[t : t + 1]).labels[0], device)
        expected, took_published = run_timed(lambda clip=clip: label_by_published_schedule(model, clip, device), device)
        ours.append(took)
        published.append(took_published)
        agreement.append(float((labels == expected).mean()))
    ours_gmacs = gmacs(lambda: segmenter.predict(frames[-1:]))
    published_gmacs = gmacs(lambda: label_by_published_schedule(model, clip, device))
    cells = [
        name,
        f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}",
        *(f"{ours_gmacs:.1f}", f"{published_gmacs:.1f}", f"{published_gmacs / ours_gmacs:.2f}"),
        *(f"{1 / min(ours):.2f}", f"{1 / min(published):.2f}", f"{min(published) / min(ours):.2f}"),
        f"{kept_megabytes(segmenter):.1f}",
        f"{min(agreement):.3%}" if context == "clip" else "another context",
    ]
    return f"| {' | '.join(cells)} |"


def draw_frames(count: int) -> np.ndarray:
    """Return soft random pictures, uint8 (T, 480, 853, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 24, 40, 3), np.uint8)
    return np.stack([cv2.resize(frame, SIZE[::-1]) for frame in coarse])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="FAMILY-SIZE, TV3S also with @stream")
    parser.add_argument("--timed", type=int, default=2, help="frames to time")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    where = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor() or platform.machine()
    print(f"{where}, one thread, {SIZE[0]} x {SIZE[1]}, {NUM_CLASSES} classes, torch {torch.__version__}\n")
    print("| model | M parameters | GMACs | published | ratio | frames/s | published | ratio | MB kept | labels |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.models:
        print(measure(name, options.timed, options.device), flush=True)


if __name__ == "__main__":
    main()
