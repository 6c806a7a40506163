"""SAM 2 as segmentor from Python: what is joined, what fills the rest, and what does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import toy
from sam2vss import segmentor
from sam2vss.classifiers.classifier import MaskletClassifier, describe_encoder
from sam2vss.classifiers.fusion import MaskletFusion
from sam2vss.encoders import load_encoder
from sam2vss.encoders.shared import SharedEncoder
from sam2vss.errors import LabelError, SettingsError, ShapeError, WeightsError
from sam2vss.refiner import ArrayLabels, load_tracker
from sam2vss.sam2.loading import find_sam2
from sam2vss.settings import FollowSettings, MaskletSettings
from sam2vss.types import LabelSpace, voc_palette
from toy import CLASSES, ExactTracker
from toy_features import ClassEncoder, NoiseEncoder, perfect_classifier

SMALL = MaskletSettings(window=4, points=2, pred_iou=0.3, stability=0.3)
VOID = CLASSES.ignore_index
T = 6
OBJECTS = toy.toy_objects(T)
FRAMES, TRUTH = toy.toy_frames(OBJECTS), toy.toy_labels(OBJECTS)
BASE = np.stack([toy.noisy_labels(labels, 0.3, frame) for labels, frame in zip(TRUTH, FRAMES, strict=True)])
COVERED = (OBJECTS > 0) & (OBJECTS < 4)  # the fourth object comes in the course of the second window


@pytest.fixture
def exact(monkeypatch) -> ClassEncoder:
    """Puts the exact tracker and an encoder of true classes in the place of SAM 2."""
    encoder = ClassEncoder()
    monkeypatch.setattr(segmentor, "load_tracker", lambda *arguments, **options: ExactTracker())
    monkeypatch.setattr(segmentor, "load_shared_encoder", lambda *arguments: encoder)
    return encoder


def label(source=FRAMES, classifier=None, **options) -> np.ndarray:
    settings = {"sam2": "nano", "masklets": SMALL, "device": "cpu", **options}
    windows = list(segmentor.classify(source, classifier=classifier or perfect_classifier(), **settings))
    assert [window.window.length for window in windows] == [4, 2]
    return np.concatenate([window.labels for window in windows])


# --- what fills the rest ---------------------------------------------------------------------------------------------


def test_without_a_base_the_rest_stays_void(exact):
    assert np.array_equal(label(), np.where(COVERED, TRUTH, VOID))
    assert exact.calls == T


def test_base_labels_fill_what_no_masklet_covers(exact):
    expected = np.where(COVERED, TRUTH, BASE)
    assert np.array_equal(label(base=BASE), expected)
    assert np.array_equal(label(base=ArrayLabels(BASE, CLASSES)), expected)


def test_results_are_of_the_classifiers_label_set(exact, monkeypatch):
    seen = []
    refine = segmentor.Refiner.refine
    monkeypatch.setattr(
        segmentor.Refiner, "refine", lambda self, source, base, *rest: seen.append(base) or refine(self, source, base)
    )
    grey = LabelSpace(CLASSES.names, np.full((4, 3), 7, np.uint8), name="grey")
    assert np.array_equal(label(base=ArrayLabels(BASE, grey)), np.where(COVERED, TRUTH, BASE))
    assert seen[0].label_space.to_dict() == CLASSES.to_dict()


def test_files_are_labelled_as_arrays(tmp_path, exact):
    frames = toy.write_toy_frames(tmp_path / "frames", T)
    maps = toy.write_toy_labels(tmp_path / "maps", T, 0.3)
    expected = np.where(COVERED, TRUTH, BASE)
    assert np.array_equal(label(frames), np.where(COVERED, TRUTH, VOID))
    assert np.array_equal(label(frames, base=BASE), expected)
    assert np.array_equal(label(frames, base=maps), expected)
    # the folder's own classes, where it says what they are
    others = {"name": "others", "classes": [{"id": i, "name": f"class {i}"} for i in range(4)]}
    (maps / "label_set.json").write_text(json.dumps(others))
    with pytest.raises(LabelError, match=r"4 classes \(others\), the classifier names 4 \(toy\).* 0: class 0 / ground"):
        label(frames, base=str(maps))
    (maps / "label_set.json").write_text(json.dumps(CLASSES.to_dict()))
    assert np.array_equal(label(frames, base=maps), expected)


def test_base_votes_have_a_say_where_they_are_given_a_weight(exact):
    """All base labels are of the next class, and the classifier is sure of itself."""
    wrong = ((TRUTH + 1) % 4).astype(np.uint8)
    for combine, expected in ((None, TRUTH), (0.0, TRUTH), (0.4, TRUTH), (0.6, wrong), (1.0, wrong)):
        assert np.array_equal(label(base=wrong, combine=combine), np.where(COVERED, expected, wrong)), combine
    for weight, expected in ((0.4, TRUTH), (0.6, wrong)):
        found = label(classifier=perfect_classifier(vote_weight=weight), base=wrong, combine="learned")
        assert np.array_equal(found, np.where(COVERED, expected, wrong))


def test_one_class_per_window_or_per_frame_as_it_was_trained_unless_told_otherwise(exact, monkeypatch):
    """Features differ from frame to frame, so the classes do."""
    monkeypatch.setattr(segmentor, "load_shared_encoder", lambda *arguments: NoiseEncoder())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MaskletClassifier(label_set=CLASSES.to_dict(), encoder=describe_encoder(NoiseEncoder()), hidden=8)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=2)
    found = label(classifier=network)
    assert np.array_equal(label(classifier=network, vote="frame"), found)
    by_window = label(classifier=network, vote="window")
    assert len(set(found[:4][OBJECTS[:4] == 3])) > 1
    assert len(set(by_window[:4][OBJECTS[:4] == 3])) == 1


def test_doubtful_masklets_abstain(exact):
    unsure = perfect_classifier()
    unsure.head.layers[0].weight.data.fill_(0)  # 0.25 for each class
    assert (label(classifier=unsure, min_share=0.3) == VOID).all()
    assert np.array_equal(label(classifier=unsure, min_share=0.3, base=BASE), BASE)
    assert (label(classifier=unsure, min_share=0.25)[COVERED] == 0).all()


def test_a_classifier_can_be_named_by_its_folder(tmp_path, exact):
    perfect_classifier().save_pretrained(tmp_path / "saved")
    for name in (tmp_path / "saved", str(tmp_path / "saved")):
        assert np.array_equal(label(classifier=name), np.where(COVERED, TRUTH, VOID))


def test_overlaps_and_carried_masklets_are_as_asked(exact, monkeypatch):
    given = []

    class Refiner(segmentor.Refiner):
        def __init__(self, *arguments, **options) -> None:
            given.append((*arguments, options))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(segmentor, "Refiner", Refiner)
    label(overlap="large-on-top", follow=FollowSettings(carry=True))
    _, window, rule, options = given[0]
    assert (window, rule.overlap, options["carry"]) == (4, "large-on-top", True)


# --- encoding once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tracker():
    return load_tracker(find_sam2("nano"), SMALL, device="cpu", dtype="float32")


def nano_classifier() -> MaskletClassifier:
    """Random weights on the features of the bundled SAM 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = describe_encoder(load_encoder("sam2:nano", "cpu", "float32"))
        return MaskletClassifier(label_set=CLASSES.to_dict(), encoder=encoder, hidden=8, known_classes=[1, 2]).eval()


