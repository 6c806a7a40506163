"""Masklets named by a classifier of their features (I-SAM2, paper Sec. 3.1.2), alone or together with base votes."""

import numpy as np

from ..classifiers.classifier import MaskletClassifier, mix_votes
from ..classifiers.samples import Samples, make_samples
from ..describe import describe_window
from ..errors import SettingsError
from ..interfaces import FeatureEncoder
from ..masklet_features import MaskletFeatures
from ..settings import VoteScope
from ..types import BaseLabels, MaskletWindow, Naming
from ..voting import choose_classes, vote_shares


class ClassifierNamer:
    """A `MaskletNamer` made of an encoder and a classifier.

    Args:
        encoder: The one that the classifier was trained with.
        classifier: Names masks (scope "frame") or masklets (scope "window").
        vote: Paint one class per masklet and window, or per frame; None: as the classifier was trained.
        vote_weight: Weight of base votes beside the classifier, [0, 1]; 0: base labels only fill uncovered pixels.
        min_share: Below this probability a masklet abstains.

    Raises:
        SettingsError: If the encoder is another one, or options do not fit the classifier.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        classifier: MaskletClassifier,
        vote: VoteScope | None = None,
        vote_weight: float = 0.0,
        min_share: float = 0.0,
    ) -> None:
        classifier.check_encoder(encoder)
        if vote == "frame" and classifier.scope == "window":
            raise SettingsError(
                "this classifier names whole masklets (scope window), so it has no class per frame: leave --vote out"
            )
        if not 0 <= vote_weight <= 1:
            raise SettingsError(f"the weight of base votes is {vote_weight}, expected 0 to 1")
        self.encoder = encoder
        self.classifier = classifier
        self.vote = vote or classifier.scope
        self.vote_weight = vote_weight
        self.min_share = min_share

    def name_masklets(
        self, images: np.ndarray, base: BaseLabels, masklets: MaskletWindow, earlier: np.ndarray | None = None
    ) -> Naming:
        """Name the masklets of a window; see `MaskletNamer`.

        Scores are class probabilities, summed over the frames in which a masklet is seen.
        """
        network = self.classifier
        voting = base if self.vote_weight else None
        known = describe_window(images, masklets, self.encoder, network.pooling, voting, network.label_space)
        samples = make_samples(known, network.scope, network.weighting)
        rows = self._with_votes(network.predict(samples), samples, known)
        probabilities = network.by_frame(rows, samples, known)  # (L, N, C)
        scores = probabilities.sum(axis=0)
        if earlier is not None:
            scores = scores + earlier
        classes = choose_classes(scores, self.min_share)
        by_frame = choose_classes(probabilities, self.min_share) if self.vote == "frame" else classes
        frame_classes = np.broadcast_to(by_frame, known.areas.shape).copy()
        return Naming(scores, classes, frame_classes, vote_shares(scores))

    def _with_votes(self, rows: np.ndarray, samples: Samples, known: MaskletFeatures) -> np.ndarray:
        """Mix probabilities (M, C) with the shares of the base votes under the same masks; without votes they stay."""
        if known.votes is None or not len(rows):
            return rows
        if self.classifier.scope == "frame":
            votes = known.votes[samples.frames, samples.masklets]
        else:
            votes = known.votes.sum(axis=0)[samples.masklets]
        return mix_votes(rows, votes, self.vote_weight)
