"""VidEoMT from frames to labels, against label maps of the authors' own code.

`golden_videomt.json` holds what the code of tue-mps/videomt (39411e9) gave on a CPU for a small network with weights
made of their names: label maps of its whole online inference (resizing, padding, windows of one frame, class logits
averaged, masks resized twice).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2vss.errors import SettingsError, ShapeError, WeightsError
from sam2vss.hub import ModelLocation
from sam2vss.segmenters import load_segmenter
from sam2vss.segmenters.class_names import label_space_of
from sam2vss.segmenters.videomt import OfficialInput, VideomtSegmenter
from sam2vss.segmenters.videomt_checkpoints import load_network
from sam2vss.segmenters.videomt_stream import class_scores
from tiny_segmenters import save_tiny
from tiny_videomt import BY_ENCODER, TINY, official_weights

GOLDEN = json.loads((Path(__file__).parent / "golden_videomt.json").read_text())
FILE = Path("vspw.pth")
SMALL_INPUT = OfficialInput(shortest=48, longest=80)
LENGTH, HEIGHT, WIDTH = GOLDEN["frames"]


def noise(length: int, height: int, width: int) -> np.ndarray:
    """Smooth noise; the golden labels are of this."""
    coarse = torch.rand((length, 3, 4, 5), generator=torch.Generator().manual_seed(7))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def make() -> Callable[..., VideomtSegmenter]:
    """Builds segmenters around networks of 40 queries."""
    models = {
        encoder: load_network(official_weights(replace(architecture, queries=40)), FILE)
        for encoder, architecture in BY_ENCODER.items()
    }

    def build(encoder: str = "DINOv2", **options: object) -> VideomtSegmenter:
        return VideomtSegmenter(
            models[encoder], SMALL_INPUT, label_space_of(124), ModelLocation("tiny", FILE), **options
        )

    return build


def golden_labels(which: str, encoder: str = "DINOv2") -> np.ndarray:
    values, lengths = zip(*GOLDEN["labels"][encoder][which], strict=True)
    return np.repeat(values, lengths).reshape(LENGTH, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("which", "cuts"), [("whole", [(0, 3)]), ("pieces", [(0, 2), (2, 3)])], ids=["one call", "two calls"]
)
@pytest.mark.parametrize("encoder", BY_ENCODER)
def test_labels_equal_those_of_the_authors_online_inference(
    make, encoder: str, which: str, cuts: list[tuple[int, int]]
):
    segmenter, frames = make(encoder), noise(LENGTH, HEIGHT, WIDTH)

    labels = np.concatenate([segmenter.predict(frames[start:stop]).labels for start, stop in cuts])

    assert len(np.unique(labels)) > 3
    assert (
        np.mean(labels != golden_labels(which, encoder)) < 1e-3
    )  # measured: none differs; a tie may fall otherwise elsewhere


def test_the_golden_labels_would_show_a_query_that_is_forgotten(make):
    segmenter, frames = make(), noise(LENGTH, HEIGHT, WIDTH)
    first = segmenter.predict(frames[:2]).labels
    segmenter.reset()

    labels = np.concatenate([first, segmenter.predict(frames[2:]).labels])

    assert np.mean(labels != golden_labels("pieces")) > 0.05


def test_without_shared_classes_a_clip_in_pieces_gives_what_it_gives_at_once(make):
    segmenter, frames = make(shares_classes=False, want_probabilities=True), noise(5, 30, 50)
    whole = segmenter.predict(frames)
    segmenter.reset()

    pieces = [segmenter.predict(frames[start:stop]) for start, stop in ((0, 1), (1, 4), (4, 5))]

    assert np.array_equal(np.concatenate([piece.labels for piece in pieces]), whole.labels)
    assert np.array_equal(np.concatenate([piece.probabilities for piece in pieces]), whole.probabilities)


def test_classes_shared_over_a_call_are_the_softmax_of_mean_logits(make):
    segmenter, frames = make(), noise(3, 30, 50)
    found, input_size = make()._answers(frames)
    mean = sum(answers.classes for answers in found) / 3

    labels = segmenter.predict(frames).labels

    classes = mean.softmax(-1)[:, :-1]
    last = class_scores(segmenter.stream.masks(found[2]), classes, input_size, SMALL_INPUT.resized((30, 50)))
    expected = torch.nn.functional.interpolate(last[None], (30, 50), mode="bilinear")[0].argmax(0)
    assert np.array_equal(labels[2], expected.numpy())


def test_queries_are_carried_through_frames_that_are_passed_over(make):
    segmenter, frames = make(), noise(4, 30, 50)
    segmenter.predict(frames[:3])
    after = segmenter.predict(frames[3:]).labels
    segmenter.reset()

    segmenter.pass_over(frames[:2])
    segmenter.pass_over(frames[2:3])

    assert np.array_equal(segmenter.predict(frames[3:]).labels, after)


def test_reset_makes_a_clip_independent_of_the_one_before(make):
    segmenter, frames = make(), noise(2, 30, 50)
    alone = segmenter.predict(frames).labels
    after = segmenter.predict(frames).labels
    segmenter.reset()

    assert np.array_equal(segmenter.predict(frames).labels, alone)
    assert not np.array_equal(after, alone)  # without a reset the queries of the last frame go on


def test_batches_change_nothing_but_rounding(make):
    frames = noise(5, 30, 50)

    assert np.mean(make(batch_size=2).predict(frames).labels != make().predict(frames).labels) < 1e-3


def test_probabilities_are_the_scores_of_four_by_four_pixels_made_to_sum_to_one(make):
    segmenter, frames = make(want_probabilities=True), noise(1, 48, 80)  # a size that is not resized
    found, input_size = make()._answers(frames)
    classes = found[0].classes.softmax(-1)[:, :-1]
    scores = class_scores(segmenter.stream.masks(found[0]), classes, input_size, (48, 80)).numpy()

    base = segmenter.predict(frames)

    assert base.probabilities.shape == (1, 124, 12, 20)
    assert base.probabilities.dtype == np.float16
    for row, column in ((0, 0), (3, 7), (11, 19)):
        cell = scores[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].sum((1, 2))
        np.testing.assert_allclose(base.probabilities[0, :, row, column], cell / cell.sum(), atol=1e-3)  # float16
    assert np.array_equal(base.labels[0], scores.argmax(0))
    large = np.kron(base.probabilities.argmax(1), np.ones((1, 4, 4), int))
    assert np.mean(large == base.labels) > 0.7  # measured 0.78: labels of random weights also change inside cells


@pytest.mark.parametrize("size", [(90, 30), (31, 90), (5, 3), (41, 40)])
def test_portrait_wide_tiny_and_odd_frames_keep_their_size(make, size: tuple[int, int]):
    base = make(want_probabilities=True).predict(noise(2, *size))

    assert base.labels.shape == (2, *size)
    assert base.labels.dtype == np.uint8
    assert base.labels.max() < 124


def test_bfloat16_runs_and_mostly_agrees():
    model = load_network(official_weights(replace(TINY, queries=40)), FILE)
    frames = noise(1, 30, 50)
    build = [SMALL_INPUT, label_space_of(124), ModelLocation("tiny", FILE)]
    exact = VideomtSegmenter(model, *build).predict(frames).labels

    assert np.mean(VideomtSegmenter(model.bfloat16(), *build).predict(frames).labels == exact) > 0.8


@pytest.mark.parametrize(
    ("size", "resized"),
    [  # 720 / shorter side, halves rounded up; then 1333 / longer side
        ((480, 853), (720, 1280)),  # 1279.5
        ((853, 480), (1280, 720)),
        ((720, 1280), (720, 1280)),
        ((480, 480), (720, 720)),
        ((480, 1012), (632, 1333)),  # 1518 is too long: 720 * 1333 / 1518 = 632.25
        ((1080, 1920), (720, 1280)),
    ],
)
def test_frames_are_resized_to_a_shorter_side_of_720(size: tuple[int, int], resized: tuple[int, int]):
    assert OfficialInput().resized(size) == resized


def test_pixels_are_pillows_normalised_and_padded_with_the_mean_colour():
    frame = noise(1, 25, 40)[0]
    resized = np.asarray(Image.fromarray(frame).resize((77, 48), Image.Resampling.BILINEAR)).astype(float)  # 48 * 40/25
    expected = (resized - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]

    pixels = SMALL_INPUT(torch.from_numpy(frame[None]))[0].permute(1, 2, 0).numpy()

    assert pixels.shape == (64, 96, 3)  # multiples of 32
    assert not pixels[48:].any()
    assert not pixels[:, 77:].any()
    assert np.abs(pixels[:48, :77] - expected).max() <= 1.01 / 57.12  # one grey level


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as detectron2 writes it."""
    file = tmp_path_factory.mktemp("videomt") / "videomt_vspw.pth"
    torch.save({"model": official_weights(), "iteration": 39999, "scheduler": {"last_epoch": 39999}}, file)
    return file


