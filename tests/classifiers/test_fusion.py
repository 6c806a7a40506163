"""The learned fusion: what it sees against a slow literal version, and what must always hold of its decisions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.classifiers.classifier import describe_encoder
from sam2vss.classifiers.fusion import EVIDENCE_NAMES, SIGN_NAMES, Evidence, MaskletFusion, weigh_evidence
from sam2vss.classifiers.samples import SHAPE_NAMES, make_samples
from sam2vss.errors import SettingsError, ShapeError, WeightsError
from sam2vss.masklet_features import MaskletFeatures
from sam2vss.types import LabelSpace
from sam2vss.voting import choose_classes
from toy import CLASSES
from toy_features import NoiseEncoder, make_known, perfect_classifier


def random_known(seed: int, num_classes: int = 4, length: int = 3, count: int = 5, **more) -> MaskletFeatures:
    """Masklets of all kinds: of some frames there is no mask, of one masklet none at all, one has no votes."""
    rng = np.random.default_rng(seed)
    areas = rng.integers(1, 60, (length, count)) * (rng.random((length, count)) < 0.8)
    areas[0], areas[:, 1] = np.maximum(areas[0], 1), 0
    corners = np.sort(rng.choice([0, 0.25, 0.5, 1], (length, count, 2, 2)), axis=2).reshape(length, count, 4)
    votes = rng.multinomial(1, rng.dirichlet(np.ones(num_classes), (length, count)))
    votes = votes * areas[..., None] + rng.integers(0, 9, votes.shape) * (areas > 0)[..., None]
    votes[:, 2] = 0
    masses = (votes + rng.random(votes.shape) * (votes.sum(axis=2, keepdims=True) > 0)).astype(np.float32)
    values = {
        "features": rng.normal(size=(length, count, 7)),
        "predicted_iou": rng.random(count).astype(np.float32),
        "stability": rng.random(count).astype(np.float32),
        "frame_iou": (rng.random((length, count)) * (areas > 0)).astype(np.float32),
        "boxes_xyxy": (corners * (areas > 0)[..., None]).astype(np.float32),
        "votes": votes,
        "masses": masses,
    }
    return make_known(areas.tolist(), **{**values, **more})


def slow_evidence(known: MaskletFeatures, earlier: np.ndarray | None = None) -> tuple[list, list, list]:
    """Positions, what speaks for each class and how votes are spread, in plain loops."""
    length, count, num_classes = known.votes.shape
    height, width = known.size
    rows, all_votes, all_signs = [], [], []

    def entropy(shares: list[float]) -> float:
        return -sum(share * math.log2(share) for share in shares if share > 0)

    def shared(counts: list[float]) -> list[float]:
        total = sum(counts)
        return [count / total if total else 0.0 for count in counts]

    for i in range(count):
        seen = [t for t in range(length) if known.areas[t, i] > 0]
        if not seen:
            continue
        counts = [float(sum(known.votes[t, i, c] for t in range(length))) for c in range(num_classes)]
        if earlier is not None:
            counts = [old + float(earlier[i, c]) for c, old in enumerate(counts)]
        shares = shared(counts)
        mass = shares
        if known.masses is not None:
            mass = shared([float(sum(known.masses[t, i, c] for t in seen)) for c in range(num_classes)])
        weights = {}
        for t in seen:
            x0, y0, x1, y1 = known.boxes_xyxy[t, i]
            at_border = x0 <= 0 or y0 <= 0 or x1 >= 1 or y1 >= 1
            weights[t] = math.sqrt(known.areas[t, i]) * max(known.frame_iou[t, i], 0.01) * (0.5 if at_border else 1)
        lead, frame_entropy = [0.0] * num_classes, 0.0
        for t in seen:
            frame = [float(votes) for votes in known.votes[t, i]]
            if sum(frame):
                lead[frame.index(max(frame))] += weights[t]
            frame_entropy += weights[t] * entropy(shared(frame)) / sum(weights.values())
        lead = shared(lead)
        rows.append(i)
        all_votes.append(
            [
                [
                    shares[c],
                    math.log(shares[c] + 0.001),
                    mass[c],
                    lead[c],
                    shares[c] - max([shares[k] for k in range(num_classes) if k != c], default=0.0),
                ]
                for c in range(num_classes)
            ]
        )
        ordered = sorted(shares, reverse=True)
        per_pixel = max(sum(counts) / (height * width * length), 1e-6)
        all_signs.append(
            [
                entropy(shares),
                ordered[0],
                ordered[1] if num_classes > 1 else 0.0,
                frame_entropy,
                min(sum(share > 0.05 for share in shares), 5) / 5,
                math.log10(per_pixel) / 6 + 0.5,
            ]
        )
    return rows, all_votes, all_signs


def assert_close(found: np.ndarray, expected: list) -> None:
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6, atol=1e-6)  # float32; measured 3e-7


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_masses", [True, False])
@pytest.mark.parametrize("has_earlier", [True, False])
@pytest.mark.parametrize("num_classes", [1, 2, 4, 7])
def test_evidence_is_that_of_plain_loops(num_classes, has_earlier, has_masses):
    for seed in range(3):
        known = random_known(seed, num_classes)
        known = known if has_masses else replace(known, masses=None)
        earlier = np.random.default_rng(seed).integers(0, 50, (5, num_classes)) if has_earlier else None
        found = weigh_evidence(known, earlier)
        rows, votes, signs = slow_evidence(known, earlier)
        assert found.masklets.tolist() == rows == [0, 2, 3, 4]
        assert found.votes.shape == (4, num_classes, len(EVIDENCE_NAMES))
        assert_close(found.votes, votes)
        assert_close(found.signs[:, len(SHAPE_NAMES) :], signs)
        samples = make_samples(known, "window", "quality")
        assert found.signs[:, : len(SHAPE_NAMES)].tolist() == samples.shapes.tolist()
        assert found.features.tolist() == samples.features.tolist()
        assert found.signs.shape[1] == len(SHAPE_NAMES) + len(SIGN_NAMES) == 17
        assert {array.dtype for array in (found.votes, found.signs, found.features)} == {np.dtype(np.float32)}


def test_evidence_of_two_frames_by_hand():
    """Areas 4 and 16 weigh 2 and 4; the first frame leads to class 1, the second to class 0."""
    votes = np.array([[[1, 3, 0]], [[12, 0, 4]]])
    found = weigh_evidence(make_known([[4], [16]], votes=votes, size=(10, 20)))
    shares = np.array([13, 3, 4]) / 20
    assert_close(found.votes[0, :, 0], shares)
    assert_close(found.votes[0, :, 1], np.log(shares + 0.001))
    assert_close(found.votes[0, :, 2], shares)  # without probabilities
    assert_close(found.votes[0, :, 3], [4 / 6, 2 / 6, 0])
    assert_close(found.votes[0, :, 4], [9 / 20, -10 / 20, -9 / 20])
    entropy = -(shares * np.log2(shares)).sum()
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))  # of both frames
    assert_close(found.signs[0, 11:], [entropy, 0.65, 0.2, quarter, 3 / 5, math.log10(20 / 400) / 6 + 0.5])


def test_equal_classes_have_no_margin():
    found = weigh_evidence(make_known([[6]], votes=np.array([[[3, 3, 0]]])))
    assert found.votes[0, :, 4].tolist() == [0, 0, -0.5]


def test_a_masklet_without_votes_has_evidence_of_zeros():
    found = weigh_evidence(make_known([[6]], votes=np.zeros((1, 1, 3), int)))
    assert found.votes[0, :, [0, 2, 3, 4]].tolist() == [[0, 0, 0]] * 4
    assert found.signs[0, 11:].tolist() == [0, 0, 0, 0, 0, -0.5]
    assert np.isfinite(found.votes).all()


def test_votes_of_earlier_windows_count_with_the_masklet_they_belong_to():
    known = make_known([[0, 8]], votes=np.array([[[0, 0], [6, 2]]]))
    found = weigh_evidence(known, np.array([[100, 0], [0, 8]]))
    assert found.masklets.tolist() == [1]
    assert found.votes[0, :, 0].tolist() == [6 / 16, 10 / 16]
    assert found.votes[0, :, 3].tolist() == [1, 0]  # frames are those of this window


def test_no_masklets_are_no_evidence():
    known = make_known(np.zeros((3, 0)), votes=np.zeros((3, 0, 4), int))
    found = weigh_evidence(known)
    assert (len(found), found.votes.shape, found.signs.shape) == (0, (0, 4, 5), (0, 17))
    assert make().predict(found).shape == (0, 5)


def test_without_votes_there_is_nothing_to_weigh():
    with pytest.raises(ShapeError, match="weighs votes, and there are none: it needs base labels"):
        weigh_evidence(make_known([[4]]))


# --- the network -----------------------------------------------------------------------------------------------------


def make(label_space: LabelSpace = CLASSES, encoder=None, is_trained: bool = True, **options) -> MaskletFusion:
    """A network with weights that are not those it begins with, but for `is_trained=False`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        described = None if encoder is None else describe_encoder(encoder)
        network = MaskletFusion(label_set=label_space.to_dict(), encoder=described, hidden=8, **options)
        if is_trained:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.7)
    return network.eval()


