import csv
import io
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from made_up_boards import STATISTICS, ablation_board, bench_board, difference
from sam2vss.boards.scoreboard import BoardRow, Scoreboard
from sam2vss.boards.sections import (
    Entry,
    Section,
    difference_text,
    differences_caption,
    fact_text,
    find_sections,
    setting_text,
    shared_clips,
    signed,
)
from sam2vss.boards.tables import CSV_HEADER, rich_rows, to_csv, to_markdown
from sam2vss.console import print_rows
from sam2vss.metrics import PairedDifference

BENCH, ABLATION, ONE_CLIP = bench_board(), ablation_board(), bench_board(1)
DASH = "\N{EN DASH}"
UNDEFINED = PairedDifference("mIoU", math.nan, None, None, 4, 0)


def small_board(**changes: object) -> Scoreboard:
    """One base model `unet` with a refined row, one score."""
    base = BoardRow("unet", "unet", "base", {"mIoU": 0.5})
    refined = BoardRow("SAM2-unet", "unet", "refined", {"mIoU": 0.512}, "unet", {"mIoU": difference("mIoU", 0.012)})
    board = Scoreboard("small", "bench", "toy", "vspw", 6, 60, ("sky",), (base, refined), statistics=("mIoU",))
    return replace(board, **changes)


