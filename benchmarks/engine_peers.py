"""The engines that `engine.py` compares: Meta's predictors, transformers' session, and ours in each mode.

Each is a generator that yields after every frame, when the bool masks (N, H, W) of that frame at the video's size are
computed (on a GPU: asked for). All follow the same N boxes with the same random weights. Meta's package may be
installed or lie in a folder that is named; its own loader (hydra) is not needed, its YAML files are read here.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from sam2vss.devices import attention_backends
from sam2vss.sam2.ahead import encode_ahead
from sam2vss.sam2.candidates import enlarge
from sam2vss.sam2.compiled import CompiledNetwork
from sam2vss.sam2.match import FrameMatcher
from sam2vss.sam2.meta_checkpoints import TRUNKS, MetaArchitecture, meta_names, video_config
from sam2vss.sam2.model import Sam2Network
from sam2vss.sam2.prompts import PromptPropagator
from sam2vss.sam2.propagate import MemoryPropagator, Propagator
from sam2vss.sam2.tracker import NANO_FOLDER
from sam2vss.sam2.weights import load_network

META_FILES = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}  # sam2.1_hiera_?.yaml
CONFIGS = (*META_FILES, "nano")


@dataclass(frozen=True)
class Cell:
    """One measurement: an engine at a size with so many objects."""

    engine: str
    config: str
    size: int
    objects: int
    frames: int
    device: str
    meta_path: str = ""  # folders in which Meta's package lies, where it is not installed

    @property
    def chunk(self) -> int:
        return 1 if self.device == "cpu" else 32


class SkippedError(Exception):
    """This engine cannot run here; the message says why in one sentence."""


@dataclass(frozen=True)
class Scene:
    """Smooth random pictures that drift, uint8 (T, H, W, 3), and random boxes in the first one, bool (N, H, W)."""

    frames: np.ndarray
    masks: np.ndarray


def make_scene(frames: int, objects: int, video_size: tuple[int, int]) -> Scene:
    rng = np.random.default_rng(0)
    height, width = video_size
    coarse = torch.from_numpy(rng.random((1, 3, height // 16 + 4, (width + 4 * frames) // 16 + 4))).float()
    picture = F.interpolate(coarse, scale_factor=16, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    panorama = (255 * picture).to(torch.uint8).numpy()
    masks = np.zeros((objects, height, width), bool)
    for mask in masks:
        top, left = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
        mask[
            top : top + rng.integers(height // 16, height // 4), left : left + rng.integers(width // 16, width // 4)
        ] = 1
    return Scene(np.stack([panorama[:height, 4 * t : 4 * t + width] for t in range(frames)]), masks)


def our_network(cell: Cell, dtype: torch.dtype = torch.float32) -> Sam2Network:
    """Build the network with random weights, the same for every engine (nano: its own)."""
    if cell.config == "nano":
        network = load_network(NANO_FOLDER)
    else:
        from transformers import Sam2VideoModel

        torch.manual_seed(0)
        trunk = next(trunk for trunk in TRUNKS if trunk.size == cell.config)
        network = Sam2Network(Sam2VideoModel(video_config(MetaArchitecture(trunk, is_2_1=True))))
    network.set_image_size(cell.size)
    return network.to(cell.device, dtype).eval()


def ours(cell: Cell, scene: Scene, dtype: torch.dtype = torch.float32, mode: str = "exact") -> Iterator[None]:
    network = our_network(cell, dtype)
    if mode == "compiled":
        network = CompiledNetwork(network)
    followers: dict[str, Propagator] = {
        "prompt": PromptPropagator(network, cell.chunk),
        "fast": FrameMatcher(network),
    }
    propagator = followers.get(mode) or MemoryPropagator(network, cell.chunk)
    size, masks = scene.masks.shape[1:], torch.from_numpy(scene.masks).to(cell.device)
    with attention_backends(cell.device), torch.inference_mode():
        for t, features in enumerate(encode_ahead(network, scene.frames)):
            tracks = propagator.step(features) if t else propagator.start(features, masks)
            for part in tracks.logits.split(16):
                enlarge(part, (size[0], size[1])) > 0  # noqa: B015
            yield


def meta(cell: Cell, scene: Scene, module: str, name: str) -> Iterator[None]:
    if cell.config not in META_FILES:
        raise SkippedError(f"Meta's sam2 has no configuration for {cell.config}; skipped.")
    try:
        predictor = _meta_predictor(cell, module, name)
    except ImportError as error:
        raise SkippedError(
            f"Meta's sam2 is not importable ({error}): install it from its repository; skipped."
        ) from None
    with tempfile.TemporaryDirectory() as folder, _autocast(cell.device), torch.inference_mode():
        for t, frame in enumerate(scene.frames):
            Image.fromarray(frame).save(Path(folder) / f"{t:05d}.jpg")
        state = predictor.init_state(folder)
        for number, mask in enumerate(scene.masks):
            predictor.add_new_mask(state, 0, number, torch.from_numpy(mask))
        for _, _, logits in predictor.propagate_in_video(state):
            logits > 0  # noqa: B015
            yield


def _meta_predictor(cell: Cell, module: str, name: str) -> Any:
    own = our_network(cell).model.state_dict()
    # only now: a stand-in for torchvision that lies there must not be seen by transformers
    sys.path[:0] = [folder for folder in cell.meta_path.split(os.pathsep) if folder]
    sam2 = importlib.import_module("sam2")
    file = Path(sam2.__path__[0]) / "configs" / "sam2.1" / f"sam2.1_hiera_{META_FILES[cell.config]}.yaml"
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]
    tree |= {
        "_target_": f"{module}.{name}",
        "image_size": cell.size,
        "binarize_mask_from_pts_for_mem_enc": True,  # this and the next as its build_sam2_video_predictor sets them
        "sam_mask_decoder_extra_args": {
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
        "fill_hole_area": 0,  # needs its CUDA extension, and changes masks
    }
    for attention in ("self_attention", "cross_attention"):
        tree["memory_attention"]["layer"][attention]["feat_sizes"] = [cell.size // 16] * 2
    scale = tree["memory_encoder"]["fuser"]["layer"]
    scale["layer_scale_init_value"] = float(scale["layer_scale_init_value"])  # PyYAML reads 1e-6 as a word
    predictor = _make(tree)
    weights = {}
    for own_name, tensor in own.items():
        names = meta_names(own_name)
        for row, meta_name in enumerate(names):
            weights[meta_name] = tensor if len(names) == 1 else tensor[row : row + 1]
    expected = predictor.state_dict()
    predictor.load_state_dict({key: weights[key].cpu().reshape(value.shape) for key, value in expected.items()})
    return predictor.to(cell.device).eval()


def _make(tree: Any) -> Any:
    """Build what a tree of `_target_` entries describes."""
    if isinstance(tree, dict):
        values = {key: _make(value) for key, value in tree.items() if key != "_target_"}
        if "_target_" not in tree:
            return values
        module, name = tree["_target_"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(**values)
    return [_make(value) for value in tree] if isinstance(tree, list) else tree


def session(cell: Cell, scene: Scene) -> Iterator[None]:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    dtype = torch.float32 if cell.device == "cpu" else torch.bfloat16
    network = our_network(cell, dtype)
    height, width = scene.masks.shape[1:]
    pixels = torch.cat([network.pixels(torch.from_numpy(frame)[None].to(cell.device)) for frame in scene.frames])
    state = Sam2VideoInferenceSession(pixels, height, width, cell.device, cell.device, cell.device, dtype)
    for number, mask in enumerate(scene.masks):
        prompt = torch.from_numpy(mask)[None, None].float().to(cell.device)
        prompt = F.interpolate(prompt, size=(cell.size, cell.size), mode="bilinear", antialias=True)
        state.add_mask_inputs(state.obj_id_to_idx(number), 0, (prompt >= 0.5).to(dtype))
    state.obj_with_new_inputs = list(range(len(scene.masks)))
    with torch.inference_mode():
        for t in range(len(pixels)):
            logits = network.model(state, frame_idx=t).pred_masks
            F.interpolate(logits, size=(height, width), mode="bilinear") > 0  # noqa: B015
            yield


def _autocast(device: str) -> AbstractContextManager[object]:
    return nullcontext() if device == "cpu" else torch.autocast(torch.device(device).type, torch.bfloat16)


def run_engine(cell: Cell, scene: Scene) -> Iterator[None]:
    """Start the engine of a cell.

    Raises:
        SkippedError: With the first frame, if it is not installed here.
    """
    module = "sam2.sam2_video_predictor"
    half = torch.bfloat16
    engines = {
        "meta": lambda: meta(cell, scene, module, "SAM2VideoPredictor"),
        "meta-vos": lambda: meta(cell, scene, module, "SAM2VideoPredictorVOS"),
        "meta-legacy": lambda: meta(cell, scene, f"{module}_legacy", "SAM2VideoPredictor"),
        "session": lambda: session(cell, scene),
        "exact": lambda: ours(cell, scene),
        "exact-bf16": lambda: ours(cell, scene, half),
        "compiled": lambda: ours(cell, scene, mode="compiled"),
        "compiled-bf16": lambda: ours(cell, scene, half, mode="compiled"),
        "prompt": lambda: ours(cell, scene, torch.float32 if cell.device == "cpu" else half, mode="prompt"),
        "fast": lambda: ours(cell, scene, torch.float32 if cell.device == "cpu" else half, mode="fast"),
    }
    return engines[cell.engine]()


ENGINES = {
    "meta": "Meta's predictor",
    "meta-vos": "Meta's, vos_optimized",
    "meta-legacy": "Meta's, legacy (batched)",
    "session": "transformers' session",
    "exact": "ours, exact, float32",
    "exact-bf16": "ours, exact, bfloat16",
    "compiled": "ours, exact, float32, compiled",
    "compiled-bf16": "ours, exact, bfloat16, compiled",
    "prompt": "ours, prompt",
    "fast": "ours, fast",
}
