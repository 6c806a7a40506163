"""Learned fusion in place of the fixed majority (paper Sec. 5): a masklet's class, and whether it paints at all.

The network sees a masklet's votes as a histogram over classes, how they lie over its frames, the mask's shape and
quality and, if it was made for one encoder and label set, its pooled features. Votes are judged class by class with the
same weights for every class, so without features it serves any label set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingsError, ShapeError
from ..masklet_features import MaskletFeatures
from ..pooling import Pooling
from ..settings import PoolingPart
from ..types import LabelSpace
from .classifier import MaskletClassifier
from .heads import FeatureScale
from .samples import SHAPE_NAMES, feature_columns, frame_weights, make_samples
from .saving import SavedNetwork, card_head, card_table, check_dropout

EVIDENCE_NAMES = ("share", "log share", "share of probability", "share of frames", "margin")
SIGN_NAMES = ("entropy", "largest share", "second share", "entropy in frames", "classes", "log votes")
_SMALL = 1e-3  # share of votes that stands for none in a logarithm
IMPOSSIBLE = -1e4  # logit of a decision that the network cannot take


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the fusion sees of M masklets; each has at least one frame with a mask.

    Attributes:
        masklets: int64 (M,), positions in the window.
        votes: float32 (M, C, 5), what speaks for each class, in the order of `EVIDENCE_NAMES`.
        signs: float32 (M, 17), shape and quality (`SHAPE_NAMES`) and how the votes are spread (`SIGN_NAMES`).
        features: float32 (M, F), pooled over the window.
    """

    masklets: np.ndarray
    votes: np.ndarray
    signs: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.masklets)