def test_with_sam_2_a_frame_is_encoded_once_for_tracker_and_classifier(tracker, monkeypatch):
    counts = []
    original = tracker.network.pyramid
    monkeypatch.setattr(tracker.network, "pyramid", lambda pixels: (counts.append(len(pixels)), original(pixels))[1])
    monkeypatch.setattr(segmentor, "load_tracker", lambda *arguments, **options: tracker)
    found = label(classifier=nano_classifier())
    assert sum(counts) == T
    assert {1, VOID} <= set(np.unique(found)) <= {1, 2, VOID} or {2, VOID} <= set(np.unique(found)) <= {1, 2, VOID}


def test_sam_2_is_loaded_as_asked(monkeypatch):
    given = {}

    def load(location, masklets, follow, **options):
        given.update(options, masklets=masklets, follow=follow, path=location.path)
        raise SettingsError("enough")

    monkeypatch.setattr(segmentor, "load_tracker", load)
    follow = FollowSettings(max_masklets=3)
    with pytest.raises(SettingsError, match="enough"):
        label(follow=follow, mode="auto", dtype="bfloat16")
    assert given == {
        "masklets": SMALL, "follow": follow, "path": find_sam2("nano").path, "mode": "exact", "device": "cpu",
        "dtype": "bfloat16",
    }  # fmt: skip


def test_the_trackers_encoder_is_shared_where_it_gives_the_same(tracker):
    shared = segmentor.load_shared_encoder("sam2:nano", tracker, "cpu", "float32")
    assert isinstance(shared, SharedEncoder)
    assert shared.encoder.network is tracker.network
    assert tracker.encode == shared.encode_ahead
    other = segmentor.load_shared_encoder("sam2:nano", ExactTracker(), "cpu", "float32")
    assert not isinstance(other, SharedEncoder)
    assert other.fingerprint == shared.fingerprint


