"""Every default of the method, once, each with its source.

The command line takes its defaults and help texts from here; functions take plain arguments and know nothing of
these classes. Unknown keys are refused by name.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from .errors import SettingsError

VoteScope = Literal["window", "frame"]
VoteWeight = Literal["majority", "probability"]
OverlapOrder = Literal["small-on-top", "large-on-top", "confident-on-top", "stable-on-top"]
Mode = Literal["auto", "exact", "fast", "prompt"]
ResolvedMode = Literal["exact", "fast", "prompt"]  # what "auto" stands for on a device
Direction = Literal["forward", "both"]
VoidPolicy = Literal["keep", "nearest", "previous", "vote"]
Smoothing = Literal["none", "static", "flow"]
PoolingPart = Literal["mean", "max", "ring"]
FrameWeighting = Literal["uniform", "quality"]  # how the frames of a masklet are averaged
HeadName = Literal["linear", "mlp", "context"]

SAM2_ALIASES = {
    "sam2.1-tiny": "facebook/sam2.1-hiera-tiny",
    "sam2.1-small": "facebook/sam2.1-hiera-small",
    "sam2.1-base-plus": "facebook/sam2.1-hiera-base-plus",
    "sam2.1-large": "facebook/sam2.1-hiera-large",
    "sam2-tiny": "facebook/sam2-hiera-tiny",
    "sam2-small": "facebook/sam2-hiera-small",
    "sam2-base-plus": "facebook/sam2-hiera-base-plus",
    "sam2-large": "facebook/sam2-hiera-large",
}
SEGMENTER_ALIASES = {
    "segformer-b0": "nvidia/segformer-b0-finetuned-ade-512-512",
    "segformer-b1": "nvidia/segformer-b1-finetuned-ade-512-512",
    "segformer-b2": "nvidia/segformer-b2-finetuned-ade-512-512",
    "segformer-b3": "nvidia/segformer-b3-finetuned-ade-512-512",
    "segformer-b4": "nvidia/segformer-b4-finetuned-ade-512-512",
    "segformer-b5": "nvidia/segformer-b5-finetuned-ade-640-640",
}
# Where a hub model has safetensors if its main branch holds only a pickle: commits of the hub's own conversion bot
# (SFconvertbot), or the pull requests that hold them. Read off the models' pages; asked for only if main has none.
SAFETENSORS_REVISIONS = {
    "nvidia/segformer-b1-finetuned-ade-512-512": "8b74291cb371abe2a2860015ded13f5b2fa6dff5",
    "nvidia/segformer-b2-finetuned-ade-512-512": "4585665b1bf59b90b831d5145d3e25d6e0743d03",
    "nvidia/segformer-b3-finetuned-ade-512-512": "d49ce4e74ab8bbcd9e7886e52d716add0c8f5136",
    "nvidia/segformer-b4-finetuned-ade-512-512": "refs/pr/3",
    "nvidia/segformer-b5-finetuned-ade-640-640": "f4c8e8f5b581b6bc8ed5208e4bd139d95f65610f",
    "nvidia/segformer-b0-finetuned-cityscapes-1024-1024": "refs/pr/4",
    "nvidia/segformer-b5-finetuned-cityscapes-1024-1024": "b6e4c4143a549ac9cf16ee2ea222ab01959d9e04",
    "facebook/maskformer-swin-large-ade": "30a4be3461627c092402d2c52ce1a03c8959a723",
    "shi-labs/oneformer_ade20k_swin_large": "e3ac43d928c8f157382c7d60b0b2f5d24279a4ea",
    "shi-labs/oneformer_cityscapes_swin_large": "b16472709a5b27e8318e5d9debdf31e310a4bf3b",
    "Intel/dpt-large-ade": "refs/pr/8",
    "microsoft/beit-base-finetuned-ade-640-640": "refs/pr/3",
}
TEXT_MODEL_ALIASES = {
    "siglip2-b16": "google/siglip2-base-patch16-224",
    "siglip2-l16": "google/siglip2-large-patch16-256",
    "siglip-b16": "google/siglip-base-patch16-256",
    "clip-vit-b16": "openai/clip-vit-base-patch16",
    "clip-vit-l14": "openai/clip-vit-large-patch14",
}
DEFAULT_SAM2 = "sam2.1-base-plus"  # ours: good masks where a GPU is, not the heaviest encoder
DEFAULT_SEGMENTER = "segformer-b2"  # ours: the middle of the ADE20K family
DEFAULT_TEXT_MODEL = "siglip2-b16"  # ours: the newest small one that is published as safetensors
MAX_WINDOW = 100_000  # ours: an hour and more at any frame rate; larger numbers are slips of the keyboard
MAX_IMAGE_SIZE = 4096  # ours: four times SAM 2's own 1024; attention memory grows with the fourth power


VOID_HELP = (
    "Pixels without a base label. keep: they vote for nothing, are painted under masklets and stay void elsewhere. "
    "nearest, previous: they get the label of the nearest pixel, or of the frame before, ahead of the vote and in the "
    "stored base labels too. vote: as keep, then what is left void gets the label of the nearest pixel"
)


class StrictModel(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MaskletSettings(StrictModel):
    """How masklets are found on a window's first frame and followed through the window."""

    window: int = Field(32, ge=1, le=MAX_WINDOW, description="Frames per window")  # paper Sec. 3.1, Table 4
    points: int = Field(16, ge=1, le=256, description="Point grid N x N on a window's first frame")  # Sec. 3.1, Table 5
    pred_iou: float = Field(0.6, ge=0, le=1, description="Predicted-IoU threshold")  # paper Sec. 3.1, Table 6
    stability: float = Field(0.8, ge=0, le=1, description="Stability-score threshold")  # paper Sec. 3.1, Table 7
    stability_offset: float = Field(
        0.9, ge=0, allow_inf_nan=False, description="Stability offset, in logits"
    )  # paper Sec. 3.1
    box_nms: float = Field(0.7, ge=0, le=1, description="Box IoU above which NMS drops a mask")  # Meta's AMG default
    min_mask_area: int = Field(
        0, ge=0, description="Islands and holes below this many pixels are removed; 0: none"
    )  # Meta's AMG default
    crop_layers: int = Field(
        0, ge=0, le=3, description="Look again in crops: 4 with 1 layer, 20 with 2"
    )  # Meta's AMG default


