"""Counts of a row in files: used again only while nothing they rest on has changed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.bench.scoring import ScoringKey, score_labels
from sam2vss.errors import LabelError
from sam2vss.evaluate import evaluate_folders
from toy_bench import CLIPS, toy_plan, write_data, write_predictions


def test_ids_that_look_shifted_are_refused_though_they_were_scored_as_they_are_before(tmp_path):
    """--id-offset 0 takes them as they are; what it counted answers nobody who did not pass it."""
    for path in write_predictions(tmp_path / "other", share=0.0).rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(1)).save(path)
    plan = toy_plan(tmp_path, rows=(), compare={"other": tmp_path / "other"}, id_offset=0)
    assert score_labels(plan, tmp_path / "other", tmp_path / "counts.npz").scores.miou < 0.5
    with pytest.raises(LabelError, match="--id-offset=-1"):
        score_labels(replace(plan, id_offset=None), tmp_path / "other", tmp_path / "counts.npz")


def test_a_second_void_id_is_scored_as_by_evaluate_and_belongs_to_the_key(tmp_path):
    data = write_data(tmp_path / "data")
    content = json.loads((data / "label_set.json").read_text())
    (data / "label_set.json").write_text(json.dumps({**content, "ignore_ids": [250, 251]}))
    for clip in CLIPS:  # void that changes its id from frame to frame is constant truth for no script of VSPW's
        for t, path in enumerate(sorted((data / "data" / clip / "mask").glob("*.png"))):
            labels = np.array(Image.open(path))
            labels[:4] = 250 + t % 2
            Image.fromarray(labels).save(path)
    plan = toy_plan(tmp_path, rows=())
    assert plan.data.label_space.raw_void == (250, 251)
    assert json.loads(ScoringKey.of(plan, tmp_path / "noisy").text)["counted"]["void_ids"] == [255, 254]
    expected = evaluate_folders(data, tmp_path / "noisy", plan.data.label_space, toy.CLASSES, windows=(2,))
    for _ in range(2):  # counted, then read
        found = score_labels(plan, tmp_path / "noisy", tmp_path / "counts.npz")
        assert found.scores == expected.scores
