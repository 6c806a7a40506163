"""The classifier of masklets: pooled features in, class scores out (paper Sec. 3.1.2), with what belongs to it.

A saved classifier knows its classes, its encoder and how features were pooled, so that it can be used with nothing else
and refuses what does not fit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import SettingsError, ShapeError
from ..interfaces import FeatureEncoder
from ..masklet_features import MaskletFeatures
from ..pooling import Pooling
from ..settings import FrameWeighting, HeadName, PoolingPart, VoteScope
from ..types import LabelSpace
from .heads import NUM_HEADS, AttentionPool, ContextHead, FeatureScale, PlainHead
from .samples import SHAPE_NAMES, Samples, feature_columns, make_samples
from .saving import SavedNetwork, card_head, card_table, check_dropout

_NEVER = -1e4  # logit of a class that no training masklet had


class MaskletClassifier(SavedNetwork):
    """Names masklets of one label set from the features of one encoder.

    Args:
        label_set: `LabelSpace.to_dict()` of the classes.
        encoder: Name, fingerprint, level names and channels of the encoder that the features are of.
        stored_parts: Parts in the features that come in, see `pooling.Pooling`.
        parts: Those of them that are used.
        levels: Levels that are used.
        tokens: Cells per masklet for attention pooling; 0: none.
        uses_shape: Position, size and quality of the masks are inputs too.
        head: "linear", "mlp" (the paper's) or "context".
        scope: "frame" (Eq. 3) or "window"; see `samples.make_samples`.
        weighting: How the frames of a window are averaged.
        hidden: Width of the hidden layer.
        dropout: Of the hidden layer in training.
        known_classes: Classes that training masklets had; others are never given. Default: all.
        vote_weight: Weight of base votes beside the classifier that served validation clips best; None: not measured.
        training: How and on what it was trained, and its scores, for the card.
        format: What a saved config.json says it is.

    Raises:
        SettingsError: If options are unknown or do not go together.
        WeightsError: If parts or levels are asked for that the features do not hold.
    """

    format = "sam2vss masklet classifier 1"

    def __init__(
        self,
        *,
        label_set: dict[str, Any],
        encoder: dict[str, Any],
        stored_parts: Sequence[PoolingPart] = ("mean",),
        parts: Sequence[PoolingPart] = ("mean",),
        levels: Sequence[str] = (),
        tokens: int = 0,
        uses_shape: bool = False,
        head: HeadName = "mlp",
        scope: VoteScope = "frame",
        weighting: FrameWeighting = "uniform",
        hidden: int = 256,
        dropout: float = 0.1,
        known_classes: Sequence[int] = (),
        vote_weight: float | None = None,
        training: dict[str, Any] | None = None,
        format: str = format,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        _check_choice("head", head, get_args(HeadName))
        _check_choice("scope", scope, get_args(VoteScope))
        _check_choice("weighting", weighting, get_args(FrameWeighting))
        if hidden < 1 or (head == "context" and hidden % NUM_HEADS):
            raise SettingsError(f"the hidden layer is {hidden} wide, expected a multiple of {NUM_HEADS}")
        self.label_space = LabelSpace.from_dict(label_set)
        self.encoder_name = str(encoder["name"])
        self.encoder_fingerprint = str(encoder["fingerprint"])
        level_names, channels = tuple(encoder["level_names"]), tuple(int(d) for d in encoder["channels"])
        self.pooling = Pooling(tuple(stored_parts), tokens)
        self.columns = feature_columns(stored_parts, channels, level_names, parts, levels or level_names)
        self.num_stored = len(stored_parts) * sum(channels)
        self.scope, self.weighting = scope, weighting
        self.uses_shape = uses_shape
        self.vote_weight = None if vote_weight is None else _as_weight(vote_weight)
        self.about = {"head": head, "parts": list(parts), "levels": list(levels or level_names)}
        self.training_record = dict(training or {})
        num_classes = self.label_space.num_classes
        known = sorted(known_classes) or list(range(num_classes))
        if not all(0 <= label < num_classes for label in known):
            raise SettingsError(f"known classes are {known}, expected numbers below {num_classes}")
        self.known_classes = tuple(known)
        num_inputs = len(self.columns)
        self.scale = FeatureScale(num_inputs)
        if tokens and channels[0] % NUM_HEADS:
            raise SettingsError(
                f"attention pooling needs a first level of a multiple of {NUM_HEADS} channels, and {self.encoder_name} "
                f"has {channels[0]}: leave the tokens out"
            )
        self.pool = AttentionPool(channels[0]) if tokens else None
        num_inputs += channels[0] * bool(tokens) + len(SHAPE_NAMES) * uses_shape
        if head == "context":
            self.head: nn.Module = ContextHead(num_inputs, num_classes, hidden, dropout)
        else:
            self.head = PlainHead(num_inputs, num_classes, hidden * (head == "mlp"), dropout)

    def fit_scale(self, features: np.ndarray) -> None:
        """Measure the training features, float32 (M, F), before the first step."""
        self.scale.fit(features[:, self.columns])

    def forward(self, features: Tensor, tokens: Tensor, shapes: Tensor, groups: Tensor) -> Tensor:
        """Return logits (M, C) of rows; arguments as in `Samples`, features with the chosen columns only."""
        inputs = [self.scale(features)]
        if self.pool is not None:
            inputs.append(self.pool(tokens))
        if self.uses_shape:
            inputs.append(shapes)
        logits = self.head(torch.cat(inputs, dim=1), groups)
        is_unknown = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        is_unknown[list(self.known_classes)] = False
        return logits.masked_fill(is_unknown, _NEVER)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def predict(self, samples: Samples) -> np.ndarray:
        """Return class probabilities, float64 (M, C); puts the network in evaluation mode.

        Raises:
            ShapeError: If the features are not those that the classifier was made for.
        """
        self.check_samples(samples)
        if not len(samples):
            return np.zeros((0, self.label_space.num_classes))
        self.eval()  # dropout is for training only
        logits = self(*self.to_tensors(samples))
        return logits.double().softmax(dim=1).cpu().numpy()  # type: ignore[no-any-return]

    def predict_frames(self, known: MaskletFeatures) -> np.ndarray:
        """Return the class probabilities of every mask, float64 (L, N, C); errors as of `predict`."""
        samples = make_samples(known, self.scope, self.weighting)
        return self.by_frame(self.predict(samples), samples, known)

    def by_frame(self, rows: np.ndarray, samples: Samples, known: MaskletFeatures) -> np.ndarray:
        """Give rows (M, C) of samples to the masks that they are of, float64 (L, N, C); zeros where there is no mask.

        With scope "window" a masklet's row stands in all its frames.
        """
        placed = np.zeros((*known.areas.shape, rows.shape[1]))
        if self.scope == "frame":
            placed[samples.frames, samples.masklets] = rows
        else:
            placed[:, samples.masklets] = rows * known.is_visible[:, samples.masklets, None]
        return placed

    def check_samples(self, samples: Samples) -> None:
        """Raise `ShapeError` unless features, and tokens where they are used, have the expected sizes."""
        num_features, num_tokens = samples.features.shape[1], samples.tokens.shape[1]
        if num_features != self.num_stored or (self.pool is not None and num_tokens != self.pooling.tokens):
            raise ShapeError(
                f"features have {num_features} columns and {num_tokens} tokens, the classifier was made for "
                f"{self.num_stored} and {self.pooling.tokens}"
            )

    def to_tensors(self, samples: Samples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bring rows to the network's device, in the order that `forward` takes."""
        device = self.scale.mean.device
        arrays = (samples.features[:, self.columns], samples.tokens, samples.shapes, samples.groups)
        features, tokens, shapes, groups = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return features.to(device), tokens.to(device), shapes.to(device), groups.to(device)

    def check_encoder(self, encoder: FeatureEncoder) -> None:
        """Raise `SettingsError` unless features come from the encoder that the classifier was trained on."""
        if encoder.fingerprint != self.encoder_fingerprint:
            raise SettingsError(
                f"the classifier was trained on features of {self.encoder_name} ({self.encoder_fingerprint}), and "
                f"{encoder.name} here is {encoder.fingerprint}: other weights, levels or preprocessing. Take the "
                "encoder it was trained with, or train a classifier for this one"
            )

    def note(self, *, vote_weight: float | None = None, training: Mapping[str, Any] | None = None) -> None:
        """Keep what is known only after training, so that `save_pretrained` writes it.

        Args:
            vote_weight: Weight of base votes that served best, [0, 1]; None leaves what is known.
            training: For the card: "data", "recipe" and "scores", tables of JSON types; None leaves what is known.

        Raises:
            SettingsError: If the weight lies outside [0, 1].
        """
        if vote_weight is not None:
            self.vote_weight = self.config["vote_weight"] = _as_weight(vote_weight)
        if training is not None:
            self.note_training(training)

    def card_text(self) -> str:
        """Return the model card: what it does, on what it was trained, how well."""
        training: Mapping[str, Any] = self.training_record
        intro = (
            f"# Masklet classifier: {self.label_space.name or 'classes'} from {self.encoder_name}\n\n"
            f"Names the SAM 2 masklets of a video with one of {self.label_space.num_classes} classes, from features of "
            f"`{self.encoder_name}`. Made by `sam2vss train classifier`, used by `sam2vss classify --classifier`.\n"
        )
        what: dict[str, Any] = {**self.about, "scope": self.scope, "encoder fingerprint": self.encoder_fingerprint}
        what |= {"classes": self.label_space.names, "without training masklets": self.unknown_names}
        what["learned weight of base votes"] = "no base votes" if self.vote_weight is None else self.vote_weight
        return (
            card_head(["image-classification"])
            + intro
            + card_table("The network", what)
            + card_table("Training data", training.get("data", {}))
            + card_table("Recipe", training.get("recipe", {}))
            + card_table("Scores of validation, fractions", training.get("scores", {}))
            + "\nThe licence of the weights follows from that of the training data and of the encoder.\n"
        )

    @property
    def unknown_names(self) -> list[str]:
        """Classes without a training masklet, which are never given."""
        return [name for label, name in enumerate(self.label_space.names) if label not in self.known_classes]


def mix_votes(probabilities: np.ndarray, votes: np.ndarray, weight: float) -> np.ndarray:
    """Mix class probabilities with the shares of base votes under the same masks, float64 (M, C).

    Args:
        probabilities: (M, C).
        votes: (M, C); rows without votes keep their probabilities.
        weight: Of the votes, [0, 1].

    Source: ours.
    """
    totals = votes.sum(axis=1, keepdims=True)
    weights = weight * (totals > 0)
    mixed: np.ndarray = (1 - weights) * probabilities + weights * votes / np.maximum(totals, 1)
    return mixed


def _check_choice(name: str, found: object, known: tuple[str, ...]) -> None:
    if found not in known:
        raise SettingsError(f"the {name} of a classifier is {found!r}, expected one of {', '.join(known)}")


def _as_weight(weight: float) -> float:
    if not 0 <= weight <= 1:
        raise SettingsError(f"the weight of base votes is {weight}, expected 0 to 1")
    return float(weight)


def describe_encoder(encoder: FeatureEncoder) -> dict[str, Any]:
    """Return what a classifier keeps of its encoder, as JSON types."""
    return {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "level_names": list(encoder.level_names),
        "channels": list(encoder.channels),
    }