class FollowSettings(StrictModel):
    """How masklets live on: from frame to frame, from window to window. All defaults are the paper's."""

    carry: bool = Field(False, description="Carry masklets, ids and votes over window borders")  # ours; paper: no
    discover: int = Field(
        0, ge=0, le=MAX_WINDOW, description="Look for new objects on uncovered area every K frames; 0: never"
    )  # ours; paper: never
    direction: Direction = Field("forward", description="Follow from the first frame, or both ways from the middle")
    match_every: int = Field(
        1, ge=1, le=MAX_WINDOW, description="Fast mode: automatic masks on every K-th frame"
    )  # ours
    max_masklets: int | None = Field(None, ge=1, description="Keep at most so many masklets a window")  # ours
    drop_contained: bool = Field(False, description="Drop masklets inside another one of the same class")  # ours
    skip_settled: bool = Field(False, description="Skip masklets that cannot change any label")  # ours


class VoteSettings(StrictModel):
    """How masklets vote and how their classes are painted."""

    vote: VoteScope = Field(
        "window", description="One class per masklet and window, or per frame"
    )  # ours: a masklet keeps its class
    vote_weight: VoteWeight = Field("majority", description="Count labels (Eq. 2) or add probabilities")  # paper Eq. 2
    min_share: float = Field(
        0.0, ge=0, le=1, description="Below this vote share the base labels stay"
    )  # ours; 0 = paper
    overlap: OverlapOrder = Field("small-on-top", description="Which masklet wins where several overlap")  # ours
    # ours; the paper does not say what it did. keep: no label that nobody predicted, void counts as wrong as in the
    # published scores of the base models, and the base row of a table is the base model's own
    void: VoidPolicy = Field("keep", description=VOID_HELP)