def permuted(known: MaskletFeatures, order: np.ndarray) -> MaskletFeatures:
    by_masklet = ("ids", "predicted_iou", "stability")
    by_frame = ("frame_iou", "areas", "boxes_xyxy", "features", "tokens", "votes", "masses")
    return replace(
        known,
        **{name: getattr(known, name)[order] for name in by_masklet},
        **{name: getattr(known, name)[:, order] for name in by_frame},
    )


@given(st.permutations(range(5)), st.integers(0, 20))
def test_permuting_masklets_permutes_the_decisions(order, seed):
    known, order = random_known(seed), np.array(order)
    network = make(encoder=NoiseEncoder())
    one, other = weigh_evidence(known), weigh_evidence(permuted(known, order))
    assert order[other.masklets].tolist() == [i for i in order if i in one.masklets]
    rows = np.searchsorted(one.masklets, order[other.masklets])
    for name in ("votes", "signs", "features"):
        assert np.array_equal(getattr(other, name), getattr(one, name)[rows]), name
    np.testing.assert_allclose(network.predict(other), network.predict(one)[rows], atol=1e-6)


@given(st.permutations(range(4)), st.integers(0, 20))
def test_classes_are_judged_alike_without_features(order, seed):
    """Permuting the classes permutes the probabilities: all classes share the same weights."""
    known, order = random_known(seed), np.array(order)
    other = replace(known, votes=known.votes[..., order], masses=known.masses[..., order])
    found = make().predict(weigh_evidence(known))
    again = make().predict(weigh_evidence(other))
    # a frame in which two classes are even leads to the first of them, so these frames are left out
    top_two = np.sort(known.votes, axis=2)[..., -2:]
    is_even = ((top_two[..., 0] == top_two[..., 1]) & (top_two[..., 1] > 0)).any(axis=0)
    rows = ~is_even[weigh_evidence(known).masklets]
    np.testing.assert_allclose(again[rows], found[rows][:, [*order, 4]], atol=1e-6)


