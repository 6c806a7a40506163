"""Where base labels `S_t` come from: stored label maps, or a model that is run frame by frame.

A pipeline sees both as one thing, a `BaseLabelSource`: asked for the labels of a window's frames, checked before the
run. `load_segmenter` picks a model by name.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import ShapeError, WeightsError
from ..interfaces import RemembersFrames, Segmenter
from ..types import BaseLabels, Frame, LabelSpace
from .stored import StoredLabels
from .vss.contexts import check_context, split_context

if TYPE_CHECKING:
    from ..hub import ModelLocation
    from .kinds import ModelDescription

__all__ = [
    "LocatedSegmenter",
    "ModelLabels",
    "StoredLabels",
    "check_segmenter",
    "describe_segmenter",
    "find_segmenter",
    "load_segmenter",
]


class LocatedSegmenter(Segmenter, Protocol):
    """A base model that knows where its weights lie."""

    @property
    def location(self) -> "ModelLocation":
        """Its files."""
        ...

    @property
    def names_are_guessed(self) -> bool:
        """Whether the names of its classes follow from their number alone, as its files have none."""
        ...


class ModelLabels:
    """Runs a `Segmenter` as a source of base labels; resets it at the start of every clip."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._clip_name: str | None = None
        self._next_index = 0

    @property
    def label_space(self) -> LabelSpace:
        return self.segmenter.label_space

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Accept every clip: a model labels any frame."""
        return "model"

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Label consecutive frames of one size; frame 0 or another clip than before starts anew.

        Raises:
            ShapeError: If there are no frames, they differ in size, or a model that remembers frames was not shown
                those before.
        """
        return self.segmenter.predict(self._take(clip_name, frames))

    def pass_over(self, clip_name: str, frames: Sequence[Frame]) -> None:
        """Show frames that nobody asks the labels of to a model that remembers them."""
        if isinstance(self.segmenter, RemembersFrames):
            self.segmenter.pass_over(self._take(clip_name, frames))

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Accept any length."""

    def _take(self, clip_name: str, frames: Sequence[Frame]) -> np.ndarray:
        """Stack the frames, (L, H, W, 3), and start anew where a clip begins."""
        sizes = {frame.image.shape[:2] for frame in frames}
        if len(sizes) != 1:
            raise ShapeError(f"frames to label must have one size, found {sorted(sizes)}")
        first = frames[0].index
        if clip_name != self._clip_name or first == 0:
            self.segmenter.reset()
            self._clip_name, self._next_index = clip_name, 0
        if first != self._next_index and isinstance(self.segmenter, RemembersFrames):
            raise ShapeError(
                f"clip {clip_name}: frame {first} came after frame {self._next_index - 1}, and the model's labels "
                "depend on the frames before; pass the clip's frames in order, from the first on"
            )
        self._next_index = first + len(frames)
        return np.stack([frame.image for frame in frames])


def find_segmenter(name: str) -> "ModelLocation":
    """Find a segmentation model's files by name, as `load_segmenter` does, without loading it.

    Raises:
        WeightsError: If it cannot be had.
        SettingsError: If there is something else than a context behind the "@" of a local file.
    """
    from .hub_models import find_model

    _refuse_networks_without_weights(name)
    return find_model(split_context(name)[0])


def check_segmenter(name: str) -> LabelSpace | None:
    """Return the classes that `describe_segmenter` finds, after the same checks; None if nothing is known yet."""
    found = describe_segmenter(name)
    return None if found is None else found.label_space


def describe_segmenter(name: str) -> "ModelDescription | None":
    """Make sure that a model on this machine can be loaded, without running it and without asking a hub.

    Args:
        name: As for `load_segmenter`.

    Returns:
        What it is; None for a model of a hub that is not in the local cache, of which nothing is known yet.

    Raises:
        WeightsError: If there is no such model, or it cannot be read, or is no semantic segmentation model.
        SettingsError: If it has no such context as stands behind its name.
    """
    from .hub_models import find_model_here
    from .kinds import describe_model

    _refuse_networks_without_weights(name)
    target, context = split_context(name)
    location = find_model_here(target)
    if location is None:
        return None
    found = describe_model(location.path)
    if found.problem:
        raise WeightsError(found.problem)
    if context is not None:
        check_context(context, found.contexts, name)
    return found


def _refuse_networks_without_weights(name: str) -> None:
    """Say where the weights of "cffm-b1" come from: it names a network, which `train segmenter` starts anew."""
    from .catalogue import find_known_models

    known = [model for model in find_known_models(name) if model.usage and model.name == name.casefold()]
    if known and not Path(name).exists():
        raise WeightsError(
            f"{name} names a network, not its weights, which are {known[0].source}. Pass them: {known[0].usage}"
        )


def load_segmenter(
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    want_probabilities: bool = False,
    batch_size: int | None = None,
) -> LocatedSegmenter:
    """Load a segmentation model by name.

    Native models and VidEoMT look at earlier frames: `predict` goes on where its last call ended, so call `reset()`
    before the first frame of every clip. `ModelLabels` does so by itself.

    Args:
        name: "segformer-nano" (bundled), an alias such as "segformer-b2", a hub id "org/name", a local folder, or a
            checkpoint file (`.pth`) of SegFormer, CFFM, MRCFA, TV3S or VidEoMT as their authors released it. Of the
            first four, "cffm_b1.pth@frame" and "tv3s_b1.pth@stream" choose what a frame's labels depend on besides the
            frame, see `vss.contexts.CONTEXTS`.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
        want_probabilities: Also return class probabilities (costs memory: C values per cell of the model's grid).
        batch_size: Frames per forward pass; default 1 on the CPU, 4 elsewhere.

    Raises:
        WeightsError: If the model cannot be had, read, or is no semantic segmentation model.
        SettingsError: If `device` or `dtype` is unknown or not available here.
    """
    from .hub_models import HubSegmenter
    from .kinds import kind_of
    from .videomt import VideomtSegmenter
    from .vss.segmenter import VssSegmenter

    location = find_segmenter(name)
    context = split_context(name)[1]
    kind = kind_of(location)
    if context is not None and kind != "native":
        check_context(context, (), name)
    loaders: dict[str, Callable[..., LocatedSegmenter]] = {
        "image model": HubSegmenter.from_location,
        "VidEoMT folder": VideomtSegmenter.from_folder,
        "VidEoMT checkpoint": VideomtSegmenter.from_checkpoint,
        "native": partial(VssSegmenter.from_location, context=context),
    }
    load = loaders[kind]
    return load(location, device, dtype, want_probabilities=want_probabilities, batch_size=batch_size)
