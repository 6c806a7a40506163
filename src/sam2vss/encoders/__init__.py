"""Feature encoders for classifiers of masklets (Eq. 3): SAM 2's, a segmentation model's, or any vision backbone.

All give maps that cover the frame, one a level; `load_encoder` picks one by name. `share_encoder` makes one of the
network that a tracker works with, so that its frames are encoded once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..interfaces import FeatureEncoder
from .names import EncoderName, parse_name

if TYPE_CHECKING:
    from ..hub import ModelLocation
    from ..sam2.model import Sam2Network
    from .shared import SharedEncoder

__all__ = ["load_encoder", "share_encoder"]


def load_encoder(text: str, device: str = "cpu", dtype: str = "float32") -> FeatureEncoder:
    """Load a feature encoder by name.

    Args:
        text: One of these; ID may hold slashes, and LEVELS are joined by "+".
            "sam2:ID", "sam2:ID/LEVELS": SAM 2's image encoder; ID as `--sam2` takes it ("nano", alias, hub id, folder,
            `.pt` file). Levels: high, mid, low, stage1 to stage4; default low.
            "segmenter:ID", "segmenter:ID/LEVELS": the encoder of a segmentation model; ID as `--segmenter` takes it.
            Levels: stage1, stage2, ... and, in SegFormer, UPerNet and the native video models, fused; default the last
            stage.
            "backbone:ID", "backbone:ID/LEVELS": a vision backbone of transformers (DINOv2, DINOv3, CLIP, SigLIP, ViT,
            Swin, ConvNeXt, Hiera, ...); ID is a hub id or folder. Levels: last, layer0, layer1, ...; default last.
            "@SIZE" behind LEVELS chooses the size of the network's input: "sam2:nano/low@512" (or "@WIDTHxHEIGHT"),
            "backbone:org/name/last@448" (the shorter side).
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".

    Raises:
        SettingsError: If the text has another form, the model no such level, or device, dtype or size cannot be used.
        WeightsError: If the model cannot be had, read, or is none that feature maps can be made of.
    """
    from .backbone_encoder import BackboneEncoder
    from .sam2_encoder import Sam2Encoder

    loaders: dict[str, Callable[[EncoderName, str, str], FeatureEncoder]] = {
        "sam2": Sam2Encoder.from_name,
        "segmenter": _load_segmenter_encoder,
        "backbone": BackboneEncoder.from_name,
    }
    name = parse_name(text)
    return loaders[name.kind](name, device, dtype)


def _load_segmenter_encoder(name: EncoderName, device: str, dtype: str) -> FeatureEncoder:
    """Load the encoder of a segmentation model, one of transformers or a native one."""
    from ..segmenters import load_segmenter
    from ..segmenters.hub_models import HubSegmenter
    from ..segmenters.vss.segmenter import VssSegmenter
    from .native_encoder import NativeEncoder
    from .segmenter_encoder import SegmenterEncoder

    segmenter = load_segmenter(name.model, device, dtype)
    if isinstance(segmenter, VssSegmenter):
        return NativeEncoder(segmenter, name)
    if isinstance(segmenter, HubSegmenter):
        return SegmenterEncoder(segmenter, name)
    raise WeightsError(
        f"encoder {name}: the feature maps of a video model are not known here, but for SegFormer, CFFM, MRCFA and "
        "TV3S; take backbone:ID for others"
    )


def share_encoder(text: str, location: "ModelLocation", network: "Sam2Network") -> "SharedEncoder | None":
    """Make an encoder of a tracker's network, if that gives what `text` asks for; else None.

    It does if `text` asks for the level "low" alone, of the same weights, at the size at which the tracker works. The
    tracker must then encode through it: `Sam2Tracker(..., encode=shared.encode_ahead)`.

    Args:
        text: As for `load_encoder`.
        location: Where the tracker's weights lie.
        network: The tracker's.

    Raises:
        SettingsError: If the text has no such form.
        WeightsError: If it names a SAM 2 model that cannot be had.
    """
    from ..sam2.loading import find_sam2
    from .sam2_encoder import Sam2Encoder
    from .shared import SharedEncoder

    name = parse_name(text)
    if name.kind != "sam2" or (name.levels or ("low",)) != ("low",):
        return None
    if find_sam2(name.model).path.resolve() != location.path.resolve():
        return None
    if network.input_size != (name.image_size or network.own_size):
        return None
    return SharedEncoder(Sam2Encoder(network, location, name))
