"""SAM 2's operations, on the modules and weights of transformers.

`Sam2Network` offers the five operations everything else is made of: encode frames, embed prompts, decode masks,
attend to memories, write a memory. Objects are rows of a batch; nothing here loops over them. Reference semantics
are those of Meta's `SAM2VideoPredictor` (sam2 repository, commit 2b90b9f), not of transformers' session API. Only this
file, `attention.py`, `positions.py`, `sizes.py` and `edgetam.py` know the insides of transformers' modules.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import look_around, look_back, two_way
from .positions import PositionTables, age_table
from .sizes import fitting_size, tell_modules

PIXEL_MEAN = (0.485, 0.456, 0.406)  # ImageNet, SAM 2's training and inference configuration
PIXEL_STD = (0.229, 0.224, 0.225)
SAM3_PIXEL_MEAN = SAM3_PIXEL_STD = (0.5, 0.5, 0.5)  # SAM 3's image processor in transformers
NO_OBJECT_LOGIT = -1024.0  # mask logits of a frame in which the object does not appear (SAM 2, NO_OBJ_SCORE)
MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0  # logits that stand for a given binary mask (SAM 2)


@dataclass(frozen=True)
class FrameFeatures:
    """Encoder features of B frames on a grid of h x w cells; `high` and `mid` are projected for the mask decoder.

    Attributes:
        high: (B, D/8, 4h, 4w).
        mid: (B, D/4, 2h, 2w).
        low: (B, D, h, w), before any memory or "no memory" embedding is added.
    """

    high: Tensor
    mid: Tensor
    low: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.low.shape[-2], self.low.shape[-1]

    def __getitem__(self, rows: slice | Tensor) -> "FrameFeatures":
        return FrameFeatures(self.high[rows], self.mid[rows], self.low[rows])


@dataclass(frozen=True)
class Decoded:
    """All four mask tokens' answers to P prompts; token 0 is the single-mask output, 1-3 the multi-mask ones.

    Attributes:
        logits: Mask logits (P, 4, 4h, 4w).
        iou: Predicted IoU (P, 4), [0, 1].
        tokens: Mask token embeddings (P, 4, D).
        object_score: Logit that the object is in the frame (P,).
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor


class Sam2Network(nn.Module):
    """A SAM 2 video model with the operations of its parts as plain methods.

    Args:
        model: transformers' `Sam2VideoModel`, or its tracker of SAM 3, which is the same with another encoder.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.stride = int(config.prompt_encoder_config.patch_size)  # pixels per cell
        self.input_size = self.own_size = (int(config.image_size), int(config.image_size))
        is_sam3 = config.model_type == "sam3_tracker_video"
        self.pixel_mean = SAM3_PIXEL_MEAN if is_sam3 else PIXEL_MEAN
        self.pixel_std = SAM3_PIXEL_STD if is_sam3 else PIXEL_STD
        self.hidden_size = int(config.vision_config.fpn_hidden_size)
        self.memory_size = int(config.memory_encoder_output_channels)
        self.num_memories = int(config.num_maskmem)
        self.num_pointers = int(config.max_object_pointers_in_encoder)
        self._tables: dict[tuple[object, ...], PositionTables] = {}
        self._ages: dict[torch.device, Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.model.no_memory_embedding.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.model.no_memory_embedding.dtype  # type: ignore[no-any-return]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Cells (h, w) of the coarsest features."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride

    @property
    def logit_size(self) -> tuple[int, int]:
        """(height, width) of mask logits: the decoder's two up-convolutions make four of a cell's side."""
        decoder = self.model.mask_decoder
        scale = decoder.upscale_conv1.stride[0] * decoder.upscale_conv2.stride[0]
        return self.grid_size[0] * scale, self.grid_size[1] * scale

    @property
    def image_size(self) -> int:
        """Side of the pictures; for networks that work on squares."""
        assert self.input_size[0] == self.input_size[1], "not a square: ask for input_size"
        return self.input_size[0]

    @property
    def mask_size(self) -> int:
        """Side of the mask logits; for networks that work on squares."""
        assert self.logit_size[0] == self.logit_size[1], "not a square: ask for logit_size"
        return self.logit_size[0]

    @property
    def feed_forward_size(self) -> int:
        """Hidden channels of the feed-forward networks in memory attention."""
        return int(self.model.config.memory_attention_feed_forward_hidden_size)

    def memory_length(self, grid: tuple[int, int]) -> int:
        """Tokens of a spatial memory of a frame with (h, w) cells: one for each."""
        return grid[0] * grid[1]

    def set_image_size(self, size: int | tuple[int, int]) -> None:
        """Work at another size, the side of a square or (height, width); no weight depends on it, quality does.

        Raises:
            SettingsError: If a side is not a multiple of what the encoder needs (32 in SAM 2), or the encoder works at
                one size only (SAM 3).
        """
        sides = (size, size) if isinstance(size, int) else size
        if sides != self.input_size:
            self.input_size = fitting_size(self.model, sides)
            tell_modules(self.model, self.input_size, self.grid_size)

    def to_model_pixels(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Scale points (..., 2) as (x, y) in pixels of a frame of size (H, W) to the stretched picture's pixels."""
        height, width = self.input_size
        return torch.stack([points[..., 0] * (width / size[1]), points[..., 1] * (height / size[0])], dim=-1)

    def pixels(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3) RGB, into the network's input (B, 3, *input_size), stretched to it.

        Antialiased bilinear resize of the scaled picture, then normalisation, as Meta's image predictor does.
        """
        images = frames.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] != self.input_size:
            images = F.interpolate(images, size=self.input_size, mode="bilinear", antialias=True)
        mean, std = (_on_device(values, frames.device)[:, None, None] for values in (self.pixel_mean, self.pixel_std))
        return ((images - mean) / std).to(self.dtype)

    def pyramid(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's three levels before the decoder's projections, each (B, D, h, w), fine to coarse."""
        high, mid, low = self.model.vision_encoder(pixels).fpn_hidden_states[:3]  # SAM 3 has a coarser level besides
        return high, mid, low

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of each of the trunk's stages; none where the encoder is not SAM 2's."""
        return tuple(getattr(self.model.config.vision_config.backbone_config, "embed_dim_per_stage", ()))

    def stages_and_pyramid(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the trunk's stages, each (B, C, h, w), fine to coarse, and what `pyramid` makes of them."""
        encoder = self.model.vision_encoder
        stages = encoder.backbone(pixels).intermediate_hidden_states  # channels last
        levels, _ = encoder.neck(stages)
        pyramid = levels[-encoder.num_feature_levels :][::-1]
        return tuple(stage.permute(0, 3, 1, 2) for stage in stages), tuple(pyramid[:3])

    def project(self, pyramid: Sequence[Tensor]) -> FrameFeatures:
        """Project the two finer levels once for all prompts, as the decoder needs them."""
        decoder = self.model.mask_decoder
        high, mid, low = pyramid
        return FrameFeatures(decoder.conv_s0(high), decoder.conv_s1(mid), low)

    def encode(self, pixels: Tensor) -> FrameFeatures:
        """Encode pictures (B, 3, *input_size)."""
        return self.project(self.pyramid(pixels))

    def embed_points(self, points: Tensor, labels: Sequence[int] = (1,)) -> Tensor:
        """Embed point prompts and one "not a point" token after them -> tokens (P, K + 1, D).

        Args:
            points: (P, 2), one click per prompt, or (P, K, 2), as (x, y) in model pixels (see `to_model_pixels`); the
                half pixel to the pixel's centre is added here.
            labels: What the K points of every prompt are: 1 a click inside, 0 outside, 2 and 3 a box's top left and
                bottom right corner.
        """
        encoder = self.model.prompt_encoder
        points = points[:, None] if points.ndim == 2 else points
        basis, kinds = encoder.shared_embedding.positional_embedding.float(), encoder.point_embed.weight
        height, width = self.input_size
        relative = torch.stack([(points[..., 0] + 0.5) / width, (points[..., 1] + 0.5) / height], dim=-1)
        angles = 2 * math.pi * ((2 * relative - 1) @ basis)
        codes = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.dtype)
        clicks = codes + torch.stack([kinds[label] for label in labels])
        return torch.cat([clicks, encoder.not_a_point_embed.weight.expand(len(points), 1, -1)], dim=1)

    def no_points(self, count: int) -> Tensor:
        """Tokens of an empty prompt (P, 2, D): two "not a point" tokens, as Meta's predictor feeds while tracking."""
        return self.model.prompt_encoder.not_a_point_embed.weight.expand(count, 2, -1)  # type: ignore[no-any-return]

    def prompt_masks(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Turn masks of any size, bool (P, H, W), into what the network takes for a given mask.

        Returns:
            The masks at the input size, 0 or 1, float32 (P, *input_size), and as logits of +-10 (P, *logit_size); the
            network remembers the latter (as Meta's predictor does).
        """
        resized = F.interpolate(masks[:, None].float(), size=self.input_size, mode="bilinear", antialias=True)
        prompt = (resized >= 0.5).float()
        logits = prompt * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS
        logits = F.interpolate(logits, size=self.logit_size, mode="bilinear", antialias=True)
        return prompt[:, 0], logits[:, 0]

    def embed_masks(self, masks: Tensor) -> Tensor:
        """Embed mask prompts, binary (P, *input_size) -> dense (P, D, h, w)."""
        scaled = self.model.mask_downsample(masks[:, None].to(self.dtype))
        if scaled.shape[-2:] != self.logit_size:  # strides other than 16
            scaled = F.interpolate(scaled.float(), size=self.logit_size, mode="bilinear", antialias=True).to(self.dtype)
        return self.model.prompt_encoder.mask_embed(scaled)  # type: ignore[no-any-return]

    def embed_logits(self, logits: Tensor) -> Tensor:
        """Embed mask logits (P, *logit_size) as prompt, as in SAM's iterative refinement -> dense (P, D, h, w)."""
        return self.model.prompt_encoder.mask_embed(logits[:, None].to(self.dtype))  # type: ignore[no-any-return]

    def no_mask(self) -> Tensor:
        """Dense embedding of "no mask prompt", (1, D, 1, 1)."""
        return self.model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)  # type: ignore[no-any-return]

    def decode(self, low: Tensor, features: FrameFeatures, sparse: Tensor, dense: Tensor) -> Decoded:
        """Run the mask decoder for P prompts and return all four mask tokens.

        With one image embedding and one dense embedding for all prompts (a point grid), the image side of the first
        layer is computed once; the results are the same bits on a CPU.

        Args:
            low: Image embedding per prompt (P, D, h, w), or one for all (1, D, h, w).
            features: `high` and `mid` per prompt or one for all.
            sparse: Prompt tokens (P, K, D).
            dense: Dense prompt embedding, broadcastable to (P, D, h, w).
        """
        decoder = self.model.mask_decoder
        count = len(sparse)
        output_tokens = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        tokens = torch.cat([output_tokens.expand(count, -1, -1), sparse], dim=1)
        image = low + dense
        size = (image.shape[-2], image.shape[-1])
        tokens, cells = two_way(decoder.transformer, tokens, _to_cells(image), self._positions(size).image)
        upscaled = decoder.upscale_conv1(_to_map(cells, size)).add_(features.mid)
        upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled).add_(features.high))
        mask_tokens = tokens[:, 2 : 2 + decoder.num_mask_tokens]
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return Decoded(
            logits=logits,
            iou=decoder.iou_prediction_head(tokens[:, 1]),
            tokens=mask_tokens,
            object_score=decoder.pred_obj_score_head(tokens[:, 0])[:, 0],
        )

    def without_memory(self, low: Tensor) -> Tensor:
        """Mark features as seen without any memory (first frames and single images)."""
        return low + self.model.no_memory_embedding.reshape(1, -1, 1, 1)  # type: ignore[no-any-return]

    def object_pointer(self, tokens: Tensor, is_present: Tensor) -> Tensor:
        """Turn mask tokens (P, D) into object pointers (P, D); absent objects get the "no object" pointer.

        Args:
            tokens: Mask token that made the mask.
            is_present: bool (P,).
        """
        present = is_present[:, None].to(tokens.dtype)
        pointer = present * self.model.object_pointer_proj(tokens)
        return pointer + (1 - present) * self.model.no_object_pointer  # type: ignore[no-any-return]

    def write_memory(self, low: Tensor, mask_logits: Tensor, object_score: Tensor, binarise: bool) -> Tensor:
        """Encode masks and the frame they were seen in as spatial memories (P, h*w, 64).

        Args:
            low: Frame features (1 or P, D, h, w) without memory.
            mask_logits: (P, *logit_size); enlarged bilinearly to the input size, as Meta's predictor does.
            object_score: (P,); a score <= 0 adds the occlusion embedding.
            binarise: True for prompted masks, False for tracked ones (sigmoid).
        """
        config = self.model.config
        masks = F.interpolate(mask_logits[:, None].float(), size=self.input_size, mode="bilinear", align_corners=False)
        expected = tuple(side * config.mask_downsampler_total_stride for side in self.grid_size)
        if masks.shape[-2:] != expected:  # strides other than 16
            masks = F.interpolate(masks, size=expected, mode="bilinear", antialias=True)
        masks = (masks > 0).float() if binarise else masks.sigmoid()
        masks = masks * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        memory, _ = self.model.memory_encoder(low, masks.to(low.dtype))
        occlusion = self.model.occlusion_spatial_embedding_parameter
        if occlusion is not None:
            is_absent = (object_score <= 0).to(memory.dtype)
            memory = memory + is_absent[:, None, None, None] * occlusion[..., None, None]
        return memory.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def attend(
        self, low: Tensor, spatial: Tensor, spatial_ages: Sequence[int], pointers: Tensor, pointer_ages: Sequence[int]
    ) -> Tensor:
        """Condition the features of one frame on each object's memories.

        Args:
            low: (1 or P, D, h, w) without memory.
            spatial: (P, M, h*w, 64) spatial memories.
            spatial_ages: Age in frames of each of the M memories, 1..6; 0 stands for the conditioning frame.
            pointers: (P, K, D) object pointers.
            pointer_ages: Age in frames of each pointer.

        Returns:
            (P, D, h, w).
        """
        positions = self.memory_positions(_size(low), spatial_ages, pointer_ages)
        return self.attend_to(self.look_around(low), spatial, pointers, positions)

    def look_around(self, low: Tensor) -> Tensor:
        """Let the cells of a frame attend to one another, (B, D, h, w) -> (B, D, h, w): once for all its objects."""
        tables = self._positions(_size(low))
        cells = look_around(self.model.memory_attention, _to_cells(low) + tables.cells, tables.rope)
        return _to_map(cells, _size(low))

    def attend_to(self, seen: Tensor, spatial: Tensor, pointers: Tensor, positions: Tensor) -> Tensor:
        """Condition what `look_around` answered (1 or P, D, h, w) on each object's memories -> (P, D, h, w).

        Args:
            seen: What `look_around` answered.
            spatial: (P, M, h*w, 64) spatial memories.
            pointers: (P, K, D) object pointers.
            positions: What `memory_positions` answered for their ages.
        """
        pointer_tokens = pointers.reshape(len(spatial), -1, self.memory_size)
        memory = torch.cat([spatial.flatten(1, 2).to(seen.dtype), pointer_tokens.to(seen.dtype)], dim=1)
        tables, cells, num_pointers = self._positions(_size(seen)), _to_cells(seen), pointer_tokens.shape[1]
        attended = look_back(
            self.model.memory_attention, cells, memory, positions, num_pointers, tables.rope, tables.memory_rope
        )
        return _to_map(attended, _size(seen))

    def memory_positions(
        self, grid: tuple[int, int], spatial_ages: Sequence[int], pointer_ages: Sequence[int]
    ) -> Tensor:
        """Position encodings of M spatial memories and K pointers, (M*h*w + K*D/64, 64), the same for all objects.

        Args:
            grid: (h, w) cells of a spatial memory.
            spatial_ages: As in `attend`.
            pointer_ages: As in `attend`.
        """
        temporal = self.model.memory_temporal_positional_encoding[:, 0, 0]  # (7, 64), the last for age 0
        ages = torch.stack([temporal[age - 1] for age in spatial_ages])
        spatial = (self._positions(grid).memory + ages[:, None]).flatten(0, 1)
        splits = self.hidden_size // self.memory_size
        pointers = self._pointer_positions(pointer_ages)[:, None].expand(-1, splits, -1).flatten(0, 1)
        return torch.cat([spatial.to(self.dtype), pointers])

    def _pointer_positions(self, ages: Sequence[int]) -> Tensor:
        """Sine encoding of the ages, in units of 15 frames, projected to the memory size (zeros in SAM 2.0)."""
        model, oldest = self.model, max(ages)
        if not model.config.enable_temporal_pos_encoding_for_object_pointers:
            return model.no_memory_embedding.new_zeros(len(ages), self.memory_size)  # type: ignore[no-any-return]
        table = self._ages.get(self.device)
        if table is None or len(table) <= oldest:
            with torch.inference_mode(False), torch.no_grad():
                table = age_table(max(64, 2 * oldest), self.hidden_size, self.num_pointers - 1, self.device)
            self._ages[self.device] = table
        encoding = torch.stack([table[age] for age in ages]).to(self.dtype)
        return model.temporal_positional_encoding_projection_layer(encoding)  # type: ignore[no-any-return]

    def _positions(self, grid: tuple[int, int]) -> PositionTables:
        """The position tables for a grid, made at its first use."""
        basis = self.model.shared_image_embedding.positional_embedding
        version = 0 if basis.is_inference() else basis._version  # counts changes such as loading other weights
        key = (grid, self.device, self.dtype, version)
        if key not in self._tables:
            self._tables[key] = self._build_positions(grid)
        return self._tables[key]

    def _build_positions(self, grid: tuple[int, int]) -> PositionTables:
        return PositionTables.build(self.model, grid, self.dtype)


def _on_device(values: Sequence[float], device: torch.device) -> Tensor:
    """A small table made on the device itself: copying one there would make the host wait for it."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


def _to_cells(features: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h*w, D)."""
    return features.flatten(2).transpose(1, 2)


def _to_map(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h*w, D) -> (B, D, h, w)."""
    return cells.transpose(1, 2).reshape(len(cells), -1, *size)
