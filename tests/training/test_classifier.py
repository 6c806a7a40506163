"""Training of classifiers: from a folder of features to a network, and every number on the way by hand."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toy
from sam2vss.classifiers.samples import Samples
from sam2vss.dataset_clips import find_dataset_clips
from sam2vss.errors import SettingsError
from sam2vss.pooling import Pooling
from sam2vss.segmenters import ModelLabels
from sam2vss.trackers.nothing import NoTracker
from sam2vss.training.classifier import (
    ClassifierRecipe,
    Lessons,
    class_weights,
    fit_vote_weight,
    group_batches,
    make_lessons,
    mask_miou,
    name_held_out,
    read_windows,
    split_windows_of,
    train_classifier,
)
from sam2vss.training.feature_folder import FeatureFolder, FeatureMaker, make_features
from sam2vss.types import LabelSpace, Window
from toy import ExactTracker
from toy_bench import write_data
from toy_features import ClassEncoder, make_known, make_rows, make_truth

QUICK = ClassifierRecipe(hidden=8, epochs=12, rate=0.05, batch=16)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> FeatureFolder:
    """Two clips in windows of 4, the last ones of which validate; features that tell the classes apart."""
    root = tmp_path_factory.mktemp("features")
    data = find_dataset_clips(write_data(root / "data", clips={"a": 13, "b": 16}))
    maker = FeatureMaker(
        tracker=ExactTracker(),
        encoder=ClassEncoder(),
        pooling=Pooling(("mean", "max", "ring"), tokens=3),
        window=4,
        base=ModelLabels(toy.NoisySegmenter(0.2)),
        source={},
    )
    return make_features(root / "out", data, maker)


def train(folder, out: Path, recipe: ClassifierRecipe = QUICK, **options):
    windows = split_windows_of(folder)
    return train_classifier(folder, *windows, recipe, out, **options)


def read_log(out: Path) -> list[str]:
    return (out / "metrics.jsonl").read_text().splitlines()


def weights_of(trained) -> dict[str, list]:
    return {name: value.tolist() for name, value in trained.network.state_dict().items()}


# --- the whole way ---------------------------------------------------------------------------------------------------

RECIPES = {
    "the paper's": QUICK,
    "linear probe": replace(QUICK, head="linear"),
    "whole masklets": replace(QUICK, scope="window", weighting="quality", epochs=25),
    "all there is": replace(
        QUICK, head="context", parts=(), levels=("class",), uses_tokens=True, uses_shape=True, balance="inverse"
    ),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_classes_that_features_tell_apart_are_learnt_and_kept(tmp_path, folder, recipe):
    trained = train(folder, tmp_path, recipe)
    assert trained.accuracy == 1
    assert trained.miou > 0.99
    assert trained.network.known_classes == (1, 2, 3)  # nothing of the ground is a masklet
    trained.network.save_pretrained(tmp_path / "saved")
    held = make_lessons(split_windows_of(folder)[1], recipe.scope, recipe.weighting)
    again = type(trained.network).from_pretrained(tmp_path / "saved")
    assert again.predict(held.samples).tolist() == trained.network.predict(held.samples).tolist()
    assert mask_miou(again.predict(held.samples), held.truth) == trained.miou
    assert again.vote_weight == trained.network.vote_weight == 0  # nothing is left for the base to mend


def test_the_log_has_a_line_per_pass(tmp_path, folder):
    told = []
    trained = train(folder, tmp_path, say=told.append)
    lines = [json.loads(line) for line in read_log(tmp_path)]
    assert lines == told
    assert [line["step"] for line in lines] == list(range(1, trained.epochs + 1))
    assert set(lines[0]) == {"step", "time_s", "loss", "validation_mask_miou"}
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert max(line["validation_mask_miou"] for line in lines) == trained.miou
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_may_be_missing(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    assert train(folder, tmp_path).accuracy == 1
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_training_stops_when_validation_gets_no_better_and_the_best_pass_is_kept(tmp_path, folder):
    recipe = replace(QUICK, epochs=40, patience=3)
    trained = train(folder, tmp_path, recipe)
    scores = [line["validation_mask_miou"] for line in map(json.loads, read_log(tmp_path))]
    best = int(np.argmax(scores))  # the first of equals
    assert trained.epochs == len(scores) == best + 1 + 3 < 40
    assert trained.miou == scores[best]
    longer = train(folder, tmp_path / "longer", replace(recipe, patience=9))
    assert longer.epochs == trained.epochs + 6
    assert weights_of(longer) == weights_of(trained)


def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path, folder):
    recipe = replace(QUICK, head="context", epochs=3)
    found = []
    for number, seed in enumerate((7, 7, 8)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)  # the state of the process does not matter
            found.append(weights_of(train(folder, tmp_path / str(number), replace(recipe, seed=seed))))
    one, two, other = found
    assert one == two
    assert one["head.leave.1.weight"] != other["head.leave.1.weight"]
    assert one["scale.mean"] == other["scale.mean"]


def test_the_random_state_of_the_process_is_left_alone(tmp_path, folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = torch.rand(3).tolist()
        torch.manual_seed(5)
        np.random.seed(5)
        state = np.random.get_state()[1].tolist()
        train(folder, tmp_path, replace(QUICK, epochs=2))
        assert torch.rand(3).tolist() == expected
        assert np.random.get_state()[1].tolist() == state


def test_the_vote_weight_goes_with_the_network(tmp_path, folder):
    """A network that knows no more than one class leaves the rest to the votes."""
    train_windows, held = split_windows_of(folder)
    only = [(known, make_truth(truth.classes * (np.arange(4) == 1))) for known, truth in train_windows]
    trained = train_classifier(folder, only, held, replace(QUICK, epochs=2), tmp_path)
    assert trained.network.known_classes == (1,)
    assert trained.network.predict(make_rows(np.random.default_rng(0), [0, 0], 12)).tolist() == [[0, 1, 0, 0]] * 2
    weight = trained.network.vote_weight
    assert 0.4 < weight < 0.8  # votes have the word from 0.8 * weight > 1 - weight on, about 0.56
    assert trained.network._hub_mixin_config["vote_weight"] == weight


def test_without_base_labels_there_is_no_vote_weight(tmp_path, folder):
    windows = [[(replace(known, votes=None), truth) for known, truth in part] for part in split_windows_of(folder)]
    assert train_classifier(folder, *windows, replace(QUICK, epochs=1), tmp_path).network.vote_weight is None


# --- nothing to learn from -------------------------------------------------------------------------------------------


def test_clips_without_masklets_are_named(tmp_path):
    data = find_dataset_clips(write_data(tmp_path / "data"))
    maker = FeatureMaker(NoTracker(), ClassEncoder(), Pooling(), 4, None, {})
    folder = make_features(tmp_path / "out", data, maker)
    with pytest.raises(SettingsError, match="there is no masklet in these clips: lower --pred-iou or --stability"):
        train(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_masklets_without_a_true_class_are_named(tmp_path, folder):
    train_windows, held = split_windows_of(folder)
    nothing = [(known, make_truth(0 * truth.classes)) for known, truth in train_windows]
    with pytest.raises(SettingsError, match=r"not one of \d+ training masks has a true class .*lower --purity"):
        train_classifier(folder, nothing, held, QUICK, tmp_path)
    nothing = [(known, make_truth(0 * truth.classes)) for known, truth in held]
    with pytest.raises(SettingsError, match=r"not one of \d+ validation masks lies on labelled pixels"):
        train_classifier(folder, train_windows, nothing, QUICK, tmp_path)


def test_features_without_an_encoder_cannot_be_classified(tmp_path):
    data = find_dataset_clips(write_data(tmp_path / "data"))
    folder = make_features(tmp_path / "out", data, FeatureMaker(ExactTracker(), None, Pooling(), 4, None, {}))
    with pytest.raises(SettingsError, match="holds no features of an encoder: make them with --encoder"):
        train(folder, tmp_path / "run")


def test_a_loss_beyond_all_numbers_is_named(tmp_path, folder):
    with pytest.raises(SettingsError, match=r"the loss is (nan|inf) in pass \d+: lower the learning rate, 1e\+30"):
        train(folder, tmp_path, replace(QUICK, rate=1e30))


def test_masks_that_teach_nothing_do_not_end_training(tmp_path, folder):
    """Batches of one frame each, of which one has no truth: it is left out and the others teach."""
    train_windows, held = split_windows_of(folder)
    known, truth = train_windows[0]
    classes = truth.classes.copy()
    classes[1] = 0
    mixed = [(known, make_truth(classes)), *train_windows[1:]]
    assert train_classifier(folder, mixed, held, replace(QUICK, batch=1), tmp_path).accuracy == 1


# --- lessons ---------------------------------------------------------------------------------------------------------


def lessons_of(truth, areas, votes=None) -> Lessons:
    return Lessons(make_rows(np.random.default_rng(0), [0] * len(truth), 2), np.array(truth), votes, np.array(areas))


def test_a_mask_teaches_its_majority_if_it_is_pure_and_labelled_enough():
    truth = [[6, 4, 0], [5, 5, 0], [0, 0, 10], [3, 0, 0], [5, 0, 0], [0, 0, 0], [0, 2, 3]]
    areas = [10, 10, 10, 10, 10, 10, 10]
    lessons = lessons_of(truth, areas)
    # shares 0.6, 0.5, 1; then 3 and 5 of 10 pixels labelled (half is enough), none, and 3 / 5 of 5 of 10
    assert lessons.targets(0.6).tolist() == [0, -1, 2, -1, 0, -1, 2]
    assert lessons.targets(0.5).tolist() == [0, 0, 2, -1, 0, -1, 2]
    assert lessons.targets(1.0).tolist() == [-1, -1, 2, -1, 0, -1, -1]


def test_lessons_of_frames_and_of_windows_have_the_truth_of_their_rows():
    known = make_known([[4, 0], [6, 3]], votes=np.arange(8).reshape(2, 2, 2))
    truth = make_truth(np.array([[[4, 0], [0, 0]], [[5, 1], [0, 3]]]))
    by_frame = make_lessons([(known, truth)] * 2, "frame", "uniform")
    assert by_frame.truth.tolist() == [[4, 0], [5, 1], [0, 3]] * 2
    assert by_frame.votes.tolist() == [[0, 1], [4, 5], [6, 7]] * 2
    assert by_frame.areas.tolist() == [4, 6, 3] * 2
    assert by_frame.samples.groups.tolist() == [0, 1, 1, 2, 3, 3]
    by_window = make_lessons([(known, truth)] * 2, "window", "uniform")
    assert by_window.truth.tolist() == [[9, 1], [0, 3]] * 2
    assert by_window.votes.tolist() == [[4, 6], [8, 10]] * 2
    assert by_window.areas.tolist() == [10, 3] * 2


@pytest.mark.parametrize("scope", ["frame", "window"])
def test_windows_without_masklets_add_nothing(scope):
    known, truth = make_known([[4, 2]], votes=np.ones((1, 2, 3), int)), make_truth(np.ones((1, 2, 3), int))
    none = make_known(np.zeros((1, 0)), votes=np.ones((1, 0, 3), int)), make_truth(np.ones((1, 0, 3), int))
    assert len(make_lessons([none, (known, truth), none], scope, "uniform").samples) == 2
    mixed = make_lessons([(known, truth), (replace(known, votes=None), truth)], scope, "uniform")
    assert mixed.votes is None  # votes of some rows only are of no use


# --- who validates ---------------------------------------------------------------------------------------------------


class Stored:
    """A folder of clips with so many windows; a window is known by its clip and first frame."""

    def __init__(self, **windows: int) -> None:
        self.windows = windows

    def read(self):
        for name, count in self.windows.items():
            for number in range(count):
                yield name, (name, number), "truth"


def names_of(part) -> list[tuple[str, int]]:
    return [known for known, _ in part]


def test_the_last_clips_validate_where_there_are_ten():
    clips = {f"clip{i:02d}": 2 for i in range(12)}
    train_part, held = split_windows_of(Stored(**clips))
    assert names_of(held) == [("clip10", 0), ("clip10", 1), ("clip11", 0), ("clip11", 1)]  # ceil(1.2) clips
    assert names_of(train_part) == [(name, i) for name in list(clips)[:10] for i in range(2)]


def test_the_last_windows_of_every_clip_validate_where_there_are_few():
    train_part, held = split_windows_of(Stored(a=3, c=11))
    assert names_of(held) == [("a", 2), ("c", 9), ("c", 10)]  # ceil(0.3) and ceil(1.1)
    assert names_of(train_part) == [("a", 0), ("a", 1), *(("c", i) for i in range(9))]


class OneWindow:
    """A folder of one clip with one window of so many frames."""

    def __init__(self, length: int) -> None:
        self.window = make_known([[10, 20]] * length), make_truth(np.ones((length, 2, 3), np.int64))

    def read(self):
        yield "a", *self.window


def test_the_last_frames_of_an_only_window_validate():
    ((known, truth),), ((held, held_truth),) = split_windows_of(OneWindow(11))
    assert (known.window, held.window) == (Window(0, 9), Window(9, 2))  # ceil(1.1) frames are held out
    assert (len(truth.classes), len(held_truth.classes)) == (9, 2)


def stored_counts(*counts: int) -> FeatureFolder:
    """A folder of clips with so many windows, by its account alone."""
    names = [f"clip{number}" for number in range(len(counts))]
    done = {name: list(range(count)) for name, count in zip(names, counts, strict=True)}
    return FeatureFolder(Path("x"), {"clips": names, "done": done, "label_set": LabelSpace.numbered(2).to_dict()})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1] * 10, "last clips"),
        ([3, 2], "last windows"),
        ([1, 1], "last frames"),
        ([3] * 8 + [1], "last windows or frames"),
    ],
)
def test_what_is_held_out_has_a_name(counts, expected):
    assert name_held_out(stored_counts(*counts)) == expected


def test_single_frames_cannot_be_shared_out():
    with pytest.raises(SettingsError, match=r"every clip is a single frame, so none is left .* pass --val-data"):
        split_windows_of(OneWindow(1))


def test_all_windows_are_read(folder):
    assert len(read_windows(folder)) == 4 + 4


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_weights_of_classes_average_one_over_the_rows():
    targets = np.array([0] * 4 + [2] + [-1] * 7)
    assert class_weights(targets, 4, "none").tolist() == [1, 1, 1, 1]
    # inverse: 1/4 and 1, times 5 / (4 * 1/4 + 1); sqrt: 1/2 and 1, times 5 / (4 * 1/2 + 1)
    assert class_weights(targets, 4, "inverse").tolist() == pytest.approx([0.625, 1, 2.5, 1])
    assert class_weights(targets, 4, "sqrt").tolist() == pytest.approx([5 / 6, 1, 5 / 3, 1])
    assert class_weights(targets, 4, "sqrt").dtype == torch.float32


def test_mask_miou_gives_every_mask_one_class_as_a_whole():
    scores = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.7, 0.2, 0.1]])
    truth = np.array([[8, 2, 0], [1, 9, 0], [0, 5, 0]])
    # class 0: hits 8, named 15, true 9 -> 8 / 16; class 1: hits 9, named 10, true 16 -> 9 / 17; class 2 is nowhere true
    assert mask_miou(scores, truth) == pytest.approx((8 / 16 + 9 / 17) / 2)
    assert mask_miou(np.eye(3)[[0, 1, 1]], truth * [[1, 0, 1], [0, 1, 1], [1, 1, 1]]) == 1
    assert math.isnan(mask_miou(scores, 0 * truth))
    assert math.isnan(mask_miou(scores[:0], truth[:0]))


def test_a_class_that_is_only_named_does_not_count_itself_but_costs_the_others():
    scores, truth = np.array([[1.0, 0, 0], [0, 0, 1.0]]), np.array([[5, 0, 0], [5, 0, 0]])
    assert mask_miou(scores, truth) == 0.5  # of class 0 alone: 5 hits of 10


def test_the_smallest_of_the_best_vote_weights_is_taken():
    truth = np.array([[10, 0], [0, 10]])
    votes = np.array([[81, 19], [1, 9]])
    # row 0: (1 - w) * 0.3 + w * 0.81 > 0.5 from w > 0.392 on; row 1 is right at every weight
    probabilities = np.array([[0.3, 0.7], [0.2, 0.8]])
    assert fit_vote_weight(probabilities, lessons_of(truth, [10, 10], votes)) == 0.4
    assert fit_vote_weight(truth / 10, lessons_of(truth, [10, 10], votes)) == 0
    assert fit_vote_weight(probabilities, lessons_of(truth, [10, 10])) is None


def test_masks_without_votes_keep_their_probabilities_at_every_weight():
    truth, votes = np.array([[10, 0], [0, 10]]), np.array([[51, 49], [0, 0]])
    # only a weight of 1 outvotes the first row: at 0.95 class 1 still has 0.05 + 0.95 * 0.49 = 0.52. The second row
    # has no votes and must not become class 0 with it.
    probabilities = np.array([[0.0, 1.0], [0.2, 0.8]])
    assert fit_vote_weight(probabilities, lessons_of(truth, [10, 10], votes)) == 1.0
    assert fit_vote_weight(probabilities, lessons_of(truth, [10, 10], 0 * votes)) == 0


def test_batches_keep_groups_whole_and_take_every_row_once():
    groups = np.array([0, 1, 0, 2, 2, 2, 3, 1])
    for seed in range(5):
        batches = [rows.tolist() for rows in group_batches(groups, 3, np.random.default_rng(seed))]
        assert sorted(row for rows in batches for row in rows) == list(range(8))
        for rows in batches[:-1]:
            assert len(rows) >= 3
        homes = [{groups[row] for row in rows} for rows in batches]
        assert sum(map(len, homes)) == 4  # no group is in two batches
    orders = {tuple(next(group_batches(groups, 8, np.random.default_rng(seed))).tolist()) for seed in range(5)}
    assert len(orders) > 1


def test_a_recipe_is_plain_values():
    facts = asdict(replace(QUICK, parts=("mean", "max")))
    assert (facts["head"], facts["epochs"]) == ("mlp", 12)
    assert json.loads(json.dumps(facts))["parts"] == ["mean", "max"]
    assert isinstance(lessons_of([[1]], [1]).samples, Samples)
