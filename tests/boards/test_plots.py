import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import matplotlib.colors
import matplotlib.style
import numpy as np
import pytest
from PIL import Image

from made_up_boards import BASES, STATISTICS, ablation_board, bench_board, difference
from sam2vss.boards.plots import compared_rows, gains_by_key, render_plots, write_plots
from sam2vss.boards.plots.curves import draw_axis, draw_vc_curves
from sam2vss.boards.plots.gains import draw_gains
from sam2vss.boards.plots.pairs import choose_ends, draw_classes, draw_clips
from sam2vss.boards.plots.style import COLORS, STYLE, shortened
from sam2vss.boards.sections import find_sections

BENCH, ABLATION = bench_board(), ablation_board()
BASE, REFINED = BENCH.row("cffm-b1"), BENCH.row("SAM2-cffm-b1")
SMALL = replace(BENCH, rows=(BASE, REFINED), statistics=("mIoU",))
LEAN = tuple(replace(row, per_class={}, per_clip={}, scores={"mIoU": 0.5}) for row in SMALL.rows)  # gains alone
HOSTILE = "<script>$x$</script>&\"'"


LEFT = "left"  # titles stand there in our style


@pytest.fixture(scope="module", autouse=True)
def style():
    with matplotlib.style.context([dict(STYLE)], after_reset=True):
        yield


@pytest.fixture
def without_bytes(monkeypatch):
    """Draw, but save nothing: saving takes most of the time."""
    monkeypatch.setattr("sam2vss.boards.plots.render._saved", lambda figure, form: b"")


@pytest.fixture(scope="module")
def small_plots():
    return render_plots(SMALL)


# ---- files


def test_every_plot_lies_there_as_png_and_svg_with_text_as_text(tmp_path, monkeypatch, small_plots):
    monkeypatch.setattr("sam2vss.boards.plots.render.render_plots", lambda board: small_plots)
    paths = write_plots(SMALL, tmp_path)
    names = {"gains", "classes-SAM2-cffm-b1", "clips-SAM2-cffm-b1", "vc-curve"}
    assert {path.name for path in paths} == {f"{name}.{form}" for name in names for form in ("svg", "png")}
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    with Image.open(tmp_path / "gains.png") as image:
        assert image.width == 1080  # 7.2 inches at 150 dots
    svg = (tmp_path / "classes-SAM2-cffm-b1.svg").read_text(encoding="utf-8")
    assert ">traffic light</text>" in svg
    assert ">bicycle</text>" not in svg  # it has no IoU


def test_the_same_board_gives_the_same_bytes(small_plots):
    assert render_plots(SMALL) == small_plots
    assert b"Date" not in small_plots[0].svg
    assert b"Matplotlib" not in small_plots[0].svg + small_plots[0].png


def test_global_settings_of_matplotlib_neither_change_nor_matter():
    before = dict(matplotlib.rcParams)
    lean = render_plots(replace(SMALL, rows=LEAN))[0].svg
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path"}):
        strange = dict(matplotlib.rcParams)
        assert render_plots(replace(SMALL, rows=LEAN))[0].svg == lean
        assert dict(matplotlib.rcParams) == strange
    assert dict(matplotlib.rcParams) == before


def test_hostile_and_foreign_names_stay_text():
    row = replace(REFINED, name=HOSTILE, per_class={"天空 $a_b$": {"IoU": 0.5}})
    board = replace(SMALL, rows=(replace(BASE, per_class={"天空 $a_b$": {"IoU": 0.4}}), row))
    plots = render_plots(board, with_png=False)  # a missing glyph is a warning, and warnings are errors here
    for plot in plots:
        assert re.fullmatch(r"[\w().&$'-]+", plot.name), plot.name
        root = ElementTree.fromstring(plot.svg)
        assert not [element for element in root.iter() if element.tag.endswith("script")]
    texts = " ".join(element.text or "" for plot in plots for element in ElementTree.fromstring(plot.svg).iter())
    assert "天空 $a_b$" in texts
    assert HOSTILE in texts


def test_names_that_only_a_file_system_confuses_get_plots_of_their_own(without_bytes):
    rows = (BASE, replace(REFINED, name="a/b"), replace(REFINED, name="a_b"))
    names = [plot.name for plot in render_plots(replace(SMALL, rows=rows))]
    assert len(set(names)) == len(names)
    assert {"classes-a_b", "classes-a_b-2"} <= set(names)


