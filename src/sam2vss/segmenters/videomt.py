"""VidEoMT as a base model: frames in, the network frame by frame (`videomt_stream.py`), labels out.

Order of steps and numbers are those of the authors' online inference (tue-mps/videomt at 39411e9: videomt/videomt.py,
`videomt_online`, and the configurations of VSPW and VIPSeg).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoints import read_weights
from ..devices import choose_batch_size, choose_device, choose_dtype
from ..hub import ModelLocation
from ..types import BaseLabels, LabelSpace
from .class_names import label_space_of
from .hub_models import configured_label_space, failing_as, is_nameless, load_model
from .preprocessing import Preprocessing, resize
from .scores import NOBODYS_MASS, argmax_at_size, check_finite, check_frames
from .videomt_checkpoints import Network, load_network, refuse_instances
from .videomt_stream import QueryAnswers, QueryStream, class_scores

if TYPE_CHECKING:
    pass

PROBABILITY_STRIDE = 4  # ours: probabilities lie on every fourth pixel of the resized frame, as fine as the masks do


@dataclass(frozen=True)
class OfficialInput:
    """Frames as the authors' code feeds them for VSPW and VIPSeg.

    Attributes:
        shortest: The shorter side after resizing, in pixels.
        longest: The longer side is at most this.
        divisor: Rows and columns of the mean colour are added below and to the right, up to multiples of this.

    Source: configs/VSPW/Base_R50_720p.yaml (720), detectron2's defaults (1333), SIZE_DIVISIBILITY of the configs.
    """

    shortest: int = 720
    longest: int = 1333
    divisor: int = 32
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a frame of (height, width) is resized to, before padding; as detectron2."""
        factor = self.shortest / min(size)
        rows, columns = (self.shortest if side == min(size) else side * factor for side in size)
        if max(rows, columns) > self.longest:
            shrink = self.longest / max(rows, columns)
            rows, columns = rows * shrink, columns * shrink
        return int(rows + 0.5), int(columns + 0.5)

    def __call__(self, frames: Tensor) -> Tensor:
        """Turn uint8 RGB (L, H, W, 3) into the network's input, float32 (L, 3, h, w)."""
        size = (int(frames.shape[1]), int(frames.shape[2]))
        images = resize(frames.permute(0, 3, 1, 2), self.resized(size), "bilinear").float()
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        below, right = (math.ceil(side / self.divisor) * self.divisor - side for side in images.shape[2:])
        return functional.pad((images - mean) / std, (0, right, 0, below))


