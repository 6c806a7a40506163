import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from made_up_boards import ablation_board, bench_board, difference, with_pictures
from sam2vss.boards.page import write_board_page
from sam2vss.boards.plots import render_plots
from sam2vss.boards.scoreboard import Picture, Published

HOSTILE = "<!--<script></script ><img src=x onerror=alert(1)>\"'&{{title}}"
BENCH, ABLATION = bench_board(), ablation_board()


class PageParser(HTMLParser):
    """Collects tags with attributes and the visible text, and checks that elements close in order."""

    VOID = ("meta", "link", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


def page_of(board, folder, plots=()):
    return write_board_page(board, folder / "report.html", plots).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plots():
    return render_plots(BENCH, with_png=False)


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory, plots):
    folder = tmp_path_factory.mktemp("bench")
    return page_of(with_pictures(BENCH, folder), folder, plots)


def cells_of(page: str, head: str) -> list[str]:
    """Return the text of the cells of the first line with that heading."""
    line = next(line for line in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if f">{head}<" in line)
    return [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)]


# ---- the whole


def test_the_page_holds_all_parts_and_asks_for_nothing(whole_page):
    page = PageParser(whole_page)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {"summary", "warnings", "board-scores", "plots", "curves", "pictures", "classes", "clips", "how"} <= set(ids)
    assert "://" not in whole_page
    assert all(link.startswith(("data:", "#")) for link in [*page.values("src"), *page.values("href")])
    assert "{{" not in whole_page


def test_references_inside_plots_lead_to_their_own_parts(whole_page):
    ids = set(PageParser(whole_page).values("id"))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', whole_page)
    assert len(references) > 50
    assert {found for pair in references for found in pair if found} <= ids


def test_plots_are_drawn_text_that_follows_light_and_dark(whole_page):
    assert whole_page.count("<svg") == 6
    assert "<metadata" not in whole_page
    assert "xmlns" not in whole_page
    assert "#ffffff" not in whole_page.split("<main>")[1].split("</main>")[0]
    assert "var(--plot-refined)" in whole_page
    assert re.search(r"<text[^>]*>traffic light</text>", whole_page)


def test_names_from_a_board_cannot_become_markup(tmp_path):
    row = replace(
        BENCH.rows[3],
        name=HOSTILE,
        model=HOSTILE,
        against=BENCH.rows[0].name,
        settings={HOSTILE: HOSTILE},
        command=HOSTILE,
        published=Published({"mIoU": 0.4}, HOSTILE),
        per_class={HOSTILE: {"IoU": 0.5, "pixels": 3}},
        per_clip={HOSTILE: {"mIoU": 0.5, "frames": 3}},
    )
    base = replace(BENCH.rows[0], per_class=row.per_class, per_clip=row.per_clip)
    board = replace(
        BENCH,
        title=HOSTILE,
        dataset=HOSTILE,
        protocol=HOSTILE,
        protocol_note=HOSTILE,
        rows=(base, row),
        pictures=(Picture(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}),),
        work={HOSTILE: (1, 2)},
        warnings=(HOSTILE,),
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )
    page = page_of(board, tmp_path, render_plots(replace(board, statistics=("mIoU",)), with_png=False))
    parsed = PageParser(page)
    assert [attributes for tag, attributes in parsed.tags if "onerror" in attributes or tag == "img"] == []
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert parsed.text.count("onerror=alert(1)") > 15


def test_names_of_settings_cannot_become_markup(tmp_path):
    axes = replace(ABLATION.axes[0], setting=HOSTILE, title=HOSTILE, values=(HOSTILE, 8, 16, 32))
    rows = (replace(ABLATION.rows[0], name=HOSTILE, scores={"mIoU": 0.5}), *ABLATION.rows[1:])
    board = replace(ABLATION, axes=(axes,), rows=rows, statistics=("mIoU",))
    tags = PageParser(page_of(board, tmp_path, render_plots(board, with_png=False))).tags
    assert [attributes for _, attributes in tags if "onerror" in attributes] == []


