import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up_boards import ablation_board, bench_board
from sam2vss.boards.latex import escape_latex, to_latex

BENCH, ABLATION = bench_board(), ablation_board()
# What escaped text may hold: plain characters, escaped specials, our own macros with their empty group, a formula.
PLAIN = r"[^\\{}$&#_%~^<>|\"\[\]*`\n]"
ESCAPED = rf"(?:{PLAIN}|\\[{{}}$&#_%]|\\text[a-z]+\{{\}}|\{{[\[\]*]\}}|\$\\?[-\\a-z^]+\$)*"


def check_structure(source: str) -> None:
    """Check that braces, formulas and environments close, and that every line of a table has its number of cells."""
    code = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#_%]", lambda match: "\n" if match[0] == "\\\\" else "", code)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    opened = re.findall(r"\\(begin|end)\{(\w+)\}", code)
    stack = []
    for kind, name in opened:
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l r*)\}(.*?)\\end\{tabular\}".replace(" ", ""), code, re.S):
        for line in body.strip().splitlines():
            if line in (r"\toprule", r"\midrule", r"\bottomrule"):
                continue
            assert line.endswith(r" \\")
            cells = re.sub(r"\\[\\&]", "", line).count("&") + 1
            assert cells == (1 if line.startswith(r"\multicolumn") else len(columns))


@pytest.mark.parametrize("board", [BENCH, ABLATION, bench_board(1), ablation_board(1)])
def test_tables_are_whole(board):
    check_structure(to_latex(board))


@settings(max_examples=80, deadline=None)
@given(name=st.text(min_size=1, max_size=15))
def test_no_name_leaves_its_place(name):
    row = replace(BENCH.rows[0], name=name, model=name)
    board = replace(BENCH, rows=(row,), title=name, dataset=name, command=name, warnings=(name,), statistics=("mIoU",))
    check_structure(to_latex(board))
    assert re.fullmatch(ESCAPED, escape_latex(name))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b 50% & #1", r"a\_b 50\% \& \#1"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("$x^2$ ~", r"\$x\textasciicircum{}2\$ \textasciitilde{}"),
        ("[0.1] *", "{[}0.1{]} {*}"),  # after a line break, a bracket or a star would belong to the break
        ("a\nb\rc\x00d", "a b c d"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
        ("2\N{EN DASH}3 \N{MULTIPLICATION SIGN} 4", r"2--3 $\times$ 4"),
    ],
)
def test_special_characters_are_printed(text, escaped):
    assert escape_latex(text) == escaped


def test_rows_show_percent_best_in_bold_difference_and_interval():
    lines = to_latex(BENCH).splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("SAM2-cffm-b1"))
    assert lines[number] == (
        r"SAM2-cffm-b1 & \textbf{42.04} & \textbf{63.78} & \textbf{34.30} & \textbf{89.98} & \textbf{85.68} \\"
    )
    assert lines[number + 1] == r"\quad published$^\dagger$ & 40.30 & 61.10 & 29.30 & 89.40 & 85.10 \\"
    assert lines[number + 2].startswith(r"\quad difference & +3.54 & +3.78")
    assert r"{\footnotesize {[}+1.86, +5.22{]}}" in lines[number + 3]
    assert lines[number + 3].startswith(r"\quad {\footnotesize 95\,\% interval}")


def test_heads_have_arrows_and_the_n_of_vc_as_index():
    assert r"labels & mIoU $\uparrow$ & wIoU $\uparrow$ & mBIoU $\uparrow$ & mVC$_{8}$ $\uparrow$ & mVC$_{16}$" in (
        to_latex(BENCH)
    )
    assert r"flip\_rate $\downarrow$" in to_latex(replace(BENCH, statistics=("flip_rate",)))


def test_a_negative_difference_has_a_true_minus_and_undefined_scores_a_dash():
    source = to_latex(replace(BENCH, statistics=("mIoU", "STQ")))
    assert r"static-cffm-b1 & $-$0.03 & -- \\" in source
    assert r"cffm-b1 & 38.50 & -- \\" in source


def test_controls_have_their_differences_in_a_table_of_their_own():
    source = to_latex(BENCH)
    assert source.count(r"\begin{table}") == 2
    second = source[source.rindex(r"\begin{table}") :]
    assert "superpixel-cffm-b1 & +2.95" in second
    without = replace(BENCH, rows=tuple(row for row in BENCH.rows if row.kind != "control"))
    assert to_latex(without).count(r"\begin{table}") == 1


def test_the_caption_says_dagger_protocol_note_and_intervals():
    board = replace(BENCH, protocol="dvis-compat", protocol_note="VC16 pools 100 % of the windows.")
    caption = next(line for line in to_latex(board).splitlines() if line.startswith(r"\caption"))
    assert r"$^\dagger$ Copied from arXiv 2512.01774, Table 1; not computed by us." in caption
    assert r"Protocol dvis-compat: VC16 pools 100 \% of the windows." in caption
    assert r"95 \% intervals of a paired bootstrap over 6 clips" in caption


def test_one_clip_is_said_instead_of_an_interval():
    source = to_latex(bench_board(1))
    assert "1 clip, no interval" in source
    assert "interval}" not in source.replace("no interval", "")


def test_an_ablation_has_a_table_a_setting_with_the_default_marked():
    source = to_latex(ABLATION)
    assert source.count(r"\begin{table}") == 4  # the base labels and three axes
    assert r"32 (default) & \textbf{65.64}" in source
    assert source.count(r"\quad difference") == 5  # every point but the default


def test_a_command_with_line_breaks_stays_a_comment():
    source = to_latex(replace(BENCH, command="sam2vss bench\n\\input{evil}\u2028x"))
    assert "% sam2vss bench \\input{evil} x\n" in source
