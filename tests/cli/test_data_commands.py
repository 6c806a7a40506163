"""`sam2vss evaluate` for several sets, `sam2vss check-data` and `sam2vss synthetic`, through the real command."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sam2vss import cli
from sam2vss.cli.evaluate import evaluate
from sam2vss.datasets.catalogue import find_dataset
from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, render_clip

FRAME = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams without the breaks of lines."""
        return " ".join((self.out + self.err).split())


Command = Callable[..., Answer]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


def write(path: Path, ids: np.ndarray = FRAME) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of two videos in `set`, perfect predictions in `one/labels` and worse ones in `two/labels`."""
    for video in ("a", "b"):
        for t in range(3):
            name = f"{video}/{t:04d}.png"
            write(tmp_path / "set" / "data" / video / "mask" / f"{t:04d}.png")
            write(tmp_path / "one" / "maps" / name)
            write(tmp_path / "two" / "maps" / name, np.where(FRAME == 1, 0, FRAME) if video == "a" else FRAME)
    classes = [{"id": i, "name": name, "color": [10 + i, 0, 0]} for i, name in enumerate("xyz")]
    (tmp_path / "set" / "label_set.json").write_text(json.dumps({"name": "set", "classes": classes}))
    (tmp_path / "set" / "val.txt").write_text("a\n")
    return tmp_path


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_several_sets_get_a_row_each_and_their_differences_an_interval(command: Command, root: Path):
    json_file = root / "s.json"
    answer = command("evaluate", root / "set", root / "one" / "maps", root / "two" / "maps", "--json", json_file)
    assert (answer.code, answer.err) == (0, "warning 2 clips are few: intervals over so few clips are too narrow\n")
    # set: class 0 IoU 12/(12+6), class 1 6/12, class 2 1 -> mean 13/18; accuracy 24/30
    for word in ("two/maps - one/maps", "100.00", "72.22", "-27.78", "95 % from, 2 clips", "95 % to"):
        assert word in answer.text, word
    content = json.loads(json_file.read_text())
    assert (content["name"], content["scores"]["mIoU"], list(content["compared"])) == ("one/maps", 1, ["two/maps"])
    found = content["compared"]["two/maps"]["difference"]["mIoU"]
    assert found["difference"] == pytest.approx(13 / 18 - 1)
    # clip a alone: class 0 6/(6+6), class 1 0, class 2 1 -> 1/2; clip b alone: 1
    assert (found["interval"], found["clips"], found["resamples"]) == ([-0.5, 0.0], 2, 2000)


def test_one_clip_says_that_there_is_no_interval(command: Command, root: Path):
    answer = command("evaluate", root / "set", root / "one" / "maps", root / "two" / "maps", "--split", "val")
    assert answer.code == 0
    assert "1 clip, no interval" in answer.out
    assert "-50.00" in answer.out


@pytest.mark.parametrize("columns", [40, 80])
def test_tables_of_several_sets_fit_the_terminal(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch, columns: int
):
    from sam2vss.console import stdout

    monkeypatch.setattr(stdout, "_width", columns)
    answer = command("evaluate", root / "set", root / "one/maps", root / "two/maps", "--boundary", "full", "--curve")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= columns
    for word in ("mBIoU", "mVC16", "-27.78", "BIoU 2 %", "interior", "mean"):
        assert word in answer.out, word


def test_a_faulty_protocol_is_said_with_its_scores(command: Command, root: Path):
    answer = command("evaluate", root / "set", root / "one" / "maps", "--protocol", "dvis-compat")
    assert answer.code == 0
    assert "warning Protocol dvis-compat repeats a mistake" in answer.text


def test_colour_coded_predictions_need_their_option(command: Command, root: Path):
    palette = np.array([[10, 0, 0], [11, 0, 0], [12, 0, 0], *[[0, 0, 0]] * 253], np.uint8)
    for path in (root / "one" / "maps").rglob("*.png"):
        write(path, palette[FRAME])
    answer = command("evaluate", root / "set", root / "one" / "maps")
    assert answer.code == 2
    assert "0000.png is a RGB picture" in answer.text
    assert "--colors" in answer.text
    answer = command("evaluate", root / "set", root / "one" / "maps", "--colors", "--json", root / "s.json")
    assert json.loads((root / "s.json").read_text())["scores"]["mIoU"] == 1


def test_the_options_for_predictions_reach_the_reader(command: Command, root: Path):
    for path in (root / "one" / "maps").rglob("*.png"):
        write(path, np.where(FRAME == 255, 255, np.minimum(FRAME, 3) + 1).repeat(2, axis=0).astype(np.uint8))
    (root / "one" / "maps" / "b" / "0001.png").unlink()
    words = ["evaluate", root / "set", root / "one" / "maps", "--json", root / "s.json"]
    for option, message in (
        (["--missing", "void"], "--missing void"), (["--resize-predictions"], "--resize-predictions"),
        (["--id-offset", "-1"], "--id-offset=-1"),
    ):  # fmt: skip
        answer = command(*words)
        assert answer.code == 2
        assert message in answer.text
        words += option
    answer = command(*words)
    assert answer.code == 0, answer.err
    assert "5 predictions were resized" in answer.text
    assert "1 frames have no prediction and count as wrong" in answer.text
    assert json.loads((root / "s.json").read_text())["scores"]["pixel_accuracy"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bootstrap", "0"], "--bootstrap must be 1 to 100000, found 0"),
        (["--bootstrap", "999999999999"], "--bootstrap must be 1 to 100000, found 999999999999"),
        (["--split", "test"], "test.txt does not exist; it has val"),
        (["--label-set", "ade"], "there is no label set ade"),
        (["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(command: Command, root: Path, words: list[str], message: str):
    answer = command("evaluate", root / "set", root / "one" / "maps", *words)
    assert answer.code == 2
    assert message in answer.text


@pytest.mark.parametrize("name", ["evaluate", "stability", "evaluate-panoptic"])
def test_scores_are_shown_even_where_their_file_cannot_be_written(command: Command, root: Path, name: str):
    (root / "scores").mkdir()
    label_set = root / "set" / "label_set.json"
    content = json.loads(label_set.read_text())
    for entry in content["classes"]:
        entry["kind"] = "stuff"
    label_set.write_text(json.dumps(content))
    for t in range(3):  # 255 is void for the one and no panoptic code for the other
        for video in ("a", "b"):
            write(root / "set" / "data" / video / "mask" / f"{t:04d}.png", FRAME % 3)
            write(root / "one" / "maps" / video / f"{t:04d}.png", FRAME % 3)
    words = {
        "evaluate": (root / "set", root / "one" / "maps"),
        "stability": (root / "one" / "maps", "--flow", "none", "--label-set", label_set),
        "evaluate-panoptic": (root / "set" / "data", root / "one" / "maps", "--label-set", label_set),
    }[name]
    answer = command(name, *words, "--json", root / "scores")
    assert answer.code == 2
    assert "scores: what has that name is no ordinary file" in answer.err
    assert "maps" in answer.out
    assert "percent" in answer.out


def test_scores_are_kept_in_their_file_even_where_they_cannot_be_shown(root: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sam2vss.console.print_rows", fail)
    with pytest.raises(OSError, match="No space left"):
        evaluate(root / "set", root / "one" / "maps", json_file=root / "s.json")
    assert json.loads((root / "s.json").read_text())["frames"] == 6


def test_a_link_in_a_circle_is_refused(command: Command, root: Path):
    (root / "loop").symlink_to("loop")
    answer = command("evaluate", root / "set", root / "loop")
    assert answer.code == 2
    assert "loop is a link that leads nowhere: mend it" in answer.text


def test_a_set_cannot_be_compared_with_itself(command: Command, root: Path):
    answer = command("evaluate", root / "set", root / "one/maps", root / "two/maps", root / "one" / ".." / "one/maps")
    assert answer.code == 2
    assert "was given twice; name every set of predictions once" in answer.text


def test_built_in_label_sets_are_taken_by_name_and_by_the_data_set(command: Command, tmp_path: Path):
    root = tmp_path / "VSPW_480p"
    write(root / "data" / "1_a" / "mask" / "1.png", np.array([[0, 1, 61, 255]], np.uint8))
    write(tmp_path / "p" / "1_a" / "1.png", np.array([[9, 1, 61, 9]], np.uint8))
    for words in ([], ["--label-set", "vspw"]):
        answer = command("evaluate", root, tmp_path / "p", *words, "--json", tmp_path / "s.json")
        assert answer.code == 0, answer.err
        content = json.loads((tmp_path / "s.json").read_text())
        assert (content["scores"]["mIoU"], content["per_class"]["person"]["pixels"]) == (1, 1)


def test_the_time_left_is_shown_on_a_terminal_and_nothing_elsewhere(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("evaluate", root / "set", root / "one" / "maps")
    assert command(*words).err == ""
    shown = io.StringIO()
    monkeypatch.setattr("sam2vss.console.stderr", Console(file=shown, force_terminal=True, width=80))
    assert command(*words).code == 0
    assert "maps" in shown.getvalue()
    assert "left" in shown.getvalue()


# --- check-data ------------------------------------------------------------------------------------------------------


def test_a_sound_data_set_is_ready_to_use(command: Command, root: Path):
    (root / "set" / "train.txt").write_text("b\n")
    answer = command("check-data", root / "set", "--deep")
    assert (answer.code, answer.err) == (0, "")
    assert "split val" in answer.out
    assert answer.out.endswith("ready to use\n")


def test_findings_are_a_table_and_errors_an_exit_code(command: Command, root: Path):
    (root / "set" / "data" / "a" / "mask" / "0001.png").write_bytes(b"")
    answer = command("check-data", root / "set")
    assert answer.code == 2
    assert "0001.png" in answer.out
    assert "(0 bytes)" in answer.text
    answer = command("check-data", root / "nowhere")
    assert answer.code == 2
    assert "does not exist" in answer.err


# --- synthetic -------------------------------------------------------------------------------------------------------


def test_synthetic_clips_are_written_as_a_data_set(command: Command, tmp_path: Path):
    out = tmp_path / "syn"
    answer = command("synthetic", "--out", out, "--clips", 2, "--frames", 2, "--size", "60x80", "--predictions")
    assert answer.code == 0, answer.err
    found = find_dataset(out)
    assert found.splits == {"test": (f"synthetic_{TEST_SEEDS[0]:06d}", f"synthetic_{TEST_SEEDS[1]:06d}")}
    assert set(found.frame_rates.values()) == {15.0}
    mask = found.videos("test", needs_masks=True)[f"synthetic_{TEST_SEEDS[1]:06d}"].masks
    assert mask is not None
    truth = np.asarray(Image.open(mask / "00000001.png"))
    assert np.array_equal(truth, render_clip(TEST_SEEDS[1], 2, (60, 80)).labels[1])
    assert command("check-data", out, "--deep").code == 0  # predictions and all, the folder stays a data set
    answer = command("evaluate", out, out / "predictions" / "segformer-nano", "--json", tmp_path / "s.json")
    assert (answer.code, answer.err) == (0, "")
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["frames"] == 4
    assert 0.2 < content["scores"]["mIoU"] < 1
    assert list(content["per_class"]) == list(LABEL_SPACE.names)


def test_seeds_can_be_passed_over(command: Command, tmp_path: Path):
    words = ("synthetic", "--frames", 1, "--size", "40x60")
    assert command(*words, "--out", tmp_path / "syn", "--first", 3, "--clips", 2).code == 0
    assert find_dataset(tmp_path / "syn").splits == {"test": tuple(f"synthetic_{seed:06d}" for seed in TEST_SEEDS[3:5])}
    count = len(TEST_SEEDS)
    last = command(*words, "--out", tmp_path / "last", "--first", count - 1, "--clips", 1)
    assert last.code == 0
    assert find_dataset(tmp_path / "last").splits == {"test": (f"synthetic_{TEST_SEEDS[-1]:06d}",)}
    for first in (count - 1, -1):
        answer = command(*words, "--out", tmp_path / "none", "--first", first, "--clips", 2)
        assert answer.code == 2
        assert f"--first {first} is out of range: split test has {count} clips, 2 are asked" in answer.text
    assert not (tmp_path / "none").exists()


def test_a_folder_in_use_is_kept(command: Command, tmp_path: Path):
    words = ("synthetic", "--clips", 1, "--frames", 1, "--size", "40x60", "--out")
    out, other = tmp_path / "syn", tmp_path / "other"
    assert command(*words, out).code == 0
    answer = command(*words, out)
    assert answer.code == 2
    assert "already holds a synthetic data set: replace it with --overwrite" in answer.text
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    (out / "notes.txt").write_text("years of work")
    for folder in (other, out):
        answer = command(*words, folder, "--overwrite")
        assert answer.code == 2
        assert "holds something else than a synthetic data set, which stays" in answer.text
    (out / "notes.txt").unlink()
    assert command(*words, out, "--overwrite", "--split", "train").code == 0
    assert find_dataset(out).splits == {"train": ("synthetic_000000",)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "syn"]  # nothing is left behind


def test_a_link_to_an_empty_folder_stays_and_the_folder_is_filled(command: Command, tmp_path: Path):
    words = ("synthetic", "--clips", 1, "--frames", 1, "--size", "40x60", "--out")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert command(*words, tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert len(find_dataset(tmp_path / "real").folders) == 1
    (tmp_path / "loop").symlink_to("loop")
    answer = command(*words, tmp_path / "loop")
    assert answer.code == 2
    assert "loop is a link that leads nowhere" in answer.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "loop", "real"]


def test_the_old_data_set_comes_back_when_the_new_one_cannot_take_its_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("synthetic", "--clips", 1, "--frames", 1, "--size", "40x60", "--out", tmp_path / "syn")
    assert command(*words).code == 0
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if (self / "label_set.json").exists() and ".old." not in self.name and target == tmp_path / "syn":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    answer = command(*words, "--overwrite")
    assert answer.code == 2
    assert find_dataset(tmp_path / "syn").splits == {"test": (f"synthetic_{TEST_SEEDS[0]:06d}",)}
    assert [path.name for path in tmp_path.iterdir()] == ["syn"]


def test_an_interrupted_export_leaves_nothing(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sam2vss.datasets.synthetic.render_clip", fail)
    assert command("synthetic", "--out", tmp_path / "syn", "--clips", 1, "--frames", 1).code == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips", "101"], "--clips 101 is out of range: split test has 1 to 100 clips"),
        (["--clips", "0"], "--clips 0 is out of range"),
        (["--frames", "0"], "--frames must be at least 1, found 0"),
        (["--size", "240"], "--size 240 is not of the form HEIGHTxWIDTH"),
    ],
)
def test_impossible_clips_are_refused(command: Command, tmp_path: Path, words: list[str], message: str):
    answer = command("synthetic", "--out", tmp_path / "syn", *words)
    assert answer.code == 2
    assert message in answer.text
    assert not (tmp_path / "syn").exists()
