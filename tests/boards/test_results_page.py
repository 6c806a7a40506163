import json

import pytest

from made_up_boards import ablation_board, bench_board
from sam2vss import cli
from sam2vss.boards.results_page import NOTE, join_results, summary_of, write_results
from sam2vss.boards.tables import to_markdown
from sam2vss.boards.writing import write_board_files
from sam2vss.errors import RunError, SettingsError


@pytest.fixture
def parts(tmp_path):
    (tmp_path / "00-head.md").write_text("# Results\n\nAs measured.\n\n\n", encoding="utf-8")
    (tmp_path / "10-bench.json").write_text(json.dumps(bench_board().to_json()), encoding="utf-8")
    (tmp_path / "20-reading.md").write_text("Reading: edges gain most.\n", encoding="utf-8")
    return sorted(tmp_path.iterdir())


def test_texts_stand_word_for_word_and_boards_as_their_tables_in_the_order_given(parts):
    page = join_results(parts)
    tables = to_markdown(bench_board()).strip()
    head, bench, reading = (page.index(text) for text in ("As measured.", tables, "Reading"))
    assert head < bench < reading
    assert page.startswith(f"# Results\n\n{NOTE}\n\nAs measured.\n\n")
    assert page.endswith("Reading: edges gain most.\n")


def test_a_page_is_the_same_without_classes_clips_and_pictures():
    for board in (bench_board(), ablation_board()):
        summary = summary_of(board)
        assert to_markdown(summary) == to_markdown(board)
        assert len(json.dumps(summary.to_json())) < len(json.dumps(board.to_json())) / 2


def test_the_page_is_written(parts, tmp_path):
    write_results(parts, tmp_path / "results.md")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == join_results(parts)


def test_parts_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"no parts were given: pass \.md texts and \.json files"):
        join_results([])
    with pytest.raises(RunError, match=r"cannot read .*absent\.md"):
        join_results([tmp_path / "absent.md"])
    with pytest.raises(RunError, match=r"table\.csv is neither a text \(\.md\) nor stored scores \(\.json\)"):
        join_results([tmp_path / "table.csv"])


def test_the_command_writes_the_page(parts, tmp_path, capsys):
    out = tmp_path / "results.md"
    assert cli.run(["report", *map(str, parts), "--markdown", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == join_results(parts)
    assert capsys.readouterr().out == f"{out}\n"


def test_the_command_makes_the_files_of_a_bench_again(tmp_path, capsys):
    write_board_files(bench_board(), tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    (tmp_path / "bench.csv").unlink()
    assert cli.run(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_bytes() == before
    assert (tmp_path / "bench.csv").exists()
