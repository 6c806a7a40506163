"""Numbers of a training run: lines of JSON, and TensorBoard where it is installed."""

import json
import math
import sys

import pytest

from sam2vss.errors import MediaError
from sam2vss.training.metrics_log import FILE_NAME, MetricsLog


def read_lines(folder) -> list[dict]:
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_tensorboard(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails as if it were not there


def test_every_step_is_a_line_as_soon_as_it_is_known(tmp_path, monkeypatch):
    without_tensorboard(monkeypatch)
    told = []
    with MetricsLog(tmp_path, told.append) as log:
        log.write(1, loss=0.5)
        assert len(read_lines(tmp_path)) == 1
        log.write(2, loss=0.25, score=1.0)
    lines = read_lines(tmp_path)
    assert lines == told
    assert [(line["step"], line["loss"], line.get("score")) for line in lines] == [(1, 0.5, None), (2, 0.25, 1.0)]
    assert 0 <= lines[0]["time_s"] <= lines[1]["time_s"]
    assert not log.has_tensorboard
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_is_no_number_is_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, loss=math.nan, score=-math.inf)
    (line,) = read_lines(tmp_path)
    assert (line["loss"], line["score"]) == (None, None)


def test_tensorboard_shows_the_same_numbers(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tmp_path) as log:
        assert log.has_tensorboard
        log.write(1, loss=0.5)
        log.write(3, loss=0.25)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (3, 0.25)]


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    without_tensorboard(monkeypatch)
    with MetricsLog(tmp_path / "none") as log, pytest.raises(MediaError, match=r"cannot write .*metrics\.jsonl"):
        log.write(1, loss=0.5)


def test_numbers_of_an_earlier_training_stay_until_the_first_new_ones(tmp_path):
    for loss in (3.0, 5.0):
        with MetricsLog(tmp_path) as log:
            before = (tmp_path / FILE_NAME).read_text() if loss == 5 else ""
            assert ("3.0" in before) == (loss == 5)
            log.write(1, loss=loss)
            log.write(2, loss=loss)
    assert [json.loads(line)["loss"] for line in (tmp_path / FILE_NAME).read_text().splitlines()] == [5.0, 5.0]


def test_a_training_that_goes_on_keeps_what_came_before(tmp_path, monkeypatch):
    without_tensorboard(monkeypatch)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "time_s": 50.0, "loss": 0.5}\n{"step": 2, "time_s": 90.0, "loss": 0.4}\nhalf a li'
    )
    with MetricsLog(tmp_path, after=1) as log:
        log.write(2, loss=0.3)
    first, second = read_lines(tmp_path)
    assert first == {"step": 1, "time_s": 50.0, "loss": 0.5}
    assert (second["step"], second["loss"]) == (2, 0.3)
    assert 50 <= second["time_s"] < 60  # time goes on too


def test_a_training_that_goes_on_without_numbers_begins_them(tmp_path, monkeypatch):
    without_tensorboard(monkeypatch)
    with MetricsLog(tmp_path, after=7) as log:
        log.write(8, loss=0.3)
    assert [line["step"] for line in read_lines(tmp_path)] == [8]