class VideomtSegmenter:
    """A VidEoMT as a `Segmenter`: the frames of a clip are one video, however they are cut into calls of `predict`.

    The queries are carried from call to call until `reset`. A query's class is decided for all frames of one call
    together, by the mean of its class logits, as the authors' code decides it for all frames that it gets at once: a
    clip in one call gives their labels, and so does a long one in pieces, which they feed in the same way. With
    `shares_classes=False` every frame decides for itself, and the cuts make no difference.

    Attributes:
        location: Where the weights lie.
        label_space: VSPW's classes for the authors' checkpoints, else the names from the model's configuration.
        names_are_guessed: Whether the classes are VSPW's by their number alone.
        preprocessing: Makes the network's input of frames.
    """

    def __init__(
        self,
        model: Network,
        preprocessing: OfficialInput | Preprocessing,
        label_space: LabelSpace,
        location: ModelLocation,
        *,
        want_probabilities: bool = False,
        batch_size: int | None = None,
        shares_classes: bool = True,
    ) -> None:
        refuse_instances(label_space.num_classes, location.id)
        parameter = next(model.parameters())
        self.location = location
        self.label_space = label_space
        self.names_are_guessed = location.path.is_file() or is_nameless(model.config)
        self.preprocessing = preprocessing
        self.device, self.dtype = parameter.device, parameter.dtype
        self.want_probabilities = want_probabilities
        self.batch_size = choose_batch_size(batch_size, self.device)
        self.shares_classes = shares_classes
        self.stream = QueryStream(model)

    @classmethod
    def from_checkpoint(
        cls,
        location: ModelLocation,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> "VideomtSegmenter":
        """Load a `.pth` file as the authors released it.

        Raises:
            WeightsError: If it cannot be read or is no VidEoMT that labels every pixel.
            SettingsError: If `device` or `dtype` is unknown or not available here.
        """
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        model = load_network(read_weights(location.path), location.path).to(device, precision)
        label_space = label_space_of(model.config.num_labels)
        return cls(
            model,
            OfficialInput(),
            label_space,
            location,
            want_probabilities=want_probabilities,
            batch_size=batch_size,
        )

    @classmethod
    def from_folder(
        cls,
        location: ModelLocation,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        want_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> "VideomtSegmenter":
        """Load a model in transformers' format; raises as `from_checkpoint` does."""
        import transformers

        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        with failing_as(location):
            config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
        preprocessing = Preprocessing.from_folder(location.path, config.model_type)
        model = load_model(location, config, preprocessing).to(device, precision)
        label_space = configured_label_space(config, location.id)
        return cls(
            model,
            preprocessing,
            label_space,
            location,
            want_probabilities=want_probabilities,
            batch_size=batch_size,
        )

    def reset(self) -> None:
        """Start a new clip."""
        self.stream.reset()

    @torch.inference_mode()
    def pass_over(self, frames: np.ndarray) -> None:
        """Carry the queries through frames, uint8 RGB (L, H, W, 3), that nobody asks the labels of."""
        check_frames(frames)
        self._answers(frames)

    @torch.inference_mode()
    def predict(self, frames: np.ndarray) -> BaseLabels:
        """Label the next frames of a clip, uint8 RGB (L, H, W, 3); keeps the features of all of them until it ends.

        Returns:
            Labels (L, H, W) and, if wanted, float16 probabilities (L, C, h, w) on a quarter of the resized frame's
            grid, stretched over the whole frame; each cell sums to 1.

        Raises:
            ShapeError: If `frames` has another shape or dtype.
            WeightsError: If the model's scores are not finite numbers.
        """
        check_frames(frames)
        size = (frames.shape[1], frames.shape[2])
        labels = np.empty(frames.shape[:3], self.label_space.dtype)
        probabilities = []
        found, input_size = self._answers(frames)
        logits = torch.stack([answers.classes for answers in found])
        if self.shares_classes:
            logits = logits.mean(0, keepdim=True).expand_as(logits)
        for row, answers in enumerate(found):
            classes = logits[row].softmax(-1)[:, :-1]
            scores = class_scores(self.stream.masks(answers), classes, input_size, self.preprocessing.resized(size))
            check_finite(scores, self.location.id, self.dtype)
            labels[row] = argmax_at_size(scores, size).to("cpu", torch.int32).numpy()
            if self.want_probabilities:
                probabilities.append(_probabilities(scores))
        return BaseLabels(labels, np.stack(probabilities) if probabilities else None)

    def _answers(self, frames: np.ndarray) -> tuple[list[QueryAnswers], tuple[int, int]]:
        """Run the network over the frames; also return the (height, width) of its input."""
        found: list[QueryAnswers] = []
        input_size = (0, 0)
        for start in range(0, len(frames), self.batch_size):
            batch = torch.from_numpy(np.array(frames[start : start + self.batch_size])).to(self.device)
            pixels = self.preprocessing(batch).to(self.dtype)
            input_size = (int(pixels.shape[2]), int(pixels.shape[3]))
            found += self.stream.push(pixels)
        return found, input_size


def _probabilities(scores: Tensor) -> np.ndarray:
    """Bring class scores (C, h, w) to a coarser grid and make each cell sum to 1; float16."""
    rows, columns = (math.ceil(side / PROBABILITY_STRIDE) for side in scores.shape[1:])
    cells = functional.adaptive_avg_pool2d(scores, (rows, columns)) + NOBODYS_MASS
    return (cells / cells.sum(0)).to("cpu", torch.float16).numpy()
