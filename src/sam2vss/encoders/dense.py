"""Vectors of single patches in the space that CLIP and SigLIP share with text.

Both models turn a picture into one vector by attention over all patches. Here each patch attends to itself alone, so
it is told what the model would say of a picture like it; nothing is trained or added.
"""

from typing import Any

from torch import Tensor


def clip_patches(model: Any, before_last: Tensor) -> Tensor:
    """Project the patch tokens of a CLIP model into its joint space.

    In the last layer attention is replaced by its value path, `out_proj(v_proj(x))`; residuals, the layer's MLP, the
    last normalisation and the projection are those that the class token goes through.

    Args:
        model: A `CLIPModel`.
        before_last: Tokens that its last layer is given, class token first, (B, 1 + P, D).

    Returns:
        (B, P, E), not normalised.

    Source: "Extract Free Dense Labels from CLIP" (MaskCLIP), arXiv 2112.01071, Sec. 3.2. Key smoothing and prompt
    denoising are left out: pooling over masks does what they are for.
    """
    tower = model.vision_model
    layer = tower.encoder.layers[-1]
    tokens = before_last[:, 1:]
    attention = layer.self_attn
    tokens = tokens + attention.out_proj(attention.v_proj(layer.layer_norm1(tokens)))
    tokens = tokens + layer.mlp(layer.layer_norm2(tokens))
    return model.visual_projection(tower.post_layernorm(tokens))  # type: ignore[no-any-return]


def siglip_patches(model: Any, last: Tensor) -> Tensor:
    """Project the patch tokens of a SigLIP or SigLIP 2 model into its joint space.

    The head pools by attention of a learned probe over all patches. It is run on each patch alone, where the softmax
    over one token is 1 whatever the probe is: what remains is the value path and the head's MLP.

    Args:
        model: A `SiglipModel` or `Siglip2Model`.
        last: Its last hidden state, (B, P, D).

    Returns:
        (B, P, D), not normalised.

    Source: ours; what arXiv 2112.01071 does in CLIP's attention pooling of ResNets, in SigLIP's head.
    """
    batch, count, width = last.shape
    return model.vision_model.head(last.reshape(batch * count, 1, width)).reshape(batch, count, -1)  # type: ignore[no-any-return]