def test_the_path_of_a_checkpoint_is_enough(checkpoint: Path):
    segmenter = load_segmenter(str(checkpoint), want_probabilities=True)

    assert isinstance(segmenter, VideomtSegmenter)
    assert (segmenter.label_space.name, segmenter.label_space.raw_ids[0]) == ("vspw", 1)
    assert segmenter.location.sha256().keys() == {"videomt_vspw.pth"}
    assert segmenter.preprocessing == OfficialInput()
    segmenter.preprocessing = SMALL_INPUT
    assert segmenter.predict(noise(1, 24, 40)).probabilities.shape == (1, 124, 12, 20)


def test_a_folder_in_transformers_format_is_run_frame_by_frame_too(tmp_path: Path):
    segmenter = load_segmenter(str(save_tiny("videomt", tmp_path / "videomt")))
    assert isinstance(segmenter, VideomtSegmenter)
    frames = noise(3, 64, 64)
    pixels = segmenter.preprocessing(torch.from_numpy(frames))
    with torch.no_grad():
        outputs = segmenter.stream.model(pixel_values_videos=pixels[None])  # the whole video in one call of theirs

    found, _ = segmenter._answers(frames)

    for row, answers in enumerate(found):
        torch.testing.assert_close(answers.classes, outputs.class_queries_logits[row], atol=1e-4, rtol=1e-4)
        masks = segmenter.stream.masks(answers)
        torch.testing.assert_close(masks, outputs.masks_queries_logits[row], atol=1e-3, rtol=1e-4)
    assert segmenter.label_space.names[1] == "road"