def test_a_board_gets_only_the_plots_it_has_data_for(without_bytes):
    one_clip = render_plots(bench_board(1))
    assert {plot.section for plot in one_clip} == {"gains", "classes", "curve"}  # a single clip is no scatter
    bare = [replace(row, per_class={}, per_clip={}, scores={"mIoU": 0.5}, differences={}) for row in SMALL.rows]
    assert render_plots(replace(SMALL, rows=tuple(bare))) == ()
    assert render_plots(replace(SMALL, rows=())) == ()
    assert render_plots(replace(SMALL, statistics=(), rows=(BASE,))) != ()  # the curve needs no statistic


def test_two_windows_of_vc_are_no_curve(without_bytes):
    rows = [replace(row, scores={name: row.scores[name] for name in STATISTICS}) for row in SMALL.rows]
    assert "curve" not in {plot.section for plot in render_plots(replace(SMALL, rows=tuple(rows)))}


# ---- gains


def test_whiskers_span_the_interval_and_hollow_marks_may_be_zero():
    figure = draw_gains(BENCH, ("mIoU", "mVC16"))
    panel = figure.axes[0]
    assert panel.get_title(LEFT) == "mIoU"
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        *("static-cffm-b1", "superpixel-cffm-b1", "SAM2-cffm-b1"),
        *("static-segformer-nano", "superpixel-segformer-nano", "SAM2-segformer-nano"),
    ]
    bottom, top = panel.get_ylim()
    assert bottom > top  # the first row is on top
    lines = [line for line in panel.lines if line.get_marker() == "None"][1:]  # the first is the zero line
    assert lines[2].get_xdata() == pytest.approx([1.86, 5.22])  # 3.54 -+ (0.5 + 3.54 / 3)
    dots = [line for line in panel.lines if line.get_marker() != "None"]
    assert dots[2].get_xdata() == pytest.approx([3.54])
    assert dots[2].get_markerfacecolor() == COLORS["refined"]
    assert dots[0].get_markerfacecolor() == "white"  # static: -0.03 [-0.54, +0.48]


def test_a_difference_without_interval_is_a_hollow_mark_alone():
    panel = draw_gains(bench_board(1), ("mIoU",)).axes[0]
    assert len(panel.lines) == 1 + 6
    assert {line.get_markerfacecolor() for line in panel.lines[1:]} == {"white"}


# ---- classes and clips


def test_class_bars_are_sorted_by_gain():
    panel = draw_classes(BASE, REFINED).axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    pairs = gains_by_key(BASE.per_class, REFINED.per_class, "IoU")
    gains = [pairs[name][1] - pairs[name][0] for name in names]
    assert gains == sorted(gains, reverse=True)
    assert "bicycle" not in names
    widths = [bar.get_width() for bar in panel.patches]
    assert widths == pytest.approx(
        [100 * pair[0] for pair in pairs.values()] + [100 * pair[1] for pair in pairs.values()]
    )


def test_of_many_classes_the_ends_are_shown_and_the_rest_counted():
    base = replace(BASE, per_class={f"c{i}": {"IoU": 0.5} for i in range(40)})
    refined = replace(REFINED, per_class={f"c{i}": {"IoU": 0.3 + 0.01 * i} for i in range(40)})
    panel = draw_classes(base, refined).axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == [f"c{i}" for i in (*range(39, 24, -1), *range(14, -1, -1))]
    assert "10 classes between are not shown" in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(
    ("number", "limit", "kept", "left"),
    [(3, 30, [0, 1, 2], 0), (5, 4, [0, 1, 3, 4], 1), (5, 3, [0, 3, 4], 2), (0, 4, [], 0)],
)
def test_ends_of_a_list(number, limit, kept, left):
    assert choose_ends([str(i) for i in range(number)], limit) == ([str(i) for i in kept], left)


