from collections.abc import Sequence

import numpy as np
import pytest

from sam2vss.describe import describe_window
from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.namers.text import TextNamer, choose_views, load_text_namer
from sam2vss.namers.vocabulary import Vocabulary
from sam2vss.types import BaseLabels, MaskletWindow
from sam2vss.voting import paint_window
from tiny_image_text import FAMILIES, save_tiny_image_text

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "white": (255, 255, 255)}
VOCABULARY = Vocabulary.from_text("red,green,blue")


class ColorModel:
    """A model of images and text whose space is colour: a picture's vector is its mean colour, off grey."""

    logit_scale = 20.0
    mean_color = np.array([128, 128, 128], np.uint8)

    def __init__(self, cells: tuple[int, int] = (8, 8)) -> None:
        self.cells = cells
        self.crops: list[np.ndarray] = []
        self.maps = 0

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        words = [set(text.strip(".").split()) for text in texts]
        return self._unit([np.mean([COLORS[word] for word in COLORS if word in own], axis=0) for own in words])

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.crops += list(images)
        return self._unit([image.mean(axis=(0, 1)) for image in images])

    def embed_map(self, frame: np.ndarray) -> np.ndarray:
        self.maps += 1
        rows, columns = self.cells
        blocks = [np.array_split(part, columns, axis=1) for part in np.array_split(frame, rows)]
        cells = self._unit([block.mean(axis=(0, 1)) for row in blocks for block in row])
        return cells.reshape(rows, columns, 3).transpose(2, 0, 1)

    @staticmethod
    def _unit(colors: Sequence[np.ndarray]) -> np.ndarray:
        vectors = np.array(colors, np.float64) - 128
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def name_with(namer: TextNamer, images: np.ndarray, masks: np.ndarray, earlier: np.ndarray | None = None):
    """Name masklets given by masks (N, L, H, W)."""
    base = BaseLabels(np.full(images.shape[:3], 255, np.uint8))
    return namer.name_masklets(images, base, MaskletWindow.from_masks(masks), earlier)


