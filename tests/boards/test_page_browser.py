"""The page about a board in a real browser: tables sort, nothing leaves, it fits a phone, and prints in full.

Runs where Chromium and playwright are installed, else it is skipped with the reason.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from made_up_boards import bench_board, difference, with_pictures
from sam2vss.boards.page import write_board_page

pytestmark = pytest.mark.browser

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BENCH = bench_board()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    return write_board_page(
        with_pictures(replace(BENCH, rows=BENCH.rows[:4], statistics=("mIoU", "mVC16")), folder), folder / "report.html"
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, page_file: Path) -> Iterator[Any]:
    """Load the page and record what it asks for and complains about: nothing but itself, and nothing."""
    requests: list[str] = []
    complaints: list[str] = []
    tab = chromium.new_page(viewport={"width": 1280, "height": 900})
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.goto(page_file.as_uri())
    yield tab
    tab.close()
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert complaints == []


def first_column(page: Any, part: str) -> list[str]:
    return page.locator(f"#{part} table.sortable tbody th").all_inner_texts()


def choose_head(page: Any, part: str, text: str) -> None:
    page.locator(f"#{part} table.sortable thead button").filter(has_text=text).first.click()


def test_a_head_sorts_by_value_and_again_the_other_way_with_unknown_ones_last(page: Any) -> None:
    ious = {name: scores["IoU"] for name, scores in BENCH.row("SAM2-cffm-b1").per_class.items()}
    known = sorted((name for name in ious if ious[name] is not None), key=lambda name: -ious[name])
    choose_head(page, "classes", "IoU refined")
    assert first_column(page, "classes") == [*known, "bicycle"]
    choose_head(page, "classes", "IoU refined")
    assert first_column(page, "classes") == [*known[::-1], "bicycle"]
    assert page.locator("#classes [aria-sort]").get_attribute("aria-sort") == "ascending"
    choose_head(page, "classes", "class")
    assert first_column(page, "classes") == sorted(ious)
    assert page.locator("#classes [aria-sort]").count() == 1


def test_clips_sort_on_their_own(page: Any) -> None:
    before = first_column(page, "classes")
    choose_head(page, "clips", "frames")
    assert first_column(page, "clips") == [f"clip_0{i}" for i in (5, 4, 3, 2, 1, 0)]
    assert first_column(page, "classes") == before


@pytest.mark.parametrize("width", [380, 800, 1280])
def test_the_page_never_scrolls_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#board-scores").evaluate("node => node.getBoundingClientRect().width") > 300


def test_plots_turn_dark_with_the_page_and_light_in_print(page: Any) -> None:
    def colors() -> list[str]:
        text = page.locator(".drawing text").first.evaluate("node => getComputedStyle(node).fill")
        ground = page.locator(".drawing svg path").first.evaluate("node => getComputedStyle(node).fill")
        return [text, ground]

    page.emulate_media(color_scheme="light")
    assert colors() == ["rgb(28, 34, 48)", "rgb(255, 255, 255)"]
    page.emulate_media(color_scheme="dark")
    assert colors() == ["rgb(231, 234, 240)", "rgb(25, 30, 39)"]
    page.emulate_media(color_scheme="dark", media="print")
    assert colors() == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


def test_pictures_are_decoded(page: Any) -> None:
    widths = page.locator("#pictures img").evaluate_all("nodes => nodes.map((node) => node.naturalWidth)")
    assert widths == [64] * 8


def test_folded_parts_open_for_print_and_fold_again(page: Any) -> None:
    page.locator("#classes summary").click()
    assert page.locator("#classes details[open]").count() == 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#classes details[open]").count() == 1
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#classes details[open]").count() == 0


def test_intervals_go_below_their_differences_where_columns_are_many(chromium: Any, tmp_path: Path) -> None:
    names = (*BENCH.statistics, "boundary_IoU_2px", "boundary_IoU_2pct", "boundary_F")
    found = {name: difference(name, 0.1234) for name in names}
    rows = [
        replace(row, scores=dict.fromkeys(names, 0.5), differences=row.differences and found) for row in BENCH.rows[:4]
    ]
    file = write_board_page(replace(BENCH, rows=tuple(rows), statistics=names), tmp_path / "wide.html", [])
    tab = chromium.new_page(viewport={"width": 1100, "height": 900})
    tab.goto(file.as_uri())
    lines = tab.evaluate(
        "[...document.querySelectorAll('td small')].map(cell => cell.getClientRects().length && "
        "cell.querySelector('span').getBoundingClientRect().top - cell.getBoundingClientRect().top > 8)"
    )
    tab.close()
    assert len(lines) == 3 * 8
    assert all(lines)