def test_clips_lie_at_base_and_refined_score_with_gain_and_frames():
    figure = draw_clips(BASE, REFINED)
    panel = figure.axes[0]
    dots = next(found for found in panel.collections if len(found.get_offsets()) == 6)
    pairs = gains_by_key(BASE.per_clip, REFINED.per_clip, "mIoU")
    assert np.asarray(dots.get_offsets()) == pytest.approx(100 * np.array(list(pairs.values())))
    assert np.asarray(dots.get_array()) == pytest.approx([100 * (after - before) for before, after in pairs.values()])
    frames = [REFINED.per_clip[clip]["frames"] for clip in pairs]
    assert list(np.argsort(dots.get_sizes())) == list(np.argsort(frames))
    texts = [text.get_text() for text in panel.texts]
    assert [text.split()[0] for text in texts] == [next(iter(pairs)), list(pairs)[-1]]
    assert panel.get_xlim() == panel.get_ylim()


def test_clips_that_do_not_change_are_drawn_all_the_same():
    same = replace(REFINED, per_clip=BASE.per_clip)
    assert draw_clips(BASE, same).axes[0].get_title(LEFT).startswith("0 of 6 clips gain")


def test_controls_are_compared_where_a_model_has_no_refined_row():
    without = replace(BENCH, rows=BENCH.rows[:3] + BENCH.rows[4:])
    assert [(base.name, row.name) for base, row in compared_rows(without)] == [
        ("cffm-b1", "static-cffm-b1"),
        ("cffm-b1", "superpixel-cffm-b1"),
        ("segformer-nano", "SAM2-segformer-nano"),
    ]
    assert compared_rows(ABLATION) == []


# ---- curves


def test_the_band_of_a_setting_is_the_default_plus_the_interval():
    section = find_sections(ABLATION)[1]
    panel = draw_axis(section, section.axis, ("mVC16",)).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "8", "16", "32"]
    scores = [100 * row.scores["mVC16"] for row in section.rows]
    assert panel.lines[0].get_ydata() == pytest.approx(scores)
    band = panel.collections[0].get_paths()[0].vertices
    # window 1: -1.42 -+ (0.5 + 1.42 / 3) around the default's 94.79 + 1.58 = 96.37
    ends = [96.37 - 1.42 - 0.97333, 96.37 - 1.42 + 0.97333]
    assert sorted({round(y, 3) for x, y in band if x == 0}) == pytest.approx(ends, abs=1e-3)
    assert {round(y, 3) for x, y in band if x == 3} == {96.37}  # the default has no difference from itself


def test_words_are_not_joined_by_a_line():
    sections = find_sections(ABLATION)
    assert draw_axis(sections[2], sections[2].axis, ("mIoU",)).axes[0].lines[0].get_linestyle() == "None"
    assert draw_axis(sections[1], sections[1].axis, ("mIoU",)).axes[0].lines[0].get_linestyle() == "-"


def test_settings_with_one_name_keep_their_own_values():
    twice = replace(ABLATION.axes[0], values=(1, 32), rows=("window=1", "default"), title="Again")
    plots = render_plots(replace(ABLATION, axes=(ABLATION.axes[0], twice), statistics=("mIoU",)), with_png=False)
    axes = [plot for plot in plots if plot.section == "axis"]
    assert [plot.name for plot in axes] == ["axis-window", "axis-window-2"]
    assert b">16</text>" in axes[0].svg
    assert b">16</text>" not in axes[1].svg


def test_consistency_curves_hold_every_n_of_every_row():
    figure = draw_vc_curves(find_sections(BENCH))
    assert [panel.get_title(LEFT) for panel in figure.axes] == list(BASES)
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [2, 4, 6, 8, 12, 16, 24, 32]
    assert line.get_ydata() == pytest.approx([100 * value for value in BASE.vc_curve.values()])


# ---- looks


def test_kinds_differ_in_grey():
    luminance = [np.dot(matplotlib.colors.to_rgb(COLORS[kind]), (0.299, 0.587, 0.114)) for kind in COLORS]
    base, control, refined, _ = luminance
    assert base - control > 0.1
    assert control - refined > 0.1


def test_long_names_are_cut_in_the_middle():
    assert shortened("short") == "short"
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert len(shortened("x" * 100)) == 26


def test_a_gain_of_undefined_value_is_left_out(without_bytes):
    rows = (BASE, replace(REFINED, differences={"mIoU": difference("mIoU", float("nan"), clips=1)}))
    assert "gains" not in {plot.section for plot in render_plots(replace(SMALL, rows=rows))}
