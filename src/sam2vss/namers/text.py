"""Masklets named by text: crops and masks are compared with phrases in the space of a model of images and text.

Nothing is trained. What the classes are called is `namers/vocabulary.py`, the models are `encoders/image_text.py`.
"""

import numpy as np
from pycocotools import mask as coco_mask

from ..classifiers.samples import frame_weights
from ..describe import describe_window
from ..errors import SettingsError
from ..interfaces import ImageTextModel
from ..mask_runs import decode_runs, pool_areas
from ..masklet_features import MaskletFeatures
from ..pooling import pool_mean
from ..settings import DEFAULT_TEXT_MODEL, TextSettings
from ..types import BaseLabels, MaskletWindow, Naming
from ..voting import choose_classes, vote_shares
from .crops import square_crop
from .vocabulary import Vocabulary

DEFAULTS = TextSettings()


class TextNamer:
    """A `MaskletNamer` made of a model of images and text, and a vocabulary.

    A masklet is looked at in a few frames. In each, the cosine between it and every phrase is that of a crop around its
    mask, and that of the features pooled over its mask (Eq. 3), mixed. The best phrase of a class counts for the class.
    A softmax over all classes, at the scale the model was trained with, gives probabilities, which are summed.

    Args:
        model: Puts pictures and phrases into one space.
        vocabulary: The classes.
        views: Frames of a window in which a masklet is looked at.
        crop_weight: Weight of crops beside pooled features, [0, 1]; at 0 or 1 the other one is not computed.
        margin: Crops grow by this share of the box's longer side on every side.
        fade: How far crops fade to the model's mean colour outside the mask, [0, 1].
        min_share: Below this mean probability a masklet abstains.

    Raises:
        SettingsError: If a number is out of its range.
        LabelError: If a phrase is too long for the model.

    Source: crops of masks named by CLIP as in Xu et al. 2022 ("A Simple Baseline for Open-Vocabulary Semantic
    Segmentation ..."); how frames and evidence are chosen and mixed is ours (docs/method.md, "Open vocabulary").
    """

    def __init__(
        self,
        model: ImageTextModel,
        vocabulary: Vocabulary,
        views: int = DEFAULTS.views,
        crop_weight: float = DEFAULTS.crop_weight,
        margin: float = DEFAULTS.margin,
        fade: float = DEFAULTS.fade,
        min_share: float = 0.0,
    ) -> None:
        if views < 1:
            raise SettingsError(f"a masklet is to be looked at in {views} frames, expected 1 or more")
        for what, value, highest in (
            ("the weight of crops", crop_weight, 1),
            ("the fading of crops", fade, 1),
            ("the margin of crops", margin, 4),
            ("the least share", min_share, 1),
        ):
            if not 0 <= value <= highest:
                raise SettingsError(f"{what} is {value}, expected 0 to {highest}")
        self.model = model
        self.vocabulary = vocabulary
        self.label_space = vocabulary.label_space
        self.views, self.crop_weight, self.margin, self.fade = views, crop_weight, margin, fade
        self.min_share = min_share
        self._phrases = embed_phrases(model, vocabulary)
        counts = [len(phrases) for phrases in vocabulary.phrases]
        self._first_phrases = np.cumsum([0, *counts[:-1]])  # of each class

    def name_masklets(
        self, images: np.ndarray, base: BaseLabels, masklets: MaskletWindow, earlier: np.ndarray | None = None
    ) -> Naming:
        """Name the masklets of a window; see `MaskletNamer`. Base labels are not looked at.

        Scores are probabilities, summed over the frames looked at: a row sums to their number.
        """
        known = describe_window(images, masklets)
        is_chosen = choose_views(known, self.views)
        scores = np.zeros((masklets.num_masklets, self.label_space.num_classes))
        for t in np.flatnonzero(is_chosen.any(axis=1)):
            rows = np.flatnonzero(is_chosen[t])
            scores[rows] += self._probabilities(images[t], masklets, known, int(t), rows)
        if earlier is not None:
            scores = scores + earlier
        classes = choose_classes(scores, self.min_share)
        frame_classes = np.broadcast_to(classes, known.areas.shape).copy()
        return Naming(scores, classes, frame_classes, vote_shares(scores))

    def _probabilities(
        self, image: np.ndarray, masklets: MaskletWindow, known: MaskletFeatures, t: int, rows: np.ndarray
    ) -> np.ndarray:
        """Return class probabilities of some masklets in one frame, float64 (M, C)."""
        cosines = np.zeros((len(rows), len(self._phrases)))
        if self.crop_weight > 0:
            crops = self._crops(image, masklets, known, t, rows)
            cosines += self.crop_weight * (self.model.embed_images(crops) @ self._phrases.T)
        if self.crop_weight < 1:
            cells = self.model.embed_map(image)
            runs = decode_runs([masklets.rles[t][row] for row in rows], masklets.size)
            pooled = unit_rows(pool_mean(cells, pool_areas(runs, (cells.shape[1], cells.shape[2]))))
            cosines += (1 - self.crop_weight) * (pooled @ self._phrases.T)
        by_class = np.maximum.reduceat(cosines, self._first_phrases, axis=1)
        return softmax(self.model.logit_scale * by_class)

    def _crops(
        self, image: np.ndarray, masklets: MaskletWindow, known: MaskletFeatures, t: int, rows: np.ndarray
    ) -> list[np.ndarray]:
        height, width = masklets.size
        boxes = np.rint(known.boxes_xyxy[t] * [width, height, width, height]).astype(int).tolist()
        return [
            square_crop(
                image,
                coco_mask.decode(masklets.rles[t][row]).astype(bool),
                tuple(boxes[row]),
                self.model.mean_color,
                self.margin,
                self.fade,
            )
            for row in rows
        ]


