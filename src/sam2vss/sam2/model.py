"""The one file that touches transformers' SAM 2 internals.

`Sam2Network` offers the five operations everything else is made of: encode frames, embed prompts, decode masks,
attend to memories, write a memory. Objects are rows of a batch; nothing here loops over them. Reference semantics
are those of Meta's `SAM2VideoPredictor` (sam2 repository, commit 2b90b9f), not of transformers' session API.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from ..hub import quiet_transformers

PIXEL_MEAN = (0.485, 0.456, 0.406)  # ImageNet, SAM 2's training and inference configuration
PIXEL_STD = (0.229, 0.224, 0.225)
NO_OBJECT_LOGIT = -1024.0  # mask logits of a frame in which the object does not appear (SAM 2, NO_OBJ_SCORE)
MODEL_TYPES = ("sam2_video", "sam2")  # checkpoints serve videos and single images under either name
MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0  # logits that stand for a given binary mask (SAM 2)


@dataclass(frozen=True)
class FrameFeatures:
    """Encoder features of B frames on a square of S pixels; `high` and `mid` are projected for the mask decoder.

    Attributes:
        high: (B, D/8, S/4, S/4).
        mid: (B, D/4, S/8, S/8).
        low: (B, D, S/16, S/16), before any memory or "no memory" embedding is added.
    """

    high: Tensor
    mid: Tensor
    low: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "FrameFeatures":
        return FrameFeatures(self.high[rows], self.mid[rows], self.low[rows])


@dataclass(frozen=True)
class Decoded:
    """All four mask tokens' answers to P prompts; token 0 is the single-mask output, 1-3 the multi-mask ones.

    Attributes:
        logits: Mask logits (P, 4, S/4, S/4).
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
        model: transformers' `Sam2VideoModel`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.image_size = int(config.image_size)
        self.hidden_size = int(config.vision_config.fpn_hidden_size)
        self.memory_size = int(config.memory_encoder_output_channels)
        self.num_memories = int(config.num_maskmem)
        self.num_pointers = int(config.max_object_pointers_in_encoder)

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "Sam2Network":
        """Load a local folder with `config.json` and safetensors.

        Raises:
            WeightsError: If the folder holds no SAM 2 video model, or weights are missing from it.
        """
        _check_model_type(folder)
        from safetensors import SafetensorError
        from transformers import Sam2VideoModel

        try:
            with quiet_transformers():
                model, report = Sam2VideoModel.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"{folder} cannot be loaded as a SAM 2 video model: {error}") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            missing = sorted(str(key) for key in [*report["missing_keys"], *report["mismatched_keys"]])
            raise WeightsError(
                f"{folder} lacks {len(missing)} weights of the SAM 2 video model its config.json describes "
                f"(first: {missing[0]}). Take a complete SAM 2 or SAM 2.1 checkpoint."
            )
        return cls(model.to(device)).eval()

    @property
    def device(self) -> torch.device:
        return self.model.no_memory_embedding.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.model.no_memory_embedding.dtype  # type: ignore[no-any-return]

    @property
    def mask_size(self) -> int:
        """Side of the mask logits, S / 4."""
        return self.image_size // 4

    def set_image_size(self, size: int) -> None:
        """Work at another square size (a multiple of 32); no weight depends on it, quality does."""
        model = self.model
        patches = size // 16
        self.image_size = model.image_size = size
        model.config.image_size = size
        model.backbone_feature_sizes = [[size // 4] * 2, [size // 8] * 2, [patches] * 2]
        model.prompt_encoder.image_embedding_size = (patches, patches)
        model.prompt_encoder.mask_input_size = (4 * patches, 4 * patches)
        model.prompt_encoder.input_image_size = size
        attention = model.memory_attention
        attention.config.memory_attention_rope_feat_sizes = [patches, patches]
        attention.position_ids = attention.precompute_positions(attention.config).to(self.device)

    def pixels(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3) RGB, into the network's input (B, 3, S, S), stretched to the square.

        Antialiased bilinear resize of the scaled picture, then normalisation, as Meta's image predictor does.
        """
        images = frames.permute(0, 3, 1, 2).float() / 255
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, size=(self.image_size, self.image_size), mode="bilinear", antialias=True)
        mean = torch.tensor(PIXEL_MEAN, device=frames.device).view(1, 3, 1, 1)
        std = torch.tensor(PIXEL_STD, device=frames.device).view(1, 3, 1, 1)
        return ((images - mean) / std).to(self.dtype)

    def pyramid(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's three levels before the decoder's projections, each (B, D, h, w), fine to coarse."""
        high, mid, low = self.model.vision_encoder(pixels).fpn_hidden_states
        return high, mid, low

    def project(self, pyramid: Sequence[Tensor]) -> FrameFeatures:
        """Project the two finer levels once for all prompts, as the decoder needs them."""
        decoder = self.model.mask_decoder
        high, mid, low = pyramid
        return FrameFeatures(decoder.conv_s0(high), decoder.conv_s1(mid), low)

    def encode(self, pixels: Tensor) -> FrameFeatures:
        """Encode pictures (B, 3, S, S)."""
        return self.project(self.pyramid(pixels))

    def embed_points(self, points: Tensor) -> Tensor:
        """Embed one positive click per prompt, points (P, 2) as (x, y) in model pixels -> tokens (P, 2, D)."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int, device=points.device)
        tokens = self.model.prompt_encoder._embed_points(points[None, :, None, :], labels, pad=True)
        return tokens[0].to(self.dtype)  # type: ignore[no-any-return]

    def no_points(self, count: int) -> Tensor:
        """Tokens of an empty prompt (P, 2, D): two "not a point" tokens, as Meta's predictor feeds while tracking."""
        return self.model.prompt_encoder.not_a_point_embed.weight.expand(count, 2, -1)  # type: ignore[no-any-return]

    def embed_masks(self, masks: Tensor) -> Tensor:
        """Embed mask prompts, binary (P, S, S) -> dense (P, D, S/16, S/16)."""
        scaled = self.model.mask_downsample(masks[:, None].to(self.dtype))
        return self.model.prompt_encoder.mask_embed(scaled)  # type: ignore[no-any-return]

    def no_mask(self) -> Tensor:
        """Dense embedding of "no mask prompt", (1, D, 1, 1)."""
        return self.model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)  # type: ignore[no-any-return]

    def decode(self, low: Tensor, features: FrameFeatures, sparse: Tensor, dense: Tensor) -> Decoded:
        """Run the mask decoder for P prompts and return all four mask tokens.

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
        tokens = torch.cat([output_tokens.expand(count, -1, -1), sparse], dim=1)[:, None]
        image = (low + dense).expand(count, -1, -1, -1)
        positions = self.model.get_image_wide_positional_embeddings().to(image.dtype).expand(count, -1, -1, -1)
        tokens, image_tokens = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=image,
            image_positional_embeddings=positions,
            attention_similarity=None,
        )
        tokens = tokens[:, 0]
        height, width = image.shape[-2:]
        upscaled = image_tokens[:, 0].transpose(1, 2).reshape(count, -1, height, width)
        upscaled = decoder.upscale_conv1(upscaled) + features.mid
        upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled) + features.high)
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
            mask_logits: (P, S/4, S/4); enlarged bilinearly to (S, S), as Meta's predictor does.
            object_score: (P,); a score <= 0 adds the occlusion embedding.
            binarise: True for prompted masks, False for tracked ones (sigmoid).
        """
        config = self.model.config
        size = (self.image_size, self.image_size)
        masks = F.interpolate(mask_logits[:, None].float(), size=size, mode="bilinear", align_corners=False)
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
        model = self.model
        count, _, num_cells, memory_size = spatial.shape
        height, width = low.shape[-2:]
        position = self._memory_positions(height, width)  # (h*w, 64)
        temporal = model.memory_temporal_positional_encoding[:, 0, 0]  # (7, 64)
        ages = torch.tensor([age - 1 for age in spatial_ages], device=low.device)  # -1 is the conditioning frame
        spatial_position = (position[None] + temporal[ages][:, None]).flatten(0, 1)
        splits = self.hidden_size // memory_size
        pointer_tokens = pointers.reshape(count, -1, memory_size)
        pointer_position = self._pointer_positions(pointer_ages, low).repeat_interleave(splits, dim=0)
        memory = torch.cat([spatial.flatten(1, 2).to(low.dtype), pointer_tokens.to(low.dtype)], dim=1)
        positions = torch.cat([spatial_position, pointer_position]).to(low.dtype).expand(count, -1, -1)
        current = low.flatten(2).permute(2, 0, 1).expand(-1, count, -1)
        current_position = self._feature_positions(height, width).to(low.dtype)[:, None].expand(-1, count, -1)
        attended = model.memory_attention(
            current_vision_features=current,
            current_vision_position_embeddings=current_position,
            memory=memory.transpose(0, 1),
            memory_posision_embeddings=positions.transpose(0, 1),
            num_object_pointer_tokens=pointer_tokens.shape[1],
        )
        # it answers (1, P, h*w, D), objects before cells
        return attended.reshape(count, num_cells, -1).transpose(1, 2).reshape(count, -1, height, width)  # type: ignore[no-any-return]

    def _memory_positions(self, height: int, width: int) -> Tensor:
        encoding = self.model.memory_encoder.position_encoding
        shape = torch.Size((1, self.memory_size, height, width))
        return encoding(shape, self.device, torch.float32)[0].flatten(1).T  # type: ignore[no-any-return]

    def _feature_positions(self, height: int, width: int) -> Tensor:
        encoding = self.model.vision_encoder.neck.position_encoding
        shape = torch.Size((1, self.hidden_size, height, width))
        return encoding(shape, self.device, torch.float32)[0].flatten(1).T  # type: ignore[no-any-return]

    def _pointer_positions(self, ages: Sequence[int], like: Tensor) -> Tensor:
        """Sine encoding of the ages, in units of 15 frames, projected to the memory size (zeros in SAM 2.0)."""
        if not self.model.config.enable_temporal_pos_encoding_for_object_pointers:
            return like.new_zeros(len(ages), self.memory_size)
        time = torch.tensor(ages, device=like.device, dtype=torch.float32) / (self.num_pointers - 1)
        half = self.hidden_size // 2
        channel = torch.arange(half, device=like.device, dtype=torch.float32)
        angles = time[:, None] / 10000 ** (2 * (channel // 2) / half)
        encoding = torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)
        return self.model.temporal_positional_encoding_projection_layer(encoding)  # type: ignore[no-any-return]


def _check_model_type(folder: Path) -> None:
    """Raise `WeightsError` unless the folder's config.json names a SAM 2 model.

    transformers itself would take any other model for a SAM 2 without weights.
    """
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} holds no config.json that names a model type ({type(error).__name__}: {error}); expected a "
            "folder with config.json and model.safetensors of a SAM 2 model in transformers' format."
        ) from error
    if model_type not in MODEL_TYPES:
        raise WeightsError(
            f"{folder} holds a model of type {model_type}, expected {MODEL_TYPES[0]}. Take a SAM 2 or SAM 2.1 "
            "checkpoint in transformers' format."
        )
