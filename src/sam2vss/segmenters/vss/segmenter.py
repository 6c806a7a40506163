"""A native video model as a `Segmenter`: frame after frame in, labels out, as the published test scripts make them.

Those scripts encode every frame of the clip of four anew for each target. Here a frame is encoded once and what later
frames need of it is kept for nine frames; the labels are the same.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ...devices import choose_batch_size, choose_device, choose_dtype
from ...errors import SettingsError, ShapeError, WeightsError
from ...hub import ModelLocation
from ...types import BaseLabels, LabelSpace
from ..scores import argmax_at_size, check_finite, check_frames
from .cffm_plus import CffmPlusHead, make_prototypes, prototype_frames
from .checkpoint import load_model
from .contexts import Context, check_context, contexts_of
from .frames import NUM_EARLIER, clip_indices, network_input, network_size
from .mit import Stages
from .segformer import VssModel
from .tv3s import Tv3sHead, Tv3sState

_log = logging.getLogger(__name__)


class VssSegmenter:
    """SegFormer, CFFM, MRCFA or TV3S, run through a clip.

    Attributes:
        model: The network, in evaluation mode.
        label_space: Its classes.
        location: Where the weights lie.
        context: What a frame's labels may depend on besides the frame.

    Args:
        model: As above.
        label_space: As above.
        location: As above.
        context: "clip", "stream" (TV3S only) or "frame".
        want_probabilities: Also return class probabilities.
        names_are_guessed: Whether the names of the classes follow from their number alone.
        batch_size: Frames per pass of the encoder; default 1 on the CPU, 4 elsewhere.

    Raises:
        SettingsError: If the model cannot use this context, or the batch size is below 1.
        WeightsError: If the model has another number of classes than the label set.
    """

    def __init__(
        self,
        model: VssModel,
        label_space: LabelSpace,
        location: ModelLocation,
        *,
        context: Context = "clip",
        want_probabilities: bool = False,
        batch_size: int | None = None,
        names_are_guessed: bool = False,
    ) -> None:
        head = model.decode_head
        if context == "stream" and not isinstance(head, Tv3sHead):
            raise SettingsError(f"{location.id}: only TV3S carries a state from frame to frame; leave out @stream")
        if label_space.num_classes != head.num_classes:
            raise WeightsError(
                f"{location.id} tells {head.num_classes} classes apart, but {label_space.name or 'its label set'} "
                f"names {label_space.num_classes}"
            )
        parameter = next(model.parameters())
        self.model = model.eval().requires_grad_(False)
        self.label_space = label_space
        self.names_are_guessed = names_are_guessed
        self.location = location
        self.context = context
        # What the three heads over several frames have in common: encode, decode.
        self._clip_head: Any = head if context == "clip" and head.num_frames > 1 else None
        self.device, self.dtype = parameter.device, parameter.dtype
        self.want_probabilities = want_probabilities
        self.batch_size = choose_batch_size(batch_size, self.device)
        self.reset()

    @classmethod
    def from_location(
        cls,
        location: ModelLocation,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        context: Context | None = None,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> "VssSegmenter":
        """Load a published checkpoint, or a folder that our training wrote; without `context` it has its own default.

        Raises:
            WeightsError: If it cannot be read or is no network of this family.
            SettingsError: If `device` or `dtype` is unknown or not available here, or the model has no such context.
        """
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        loaded = load_model(location)
        has = contexts_of(loaded.architecture.family)
        context = context or has[0]
        check_context(context, has, location.id)
        if loaded.architecture.family == "CFFM++" and context == "clip":
            _log.warning(
                "%s is a CFFM++: without a survey of each whole clip, which only Python calls give (`survey`), its "
                "labels are those of the CFFM in it",
                location.id,
            )
        return cls(
            loaded.model.to(device, precision),
            loaded.label_space,
            location,
            context=context,
            want_probabilities=want_probabilities,
            batch_size=batch_size,
            names_are_guessed=loaded.names_are_guessed,
        )

    def reset(self) -> None:
        """Forget the clip: the next frame is the first one of another."""
        self._index = 0  # of the next frame
        self._earlier: deque[Any] = deque(maxlen=NUM_EARLIER)  # encoded frames, or pictures not encoded yet
        self._state: Tv3sState | None = None
        self._size: tuple[int, int] | None = None
        self._prototypes: Tensor | None = None

    @torch.inference_mode()
    def survey(self, clip: np.ndarray) -> None:
        """Let CFFM++ see a whole clip, uint8 RGB (T, H, W, 3), before its frames are labelled one after the other.

        Only ten frames, spread evenly, are looked at. Until the next `reset` its labels take the clip's prototypes into
        account; without a survey they are those of CFFM.

        Raises:
            ShapeError: As `predict`.
            SettingsError: If the model is no CFFM++.
        """
        self._check(clip)
        if not isinstance(self._clip_head, CffmPlusHead):
            raise SettingsError(f"{self.location.id}: only CFFM++ makes use of a survey of the clip")
        frames = [clip[index] for index in prototype_frames(len(clip))]
        encoded = [self._clip_head.encode(*parts) for frame in frames for parts in self._encode(frame[None])]
        self._prototypes = make_prototypes(encoded)

    @torch.inference_mode()
    def pass_over(self, frames: np.ndarray) -> None:
        """Take note of frames, uint8 RGB (L, H, W, 3), whose labels nobody needs, but which come before others.

        Cheap but for a carried state, which has to see every frame.
        """
        self._check(frames)
        if self.context == "stream":
            for _ in self._frame_logits(frames):
                pass
            return
        self._index += len(frames)
        if self._clip_head is not None:
            self._earlier.extend(frame.copy() for frame in frames[-NUM_EARLIER:])

    @torch.inference_mode()
    def predict(self, frames: np.ndarray) -> BaseLabels:
        """Label consecutive frames, uint8 RGB (L, H, W, 3), going on where the last call ended.

        Call `reset` before the first frame of a clip, or its labels depend on the clip before.

        Returns:
            Labels (L, H, W) and, if wanted, float16 probabilities (L, C, h, w) on a grid of a quarter of the network's
            input, stretched over the whole frame; each cell sums to 1.

        Raises:
            ShapeError: If `frames` has another shape or dtype, or another size than the clip's frames before.
            WeightsError: If the model's scores are not finite numbers.
        """
        self._check(frames)
        size = (frames.shape[1], frames.shape[2])
        labels = np.empty(frames.shape[:3], self.label_space.dtype)
        probabilities = []
        for row, logits in enumerate(self._frame_logits(frames)):
            check_finite(logits, self.location.id, self.dtype)
            best = argmax_at_size(logits, size, by_way_of=network_size(size))
            labels[row] = best.to("cpu", torch.int32).numpy()
            if self.want_probabilities:
                probabilities.append(logits.softmax(0).to("cpu", torch.float16).numpy())
        return BaseLabels(labels, np.stack(probabilities) if probabilities else None)

    def _check(self, frames: np.ndarray) -> None:
        check_frames(frames)
        size = (frames.shape[1], frames.shape[2])
        if self._size not in (None, size):
            raise ShapeError(f"frames are {size} after frames of {self._size}: call reset() between clips")
        self._size = size

    def _frame_logits(self, frames: np.ndarray) -> Iterator[Tensor]:
        """Yield the logits (C, h, w), float32, of each frame; moves on through the clip."""
        self._encode_pending()
        for start in range(0, len(frames), self.batch_size):
            for stages, fused in self._encode(frames[start : start + self.batch_size]):
                yield self._logits(stages, fused)[0].float()
                self._index += 1

    def _encode(self, frames: Sequence[np.ndarray] | np.ndarray) -> Iterator[tuple[Stages, Tensor]]:
        """Yield the stages and the fused map of each frame, (1, D, h, w)."""
        images = torch.stack([network_input(frame) for frame in frames]).to(self.device, self.dtype)
        stages = self.model.backbone(images)
        fused = self.model.decode_head.fuse(stages)
        for row in range(len(images)):
            c1, c2, c3, c4 = (stage[row : row + 1] for stage in stages)
            yield (c1, c2, c3, c4), fused[row : row + 1]

    def _logits(self, stages: Stages, fused: Tensor) -> Tensor:
        """Return the logits (1, C, h, w) of the next frame, and keep what later ones need of it."""
        head = self.model.decode_head
        if self.context == "stream":
            assert isinstance(head, Tv3sHead)
            logits, self._state = head.step(head.encode(stages, fused), self._state)
            return logits
        if self._clip_head is None:
            return head.classify(fused)
        target = self._clip_head.encode(stages, fused)
        first = self._index - len(self._earlier)
        references = [self._earlier[index - first] for index in clip_indices(self._index)[:-1]]
        self._earlier.append(target.as_reference())
        if not references:
            return head.classify(fused)
        if isinstance(self._clip_head, CffmPlusHead):
            return self._clip_head.decode([*references, target], self._prototypes)
        return cast(Tensor, self._clip_head.decode([*references, target]))

    def _encode_pending(self) -> None:
        """Encode the frames that were passed over and are still within reach."""
        for place, kept in enumerate(self._earlier):
            if isinstance(kept, np.ndarray):
                [(stages, fused)] = self._encode(kept[None])
                self._earlier[place] = self._clip_head.encode(stages, fused).as_reference()
