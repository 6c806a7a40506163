"""The classifier as a whole: what goes in, which classes come out, what it refuses, what its card says."""

import numpy as np
import pytest
import torch

from sam2vss.classifiers.classifier import MaskletClassifier, describe_encoder, mix_votes
from sam2vss.classifiers.samples import Samples
from sam2vss.errors import SettingsError, ShapeError, WeightsError
from toy import CLASSES
from toy_features import ClassEncoder, NoiseEncoder, make_rows, perfect_classifier

ENCODER = describe_encoder(NoiseEncoder())  # 4 + 3 channels
HEADS = ["linear", "mlp", "context"]


def make(head: str = "mlp", **options) -> MaskletClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        options = {"label_set": CLASSES.to_dict(), "encoder": ENCODER, "head": head, "hidden": 8} | options
        return MaskletClassifier(**options).eval()


def take(rows: Samples, chosen) -> Samples:
    names = ("features", "tokens", "shapes", "groups", "frames", "masklets")
    return Samples(**{name: getattr(rows, name)[chosen] for name in names})


ROWS = make_rows(np.random.default_rng(0), [0, 3, 3, 0, 1, 3, 3, 3], 7, tokens=(5, 4))
RICH = {"tokens": 5, "uses_shape": True}


@pytest.mark.parametrize("options", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_permuted_with_the_rows(head, options):
    network = make(head, **options)
    order = np.array([4, 2, 7, 0, 1, 3, 6, 5])
    found = network.predict(ROWS)
    assert (found.shape, found.dtype) == ((8, 4), np.float64)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(network.predict(take(ROWS, order)), found[order], atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01  # rows do differ


def test_a_group_alone_is_named_as_beside_a_longer_one():
    network = make("context", **RICH)
    found = network.predict(ROWS)
    for group in (0, 1, 3):
        chosen = group == ROWS.groups
        np.testing.assert_allclose(network.predict(take(ROWS, chosen)), found[chosen], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_classes_without_training_masklets_are_never_given(head):
    found = make(head, known_classes=[2, 0]).predict(ROWS)
    assert found[:, [1, 3]].max() == 0
    assert found[:, [0, 2]].min() > 0


def test_one_known_class_is_always_given():
    assert make(known_classes=[3]).predict(ROWS).tolist() == [[0, 0, 0, 1]] * 8


@pytest.mark.parametrize("head", HEADS)
def test_no_rows_are_no_error(head):
    assert make(head).predict(take(ROWS, [])).shape == (0, 4)


def test_dropout_is_off_whatever_mode_the_network_was_left_in():
    network = make(dropout=0.9)
    expected = network.predict(ROWS)
    network.train()
    assert network.predict(ROWS).tolist() == expected.tolist()


def test_the_chosen_parts_and_levels_are_all_that_counts():
    rows = make_rows(np.random.default_rng(1), [0] * 4, 14)  # mean fine 0-3, mean coarse 4-6, max fine 7-10, ...
    network = make("linear", stored_parts=["mean", "max"], parts=["max"], levels=["fine"])
    found = network.predict(rows)
    rows.features[:, [0, 1, 2, 3, 4, 5, 6, 11, 12, 13]] += 5
    assert network.predict(rows).tolist() == found.tolist()
    rows.features[:, 8] += 5
    assert np.abs(network.predict(rows) - found).max() > 1e-3


def test_stored_tokens_that_are_not_used_are_no_hindrance():
    plain, without = make(), Samples(ROWS.features, ROWS.tokens[:, :0], *[ROWS.shapes, ROWS.groups] * 2)
    assert plain.predict(ROWS).tolist() == plain.predict(without).tolist()
    with pytest.raises(ShapeError, match="features have 7 columns and 0 tokens, the classifier was made for 7 and 5"):
        make(tokens=5).predict(without)


def test_features_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="features have 6 columns and 0 tokens, the classifier was made for 7 and 0"):
        make().predict(make_rows(np.random.default_rng(0), [0], 6))


def test_the_scale_is_taken_from_the_rows_and_constant_columns_stay_as_they_are():
    network = make("linear", encoder=describe_encoder(ClassEncoder()))
    features = np.array([[1, 1000, 0, 7], [3, 1000, 0, 7.5], [5, 1000, 0, 8]], np.float32)
    network.fit_scale(features)
    assert network.scale.mean.tolist() == [3, 1000, 0, 7.5]
    assert network.scale.spread.tolist() == pytest.approx([np.sqrt(8 / 3), 1, 1, np.sqrt(0.5 / 3)])


def test_the_scale_of_many_rows_does_not_lose_digits():
    network = make("linear")
    features = np.random.default_rng(0).normal(100, 1, (200_000, 7)).astype(np.float32)
    network.fit_scale(features)
    np.testing.assert_allclose(network.scale.mean, features.astype(np.float64).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(network.scale.spread, features.astype(np.float64).std(axis=0), rtol=1e-6)


def test_another_encoder_is_refused_by_name_and_fingerprint():
    network = perfect_classifier()
    network.check_encoder(ClassEncoder())
    with pytest.raises(
        SettingsError,
        match=r"trained on features of toy-classes \(exact\), and toy-classes here is other: other weights",
    ):
        network.check_encoder(ClassEncoder("other"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "perceptron"}, "head of a classifier is 'perceptron', expected one of linear, mlp, context"),
        ({"scope": "clip"}, "scope of a classifier is 'clip', expected one of window, frame"),
        ({"weighting": "best"}, "weighting of a classifier is 'best', expected one of uniform, quality"),
        ({"hidden": 0}, "hidden layer is 0 wide"),
        ({"head": "context", "hidden": 10}, "hidden layer is 10 wide, expected a multiple of 4"),
        ({"known_classes": [1, 4]}, r"known classes are \[1, 4\], expected numbers below 4"),
        ({"tokens": 300}, "keeps 300 cells"),
        ({"encoder": {**ENCODER, "channels": [3, 4]}, "tokens": 2}, "multiple of 4 channels, and toy-noise has 3"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(SettingsError, match=message):
        make(**options)


@pytest.mark.parametrize("options", [{"levels": ["finest"]}, {"parts": ["ring"]}])
def test_levels_and_parts_that_features_lack_are_named(options):
    with pytest.raises(WeightsError, match="is not among them"):
        make(**options)


def test_votes_are_mixed_in_with_their_weight_and_only_where_there_are_any():
    probabilities, votes = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]]), np.array([[3, 1], [0, 0], [0, 2]])
    assert mix_votes(probabilities, votes, 0).tolist() == probabilities.tolist()
    np.testing.assert_allclose(mix_votes(probabilities, votes, 0.5), [[0.625, 0.375], [0.2, 0.8], [0.5, 0.5]])
    assert mix_votes(probabilities, votes, 1).tolist() == [[0.75, 0.25], [0.2, 0.8], [0, 1]]
    assert mix_votes(probabilities[:0], votes[:0], 0.5).shape == (0, 2)


# --- the card --------------------------------------------------------------------------------------------------------


def test_the_card_holds_data_recipe_and_scores():
    training = {
        "data": {"name": "toy train", "clips": ["a", "b"]},
        "recipe": {"purity": 0.6},
        "scores": {"mask mIoU": 0.912345},
    }
    card = make("context", known_classes=[0, 1, 2], training=training).generate_model_card()
    assert card.data.tags == ["sam2vss", "video-semantic-segmentation", "image-classification"]
    for line in (
        "# Masklet classifier: toy from toy-noise",
        "| head | context |",
        "| encoder fingerprint | noise |",
        "| classes | ground, disc, box, late |",
        "| without training masklets | late |",
        "| name | toy train |",
        "| clips | a, b |",
        "| purity | 0.6 |",
        "| mask mIoU | 0.9123 |",
    ):
        assert line in card.text.splitlines(), line


def test_the_card_of_an_untrained_network_has_no_empty_tables():
    text = make().card_text()
    assert "| without training masklets | none |" in text
    assert "Training data" not in text


def test_names_cannot_break_the_cards_tables():
    labels = CLASSES.to_dict()
    labels["classes"][1]["name"] = "disc | plate\nround"
    assert "| classes | ground, disc \\| plate round, box, late |" in make(label_set=labels).card_text().splitlines()