# ---- scores


def test_scores_carry_their_differences_with_intervals(whole_page):
    cells = cells_of(whole_page, "SAM2-cffm-b1")
    minus = "\N{MINUS SIGN}"
    assert cells[0].split() == ["42.04", "+3.54", "[+1.86,", "+5.22]"]
    control = cells_of(whole_page, "static-cffm-b1")[0]
    assert " ".join(control.split()) == f"38.47 {minus}0.03 [{minus}0.54, +0.48]"
    assert "<b>42.04</b>" in whole_page
    assert "14.6 masklets, 76.8 % covered, 0.48 s a frame" in whole_page


def test_only_differences_that_leave_out_zero_are_coloured(tmp_path):
    rows = [BENCH.rows[0]]
    for name, gain, clips in (("up", 0.03, 6), ("down", -0.03, 6), ("unsure", 0.001, 6), ("alone", 0.03, 1)):
        found = {"mIoU": difference("mIoU", gain, clips)}
        rows.append(replace(BENCH.rows[3], name=name, differences=found))
    page = page_of(replace(BENCH, rows=tuple(rows), statistics=("mIoU",)), tmp_path)
    kinds = [re.search(rf'>{name}<.*?<td>.*?<small class="([\w ]+)">', page, re.DOTALL)[1] for name in
             ("up", "down", "unsure", "alone")]  # fmt: skip
    assert kinds == ["good", "bad", "same", "same alone"]


def test_less_flicker_is_good(tmp_path):
    found = {"flip_rate": difference("flip_rate", -0.03)}
    row = replace(BENCH.rows[3], scores={"flip_rate": 0.01}, differences=found)
    page = page_of(replace(BENCH, rows=(BENCH.rows[0], row), statistics=("flip_rate",)), tmp_path)
    assert '<small class="good">\N{MINUS SIGN}3.00' in page
    assert "flip_rate \N{DOWNWARDS ARROW}" in page


def test_copied_figures_are_marked_and_their_source_is_named(whole_page):
    assert cells_of(whole_page, "published\N{DAGGER}") == ["38.50", "60.00", "24.70", "88.60", "84.10"]
    assert "\N{DAGGER} Copied from arXiv 2512.01774, Table 1; not computed here." in whole_page


def test_one_clip_is_said_where_intervals_would_stand(tmp_path):
    text = PageParser(page_of(bench_board(1), tmp_path)).text
    assert "SAM2-cffm-b1: mIoU 38.50 \N{RIGHTWARDS ARROW} 42.04 %, +3.54 (1 clip, no interval)." in text
    assert "Differences from the base in percentage points; 1 clip, no interval" in text
    assert "95 %" not in text
    assert cells_of(page_of(bench_board(1), tmp_path), "SAM2-cffm-b1")[0] == "42.04  +3.54"


def test_a_faulty_protocol_prints_its_note(tmp_path):
    board = replace(BENCH, protocol="dvis-compat", protocol_note="VC16 pools two lengths.")
    assert "Protocol dvis-compat: VC16 pools two lengths." in PageParser(page_of(board, tmp_path)).text


def test_an_ablation_has_a_card_a_setting_with_its_plot(tmp_path):
    page = page_of(ABLATION, tmp_path, render_plots(replace(ABLATION, statistics=("mIoU",)), with_png=False))
    cards = re.findall(r'<section class="card" id="(axis-\d)".*?</section>', page, re.DOTALL)
    assert cards == ["axis-0", "axis-1", "axis-2", "axis-3"]
    card = page[page.index('id="axis-1"') : page.index('id="axis-2"')]
    assert "Window length (Table 4)" in card
    assert card.count("<svg") == 1
    assert ">default, 14.6 masklets" in card
    assert "0 of 5 points differ from the default in mIoU by an interval that leaves out zero." in page
    assert cells_of(page, "frames encoded") == ["184", "1,288", "7.0\N{MULTIPLICATION SIGN}"]


# ---- classes, clips, pictures


