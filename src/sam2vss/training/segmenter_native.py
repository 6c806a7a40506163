"""Native models made ready for training: SegFormer, CFFM, MRCFA and TV3S on the Mix Transformer.

Source of the random start: SegFormer's published code (truncated normal for linear layers, variance of the outgoing
paths for convolutions); heads start as they are built, their classifiers small.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from ..errors import SettingsError, WeightsError
from ..files import discard
from ..hub import ModelLocation
from ..segmenters.preprocessing import Preprocessing
from ..segmenters.vss.architecture import Architecture, Family, build, default_architecture
from ..segmenters.vss.checkpoint import load_model, save_model
from ..segmenters.vss.frames import DIVISOR, PIXEL_MEAN, PIXEL_STD, TEST_SCALE
from ..segmenters.vss.segformer import VssModel, WeightedLogits
from ..segmenters.vss.segmenter import VssSegmenter
from ..types import LabelSpace
from .encoder_weights import read_start
from .segmenter_input import NetworkInput

LINEAR_SPREAD: Final = 0.02
CLASSIFIER_SPREAD: Final = 0.01


class NativeTrainable:
    """A native model as a `TrainableSegmenter`.

    Args:
        model: For the classes of `label_space`.
        architecture: What it is.
        label_space: Its classes.
        start: Where its weights come from, in words.
        notes: What a user should know.
    """

    def __init__(
        self,
        model: VssModel,
        architecture: Architecture,
        label_space: LabelSpace,
        start: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.network: nn.Module = model
        self.network_input = NetworkInput(
            Preprocessing(
                {"shortest_edge": min(TEST_SCALE), "longest_edge": max(TEST_SCALE)},
                divisor=DIVISOR,
                scale=1.0,
                mean=PIXEL_MEAN,
                std=PIXEL_STD,
            ),
            antialias=False,
        )
        self.num_frames = model.decode_head.num_frames
        self.label_space = label_space
        self.about = {"family": f"{architecture.family} {architecture.size.name.upper()}", "start": start}
        self.notes = tuple(notes)
        self._model = model
        self._architecture = architecture

    def training_logits(self, pixels: Tensor) -> list[WeightedLogits]:
        """Return what the head's loss is made of."""
        return self._model.decode_head.training_logits(self._model.backbone(pixels), self.num_frames)

    def segmenter(self) -> VssSegmenter:
        """Return a copy as inference would load it, which is no longer trained."""
        location = ModelLocation(self.about["family"], Path())
        return VssSegmenter(copy.deepcopy(self._model), self.label_space, location)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors; see `TrainableSegmenter`."""
        discard(folder / "preprocessor_config.json")  # of a hub model that this one replaces
        save_model(folder, self._model, self._architecture, self.label_space)


def new_native_trainable(
    family: Family, size: str, backbone: str | None, label_space: LabelSpace, seed: int
) -> NativeTrainable:
    """Make a native model with random weights, or with those of an encoder.

    Args:
        family: Its head.
        size: Its encoder, "b0" to "b5".
        backbone: Encoder weights, see `encoder_weights`; of a native model's weights all that fits is taken.
        label_space: Its classes.
        seed: Of random weights.

    Raises:
        WeightsError: If the encoder weights cannot be had or are of another size.
    """
    architecture = default_architecture(family, size, label_space.num_classes)
    model = _new_model(architecture, seed)
    if backbone is None:
        note = (
            f"{architecture} starts from random weights: it needs far more steps than from ImageNet's, which "
            f"--backbone mit_{size}.pth or --backbone nvidia/mit-{size} gives it"
        )
        return NativeTrainable(model, architecture, label_space, "random weights", [note])
    taken = _fit(read_start(backbone), model, backbone, architecture)
    model.load_state_dict({**model.state_dict(), **taken})
    in_head = [name for name in taken if name.startswith("decode_head.")]
    rest = f"{len(in_head)} tensors of its head" if in_head else "no part of its head"
    note = f"{architecture} starts from the encoder of {backbone} and {rest}; all else starts from random weights"
    return NativeTrainable(model, architecture, label_space, Path(backbone).name, [note])


def load_native_trainable(location: ModelLocation, label_space: LabelSpace, seed: int) -> NativeTrainable:
    """Load a native checkpoint or folder for the classes of a data set; classifiers for other classes are new.

    Raises:
        WeightsError: If it cannot be read.
        SettingsError: If it is CFFM++.
    """
    loaded = load_model(location)
    found = loaded.architecture
    if found.family == "CFFM++":
        raise SettingsError(
            f"{location.id} is CFFM++, whose branch to prototypes is trained apart and not here: train CFFM from it "
            f"with --model cffm-{found.size.name} --backbone {location.id}"
        )
    start = Path(location.id).name
    if loaded.label_space.names == label_space.names:
        return NativeTrainable(loaded.model, found, label_space, start)
    architecture = Architecture(found.family, found.size, label_space.num_classes, found.depth)
    model = _new_model(architecture, seed)
    classifiers = _classifiers(found.family)
    kept = {key: value for key, value in loaded.model.state_dict().items() if key not in classifiers}
    model.load_state_dict({**model.state_dict(), **kept})
    note = (
        f"{start} tells {found.num_classes} classes apart ({loaded.label_space.name}), the data set has "
        f"{label_space.num_classes} ({label_space.name or 'without a name'}): its classifiers start from random "
        "weights, everything else is kept"
    )
    return NativeTrainable(model, architecture, label_space, start, [note])


def _new_model(architecture: Architecture, seed: int) -> VssModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(architecture)
        _initialise_encoder(model.backbone)
        for name, module in model.decode_head.named_modules():
            if name.startswith("linear_pred") and isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=CLASSIFIER_SPREAD)
                _zero_bias(module)
    return model


def _initialise_encoder(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=LINEAR_SPREAD)
            _zero_bias(module)
        elif isinstance(module, nn.Conv2d):
            paths = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / paths))
            _zero_bias(module)


def _zero_bias(module: nn.Linear | nn.Conv2d) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _fit(start: dict[str, Tensor], model: VssModel, name: str, architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors that the model has too, after making sure that its whole encoder is among them."""
    wanted = model.state_dict()
    taken = {key: value.float() for key, value in start.items() if key in wanted and value.shape == wanted[key].shape}
    lacking = [key for key in wanted if key.startswith("backbone.") and key not in taken]
    surplus = [key for key in start if key.startswith("backbone.") and key not in wanted]
    if lacking or surplus:
        first = (lacking or surplus)[0].removeprefix("backbone.")
        raise WeightsError(
            f"{name} does not hold the encoder of {architecture}: {len(lacking)} of its tensors are missing or of "
            f"another shape, {len(surplus)} are left over (first: {first}). Name the model by the size of the encoder, "
            "or pass other weights"
        )
    return taken


def _classifiers(family: Family) -> set[str]:
    """Return the names of the tensors that depend on the number of classes."""
    two, three = (build(default_architecture(family, "b0", count)).state_dict() for count in (2, 3))
    return {name for name, value in two.items() if value.shape != three[name].shape}