def test_the_encoder_of_a_video_model_is_refused(checkpoint: Path):
    from sam2vss.encoders import load_encoder

    with pytest.raises(WeightsError, match="feature maps of a video model are not known"):
        load_encoder(f"segmenter:{checkpoint}")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}}, tmp_path / "a.pth")

    with pytest.raises(WeightsError, match=r"of no segmentation model that is known here \(it holds conv1\.weight\)"):
        load_segmenter(str(tmp_path / "a.pth"))


def test_scores_that_are_not_numbers_are_an_error_and_not_labels():
    model = load_network(official_weights(), FILE)
    model.class_predictor.bias.fill_(float("nan"))
    segmenter = VideomtSegmenter(model, SMALL_INPUT, label_space_of(124), ModelLocation("tiny", FILE))

    with pytest.raises(WeightsError, match=r"tiny gave scores that are not finite numbers in torch.float32"):
        segmenter.predict(noise(1, 20, 30))


def test_wrong_frames_batch_sizes_and_models_of_instances_are_refused(make):
    with pytest.raises(ShapeError, match=r"expected uint8 \(L, H, W, 3\)"):
        make().predict(np.zeros((1, 20, 30, 4), np.uint8))
    with pytest.raises(SettingsError, match="at least 1, found 0"):
        make(batch_size=0)
    with pytest.raises(WeightsError, match="tiny was trained on YouTube-VIS"):
        VideomtSegmenter(make().stream.model, SMALL_INPUT, label_space_of(40), ModelLocation("tiny", FILE))
