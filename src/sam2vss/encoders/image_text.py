"""CLIP, SigLIP and SigLIP 2 as an `ImageTextModel`: pictures, patches and texts as vectors of one space."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from ..devices import choose_device, choose_dtype
from ..errors import WeightsError
from ..hub import ModelLocation, quiet_transformers, resolve_model
from ..segmenters.hub_models import failing_as, untrained_parts
from ..segmenters.preprocessing import CONFIG_FILES, Preprocessing
from ..settings import TEXT_MODEL_ALIASES
from .backbone_encoder import LONGEST, UNNAMED
from .dense import clip_patches, siglip_patches
from .maps import as_batch, to_map
from .tokens import TOKENIZER_FILES, TextReader
from .towers import cut_into_patches

MODEL_TYPES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
DENSE_SCALE = 2  # ours: maps are made at twice the side the model was trained at; 14 cells would be few for masks
TEXT_BATCH = 64


class HubTextModel:
    """An `ImageTextModel` of transformers.

    Pictures are resized to the square that the model was trained at. For maps the whole frame is resized, its shorter
    side to twice that, the longer one following up to four times as long; positions are interpolated.

    Attributes:
        location: Where the weights lie.
        logit_scale: The model's own, after its exponential.
        mean_color: uint8 (3,).
    """

    def __init__(self, model: Any, preprocessing: Preprocessing, reader: TextReader, location: ModelLocation) -> None:
        parameter = next(model.parameters())
        vision = model.config.vision_config
        self.location = location
        self.device, self.dtype = parameter.device, parameter.dtype
        self.batch_size = 8 if self.device.type == "cpu" else 64
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self.side = int(getattr(vision, "image_size", 0) or round(vision.num_patches**0.5) * vision.patch_size)
        self.mean_color = np.clip(np.rint(np.array(preprocessing.mean) / preprocessing.scale), 0, 255).astype(np.uint8)
        self._model, self._reader = model, reader
        self._patch = int(vision.patch_size)
        self._preprocessing = replace(preprocessing, divisor=1, multiple=1, keep_aspect_ratio=False, pads=False)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors of texts, float32 (M, D).

        Raises:
            LabelError: If a text is too long for the model.
            WeightsError: If values are not finite numbers.
        """
        parts = [self.text_vectors(texts[i : i + TEXT_BATCH]) for i in range(0, len(texts), TEXT_BATCH)]
        return self._to_units(torch.cat(parts))

    @torch.inference_mode()
    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return unit vectors of pictures, each uint8 RGB (S, S, 3), as float32 (M, D).

        Raises:
            ShapeError: If a picture has another form.
            WeightsError: If values are not finite numbers.
        """
        vectors = []
        for start in range(0, len(images), self.batch_size):
            part = [self._pixels(image, (self.side, self.side)) for image in images[start : start + self.batch_size]]
            vectors.append(self.image_vectors(torch.cat(part)))
        return self._to_units(torch.cat(vectors))

    @torch.inference_mode()
    def embed_map(self, frame: np.ndarray) -> np.ndarray:
        """Return unit vectors of the patches of a frame, uint8 RGB (H, W, 3), as float32 (D, h, w).

        Raises:
            ShapeError: If the frame has another form.
            WeightsError: If values are not finite numbers.
        """
        size = self.map_input_size((frame.shape[0], frame.shape[1]))
        patches = self.patch_vectors(self._pixels(frame, size))
        grid = (size[0] // self._patch, size[1] // self._patch)
        units = torch.from_numpy(self._to_units(patches[0]))
        return to_map(units[None], grid, most_extra=0)[0].contiguous().numpy()

    def map_input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a frame of (height, width) is resized to for its map."""
        target, shorter = DENSE_SCALE * self.side, min(size)
        rows, columns = (
            max(1, round(min(side / shorter, LONGEST) * target / self._patch)) * self._patch for side in size
        )
        return rows, columns

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Return vectors of texts as the model gives them, (M, D)."""
        tokens = self._reader(texts).to(self.device)
        return self._model.get_text_features(input_ids=tokens).pooler_output  # type: ignore[no-any-return]

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """Return vectors of normalised pictures (B, 3, S, S) as the model gives them, (B, D)."""
        pixels = pixels.to(self.dtype)
        if self._kind == "siglip2":
            return self._model.get_image_features(**cut_into_patches(pixels, self._patch)).pooler_output  # type: ignore[no-any-return]
        return self._model.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def patch_vectors(self, pixels: Tensor) -> Tensor:
        """Return vectors of the patches of normalised pictures (B, 3, H, W), row by row, (B, P, D)."""
        pixels = pixels.to(self.dtype)
        tower = self._model.vision_model
        if self._kind == "clip":
            outputs = tower(pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True)
            return clip_patches(self._model, outputs.hidden_states[-2])
        if self._kind == "siglip":
            outputs = tower(pixel_values=pixels, interpolate_pos_encoding=True)
        else:
            outputs = tower(**cut_into_patches(pixels, self._patch))
        return siglip_patches(self._model, outputs.last_hidden_state)

    @property
    def _kind(self) -> str:
        return str(self._model.config.model_type)

    def _pixels(self, image: np.ndarray, size: tuple[int, int]) -> Tensor:
        preprocessing = replace(self._preprocessing, size={"height": size[0], "width": size[1]})
        return preprocessing(as_batch(image, self.device))

    def _to_units(self, vectors: Tensor) -> np.ndarray:
        if not torch.isfinite(vectors).all():
            raise WeightsError(
                f"{self.location.id} gave vectors that are not finite numbers in {self.dtype}; try --dtype float32, or "
                "fetch the weights again"
            )
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def find_text_model(name: str) -> ModelLocation:
    """Find the files of what `load_text_model` loads, without loading them.

    Raises:
        WeightsError: If they cannot be had.
    """
    for needed in (CONFIG_FILES, TOKENIZER_FILES):  # copies that another tool left in the cache may lack either
        location = resolve_model(name, TEXT_MODEL_ALIASES, needs_one_of=needed)
    return location


def load_text_model(name: str, device: str = "cpu", dtype: str = "float32") -> HubTextModel:
    """Load a CLIP, SigLIP or SigLIP 2 model with both its towers.

    Args:
        name: Alias (`settings.TEXT_MODEL_ALIASES`), hub id, or folder.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".

    Raises:
        SettingsError: If device or dtype cannot be used.
        WeightsError: If the model cannot be had or read, is of another kind, or lacks trained weights or a tokenizer.
    """
    device = choose_device(device)
    precision = choose_dtype(dtype, device)
    location = find_text_model(name)
    with failing_as(location):
        config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
    if config.model_type not in MODEL_TYPES:
        raise WeightsError(
            f"{name} is a {config.model_type} model, expected one of images and text: CLIP, SigLIP or SigLIP 2. Known "
            f"names: {', '.join(TEXT_MODEL_ALIASES)}"
        )
    preprocessing = Preprocessing.from_folder(location.path, config.model_type, UNNAMED)
    reader = TextReader.from_location(location, config)
    model, missing = _load(location, config)
    text_model = HubTextModel(model, preprocessing, reader, location)
    with failing_as(location):
        _refuse_untrained(text_model, model, missing)
    return HubTextModel(model.to(device, precision), preprocessing, reader, location)


def _load(location: ModelLocation, config: Any) -> tuple[Any, set[str]]:
    """Load a model in float32 on the CPU; return it with the names of parameters that the files lack."""
    model_class = getattr(transformers, MODEL_TYPES[config.model_type])
    with failing_as(location), quiet_transformers():
        model, report = model_class.from_pretrained(
            location.path, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True,
            dtype=torch.float32,
        )  # fmt: skip
    if not getattr(model.vision_model, "use_head", True):
        raise WeightsError(
            f"{location.id} has no pooling head, so its pictures have no vector in the space of its texts"
        )
    model.eval().requires_grad_(False)
    return model, set(report["missing_keys"])


def _refuse_untrained(text_model: HubTextModel, model: Any, missing: set[str]) -> None:
    """Refuse weights that lack what texts, pictures or patches depend on: transformers fills in random numbers."""
    blank = torch.zeros((1, 3, text_model.side, text_model.side))

    def run() -> list[Tensor]:
        images, patches = text_model.image_vectors(blank), text_model.patch_vectors(blank)
        return [text_model.text_vectors(["sky"]), images, patches, model.logit_scale]

    needed = untrained_parts(model, missing, run)
    if needed:
        raise WeightsError(
            f"{text_model.location.id} lacks {len(needed)} trained parameters of {type(model).__name__} (first: "
            f"{needed[0]}): it holds no whole model of images and text"
        )
