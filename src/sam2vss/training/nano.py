"""`sam2vss train nano`: the whole recipe behind the bundled weights, from rendering to the saved folders.

Everything follows from one seed and the synthetic train seeds. A run folder holds a checkpoint per finished stage (an
interrupted run begins the stage it was in again), `metrics.jsonl`, and at the end the two model folders as fp16
safetensors.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..datasets.synthetic import CLASS_NAMES, TRAIN_SEEDS, VALIDATION_SEEDS
from ..errors import RunError
from ..sam2.model import Sam2Network
from .nano_configs import NANO_IMAGE_SIZE, sam2_nano_config, segformer_nano_config
from .nano_sam2 import (
    IMAGE_STAGES,
    MEMORY_STAGES,
    AuxiliaryHeads,
    Stage,
    match_memory_norm,
    one_click_iou,
    train_image_path,
    train_memory_path,
)
from .nano_segformer import save_segformer, train_segformer
from .scenes import BANK_SIZE, SceneBank, render_bank

Part = Literal["sam2", "segformer"]
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class NanoRecipe:
    """Sizes of a run. `FULL` made the bundled weights; `SMOKE` shows in seconds that the code runs."""

    image_scenes: int
    clip_scenes: int
    image_stages: tuple[Stage, ...]
    memory_stages: tuple[Stage, ...]
    segformer_steps: int
    validation_scenes: int


FULL = NanoRecipe(1500, 600, IMAGE_STAGES, MEMORY_STAGES, segformer_steps=1000, validation_scenes=20)
SMOKE = NanoRecipe(
    image_scenes=3,
    clip_scenes=2,
    image_stages=tuple(replace(stage, steps=2, images=2, prompts=2, warm_up=1) for stage in IMAGE_STAGES),
    memory_stages=tuple(replace(stage, steps=2, images=3, prompts=2, warm_up=1) for stage in MEMORY_STAGES),
    segformer_steps=2,
    validation_scenes=1,
)


def new_sam2_nano(seed: int) -> Sam2Network:
    """Build sam2-nano with random weights."""
    from transformers import Sam2VideoModel

    torch.manual_seed(seed)
    model = Sam2VideoModel(sam2_nano_config())
    # One random Fourier basis serves pictures and prompts; transformers keeps two copies of it.
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(model.shared_image_embedding.positional_embedding)
    return Sam2Network(model)


def train_nano(
    out: Path,
    parts: Sequence[Part] = ("segformer", "sam2"),
    recipe: NanoRecipe = FULL,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train the bundled models and save them under `out/sam2-nano` and `out/segformer-nano`.

    What is finished in `out` is not repeated, so an interrupted run can be started again.

    Raises:
        RunError: If `out` was begun with another recipe or seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_recipe(out, recipe, seed)
    started = time.monotonic()

    def report(entry: dict[str, Any]) -> None:
        entry = {"time_s": round(time.monotonic() - started, 1), **entry}
        with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if progress is not None:
            progress(entry)

    images = render_bank(TRAIN_SEEDS[: recipe.image_scenes], 4, 12, BANK_SIZE)
    report({"rendered": "images", "frames": images.frames.shape[0] * images.frames.shape[1]})
    if "segformer" in parts:
        _train_segformer(out, images, recipe, seed, report)
    if "sam2" in parts:
        _train_sam2(out, images, recipe, seed, report)


def _check_recipe(out: Path, recipe: NanoRecipe, seed: int) -> None:
    """Note what the checkpoints in a folder belong to; those of a smoke run must not pass for trained ones."""
    path = out / "recipe.json"
    text = json.dumps({"seed": seed, "recipe": asdict(recipe)}, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise RunError(f"{out} holds checkpoints of another recipe or seed ({path}); choose another --out")
    path.write_text(text, encoding="utf-8")


def _train_segformer(out: Path, images: SceneBank, recipe: NanoRecipe, seed: int, report: Progress) -> None:
    from transformers import SegformerForSemanticSegmentation

    folder = out / "segformer-nano"
    if (folder / "preprocessor_config.json").exists():  # written last
        return
    torch.manual_seed(seed)
    model = SegformerForSemanticSegmentation(segformer_nano_config(CLASS_NAMES))
    train_segformer(model, images, recipe.segformer_steps, seed, report)
    save_segformer(model, folder)


def _train_sam2(out: Path, images: SceneBank, recipe: NanoRecipe, seed: int, report: Progress) -> None:
    network = new_sam2_nano(seed)
    heads = AuxiliaryHeads(network.hidden_size, len(CLASS_NAMES))
    validation = render_bank(VALIDATION_SEEDS[: recipe.validation_scenes], 1, 1, NANO_IMAGE_SIZE)

    def save(name: str) -> None:
        torch.save({"network": network.state_dict(), "heads": heads.state_dict()}, out / f"{name}.part")
        (out / f"{name}.part").replace(out / f"{name}.pt")

    def load(name: str) -> bool:
        path = out / f"{name}.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        heads.load_state_dict(state["heads"])
        return True

    def validate(path: str) -> None:
        network.set_image_size(NANO_IMAGE_SIZE)
        network.eval()
        scores = one_click_iou(network, validation)
        report({"path": path, "validation_one_click_iou": float(np.mean(scores)), "regions": len(scores)})

    for number, stage in enumerate(recipe.image_stages):
        if load(f"image{number}"):
            continue
        train_image_path(network, heads, images, (stage,), seed + number, report, lambda: save("latest"))
        validate("image")
        save(f"image{number}")
    clips = render_bank(TRAIN_SEEDS[-recipe.clip_scenes :], 8, 3, BANK_SIZE)
    report({"rendered": "clips", "frames": clips.frames.shape[0] * clips.frames.shape[1]})
    match_memory_norm(network, images)
    for number, stage in enumerate(recipe.memory_stages):
        if load(f"memory{number}"):
            continue
        train_memory_path(network, clips, images, (stage,), seed + 100 + number, report, lambda: save("latest"))
        validate("memory")
        save(f"memory{number}")
    network.set_image_size(NANO_IMAGE_SIZE)
    network.model.half().save_pretrained(out / "sam2-nano")
