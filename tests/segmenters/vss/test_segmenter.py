"""The native models through a clip, against the published schedule written out: every clip encoded anew."""

from pathlib import Path

import numpy as np
import pytest
import torch

from named_weights import fill_by_name
from sam2vss.errors import SettingsError, ShapeError, WeightsError
from sam2vss.hub import ModelLocation
from sam2vss.interfaces import RemembersFrames
from sam2vss.segmenters.vss import frames as vss_frames
from sam2vss.segmenters.vss.architecture import build, default_architecture
from sam2vss.segmenters.vss.cffm_plus import make_prototypes
from sam2vss.segmenters.vss.frames import clip_indices, network_input, network_size
from sam2vss.segmenters.vss.segmenter import VssSegmenter
from sam2vss.types import LabelSpace

CLASSES = 6
SIZES = {"SegFormer": "b0", "CFFM": "b0", "MRCFA": "b0", "TV3S": "b1"}
VIDEO_FAMILIES = ["CFFM", "MRCFA", "TV3S"]
LENGTHS = {"CFFM": 12, "MRCFA": 12, "TV3S": 6}  # more than nine frames where that is quick


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(vss_frames, "TEST_SCALE", (96, 64))


@pytest.fixture(scope="module")
def models():
    made = {family: fill_by_name(build(default_architecture(family, size, CLASSES))) for family, size in SIZES.items()}
    made["TV3S"].decode_head.vs.layers = made["TV3S"].decode_head.vs.layers[:2]  # one of each kind: quick enough here
    return made


def segmenter(model, **options):
    return VssSegmenter(model, LabelSpace.numbered(CLASSES), ModelLocation("net", Path("net.pth")), **options)


