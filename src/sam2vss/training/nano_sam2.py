"""Training of sam2-nano from scratch: first the image path (one click, one mask), then the memory path.

Image path: encoder, prompt encoder and decoder learn from clicks on rendered pictures, small pictures first. Two
auxiliary heads on the finest level (class and object affinity) give every pixel a say and are thrown away afterwards.
Memory path: with the encoder frozen, conditioning on a mask, memory attention, memory encoder and pointers learn from
short clips, while single clicks go on so that they are not forgotten.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sam2.model import MASK_PROMPT_BIAS, MASK_PROMPT_SCALE, FrameFeatures, Sam2Network
from .losses import affinity_loss, mask_iou, prompt_loss, soft_targets
from .scenes import Augmentation, SceneBank, random_pixel, visible_ids

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
SMALLEST_SHARE = 0.002  # regions below 0.2 % of the picture are neither prompted on purpose nor scored


@dataclass(frozen=True)
class Stage:
    """One stretch of training at one picture size."""

    steps: int
    size: int
    images: int
    prompts: int
    rate: float
    warm_up: int = 100


IMAGE_STAGES = (
    Stage(steps=3000, size=128, images=8, prompts=8, rate=1e-3, warm_up=300),
    Stage(steps=1000, size=256, images=5, prompts=12, rate=7e-4),
    Stage(steps=1500, size=384, images=4, prompts=14, rate=6e-4, warm_up=50),
)
MEMORY_STAGES = (
    Stage(steps=800, size=192, images=5, prompts=8, rate=8e-4, warm_up=100),
    Stage(steps=400, size=256, images=5, prompts=6, rate=5e-4, warm_up=30),
    Stage(steps=260, size=384, images=7, prompts=4, rate=4e-4, warm_up=20),
)
AUXILIARY_CHANNELS = 16


class AuxiliaryHeads(nn.Module):
    """Class scores and an affinity embedding from the finest pyramid level; not part of the saved model."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.classes = nn.Conv2d(hidden_size, num_classes, 1)
        self.affinity = nn.Conv2d(hidden_size, AUXILIARY_CHANNELS, 1)


def schedule(step: int, stage: Stage) -> float:
    """Learning rate: linear warm-up, then half a cosine down to 5 %."""
    if step < stage.warm_up:
        return stage.rate * (step + 1) / stage.warm_up
    progress = (step - stage.warm_up) / max(1, stage.steps - stage.warm_up)
    return stage.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class ClickBatch:
    """B pictures with P clicks each.

    Attributes:
        frames: uint8 (B, S, S, 3), RGB.
        labels: Class maps (B, S, S).
        objects: Object ids (B, S, S).
        points: Clicks (B * P, 2), (x, y) in pixels.
        masks: Mask of the clicked object, bool (B * P, S, S).
        rows: Picture of each click (B * P,).
    """

    frames: Tensor
    labels: Tensor
    objects: Tensor
    points: Tensor
    masks: Tensor
    rows: Tensor


def draw_clicks(bank: SceneBank, stage: Stage, rng: np.random.Generator) -> ClickBatch:
    """Cut a batch from the bank: mostly random objects, some random pixels (which favours large objects)."""
    frames, labels, objects, points, masks = [], [], [], [], []
    for _ in range(stage.images):
        clip, t = int(rng.integers(len(bank))), int(rng.integers(bank.frames.shape[1]))
        view = Augmentation.draw(rng)
        ids = view.ids(bank.objects[clip, t], stage.size)
        frames.append(view.frame(bank.frames[clip, t], stage.size))
        labels.append(bank.classes[clip][ids])
        objects.append(ids)
        candidates = visible_ids(ids, SMALLEST_SHARE)
        for _ in range(stage.prompts):
            if rng.random() < 0.75:
                chosen = int(rng.choice(candidates))
                x, y = random_pixel(ids == chosen, rng)
            else:
                x, y = int(rng.integers(stage.size)), int(rng.integers(stage.size))
                chosen = int(ids[y, x])
            points.append((x, y))
            masks.append(ids == chosen)
    return ClickBatch(
        frames=torch.from_numpy(np.stack(frames)),
        labels=torch.from_numpy(np.stack(labels)).long(),
        objects=torch.from_numpy(np.stack(objects)).long(),
        points=torch.tensor(points, dtype=torch.float32),
        masks=torch.from_numpy(np.stack(masks)),
        rows=torch.arange(stage.images).repeat_interleave(stage.prompts),
    )