@pytest.mark.parametrize("num_classes", [1, 2, 124])
def test_without_features_any_label_set_is_served(num_classes):
    network = make()
    network.check_classes(LabelSpace.numbered(num_classes))
    known = random_known(0, num_classes)
    found = network.predict(weigh_evidence(known))
    assert found.shape == (4, num_classes + 1)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, :-1][known.votes.sum(axis=0)[[0, 2, 3, 4]] == 0] == 0).all()  # classes without a vote


def test_a_class_without_votes_adds_nothing_without_features():
    """The same masklet in a larger label set is decided alike."""
    known = random_known(1)
    more = replace(known, votes=np.pad(known.votes, ((0, 0), (0, 0), (0, 3))), masses=None)
    found = make().predict(weigh_evidence(replace(known, masses=None)))
    again = make().predict(weigh_evidence(more))
    np.testing.assert_allclose(again[:, [0, 1, 2, 3, 7]], found, atol=1e-6)


@pytest.mark.parametrize("may_keep", [True, False])
def test_a_masklet_without_votes_leaves_the_base_labels(may_keep):
    """Without features there is nothing to choose from, whatever it may do."""
    found = make(may_keep=may_keep).predict(weigh_evidence(random_known(0)))
    assert found[1].tolist() == [0, 0, 0, 0, 1]


def test_features_name_a_masklet_without_votes():
    found = make(encoder=NoiseEncoder(), may_keep=False).predict(weigh_evidence(random_known(0)))
    assert found[1, :4].min() > 0
    assert found[1, 4] == 0


@pytest.mark.parametrize("encoder", [None, NoiseEncoder()])
def test_base_labels_are_never_kept_where_that_is_not_allowed(encoder):
    network = make(encoder=encoder, may_keep=False)
    with torch.no_grad():
        network.keep_offset.fill_(100)
    evidence = weigh_evidence(random_known(0))
    has_votes = evidence.votes[..., 0].any(axis=1)
    assert (network.predict(evidence)[has_votes, -1] == 0).all()
    network.may_keep = True
    assert (network.predict(evidence)[:, -1] > 0.99).all()


