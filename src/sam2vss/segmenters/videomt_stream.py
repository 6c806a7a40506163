"""VidEoMT's network, run over a video frame by frame; its queries live on from frame to frame.

The layers are transformers'; what drives them is here, because transformers' own loop forgets the queries after every
call and takes square pictures only. Source: tue-mps/videomt at 39411e9, videomt/modeling/backbone/videomt.py and
`inference_video_vss` in videomt/videomt.py, with whose outputs it was compared.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .scores import MAX_UPSAMPLED_VALUES
from .videomt_checkpoints import Network


@dataclass(frozen=True)
class QueryAnswers:
    """What the queries found in one frame.

    Attributes:
        classes: Class logits, float32 (Q, C + 1); the last class is "none".
        queries: The queries after the last layer, normalised, (Q, D).
        features: The patches after the last layer, normalised, (D, h, w).
    """

    classes: Tensor
    queries: Tensor
    features: Tensor


class QueryStream:
    """Runs the network over the frames of a video, one after the other.

    Attributes:
        model: transformers' VidEoMT, or its EoMT with DINOv3 and a layer `query_updater`.
    """

    def __init__(self, model: Network) -> None:
        self.model = model
        self._is_dinov3 = model.config.model_type == "eomt_dinov3"
        if self._is_dinov3:  # its angles are float32 whatever the precision of the weights
            rotations = type(model.rope_embeddings)(model.config)
            model.rope_embeddings = rotations.to(next(model.parameters()).device).eval()  # in training they vary
        self._queries: Tensor | None = None  # of the last frame, (1, Q, D); normalised with DINOv3 alone

    def reset(self) -> None:
        """Start a new video: the next frame is met with the learned queries alone."""
        self._queries = None

    @torch.inference_mode()
    def push(self, pixels: Tensor) -> Iterator[QueryAnswers]:
        """Yield what the queries find in the next frames, (B, 3, H, W), H and W multiples of the patch side.

        The layers without queries see the frames as one batch, the others one frame after the other.
        """
        model, patch = self.model, self.model.config.patch_size
        grid = (pixels.shape[2] // patch, pixels.shape[3] // patch)
        first = model.num_hidden_layers - model.config.num_blocks
        turns = model.rope_embeddings(pixels) if self._is_dinov3 else None
        tokens = self._through(model.layers[:first], self._embed(pixels, grid), turns)
        prefix = model.embeddings.num_prefix_tokens
        for frame_tokens in tokens.split(1):
            queries = model.query.weight[None]
            if self._queries is not None:
                queries = queries + model.query_updater(self._queries)
            count = queries.shape[1]
            mixed = self._through(model.layers[first:], torch.cat([queries, frame_tokens], dim=1), turns)
            normed = model.layernorm(mixed)
            self._queries = (normed if self._is_dinov3 else mixed)[:, :count]
            answers = normed[0]
            features = answers[count + prefix :].T.reshape(-1, *grid)
            yield QueryAnswers(model.class_predictor(answers[:count]).float(), answers[:count], features)

    def _through(self, layers: Iterable[nn.Module], tokens: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """Run tokens through layers; `turns` are DINOv3's rotary positions of the patches."""
        for layer in layers:
            tokens = layer(tokens) if turns is None else layer(tokens, position_embeddings=turns)
        return tokens

    @torch.inference_mode()
    def masks(self, found: QueryAnswers) -> Tensor:
        """Return the queries' mask logits, float32 (Q, h, w), at a quarter of the input's side (patches of 16)."""
        features = self.model.upscale_block(found.features[None])[0]
        return torch.einsum("qd,dhw->qhw", self.model.mask_head(found.queries), features).float()

    def _embed(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return class token, registers and patches with their positions, (B, 1 + R + h w, D)."""
        embeddings = self.model.embeddings
        if self._is_dinov3:
            return embeddings(pixels)  # type: ignore[no-any-return]  # positions come with every layer
        patches = embeddings.patch_embeddings(pixels)
        patches = patches + positions_at(embeddings.position_embeddings.weight, grid)
        extra = torch.cat([embeddings.cls_token, embeddings.register_tokens], dim=1)
        return torch.cat([extra.expand(len(patches), -1, -1), patches], dim=1)


def positions_at(learned: Tensor, grid: tuple[int, int]) -> Tensor:
    """Stretch the learned positions of a square grid, (N, D), over another one: (h w, D)."""
    side = math.isqrt(len(learned))
    if grid == (side, side):
        return learned
    square = learned.float().T.reshape(1, -1, side, side)
    stretched = functional.interpolate(square, grid, mode="bicubic", antialias=True)
    return stretched[0].flatten(1).T.to(learned.dtype)


def class_scores(masks: Tensor, classes: Tensor, input_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """Add up, per pixel and class, the queries' mask probabilities weighted by their class probabilities.

    The masks are enlarged to the network's input before they become probabilities, a few queries at a time.

    Args:
        masks: Mask logits (Q, h, w) of the whole input.
        classes: Class probabilities (Q, C), without "none".
        input_size: Of the network's input, padding included.
        image_size: The part of it, from the top left, that shows the frame.

    Returns:
        Scores (C, *image_size).
    """
    scores = masks.new_zeros((classes.shape[1], image_size[0] * image_size[1]))
    group = max(1, MAX_UPSAMPLED_VALUES // (input_size[0] * input_size[1]))
    for few_masks, few_classes in zip(masks.split(group), classes.split(group), strict=True):
        large = functional.interpolate(few_masks[None], input_size, mode="bilinear", align_corners=False)[0]
        shown = large[:, : image_size[0], : image_size[1]].sigmoid()
        scores.addmm_(few_classes.T, shown.flatten(1))
    return scores.reshape(-1, *image_size)
