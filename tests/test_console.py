"""What the command line shows: bars that follow the frames, tables that survive odd names."""

import io

import pytest
from rich.console import Console

from sam2vss import console
from sam2vss.console import RunBars, print_error, print_problem, print_rows, print_summary
from sam2vss.pipeline import RunSummary


@pytest.fixture
def bars(monkeypatch) -> RunBars:
    monkeypatch.setattr(console, "stderr", Console(file=io.StringIO(), width=80))
    return RunBars()


def done(bars: RunBars, index: int = 0) -> tuple[float, float | None]:
    task = bars._progress.tasks[index]
    return task.completed, task.total


def test_a_bar_moves_with_tracked_frames_and_settles_with_finished_ones(bars):
    bars.clip_started("a", 5)
    for expected in (1, 2, 3):
        bars.tracked_frame()
        assert done(bars) == (expected, 5)
    bars.frames_done("a", 3)
    assert done(bars) == (3, 5)
    bars.tracked_frame()
    assert done(bars) == (4, 5)
    bars.frames_done("a", 4)
    bars.clip_finished("a")
    assert done(bars) == (4, 4)  # the clip was shorter than it said
    bars.clip_started("b [/x]", None)
    bars.tracked_frame()
    assert done(bars, 1) == (1, None)
    with bars:
        pass
    assert "b [/x]" in console.stderr.file.getvalue()


def test_tables_show_names_as_they_are():
    target = Console(file=io.StringIO(), width=60)
    print_rows([["[/head]", "n"], ["[bold]x[/bold]", "1"], ["[/]", "2"]], "title [/t]", target)
    shown = target.file.getvalue()
    for text in ("[/head]", "[bold]x[/bold]", "[/]", "title [/t]"):
        assert text in shown


def test_messages_show_names_as_they_are(capsys):
    print_problem("clip [/a] broke")
    print_error("MediaError", "no file [/b] " + "x" * 200)
    err = capsys.readouterr().err
    assert "clip [/a] broke\n" in err
    assert "MediaError: no file [/b] " + "x" * 200 in err  # not wrapped, so that it can be searched and copied


def test_the_summary_says_what_was_there_before_and_the_time_of_a_new_frame(capsys):
    print_summary(RunSummary(clips=2, frames=10, resumed_frames=6, windows=3, masklets=7, coverage=0.5), 2.0)
    shown = capsys.readouterr().out
    assert "10 (6 before)" in shown
    assert "50.0 %" in shown
    assert "2.0 s (0.50 s a frame)" in shown  # 2 s for 4 new frames
    print_summary(RunSummary(frames=6, resumed_frames=6), 2.0)
    assert "2.0 s │" in capsys.readouterr().out


def test_the_summary_names_the_clips_with_most_void(capsys):
    print_summary(RunSummary(void_shares={"a": 0.0}), 1.0)
    assert "void" not in capsys.readouterr().out
    print_summary(RunSummary(void_shares={"a": 0.125}), 1.0)
    assert "base labels that are void" in (shown := capsys.readouterr().out)
    assert "12.50 %" in shown
    shares = {f"clip {i}": i / 100 for i in range(11)}
    print_summary(RunSummary(void_shares=shares), 1.0)
    shown = capsys.readouterr().out
    assert "mean of clips" in shown
    assert "5.00 %" in shown
    assert shown.index("clip 10") < shown.index("clip 3")
    assert "clip 2 " not in shown  # the worst eight
    assert "2 more clips in run.json" in shown
    assert "up to 2.00 %" in shown
    print_summary(RunSummary(void_shares={"a": 1e-7}), 1.0)
    assert "less than 0.01 %" in capsys.readouterr().out
    print_summary(RunSummary(void_shares={"a": 1.0}, void_left={"a": 0.0}), 1.0, "classified", has_base=False)
    assert "void" not in capsys.readouterr().out


def test_the_summary_says_how_much_void_is_left(capsys):
    print_summary(RunSummary(void_shares={"a": 0.5}, void_left={"a": 0.0}), 1.0)
    assert "50.00 %, none left" in capsys.readouterr().out
    shares = {"first": 0.5, "second": 0.25, "third": 0.0}
    print_summary(RunSummary(void_shares=shares, void_left={"first": 0.25, "second": 0.0, "third": 0.0}), 1.0)
    shown = capsys.readouterr().out
    assert "25.00 %, left 8.33 %" in shown  # means
    assert "50.00 %, left 25.00 %" in shown
    assert "25.00 %, none left" in shown
    print_summary(RunSummary(void_shares=shares, void_left={"first": 0.25}), 1.0)  # resumed from before it was noted
    shown = capsys.readouterr().out
    assert "mean of clips │ 25.00 % │" in " ".join(shown.split())
    print_summary(RunSummary(void_shares={"a": 1.0}, void_left={"a": 0.125}), 1.0, "classified", has_base=False)
    assert "labels that are void, classified │ 12.50 % │" in " ".join(capsys.readouterr().out.split())


def test_the_summary_without_base_labels_compares_with_none(capsys):
    print_summary(RunSummary(frames=6, flip_base=0.25, flip_refined=0.125), 2.0, "classified", has_base=False)
    shown = capsys.readouterr().out
    assert "frames classified" in shown
    assert "labels that flip a frame, classified" in shown
    assert "12.50 %" in shown
    assert "base" not in shown
    assert "refined" not in shown