def markdown_rows(text: str) -> list[list[str]]:
    """Return the cells of every line of the tables in a text."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


# ---- what stands together


def test_rows_of_a_model_stand_together_base_first_then_controls_then_refined():
    shuffled = replace(BENCH, rows=BENCH.rows[::-1])
    sections = find_sections(shuffled)
    assert [section.title for section in sections] == ["segformer-nano", "cffm-b1"]
    assert [row.kind for row in sections[0].rows] == ["base", "control", "control", "refined"]


def test_an_ablation_stands_by_axes_with_the_base_before_and_loose_points_after():
    loose = replace(ABLATION.row("default"), name="product point")
    sections = find_sections(replace(ABLATION, rows=(*ABLATION.rows, loose)))
    assert [section.title for section in sections] == [
        *("For comparison", "Window length (Table 4)", "Overlaps", "carry", "Other points"),
    ]
    assert [entry.label for entry in sections[1].entries] == ["1", "8", "16", "32"]
    assert [entry.is_default for entry in sections[1].entries] == [False, False, False, True]
    assert [entry.label for entry in sections[3].entries] == ["no", "yes"]
    assert {row.name for section in sections for row in section.rows} == {row.name for row in ABLATION.rows} | {
        "product point"
    }


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.5, 0.6, None), {"1"}),
        ((0.60001, 0.60002, 0.5), {"0", "1"}),  # both are 60.00 in print
        ((0.5, None, None), set()),
        ((0.5, 0.5, 0.5), set()),  # nothing is best where all are equal
        ((0.09, 0.1, 0.02), {"1"}),  # 10.00 against 9.00: as numbers, not as texts
    ],
)
def test_the_best_of_a_group_is_the_best_as_printed(values, best):
    rows = [Entry(str(i), BoardRow(str(i), "m", "base", {"mIoU": value})) for i, value in enumerate(values)]
    assert Section("m", "labels", tuple(rows)).best("mIoU") == best


def test_the_least_flicker_is_best():
    rows = [Entry(str(i), BoardRow(str(i), "m", "base", {"flip_rate": value})) for i, value in enumerate((0.1, 0.02))]
    assert Section("m", "labels", tuple(rows)).best("flip_rate") == {"1"}


# ---- what a cell says


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (difference("mIoU", 0.012), "+1.20 [+0.30, +2.10]"),  # half width 0.005 + 0.012 / 3 = 0.009
        (difference("mIoU", -0.0004), "-0.04 [-0.55, +0.47]"),  # 0.005 + 0.0004 / 3 = 0.00513
        (difference("mIoU", 0.012, clips=1), "+1.20 (1 clip, no interval)"),
        (PairedDifference("mIoU", 0.012, None, None, 3, 0), "+1.20 (3 clips, no interval)"),
        (UNDEFINED, DASH),
        (None, DASH),
    ],
)
def test_a_difference_says_its_interval_or_why_there_is_none(found, text):
    assert difference_text(found) == text


def test_a_difference_can_say_its_clips():
    assert difference_text(difference("mIoU", 0.012), with_clips=True) == "+1.20 [+0.30, +2.10], 6 clips"


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.00"), (-0.00001, "0.00"), (0.00005, "+0.01"), (-0.12, "-12.00")])
def test_a_difference_that_rounds_to_zero_has_no_sign(value, text):
    assert signed(value) == text


def test_times_below_a_tenth_of_a_second_show_three_digits():
    assert [fact_text({"seconds": value}, "seconds") for value in (0.0042, 0.48, 12.0)] == ["0.004", "0.48", "12.00"]
    assert fact_text({"coverage": 0.768, "masklets": 14.6}, "coverage") == "76.8"
    assert fact_text({}, "masklets") == ""


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (False, "no"), (None, "none"), (0.60, "0.6"), (32, "32"), ("exact", "exact")]
)
def test_values_of_settings_read_as_typed(value, text):
    assert setting_text(value) == text


def test_the_caption_names_what_differences_are_against_and_the_clips():
    assert differences_caption(BENCH) == (
        "Differences from the base in percentage points; 95 % intervals of a paired bootstrap over 6 clips"
    )
    assert differences_caption(ABLATION).startswith("Differences from default in percentage points; 95 %")
    assert differences_caption(bench_board(clips=5)).endswith("over 5 clips (so few that they are too narrow)")
    assert differences_caption(ONE_CLIP) == "Differences from the base in percentage points; 1 clip, no interval"


def test_differences_over_other_numbers_of_clips_name_theirs():
    rows = list(BENCH.rows)
    rows[1] = replace(rows[1], differences={"mIoU": difference("mIoU", 0.01, clips=4)})
    mixed = replace(BENCH, rows=tuple(rows))
    assert shared_clips(mixed) is None
    text = to_markdown(mixed)
    assert "+1.00 [+0.17, +1.83], 4 clips" in text
    assert "+3.54 [+1.86, +5.22], 6 clips" in text


# ---- terminal


@pytest.mark.parametrize("board", [BENCH, ABLATION, ONE_CLIP], ids=["bench", "ablation", "one clip"])
def test_tables_fit_into_80_columns_without_breaking_a_cell(board):
    out = Console(width=80, file=io.StringIO(), color_system=None)
    for table in rich_rows(board):
        print_rows(table.rows, table.title, out)
    text = out.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for table in rich_rows(board):
        for row in table.rows:
            assert all(cell.strip() in text for cell in row)


def test_a_wide_terminal_gets_all_differences_in_one_table():
    narrow, wide = rich_rows(BENCH), rich_rows(BENCH, width=200)
    assert [table.rows[0][1:] for table in narrow[1:4]] == [("mIoU", "wIoU"), ("mBIoU", "mVC8"), ("mVC16",)]
    assert wide[1].rows[0] == ("labels", *STATISTICS)
    assert len(wide[1].rows) == 1 + 6  # controls and refined rows; a base has no difference


def test_an_ablation_shows_first_and_last_score_where_not_all_fit():
    *scores, differences = rich_rows(ABLATION)
    assert [table.rows[0][0] for table in scores] == ["labels", "window", "overlap", "carry"]
    assert differences.rows[0] == ("labels", "mIoU", "mVC16")
    assert [row[0] for row in differences.rows[1:4]] == ["window 1", "window 8", "window 16"]
    assert rich_rows(ABLATION, width=200)[-1].rows[0] == ("labels", *STATISTICS)


def test_over_one_clip_the_caption_says_that_there_is_no_interval():
    differences = rich_rows(ONE_CLIP)[1]
    assert differences.title.endswith("1 clip, no interval")
    assert differences.rows[3] == ("SAM2-cffm-b1", "+3.54", "+3.78", "+9.60", "+1.38", "+1.58")
    text = to_markdown(ONE_CLIP)
    assert "percentage points; 1 clip, no interval:\n\n| labels | against |" in text
    assert "| SAM2-cffm-b1 | cffm-b1 | +3.54 | +3.78 |" in text


def test_copied_figures_have_a_line_and_a_dagger():
    scores = rich_rows(BENCH)[0]
    number = [row[0] for row in scores.rows].index("SAM2-cffm-b1")
    assert scores.rows[number + 1] == ("  published†", "40.30", "61.10", "29.30", "89.40", "85.10")
    assert "† copied from arXiv 2512.01774, Table 1" in scores.title


def test_undefined_scores_are_dashes_and_unpublished_ones_stay_empty():
    board = small_board()
    rows = (replace(board.rows[0], scores={"mIoU": None}, published=BENCH.row("cffm-b1").published), board.rows[1])
    table = rich_rows(replace(board, rows=rows, statistics=("mIoU", "STQ")))[0]
    assert table.rows[1:3] == (("unet", DASH, DASH), ("  published†", "38.50", ""))


def test_a_board_without_rows_or_scores_still_has_tables():
    empty = small_board(rows=())
    assert [table.rows for table in rich_rows(empty)] == [(("labels", "mIoU"),)]
    assert to_csv(empty).strip() == ",".join(CSV_HEADER)
    assert "| labels | mIoU ↑ |" in to_markdown(empty)
    assert rich_rows(small_board(statistics=()))[0].rows[1] == ("unet",)


# ---- Markdown


def test_markdown_holds_scores_best_in_bold_difference_and_copied_figures():
    rows = markdown_rows(to_markdown(BENCH))
    heads = rows[0]
    assert heads == ["labels", *(f"{name} ↑" for name in STATISTICS), "masklets", "coverage", "s a frame"]
    number = [row[0] for row in rows].index("SAM2-cffm-b1")
    assert rows[number] == [
        *("SAM2-cffm-b1", "**42.04**", "**63.78**", "**34.30**", "**89.98**", "**85.68**", "14.6", "76.8", "0.48"),
    ]
    assert rows[number + 1][:2] == ["*published†*", "40.30"]
    assert rows[number + 2][:2] == ["*difference*", "+3.54 [+1.86, +5.22]"]


def test_every_row_with_a_difference_is_in_the_table_of_differences():
    rows = markdown_rows(to_markdown(BENCH))
    start = next(i for i, row in enumerate(rows) if row[:2] == ["labels", "against"])
    assert [row[:2] for row in rows[start + 2 :]] == [
        [row.name, row.against] for row in BENCH.rows if row.against is not None
    ]


def test_a_faulty_protocol_prints_its_note_everywhere():
    board = replace(BENCH, protocol="dvis-compat", protocol_note="VC16 pools windows of 8 and 16 frames.")
    assert "**Protocol dvis-compat: VC16 pools windows of 8 and 16 frames.**" in to_markdown(board)


def test_heading_and_commands_of_markdown():
    text = to_markdown(BENCH, heading=2)
    assert text.startswith(
        "## What SAM 2 adds to two models\n\nScored on vspw val, protocol vspw, 6 clips, 195 frames."
    )
    assert "# SAM2-cffm-b1\nsam2vss refine data --labels cffm-b1 --out runs/SAM2-cffm-b1\n" in text
    assert not to_markdown(BENCH).startswith("#")


def test_rows_with_one_command_share_it():
    text = to_markdown(ABLATION)
    assert text.count("# default, window=1, window=8, window=16, overlap=by-share, carry=yes\n") == 1


def test_work_saved_is_a_table_with_ratios():
    rows = markdown_rows(to_markdown(ABLATION))
    assert ["frames encoded", "184", "1288", "7.0x"] in rows
    assert ["object-frames propagated", "5120", "20160", "3.9x"] in rows
    assert DASH in to_markdown(replace(ABLATION, work={"nothing": (0, 5)})).split("| nothing |")[1]


NAMES = st.text(min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(name=NAMES, command=NAMES)
def test_no_name_breaks_a_markdown_table_or_leaves_a_code_block(name, command):
    board = small_board()
    rows = (replace(board.rows[0], name="a", model=name), replace(board.rows[1], name=f"b{name}", command=command))
    text = to_markdown(replace(board, rows=rows, title=name, dataset=name, command=command))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\\\", "").replace("\\|", "").count("|") for line in tables}
    assert widths <= {3, 4}  # scores: name and one score; differences: also `against`
    fences = [line for line in text.splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0


def test_markup_in_names_is_escaped():
    board = small_board(title="a|b <b> [x](y) `c` *d* _e_ f_g")
    assert "# a\\|b \\<b\\> \\[x\\](y) \\`c\\` \\*d\\* \\_e\\_ f_g" in to_markdown(board, heading=1)


# ---- CSV


def test_csv_has_a_line_a_row_and_score_in_full_precision():
    lines = list(csv.DictReader(io.StringIO(to_csv(BENCH))))
    assert len(lines) == sum(len(row.scores) for row in BENCH.rows)
    for line in lines:
        row = BENCH.row(line["row"])
        value = row.scores[line["score"]]
        assert float(line["value"]) == value
        found = row.differences.get(line["score"])
        if found is None:
            assert line["difference"] == line["low"] == line["clips"] == ""
        else:
            assert (float(line["difference"]), int(line["clips"])) == (found.difference, 6)
            assert (float(line["low"]), float(line["high"])) == found.interval
            assert line["against"] == row.model
    refined = next(line for line in lines if line["row"] == "SAM2-cffm-b1" and line["score"] == "mIoU")
    assert (refined["published"], refined["published_source"]) == ("0.403", "arXiv 2512.01774, Table 1")


def test_csv_leaves_undefined_numbers_empty_and_keeps_odd_names():
    board = small_board()
    odd = replace(board.rows[1], name='a,"b"\nc', scores={"mIoU": None}, differences={"mIoU": UNDEFINED})
    lines = list(csv.DictReader(io.StringIO(to_csv(replace(board, rows=(board.rows[0], odd))))))
    assert lines[1]["row"] == 'a,"b"\nc'
    assert (lines[1]["value"], lines[1]["difference"], lines[1]["low"], lines[1]["clips"]) == ("", "", "", "4")


def test_a_row_on_many_axes_is_in_the_csv_once():
    lines = list(csv.DictReader(io.StringIO(to_csv(ABLATION))))
    assert [line["row"] for line in lines if line["score"] == "mIoU"].count("default") == 1


def test_figures_published_for_a_score_that_we_lack_are_kept():
    board = small_board()
    row = replace(board.rows[0], scores={}, published=BENCH.row("cffm-b1").published)
    lines = list(csv.DictReader(io.StringIO(to_csv(replace(board, rows=(row,))))))
    assert next((line["score"], line["value"], line["published"]) for line in lines) == ("mIoU", "", "0.385")


# ---- what fits


def full_boundary_board(clips: int = 6) -> Scoreboard:
    names = (*STATISTICS, "boundary_IoU_2px", "boundary_IoU_2pct", "boundary_F")
    board = bench_board(clips)
    rows = [
        replace(
            row,
            scores={**row.scores, **dict.fromkeys(names[5:], 0.5)},
            differences=row.differences
            and {**row.differences, **{name: difference(name, 0.1234, clips) for name in names[5:]}},
        )
        for row in board.rows
    ]
    return replace(board, statistics=names, rows=tuple(rows))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("clips", [1, 6])
def test_all_boundary_scores_are_cut_by_width_under_short_heads(width, clips):
    board = full_boundary_board(clips)
    tables = rich_rows(board, width)
    out = Console(width=width, file=io.StringIO(), color_system=None)
    for table in tables:
        print_rows(table.rows, None, out)
    text = out.file.getvalue()
    assert all(cell in text for table in tables for row in table.rows for cell in row)  # no cell is folded
    scores = [table for table in tables if table.title == tables[0].title]
    heads = [head for table in scores for head in table.rows[0][1:]]
    assert heads == [*STATISTICS, "BIoU 2px", "BIoU 2%", "F"]
    assert all(any(row[1:]) or not any(row) for table in scores for row in table.rows)  # no empty line of figures
    assert "boundary_IoU_2px" in to_markdown(board)  # files keep the names


def compared_ablation() -> Scoreboard:
    """The default is compared with the base labels, as `ablate` does."""
    default = ABLATION.row("default")
    gains = {name: difference(name, 0.03) for name in STATISTICS}
    compared = replace(default, against="base", differences=gains)
    return replace(ABLATION, rows=tuple(compared if row is default else row for row in ABLATION.rows))


def test_an_ablation_says_what_the_default_gains_over_the_base_labels():
    board = compared_ablation()
    differences = rich_rows(board)[-1]
    assert differences.rows[1][:2] == ("default - base", "+3.00 [+1.50, +4.50]")
    assert [row[0] for row in differences.rows].count("default - base") == 1
    assert differences_caption(board).startswith("Differences from default in percentage points")
    assert ["default - base", *["+3.00 [+1.50, +4.50]"] * 5] in markdown_rows(to_markdown(board))


def test_a_default_on_no_axis_has_no_difference_from_itself():
    board = compared_ablation()
    alone = replace(board, axes=tuple(replace(a, values=a.values[:1], rows=a.rows[:1]) for a in board.axes[:1]))
    assert "settings default" not in [row[0] for row in rich_rows(alone)[-1].rows]
    assert to_markdown(alone).count("+3.00 [+1.50, +4.50]") == 5


def test_copied_figures_of_an_ablation_name_their_source_in_the_terminal():
    rows = (*ABLATION.rows[:1], replace(ABLATION.rows[1], published=BENCH.row("cffm-b1").published), *ABLATION.rows[2:])
    titles = [table.title for table in rich_rows(replace(ABLATION, rows=rows))]
    assert "† copied from arXiv 2512.01774, Table 1" in titles[1]


def test_a_note_that_names_its_protocol_is_not_given_the_name_twice():
    note = "Protocol dvis-compat repeats a mistake."
    assert f"**{note}**" in to_markdown(replace(BENCH, protocol="dvis-compat", protocol_note=note))