def squares(length: int = 1, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Red, green and blue squares of 24 pixels on white, and their masks; blue touches the lower right corner."""
    images = np.full((length, *size, 3), 255, np.uint8)
    masks = np.zeros((3, length, *size), bool)
    for i, (name, y, x) in enumerate((("red", 0, 0), ("green", 4, 36), ("blue", size[0] - 24, size[1] - 24))):
        images[:, y : y + 24, x : x + 24] = COLORS[name]
        masks[i, :, y : y + 24, x : x + 24] = True
    return images, masks


@pytest.mark.parametrize("crop_weight", [0.0, 0.5, 1.0])
def test_masklets_are_named_by_what_they_show(crop_weight):
    images, masks = squares()
    naming = name_with(TextNamer(ColorModel(), VOCABULARY, crop_weight=crop_weight), images, masks)
    assert naming.classes.tolist() == [0, 1, 2]
    assert naming.frame_classes.tolist() == [[0, 1, 2]]
    assert np.allclose(naming.scores.sum(axis=1), 1)
    assert np.allclose(naming.confidence, naming.scores.max(axis=1))
    assert (naming.confidence > 0.9).all()


def test_scores_are_those_of_the_formula():
    """One mask that covers the frame, left half red, right half (255, 255, 0): all by hand."""
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[..., 0] = 255
    images[:, :, 16:, 1] = 255
    masks = np.ones((1, 1, 32, 32), bool)
    model = ColorModel((1, 2))
    model.logit_scale = 3.0  # so that no class takes it all
    naming = name_with(TextNamer(model, VOCABULARY, crop_weight=0.25, margin=0.0), images, masks)

    def unit(*values: float) -> np.ndarray:
        return np.array(values) / np.linalg.norm(values)

    texts = np.stack([unit(127, -128, -128), unit(-128, 127, -128), unit(-128, -128, 127)])
    crop = unit(127, -0.5, -128)  # the mean of 0 and 255 is 127.5
    cells = unit(*(unit(127, -128, -128) + unit(127, 127, -128)))
    logits = 3.0 * (0.25 * texts @ crop + 0.75 * texts @ cells)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(naming.scores, expected[None], atol=1e-6)


def test_the_mask_decides_between_two_that_share_a_box():
    """A ring of red around a disc of green: boxes overlap, masks do not."""
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(x - 31.5, y - 31.5)
    disc, ring = distance < 16, (distance >= 16) & (distance < 30)
    images = np.full((1, 64, 64, 3), 255, np.uint8)
    images[0, ring], images[0, disc] = COLORS["red"], COLORS["green"]
    masks = np.stack([ring, disc])[:, None]
    for options in ({"crop_weight": 0.0}, {"crop_weight": 1.0, "fade": 1.0}, {}):
        naming = name_with(TextNamer(ColorModel((16, 16)), VOCABULARY, **options), images, masks)
        assert naming.classes.tolist() == [0, 1], options


def test_without_fading_crops_see_the_surroundings():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[..., 1] = 255  # green all over
    images[0, 30:34, 30:34] = COLORS["red"]
    masks = np.zeros((1, 1, 64, 64), bool)
    masks[0, 0, 30:34, 30:34] = True
    classes = [
        name_with(TextNamer(ColorModel(), VOCABULARY, crop_weight=1.0, fade=fade), images, masks).classes[0]
        for fade in (0.0, 1.0)
    ]
    assert classes == [1, 0]


@pytest.mark.parametrize("size", [(96, 40), (40, 96), (17, 23)])
def test_one_pixel_and_the_whole_frame_are_named_in_any_shape(size):
    images = np.zeros((1, *size, 3), np.uint8)
    images[..., 2] = 255  # blue
    masks = np.zeros((2, 1, *size), bool)
    masks[0, 0, -1, 0] = True
    masks[1] = True
    naming = name_with(TextNamer(ColorModel((5, 3)), VOCABULARY), images, masks)
    assert naming.classes.tolist() == [2, 2]


def test_no_masklets_give_no_names():
    model = ColorModel()
    naming = name_with(TextNamer(model, VOCABULARY), np.zeros((2, 16, 16, 3), np.uint8), np.zeros((0, 2, 16, 16), bool))
    assert naming.scores.shape == (0, 3)
    assert naming.frame_classes.shape == (2, 0)
    assert not model.crops
    assert not model.maps


def test_a_masklet_that_is_never_seen_abstains():
    images, masks = squares(length=2)
    masks[1] = False
    naming = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks)
    assert naming.classes.tolist() == [0, -1, 2]
    assert naming.scores[1].tolist() == [0, 0, 0]
    assert naming.confidence[1] == 0


def test_a_class_is_as_good_as_its_best_phrase():
    images, masks = squares()
    vocabulary = Vocabulary.from_text("dark=black|red,green=green,blue")
    synonyms = name_with(TextNamer(ColorModel(), vocabulary), images, masks)
    assert synonyms.classes.tolist() == [0, 1, 2]
    red = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks)
    assert np.allclose(synonyms.scores[0], red.scores[0])  # red is nearer to it than black
    assert synonyms.scores[1, 0] > red.scores[1, 0]  # green is nearer to black than to red


def test_templates_are_averaged():
    images, masks = squares()
    prompts = Vocabulary.from_phrases([("red", None), ("green", None)], ["a photo of a {}.", "a {} on white"])
    namer = TextNamer(ColorModel(), prompts)
    unit = ColorModel._unit
    mean = (unit([(255, 0, 0)]) + unit([(255, 127.5, 127.5)])) / 2  # red, and the mean of red and white
    assert np.allclose(namer._phrases[0], mean[0] / np.linalg.norm(mean), atol=1e-6)
    assert name_with(namer, images, masks).classes.tolist()[:2] == [0, 1]


def test_one_class_names_everything():
    images, masks = squares()
    naming = name_with(TextNamer(ColorModel(), Vocabulary.from_text("green")), images, masks)
    assert naming.classes.tolist() == [0, 0, 0]


def test_doubtful_masklets_abstain_below_the_least_share():
    images, masks = squares()
    images[0, :24, :12] = COLORS["green"]  # half red, half green
    naming = name_with(TextNamer(ColorModel(), VOCABULARY, crop_weight=0.0, min_share=0.9), images, masks)
    assert naming.classes.tolist() == [-1, 1, 2]
    assert naming.confidence[0] < 0.6


def test_scores_of_earlier_windows_are_added():
    images, masks = squares()
    earlier = np.array([[0, 5.0, 0], [0, 0, 0], [0, 0, 0]])
    plain = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks)
    carried = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks, earlier)
    assert np.allclose(carried.scores, plain.scores + earlier)
    assert carried.classes.tolist() == [1, 1, 2]
    assert earlier.sum() == 5


def test_permuting_masklets_permutes_the_names():
    images, masks = squares(length=5)
    order = [2, 0, 1]
    plain = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks)
    permuted = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks[order])
    assert np.allclose(permuted.scores, plain.scores[order], atol=1e-6)
    assert permuted.classes.tolist() == plain.classes[order].tolist()


def test_permuting_classes_permutes_the_scores():
    images, masks = squares()
    plain = name_with(TextNamer(ColorModel(), VOCABULARY), images, masks)
    other = name_with(TextNamer(ColorModel(), Vocabulary.from_text("blue,red,green")), images, masks)
    assert np.allclose(other.scores, plain.scores[:, [2, 0, 1]], atol=1e-6)


def test_names_are_the_same_every_time():
    images, masks = squares(length=4)
    first, second = (name_with(TextNamer(ColorModel(), VOCABULARY), images, masks) for _ in range(2))
    assert np.array_equal(first.scores, second.scores)


def test_a_masklet_is_looked_at_in_a_few_frames_only():
    images, masks = squares(length=10)
    model = ColorModel()
    naming = name_with(TextNamer(model, VOCABULARY, views=3), images, masks)
    assert np.allclose(naming.scores.sum(axis=1), 3)
    assert len(model.crops) == 9
    assert model.maps == 3  # all three are equally good in all frames, so they share theirs
    assert naming.frame_classes.shape == (10, 3)


def test_a_weight_of_one_or_zero_spares_the_other_half():
    images, masks = squares()
    only_crops, only_maps = ColorModel(), ColorModel()
    name_with(TextNamer(only_crops, VOCABULARY, crop_weight=1.0), images, masks)
    name_with(TextNamer(only_maps, VOCABULARY, crop_weight=0.0), images, masks)
    assert (len(only_crops.crops), only_crops.maps) == (3, 0)
    assert (len(only_maps.crops), only_maps.maps) == (0, 1)


def views_of(masks: np.ndarray, count: int, frame_iou: np.ndarray | None = None) -> list[list[int]]:
    window = MaskletWindow.from_masks(masks, frame_iou=frame_iou)
    known = describe_window(np.zeros((*masks.shape[1:], 3), np.uint8), window)
    return [np.flatnonzero(column).tolist() for column in choose_views(known, count).T]


def test_views_are_the_largest_masks_of_equal_stretches():
    masks = np.zeros((1, 6, 40, 40), bool)
    for t, side in enumerate([3, 5, 9, 4, 6, 7]):
        masks[0, t, 5 : 5 + side, 5 : 5 + side] = True
    assert views_of(masks, 1) == [[2]]
    assert views_of(masks, 2) == [[2, 5]]  # frames 0 to 2, 3 to 5
    assert views_of(masks, 3) == [[1, 2, 5]]  # 0 to 1, 2 to 3, 4 to 5
    assert views_of(masks, 6) == views_of(masks, 99) == [[0, 1, 2, 3, 4, 5]]


def test_doubtful_and_cut_off_masks_are_passed_over():
    masks = np.zeros((2, 3, 40, 40), bool)
    masks[0, :, 10:20, 10:20] = True
    masks[1, :, 10:20, 10:20] = True
    masks[1, 0] = masks[1, 2] = False
    masks[1, 0, 10:22, 0:12] = masks[1, 2, 28:40, 10:22] = True  # larger, but at the border
    quality = np.array([[0.5, 1], [0.6, 1], [0.9, 1]], np.float32)
    assert views_of(masks, 1, quality) == [[2], [1]]


def test_frames_without_mask_are_no_views():
    masks = np.zeros((2, 5, 20, 20), bool)
    masks[0, 3:, 5:9, 5:9] = True
    assert views_of(masks, 3) == [[3, 4], []]


def test_frames_of_another_size_are_refused():
    _, masks = squares()
    with pytest.raises(ShapeError, match="both must come from the same frames"):
        name_with(TextNamer(ColorModel(), VOCABULARY), np.zeros((1, 32, 64, 3), np.uint8), masks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "looked at in 0 frames, expected 1 or more"),
        ({"crop_weight": 1.5}, "the weight of crops is 1.5, expected 0 to 1"),
        ({"fade": -0.1}, "the fading of crops is -0.1, expected 0 to 1"),
        ({"margin": 5.0}, "the margin of crops is 5.0, expected 0 to 4"),
        ({"min_share": 2.0}, "the least share is 2.0, expected 0 to 1"),
        ({"margin": float("nan")}, "the margin of crops is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        TextNamer(ColorModel(), VOCABULARY, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_model_names_and_paints_masklets(family, tmp_path):
    save_tiny_image_text(family, tmp_path)
    vocabulary = Vocabulary.from_text("sky=sky|clouds,red car,person")
    namer, weights = load_text_namer(vocabulary, str(tmp_path), views=2)
    assert {name.rpartition("/")[2] for name in weights} == {"config.json", "model.safetensors"}
    images, masks = squares(length=3, size=(70, 64))
    naming = name_with(namer, images, masks)
    assert np.allclose(naming.scores.sum(axis=1), 2)
    permuted = name_with(namer, images, masks[[1, 2, 0]])
    assert np.allclose(permuted.scores, naming.scores[[1, 2, 0]], atol=1e-4)
    assert np.array_equal(name_with(namer, images, masks).scores, naming.scores)
    base = BaseLabels(np.full(images.shape[:3], 255, np.uint8))
    painted = paint_window(base, MaskletWindow.from_masks(masks), naming)
    assert (painted.labels[0, :24, :24] == naming.classes[0]).all()
    assert (painted.labels[0, 30:40, :10] == 255).all()


def test_a_phrase_that_is_too_long_is_refused_before_any_frame(tmp_path):
    save_tiny_image_text("siglip", tmp_path)
    with pytest.raises(LabelError, match=r"'a photo of a sky sky .* has 17 tokens, the text model reads 12 at most"):
        load_text_namer(Vocabulary.from_text("sky " * 12), str(tmp_path))
