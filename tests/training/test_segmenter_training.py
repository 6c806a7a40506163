"""The training loop on a toy network: loss by hand, going on after a kill, the best weights, what it says."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import toy
from sam2vss.errors import RunError, SettingsError
from sam2vss.segmenters.vss.segformer import WeightedLogits
from sam2vss.training.metrics_log import MetricsLog
from sam2vss.training.segmenter import BEST_FILE, STATE_FILE, SegmenterTraining, TrainingPlace, TrainingProgress
from sam2vss.training.segmenter_checkpoint import read_facts, read_tensors
from sam2vss.training.segmenter_model import loss_of
from sam2vss.training.segmenter_samples import SampleSet
from sam2vss.training.segmenter_scores import check_validation, score_segmenter
from sam2vss.types import LabelSpace
from toy_training import RECIPE, ToyTrainable, toy_data

ASKED = {"recipe": "toy"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(tmp_path_factory.mktemp("training") / "data")


def make(data, out, recipe=RECIPE, num_frames=1, **options) -> SegmenterTraining:
    trainable = ToyTrainable(num_frames)
    place = TrainingPlace(out, ASKED, workers=options.pop("workers", 0), save_every=options.pop("save_every", 2))
    return SegmenterTraining(trainable, SampleSet(data, num_frames), recipe, place, **options)


def run(training: SegmenterTraining, after: int | None = None) -> SegmenterTraining:
    with MetricsLog(training.place.out, after=after) as log:
        training.run(log)
    return training


def weights(training: SegmenterTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.trainable.network.state_dict().items()}


def are_equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- loss ------------------------------------------------------------------------------------------------------------

LOGITS = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])  # 1 frame, 2 classes, 1 x 2 pixels
LOSS_EVEN, LOSS_SURE = math.log(2), math.log(1 + math.exp(-2))


def test_loss_by_hand():
    parts = [WeightedLogits(LOGITS, (0,), 1.0)]
    assert loss_of(parts, torch.tensor([[[1, 0]]]), 255, "all").item() == pytest.approx((LOSS_EVEN + LOSS_SURE) / 2)


def test_void_pixels_count_in_the_mean_or_not():
    parts, labels = [WeightedLogits(LOGITS, (0,), 1.0)], torch.tensor([[[255, 0]]])
    assert loss_of(parts, labels, 255, "all").item() == pytest.approx(LOSS_SURE / 2)
    assert loss_of(parts, labels, 255, "labelled").item() == pytest.approx(LOSS_SURE)


@pytest.mark.parametrize("mean", ["all", "labelled"])
def test_a_view_of_void_teaches_nothing(mean):
    logits = LOGITS.clone().requires_grad_(True)
    loss = loss_of([WeightedLogits(logits, (0,), 1.0)], torch.full((1, 1, 2), 255), 255, mean)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_parts_count_by_their_weights_for_their_frames():
    labels = torch.tensor([[[1, 1]], [[0, 0]]])
    first = WeightedLogits(torch.zeros(2, 2, 1, 2), (0, 1), 0.5)
    last = WeightedLogits(LOGITS[..., 1:], (1,), 1.0)  # one cell, stretched over both pixels
    assert loss_of([first, last], labels, 255, "all").item() == pytest.approx(0.5 * LOSS_EVEN + LOSS_SURE)
    wrong = WeightedLogits(LOGITS[..., 1:], (0,), 1.0)
    assert loss_of([first, wrong], labels, 255, "all").item() == pytest.approx(0.5 * LOSS_EVEN + LOSS_SURE + 2)


def test_logits_are_stretched_over_the_labels():
    logits = torch.tensor([[[[-8.0, 8.0]], [[8.0, -8.0]]]])  # right: class 0
    labels = torch.tensor([[[1, 1, 0, 0]]])
    assert loss_of([WeightedLogits(logits, (0,), 1.0)], labels, 255, "all").item() < 0.01


# --- training --------------------------------------------------------------------------------------------------------


def test_two_frames_are_learned_by_heart(tmp_path):
    data = toy_data(tmp_path / "data", {"a": 2})
    recipe = replace(RECIPE, steps=60, rate=0.1, batch=2, light=False, crop=36, smallest=1.0, largest=1.0)
    training = make(data, tmp_path)
    before = score_segmenter(training.trainable.segmenter(), data, False).miou
    training = run(make(data, tmp_path, recipe))
    # classes 0, 1, 2 occur; green tells them apart
    assert before < 0.4
    assert score_segmenter(training.trainable.segmenter(), data, False).miou > 0.9
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 60]
    assert lines[0]["loss"] > lines[-1]["loss"]
    assert lines[-1]["rate"] == pytest.approx(0.1 / 60)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_goes_on_bit_by_bit(data, tmp_path, workers):
    options = {"validate_every": 2, "save_every": 3, "workers": workers}
    whole = make(data, tmp_path / "whole", validate=lambda: 0.5, **options)
    run(whole)
    killed = make(data, tmp_path / "killed", validate=lambda: 0.5, **options)
    killed.place = replace(killed.place, on_step=_kill_at(4))  # one step after the checkpoint
    with pytest.raises(KeyboardInterrupt):
        run(killed)
    again = make(data, tmp_path / "killed", validate=lambda: 0.5, **options)
    again.resume()
    assert again.progress.step == 3
    run(again, after=3)
    assert are_equal(weights(whole), weights(again))
    assert whole.progress == again.progress
    first, second = (read_tensors(tmp_path / name / STATE_FILE) for name in ("whole", "killed"))
    assert are_equal(first, second)
    lines = [
        [{**json.loads(line), "time_s": 0} for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]


def _kill_at(step):
    def on_step(done):
        if done == step:
            raise KeyboardInterrupt

    return on_step


def test_a_resumed_training_must_be_of_the_same(data, tmp_path):
    run(make(data, tmp_path))
    training = make(data, tmp_path)
    training.place = replace(training.place, asked={"recipe": "other", "data": 1})
    with pytest.raises(
        RunError, match=r"begun with other settings \(recipe, data\): ask for the same, start anew with"
    ):
        training.resume()


def test_a_damaged_checkpoint_is_named(data, tmp_path):
    run(make(data, tmp_path))
    content = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"training-state.safetensors cannot be read .*start anew with --overwrite"):
        make(data, tmp_path).resume()


GOOD = asdict(TrainingProgress(step=4, seen=[1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([], "holds a list instead of facts about its training: start anew with --overwrite"),
        ({}, "does not say what was asked for: start anew"),
        ({"asked": 3}, "does not say what was asked for"),
        ({"asked": ASKED}, "does not say how far its training is: start anew"),
        ({"asked": ASKED, "progress": []}, "does not say how far"),
        ({"asked": ASKED, "progress": {"x": 1}}, "does not say how far"),
        ({"asked": {**ASKED, "more": 1}, "progress": {"x": 1}}, "does not say how far"),
        ({"asked": ASKED, "progress": {**GOOD, "seen": [1, 2]}}, "does not say how far"),
        ({"asked": ASKED, "progress": {**GOOD, "step": "4"}}, "does not say how far"),
        ({"asked": ASKED, "progress": {**GOOD, "best_miou": None}}, "does not say how far"),
        ({"asked": ASKED, "progress": {**GOOD, "scaler": 1}}, "does not say how far"),
        ({"asked": ASKED, "progress": GOOD}, "is of another network"),  # the facts are right, but there is one tensor
    ],
)
def test_a_checkpoint_without_its_facts_is_named(data, tmp_path, facts, message):
    save_file({"a": torch.zeros(1)}, tmp_path / STATE_FILE, {"training": json.dumps(facts)})
    with pytest.raises(RunError, match=message):
        make(data, tmp_path).resume()


def test_a_checkpoint_of_another_network_is_named(data, tmp_path):
    run(make(data, tmp_path))
    training = make(data, tmp_path)
    training.trainable.network.decode_head = torch.nn.Conv2d(16, 7, 3)
    with pytest.raises(RunError, match=r"is of another network: .*decode_head"):
        training.resume()


def test_the_best_weights_are_kept(data, tmp_path):
    kept = []

    def validate() -> float:
        kept.append(weights(training))
        return [0.2, 0.6, 0.4][len(kept) - 1]

    training = make(data, tmp_path, validate=validate, validate_every=2)
    run(training)
    assert (training.progress.best_step, training.progress.best_miou, training.progress.last_miou) == (4, 0.6, 0.4)
    assert are_equal(weights(training), kept[1])
    assert not are_equal(kept[1], kept[2])
    assert read_facts(tmp_path / BEST_FILE) == {"step": 4, "miou": 0.6}
    assert not training.trainable.network.training


def test_the_last_step_is_validated_and_logged(data, tmp_path):
    run(make(data, tmp_path, validate=lambda: 0.25, validate_every=4))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["val_miou"]) for line in lines] == [(4, 0.25), (6, 0.25)]


def test_validation_without_a_labelled_pixel_is_said(data, tmp_path):
    with pytest.raises(SettingsError, match="the validation clips have no labelled pixel, so nothing can be scored"):
        run(make(data, tmp_path, validate=lambda: math.nan, validate_every=4))


def test_views_are_padded_with_zeros_after_normalisation(data, tmp_path):
    training = make(data, tmp_path, replace(RECIPE, crop=40))
    seen = []
    original = training.trainable.training_logits
    training.trainable.training_logits = lambda pixels: seen.append(pixels.clone()) or original(pixels)
    run(training)
    for pixels in seen:
        rows = [int(frame.abs().sum((0, 2)).nonzero().max()) + 1 for frame in pixels]
        columns = [int(frame.abs().sum((0, 1)).nonzero().max()) + 1 for frame in pixels]
        assert all(12 <= count <= 40 for count in rows)
        assert all(18 <= count <= 40 for count in columns)
    assert any(int(frame.abs().sum((0, 2)).nonzero().max()) < 39 for pixels in seen for frame in pixels)


def test_a_clip_of_frames_is_one_sample(data, tmp_path):
    training = run(make(data, tmp_path, num_frames=4))
    assert training.progress.step == 6


def test_seen_pixels_are_counted_by_class(data, tmp_path):
    recipe = replace(RECIPE, steps=1, batch=17, crop=36, smallest=1.0, largest=1.0)
    training = run(make(data, tmp_path, recipe))
    expected = np.bincount(
        np.concatenate([toy.toy_labels(toy.toy_objects(count)).ravel() for count in (12, 5)]), minlength=4
    )
    assert training.progress.seen == expected.tolist()
    assert training.progress.void_views == 0


def test_views_without_labels_are_counted(tmp_path):
    """One of two frames is void all over, and every step shows both."""
    data = toy_data(tmp_path / "data", {"a": 2})
    mask = tmp_path / "data" / "data" / "a" / "mask" / "0001.png"
    Image.fromarray(np.full((24, 36), 255, np.uint8)).save(mask)
    training = run(make(data, tmp_path, replace(RECIPE, steps=4, batch=2)))
    assert training.progress.void_views == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_float32_weights(data, tmp_path, dtype):
    before = weights(make(data, tmp_path))
    training = run(make(data, tmp_path, replace(RECIPE, dtype=dtype)))
    after = weights(training)
    assert all(value.dtype in (torch.float32, torch.int64) and value.isfinite().all() for value in after.values())
    assert not torch.equal(before["decode_head.weight"], after["decode_head.weight"])
    assert bool(read_facts(tmp_path / STATE_FILE)["progress"]["scaler"]) == (dtype == "float16")
    again = make(data, tmp_path, replace(RECIPE, dtype=dtype))
    again.resume()
    assert again.progress == training.progress


def test_training_leaves_the_caller_s_random_numbers_alone(data, tmp_path):
    training = make(data, tmp_path)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run(training)
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_draws_other_views(data, tmp_path):
    first, second = (run(make(data, tmp_path, replace(RECIPE, seed=seed))) for seed in (1, 2))
    assert not are_equal(weights(first), weights(second))


def test_timing_a_step_takes_no_checkpoint(data, tmp_path):
    assert 0 < make(data, tmp_path / "out").time_step() < 5
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_stops(data, tmp_path):
    training = make(data, tmp_path, replace(RECIPE, rate=1e30))
    with pytest.raises(SettingsError, match=r"the loss is (nan|inf) in step \d+: lower the learning rate, 1e\+30"):
        run(training)


def test_void_views_are_said(tmp_path, monkeypatch):
    data = toy_data(tmp_path / "data", {"a": 3})
    space = LabelSpace(toy.CLASSES.names, toy.CLASSES.palette, raw_ids=(10, 11, 12, 13), raw_void=(0, 1, 2, 3))
    data = replace(data, label_space=space)
    with pytest.raises(SettingsError, match=r"all 12 views so far are void: no pixel of theirs has a class of the 4"):
        run(make(data, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps is 0, expected at least 1"),
        ({"batch": 0}, "--batch is 0"),
        ({"crop": -1}, "--crop is -1"),
        ({"smallest": 3.0}, "views are 3.0 to 2.0 times the size"),
        ({"largest": math.inf}, "views are 0.5 to inf times the size"),
        ({"largest": math.nan}, "views are 0.5 to nan times the size"),
        ({"seed": 2**63}, "--seed is 9223372036854775808, expected 0 to 9223372036854775807"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        replace(RECIPE, **change)


# --- validation ------------------------------------------------------------------------------------------------------


class Recorder(toy.NoisySegmenter):
    """Knows the truth; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.shown: list[int] = []

    def reset(self) -> None:
        self.shown.append(-1)

    def predict(self, frames):
        self.shown += [int(frame[0, 0, 2]) // 7 for frame in frames]
        return super().predict(frames)


def test_a_perfect_segmenter_has_a_perfect_score(data):
    segmenter = Recorder()
    assert score_segmenter(segmenter, data, True).miou == 1.0
    assert segmenter.shown == [-1, *range(12), -1, *range(5)]


def test_frames_without_labels_are_shown_only_where_they_matter(tmp_path):
    data = toy_data(tmp_path / "data", {"a": 4})
    (tmp_path / "data" / "data" / "a" / "mask" / "0001.png").unlink()
    data = toy_data(tmp_path / "data")
    for needs_all, expected in ((False, [-1, 0, 2, 3]), (True, [-1, 0, 1, 2, 3])):
        segmenter = Recorder()
        scores = score_segmenter(segmenter, data, needs_all)
        assert (segmenter.shown, scores.frames, scores.miou) == (expected, 3, 1.0)


def test_the_score_is_that_of_evaluate(data):
    """mIoU from counts over the whole set, by hand."""
    segmenter = toy.NoisySegmenter(0.3)
    truth = [toy.toy_labels(toy.toy_objects(count)) for count in (12, 5)]
    found = [segmenter.predict(toy.toy_frames(toy.toy_objects(count))).labels for count in (12, 5)]
    truth, found = (np.concatenate([part.ravel() for part in parts]) for parts in (truth, found))
    ious = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in range(4)]
    assert score_segmenter(toy.NoisySegmenter(0.3), data, True).miou == pytest.approx(np.mean(ious))


def test_validation_needs_the_same_classes_and_labels(data):
    from sam2vss.errors import LabelError

    with pytest.raises(LabelError, match=r"toy has 4 classes \(ground, disc, box, ...\), the training data has 9"):
        check_validation(data, LabelSpace.numbered(9))
    check_validation(data, toy.CLASSES)
