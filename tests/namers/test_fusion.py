"""Masklets named by a learned fusion: untrained it is the majority vote, and it refuses what it was not made for."""

import numpy as np
import pytest
import torch

import toy
from sam2vss.artifacts import RunFolder
from sam2vss.classifiers.classifier import describe_encoder
from sam2vss.classifiers.fusion import MaskletFusion
from sam2vss.errors import SettingsError
from sam2vss.interfaces import MaskletNamer
from sam2vss.namers.fusion import FusionNamer
from sam2vss.pipeline import refine_clip
from sam2vss.refiner import Refiner
from sam2vss.segmenters import ModelLabels
from sam2vss.segmenters.void import VoidLabels
from sam2vss.types import BaseLabels, LabelSpace, MaskletWindow, Window
from sam2vss.voting import paint_window, refine_window
from toy import CLASSES, ExactTracker, NoisySegmenter, ToyClip
from toy_features import ClassEncoder, NoiseEncoder


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


def make_fusion(encoder=None, label_space=CLASSES, is_trained=False, **options) -> MaskletFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        described = None if encoder is None else describe_encoder(encoder)
        network = MaskletFusion(label_set=label_space.to_dict(), encoder=described, hidden=8, **options)
        if is_trained:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


def keeping_fusion() -> MaskletFusion:
    network = make_fusion()
    with torch.no_grad():
        network.keep_offset.fill_(100)
    return network


