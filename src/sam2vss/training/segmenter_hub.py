"""Segmenters of transformers made ready for training: SegFormer and UPerNet.

The universal models (Mask2Former, OneFormer, EoMT, VidEoMT) match queries to objects in their loss, for which
transformers needs scipy, and learn from objects, which label maps do not tell apart; they are refused by name.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import SettingsError, WeightsError
from ..files import discard, publish, temporary_name, write_error
from ..hub import ModelLocation, quiet_transformers
from ..segmenters.hub_models import LABEL_SET_KEY, HubSegmenter, failing_as
from ..segmenters.preprocessing import Preprocessing
from ..segmenters.vss.segformer import WeightedLogits
from ..types import LabelSpace
from .segmenter_input import NetworkInput
from .segmenter_schedule import is_of_head

HUB_FAMILIES: Final = ("segformer", "upernet")
TRAINABLE_FAMILIES: Final = (  # for messages
    f"Families that can be trained: {', '.join(HUB_FAMILIES)} of the hub, and the native segformer-vss, cffm, mrcfa, "
    "tv3s"
)
_PILLOW_FILTER: Final = {"nearest-exact": 0, "bilinear": 2, "bicubic": 3}


class HubTrainable:
    """A hub model as a `TrainableSegmenter`.

    Args:
        model: SegFormer or UPerNet for the classes of `label_space`.
        preprocessing: What is done to frames at inference.
        label_space: Its classes.
        location: Where its weights come from.
        notes: What a user should know.
    """

    num_frames = 1

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        preprocessing: Preprocessing,
        label_space: LabelSpace,
        location: ModelLocation,
        notes: Sequence[str] = (),
    ) -> None:
        self.network: nn.Module = model
        self.network_input = NetworkInput(preprocessing)
        self.label_space = label_space
        self.notes = tuple(notes)
        self.about = {"family": str(model.config.model_type), "start": _named(location)}
        self._model = model
        self._location = location

    def training_logits(self, pixels: Tensor) -> list[WeightedLogits]:
        """Return the logits of all frames, of UPerNet also those of its auxiliary head."""
        rows = tuple(range(len(pixels)))
        if self._model.config.model_type != "upernet":
            return [WeightedLogits(self._model(pixel_values=pixels).logits, rows, 1.0)]
        features = self._model.backbone.forward_with_filtered_kwargs(pixels).feature_maps
        parts = [WeightedLogits(self._model.decode_head(features), rows, 1.0)]
        if self._model.auxiliary_head is not None:
            weight = float(self._model.config.auxiliary_loss_weight)
            parts.append(WeightedLogits(self._model.auxiliary_head(features), rows, weight))
        return parts

    def segmenter(self) -> HubSegmenter:
        """Return the model as inference would load it."""
        return HubSegmenter(self._model, self.network_input.preprocessing, self._location)

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json; see `TrainableSegmenter`."""
        place = temporary_name(folder / "network")
        try:
            with quiet_transformers():
                self._model.save_pretrained(place)
            content = preprocessor_config(self.network_input.preprocessing)
            (place / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            shutil.copymode(place / "config.json", place / "model.safetensors")  # else only its owner may read it
            discard(folder / "config.json")  # an earlier network's, which must not be left with new weights
            for name in ("model.safetensors", "preprocessor_config.json", "config.json"):
                publish(place / name, folder / name)
        except (OSError, SafetensorError) as error:
            raise write_error(folder, error) from error
        finally:
            for file in place.iterdir() if place.is_dir() else ():
                discard(file)
            if place.is_dir():
                place.rmdir()


def load_hub_trainable(
    location: ModelLocation, label_space: LabelSpace, scale: tuple[int, int] | None, seed: int
) -> HubTrainable:
    """Load a hub model for the classes of a data set.

    A classifier for other classes is replaced by a new one; so is a whole head where the weights have none (an
    encoder, such as nvidia/mit-b0). Everything else is kept.

    Args:
        location: The model's folder.
        label_space: Classes to tell apart.
        scale: Longer and shorter side that frames are fitted into; None: as the model's own preprocessing says.
        seed: Of new weights.

    Raises:
        WeightsError: If the weights cannot be read.
        SettingsError: If no model of its family can be trained here.
    """
    with failing_as(location):
        config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
    _check_family(config, location)
    preprocessing = Preprocessing.from_folder(location.path, config.model_type)
    model_class = transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING[type(config)]
    with failing_as(location), quiet_transformers():
        start, report = model_class.from_pretrained(
            location.path, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
        old_names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        _set_classes(config, label_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config)
    missing = set(report["missing_keys"])
    state = {name: value for name, value in start.state_dict().items() if name not in missing}
    notes = _fill(model, state, old_names, label_space, location)
    if scale is not None:
        preprocessing = fitted(preprocessing, scale)
    return HubTrainable(model, preprocessing, label_space, location, notes)


def fitted(preprocessing: Preprocessing, scale: tuple[int, int]) -> Preprocessing:
    """Return a preprocessing that fits frames into (longer side, shorter side) and keeps their shape."""
    long, short = max(scale), min(scale)
    return replace(
        preprocessing,
        size={"shortest_edge": short, "longest_edge": long},
        keep_aspect_ratio=False,
        multiple=1,
        divisor=1,
    )


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of the preprocessor_config.json that `Preprocessing.from_folder` reads back."""
    size = preprocessing.size
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": size is not None,
        **({} if size is None else {"size": dict(size)}),
        "resample": _PILLOW_FILTER[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": preprocessing.scale,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_reduce_labels": False,
        "do_flip_channel_order": preprocessing.flip_channels,
        "keep_aspect_ratio": preprocessing.keep_aspect_ratio,
        "ensure_multiple_of": preprocessing.multiple,
    }


def _check_family(config: Any, location: ModelLocation) -> None:
    if config.model_type in HUB_FAMILIES:
        return
    is_universal = type(config) in transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    reason = (
        "its loss matches queries to single objects, which needs scipy and masks of objects"
        if is_universal
        else "its training is not written here"
    )
    raise SettingsError(
        f"{location.id} is a {config.model_type} model, which `train segmenter` cannot train: {reason}. "
        f"{TRAINABLE_FAMILIES}"
    )


def _set_classes(config: Any, label_space: LabelSpace) -> None:
    config.id2label = dict(enumerate(label_space.names))
    config.label2id = {name: index for index, name in enumerate(label_space.names)}
    setattr(config, LABEL_SET_KEY, label_space.to_dict())


def _fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    old_names: tuple[str, ...],
    label_space: LabelSpace,
    location: ModelLocation,
) -> list[str]:
    """Put the weights into a new model, but those of a classifier of other classes; return what to tell a user."""
    wanted = model.state_dict()
    is_same = old_names == label_space.names
    kept = {name: value for name, value in state.items() if is_same or not _is_classifier(name)}
    strangers = [name for name in kept if name not in wanted or wanted[name].shape != kept[name].shape]
    absent = [name for name in wanted if name not in state]
    outside = [name for name in absent if not is_of_head(name)]
    if strangers or outside:
        raise WeightsError(
            f"{location.id} does not fit its own config.json: {(strangers or outside)[0]} is "
            f"{'of another shape' if strangers else 'missing'}"
        )
    model.load_state_dict({**wanted, **kept})
    if any(not _is_classifier(name) for name in absent):
        return [f"{location.id} has no trained head: its head starts from random weights, its encoder is kept"]
    if not is_same:
        return [
            f"{location.id} tells {len(old_names)} classes apart ({_few(old_names)}), the data set has "
            f"{label_space.num_classes} ({_few(label_space.names)}): its classifier starts from random weights, "
            "everything else is kept"
        ]
    return []


def _is_classifier(name: str) -> bool:
    return is_of_head(name) and name.rsplit(".", 2)[-2] == "classifier"


def _named(location: ModelLocation) -> str:
    """Name the start without the path of this machine."""
    return Path(location.id).name if Path(location.id).exists() else location.id


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
