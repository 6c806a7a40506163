"""The folder of a trained segmenter: what may be replaced, what is written, and what the model card says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from sam2vss.errors import LabelError, MediaError, RunError, SettingsError
from sam2vss.training.segmenter import STATE_FILE
from sam2vss.training.segmenter_folder import SegmenterJob, check_place, make_segmenter
from sam2vss.training.segmenter_samples import SampleSet
from toy_training import RECIPE, ToyTrainable, toy_data


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(tmp_path_factory.mktemp("folder") / "data")


def job(data, out, **options) -> SegmenterJob:
    options = {"validation": data, "workers": 0, "save_every": 2, "validate_every": 3} | options
    return SegmenterJob(ToyTrainable(), SampleSet(data, 1), recipe=RECIPE, out=out, **options)


def test_what_is_written(data, tmp_path):
    told, steps = [], []
    progress = make_segmenter(job(data, tmp_path), say=told.append, on_step=steps.append)
    files = ["README.md", "config.json", "metrics.jsonl", "model.safetensors", "tensorboard", "training.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in told] == [3, 6]
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["data"]["labelled frames"] == 17
    assert facts["data"]["passes"] == round(12 / 17, 2)
    assert sum(facts["data"]["share of labelled pixels seen"].values()) == pytest.approx(1, abs=1e-4)
    assert facts["scores"]["mIoU"] == progress.best_miou
    assert facts["scores"]["weights of step"] == progress.best_step
    assert facts["recipe"]["warmup"] == 0
    text = (tmp_path / "README.md").read_text()
    for part in ("| training | toy |", "| mIoU |", "\nThis is a toy.\n", "## Licence", "| rate | 0.01 |"):
        assert part in text
    for file in ("README.md", "training.json"):
        assert str(data.root.parent) not in (tmp_path / file).read_text()


def test_a_killed_job_goes_on_and_ends_alike(data, tmp_path):
    make_segmenter(job(data, tmp_path / "whole"))

    def kill(step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_segmenter(job(data, tmp_path / "killed"), on_step=kill)
    assert (tmp_path / "killed" / STATE_FILE).is_file()
    assert not (tmp_path / "killed" / "config.json").exists()
    assert check_place(tmp_path / "killed", resume=True, overwrite=False)
    with pytest.raises(RunError, match=r"holds a training that was begun: go on with --resume, start anew with --over"):
        check_place(tmp_path / "killed", resume=False, overwrite=False)
    make_segmenter(job(data, tmp_path / "killed"), goes_on=True)
    for name in ("model.safetensors", "README.md", "training.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_other_settings_are_not_mixed_in(data, tmp_path):
    def kill(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_segmenter(job(data, tmp_path), on_step=kill)
    other = replace(job(data, tmp_path), recipe=replace(RECIPE, rate=1.0), validation=None)
    with pytest.raises(RunError, match=r"other settings \(validation, recipe\)"):
        make_segmenter(other, goes_on=True)
    assert not (tmp_path / ".lock").exists()


def test_without_validation_the_last_weights_are_kept(data, tmp_path):
    progress = make_segmenter(job(data, tmp_path, validation=None))
    assert progress.best_step == 0
    assert json.loads((tmp_path / "training.json").read_text())["scores"] == {"weights of step": 6}


def test_validation_of_other_classes_is_refused(data, tmp_path):
    with pytest.raises(LabelError, match="validation needs the same classes"):
        replace(job(data, tmp_path), trainable=ToyTrainable(label_space=toy.LabelSpace.numbered(3)))


def test_broken_files_and_absurd_views_are_refused_before_anything_is_written(tmp_path):
    data = toy_data(tmp_path / "data", {"a": 3})
    tiny = replace(job(data, tmp_path / "out", validation=None), recipe=replace(RECIPE, smallest=1e-9, largest=1e-9))
    with pytest.raises(SettingsError, match=r"frames of 36 x 24 pixels become 1 x 1 with --smallest 1e-09"):
        make_segmenter(tiny)
    mask = tmp_path / "data" / "data" / "a" / "mask" / "0002.png"
    mask.write_bytes(mask.read_bytes()[:50])
    with pytest.raises(MediaError, match=r"cannot be trained on: .*0002\.png"):
        make_segmenter(job(data, tmp_path / "out", validation=None))
    assert not (tmp_path / "out").exists()


def test_validation_clips_of_void_alone_are_refused_before_the_start(data, tmp_path):
    void = toy_data(tmp_path / "void", {"a": 3})
    masks = sorted((tmp_path / "void" / "data" / "a" / "mask").glob("*.png"))
    for mask in masks:
        Image.fromarray(np.full((24, 36), 255, np.uint8)).save(mask)
    with pytest.raises(SettingsError, match=r"the label maps of toy are void all over, so nothing can be scored"):
        job(data, tmp_path / "out", validation=void)
    Image.fromarray(np.array([[255] * 36] * 23 + [[0] * 36], np.uint8)).save(masks[-1])
    job(data, tmp_path / "out", validation=void)


def test_a_place_that_is_free(tmp_path):
    assert not check_place(tmp_path / "new", resume=True, overwrite=False)
    (tmp_path / "notes.txt").write_text("")
    assert not check_place(tmp_path, resume=False, overwrite=False)


def test_a_segmenter_of_ours_is_replaced_only_if_asked(tmp_path):
    (tmp_path / "training.json").write_text('{"package": "sam2vss"}')
    (tmp_path / "config.json").write_text("{}")
    assert not check_place(tmp_path, resume=False, overwrite=True)
    for resume in (False, True):
        with pytest.raises(RunError, match="already holds a segmenter: replace it with --overwrite"):
            check_place(tmp_path, resume=resume, overwrite=False)


@pytest.mark.parametrize("name", ["config.json", "README.md"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_stays(tmp_path, name, overwrite):
    (tmp_path / name).write_text("{}")
    (tmp_path / "training.json").write_text('{"package": "other"}')
    with pytest.raises(RunError, match="choose another --out"):
        check_place(tmp_path, resume=False, overwrite=overwrite)


def test_a_file_is_no_place(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="is a file, expected a folder"):
        check_place(tmp_path / "out", resume=False, overwrite=True)


def test_classes_without_pixels_are_named_on_the_card(tmp_path):
    data = toy_data(tmp_path / "data", {"a": 3})  # "late" comes with frame 5
    make_segmenter(job(data, tmp_path / "out"))
    assert "Not learned, as no training pixel has it: late." in (tmp_path / "out" / "README.md").read_text()
