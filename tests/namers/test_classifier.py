"""Masklets of toy clips named by classifiers: alone, over base labels, mixed with their votes."""

import numpy as np
import pytest
import torch

import toy
from sam2vss.errors import SettingsError, ShapeError
from sam2vss.namers.classifier import ClassifierNamer
from sam2vss.pipeline import refine_clip
from sam2vss.refiner import ArrayLabels
from sam2vss.segmenters.void import VoidLabels
from sam2vss.trackers.nothing import NoTracker
from sam2vss.types import BaseLabels, MaskletWindow
from sam2vss.voting import refine_window
from toy import CLASSES, ExactTracker, ToyClip
from toy_features import ClassEncoder, perfect_classifier

OBJECTS = toy.toy_objects(12)
FRAMES = toy.toy_frames(OBJECTS)
TRUTH = toy.toy_labels(OBJECTS)
NOISY = toy.NoisySegmenter().predict(FRAMES).labels
VOID = CLASSES.ignore_index
SCOPES = ["frame", "window"]


def make_namer(scope: str = "frame", **options) -> ClassifierNamer:
    return ClassifierNamer(ClassEncoder(), perfect_classifier(scope), **options)


def wrong_classifier(scope: str):
    """Calls everything a ground with a probability of 0.4, and gives 0.2 to each of the others."""
    network = perfect_classifier(scope)
    with torch.no_grad():
        network.head.layers[0].weight.zero_()
        network.head.layers[0].bias.copy_(torch.log(torch.tensor([0.4, 0.2, 0.2, 0.2])))
    return network


def refine(namer, base, tracker=None, window_length=5):
    windows = refine_clip("toy", ToyClip(12).frames(), base, tracker or ExactTracker(), window_length, namer=namer)
    return [window.refinement for window in windows]