@pytest.mark.parametrize("encoder", [None, NoiseEncoder()])
@pytest.mark.parametrize("may_keep", [True, False])
def test_untrained_it_is_the_majority_vote(encoder, may_keep):
    network = make(encoder=encoder, may_keep=may_keep, is_trained=False)
    for seed in range(8):
        known = random_known(seed)
        evidence = weigh_evidence(known)
        network.fit_scale(evidence.features)
        votes = known.votes.sum(axis=0)[evidence.masklets]
        has_votes = votes.any(axis=1)
        decisions = network.predict(evidence).argmax(axis=1)
        assert decisions[has_votes].tolist() == choose_classes(votes)[has_votes].tolist()


def test_untrained_it_keeps_base_labels_where_no_class_has_much():
    """The share s of the best of ten classes wins over keeping where 2 log(s + 0.001) > -3, so from 0.2221 on."""
    for share, is_kept in ((221, True), (223, False)):
        votes = np.array([[[share, *[(1000 - share) // 9] * 9]]])
        votes[0, 0, 9] += 1000 - votes.sum()
        evidence = weigh_evidence(make_known([[1000]], votes=votes, size=(100, 100)))
        network = make(LabelSpace.numbered(10), is_trained=False)
        assert network.predict(evidence).argmax() == (10 if is_kept else 0)


def test_prediction_needs_no_gradients_and_uses_no_dropout():
    network, evidence = make(dropout=0.5).train(), weigh_evidence(random_known(0))
    assert network.predict(evidence).tolist() == network.predict(evidence).tolist()
    assert not network.training


# --- what it is bound to ---------------------------------------------------------------------------------------------


def test_features_bind_it_to_its_classes():
    network = make(encoder=NoiseEncoder())
    assert network.is_bound
    network.check_classes(LabelSpace(CLASSES.names, CLASSES.palette, name="other colours"))
    with pytest.raises(SettingsError, match=r"trained for the 4 classes of toy and looks at features.* 3 classes"):
        network.check_classes(LabelSpace.numbered(3))
    assert not make().is_bound


def test_features_of_another_size_are_refused():
    evidence = weigh_evidence(random_known(0))
    wide = Evidence(evidence.masklets, evidence.votes, evidence.signs, np.zeros((4, 9), np.float32))
    with pytest.raises(ShapeError, match="features have 9 columns, expected 7"):
        make(encoder=NoiseEncoder()).predict(wide)
    assert np.array_equal(make().predict(wide), make().predict(evidence))  # without features any will do


def test_parts_and_levels_choose_columns():
    options = {"stored_parts": ("mean", "max"), "parts": ("max",), "levels": ("coarse",)}
    network = make(encoder=NoiseEncoder(), **options)
    assert network.columns.tolist() == [11, 12, 13]  # 4 + 3 means, 4 of level fine
    assert network.num_stored == 14
    with pytest.raises(WeightsError, match="ring is not among them"):
        make(encoder=NoiseEncoder(), parts=("ring",))


def test_the_scale_is_that_of_the_training_features():
    network = make(encoder=NoiseEncoder(), levels=("coarse",))
    features = np.random.default_rng(0).normal(3, 2, (50, 7)).astype(np.float32)
    network.fit_scale(features)
    np.testing.assert_allclose(network.scale.mean, features[:, 4:].mean(axis=0), rtol=1e-5)
    unbound = make()
    unbound.fit_scale(features)
    assert unbound.scale.mean.numel() == 0


def test_features_say_nothing_for_classes_that_were_never_right():
    """These have what the votes give them, as without features."""
    evidence = weigh_evidence(random_known(0))
    network = make(encoder=NoiseEncoder(), known_classes=[1, 3])
    logits = network(*network.to_tensors(evidence)).detach().numpy()
    bare = make(encoder=NoiseEncoder())
    bare.load_state_dict(network.state_dict())
    all_known = bare(*bare.to_tensors(evidence)).detach().numpy()
    with torch.no_grad():
        for parameter in bare.name.parameters():
            parameter.zero_()
    without = bare(*bare.to_tensors(evidence)).detach().numpy()
    assert logits[:, [0, 2]].tolist() == without[:, [0, 2]].tolist()
    assert logits[:, [1, 3, 4]].tolist() == all_known[:, [1, 3, 4]].tolist()
    assert (logits[:, [0, 2]] != all_known[:, [0, 2]]).any()


@pytest.mark.parametrize("encoder", [None, NoiseEncoder()])
def test_a_saved_fusion_is_the_same_to_the_last_bit(tmp_path, encoder):
    network = make(encoder=encoder, may_keep=False)
    network.note_training({"data": {"training": ["a", "b"]}, "scores": {"mask mIoU": 0.5}})
    network.save_pretrained(tmp_path / "saved")
    found = MaskletFusion.load(MaskletFusion.find(str(tmp_path / "saved"), {}))
    evidence = weigh_evidence(random_known(2))
    assert found.predict(evidence).tolist() == network.predict(evidence).tolist()
    assert (found.may_keep, found.is_bound, found.encoder_name) == (False, encoder is not None, network.encoder_name)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f"| label set | {'any' if encoder is None else 'ground, disc, box, late'} |" in card
    assert "| may leave the base labels | no |" in card
    assert "| mask mIoU | 0.5 |" in card
    assert "| training | a, b |" in card


# --- hearing a classifier --------------------------------------------------------------------------------------------


def hearing(is_trained: bool = True, **options) -> MaskletFusion:
    """A fusion that hears a classifier of four one-hot features."""
    classifier = perfect_classifier()
    fusion = make(is_trained=is_trained, classifier=classifier.config, **options)
    fusion.classifier.load_state_dict(classifier.state_dict())
    return fusion


def sure_of(classes: list[int], votes: list[list[int]]) -> MaskletFeatures:
    """Masklets of one frame whose features say one class each, and their votes."""
    features = np.eye(4, dtype=np.float32)[classes][None]
    return make_known([[20] * len(classes)], features, votes=np.array([votes]))


def test_a_classifier_speaks_in_the_place_of_features():
    known = sure_of([2, 0], [[9, 1, 0, 0], [0, 5, 5, 0]])
    heard = hearing().hear(known)
    assert heard.features[0].argmax(axis=1).tolist() == [2, 0]
    np.testing.assert_allclose(heard.features.sum(axis=2), 1, rtol=1e-6)
    assert weigh_evidence(heard).votes.tolist() == weigh_evidence(known).votes.tolist()  # votes are left alone
    assert make().hear(known) is known  # nobody to hear


def test_what_the_classifier_says_can_turn_a_decision():
    fusion = hearing(is_trained=False)
    votes = [[9, 1, 0, 0], [9, 1, 0, 0]]
    evidence = weigh_evidence(fusion.hear(sure_of([2, 0], votes)))
    assert fusion.predict(evidence).argmax(axis=1).tolist() == [0, 0]  # it begins as the majority vote
    with torch.no_grad():  # one hidden unit is the classifier's log probability, and counts a lot
        fusion.judge[0].weight.zero_()
        fusion.judge[0].weight[0, -1] = 1
        fusion.judge[0].bias[0] = 10  # above the bend of the GELU
        fusion.judge[-1].weight[0, 0] = 5
    assert fusion.predict(evidence).argmax(axis=1).tolist() == [2, 0]


def test_a_class_without_votes_can_win_by_the_classifier_only():
    known = sure_of([3], [[0, 0, 0, 0]])
    fusion = hearing(is_trained=False)
    assert fusion.predict(weigh_evidence(fusion.hear(known)))[0, 3] > 0
    plain = make(is_trained=False)
    assert plain.predict(weigh_evidence(known))[0, 3] == pytest.approx(0, abs=1e-12)


def test_training_leaves_the_classifier_alone():
    fusion = hearing()
    fusion.train()
    assert fusion.training
    assert not fusion.classifier.training
    assert not any(parameter.requires_grad for parameter in fusion.classifier.parameters())


def test_features_and_a_classifier_do_not_go_together():
    with pytest.raises(SettingsError, match="looks at features, or hears a classifier"):
        make(encoder=NoiseEncoder(), classifier=perfect_classifier().config)


def test_a_saved_fusion_brings_its_classifier_along(tmp_path):
    fusion = hearing()
    fusion.save_pretrained(tmp_path / "saved")
    found = MaskletFusion.load(MaskletFusion.find(str(tmp_path / "saved"), {}))
    known = sure_of([2, 0], [[9, 1, 0, 0], [0, 5, 5, 0]])
    assert found.is_bound
    assert found.encoder_fingerprint == fusion.encoder_fingerprint
    evidence, again = weigh_evidence(fusion.hear(known)), weigh_evidence(found.hear(known))
    assert found.predict(again).tolist() == fusion.predict(evidence).tolist()
    assert "| hears a classifier | linear |" in (tmp_path / "saved" / "README.md").read_text()
