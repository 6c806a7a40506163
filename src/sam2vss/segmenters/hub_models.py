"""Base models from a hub or a folder: whatever transformers loads for semantic or universal segmentation.

One class for all of them: the frames go through our own preprocessing, the model, and one of two ways to class scores;
the scores are brought to the size of the frame and the best class of each pixel is its label.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors
import torch
import transformers
from torch.nn import functional

from ..checkpoints import CHECKPOINT_SUFFIXES, read_torch_file
from ..devices import choose_batch_size, choose_device, choose_dtype
from ..errors import LabelError, WeightsError
from ..hub import ModelLocation, model_here, quiet_transformers, resolve_model
from ..settings import SEGMENTER_ALIASES
from ..types import BaseLabels, LabelSpace
from .class_names import label_space_of
from .palettes import palette_of
from .preprocessing import CONFIG_FILES, Preprocessing
from .scores import NOBODYS_MASS, argmax_at_size, check_finite, check_frames, merge_patches

SEGMENTER_NAMES = {"segformer-nano": str(Path(__file__).parent / "nano"), **SEGMENTER_ALIASES}  # bundled, then hub ids
SEGMENTER_SUFFIXES = (*CHECKPOINT_SUFFIXES, ".pkl")  # a .pkl is never opened, but what it is can be said
LABEL_SET_KEY = "sam2vss_label_set"  # in the config.json of what `sam2vss train segmenter` made
MASK2FORMER_GRID = (384, 384)  # transformers' own semantic post-processing, on which published numbers rest

_log = logging.getLogger(__name__)


class HubSegmenter:
    """An image segmentation model of transformers as a `Segmenter`; VidEoMT, which sees videos, is `VideomtSegmenter`.

    Attributes:
        location: Where the weights lie.
        label_space: Names from the model's configuration, customary colours where the label set is known.
        names_are_guessed: Whether the configuration has no names, so that their number had to do.
        model: What transformers made of the weights, in evaluation mode.
        preprocessing: Makes its input of frames.
    """

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        preprocessing: Preprocessing,
        location: ModelLocation,
        *,
        task_tokens: torch.Tensor | None = None,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> None:
        parameter = next(model.parameters())
        self.location = location
        self.device, self.dtype = parameter.device, parameter.dtype
        self.want_probabilities = want_probabilities
        self.batch_size = choose_batch_size(batch_size, self.device)
        self.label_space = configured_label_space(model.config, location.id)
        self.names_are_guessed = is_nameless(model.config)
        self.model = model
        self.preprocessing = preprocessing
        self._task_tokens = task_tokens

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> "HubSegmenter":
        """Load a model by name, hub id or local folder; see `load_segmenter` for the arguments and errors."""
        location = find_model(name_or_path, revision)
        return cls.from_location(location, device, dtype, want_probabilities=want_probabilities, batch_size=batch_size)

    @classmethod
    def from_location(
        cls,
        location: ModelLocation,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> "HubSegmenter":
        """Load a model from its local folder; never touches the network."""
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        batch_size = choose_batch_size(batch_size, device)
        with failing_as(location):
            config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
        if config.model_type == "videomt":
            raise WeightsError(f"{location.id} is a video model, which sees no single pictures: use `load_segmenter`")
        preprocessing = Preprocessing.from_folder(location.path, config.model_type)
        model = load_model(location, config, preprocessing)
        return cls(
            model.to(device, precision),
            preprocessing,
            location,
            task_tokens=_task_tokens(location, config) if config.model_type == "oneformer" else None,
            want_probabilities=want_probabilities,
            batch_size=batch_size,
        )

    def reset(self) -> None:
        """Nothing to forget: frames are independent."""

    def predict(self, frames: np.ndarray) -> BaseLabels:
        """Label frames, uint8 RGB (L, H, W, 3).

        Returns:
            Labels (L, H, W) and, if wanted, float16 probabilities (L, C, h, w) on the model's own grid, stretched over
            the whole frame; each cell sums to 1.

        Raises:
            ShapeError: If `frames` has another shape or dtype.
            WeightsError: If the model's scores are not finite numbers, or are not of the classes it names.
        """
        check_frames(frames)
        size = (frames.shape[1], frames.shape[2])
        labels = np.empty(frames.shape[:3], self.label_space.dtype)
        probabilities = []
        for start in range(0, len(frames), self.batch_size):
            batch = torch.from_numpy(
                np.array(frames[start : start + self.batch_size])
            )  # a copy: frames may be read-only
            scores = self._scores(batch.to(self.device))
            for row, frame_scores in enumerate(scores):
                labels[start + row] = argmax_at_size(frame_scores, size).to("cpu", torch.int32).numpy()
            if self.want_probabilities:
                probabilities.append(self._normalized(scores).to("cpu", torch.float16).numpy())
        return BaseLabels(labels, np.concatenate(probabilities) if probabilities else None)

    @property
    def _is_universal(self) -> bool:
        return type(self.model.config) in transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING

    def _normalized(self, scores: torch.Tensor) -> torch.Tensor:
        """Class scores (B, C, h, w) to probabilities: logits by softmax, masses of queries by their sum.

        Where no query claims a pixel, all classes are equally likely.
        """
        if self._is_universal:
            shifted = scores + NOBODYS_MASS
            return shifted / shifted.sum(1, keepdim=True)
        return scores.softmax(1)

    @torch.inference_mode()
    def _scores(self, frames: torch.Tensor) -> torch.Tensor:
        """Run the model on uint8 (B, H, W, 3); return class scores, float32 (B, C, h, w), of the whole frame."""
        size = (int(frames.shape[1]), int(frames.shape[2]))
        inputs = self.preprocessing(frames).to(self.dtype)
        outputs = _forward(self.model, inputs, self._task_tokens)
        scores = self._semantic_scores(outputs) if self._is_universal else outputs.logits.float()
        if scores.shape[1] != self.label_space.num_classes:
            raise WeightsError(
                f"{self.location.id} scores {scores.shape[1]} classes, but its config.json names "
                f"{self.label_space.num_classes}"
            )
        check_finite(scores, self.location.id, self.dtype)
        patches = self.preprocessing.patches(size)
        resized = self.preprocessing.resized(size)
        if patches is not None:
            return merge_patches(scores, patches, resized)
        if self.preprocessing.pads:
            return scores[:, :, : resized[0], : resized[1]]  # the grid is that of the padded input, see below
        return scores

    def _semantic_scores(self, outputs: Any) -> torch.Tensor:
        """Add up, per pixel and class, the mask probabilities of the queries weighted by their class probabilities.

        Equals transformers' `post_process_semantic_segmentation` before its last resizing.
        """
        is_detr = self.model.config.model_type == "detr"
        masks = (outputs.pred_masks if is_detr else outputs.masks_queries_logits).float()
        classes = (outputs.logits if is_detr else outputs.class_queries_logits).float()
        full_size = self.preprocessing.full_size
        grid = {"mask2former": MASK2FORMER_GRID, "eomt": full_size, "eomt_dinov3": full_size}.get(
            self.model.config.model_type
        )
        if grid is not None:
            masks = functional.interpolate(masks, grid, mode="bilinear", align_corners=False)
        return torch.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :-1], masks.sigmoid())  # the last one is "none"


def find_model(name_or_path: str, revision: str | None = None) -> ModelLocation:
    """Find a model's files by name, hub id, local folder or checkpoint file; see `find_segmenter`."""
    _refuse_pickle(name_or_path)
    return resolve_model(
        name_or_path,
        SEGMENTER_NAMES,
        revision=revision,
        needs_one_of=CONFIG_FILES,
        checkpoint_suffixes=SEGMENTER_SUFFIXES,
        without_download="label maps of the frames in place of a model (`--labels DIR`, with `classify` `--base DIR`)",
    )


def find_model_here(name_or_path: str) -> ModelLocation | None:
    """Find a model's files as `find_model` does, but ask no hub: None for what would have to be downloaded."""
    _refuse_pickle(name_or_path)
    return model_here(name_or_path, SEGMENTER_NAMES, needs_one_of=CONFIG_FILES, checkpoint_suffixes=SEGMENTER_SUFFIXES)


def _refuse_pickle(name_or_path: str) -> None:
    if name_or_path.endswith(".pkl") and Path(name_or_path).is_file():
        read_torch_file(Path(name_or_path))  # says what it is in place of a model: mmsegmentation's res.pkl, mostly


def _forward(model: transformers.PreTrainedModel, inputs: torch.Tensor, task_tokens: torch.Tensor | None) -> Any:
    if model.config.model_type == "videomt":
        return model(pixel_values_videos=inputs[None])
    if task_tokens is not None:
        return model(pixel_values=inputs, task_inputs=task_tokens.to(inputs.device).expand(len(inputs), -1))
    return model(pixel_values=inputs)


def load_model(location: ModelLocation, config: Any, preprocessing: Preprocessing) -> transformers.PreTrainedModel:
    """Load the weights of a folder into transformers' network, float32, in evaluation mode.

    Raises:
        WeightsError: If it is no segmentation model, cannot be read, or lacks weights that its scores depend on.
    """
    semantic = transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    universal = transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    if type(config) in semantic:
        model_class = semantic[type(config)]
    elif type(config) in universal:
        model_class = universal[type(config)]
    else:
        raise WeightsError(
            f"{location.id} is a {config.model_type} model, which does no semantic segmentation in transformers "
            f"{transformers.__version__}; expected one of {', '.join(known_model_types())}"
        )
    with failing_as(location), quiet_transformers(), without_scipy(model_class):
        model, report = model_class.from_pretrained(
            location.path, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True,
            dtype=torch.float32,
        )  # fmt: skip
    model.eval().requires_grad_(False)
    _refuse_untrained_parts(model, set(report["missing_keys"]), location, preprocessing)
    return model