class ClassifySettings(StrictModel):
    """How the classes of a classifier are painted."""

    vote: VoteScope | None = Field(
        None, description="One class per masklet and window, or per frame; default: as the classifier was trained"
    )  # paper Eq. 3 is per frame
    min_share: float = Field(0.0, ge=0, le=1, description="Below this probability the base labels stay")  # ours
    overlap: OverlapOrder = Field("small-on-top", description="Which masklet wins where several overlap")  # ours
    void: VoidPolicy = Field("keep", description=VOID_HELP)  # ours, as for the vote


class TextSettings(StrictModel):
    """How masklets are named by text. All defaults are ours; the paper has no such mode."""

    views: int = Field(3, ge=1, le=MAX_WINDOW, description="Frames of a window in which a masklet is looked at")
    crop_weight: float = Field(0.5, ge=0, le=1, description="Weight of crops beside features pooled over masks")
    margin: float = Field(0.25, ge=0, le=4, description="Crops grow by this share of the box on every side")
    fade: float = Field(0.5, ge=0, le=1, description="How far crops fade to grey outside the mask; 1: wholly")


Preset = Literal["paper", "fast", "cpu"]


@dataclass(frozen=True)
class PresetValues:
    """What a preset changes; options given by name win over it."""

    points: int = 16
    mode: Mode = "auto"
    image_size: int | None = None
    dtype: Literal["auto", "fastest"] = "auto"


PRESETS: dict[Preset, PresetValues] = {
    "paper": PresetValues(mode="exact"),  # the defaults above
    "fast": PresetValues(mode="fast"),  # ours: automatic masks in every frame, matched
    "cpu": PresetValues(points=12, mode="fast", image_size=512, dtype="fastest"),  # ours; SAM 2 is trained at 1024
}


@dataclass(frozen=True)
class EngineChoice:
    """What a preset may decide besides the masklets' settings; "auto" and None leave it to the device and the model."""

    mode: Mode = "auto"
    image_size: tuple[int, int] | None = None
    dtype: str = "auto"


def apply_preset(
    preset: Preset | None, masklets: MaskletSettings, engine: EngineChoice
) -> tuple[MaskletSettings, EngineChoice]:
    """Fill in a preset's values where an option was not given by name."""
    if preset is None:
        return masklets, engine
    values = PRESETS[preset]
    if "points" not in masklets.model_fields_set:
        masklets = masklets.model_copy(update={"points": values.points})
    side = values.image_size
    return masklets, EngineChoice(
        mode=values.mode if engine.mode == "auto" else engine.mode,
        image_size=(side, side) if engine.image_size is None and side is not None else engine.image_size,
        dtype=values.dtype if engine.dtype == "auto" else engine.dtype,
    )


def check_mode(mode: str, discover: int, works_on_seeds: bool) -> None:
    """Raise `SettingsError` for options that do not go with a mode.

    Args:
        mode: How masklets are followed.
        discover: Look for new masks every so many frames; 0: never.
        works_on_seeds: Whether crops, small regions or savings that look at seed frames only are asked for.
    """
    if mode not in get_args(ResolvedMode):
        raise SettingsError(f"mode {mode!r} is unknown, expected {', '.join(get_args(ResolvedMode))}")
    if mode == "fast" and works_on_seeds:
        raise SettingsError(
            "--crop-layers, --min-mask-area, --drop-contained and --skip-settled work on seed frames, and --mode fast "
            "looks in every frame: pass --mode exact or prompt, or leave them out"
        )
    if mode == "fast" and discover:
        raise SettingsError(
            "--discover looks for new masks every few frames, and --mode fast does so in every frame: drop one"
        )