def is_followed(window_length=5) -> np.ndarray:
    """Pixels of objects that their window's first frame shows, bool (T, H, W)."""
    firsts = [t // window_length * window_length for t in range(12)]
    inside = [(OBJECTS[t] > 0) & np.isin(OBJECTS[t], OBJECTS[first]) for t, first in enumerate(firsts)]
    return np.stack(inside)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_perfect_classifier_labels_all_covered_pixels_and_no_others(scope):
    labels = np.concatenate([window.labels for window in refine(make_namer(scope), VoidLabels(CLASSES))])
    inside = is_followed()
    assert (labels[inside] == TRUTH[inside]).all()
    assert (labels[~inside] == VOID).all()
    assert set(np.unique(TRUTH[inside])) == {1, 2, 3}


@pytest.mark.parametrize("scope", SCOPES)
def test_base_labels_fill_what_no_masklet_covers(scope):
    windows = refine(make_namer(scope), ArrayLabels(NOISY, CLASSES))
    labels, inside = np.concatenate([window.labels for window in windows]), is_followed()
    assert (labels[inside] == TRUTH[inside]).all()
    assert (labels[~inside] == NOISY[~inside]).all()
    assert (NOISY != TRUTH)[inside].any()


def test_scores_are_probabilities_summed_over_the_frames_in_which_a_masklet_is_seen():
    frames = toy.toy_frames(toy.toy_objects(16))  # the disc leaves after frame 11
    masklets, base = ExactTracker().track(frames, 0), BaseLabels(np.full((16, *toy.SIZE), VOID, np.uint8))
    for scope in SCOPES:
        naming = make_namer(scope).name_masklets(frames, base, masklets)
        np.testing.assert_allclose(naming.scores.sum(axis=1), [12, 16, 16])
        np.testing.assert_allclose(naming.scores[:, [1, 2]], [[12, 0], [0, 16], [16, 0]], atol=1e-9)
        assert naming.classes.tolist() == [1, 2, 1]
        assert naming.frame_classes[:12].tolist() == [[1, 2, 1]] * 12
        assert naming.frame_classes[12:, 1:].tolist() == [[2, 1]] * 4
        assert naming.confidence.tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("scope", SCOPES)
def test_base_votes_of_full_weight_are_the_majority_vote(scope, share):
    """Where a mask has no votes at all the classifier has the word."""
    base = toy.NoisySegmenter(share).predict(FRAMES).labels
    base[:, :, 20:] = VOID  # where the box is in the first frames: it has no votes there
    masklets = ExactTracker().track(FRAMES, 0)
    voted = refine_window(BaseLabels(base), masklets, CLASSES, scope)
    namer = ClassifierNamer(ClassEncoder(), wrong_classifier(scope), vote_weight=1.0)
    naming = namer.name_masklets(FRAMES, BaseLabels(base), masklets)
    if scope == "window":
        has_votes = voted.votes.sum(axis=1) > 0
        assert naming.classes[has_votes].tolist() == voted.classes[has_votes].tolist()
        assert (naming.classes[~has_votes] == 0).all()
    else:
        assert (base[0][OBJECTS[0] == 2] == VOID).all()
        for t in range(12):
            alone = MaskletWindow.from_masks(masklets.stack(t)[:, None])
            votes = refine_window(BaseLabels(base[t : t + 1]), alone, CLASSES)
            has_votes = votes.votes.sum(axis=1) > 0
            assert naming.frame_classes[t, has_votes].tolist() == votes.classes[has_votes].tolist()
            is_silent = ~has_votes & (masklets.areas(t) > 0)
            assert (naming.frame_classes[t, is_silent] == 0).all()


def test_a_weight_between_mixes_shares_of_votes_and_probabilities():
    masks = np.ones((1, 1, 2, 5), bool)
    labels = np.full((1, 2, 5), 3, np.uint8)
    labels[0, 0, :4] = 1  # 4 votes of 10 for class 1, 6 for class 3
    images, masklets = np.zeros((1, 2, 5, 3), np.uint8), MaskletWindow.from_masks(masks)
    for scope in SCOPES:
        namer = ClassifierNamer(ClassEncoder(), wrong_classifier(scope), vote_weight=0.25)
        naming = namer.name_masklets(images, BaseLabels(labels), masklets)
        expected = [0.75 * 0.4, 0.75 * 0.2 + 0.25 * 0.4, 0.75 * 0.2, 0.75 * 0.2 + 0.25 * 0.6]
        np.testing.assert_allclose(naming.scores, [expected], rtol=1e-6)


def test_without_weight_the_base_has_no_say_and_may_be_of_any_classes():
    base = BaseLabels(np.full_like(TRUTH, 77))
    naming = make_namer().name_masklets(FRAMES, base, ExactTracker().track(FRAMES, 0))
    assert naming.classes.tolist() == [1, 2, 1]


@pytest.mark.parametrize("scope", SCOPES)
def test_earlier_scores_are_added_before_the_winner_is_chosen(scope):
    masklets = ExactTracker().track(FRAMES[:4], 0)
    earlier = np.zeros((3, 4))
    earlier[0, 2], earlier[1, 3] = 5.0, 3.0  # against 4 frames of class 1, and of class 2
    naming = make_namer(scope, vote="window").name_masklets(FRAMES[:4], BaseLabels(NOISY[:4]), masklets, earlier)
    np.testing.assert_allclose(naming.scores[:2], [[0, 4, 5, 0], [0, 0, 4, 3]], atol=1e-9)
    assert naming.classes.tolist() == [2, 2, 1]
    assert naming.frame_classes.tolist() == [[2, 2, 1]] * 4
    assert naming.confidence.tolist() == pytest.approx([5 / 9, 4 / 7, 1])
    assert earlier.sum() == 8  # left as it was


def test_a_masklet_that_is_not_seen_keeps_its_earlier_class():
    masklets = MaskletWindow.from_masks(np.zeros((1, 2, *toy.SIZE), bool))
    naming = make_namer().name_masklets(FRAMES[:2], BaseLabels(NOISY[:2]), masklets, np.array([[0, 0, 0, 2.0]]))
    assert naming.classes.tolist() == [3]
    assert make_namer().name_masklets(FRAMES[:2], BaseLabels(NOISY[:2]), masklets).classes.tolist() == [-1]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_doubtful_masklet_abstains(scope):
    masklets = ExactTracker().track(FRAMES, 0)
    for min_share, label in ((0.39, 0), (0.41, -1)):
        namer = ClassifierNamer(ClassEncoder(), wrong_classifier(scope), min_share=min_share)
        naming = namer.name_masklets(FRAMES, BaseLabels(NOISY), masklets)
        assert naming.classes.tolist() == [label] * 3
        is_seen = np.stack([masklets.areas(t) for t in range(12)]) > 0
        assert set(naming.frame_classes[is_seen].tolist()) == {label}
        assert naming.confidence.tolist() == pytest.approx([0.4] * 3)


def test_a_classifier_of_masks_can_name_whole_masklets():
    naming = make_namer("frame", vote="window").name_masklets(
        FRAMES, BaseLabels(NOISY), ExactTracker().track(FRAMES, 0)
    )
    assert naming.frame_classes.tolist() == [[1, 2, 1]] * 12


def test_one_mask_may_change_its_class_from_frame_to_frame():
    masklets = MaskletWindow.from_masks(np.ones((1, 2, 2, 5), bool))
    images = np.zeros((2, 2, 5, 3), np.uint8)
    images[0, ..., 1], images[1, ..., 1] = 20, 60  # classes 1 and 3
    naming = make_namer().name_masklets(images, BaseLabels(np.zeros((2, 2, 5), np.uint8)), masklets)
    assert naming.frame_classes.tolist() == [[1], [3]]


@pytest.mark.parametrize("scope", SCOPES)
def test_no_masklets_are_no_error(scope):
    for base in (VoidLabels(CLASSES), ArrayLabels(NOISY, CLASSES)):
        windows = refine(make_namer(scope, vote_weight=0.5), base, NoTracker())
        for window in windows:
            assert window.labels.tolist() == window.base.tolist()
            assert window.votes.shape == (0, 4)


def test_permuted_masklets_permute_their_names():
    order = np.array([2, 0, 1])
    plain, permuted = (
        make_namer().name_masklets(FRAMES, BaseLabels(NOISY), ExactTracker(rows).track(FRAMES, 0))
        for rows in (None, order)
    )
    np.testing.assert_allclose(permuted.scores, plain.scores[order])
    assert permuted.frame_classes.tolist() == plain.frame_classes[:, order].tolist()


def test_a_class_per_frame_of_a_classifier_of_masklets_is_refused():
    with pytest.raises(SettingsError, match=r"no class per frame: leave --vote out"):
        make_namer("window", vote="frame")


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_outside_0_to_1_are_refused(weight):
    with pytest.raises(SettingsError, match=r"weight of base votes is .* expected 0 to 1"):
        make_namer(vote_weight=weight)


def test_another_encoder_is_refused():
    with pytest.raises(SettingsError, match="Take the encoder it was trained with"):
        ClassifierNamer(ClassEncoder("other"), perfect_classifier())


def test_an_encoder_that_gives_other_maps_than_it_says_is_refused():
    class Wide(ClassEncoder):
        channels = (5,)

        def encode(self, frame):
            return (np.zeros((5, 3, 3), np.float32),)

    with pytest.raises(ShapeError, match="features have 5 columns and 0 tokens, the classifier was made for 4"):
        ClassifierNamer(Wide(), perfect_classifier()).name_masklets(
            FRAMES, BaseLabels(NOISY), ExactTracker().track(FRAMES, 0)
        )