def test_classes_are_listed_by_gain_with_values_to_sort_by(whole_page):
    classes = whole_page[whole_page.index('id="classes"') :]
    cells = cells_of(classes, "sky")
    base, refined = (BENCH.row(name).per_class["sky"]["IoU"] for name in ("cffm-b1", "SAM2-cffm-b1"))
    assert cells[:4] == ["4,000", f"{100 * base:.2f}", f"{100 * refined:.2f}", f"{100 * (refined - base):+.2f}"]
    assert f'data-value="{refined - base!r}"' in classes
    assert cells_of(classes, "bicycle")[1:4] == ["\N{EN DASH}"] * 3
    table = classes[classes.index("<tbody>") : classes.index("</tbody>")]
    assert re.findall(r'<th scope="row">(.*?)</th>', table)[-1] == "bicycle"  # without IoU, so last


def test_clips_show_frames_and_the_gain_in_every_score(whole_page):
    clips = whole_page[whole_page.index('id="clips"') :]
    base, refined = (BENCH.row(name).per_clip["clip_02"] for name in ("cffm-b1", "SAM2-cffm-b1"))
    expected = [f"{100 * (refined[name] - base[name]):+.2f}" for name in ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")]
    cells = cells_of(clips, "clip_02")
    assert cells[0] == "30"
    assert cells[3:] == [text.replace("-", "\N{MINUS SIGN}") for text in expected]


def test_pictures_are_embedded_side_by_side(whole_page):
    images = [attributes for tag, attributes in PageParser(whole_page).tags if tag == "img"]
    assert [image["alt"] for image in images[:2]] == [
        "frame: clip_01, frame 00000007",
        "truth: clip_01, frame 00000007",
    ]
    head, body = images[0]["src"].split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert image.size == (64, 36)


def test_large_pictures_shrink(tmp_path):
    Image.new("RGB", (1280, 720)).save(tmp_path / "large.png")
    board = replace(BENCH, pictures=(Picture("a", "1", "", {"frame": "large.png"}),))
    source = next(attributes["src"] for tag, attributes in PageParser(page_of(board, tmp_path)).tags if tag == "img")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
        assert image.size == (640, 360)


@pytest.mark.parametrize("name", ["missing.png", "../outside.png", "broken.png", "/etc/hostname", "\0"])
def test_a_picture_that_cannot_be_read_or_lies_elsewhere_is_named_and_left_out(tmp_path, name):
    folder = tmp_path / "board"
    folder.mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "outside.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    page = PageParser(page_of(replace(BENCH, pictures=(Picture("a", "1", "", {"frame": name}),)), folder))
    assert "img" not in [tag for tag, _ in page.tags]
    assert "pictures" not in page.values("id")
    assert "of a cannot be read; it is left out." in page.text


def test_commands_settings_and_versions_say_how_rows_were_made(whole_page):
    assert cells_of(whole_page[whole_page.index('id="how"') :], "SAM2-cffm-b1") == [
        "window 32, points 16, mode exact",
        "sam2vss refine data --labels cffm-b1 --out runs/SAM2-cffm-b1",
    ]
    assert cells_of(whole_page, "torch") == ["2.13.0"]


def test_a_board_of_nothing_still_has_a_page(tmp_path):
    board = replace(BENCH, rows=(), statistics=(), warnings=(), versions={}, command="")
    ids = PageParser(page_of(board, tmp_path)).values("id")
    assert not {"plots", "classes", "clips", "pictures", "work", "warnings"} & set(ids)


def test_the_default_of_an_ablation_is_no_point_that_differs_from_the_default(tmp_path):
    gain = ABLATION.row("window=1").differences["mIoU"]
    compared = replace(ABLATION.rows[1], against="base", differences={"mIoU": replace(gain, difference=0.03)})
    text = page_of(replace(ABLATION, rows=(ABLATION.rows[0], compared, *ABLATION.rows[2:])), tmp_path, [])
    assert "The default differs from the base labels in mIoU by +3.00 [" in text
    assert "of 5 points differ from the default in mIoU" in text
