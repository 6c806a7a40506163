"""The demonstration: from a seed to a page with scores, without a network."""

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from sam2vss import cli
from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, render_clip
from sam2vss.demo import DEMO_FRAMES, DEMO_SIZE, ROWS, RenderedClip, run_demo
from sam2vss.errors import RunError, SettingsError
from sam2vss.evaluate import evaluate_folders
from sam2vss.images import read_label_map
from sam2vss.masklet_files import read_masklets
from sam2vss.overlay import draw_overlay
from sam2vss.settings import MaskletSettings

FRAMES = 4


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    torch.set_num_threads(1)
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def no_network():
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the demo touched the network")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory, no_network) -> Path:
    """A demo of four frames by the command, in a folder of its own."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.run(["demo", "--frames", str(FRAMES)]) == 0
    return folder / "runs" / "demo"


def test_the_demo_leaves_scores_report_overlay_labels_truth_and_scene(demo):
    (clip,) = json.loads((demo / "run.json").read_text())["clips"]
    name = f"synthetic_{TEST_SEEDS[0]:06d}"
    assert (clip["name"], clip["frames_written"], clip["size"]) == (name, FRAMES, list(DEMO_SIZE))
    for folder in ("labels", "base", "truth"):
        assert len(list((demo / folder / name).iterdir())) == FRAMES
    overlay = list(toy.decoded(demo / "overlay" / f"{name}.mp4"))
    assert [float(frame.time) for frame in overlay] == pytest.approx([t / 15 for t in range(FRAMES)])
    page = (demo / "report.html").read_text()
    assert not re.search(r'(src|href)="https?:', page)
    for layer in ("base", "refined", "truth"):
        assert layer in page
    assert (demo / "scene" / "data" / name / "mask" / "00000003.png").is_file()


def test_the_overlay_has_the_colours_of_the_run_and_not_of_the_base_model(demo):
    name = f"synthetic_{TEST_SEEDS[0]:06d}"
    frame = next(iter(toy.decoded(demo / "overlay" / f"{name}.mp4"))).to_ndarray(format="rgb24")
    labels = read_label_map(demo / "labels" / name / "00000000.png", LABEL_SPACE)
    image = render_clip(TEST_SEEDS[0], 1, DEMO_SIZE).frames[0]
    expected = draw_overlay(image, labels, LABEL_SPACE)
    # 4:2:0 and compression blur colours a little; the base model's own palette is 50 grey levels away on average
    assert np.abs(frame.astype(int) - expected).mean() < 6


def test_the_scores_are_those_of_the_folders(demo):
    scores = json.loads((demo / "scores.json").read_text())
    folders = {"base": Path("base"), **{name: place / "labels" for name, place in ROWS.items()}}
    assert list(scores) == list(folders)
    for key, folder in folders.items():
        assert list(scores[key]["scores"])[:5] == ["mIoU", "wIoU", "mBIoU", "mVC8", "mVC16"]
        assert set(scores[key]) >= {"scores", "per_class", "per_video", "protocol", "frames"}
        assert scores[key]["frames"] == FRAMES
        again = evaluate_folders(demo / "scene", demo / folder, LABEL_SPACE).to_json()
        assert scores[key] == json.loads(json.dumps(again))
    assert 0.2 < scores["base"]["scores"]["mIoU"] < 0.9  # a plausible weak model


def test_the_classifier_labels_what_masklets_cover_and_the_base_fills_the_rest(demo):
    name = f"synthetic_{TEST_SEEDS[0]:06d}"
    (window,) = (read_masklets(file) for file in (demo / "masklets" / name).iterdir())
    for t in range(FRAMES):
        alone, filled, base = (
            read_label_map(demo / place / name / f"{t:08d}.png", LABEL_SPACE)
            for place in ("i-sam2/labels", "i-sam2-base/labels", "base")
        )
        is_covered = window.stack(t).any(axis=0)
        assert 0.3 < is_covered.mean() < 1
        assert (alone[~is_covered] == LABEL_SPACE.ignore_index).all()
        assert (alone[is_covered] != LABEL_SPACE.ignore_index).all()
        assert (filled[is_covered] == alone[is_covered]).all()
        assert (filled[~is_covered] == base[~is_covered]).all()


def test_the_report_shows_base_refined_and_classified_labels_side_by_side(demo):
    page = (demo / "report.html").read_text()
    for title in ("fusion", "I-SAM2", "I-SAM2 base"):
        assert f">{title}<" in page or f'"{title}"' in page


def test_the_truth_is_that_of_the_seed(demo):
    truth = render_clip(TEST_SEEDS[0], FRAMES, DEMO_SIZE).labels
    files = sorted((demo / "truth" / f"synthetic_{TEST_SEEDS[0]:06d}").iterdir())
    assert [np.array_equal(Image.open(file), labels) for file, labels in zip(files, truth, strict=True)] == [True] * 4


def test_the_scene_is_no_training_data():
    assert TEST_SEEDS[0] not in (*TRAIN_SEEDS, *VALIDATION_SEEDS)
    assert MaskletSettings().window < DEMO_FRAMES  # so that a window border is part of the picture


def test_tables_are_printed_and_an_earlier_demo_is_replaced(demo, no_network, capsys, monkeypatch):
    monkeypatch.chdir(demo.parents[1])
    assert cli.run(["demo", "--frames", "1", "--seed", str(TEST_SEEDS[1])]) == 0
    out = capsys.readouterr().out
    rows = ("base", "refined, mode exact", "refined, mode fast", "learned fusion", "I-SAM2", "I-SAM2 with base")
    for word in (*rows, "mIoU", "mBIoU", "mVC16", "report", "runs/demo/report.html", "fast/report.html", "scene"):
        assert word in out
    (clip,) = json.loads((demo / "run.json").read_text())["clips"]
    assert (clip["name"], clip["frames_written"]) == (f"synthetic_{TEST_SEEDS[1]:06d}", 1)
    assert [folder.name for folder in (demo / "labels").iterdir()] == [clip["name"]]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="holds no run of sam2vss"):
        run_demo(tmp_path, num_frames=1)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_of_refine_is_not_replaced_by_a_demo(tmp_path):
    toy.run_toy(tmp_path / "run", overlay=False)
    before = toy.content_of_run(tmp_path / "run")
    with pytest.raises(
        RunError, match=r"run holds a run of `refine`, and only an earlier demo .* choose another --out"
    ):
        run_demo(tmp_path / "run", num_frames=1)
    assert toy.content_of_run(tmp_path / "run") == before


@pytest.mark.parametrize(("frames", "seed"), [(0, 1), (1, -1)])
def test_impossible_scenes_are_refused(tmp_path, frames, seed):
    with pytest.raises(SettingsError, match=rf"cannot render num_frames={frames}"):
        run_demo(tmp_path / "run", seed, frames)
    assert not (tmp_path / "run").exists()


def test_a_rendered_clip_is_a_source_of_frames():
    clip = RenderedClip("a", render_clip(3, 3, (24, 32)), Path("scene"))
    frames = list(clip.frames())
    assert [(frame.index, frame.name, str(frame.time_s)) for frame in frames] == [
        (0, "00000000", "0"), (1, "00000001", "1/15"), (2, "00000002", "2/15")
    ]  # fmt: skip
    assert (clip.size, clip.num_frames_expected, clip.num_frames_estimate) == ((24, 32), 3, 3)
    assert clip.fingerprint() == RenderedClip("b", render_clip(3, 3, (24, 32)), Path("other")).fingerprint()
    assert clip.fingerprint() != RenderedClip("a", render_clip(4, 3, (24, 32)), Path("scene")).fingerprint()
