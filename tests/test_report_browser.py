"""The report page in a real browser: what stands on the canvases, what the controls do, and that nothing leaves.

Runs where Chromium and playwright are installed, else it is skipped with the reason.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2vss.files import safe_name
from sam2vss.report import write_report
from toy_report import make_run

pytestmark = pytest.mark.browser

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
HOSTILE = "<!--<script></script ><img src=x onerror=window.broken=1>\"'"
SIZE = (12, 16)  # (H, W)
NUM_FRAMES = 6
GREY = (100, 100, 100)
# Two classes share a colour and stay two classes all the same.
NAMES = ["sky", "road", f"car {HOSTILE}"]
COLORS = [(10, 20, 30), (200, 100, 50), (200, 100, 50)]
CORRECTED, MADE_WORSE = (0x1F, 0x6F, 0xEB), (0xFF, 0x7A, 0x00)  # --fixed and --worse of report_page.css


def maps(frame: int) -> dict[str, np.ndarray]:
    """Return the maps of one frame: sky above, road below, a car in the truth, missed by base and found by refined."""
    truth = np.zeros(SIZE, np.uint8)
    truth[6:] = 1
    base, refined = truth.copy(), truth.copy()
    truth[6:8, frame : frame + 4] = refined[6:8, frame : frame + 4] = 2
    refined[11, 15] = 0  # one pixel made worse
    return {"base": base, "labels": refined, "truth": truth}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    clips = {"street": ("base", "labels", "truth"), HOSTILE: ("labels",)}
    lines = []
    for clip, folders in clips.items():
        for i in range(NUM_FRAMES):
            for folder in folders:
                path = run_dir / folder / safe_name(clip) / f"{i:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(maps(i)[folder]).save(path)
            picture = run_dir / "preview" / safe_name(clip) / f"{i:04d}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            if clip == "street":
                Image.new("RGB", SIZE[::-1], GREY).save(picture, quality=100)
        series = {key: [0.1 * i for i in range(NUM_FRAMES)] for key in ("coverage", "flip_base", "flip_refined")}
        window = {"video": clip, "start": 0, "frames": [f"{i:04d}" for i in range(NUM_FRAMES)], **series}
        lines.append({**window, "num_masklets": 1, "masklets": [{"id": 1, "class": 2, "vote_share": 0.5}]})
    classes = [{"id": i, "name": NAMES[i], "color": COLORS[i]} for i in range(3)]
    info = {"package": "sam2vss", "format_version": 1, "status": "done", "label_set": {"classes": classes}}
    info["clips"] = [{"name": clip, "fps": 25} for clip in clips]
    (run_dir / "run.json").write_text(json.dumps(info))
    (run_dir / "windows.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return write_report(run_dir)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Any:
    return chromium.new_page()


@pytest.fixture
def page(tab: Any, page_file: Path) -> Iterator[Any]:
    """Load the page anew and record what it asks for and complains about: nothing but itself, and nothing."""
    requests: list[str] = []
    complaints: list[str] = []
    listeners = {
        "request": lambda request: requests.append(request.url),
        "pageerror": lambda error: complaints.append(str(error)),
        "console": lambda message: complaints.append(message.text),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(page_file.as_uri())
    wait_for_frame(tab, 0)
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]
    # The advice is about the pixels that these tests read.
    assert [text for text in complaints if "willReadFrequently" not in text] == []


def wait_for_frame(page: Any, position: int) -> None:
    page.wait_for_selector(f'#viewer[data-frame="{position}"]')


def canvas(page: Any, panel: str) -> np.ndarray:
    """Return the pixels of a panel, uint8 (H, W, 4)."""
    values = page.evaluate(
        """(panel) => {
            const canvas = document.querySelector(`canvas[data-panel="${panel}"]`);
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }""",
        panel,
    )
    return np.array(values, np.uint8).reshape(*SIZE, 4)


def set_range(page: Any, selector: str, value: float) -> None:
    page.locator(selector).fill(str(value))


def toggle(page: Any, layer: str) -> None:
    page.locator(f'label:has(input[data-layer="{layer}"])').click()


def colored(labels: np.ndarray) -> np.ndarray:
    return np.array(COLORS, np.uint8)[labels]


def hover(page: Any, panel: str, x: int, y: int) -> None:
    """Put the mouse on the middle of picture pixel (x, y) of a panel."""
    box = page.locator(f'canvas[data-panel="{panel}"]').bounding_box()
    page.mouse.move(box["x"] + (x + 0.5) * box["width"] / SIZE[1], box["y"] + (y + 0.5) * box["height"] / SIZE[0])


def hovered(page: Any, panel: str) -> str:
    return str(page.locator(f'output[data-hover="{panel}"]').inner_text()).strip()


def test_labels_at_full_opacity_have_the_exact_colours_of_the_palette(page: Any) -> None:
    set_range(page, "#opacity", 1)
    for position in (0, 4):
        set_range(page, "#frame-slider", position)
        wait_for_frame(page, position)
        for panel, folder in {"base": "base", "refined": "labels", "truth": "truth"}.items():
            pixels = canvas(page, panel)
            assert (pixels[..., :3] == colored(maps(position)[folder])).all(), (panel, position)
            assert (pixels[..., 3] == 255).all()
    assert page.locator("#frame-name").inner_text() == "frame 0004 · 5 of 6 · 0.16 s"  # 4 / 25 s


def test_layer_toggles_change_what_the_canvas_holds(page: Any) -> None:
    set_range(page, "#opacity", 1)
    toggle(page, "labels")
    assert (np.abs(canvas(page, "refined")[..., :3].astype(int) - GREY) <= 2).all()  # the picture, a JPEG
    toggle(page, "picture")
    assert (canvas(page, "refined") == 0).all()
    toggle(page, "labels")
    assert (canvas(page, "refined")[..., :3] == colored(maps(0)["labels"])).all()


def test_half_opacity_mixes_labels_and_picture(page: Any) -> None:
    set_range(page, "#opacity", 0.5)
    expected = (colored(maps(0)["base"]).astype(int) + GREY) / 2
    assert (np.abs(canvas(page, "base")[..., :3] - expected) <= 3).all()


def test_contours_follow_the_borders_between_classes(page: Any) -> None:
    set_range(page, "#opacity", 1)
    toggle(page, "contours")
    is_white = (canvas(page, "base")[..., :3] == 255).all(-1)
    # Base: sky in rows 0-5, road in rows 6-11; the contour lies on the last row of sky.
    assert is_white.sum(axis=1).tolist() == [0] * 5 + [16] + [0] * 6


def test_changed_pixels_are_told_apart_by_the_truth(page: Any) -> None:
    toggle(page, "picture")
    toggle(page, "changed")
    pixels = canvas(page, "refined")[..., :3]
    is_corrected = (pixels == CORRECTED).all(-1)
    expected = maps(0)["labels"] == 2
    assert (is_corrected == expected).all()
    assert (pixels[11, 15] == MADE_WORSE).all()
    key = page.locator("#changed-key").inner_text()
    # 8 of 192 pixels = 4.2 %, 1 of 192 = 0.5 %
    assert "corrected 4.2 %" in key
    assert "made worse 0.5 %" in key


def test_play_advances_frames_and_pause_stops_them(page: Any) -> None:
    seen = page.evaluate(
        """() => new Promise((resolve) => {
            const seen = [];
            const viewer = document.querySelector("#viewer");
            const note = () => seen.push(Number(viewer.dataset.frame)) === 8 && resolve(seen);
            new MutationObserver(note).observe(viewer, { attributes: true });
            setTimeout(() => resolve(seen), 10000);
            document.querySelector("#play").click();
        })"""
    )
    assert seen == [1, 2, 3, 4, 5, 0, 1, 2]
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    page.locator("#play").click()
    stopped = page.locator("#frame-slider").input_value()
    page.wait_for_timeout(150)  # more than three frames at 25 a second
    assert page.locator("#frame-slider").input_value() == stopped


def test_keys_step_jump_and_play(page: Any) -> None:
    for key, position in {"ArrowRight": 1, "End": 5, "ArrowLeft": 4, "Home": 0}.items():
        page.keyboard.press(key)
        wait_for_frame(page, position)
    page.keyboard.press(" ")
    page.wait_for_selector('#viewer:not([data-frame="0"])')
    assert page.locator("#play").inner_text() == "Pause"
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Play"
    page.locator("#legend button").first.focus()
    page.keyboard.press(" ")  # belongs to the button that has the focus
    assert page.locator("#legend button").first.get_attribute("aria-pressed") == "true"
    assert page.locator("#play").inner_text() == "Play"


def test_hover_names_the_class_in_every_panel_even_where_colours_are_equal(page: Any) -> None:
    hover(page, "base", x=1, y=6)
    assert [hovered(page, panel) for panel in ("base", "refined", "truth")] == ["road", NAMES[2], NAMES[2]]
    hover(page, "truth", x=1, y=2)
    assert [hovered(page, panel) for panel in ("base", "refined", "truth")] == ["sky"] * 3


def test_zoom_magnifies_around_the_middle_and_hover_follows(page: Any) -> None:
    set_range(page, "#opacity", 1)
    set_range(page, "#zoom", 2)
    # 16 x 12 pixels at zoom 2 around the middle show columns 4-11 and rows 3-8, each doubled.
    expected = colored(maps(0)["base"][3:9, 4:12]).repeat(2, axis=0).repeat(2, axis=1)
    assert (canvas(page, "base")[..., :3] == expected).all()
    hover(page, "base", x=15, y=6)  # picture pixel (11, 6)
    assert hovered(page, "base") == "road"
    hover(page, "base", x=15, y=5)  # picture pixel (11, 5)
    assert hovered(page, "base") == "sky"
    page.keyboard.press("Shift+ArrowUp")  # by an eighth of the 8 columns shown: one pixel
    assert (canvas(page, "base")[..., :3] == colored(maps(0)["base"][2:8, 4:12]).repeat(2, 0).repeat(2, 1)).all()


def test_legend_shows_shares_and_isolates_a_class(page: Any) -> None:
    set_range(page, "#opacity", 1)
    toggle(page, "picture")
    button = page.locator('#legend button[data-class="2"]')
    # The car has 8 of 192 pixels, 4.2 %, in refined and truth, none in base.
    assert [text.strip() for text in button.locator("b").all_inner_texts()] == ["0.0", "4.2", "4.2"]
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert ((canvas(page, "refined")[..., 3] == 255) == (maps(0)["labels"] == 2)).all()
    button.click()
    assert (canvas(page, "refined")[..., 3] == 255).all()


def test_plots_seek_where_they_are_clicked_and_carry_a_cursor(page: Any) -> None:
    plot = page.locator('figure[data-plot="coverage"] svg')
    before = plot.locator(".cursor").get_attribute("x1")
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] - 9, "y": 40})  # right end
    wait_for_frame(page, 5)
    assert float(plot.locator(".cursor").get_attribute("x1")) > float(before)
    reading = page.locator('output[data-series="coverage"]').inner_text()
    assert reading == "50.0 % (mean 25.0 %)"
    assert page.locator('figure[data-plot="changed"]').count() == 0  # the run has no such series


def test_another_clip_has_its_own_panels_and_its_name_stays_text(page: Any) -> None:
    page.locator("#clip-select").select_option("1")
    page.wait_for_selector('#viewer[data-clip="1"][data-frame="0"]')
    page.wait_for_selector("#legend button:nth-child(3)")
    assert page.locator("#clip-select option").nth(1).inner_text() == HOSTILE
    assert page.evaluate("window.broken") is None
    assert page.locator('canvas[data-panel="refined"]').is_visible()
    assert not page.locator('canvas[data-panel="truth"]').is_visible()
    assert page.locator('[data-panel-box="refined"] .no-picture').is_visible()
    assert NAMES[2] in page.locator("#masklet-table").inner_text()


@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_never_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    two_frames = "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
    page.evaluate(two_frames)  # the plots are drawn anew
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lefts = {page.locator(f'canvas[data-panel="{panel}"]').bounding_box()["x"] for panel in ("base", "truth")}
    assert len(lefts) == (1 if width == 400 else 2)  # stacked or side by side


def test_a_browser_that_falsifies_canvas_pixels_is_called_out(chromium: Any, page: Any, page_file: Path) -> None:
    assert not page.locator("#canvas-warning").is_visible()
    tab = chromium.new_page()
    tab.add_init_script(
        """const read = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...box) {
            const image = read.apply(this, box);
            image.data[40] ^= 1;
            return image;
        };"""
    )
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("#canvas-warning", state="visible", timeout=10_000)
    tab.close()


# ---- more panels, and fewer

PANELS_OF_WIDE = ["base", "refined", "further-1", "further-2", "further-3", "truth"]


def wide_maps(frame: int) -> dict[str, np.ndarray]:
    """Return the maps of one frame and those of further labels: the base labels with two pixels made worse."""
    found = maps(frame)
    further = found["base"].copy()
    further[0, :2] = 2  # wrong: the truth says sky
    return {**found, "further": further}


@pytest.fixture(scope="module")
def wide_page(tmp_path_factory: pytest.TempPathFactory, page_file: Path) -> Path:
    """The page of the clips with base, refined, three further label sets and truth; the third lacks the first frame."""
    folder = tmp_path_factory.mktemp("further")
    names = ["I-SAM2", "I-SAM2 base", f"a rather long name_{'x' * 60}"]
    for i in range(NUM_FRAMES):
        for name in names[: 2 if i == 0 else 3]:
            path = folder / name / "street" / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide_maps(i)["further"]).save(path)
    return write_report(page_file.parent, folder / "report.html", others={name: folder / name for name in names})


@pytest.fixture
def wide(tab: Any, wide_page: Path) -> Any:
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(wide_page.as_uri())
    wait_for_frame(tab, 0)
    return tab


@pytest.mark.parametrize(("width", "per_row"), [(1920, 3), (1280, 3), (400, 2)])
def test_six_panels_stand_in_even_rows_and_fit_the_window(wide: Any, width: int, per_row: int) -> None:
    wide.set_viewport_size({"width": width, "height": 900})
    wide.locator("#legend button").first.wait_for()
    assert wide.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [wide.locator(f'canvas[data-panel="{panel}"]').bounding_box() for panel in PANELS_OF_WIDE]
    assert len({round(box["x"]) for box in boxes}) == per_row
    # Level with the others of its row, however long the name above it.
    assert len({round(box["y"]) for box in boxes}) == 6 // per_row
    legend = [button.bounding_box() for button in wide.locator("#legend .class-name").all()]
    assert min(box["width"] for box in legend) > 60


def test_panels_of_further_labels_show_their_maps_and_say_where_there_is_none(wide: Any) -> None:
    set_range(wide, "#opacity", 1)
    assert (canvas(wide, "further-2")[..., :3] == colored(wide_maps(0)["further"])).all()
    note = wide.locator('[data-panel-box="further-3"] .no-picture')
    assert note.is_visible()
    assert note.inner_text() == "no labels for this frame"
    assert (np.abs(canvas(wide, "further-3")[..., :3].astype(int) - GREY) <= 2).all()  # the picture alone
    set_range(wide, "#frame-slider", 1)
    wait_for_frame(wide, 1)
    assert not note.is_visible()
    assert (canvas(wide, "further-3")[..., :3] == colored(wide_maps(1)["further"])).all()


def test_further_labels_show_their_own_changes(wide: Any) -> None:
    toggle(wide, "picture")
    toggle(wide, "changed")
    is_worse = (canvas(wide, "further-1")[..., :3] == MADE_WORSE).all(-1)
    assert is_worse.tolist() == (wide_maps(0)["further"] != wide_maps(0)["base"]).tolist()
    assert (canvas(wide, "base")[11, 15, :3] == MADE_WORSE).all()  # the base panel shows those of refined
    assert not (canvas(wide, "truth")[..., :3] == MADE_WORSE).all(-1).any()
    assert "(refined)" in wide.locator("#changed-key").inner_text()


def test_flicker_of_further_labels_is_a_line_of_its_own(wide: Any) -> None:
    plot = wide.locator('figure[data-plot="flip_base"]')
    assert [path.get_attribute("class") for path in plot.locator("path").all()] == [
        *["base", "refined"],
        *["tone-1", "tone-2", "tone-3"],
    ]
    # The further maps are the same in all frames.
    assert plot.locator('output[data-series="flip_further-1"]').inner_text() == "\N{EN DASH} (mean 0.0 %)"
    assert "I-SAM2 base" in plot.locator("figcaption").inner_text()


def test_a_clip_without_further_labels_shows_its_own_panels_alone(wide: Any) -> None:
    wide.locator("#clip-select").select_option("1")
    wide.wait_for_selector('#viewer[data-clip="1"][data-frame="0"]')
    visible = [panel for panel in PANELS_OF_WIDE if wide.locator(f'canvas[data-panel="{panel}"]').is_visible()]
    assert visible == ["refined"]
    assert not wide.locator('label:has(input[data-layer="changed"])').is_visible()  # nothing to compare it with


def test_a_run_without_base_labels_has_no_control_or_column_about_them(tab: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, command="classify", settings={"base": None})
    tab.goto(write_report(run).as_uri())
    wait_for_frame(tab, 0)
    assert not tab.locator('label:has(input[data-layer="changed"])').is_visible()
    assert tab.locator("#plot-list figure").count() == 2  # coverage and flicker
    assert tab.locator("#window-table thead").inner_text().split() == ["frames", "masklets", "coverage", "flicker"]
    seen = " ".join(tab.locator(part).inner_text() for part in ("#viewer", "#plots", "#windows"))
    for word in ("base", "refined", "changed"):
        assert word not in seen, word
