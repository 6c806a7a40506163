"""The places where strangers plug in: base model or base labels, masklet source, feature encoder.

Each is a `Protocol`; no class has to inherit from anything of ours.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from .types import BaseLabels, Frame, LabelSpace, MaskletWindow, Naming, WindowContext


class Segmenter(Protocol):
    """A base model: frames in, labels `S_t` out. Stateful per clip, so `reset` is called before every clip."""

    @property
    def label_space(self) -> LabelSpace:
        """The classes that `predict` speaks of."""
        ...

    def reset(self) -> None:
        """Forget everything about the clip before."""
        ...

    def predict(self, frames: np.ndarray) -> BaseLabels:
        """Label consecutive frames, uint8 RGB (L, H, W, 3), continuing where the last call ended."""
        ...


@runtime_checkable
class RemembersFrames(Protocol):
    """A `Segmenter` whose labels of a frame depend on earlier frames of the clip."""

    def pass_over(self, frames: np.ndarray) -> None:
        """Take note of consecutive frames, uint8 RGB (L, H, W, 3), that nobody asks the labels of."""
        ...


class BaseLabelSource(Protocol):
    """Where base labels come from, files or a model: asked for the frames of one window after the other, in order."""

    @property
    def label_space(self) -> LabelSpace:
        """The classes that the labels speak of."""
        ...

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Raise if this clip cannot be labelled; return how labels and frames are matched, for the record."""
        ...

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Return the base labels of consecutive frames of a clip."""
        ...

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Say that the clip is over after `num_frames`; raises if that does not fit."""
        ...


@runtime_checkable
class FollowsFrames(Protocol):
    """A source of base labels whose labels of a frame depend on the frames before, such as a video model's.

    A resumed run asks it for no labels of the windows that are finished; it shows their frames instead, in order, so
    that the labels after them are those of an uninterrupted run.
    """

    def pass_over(self, clip_name: str, frames: Sequence[Frame]) -> None:
        """Take note of consecutive frames of a clip that nobody asks the labels of."""
        ...


class MaskletTracker(Protocol):
    """Finds the objects of a window and follows them through it."""

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Return the masklets of the frames, uint8 RGB (L, H, W, 3), whose first one is frame `start` of the clip.

        `context` holds what may help besides, such as the masklets of the window before; a tracker may ignore it.
        """
        ...


@runtime_checkable
class ClipAware(Protocol):
    """A tracker that wants to know which clip comes, such as one that reads masklets from files."""

    def begin_clip(self, name: str) -> None:
        """The windows of clip `name` come next."""
        ...


class Smoother(Protocol):
    """Makes base labels steadier over time, before masklets vote on them or in place of masklets."""

    def smooth(
        self, windows: Iterator[tuple[list[Frame], BaseLabels]]
    ) -> Iterator[tuple[list[Frame], BaseLabels, BaseLabels]]:
        """Yield frames, base labels and smoothed labels for every window of one clip, in order.

        May hold windows back to look ahead. Smoothed labels have no probabilities.
        """
        ...


class MaskletNamer(Protocol):
    """Finds the classes of masklets in another way than by the plain vote of base labels (Eq. 2)."""

    def name_masklets(
        self, images: np.ndarray, base: BaseLabels, masklets: MaskletWindow, earlier: np.ndarray | None = None
    ) -> Naming:
        """Name the masklets of a window.

        Args:
            images: Frames, uint8 RGB (L, H, W, 3).
            base: Base labels of the frames; all void where there is no base model.
            masklets: N masklets over the frames.
            earlier: (N, C) scores that masklets carried over from earlier windows bring along, zeros for new ones.
        """
        ...


class ImageTextModel(Protocol):
    """Puts pictures and texts into one space, in which what fits together lies close. All vectors have length 1."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before a softmax, as the model was trained."""
        ...

    @property
    def mean_color(self) -> np.ndarray:
        """The colour that says nothing, uint8 (3,), RGB: zero after the model's normalisation."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, float32 (M, D)."""
        ...

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return one vector a square picture, uint8 RGB (S, S, 3) of any sizes, as float32 (M, D)."""
        ...

    def embed_map(self, frame: np.ndarray) -> np.ndarray:
        """Return a vector for every cell of a grid stretched over one frame, uint8 RGB (H, W, 3): float32 (D, h, w)."""
        ...


class FeatureEncoder(Protocol):
    """Gives feature maps of a frame, for classifiers of masklets (Eq. 3)."""

    @property
    def name(self) -> str:
        """What was asked for, such as "sam2:nano/low"; `encoders.load_encoder` takes it again."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell weights, levels and preprocessing: equal ones mean equal features.

        Equal up to rounding, that is: device and number format are not part of it.
        """
        ...

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the maps that `encode` returns, in its order."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """D of each level."""
        ...

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return one map a level, float32 (D, h, w), each stretched over the whole frame, uint8 RGB (H, W, 3)."""
        ...
