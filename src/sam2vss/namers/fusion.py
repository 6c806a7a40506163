"""Masklets named by a learned fusion of base votes, shapes and features, in place of the majority vote."""

import numpy as np

from ..classifiers.fusion import MaskletFusion, weigh_evidence
from ..describe import describe_window
from ..errors import SettingsError
from ..interfaces import FeatureEncoder
from ..types import BaseLabels, LabelSpace, MaskletWindow, Naming
from ..voting import ABSTAINED


class FusionNamer:
    """A `MaskletNamer` made of a fusion and, if it looks at features, an encoder.

    Args:
        network: The fusion.
        label_space: Classes of the base labels.
        encoder: The one that the fusion was trained with.

    Raises:
        SettingsError: If the encoder is missing or another one, or the classes do not fit.
    """

    def __init__(self, network: MaskletFusion, label_space: LabelSpace, encoder: FeatureEncoder | None = None) -> None:
        network.check_classes(label_space)
        found = None if encoder is None else encoder.fingerprint
        if network.is_bound and found != network.encoder_fingerprint:
            here = "none is given" if encoder is None else f"{encoder.name} here is {found}"
            raise SettingsError(
                f"the fusion was trained on features of {network.encoder_name} ({network.encoder_fingerprint}), and "
                f"{here}: take the encoder it was trained with, or train a fusion for this one"
            )
        self.network = network
        self.label_space = label_space
        self.encoder = encoder if network.is_bound else None

    def name_masklets(
        self, images: np.ndarray, base: BaseLabels, masklets: MaskletWindow, earlier: np.ndarray | None = None
    ) -> Naming:
        """Name the masklets of a window; see `MaskletNamer`. Scores are base votes, as in the majority vote."""
        known = describe_window(images, masklets, self.encoder, self.network.pooling, base, self.label_space)
        assert known.votes is not None, "base labels were given"
        evidence = weigh_evidence(self.network.hear(known), earlier)
        probabilities = self.network.predict(evidence)
        votes = known.votes.sum(axis=0)
        votes = votes if earlier is None else votes + earlier.astype(votes.dtype)
        num_classes = self.label_space.num_classes
        classes = np.full(masklets.num_masklets, ABSTAINED)
        confidence = np.zeros(masklets.num_masklets)
        decisions = probabilities.argmax(axis=1)
        classes[evidence.masklets] = np.where(decisions == num_classes, ABSTAINED, decisions)
        confidence[evidence.masklets] = probabilities.max(axis=1, initial=0)
        frame_classes = np.broadcast_to(classes, known.areas.shape).copy()
        return Naming(votes, classes, frame_classes, confidence)