def click_loss(network: Sam2Network, features: FrameFeatures, batch: ClickBatch) -> tuple[Tensor, Tensor]:
    """Loss (P,) and best-of-3 IoU (P,) of one click each."""
    low = network.without_memory(features.low)
    tokens = network.embed_points(batch.points)
    decoded = network.decode(low[batch.rows], features[batch.rows], tokens, network.no_mask())
    loss, iou = prompt_loss(decoded.logits, decoded.iou, soft_targets(batch.masks, network.mask_size))
    return loss + 0.05 * F.softplus(-decoded.object_score), iou


def auxiliary_loss(heads: AuxiliaryHeads, finest: Tensor, batch: ClickBatch, generator: torch.Generator) -> Tensor:
    """Class cross entropy and affinity on the finest level, against labels read at its cell centres."""
    step = batch.labels.shape[-1] // finest.shape[-1]
    labels = batch.labels[:, step // 2 :: step, step // 2 :: step]
    objects = batch.objects[:, step // 2 :: step, step // 2 :: step]
    by_class = F.cross_entropy(heads.classes(finest), labels, ignore_index=255)
    return by_class + 0.5 * affinity_loss(heads.affinity(finest), objects, generator)


def train_image_path(
    network: Sam2Network,
    heads: AuxiliaryHeads,
    bank: SceneBank,
    stages: tuple[Stage, ...],
    seed: int,
    report: Report,
    save: Callable[[], None],
) -> None:
    """Train everything but the memory parts on clicks. Changes `network` and `heads` in place."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    parameters = [p for p in network.parameters() if p.requires_grad] + list(heads.parameters())
    for number, stage in enumerate(stages):
        network.set_image_size(stage.size)
        network.train()
        optimiser = torch.optim.AdamW(parameters, lr=stage.rate, weight_decay=0.02, betas=(0.9, 0.98))
        averages: dict[str, float] = {}
        for step in range(stage.steps):
            batch = draw_clicks(bank, stage, rng)
            pyramid = network.pyramid(network.pixels(batch.frames))
            clicks, iou = click_loss(network, network.project(pyramid), batch)
            auxiliary = auxiliary_loss(heads, pyramid[0], batch, generator)
            loss = clicks.mean() + auxiliary
            _step(optimiser, loss, parameters, schedule(step, stage))
            _average(averages, {"loss": loss.item(), "auxiliary": auxiliary.item(), "iou": iou.mean().item()})
            if step % 50 == 49:
                report({"path": "image", "stage": number, "step": step + 1, **averages})
            if step % 500 == 499:
                save()
        save()
    network.eval()


@dataclass(frozen=True)
class ClipBatch:
    """One clip of T frames with P objects: frames uint8 (T, S, S, 3), masks bool (T, P, S, S)."""

    frames: Tensor
    masks: Tensor


def draw_clip(bank: SceneBank, stage: Stage, rng: np.random.Generator) -> ClipBatch:
    """Cut a clip of `stage.images` frames and up to `stage.prompts` objects that the first frame shows."""
    while True:
        clip = int(rng.integers(len(bank)))
        first = int(rng.integers(bank.frames.shape[1] - stage.images + 1))
        order = np.arange(first, first + stage.images)
        if rng.random() < 0.5:
            order = order[::-1]
        view = Augmentation.draw(rng, smallest=0.75)
        ids = np.stack([view.ids(bank.objects[clip, t], stage.size) for t in order])
        candidates = visible_ids(ids[0], SMALLEST_SHARE)
        if len(candidates) >= 2:
            break
    chosen = rng.permutation(candidates)[: stage.prompts]
    frames = np.stack([view.frame(bank.frames[clip, t], stage.size) for t in order])
    masks = ids[:, None] == chosen[None, :, None, None]
    return ClipBatch(torch.from_numpy(frames), torch.from_numpy(masks))


def mask_logits_of(masks: Tensor, size: int) -> Tensor:
    """Logits (P, size, size) that stand for given masks (P, S, S), as SAM 2 makes them from a mask prompt."""
    logits = masks[:, None].float() * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS
    return F.interpolate(logits, size=(size, size), mode="bilinear", antialias=True)[:, 0]


def clicked_masks(network: Sam2Network, features: FrameFeatures, masks: Tensor, rng: np.random.Generator) -> Tensor:
    """The network's own one-click masks for the objects (P, S, S); what automatic masks will look like."""
    points = [random_pixel(mask.numpy(), rng) for mask in masks]
    tokens = network.embed_points(torch.tensor(points, dtype=torch.float32))
    with torch.no_grad():
        decoded = network.decode(network.without_memory(features.low), features, tokens, network.no_mask())
        best = decoded.iou[:, 1:].argmax(dim=1) + 1
        logits = decoded.logits[torch.arange(len(best)), best]
        large = F.interpolate(logits[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return large > 0


def clip_loss(network: Sam2Network, batch: ClipBatch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Condition on the first frame's masks, propagate, and score every later frame.

    Returns:
        Loss, and the mean IoU of the masks that would be shown, over visible objects.
    """
    with torch.no_grad():
        pyramid = network.pyramid(network.pixels(batch.frames))
    features = network.project(pyramid)
    first = features[:1]
    prompt = batch.masks[0]
    if rng.random() < 0.4:
        own = clicked_masks(network, first, prompt, rng)
        overlap = (own & prompt).sum((-1, -2)) / (own | prompt).sum((-1, -2)).clamp(min=1)
        prompt = torch.where((overlap > 0.6)[:, None, None], own, prompt)
    count = len(prompt)
    everywhere = torch.ones(count, dtype=torch.bool)
    decoded = network.decode(first.low, first, network.no_points(count), network.embed_masks(prompt))
    losses = [prompt_loss(decoded.logits, decoded.iou, soft_targets(batch.masks[0], network.mask_size))[0].mean()]
    pointers = [network.object_pointer(decoded.tokens[:, 0], everywhere)]
    logits = mask_logits_of(prompt, network.mask_size)
    spatial = [network.write_memory(first.low, logits, torch.ones(count), binarise=True)]
    shown_iou = []
    for t in range(1, len(batch.frames)):
        frame = features[t : t + 1]
        recent = range(max(1, t - network.num_memories + 1), t)
        ages = [0, *(t - s for s in recent)]
        memories = torch.stack([spatial[0], *(spatial[s] for s in recent)], dim=1)
        pointer_ages = [t - s for s in range(t)]
        low = network.attend(frame.low, memories, ages, torch.stack(pointers, dim=1), pointer_ages)
        decoded = network.decode(low, frame, network.no_points(count), network.no_mask())
        target = soft_targets(batch.masks[t], network.mask_size)
        is_present = batch.masks[t].flatten(1).any(1)
        loss, _ = prompt_loss(decoded.logits, decoded.iou, target)
        presence = F.binary_cross_entropy_with_logits(decoded.object_score, is_present.float())
        losses.append((loss * is_present).sum() / count + presence)
        best = decoded.iou[:, 1:].argmax(dim=1) + 1
        rows = torch.arange(count)
        logits = decoded.logits[rows, best]
        shown_iou.append(mask_iou(logits[:, None].detach(), target)[is_present, 0])
        hidden = torch.where(is_present[:, None, None], logits, torch.full_like(logits, -1024.0))
        pointers.append(network.object_pointer(decoded.tokens[rows, best], is_present))
        spatial.append(network.write_memory(frame.low, hidden, is_present.float() * 2 - 1, binarise=False))
    return torch.stack(losses).mean(), torch.cat(shown_iou).mean()


@torch.no_grad()
def match_memory_norm(network: Sam2Network, bank: SceneBank) -> None:
    """Let memory attention start as the identity: set its final norm to the features' own scale and offset.

    The decoder has learned on features as the encoder gives them; a norm of unit scale would undo that at first.
    """
    frames = torch.from_numpy(bank.frames[:16, 0])
    low = network.without_memory(network.encode(network.pixels(frames)).low)
    norm = network.model.memory_attention.layer_norm
    norm.weight.fill_(low.std(dim=1).mean())
    norm.bias.copy_(low.mean(dim=1).mean() + network.model.no_memory_embedding.flatten())


def train_memory_path(
    network: Sam2Network,
    bank: SceneBank,
    image_bank: SceneBank,
    stages: tuple[Stage, ...],
    seed: int,
    report: Report,
    save: Callable[[], None],
) -> None:
    """Train memory, pointers and decoder on clips with the encoder frozen. Changes `network` in place."""
    rng = np.random.default_rng(seed)
    network.model.vision_encoder.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    for number, stage in enumerate(stages):
        network.set_image_size(stage.size)
        network.train()
        clicks = Stage(steps=0, size=stage.size, images=2, prompts=8, rate=0)
        optimiser = torch.optim.AdamW(parameters, lr=stage.rate, weight_decay=0.02, betas=(0.9, 0.98))
        averages: dict[str, float] = {}
        for step in range(stage.steps):
            loss, iou = clip_loss(network, draw_clip(bank, stage, rng), rng)
            batch = draw_clicks(image_bank, clicks, rng)
            with torch.no_grad():
                pyramid = network.pyramid(network.pixels(batch.frames))
            click, click_iou = click_loss(network, network.project(pyramid), batch)
            _step(optimiser, loss + 0.5 * click.mean(), parameters, schedule(step, stage))
            _average(averages, {"loss": loss.item(), "iou": iou.item(), "click_iou": click_iou.mean().item()})
            if step % 50 == 49:
                report({"path": "memory", "stage": number, "step": step + 1, **averages})
            if step % 300 == 299:
                save()
        save()
    network.model.vision_encoder.requires_grad_(True)
    network.eval()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def _average(averages: dict[str, float], values: dict[str, float]) -> None:
    for key, value in values.items():
        averages[key] = value if key not in averages else 0.97 * averages[key] + 0.03 * value


def centre_point(mask: np.ndarray) -> tuple[int, int]:
    """Return the (x, y) inside a bool mask that is farthest from its border (SAM's evaluation click)."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = divmod(int(distance.argmax()), mask.shape[1])
    return x, y


@torch.no_grad()
def one_click_iou(network: Sam2Network, bank: SceneBank) -> np.ndarray:
    """Best-of-3 IoU at full size S of one centre click on every region above 0.2 % of the picture, float (R,)."""
    results = []
    size = network.image_size
    for clip in range(len(bank)):
        for t in range(bank.frames.shape[1]):
            ids = bank.objects[clip, t]
            masks = np.stack([ids == i for i in visible_ids(ids, SMALLEST_SHARE)])
            features = network.encode(network.pixels(torch.from_numpy(bank.frames[clip, t : t + 1])))
            points = torch.tensor([centre_point(mask) for mask in masks], dtype=torch.float32)
            tokens = network.embed_points(points)
            decoded = network.decode(network.without_memory(features.low), features, tokens, network.no_mask())
            large = F.interpolate(decoded.logits[:, 1:], size=(size, size), mode="bilinear", align_corners=False)
            results.append(mask_iou(large, torch.from_numpy(masks).float()).max(dim=1).values.numpy())
    return np.concatenate(results)
