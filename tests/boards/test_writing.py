import json
from dataclasses import replace

import pytest

from made_up_boards import ablation_board, bench_board
from sam2vss.boards.scoreboard import Axis, Scoreboard
from sam2vss.boards.writing import find_board_file, is_board_folder, rewrite_board_files, write_board_files
from sam2vss.errors import MediaError, RunError

BENCH = bench_board()
SMALL = replace(BENCH, rows=tuple(replace(row, per_class={}) for row in BENCH.rows[:4]), statistics=("mIoU",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_board_files(SMALL, folder)
    return folder


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gets_the_board_its_tables_plots_and_page(folder):
    names = set(files_of(folder))
    assert {"bench.json", "bench.csv", "bench.tex", "bench.md", "report.html"} <= names
    assert {"plots/gains.svg", "plots/gains.png", "plots/clips-SAM2-cffm-b1.svg"} <= names
    assert not [name for name in names if ".part" in name]
    assert Scoreboard.read(folder / "bench.json").to_json() == json.loads(json.dumps(SMALL.to_json()))


def test_everything_comes_again_from_the_stored_board_byte_for_byte(folder):
    before = files_of(folder)
    for name in before:
        if name != "bench.json":
            (folder / name).unlink()
    paths = rewrite_board_files(folder)
    assert files_of(folder) == before
    assert sorted(paths) == sorted(folder / name for name in before)


def test_plots_of_an_earlier_board_go_and_other_files_stay(tmp_path):
    (tmp_path / "plots").mkdir()
    for name in ("notes.txt", "clips-SAM2-other.png", "clips-SAM2-other.svg"):
        (tmp_path / "plots" / name).write_text("mine")
    lean = [replace(row, per_clip={}, scores={"mIoU": 0.5}) for row in SMALL.rows]
    write_board_files(replace(SMALL, rows=tuple(lean)), tmp_path)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"notes.txt", "gains.png", "gains.svg"}


def test_an_ablation_lies_under_its_own_name(tmp_path):
    assert not is_board_folder(tmp_path)
    write_board_files(replace(ablation_board(), axes=(), rows=()), tmp_path)
    assert find_board_file(tmp_path) == tmp_path / "ablate.json"
    assert is_board_folder(tmp_path)


def test_a_folder_without_a_board_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds neither bench.json nor ablate.json; pass the --out folder of `bench`"):
        rewrite_board_files(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": (Axis("window", (1,), ("gone",)),)}, "axis 'window' names the row 'gone', which the board does not"),
        ({"axes": (Axis("window", (1, 2), ("cffm-b1",)),)}, "axis 'window' has 2 values and 1 rows"),
        ({"rows": (*SMALL.rows, SMALL.rows[0])}, "two rows named 'cffm-b1'"),
    ],
)
def test_a_board_that_contradicts_itself_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(RunError, match=message):
        write_board_files(replace(SMALL, **changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MediaError, match="cannot write"):
        write_board_files(replace(SMALL, rows=()), tmp_path / "file")


@pytest.mark.parametrize(("name", "kind"), [("plan.json", "bench"), ("sweep.json", "ablate")])
def test_report_says_how_to_go_on_with_what_has_no_scores_yet(tmp_path, capsys, name, kind):
    from sam2vss.cli import run

    (tmp_path / name).write_text("{}")
    assert run(["report", str(tmp_path)]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"holds an unfinished {kind} without scores: go on with `sam2vss {kind}` and --resume" in message