def load_text_namer(
    vocabulary: Vocabulary,
    text_model: str = DEFAULT_TEXT_MODEL,
    device: str = "cpu",
    dtype: str = "float32",
    views: int = DEFAULTS.views,
    crop_weight: float = DEFAULTS.crop_weight,
    margin: float = DEFAULTS.margin,
    fade: float = DEFAULTS.fade,
    min_share: float = 0.0,
) -> tuple[TextNamer, dict[str, str]]:
    """Load a model of images and text and make a namer of it.

    Args:
        vocabulary: The classes.
        text_model: Alias, hub id or folder, as for `encoders.image_text.load_text_model`.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
        views: This and what follows as for `TextNamer`.
        crop_weight: Weight of crops beside pooled features.
        margin: Growth of crops.
        fade: Fading of crops.
        min_share: Below this mean probability a masklet abstains.

    Returns:
        The namer, and the SHA-256 of every file of weights by "model/file", for the record.

    Raises:
        Sam2VssError: As `load_text_model` and `TextNamer` do.
    """
    from ..encoders.image_text import load_text_model

    model = load_text_model(text_model, device, dtype)
    namer = TextNamer(model, vocabulary, views, crop_weight, margin, fade, min_share)
    location = model.location
    return namer, {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}


def embed_phrases(model: ImageTextModel, vocabulary: Vocabulary) -> np.ndarray:
    """Return a unit vector for every phrase, float32 (P, D), class by class: the mean over all templates.

    Source: prompt ensembling in the space of embeddings, Radford et al. 2021, Sec. 3.1.4.
    """
    phrases = [phrase for own in vocabulary.phrases for phrase in own]
    texts = [template.replace("{}", phrase) for phrase in phrases for template in vocabulary.templates]
    vectors = model.embed_texts(texts)
    return unit_rows(vectors.reshape(len(phrases), len(vocabulary.templates), -1).mean(axis=1))


def choose_views(known: MaskletFeatures, count: int) -> np.ndarray:
    """Choose the frames in which masklets are looked at, bool (L, N).

    The frames in which a masklet is seen are cut into `count` stretches of equal length, and of each the best frame is
    taken, by `classifiers.samples.frame_weights`: large, certain and not cut off. The best frames of all would be
    neighbours that show the same. Of equals the earlier one is taken.

    Source: ours.
    """
    weights = frame_weights(known, "quality")
    is_chosen = np.zeros(weights.shape, bool)
    for masklet in range(weights.shape[1]):
        frames = np.flatnonzero(weights[:, masklet])
        for stretch in np.array_split(frames, min(count, len(frames)) or 1):
            if len(stretch):
                is_chosen[stretch[weights[stretch, masklet].argmax()], masklet] = True
    return is_chosen


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (M, D) to length 1, float32; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: np.ndarray = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits (M, C) into probabilities, float64 (M, C)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares
