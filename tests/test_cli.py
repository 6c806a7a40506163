"""The real command, mostly within this process: what it writes, prints and returns, and what it says to bad input."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from clip_files import write_numbered_video, write_picture, write_sound
from fake_hub import use_hub
from sam2vss import cli, refiner
from sam2vss.sam2 import loading
from sam2vss.sam2.cost import tracking_cost
from sam2vss.sam2.tracker import NANO_FOLDER
from sam2vss.settings import FollowSettings
from sam2vss.trackers.nothing import NoTracker
from toy import ExactTracker, content_of_run

SOURCE = Path(cli.__file__).parents[2]
CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens there
LABEL_SET = {
    "name": "toy",
    "ignore_index": 255,
    "classes": [{"id": i, "name": name} for i, name in enumerate(["ground", "disc", "box", "late"])],
}


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    torch.set_num_threads(1)
    with toy.no_waiting_for_the_disk():
        yield


@dataclass(frozen=True)
class Answer:
    """What a command gave back: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error, which must be the last thing on standard error, and no traceback."""
        assert "Traceback" not in self.err + self.out
        assert "pydantic.dev" not in self.err
        return self.err.strip().splitlines()[-1]


Command = Callable[..., Answer]


@pytest.fixture
def command(capsys) -> Command:
    """Runs `sam2vss ...` in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`frames/` with ten pictures, `labels/` noisy base labels, `truth/`, `label_set.json`; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_toy_frames(folder / "frames", 10)
    toy.write_toy_labels(folder / "labels", 10, 0.3)
    toy.write_toy_labels(folder / "truth" / "frames", 10)
    for path in (folder / "label_set.json", folder / "truth" / "label_set.json"):
        path.write_text(json.dumps(LABEL_SET))
    return folder


@pytest.fixture
def exact(monkeypatch) -> ExactTracker:
    """Puts the exact tracker in the place of SAM 2."""
    tracker = ExactTracker()
    monkeypatch.setattr(refiner, "load_tracker", lambda *arguments, **options: tracker)
    return tracker


def toy_run(place: Path, out: Path, *more: object) -> list[object]:
    """The words of a run of the toy clip in windows of 4, 4 and 2 frames; options in `more` take the place of these."""
    defaults = {"--labels": place / "labels", "--label-set": place / "label_set.json", "--sam2": "nano", "--window": 4}
    words: list[object] = ["refine", place / "frames", "--out", out]
    for option, value in defaults.items():
        words += [] if option in more else [option, value]
    return [*words, *([] if "--report" in more else ["--no-report"]), *more]


def read_maps(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])


def info_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory) -> Path:
    """An uninterrupted run by the command."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refiner, "load_tracker", lambda *arguments, **options: ExactTracker())
        assert cli.run([str(word) for word in toy_run(place, out)]) == 0
    return out


# --- refine ----------------------------------------------------------------------------------------------------------


def test_pictures_with_stored_labels_become_consistent(command, place, exact, tmp_path):
    answer = command(*toy_run(place, tmp_path / "run", "--report"))
    assert answer.code == 0
    objects = toy.toy_objects(10)
    base, refined = read_maps(place / "labels"), read_maps(tmp_path / "run" / "labels" / "frames")
    truth = toy.toy_labels(objects)
    followed = (objects > 0) & (objects < 4)  # the bar is there when the third window begins
    followed[8:] |= objects[8:] == 4
    assert (refined == truth)[followed].all()
    assert (refined == base)[~followed].all()
    assert (base != truth)[followed].mean() > 0.2
    assert exact.starts == [0, 4, 8]
    # results on stdout, progress on stderr
    for line in ("frames refined", "10", "windows", "masklets", "coverage", "report  ", "labels  "):
        assert line in answer.out
    assert "10/10" in answer.err
    assert "mode exact on cpu, float32; masklets: nano" in answer.err
    assert "10/10" not in answer.out


def test_a_run_tells_how_it_came_about(whole, place):
    info = info_of(whole)
    assert info["settings"]["masklets"]["window"] == 4
    assert info["settings"]["labels"] == str(place / "labels")
    assert info["settings"]["segmenter"] is None
    assert set(info["weights"]) == {"sam2-nano/config.json", "sam2-nano/model.safetensors"}
    assert (info["device"], info["dtype"], info["status"]) == ("cpu", "float32", "done")


def test_a_run_that_found_no_masklet_says_so(command, place, tmp_path, monkeypatch):
    monkeypatch.setattr(refiner, "load_tracker", lambda *arguments, **options: NoTracker())
    answer = command(*toy_run(place, tmp_path / "run", "--no-overlay"))
    assert answer.code == 0
    assert "no masklet was found, so the labels are those that came in" in " ".join(answer.err.split())


def test_auto_is_exact_on_a_gpu_and_with_the_small_weights_and_else_fast(monkeypatch):
    assert refiner.choose_mode("auto", "cpu", "sam2.1-large") == "fast"
    assert refiner.choose_mode("auto", "cpu", "nano") == "exact"
    monkeypatch.setattr(refiner, "choose_device", lambda name: "cuda:0")
    assert refiner.choose_mode("auto", "auto", "sam2.1-large") == "exact"
    assert refiner.choose_mode("prompt", "auto", "sam2.1-large") == "prompt"


def test_without_a_tracker_the_base_labels_stay(command, place, tmp_path):
    out = tmp_path / "run"
    answer = command(*toy_run(place, out, "--tracker", "none", "--no-overlay"))
    assert answer.code == 0
    assert read_maps(out / "labels" / "frames").tolist() == read_maps(place / "labels").tolist()
    assert not (out / "overlay").exists()
    assert not (out / "report.html").exists()
    assert info_of(out)["weights"] == {}
    assert "masklets: none" in answer.err


def test_superpixels_and_smoothing_need_no_weights(command, place, tmp_path):
    base = read_maps(place / "labels")
    for name, words in (
        ("superpixel", ["--tracker", "superpixel"]),
        ("static", ["--tracker", "none", "--smooth", "static"]),
        ("flow", ["--tracker", "none", "--smooth", "flow"]),
        ("both", ["--tracker", "superpixel", "--smooth", "static"]),
    ):
        out = tmp_path / name
        answer = command(*toy_run(place, out, *words, "--no-overlay"))
        assert answer.code == 0, answer.err
        labels = read_maps(out / "labels" / "frames")
        assert (labels[1:] != labels[:-1]).mean() < (base[1:] != base[:-1]).mean()
        assert np.array_equal(read_maps(out / "base" / "frames"), base)  # the report compares with what came in
        assert info_of(out)["weights"] == {}


def test_masklets_are_saved_and_used_again(command, place, tmp_path, exact):
    assert command(*toy_run(place, tmp_path / "run", "--save-masklets", "--no-overlay")).code == 0
    stored = f"stored:{tmp_path / 'run'}"
    answer = command(*toy_run(place, tmp_path / "again", "--tracker", stored, "--vote", "frame", "--no-overlay"))
    assert answer.code == 0, answer.err
    assert len(exact.starts) == 3  # the tracker was not asked a second time
    windows = [(tmp_path / name / "windows.jsonl").read_text().splitlines() for name in ("run", "again")]
    ids = [[[masklet["id"] for masklet in json.loads(line)["masklets"]] for line in lines] for lines in windows]
    assert ids[0] == ids[1]
    own = command(*toy_run(place, tmp_path / "run", "--tracker", stored, "--overwrite"))
    assert own.code == 2
    assert "--overwrite would remove the input" in own.message
    assert len(list((tmp_path / "run" / "masklets" / "frames").iterdir())) == 3
    (tmp_path / "run" / "masklets" / "frames" / "00000004.json.gz").write_bytes(b"other masklets")
    resumed = command(
        *toy_run(place, tmp_path / "again", "--tracker", stored, "--vote", "frame", "--no-overlay", "--resume")
    )
    assert resumed.code == 2
    assert "stored_fingerprint" in resumed.err
    wrong = command(*toy_run(place, tmp_path / "wrong", "--tracker", stored, "--window", 5))
    assert wrong.code == 2
    assert "pass the same --window" in wrong.message


def test_smoothed_labels_have_no_probabilities_to_vote_with(command, video, tmp_path):
    answer = command("refine", video, "--out", tmp_path / "run", "--segmenter", "segformer-nano", "--tracker", "none",
                     "--smooth", "flow", "--vote-weight", "probability")  # fmt: skip
    assert answer.code == 2
    assert "--smooth gives labels without probabilities" in answer.message


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Five frames at a variable rate."""
    return write_numbered_video(tmp_path_factory.mktemp("video") / "street.mp4", 5, pts=[0, 1001, 3003, 4004, 6006])


def test_a_video_is_labelled_and_refined_by_the_bundled_models(command, video, tmp_path):
    out = tmp_path / "run"
    answer = command("refine", video, "--out", out, "--segmenter", "segformer-nano", "--sam2", "nano", "--window", 3,
                     "--points", 4, "--image-size", 128)  # fmt: skip
    assert answer.code == 0, answer.err
    names = [f"{t:08d}.png" for t in range(5)]
    assert sorted(file.name for file in (out / "labels" / "street").iterdir()) == names
    with Image.open(out / "labels" / "street" / names[0]) as label_map:
        assert label_map.mode == "P"
    assert read_maps(out / "labels" / "street").shape == (5, 64, 96)
    overlay = list(toy.decoded(out / "overlay" / "street.mp4"))
    assert [round(1000 * frame.time) for frame in overlay] == [round(1001 / 30 * t) for t in (0, 1, 3, 4, 6)]
    assert "<html" in (out / "report.html").read_text()[:200]
    info = info_of(out)
    (clip,) = info["clips"]
    assert [clip[f"frames_{what}"] for what in ("expected", "decoded", "refined", "written")] == [5] * 4
    assert (info["settings"]["segmenter"], info["settings"]["image_size"]) == ("segformer-nano", [128, 128])
    assert len(info["label_set"]["classes"]) == 10
    assert {name.split("/")[0] for name in info["weights"]} == {"segformer-nano", "sam2-nano"}
    lines = [json.loads(line) for line in (out / "windows.jsonl").read_text().splitlines()]
    assert [(line["start"], line["length"]) for line in lines] == [(0, 3), (3, 2)]


def test_options_and_presets_reach_the_tracker_and_the_record(command, place, monkeypatch, tmp_path):
    given = {}

    def load_tracker(location, masklets, follow, **options):
        given.update(masklets=masklets, follow=follow, **options)
        return ExactTracker()

    monkeypatch.setattr(refiner, "load_tracker", load_tracker)
    words = ("--preset", "cpu", "--pred-iou", 0.5, "--vote", "frame", "--min-share", 0.25, "--overlap", "large-on-top",
             "--direction", "both", "--match-every", 3, "--max-masklets", 9)  # fmt: skip
    assert command(*toy_run(place, tmp_path / "run", "--no-overlay", *words)).code == 0
    masklets = given["masklets"]
    assert (masklets.points, masklets.pred_iou, masklets.window, masklets.stability) == (12, 0.5, 4, 0.8)
    assert (given["image_size"], given["device"], given["mode"]) == ((512, 512), "cpu", "fast")
    assert given["follow"] == FollowSettings(direction="both", match_every=3, max_masklets=9)
    settings = info_of(tmp_path / "run")["settings"]
    assert settings["masklets"] == masklets.model_dump()
    assert settings["follow"] == given["follow"].model_dump()
    assert settings["votes"] == {
        "vote": "frame",
        "vote_weight": "majority",
        "min_share": 0.25,
        "overlap": "large-on-top",
        "void": "keep",
    }


def test_shards_are_runs_of_their_own_that_cover_all_clips(command, place, tmp_path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / "set" / name / "0.png", (24, 36))
        write_picture(tmp_path / "labels" / name / "0.png", (24, 36), (0, 0, 0))
    for file in (tmp_path / "labels").rglob("*.png"):
        Image.new("L", (36, 24)).save(file)
    words = ["refine", tmp_path / "set", "--out", tmp_path / "out", "--labels", tmp_path / "labels", "--tracker",
             "none", "--label-set", place / "label_set.json", "--no-report", "--no-overlay"]  # fmt: skip
    for shard in ("1/2", "2/2"):
        assert command(*words, "--shard", shard).code == 0
    names = [[clip["name"] for clip in info_of(tmp_path / "out" / f"shard-{i}-of-2")["clips"]] for i in (1, 2)]
    assert names == [["a", "c"], ["b"]]
    assert "--shard 4/4 has no clips" in command(*words, "--shard", "4/4").message


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(command, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = command("refine", video, "--out", "run", "--sam2", "nano", "--window", 2, "--mode", "exact", "--dry-run")
    assert answer.code == 0
    assert re.search(r"street\W+96x64\W+5\W+3\W", answer.out)  # 5 frames in windows of 2, 2 and 1
    for word in ("20 masklets", "40 masklets", "80 masklets", "TFLOP", "MiB", " s ", "GFLOP/s"):
        assert word in answer.out
    cost = tracking_cost(NANO_FOLDER, points=16)
    for masklets in (20, 40, 80):
        flops = sum(cost.window_flops(length, masklets) for length in (2, 2, 1))
        assert f"{masklets} masklets │ {flops / 1e12:.3g} TFLOP" in " ".join(answer.out.split())
    fast = command("refine", video, "--out", "run", "--sam2", "nano", "--window", 2, "--mode", "fast",
                   "--match-every", 2, "--dry-run")  # fmt: skip
    assert "mode fast" in fast.out
    flops = sum(cost.fast_window_flops(length, 2, 40) for length in (2, 2, 1))
    assert f"40 masklets │ {flops / 1e12:.3g} TFLOP" in " ".join(fast.out.split())
    prompt = command("refine", video, "--out", "run", "--sam2", "nano", "--window", 2, "--mode", "prompt", "--dry-run")
    flops = sum(cost.fast_window_flops(length, length, 40) for length in (2, 2, 1))
    assert f"40 masklets │ {flops / 1e12:.3g} TFLOP" in " ".join(prompt.out.split())
    assert "MiB" not in prompt.out  # nothing is remembered
    assert list(tmp_path.iterdir()) == []
    assert command("refine", video, "--out", "run", "--tracker", "none", "--dry-run").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_does_not_count_clips_of_unknown_length_in_silence(command, video, tmp_path, monkeypatch):
    from sam2vss.videos import VideoClip

    monkeypatch.setattr(VideoClip, "num_frames_estimate", None)
    answer = command("refine", video, "--out", tmp_path / "run", "--sam2", "nano", "--dry-run")
    assert answer.code == 0
    assert "unknown" in answer.out
    assert "1 of 1 clips are of unknown length and left out" in " ".join(answer.out.split())


# --- resuming --------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_to_the_same_bits(command, place, whole, tmp_path, exact):
    def interrupt(start: int) -> None:
        if start == 4:
            raise KeyboardInterrupt

    exact.on_window = interrupt
    answer = command(*toy_run(place, tmp_path / "run"))
    assert answer.code == 130
    assert answer.message == "interrupted: what is finished is kept; go on with the same command and --resume"
    assert info_of(tmp_path / "run")["status"] == "incomplete"
    exact.on_window = None
    answer = command(*toy_run(place, tmp_path / "run", "--resume"))
    assert answer.code == 0
    assert "10 (4 before)" in answer.out
    assert content_of_run(tmp_path / "run") == content_of_run(whole)


KILLED = """
import os, signal, sys
import toy
from sam2vss import cli, refiner
tracker = toy.ExactTracker(on_window=lambda start: start == 4 and os.kill(os.getpid(), signal.SIGKILL))
refiner.load_tracker = lambda *arguments, **options: tracker
cli.main(sys.argv[1:])
"""


def test_a_killed_command_goes_on_to_the_same_bits(command, place, whole, tmp_path, exact):
    words = [str(word) for word in toy_run(place, tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{Path(__file__).parent}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len((tmp_path / "run" / "windows.jsonl").read_text().splitlines()) == 1
    assert info_of(tmp_path / "run")["status"] == "running"
    assert command(*words, "--resume").code == 0
    assert exact.starts == [4, 8]
    assert content_of_run(tmp_path / "run") == content_of_run(whole)


def test_other_settings_are_not_mixed_into_a_run(command, place, whole, exact):
    before = content_of_run(whole)
    answer = command(*toy_run(place, whole, "--resume", "--window", 5, "--min-share", 0.5))
    assert answer.code == 2
    assert "settings.masklets.window: 4 in the folder, 5 asked for" in answer.err
    assert "settings.votes.min_share: 0.0 in the folder, 0.5 asked for" in answer.err
    assert answer.message == "Ask for the same, or choose another --out, or start again with --overwrite"
    assert content_of_run(whole) == before


def test_an_existing_folder_is_refused_and_can_be_overwritten(command, place, tmp_path, exact):
    out = tmp_path / "run"
    assert command(*toy_run(place, out)).code == 0
    (out / "notes.txt").write_text("mine")
    answer = command(*toy_run(place, out, "--min-share", 1))
    assert answer.code == 2
    assert "already holds a run (status done, 1 of 1 clips done): go on with --resume" in answer.message
    assert command(*toy_run(place, out, "--min-share", 1, "--overwrite")).code == 0
    assert info_of(out)["settings"]["votes"]["min_share"] == 1
    assert read_maps(out / "labels" / "frames").tolist() == read_maps(place / "labels").tolist()  # all abstain
    assert (out / "notes.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_never_overwritten(command, place, tmp_path, exact):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    for more in ((), ("--overwrite",), ("--resume",)):
        answer = command(*toy_run(place, tmp_path / "run", *more))
        assert (answer.code, "no run" in answer.message) == (2, True)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.tex"]


# --- sources that break off, full disks ------------------------------------------------------------------------------


def test_a_video_cut_short_is_refined_up_to_there(command, tmp_path):
    path = write_numbered_video(tmp_path / "cut.mp4", 40, container_options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    words = ["refine", path, "--out", tmp_path / "run", "--segmenter", "segformer-nano", "--tracker", "none"]
    answer = command(*words)
    assert answer.code == 0
    assert "warning" in answer.err
    assert re.search(r"cut\.mp4 .*: (\d+) frames were decoded of 40 expected", answer.err)
    count = info_of(tmp_path / "run")["clips"][0]["frames_decoded"]
    assert 0 < count < 40
    assert len(list((tmp_path / "run" / "labels" / "cut").iterdir())) == count
    assert info_of(tmp_path / "run")["status"] == "incomplete"
    assert command(*words, "--resume", "--strict", "--no-report").code == 3


def test_a_full_disk_is_one_message_and_the_run_can_go_on(command, place, whole, tmp_path, exact, monkeypatch):
    replace, calls = os.replace, iter(range(10**6))

    def replace_or_fail(*arguments):
        if next(calls) >= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_fail)
        answer = command(*toy_run(place, tmp_path / "run"))
    assert answer.code == 2
    assert answer.message.startswith("MediaError: the disk is full while writing ")
    assert answer.message.endswith("a run goes on with --resume")
    assert not list(tmp_path.rglob("*.mp4"))
    assert not list(tmp_path.rglob("*.part"))
    assert info_of(tmp_path / "run")["status"] != "done"
    assert command(*toy_run(place, tmp_path / "run", "--resume")).code == 0
    assert content_of_run(tmp_path / "run") == content_of_run(whole)


def test_our_own_bugs_keep_their_traceback(command, place, tmp_path, exact):
    exact.on_window = lambda start: 1 // 0
    with pytest.raises(ZeroDivisionError):
        command(*toy_run(place, tmp_path / "run"))
    assert info_of(tmp_path / "run")["status"] == "incomplete"


# --- bad input -------------------------------------------------------------------------------------------------------


def test_sources_that_cannot_be_read_say_what_was_found(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.md").write_text("no picture")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "list.txt").write_text("# nothing\n")
    write_sound(tmp_path / "sound.mp4")
    out = tmp_path / "run"
    for source, message in (
        ("gone.mp4", "gone.mp4 does not exist; give a video file or a folder of pictures"),
        ("empty", "empty holds nothing, expected pictures"),
        ("notes", "notes holds 1 other entries (first: notes.md), expected pictures"),
        ("zero.mp4", "zero.mp4 is an empty file (0 bytes), expected a video"),
        ("text.mp4", "text.mp4 cannot be opened as a video"),
        ("sound.mp4", "sound.mp4 has no video stream, only audio"),
        ("list.txt", "list.txt lists no sources, expected one path per line"),
    ):
        answer = command("refine", tmp_path / source, "--out", out, "--segmenter", "segformer-nano")
        assert answer.code == 2
        assert answer.message.startswith("MediaError: ")
        assert message in answer.message
        assert answer.out == ""
    assert "MediaError: no source was given" in command("refine", "--out", out).message
    assert not out.exists()


def change_labels(folder: Path, change: Callable[[Path], object]) -> Path:
    toy.write_toy_labels(folder, 10, 0.3)
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: Image.new("L", (35, 24)).save(f / "0007.png"), r"0007\.png is 24 x 35 .* but its frame is 24 x 36"),
        (lambda f: (f / "0003.png").unlink(), r"1 of 10 frames have no label map \(first: 0003\)"),
        (lambda f: Image.new("L", (36, 24)).save(f / "0010.png"), r"1 of 11 label maps have no frame \(first: 0010\)"),
        (lambda f: Image.new("L", (36, 24), 9).save(f / "0000.png"), r"0000\.png holds the ids \[9\]"),
        (lambda f: (f / "0000.png").write_bytes(b"no picture"), r"0000\.png"),
        (lambda f: [file.rename(f / f"x{file.name}") for file in sorted(f.iterdir())[:5]], "5 of 10 frames have no"),
    ],
    ids=["size", "one too few", "one too many", "foreign id", "no picture", "names"],
)
def test_labels_that_do_not_fit_are_found_before_anything_is_written(command, place, exact, tmp_path, change, message):
    labels = change_labels(tmp_path / "labels", change)
    answer = command(*toy_run(place, tmp_path / "run", "--labels", labels))
    assert answer.code == 2
    assert re.search(message, answer.message), answer.message
    assert exact.starts == []
    assert not (tmp_path / "run").exists()


def test_a_foreign_id_in_a_later_map_ends_the_run_as_incomplete(command, place, exact, tmp_path):
    labels = change_labels(tmp_path / "labels", lambda f: Image.new("L", (36, 24), 9).save(f / "0005.png"))
    answer = command(*toy_run(place, tmp_path / "run", "--labels", labels))
    assert answer.code == 2
    assert re.search(r"LabelError: .*0005\.png holds the ids \[9\]", answer.message)
    assert info_of(tmp_path / "run")["status"] == "incomplete"
    assert len(list((tmp_path / "run" / "labels" / "frames").iterdir())) == 4  # the first window


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--segmenter", "segformer-nano"], "--labels and --segmenter both give base labels: pass one of them"),
        (["--labels", "nowhere"], "--labels nowhere does not exist"),
        (["--label-set", "nowhere.json"], "there is no label set nowhere.json"),
        (["--vote-weight", "probability"], "--vote-weight probability needs a model: stored label PNGs hold no"),
        (["--sam2", "sam2.1-hugo"], "'sam2.1-hugo' is neither a known name, nor a folder here, nor a hub id"),
        (["--sam2", "sam2.1-larg"], "Did you mean sam2.1-large"),
        (["--image-size", "100"], "--image-size 100: sides must be multiples of 32 from 64 on"),
        (["--image-size", "0", "--dry-run"], "--image-size 0: sides must be multiples of 32 from 64 on"),
        (["--device", "frog"], "--device frog is not a device, expected auto, cpu, cuda"),
        (["--device", "meta"], "--device meta cannot be used, expected auto, cpu, cuda"),
        (["--shard", "3/2"], "--shard 3/2 is not of the form i/n with 1 <= i <= n"),
        (["--shard", "²/3"], "--shard ²/3 is not of the form i/n"),
        (["--shard", "1/" + "9" * 5000], "is not of the form i/n"),
        (["--image-size", "320000"], "--image-size 320000 is neither a side such as 512 nor width x height"),
        (["--image-size", "8192"], "--image-size 8192: sides must be multiples of 32 from 64 on up to 4096"),
        (["--image-size", "512x100"], "--image-size 512x100: sides must be multiples of 32"),
        (["--tracker", "superpixels"], "superpixels is unknown, expected sam2, superpixel, stored:DIR or none"),
        (["--tracker", "stored"], "--tracker stored is unknown"),
        (["--tracker", "none", "--mode", "exact"], "--mode exact says how SAM 2 follows masklets, and this is"),
        (["--mode", "exact", "--discover", "4"], "--discover 4 never comes in windows of 4 frames"),
        (
            ["--tracker", "none", "--carry", "--discover", "3"],
            "--carry, --discover would do nothing with --tracker none",
        ),
        (["--mode", "exact", "--match-every", "2"], "--match-every is for --mode fast, and this is mode exact"),
        (["--tracker", "stored:nowhere"], "nowhere does not exist, expected a folder of masklets"),
        (["--tracker", "stored:nowhere", "--dry-run"], "nowhere does not exist, expected a folder of masklets"),
        (["--discover", "2", "--mode", "fast", "--dry-run"], "--discover looks for new masks every few frames"),
        (["--drop-contained", "--mode", "fast"], "work on seed frames, and --mode fast looks in every frame"),
        (["--discover", "2", "--mode", "fast"], "--discover looks for new masks every few frames"),
        (["--stability-offset", "inf"], "--stability-offset inf: Input should be a finite number"),
        (["--window", "9" * 23], "Input should be less than or equal to 100000"),
        (["--labels", "nowhere", "--dry-run"], "--labels nowhere does not exist"),
        (["--sam2", "nope"], "Known names: nano, sam2.1-tiny"),
        (["--sam2", ""], "an empty value was given after --sam2"),
        (["--labels", ""], "an empty value was given after --labels"),
        (["--out="], "an empty value was given"),
        (["--shard", "half"], "--shard half is not of the form i/n"),
        (["--resume", "--overwrite"], "--overwrite starts again and --resume goes on: give one of them"),
        (["--pred-iou", "2"], "--pred-iou 2: Input should be less than or equal to 1"),
        (["--window", "0"], "--window 0: Input should be greater than or equal to 1"),
        (["--window", "many"], "--window many: Input should be a valid integer"),
        (["--vote", "twice"], "--vote twice: Input should be 'window' or 'frame'"),
        (["--dtype", "int8"], "--dtype"),
        (["--pred-iuo", "0.5"], "Unknown option: --pred-iuo. Did you mean --pred-iou?"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "says",
)
def test_options_that_cannot_be_used_are_named_with_what_was_expected(command, place, tmp_path, more, message):
    answer = command(*toy_run(place, tmp_path / "run", *more))
    assert answer.code == 2
    assert message in answer.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["refin"], 'Unknown command "refin". Did you mean "refine"?'),
        (["refine", "x.mp4"], '"refine" parameter --out requires an argument'),
        (["demo", "--frames", "many"], "--frames"),
        (["report"], "no run folder was given; pass the --out folder of a run"),
        (["report", "nowhere"], "nowhere is not a run folder: it holds no run.json"),
        (["evaluate", "truth"], "requires an argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "says",
)
def test_words_that_make_no_command_are_usage_errors(command, words, message):
    answer = command(*words)
    assert answer.code == 2
    assert message in answer.message
    assert answer.out == ""


def test_an_unreachable_hub_is_said_within_seconds(command, video, tmp_path, monkeypatch):
    use_hub(monkeypatch, CLOSED_PORT, tmp_path / "cache")
    started = time.monotonic()
    for words, model in (
        ([], "nvidia/segformer-b2"),
        (["--segmenter", "segformer-nano"], "facebook/sam2.1-hiera-base-plus"),
        (["--segmenter", "segformer-nano", "--sam2", "some/model"], "some/model"),
        (["--dry-run"], "facebook/sam2.1-hiera-base-plus"),
    ):
        answer = command("refine", video, "--out", tmp_path / "run", *words)
        assert answer.code == 2
        assert answer.message.startswith(f"WeightsError: {model}")
        assert "not in the local cache and the hub cannot be reached" in answer.message
        assert "Ways out: pass a local folder" in answer.message
    assert time.monotonic() - started < 5  # all four; one alone took 23 s of silent retries without our question first
    assert not (tmp_path / "run").exists()


# --- options from a file ---------------------------------------------------------------------------------------------


def write_config(tmp_path: Path, text: str) -> Path:
    (tmp_path / "options.yaml").write_text(text)
    return tmp_path / "options.yaml"


@pytest.mark.parametrize("first", [True, False])
def test_options_can_come_from_a_file_and_the_command_line_wins(command, place, exact, tmp_path, first):
    config = write_config(tmp_path, f"window: 5\npred-iou: 0.25\nsam2: nano\nlabel-set: {place / 'label_set.json'}\n")
    words = ["refine", place / "frames", "--out", tmp_path / "run", "--labels", place / "labels", "--pred-iou", 0.5,
             "--no-report"]  # fmt: skip
    assert command(*(["--config", config, *words] if first else [*words, "--config", config])).code == 0
    masklets = info_of(tmp_path / "run")["settings"]["masklets"]
    assert (masklets["window"], masklets["pred_iou"]) == (5, 0.5)
    # the file belongs to that one call
    assert command(*toy_run(place, tmp_path / "other", "--window", 3)).code == 0
    assert info_of(tmp_path / "other")["settings"]["masklets"]["pred_iou"] == 0.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("windw: 16", r'Unknown option: "\[windw\]" from .*options\.yaml\. Did you mean --window\?'),
        ("window: 0", "--window 0: Input should be greater than or equal to 1"),
        (
            "refine:\n  window: 2",
            r'SettingsError: .*nests options under "refine": options stand at top level.*window: 16',
        ),
        ("windw:\n  window: 2", 'nests options under "windw"'),
        ("demo: 3", 'nests options under "demo"'),
        ("config: other.yaml", "SettingsError: .* names another config"),
        ("2: 3", "SettingsError: .* has the key 2, expected names of options"),
        ("labels: ''", "SettingsError: .* gives an empty value for labels"),
        ("[" * 5000, r"SettingsError: .*cannot be read as YAML"),
        ("window: [1", r"SettingsError: --config .*options\.yaml cannot be read as YAML"),
        ("- 16", r"options\.yaml must be a mapping such as \"window: 16\", but got list"),
    ],
)
def test_a_wrong_file_of_options_is_named(command, place, tmp_path, text, message):
    answer = command("refine", place / "frames", "--out", tmp_path / "run", "--config", write_config(tmp_path, text))
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert re.search(message, answer.err), answer.err
    assert not (tmp_path / "run").exists()


def test_an_option_named_like_a_command_counts_in_a_file_too(command, place, exact, tmp_path):
    config = write_config(tmp_path, f"report: false\nsam2: nano\nlabel-set: {place / 'label_set.json'}\n")
    words = ("refine", place / "frames", "--out", tmp_path / "run", "--labels", place / "labels", "--config", config)
    assert command(*words).code == 0
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_folder_in_use_is_refused_before_weights_are_looked_for(command, place, tmp_path, monkeypatch, more):
    monkeypatch.setattr(loading, "find_sam2", lambda name: pytest.fail("weights were looked for"))
    (tmp_path / "notes.txt").write_text("mine")
    answer = command(*toy_run(place, tmp_path, *more))
    assert answer.code == 2
    assert "RunError: " in answer.message
    assert "is not empty and holds no run to go on with" in answer.message
    answer = command(*toy_run(place, tmp_path / "notes.txt", *more))
    assert "notes.txt is a file, expected a folder to write into" in answer.message


def test_a_dry_run_names_labels_and_out(command, place, whole, tmp_path):
    words = ("--tracker", "none", "--dry-run")
    answer = command(*toy_run(place, tmp_path / "new", *words))
    assert answer.code == 0
    assert f"labels  {place / 'labels'}" in answer.out
    assert f"out     {tmp_path / 'new'} (free)" in answer.out
    assert f"out     {whole} (the run there goes on)" in command(*toy_run(place, whole, *words, "--resume")).out
    assert f"out     {whole} (the run there is replaced)" in command(*toy_run(place, whole, *words, "--overwrite")).out


def test_changed_labels_are_no_run_to_go_on_with(command, place, tmp_path):
    labels = tmp_path / "labels"
    shutil.copytree(place / "labels", labels)
    words = toy_run(place, tmp_path / "run", "--labels", labels, "--tracker", "none")
    assert command(*words).code == 0
    assert command(*words, "--resume").code == 0
    file = sorted(labels.iterdir())[2]
    Image.fromarray(np.asarray(Image.open(file)) ** 0).save(file)
    answer = command(*words, "--resume")
    assert answer.code == 2
    assert "labels_fingerprint" in answer.err


# --- evaluate, report, doctor, train ---------------------------------------------------------------------------------


def test_scores_are_printed_and_written(command, place, whole, tmp_path):
    answer = command("evaluate", place / "truth", whole, "--windows", 2, "--windows", 4, "--json", tmp_path / "s.json",
                     "--per-class")  # fmt: skip
    assert answer.code == 0, answer.err
    content = json.loads((tmp_path / "s.json").read_text())
    assert set(content) >= {"scores", "per_class", "per_video", "protocol", "frames"}
    assert set(content["scores"]) >= {"mIoU", "wIoU", "mBIoU", "mVC2", "mVC4"}
    assert (content["frames"], content["protocol"], list(content["per_video"])) == (10, "vspw", ["frames"])
    miou = content["scores"]["mIoU"]
    truth, refined = read_maps(place / "truth" / "frames"), read_maps(whole / "labels" / "frames")
    ious = [((truth == c) & (refined == c)).sum() / ((truth == c) | (refined == c)).sum() for c in range(4)]
    assert miou == pytest.approx(np.mean(ious))
    assert f"{100 * miou:.2f}" in answer.out
    share = (truth == 1).mean()
    assert re.search(rf"disc\W+{100 * ious[1]:.2f}\W+{100 * share:.2f}", answer.out)


def test_the_default_scores_are_those_of_the_field(command, place, tmp_path):
    assert command("evaluate", place / "truth", place / "truth", "--json", tmp_path / "s.json").code == 0
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    assert [scores[name] for name in ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")] == [1, 1, 1, 1, None]


def test_a_run_is_scored_by_its_own_label_set(command, place, whole, tmp_path):
    """The same truth with its classes stored backwards: only names tell what belongs together."""
    names = [entry["name"] for entry in LABEL_SET["classes"]]
    backwards = {"classes": [{"id": 3 - i, "name": name} for i, name in enumerate(names)]}
    (tmp_path / "ls.json").write_text(json.dumps(backwards))
    (tmp_path / "truth" / "frames").mkdir(parents=True)
    for file in (place / "truth" / "frames").iterdir():
        Image.fromarray(3 - np.asarray(Image.open(file))).save(tmp_path / "truth" / "frames" / file.name)
    scores = []
    for words in (
        (place / "truth", whole),
        (tmp_path / "truth", whole, "--label-set", tmp_path / "ls.json"),
        (tmp_path / "truth", whole / "labels", "--label-set", tmp_path / "ls.json"),
    ):
        answer = command("evaluate", *words, "--json", tmp_path / "s.json")
        assert answer.code == 0, answer.err
        assert "warning" not in answer.err
        scores.append(json.loads((tmp_path / "s.json").read_text())["scores"])
    assert scores[0] == scores[1] == scores[2]
    assert command("evaluate", whole, whole, "--json", tmp_path / "s.json").code == 0  # TRUTH is a run itself
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["mIoU"] == 1


def test_other_class_names_are_said(command, place, whole, tmp_path):
    other = {"classes": [{"id": i, "name": name} for i, name in enumerate(["ground", "ball", "box", "late"])]}
    (tmp_path / "ls.json").write_text(json.dumps(other))
    answer = command("evaluate", place / "truth", whole, "--label-set", tmp_path / "ls.json")
    assert answer.code == 0
    assert "matched by position (first difference: 'disc' counts as 'ball')" in answer.err.replace("\n", " ")


@pytest.mark.parametrize("words", [["report"], ["evaluate", "truth"]])
def test_a_folder_of_shards_is_no_run(command, place, whole, tmp_path, words):
    for index in (1, 2):
        (tmp_path / f"shard-{index}-of-2").symlink_to(whole)
    answer = command(*(place / "truth" if word == "truth" else word for word in words), tmp_path)
    assert answer.code == 2
    assert "holds 2 shards (shard-1-of-2, shard-2-of-2), each a run: pass one of them" in answer.message


@pytest.mark.parametrize(
    ("words", "message"), [(["demo"], "the same command starts again"), (["refine", "x", "--out", "y"], "--resume")]
)
def test_an_interruption_names_only_options_that_the_command_has(command, monkeypatch, words, message):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_call", interrupt)
    answer = command(*words)
    assert (answer.code, message in answer.message) == (130, True)
    assert ("--resume" in answer.message) == (words[0] == "refine")


def test_missing_predictions_and_label_sets_are_errors(command, place, tmp_path):
    labels = toy.write_toy_labels(tmp_path / "p" / "frames", 9)
    answer = command("evaluate", place / "truth", labels.parent, "--json", tmp_path / "s.json")
    assert answer.code == 2
    assert answer.message.startswith("MissingPredictionsError: 1 of 10 frames have no prediction")
    assert not (tmp_path / "s.json").exists()
    answer = command("evaluate", labels.parent, labels.parent)
    assert answer.code == 2
    assert "pass --label-set FILE" in answer.message


def test_a_report_can_be_written_again(command, whole):
    answer = command("report", whole)
    assert answer.code == 0
    assert answer.out.strip() == str(whole / "report.html")
    (whole / "report.html").unlink()


def test_the_doctor_answers_in_words_and_as_json(command, tmp_path, monkeypatch):
    use_hub(monkeypatch, CLOSED_PORT, tmp_path / "cache")
    names = {check["name"] for check in json.loads(command("doctor", "--json").out)["checks"]}
    answer = command("doctor")
    assert answer.code == 0
    assert {"python", "torch"} <= names
    assert all(name.split()[0] in answer.out for name in names)


@pytest.mark.parametrize(
    ("words", "parts", "recipe"),
    [([], ("segformer", "sam2"), "FULL"), (["--part", "sam2", "--smoke"], ("sam2",), "SMOKE")],
)
def test_training_is_started_with_what_was_asked_for(command, tmp_path, monkeypatch, words, parts, recipe):
    from sam2vss.training import nano

    calls = []
    monkeypatch.setattr(nano, "train_nano", lambda *arguments, **options: calls.append(arguments))
    answer = command("train", "nano", "--out", tmp_path, "--seed", 7, "--threads", 1, *words)
    assert answer.code == 0
    assert calls == [(tmp_path, parts, getattr(nano, recipe), 7)]


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.mark.dataset
def test_stored_predictions_of_a_real_clip_keep_their_published_scores_without_masklets(command, shared_data, tmp_path):
    camvid = shared_data / "camvid"
    words = ("refine", camvid / "data" / "0016E5_15hz_a", "--out", tmp_path / "run", "--tracker", "none",
             "--labels", shared_data / "camvid_predictions", "--label-set", camvid / "label_set.json",
             "--no-overlay", "--no-report")  # fmt: skip
    assert command(*words).code == 0
    assert info_of(tmp_path / "run")["clips"][0]["frames_written"] == 51
    words = ("evaluate", camvid, tmp_path / "run", "--only", "0016E5_15hz_a", "--json", tmp_path / "s.json")
    assert command(*words).code == 0
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]
    percent = [round(100 * scores[name], 2) for name in ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")]
    assert percent == [50.92, 83.02, 28.22, 92.56, 90.34]  # README of the predictions, computed by other code


@pytest.mark.dataset
def test_a_window_of_a_real_clip_is_refined_by_the_bundled_network(command, shared_data, tmp_path):
    camvid, frames, labels = shared_data / "camvid", tmp_path / "clip", tmp_path / "labels"
    for folder in (frames, labels):
        folder.mkdir()
    for file in sorted((camvid / "data" / "0016E5_15hz_a" / "origin").iterdir())[:3]:
        (frames / file.name).symlink_to(file)
        (labels / f"{file.stem}.png").symlink_to(
            shared_data / "camvid_predictions" / "0016E5_15hz_a" / f"{file.stem}.png"
        )
    words = ("refine", frames, "--out", tmp_path / "run", "--labels", labels, "--label-set", camvid / "label_set.json",
             "--sam2", "nano", "--points", 4, "--pred-iou", 0, "--stability", 0, "--no-report")  # fmt: skip
    assert command(*words).code == 0
    (line,) = (tmp_path / "run" / "windows.jsonl").read_text().splitlines()
    window = json.loads(line)
    assert (window["length"], window["num_masklets"] > 0) == (3, True)
    assert read_maps(tmp_path / "run" / "labels" / "clip").shape == (3, 360, 480)


# --- the command as a process ----------------------------------------------------------------------------------------


def process(*words: object, **environment: str) -> Answer:
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    found = subprocess.run(
        [sys.executable, "-m", "sam2vss", *map(str, words)], capture_output=True, text=True,
        env={**plain, "PYTHONPATH": str(SOURCE), **environment},
    )  # fmt: skip
    return Answer(found.returncode, found.stdout, found.stderr)


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from sam2vss.cli import run; code = run(['--help']); "
        "heavy = {'torch', 'transformers', 'av', 'cv2', 'numpy', 'huggingface_hub', 'pycocotools'}; "
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONPATH": str(SOURCE)})  # fmt: skip
    assert found.stderr.strip() == "0 []"
    for name in ("refine", "evaluate", "demo", "report", "doctor", "train"):
        assert name in found.stdout


@pytest.mark.parametrize(
    "words", [["refine"], ["evaluate"], ["demo"], ["report"], ["doctor"], ["train"], ["train", "nano"]]
)
def test_every_command_explains_itself(command, words):
    answer = command(*words, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: sam2vss {' '.join(words)}")
    if words == ["refine"]:
        for text in ("--pred-iou", "Predicted-IoU threshold", "0.6", "--dry-run", "--min-share", "small-on-top"):
            assert text in answer.out


def test_the_version_is_that_of_the_package(command):
    from importlib.metadata import version

    assert command("--version").out.strip() == version("sam2vss")


def test_a_pipe_gets_no_control_characters_and_a_terminal_without_colour_no_colour(tmp_path):
    words = ("refine", tmp_path / "gone.mp4", "--out", tmp_path / "run")
    plain = process(*words)
    assert (plain.code, plain.out) == (2, "")
    assert plain.message.startswith("MediaError: ")
    assert "\x1b" not in plain.err
    assert "\x1b[1;31m" in process(*words, FORCE_COLOR="1").err
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", process(*words, FORCE_COLOR="1", NO_COLOR="1").err)


def run_into(stdout: object, *words: object) -> tuple[int, str]:
    found = subprocess.run(
        [sys.executable, "-m", "sam2vss", *map(str, words)], stdout=stdout, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    return found.returncode, found.stderr


def test_a_reader_that_left_early_costs_no_file(place, tmp_path):
    read, write = os.pipe()
    os.close(read)
    code, said = run_into(write, *toy_run(place, tmp_path / "run", "--tracker", "none", "--report"))
    assert (code, "BrokenPipe" in said) == (0, False), said
    assert (tmp_path / "run" / "report.html").exists()
    code, said = run_into(write, "evaluate", place / "truth", place / "truth", "--json", tmp_path / "s.json")
    assert (code, said) == (0, "")
    assert (tmp_path / "s.json").exists()
    assert run_into(write, "--help") == (0, "")
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_standard_output_is_said(place):
    with open("/dev/full", "w") as full:
        code, said = run_into(full, "evaluate", place / "truth", place / "truth")
    assert (code, said.strip()) == (2, "RunError: cannot write the standard output: No space left on device")


def test_a_narrow_terminal_shows_everything(place, whole):
    answer = process("evaluate", place / "truth", whole, "--windows", 2, "--per-class", COLUMNS="40")
    assert answer.code == 0, answer.err
    assert max(map(len, answer.out.splitlines())) <= 40
    for word in ("mIoU", "mBIoU", "ground", "late"):
        assert word in answer.out
    assert process("refine", place / "frames", "--out", "x", "--tracker", "none", "--dry-run", COLUMNS="20").code == 0


def test_a_path_that_the_system_refuses_is_named(command, tmp_path):
    answer = command("evaluate", "x" * 300, tmp_path, "--label-set", "vspw")
    assert answer.code == 2
    assert "cannot use " + "x" * 300 in answer.message