def clip(length, size=(60, 90), seed=0):
    """Return frames that look alike from one to the next, uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 256, (*size, 3)).astype(float)
    steps = rng.normal(0, 25, (length, *size, 3)).cumsum(0)
    return (still + steps).clip(0, 255).astype(np.uint8)


@torch.inference_mode()
def published_logits(model, frames, t):
    """Logits (1, C, h, w) of frame t as the published scripts make them: all frames of its clip encoded at once."""
    head = model.decode_head
    images = torch.stack([network_input(frames[i]) for i in clip_indices(t)])
    stages = model.backbone(images)
    fused = head.fuse(stages)
    if len(images) != 4:
        return head.classify(fused[-1:])
    encoded = [head.encode(tuple(s[i : i + 1] for s in stages), fused[i : i + 1]) for i in range(4)]
    return head.decode(encoded)


def published_labels(model, frames, t):
    size = frames.shape[1:3]
    logits = published_logits(model, frames, t)
    at_input = torch.nn.functional.interpolate(logits, network_size(size), mode="bilinear", align_corners=False)
    at_frame = torch.nn.functional.interpolate(at_input, size, mode="bilinear", align_corners=False)
    return at_frame.softmax(1).argmax(1)[0].numpy()


@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_a_clip_is_labelled_as_by_the_published_schedule(models, family):
    frames = clip(LENGTHS[family])
    found = segmenter(models[family], want_probabilities=True).predict(frames)
    for t in {0, 2, 3, 6, 8, LENGTHS[family] - 1}.intersection(range(LENGTHS[family])):
        expected = published_logits(models[family], frames, t)[0].softmax(0).numpy()
        np.testing.assert_allclose(found.probabilities[t], expected, rtol=0, atol=6e-4)  # float16
        differing = found.labels[t] != published_labels(models[family], frames, t)
        assert differing.mean() < 2e-4, t  # rounding in batches; one pixel of 5400 at most
    alone = segmenter(models[family], context="frame").predict(frames).labels
    assert (found.labels[3:] != alone[3:]).mean() > 0.01  # the frames before do matter


@pytest.mark.parametrize("size", [(90, 50), (48, 64), (3, 5), (97, 61)])
def test_any_size_is_labelled_at_its_own(models, size):
    found = segmenter(models["CFFM"]).predict(clip(5, size))
    assert found.labels.shape == (5, *size)
    assert (found.labels[4] == published_labels(models["CFFM"], clip(5, size), 4)).mean() > 0.999


@pytest.mark.parametrize(("family", "context"), [*((f, "clip") for f in VIDEO_FAMILIES), ("TV3S", "stream")])
def test_a_clip_in_pieces_equals_the_whole(models, family, context):
    length = LENGTHS[family]
    frames = clip(length)
    whole = segmenter(models[family], context=context, want_probabilities=True).predict(frames)
    pieces = segmenter(models[family], context=context, want_probabilities=True)
    found = [pieces.predict(frames[a:b]) for a, b in ((0, 1), (1, length // 2), (length // 2, length))]
    np.testing.assert_array_equal(np.concatenate([part.labels for part in found]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([part.probabilities for part in found]), whole.probabilities)


@pytest.mark.parametrize(("family", "context"), [*((f, "clip") for f in VIDEO_FAMILIES), ("TV3S", "stream")])
def test_labels_after_frames_that_were_passed_over_are_the_same(models, family, context):
    last = LENGTHS[family] - 1
    frames = clip(last + 1)
    whole = segmenter(models[family], context=context).predict(frames).labels
    resumed = segmenter(models[family], context=context)
    assert isinstance(resumed, RemembersFrames)
    resumed.pass_over(frames[:1])
    resumed.pass_over(frames[1:last])
    np.testing.assert_array_equal(resumed.predict(frames[last:]).labels, whole[last:])


def test_passing_over_a_part_keeps_what_was_encoded_before(models):
    frames = clip(13)
    whole = segmenter(models["CFFM"]).predict(frames).labels
    mixed = segmenter(models["CFFM"])
    mixed.predict(frames[:7])
    mixed.pass_over(frames[7:11])
    np.testing.assert_array_equal(mixed.predict(frames[11:]).labels, whole[11:])


@pytest.mark.parametrize(("family", "context"), [*((f, "clip") for f in VIDEO_FAMILIES), ("TV3S", "stream")])
def test_reset_forgets_the_clip(models, family, context):
    used = segmenter(models[family], context=context)
    used.predict(clip(4, (40, 60), seed=1))
    used.reset()
    fresh = segmenter(models[family], context=context)
    frames = clip(5)
    np.testing.assert_array_equal(used.predict(frames).labels, fresh.predict(frames).labels)


@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_batches_of_the_encoder_change_nothing(models, family):
    frames = clip(6)
    one = segmenter(models[family], want_probabilities=True, batch_size=1).predict(frames)
    four = segmenter(models[family], want_probabilities=True, batch_size=4).predict(frames)
    np.testing.assert_allclose(four.probabilities, one.probabilities, rtol=0, atol=6e-4)
    assert (four.labels != one.labels).mean() < 2e-4


@pytest.mark.parametrize("family", SIZES)
def test_without_context_the_frames_are_independent(models, family):
    frames = clip(5)
    found = segmenter(models[family], context="frame").predict(frames).labels
    again = segmenter(models[family], context="frame").predict(frames[::-1]).labels
    np.testing.assert_array_equal(found, again[::-1])


def test_only_the_last_nine_frames_are_kept(models):
    used = segmenter(models["CFFM"])
    used.predict(clip(15))
    assert len(used._earlier) == 9


def test_probabilities_sum_to_one_and_lie_on_a_quarter_of_the_input(models):
    found = segmenter(models["SegFormer"], want_probabilities=True).predict(clip(2))
    assert found.probabilities.dtype == np.float16
    assert found.probabilities.shape == (2, CLASSES, 16, 24)
    np.testing.assert_allclose(found.probabilities.sum(1, dtype=np.float32), 1, atol=2e-3)
    assert segmenter(models["SegFormer"]).predict(clip(2)).probabilities is None


def test_cffm_plus_takes_prototypes_of_a_surveyed_clip_into_account(models):
    plus = fill_by_name(build(default_architecture("CFFM++", "b0", CLASSES)))
    plus.load_state_dict(models["CFFM"].state_dict(), strict=False)
    frames = clip(12)
    without = segmenter(plus, want_probabilities=True).predict(frames)
    np.testing.assert_array_equal(without.labels, segmenter(models["CFFM"]).predict(frames).labels)
    surveyed = segmenter(plus, want_probabilities=True)
    surveyed.survey(frames)
    found = surveyed.predict(frames)
    with torch.inference_mode():
        stages = plus.backbone(torch.stack([network_input(frames[i]) for i in range(12)]))
        fused = plus.decode_head.fuse(stages)
        encoded = [plus.decode_head.encode(stages, fused[i : i + 1]) for i in range(12)]
        prototypes = make_prototypes([encoded[i] for i in range(10)])  # of 12 frames the first ten, 12 // 10 apart
        expected = plus.decode_head.decode([encoded[i] for i in (2, 5, 8, 11)], prototypes)[0].softmax(0)
    np.testing.assert_allclose(found.probabilities[11], expected, rtol=0, atol=6e-4)
    assert np.abs(found.probabilities[11] - without.probabilities[11]).max() > 0.01
    surveyed.reset()
    np.testing.assert_array_equal(surveyed.predict(frames).labels, without.labels)


def test_only_cffm_plus_is_surveyed(models):
    with pytest.raises(SettingsError, match=r"only CFFM\+\+ makes use of a survey"):
        segmenter(models["CFFM"]).survey(clip(2))


def test_only_tv3s_streams(models):
    with pytest.raises(SettingsError, match="only TV3S carries a state"):
        segmenter(models["CFFM"], context="stream")


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_without_frames_are_refused(models, batch_size):
    with pytest.raises(SettingsError, match=f"batch size must be at least 1, found {batch_size}"):
        segmenter(models["SegFormer"], batch_size=batch_size)


def test_a_wrong_number_of_classes_is_named(models):
    with pytest.raises(WeightsError, match=r"net tells 6 classes apart, but .* names 124"):
        VssSegmenter(models["CFFM"], LabelSpace.numbered(124), ModelLocation("net", Path("net.pth")))


def test_a_clip_of_two_sizes_is_refused(models):
    used = segmenter(models["CFFM"])
    used.predict(clip(1, (40, 60)))
    with pytest.raises(ShapeError, match=r"call reset\(\) between clips"):
        used.predict(clip(1, (60, 40)))


@pytest.mark.parametrize("shape", [(20, 30, 3), (1, 20, 30, 4), (0, 20, 30, 3)])
def test_frames_of_another_form_are_refused(models, shape):
    with pytest.raises(ShapeError, match=r"expected uint8 \(L, H, W, 3\)"):
        segmenter(models["SegFormer"]).predict(np.zeros(shape, np.uint8))


def test_scores_that_are_no_numbers_are_refused(models):
    broken = build(default_architecture("SegFormer", "b0", CLASSES))
    torch.nn.init.constant_(broken.decode_head.linear_pred.bias, float("nan"))
    with pytest.raises(WeightsError, match="not finite numbers"):
        segmenter(broken).predict(clip(1))