def toy_window(length: int = 3) -> tuple[np.ndarray, BaseLabels, MaskletWindow]:
    """Frames, noisy base labels, and the masklets of disc, box and second disc."""
    objects = toy.toy_objects(length)
    images = toy.toy_frames(objects)
    labels = np.stack([toy.noisy_labels(image[..., 1] // 20, 0.3, image) for image in images])
    masks = objects[None] == np.arange(1, 4)[:, None, None, None]
    return images, BaseLabels(labels), MaskletWindow.from_masks(masks, 0, ids=np.arange(3))


class CarryingTracker(ExactTracker):
    """Keeps the ids of objects over window borders, so that their votes are carried on."""

    def track(self, frames, start, context=None):
        objects = frames[..., 0] // 20
        ids = np.unique(objects[0][objects[0] > 0]).astype(np.int64)
        return MaskletWindow.from_masks(objects[None] == ids[:, None, None, None], start, ids=ids)


# --- naming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [None, NoiseEncoder()])
@pytest.mark.parametrize("may_keep", [True, False])
def test_an_untrained_fusion_paints_what_the_majority_vote_paints(encoder, may_keep):
    namer: MaskletNamer = FusionNamer(make_fusion(encoder, may_keep=may_keep), CLASSES, encoder)
    base = ModelLabels(NoisySegmenter(0.5))
    found = list(refine_clip("toy", ToyClip(12).frames(), base, ExactTracker(), 4, namer=namer))
    expected = list(refine_clip("toy", ToyClip(12).frames(), base, ExactTracker(), 4))
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.refinement.labels, other.refinement.labels)
        assert np.array_equal(one.refinement.votes, other.refinement.votes)
        assert np.array_equal(one.refinement.classes, other.refinement.classes)
        assert (one.refinement.labels != one.refinement.base).any()


def test_votes_are_the_scores_and_probabilities_the_confidence():
    images, base, masklets = toy_window()
    network = make_fusion(is_trained=True)
    namer = FusionNamer(network, CLASSES)
    naming = namer.name_masklets(images, base, masklets)
    expected = refine_window(base, masklets, CLASSES)
    assert naming.scores.dtype == expected.votes.dtype
    assert naming.scores.tolist() == expected.votes.tolist()
    assert ((naming.confidence > 0) & (naming.confidence <= 1)).all()
    assert naming.frame_classes.tolist() == [naming.classes.tolist()] * 3
    earlier = np.arange(12).reshape(3, 4) * 1000
    again = namer.name_masklets(images, base, masklets, earlier)
    assert again.scores.tolist() == (expected.votes + earlier).tolist()
    assert namer.name_masklets(images, base, masklets, 0.0 * earlier).scores.dtype == np.int64


def test_votes_of_earlier_windows_can_turn_a_decision():
    images, base, masklets = toy_window()
    namer = FusionNamer(make_fusion(), CLASSES)
    assert namer.name_masklets(images, base, masklets).classes.tolist() == [1, 2, 1]
    earlier = np.array([[0, 0, 0, 9999], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert namer.name_masklets(images, base, masklets, earlier).classes.tolist() == [3, 2, 1]


def test_masklets_that_are_left_show_the_base_labels():
    images, base, masklets = toy_window()
    naming = FusionNamer(keeping_fusion(), CLASSES).name_masklets(images, base, masklets)
    assert naming.classes.tolist() == [-1, -1, -1]
    assert (naming.confidence > 0.99).all()
    assert np.array_equal(paint_window(base, masklets, naming).labels, base.labels)


def test_masklets_without_masks_or_votes_are_left():
    images, base, masklets = toy_window()
    masks = np.stack([masklets.stack(t) for t in range(3)], axis=1)
    masks[0] = False
    labels = base.labels.copy()
    labels[masks[1]] = CLASSES.ignore_index
    window = MaskletWindow.from_masks(masks, 0, ids=np.arange(3))
    naming = FusionNamer(make_fusion(may_keep=False), CLASSES).name_masklets(images, BaseLabels(labels), window)
    assert naming.classes.tolist() == [-1, -1, 1]
    assert naming.confidence[0] == 0
    assert naming.scores[:2].tolist() == [[0] * 4] * 2


def test_no_masklets_are_no_trouble():
    images, base, _ = toy_window()
    none = MaskletWindow.from_masks(np.zeros((0, 3, *toy.SIZE), bool), 0)
    for encoder in (None, NoiseEncoder()):
        naming = FusionNamer(make_fusion(encoder), CLASSES, encoder).name_masklets(images, base, none)
        assert (naming.scores.shape, naming.classes.shape, naming.frame_classes.shape) == ((0, 4), (0,), (3, 0))


def test_without_base_labels_all_stays_void():
    frames = np.stack([frame.image for frame in ToyClip(4).frames()])
    refiner = Refiner(ExactTracker(), 4, namer=FusionNamer(make_fusion(), CLASSES))
    (window,) = refiner.refine(frames, VoidLabels(CLASSES))
    assert (window.labels == CLASSES.ignore_index).all()


def test_features_are_those_of_the_encoder():
    """A fusion that looks at nothing but features names objects right whatever the votes say."""
    encoder = ClassEncoder()
    network = make_fusion(encoder)
    with torch.no_grad():
        first, last = network.name[0], network.name[-1]
        first.weight.zero_()
        last.weight.zero_()
        for label in range(4):
            first.weight[label, label] = 1
            last.weight[label, label] = 60
    images, base, masklets = toy_window()
    wrong = BaseLabels((base.labels + 1) % 4)
    naming = FusionNamer(network, CLASSES, encoder).name_masklets(images, wrong, masklets)
    assert naming.classes.tolist() == [1, 2, 1]
    assert encoder.calls == 3


def test_an_encoder_is_not_asked_where_features_do_not_count():
    encoder = ClassEncoder()
    FusionNamer(make_fusion(), CLASSES, encoder).name_masklets(*toy_window())
    assert encoder.calls == 0


# --- carried over, and resumed ---------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("encoder", [None, NoiseEncoder()])
def test_a_run_with_carried_masklets_resumes_to_the_same_bits(tmp_path, encoder):
    options = {"carry": True, "namer": FusionNamer(make_fusion(encoder, is_trained=True), CLASSES, encoder)}
    whole = toy.run_toy(tmp_path / "whole", (ToyClip(11),), tracker=CarryingTracker(), **options)
    assert whole.windows == 3

    def stop(frame: int) -> None:
        if frame == 9:  # frames are decoded ahead
            raise Stop

    with pytest.raises(Stop):
        toy.run_toy(tmp_path / "cut", (ToyClip(11, on_frame=stop),), tracker=CarryingTracker(), **options)
    done = RunFolder.open(tmp_path / "cut").finished_windows("toy")
    assert 0 < len(done) < 3
    again = toy.run_toy(tmp_path / "cut", (ToyClip(11),), tracker=CarryingTracker(), resume=True, **options)
    assert again.resumed_frames == 4 * len(done)
    assert toy.content_of_run(tmp_path / "cut") == toy.content_of_run(tmp_path / "whole")


def test_carried_votes_add_up_over_windows():
    namer = FusionNamer(make_fusion(), CLASSES)
    base = ModelLabels(NoisySegmenter(0.3))
    apart = list(refine_clip("toy", ToyClip(8).frames(), base, CarryingTracker(), 4, namer=namer))
    joined = list(refine_clip("toy", ToyClip(8).frames(), base, CarryingTracker(), 4, namer=namer, carry=True))
    assert joined[0].refinement.votes.tolist() == apart[0].refinement.votes.tolist()
    total = apart[0].refinement.votes + apart[1].refinement.votes
    assert joined[1].refinement.window == Window(4, 4)
    assert joined[1].refinement.votes.tolist() == total.tolist()


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_any_label_set_is_served_without_features():
    names = tuple(f"class {i}" for i in range(9))
    space = LabelSpace(names, toy.voc_palette(9), name="nine")
    images, base, masklets = toy_window()
    naming = FusionNamer(make_fusion(), space).name_masklets(images, BaseLabels(base.labels + 5), masklets)
    assert naming.classes.tolist() == [6, 7, 6]


def test_a_fusion_with_features_refuses_other_classes_and_encoders():
    encoder = ClassEncoder()
    network = make_fusion(encoder)
    with pytest.raises(SettingsError, match="trained for the 4 classes of toy and looks at features"):
        FusionNamer(network, LabelSpace.numbered(4), encoder)
    with pytest.raises(SettingsError, match=r"features of toy-classes \(exact\), and none is given: take the encoder"):
        FusionNamer(network, CLASSES)
    with pytest.raises(SettingsError, match=r"toy-classes \(exact\), and toy-classes here is other: take the encoder"):
        FusionNamer(network, CLASSES, ClassEncoder("other"))