def weigh_evidence(known: MaskletFeatures, earlier: np.ndarray | None = None) -> Evidence:
    """Collect what the fusion sees of the masklets of a window.

    Args:
        known: N masklets over L frames, with votes.
        earlier: (N, C) votes of earlier windows, which are added.

    Raises:
        ShapeError: If there are no votes.

    Source: ours.
    """
    if known.votes is None:
        raise ShapeError("the fusion weighs votes, and there are none: it needs base labels")
    samples = make_samples(known, "window", "quality")
    rows = samples.masklets
    by_frame = known.votes[:, rows].astype(np.float64)  # (L, M, C)
    votes = by_frame.sum(axis=0) + (0 if earlier is None else earlier[rows])
    totals = votes.sum(axis=1)
    shares = _shares(votes)
    masses = shares if known.masses is None else _shares(known.masses[:, rows].sum(axis=0, dtype=np.float64))
    weights = frame_weights(known, "quality")[:, rows]
    leads = np.zeros_like(by_frame)
    frames, masklets = np.nonzero(by_frame.sum(axis=2) > 0)
    leads[frames, masklets, by_frame[frames, masklets].argmax(axis=1)] = 1
    lead_shares = _shares(np.einsum("lm,lmc->mc", weights, leads))
    ordered = np.sort(shares, axis=1)
    second = ordered[:, -2] if shares.shape[1] > 1 else np.zeros(len(rows))
    others = np.where(shares == ordered[:, -1:], second[:, None], ordered[:, -1:])  # the best of all other classes
    frame_entropy = (weights * _entropy(_shares(by_frame))).sum(axis=0) / weights.sum(axis=0)
    log_votes = np.log10(np.maximum(totals / (known.size[0] * known.size[1] * known.window.length), 1e-6)) / 6 + 0.5
    signs = (
        _entropy(shares),
        ordered[:, -1],
        second,
        frame_entropy,
        np.minimum((shares > 0.05).sum(axis=1), 5) / 5,
        log_votes,
    )
    evidence = (shares, np.log(shares + _SMALL), masses, lead_shares, shares - others)
    return Evidence(
        masklets=rows,
        votes=np.stack(evidence, axis=-1).astype(np.float32),
        signs=np.concatenate([samples.shapes, np.stack(signs, axis=-1)], axis=1).astype(np.float32),
        features=samples.features,
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    """Divide by the sum over the last axis; zeros where it is zero."""
    totals = counts.sum(axis=-1, keepdims=True)
    shares: np.ndarray = counts / np.where(totals > 0, totals, 1)
    return shares


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy over the last axis in units of its largest value for two classes (bits)."""
    entropy: np.ndarray = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)
    return entropy


def hear_classifier(classifier: MaskletClassifier, known: MaskletFeatures) -> MaskletFeatures:
    """Put a classifier's probabilities, float32 (L, N, C), in the place of the features that it looks at."""
    opinions = classifier.predict_frames(known).astype(np.float32)
    return replace(known, features=opinions, tokens=known.tokens[..., :0, :0])


class MaskletFusion(SavedNetwork):
    """Decides a masklet's class from base votes and, if made so, from pooled features; or leaves the base labels.

    Untrained it is the majority vote, which leaves the base labels where no class has 22 % of the votes. Without
    features it chooses among the classes that have votes; where there are none, base labels stay.

    Args:
        label_set: `LabelSpace.to_dict()` of the classes it was trained on; it is bound to them if it uses features.
        classifier: config.json of a `MaskletClassifier` that it hears, in place of features; its weights become part of
            the fusion. None: it hears none.
        encoder: Encoder of the features, see `MaskletClassifier`; None: no features, any label set.
        stored_parts: Parts in the features that come in.
        parts: Those of them that are used.
        levels: Levels that are used; () means all.
        hidden: Width of the hidden layers.
        dropout: Of the hidden layers in training.
        may_keep: Whether it may leave the base labels.
        known_classes: Classes that were right for some training masklet; features say nothing for others. Default: all.
        training: How and on what it was trained, and its scores, for the card.
        format: What a saved config.json says it is.
    """

    format = "sam2vss masklet fusion 1"

    def __init__(
        self,
        *,
        label_set: dict[str, Any],
        classifier: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        stored_parts: Sequence[PoolingPart] = ("mean",),
        parts: Sequence[PoolingPart] = ("mean",),
        levels: Sequence[str] = (),
        hidden: int = 64,
        dropout: float = 0.1,
        may_keep: bool = True,
        known_classes: Sequence[int] = (),
        training: dict[str, Any] | None = None,
        format: str = format,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.label_space = LabelSpace.from_dict(label_set)
        self.pooling = Pooling(tuple(stored_parts))
        self.may_keep = may_keep
        self.training_record = dict(training or {})
        self.encoder_name = str(encoder["name"]) if encoder else None
        self.encoder_fingerprint = str(encoder["fingerprint"]) if encoder else None
        self.classifier: MaskletClassifier | None = None
        if classifier is not None:
            if encoder is not None:
                raise SettingsError("a fusion looks at features, or hears a classifier that does; not both")
            self.classifier = MaskletClassifier(**classifier).requires_grad_(False)
            self.encoder_name = self.classifier.encoder_name
            self.encoder_fingerprint = self.classifier.encoder_fingerprint
            self.pooling = self.classifier.pooling
        self.columns = np.zeros(0, np.int64)
        self.num_stored = 0
        if encoder is not None:
            channels = [int(width) for width in encoder["channels"]]
            names = list(encoder["level_names"])
            self.columns = feature_columns(stored_parts, channels, names, parts, levels or names)
            self.num_stored = len(stored_parts) * sum(channels)
        self.scale = FeatureScale(len(self.columns))
        num_signs = len(SHAPE_NAMES) + len(SIGN_NAMES)
        self.look = nn.Sequential(nn.Linear(num_signs, hidden), nn.GELU(), nn.Dropout(dropout))
        self.judge = nn.Sequential(
            nn.Linear(len(EVIDENCE_NAMES) + (2 if classifier else 0) + hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        self.keep = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.keep_offset = nn.Parameter(torch.tensor(-3.0))
        self.is_known = torch.ones(self.label_space.num_classes + 1, dtype=torch.bool)  # the last one: leaving the base
        if known_classes:
            self.is_known[:-1] = False
            self.is_known[list(known_classes)] = True
        self.name: nn.Module | None = None
        if encoder is not None:
            num_inputs = len(self.columns) + num_signs + self.label_space.num_classes
            self.name = nn.Sequential(
                nn.Linear(num_inputs, 2 * hidden),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * hidden, self.label_space.num_classes + 1),
            )
        lasts = [self.judge[-1], self.keep[-1]] + ([] if self.name is None else [self.name[-1]])
        for parameter in (parameter for layer in lasts for parameter in layer.parameters()):
            nn.init.zeros_(parameter)  # begins as the majority vote

    @property
    def is_bound(self) -> bool:
        """Whether it serves only the label set and the encoder that it was trained with."""
        return self.name is not None or self.classifier is not None

    def hear(self, known: MaskletFeatures) -> MaskletFeatures:
        """Let the fusion's classifier speak, see `hear_classifier`; without one nothing changes."""
        return known if self.classifier is None else hear_classifier(self.classifier, known)

    def train(self, mode: bool = True) -> "MaskletFusion":
        """Switch dropout on or off; the classifier's stays off."""
        super().train(mode)
        if self.classifier is not None:
            self.classifier.eval()
        return self

    def fit_scale(self, features: np.ndarray) -> None:
        """Measure the training features, float32 (M, F), before the first step."""
        if self.name is not None:
            self.scale.fit(features[:, self.columns])

    def forward(self, votes: Tensor, signs: Tensor, features: Tensor) -> Tensor:
        """Return logits (M, C + 1) of the classes and, last, of leaving the base labels; arguments as in `Evidence`.

        Features are a classifier's probabilities (M, C) where there is one, see `hear`.
        """
        seen = self.look(signs)  # (M, hidden)
        evidence = [votes, seen[:, None].expand(-1, votes.shape[1], -1)]
        if self.classifier is not None:
            evidence.append(torch.stack([features, (features + _SMALL).log()], dim=-1))
        logits = 2 * votes[..., 1] + self.judge(torch.cat(evidence, dim=-1))[..., 0]
        keep = self.keep(seen)[:, 0] + self.keep_offset
        if not self.is_bound:
            logits = logits.masked_fill(votes[..., 0] <= 0, IMPOSSIBLE)
        if self.name is not None:
            named = self.name(torch.cat([self.scale(features), signs, votes[..., 0]], dim=1))
            named = named.masked_fill(~self.is_known.to(named.device), 0)
            logits, keep = logits + named[:, :-1], keep + named[:, -1]
        if not self.may_keep:
            keep = torch.full_like(keep, IMPOSSIBLE)
        if not self.is_bound:
            keep = keep.masked_fill((votes[..., 0] <= 0).all(dim=1), 0.0)  # there is nothing to choose from
        return torch.cat([logits, keep[:, None]], dim=1)

    def to_tensors(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """Bring evidence to the network's device, in the order that `forward` takes."""
        expected = self.num_stored if self.classifier is None else evidence.votes.shape[1]
        if self.is_bound and evidence.features.shape[1] != expected:
            raise ShapeError(f"features have {evidence.features.shape[1]} columns, expected {expected}")
        features = evidence.features if self.classifier is not None else evidence.features[:, self.columns]
        arrays = (evidence.votes, evidence.signs, features)
        tensors = [torch.from_numpy(np.ascontiguousarray(array)).to(self.scale.mean.device) for array in arrays]
        return tensors[0], tensors[1], tensors[2]

    @torch.inference_mode()
    def predict(self, evidence: Evidence) -> np.ndarray:
        """Return probabilities of the classes and, last, of leaving the base labels, float64 (M, C + 1).

        Puts the network in evaluation mode.
        """
        if not len(evidence):
            return np.zeros((0, evidence.votes.shape[1] + 1))
        self.eval()  # dropout is for training only
        return F.softmax(self(*self.to_tensors(evidence)).double(), dim=1).cpu().numpy()

    def check_classes(self, label_space: LabelSpace) -> None:
        """Raise `SettingsError` unless the network can be used with base labels of these classes."""
        if self.is_bound and label_space.names != self.label_space.names:
            raise SettingsError(
                f"this fusion was trained for the {self.label_space.num_classes} classes of "
                f"{self.label_space.name or 'its label set'} and looks at features, and the base labels have "
                f"{label_space.num_classes} classes ({label_space.name or 'another label set'}): train one for them, "
                "or take one without features"
            )

    def card_text(self) -> str:
        """Return the model card: what it does, on what it was trained, how well."""
        training: Mapping[str, Any] = self.training_record
        intro = (
            f"# Masklet fusion, trained on {self.label_space.name or 'classes'}\n\n"
            "Decides for every SAM 2 masklet of a video which class it gets, or that the base labels stay, in place of "
            "a majority vote. Made by `sam2vss train fusion`, used by `sam2vss refine --fusion`.\n"
        )
        what = {
            "label set": self.label_space.names if self.is_bound else "any",
            "features": self.encoder_name or "none",
            "hears a classifier": "no" if self.classifier is None else self.classifier.about["head"],
            "may leave the base labels": "yes" if self.may_keep else "no",
        }
        return (
            card_head(["image-classification"])
            + intro
            + card_table("The network", what)
            + card_table("Training data", training.get("data", {}))
            + card_table("Recipe", training.get("recipe", {}))
            + card_table("Scores of validation, fractions", training.get("scores", {}))
            + "\nThe licence of the weights follows from that of the training data and of the encoder.\n"
        )