def _refuse_untrained_parts(
    model: transformers.PreTrainedModel, missing: set[str], location: ModelLocation, preprocessing: Preprocessing
) -> None:
    """Refuse weights without, say, a segmentation head: transformers would fill in random numbers.

    Some published files lack parameters that the model never uses (DPT's first fusion layer), so what counts is
    whether the scores depend on a missing one.
    """

    def score() -> list[torch.Tensor]:
        inputs = preprocessing(torch.zeros((1, 64, 64, 3), dtype=torch.uint8))
        tokens = torch.zeros((1, getattr(model.config, "task_seq_len", 1)), dtype=torch.int64)
        outputs = _forward(model, inputs, tokens if model.config.model_type == "oneformer" else None)
        names = ("logits", "pred_masks", "class_queries_logits", "masks_queries_logits")
        return [getattr(outputs, name) for name in names if getattr(outputs, name, None) is not None]

    needed = untrained_parts(model, missing, score)
    if needed:
        raise WeightsError(
            f"{location.id} lacks {len(needed)} trained parameters of {type(model).__name__} (first: {needed[0]}): it "
            f"was saved as {', '.join(model.config.architectures or ['another model'])} and is not trained for "
            "segmentation"
        )
    if missing:
        _log.info("%s lacks %d parameters that it does not use", location.id, len(missing))


def untrained_parts(
    model: transformers.PreTrainedModel, missing: set[str], run: Callable[[], Sequence[torch.Tensor]]
) -> list[str]:
    """Return the names of those missing parameters, sorted, on which the results of `run` depend."""
    absent = {name: parameter for name, parameter in model.named_parameters() if name in missing}
    if not absent:
        return []
    for parameter in absent.values():
        parameter.requires_grad_(True)
    total = torch.stack([result.sum() for result in run()]).sum()
    gradients = torch.autograd.grad(total, list(absent.values()), allow_unused=True) if total.requires_grad else ()
    model.requires_grad_(False)
    return sorted(name for name, gradient in zip(absent, gradients, strict=False) if gradient is not None)