def test_other_levels_are_encoded_apart(tracker):
    before = tracker.encode
    found = segmentor.load_shared_encoder("sam2:nano/high", tracker, "cpu", "float32")
    assert not isinstance(found, SharedEncoder)
    assert tracker.encode is before


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": 0.5}, "combine weighs base votes, and there is no base: pass base="),
        ({"combine": 1.5, "base": BASE}, r"the weight of base votes is 1\.5, expected 0 to 1"),
        ({"combine": "learnt", "base": BASE}, "combine is 'learnt', expected \"learned\" or a weight from 0 to 1"),
        (
            {"follow": FollowSettings(skip_settled=True)},
            "--skip-settled and --drop-contained drop masklets by the base",
        ),
        ({"follow": FollowSettings(drop_contained=True), "base": BASE}, "something else names them: leave them out"),
        ({"device": "gpu9"}, "gpu9"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_options_that_do_not_go_together_are_named(exact, options, message):
    with pytest.raises(SettingsError, match=message):
        label(**options)


def test_a_weight_that_was_never_learned_is_named(exact):
    with pytest.raises(SettingsError, match=r"has learned no weight for them: pass a number, such as --combine 0\.5"):
        label(base=BASE, combine="learned")


def test_base_labels_that_do_not_fit_are_named(exact):
    with pytest.raises(LabelError, match="base labels hold"):
        label(base=np.full_like(BASE, 99))
    with pytest.raises(ShapeError, match="6 frames and 2 label maps"):
        label(base=BASE[:2])
    with pytest.raises(LabelError, match="Take base labels of the classifier's classes, or train a classifier for"):
        label(base=ArrayLabels(BASE, LabelSpace.numbered(4)))


def test_an_encoder_of_other_weights_is_named(exact, monkeypatch):
    monkeypatch.setattr(segmentor, "load_shared_encoder", lambda *arguments: ClassEncoder("other"))
    with pytest.raises(SettingsError, match=r"features of toy-classes \(exact\), and toy-classes here is other"):
        label()


def test_classes_are_compared_by_name_and_order():
    one = LabelSpace(("sky", "road", "car"), voc_palette(3), name="street")
    segmentor.check_classes(one, LabelSpace(one.names, voc_palette(3)[::-1], name="other colours"))
    swapped = LabelSpace(("sky", "car", "road"), voc_palette(3))
    with pytest.raises(LabelError) as caught:
        segmentor.check_classes(one, swapped)
    assert str(caught.value) == (
        "the base labels have 3 classes (street), the classifier names 3 (without a name); first difference, base / "
        "classifier, is 1: road / car. Take base labels of the classifier's classes, or train a classifier for yours"
    )
    fewer = LabelSpace(("sky", "road"), voc_palette(2), name="few")
    with pytest.raises(LabelError, match=r"have 3 classes \(street\), the classifier names 2 \(few\)\. Take"):
        segmentor.check_classes(one, fewer)


def test_stored_base_labels_have_their_own_classes_or_else_the_classifiers(tmp_path):
    named = LabelSpace(("sky", "road"), voc_palette(2), name="named")
    assert segmentor.base_label_space(tmp_path, named) is named
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"name": "given", "classes": [{"id": 0, "name": "x"}]}))
    assert segmentor.base_label_space(tmp_path, named, given).name == "given"
    (tmp_path / "label_set.json").write_text(json.dumps({"name": "own", "classes": [{"id": 0, "name": "x"}]}))
    assert segmentor.base_label_space(tmp_path, named).name == "own"
    (tmp_path / "label_set.json").write_text("{")
    with pytest.raises(LabelError, match=r"label_set\.json"):
        segmentor.base_label_space(tmp_path, named)
    with pytest.raises((LabelError, SettingsError), match=r"missing\.json"):
        segmentor.base_label_space(tmp_path, named, tmp_path / "missing.json")


# --- finding networks ------------------------------------------------------------------------------------------------


def make_fusion(folder: Path, encoder=None) -> Path:
    MaskletFusion(label_set=CLASSES.to_dict(), encoder=encoder, hidden=8).save_pretrained(folder)
    return folder


def test_networks_of_the_other_kind_are_named(tmp_path):
    perfect_classifier().save_pretrained(tmp_path / "classifier")
    fusion = make_fusion(tmp_path / "fusion")
    with pytest.raises(WeightsError, match=r"'sam2vss masklet fusion 1', expected 'sam2vss masklet classifier 1'"):
        segmentor.find_classifier(str(fusion))
    with pytest.raises(WeightsError, match=r"'sam2vss masklet classifier 1', expected 'sam2vss masklet fusion 1'"):
        segmentor.find_fusion(str(tmp_path / "classifier"))
    assert segmentor.find_classifier(str(tmp_path / "classifier")).path == tmp_path / "classifier"


def test_a_fusion_is_joined_with_its_encoder(tmp_path, tracker):
    encoder = describe_encoder(load_encoder("sam2:nano", "cpu", "float32"))
    location = segmentor.find_fusion(str(make_fusion(tmp_path / "bound", encoder)))
    namer = segmentor.load_fusion_namer(location, CLASSES, tracker)
    assert isinstance(namer.encoder, SharedEncoder)
    with pytest.raises(SettingsError, match="train one for them, or take one without features"):
        segmentor.load_fusion_namer(location, LabelSpace.numbered(3), tracker)
    with pytest.raises(SettingsError, match="take the encoder it was trained with, or train a fusion for this one"):
        segmentor.load_fusion_namer(location, CLASSES, tracker, encoder="sam2:nano/high")
    anything = segmentor.find_fusion(str(make_fusion(tmp_path / "unbound")))
    assert segmentor.load_fusion_namer(anything, LabelSpace.numbered(3), tracker).encoder is None


@pytest.mark.parametrize("options", [{"min_share": 2}, {"min_share": float("nan")}, {"vote": "x"}, {"overlap": "x"}])
def test_values_that_make_no_sense_are_named(exact, options):
    with pytest.raises(SettingsError, match=rf"^{next(iter(options))} is "):
        label(**options)