def _task_tokens(location: ModelLocation, config: Any) -> torch.Tensor:
    """Return OneFormer's task prompt as token ids (1, task_seq_len), zero where there is none."""
    with failing_as(location), quiet_transformers():
        tokenizer = transformers.AutoTokenizer.from_pretrained(location.path, local_files_only=True)
    tokens = tokenizer(
        ["the task is semantic"], padding="max_length", max_length=config.task_seq_len, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    prompt: torch.Tensor = tokens["input_ids"] * tokens["attention_mask"]
    return prompt


def configured_label_space(config: Any, model_id: str) -> LabelSpace:
    """Read the classes from a model's configuration, with their customary colours where the set is known.

    Where nobody named them ("LABEL_0", ...) their number has to do, as for checkpoints.
    """
    names = tuple(str(config.id2label.get(i, f"class {i}")) for i in range(config.num_labels))
    stored = getattr(config, LABEL_SET_KEY, None)
    if stored is not None:
        return _stored_label_space(stored, names, model_id)
    if is_nameless(config):
        return label_space_of(len(names))
    set_name, palette = palette_of(names)
    return LabelSpace(names, palette, name=set_name or model_id)


def is_nameless(config: Any) -> bool:
    """Whether nobody named the classes of a model: they are called LABEL_0, LABEL_1, ..."""
    return all(config.id2label.get(i) == f"LABEL_{i}" for i in range(config.num_labels))


def folder_label_space(location: ModelLocation) -> LabelSpace:
    """Read the classes of a model in transformers' format without loading it.

    Raises:
        WeightsError: If its configuration makes no sense.
    """
    with failing_as(location):
        config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
    return configured_label_space(config, location.id)


def _stored_label_space(content: Any, names: tuple[str, ...], model_id: str) -> LabelSpace:
    """Return the label set that a model was trained on, as our training wrote it."""
    try:
        found = LabelSpace.from_dict(content)
    except (LookupError, TypeError, ValueError, AttributeError, LabelError) as error:
        raise WeightsError(f"{model_id} has a config.json whose {LABEL_SET_KEY} makes no sense: {error}") from error
    if found.names != names:
        raise WeightsError(f"{model_id} has a config.json whose {LABEL_SET_KEY} and id2label name different classes")
    return found


def known_model_types() -> list[str]:
    """Return transformers' names of the architectures that segment."""
    return sorted(
        config.model_type
        for mapping in (
            transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
            transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        )
        for config in mapping
    )


@contextmanager
def failing_as(location: ModelLocation) -> Iterator[None]:
    """Turn what transformers raises for damaged, foreign or unsupported model folders into one clear error."""
    try:
        yield
    except ImportError as error:
        reason = str(error).strip().splitlines()[0].removesuffix(" You can install it with pip:")
        raise WeightsError(f"{location.id} needs a package that is not installed or not working: {reason}") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{location.id} cannot be loaded from {location.path}: {reason}") from error


@contextmanager
def without_scipy(model_class: type[Any]) -> Iterator[None]:
    """Let a model be built where scipy is not installed.

    The universal models make their training loss together with the model, and the loss asks for scipy, which nothing
    else of ours needs. The check is passed over while the model is built; only training it would then fail.
    """
    module = sys.modules[model_class.__module__]
    original = getattr(module, "requires_backends", None)
    if original is None:
        yield
        return

    def other_backends(owner: object, backends: Any) -> None:
        names = [backends] if isinstance(backends, str) else backends
        original(owner, [name for name in names if name != "scipy"])

    with mock.patch.object(module, "requires_backends", other_backends):
        yield
