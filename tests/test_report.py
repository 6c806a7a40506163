"""The report page as text: what it embeds, what it says, and that nothing in it can break out or reach outside."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam2vss.errors import MediaError, RunError, SettingsError
from sam2vss.report import write_report
from sam2vss.report_data import read_run
from sam2vss.report_frames import share_frames, thin
from toy_report import HOSTILE, PageParser, block, edit_json, make_run, page_of, pixels, save_labels, text_of

# ---- structure


def test_page_has_the_promised_ids_panels_and_layers_once(tmp_path: Path) -> None:
    parser = PageParser(page_of(make_run(tmp_path, folders=("labels", "base", "truth"))))
    ids = parser.ids()
    assert len(ids) == len(set(ids))
    assert {"frame-slider", "play", "clip-select", "opacity", "speed", "zoom"} <= set(ids)
    canvases = [attributes["data-panel"] for tag, attributes in parser.tags if tag == "canvas"]
    assert canvases == ["base", "refined", "truth"]
    layers = [attributes["data-layer"] for _, attributes in parser.tags if "data-layer" in attributes]
    assert layers == ["picture", "labels", "contours", "changed"]


def test_page_names_no_address_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    assert not re.search(r"https?:|//[a-z]+\.", page.replace("http-equiv", ""))
    assert "@import" not in page
    assert "url(" not in page
    for tag, attributes in PageParser(page).tags:
        assert "src" not in attributes, tag
        assert attributes.get("href", "data:,") == "data:,", tag
    assert "default-src 'none'" in page


def test_writing_the_page_leaves_only_the_page(tmp_path: Path) -> None:
    before = {path.name for path in make_run(tmp_path).iterdir()}
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert {path.name for path in tmp_path.iterdir()} - before == {"report.html"}


def test_names_from_files_cannot_become_markup(tmp_path: Path) -> None:
    scores = {"base": {"scores": {HOSTILE: 0.5}, "per_class": {HOSTILE: 0.5}}}
    make_run(tmp_path / "run", clips=(HOSTILE,), status=HOSTILE, settings={HOSTILE: HOSTILE, "segmenter": HOSTILE})
    (tmp_path / "run" / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path / "run")
    parser = PageParser(page)
    assert "img" not in {tag for tag, _ in parser.tags}
    assert "b" not in {tag for tag, attributes in parser.tags if attributes.get("class") == "class-name"}
    assert block(page, "clip-0")["name"] == HOSTILE
    assert block(page, "report-data")["classes"][2]["name"] == "<b>car</b>"
    option = next(text for text in parser.texts if text == HOSTILE)
    assert option  # the name stands in the page as it is, and "{{title}}" in it was not filled in


def test_void_of_base_labels_stands_beside_the_frames_of_each_clip(tmp_path: Path) -> None:
    run = make_run(tmp_path, clips=("a", "b"))
    assert "void in base" not in page_of(run)
    clips = json.loads((run / "run.json").read_text())["clips"]
    edit_json(run / "run.json", clips=[{**clips[0], "void_share": 0.125}, {**clips[1], "void_share": 0.0}])
    page = page_of(run)
    parser = PageParser(page)
    assert "void in base" in parser.texts
    assert {"12.5 %", "12.50 %"} & set(parser.texts)
    assert "base pixels without a label" in parser.texts
    assert "void left" not in page  # runs of before do not say
    edit_json(run / "run.json", command="classify", settings={"classifier": "nano", "base": None})
    assert "void in base" not in page_of(run)


def test_void_that_is_left_stands_beside_the_void_that_was(tmp_path: Path) -> None:
    run = make_run(tmp_path, clips=("a", "b"))
    clips = json.loads((run / "run.json").read_text())["clips"]
    voids = [{"void_share": 0.5, "void_left_share": 0.25}, {"void_share": 0.0, "void_left_share": 0.0}]
    edit_json(run / "run.json", clips=[clip | own for clip, own in zip(clips, voids, strict=True)])
    texts = [text for text in PageParser(page_of(run)).texts if "%" in text or "void" in text or "label" in text]
    at = texts.index("pixels left without a label")
    assert texts[at - 2 : at + 2] == [
        "base pixels without a label", "25.00 %", "pixels left without a label", "12.50 %",
    ]  # fmt: skip
    at = texts.index("void left")
    assert texts[at - 1 : at + 5] == ["void in base", "void left", "50.00 %", "25.00 %", "0.00 %", "0.00 %"]
    edit_json(run / "run.json", command="classify", settings={"classifier": "nano", "base": None})
    texts = PageParser(page_of(run)).texts
    assert ("void left" in texts, "void in base" in texts) == (True, False)


# ---- embedded frames


def test_embedded_label_maps_hold_train_ids_as_opaque_grey(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    frame = block(page, "clip-0")["frames"][1]
    image = pixels(frame["refined"])
    # Raw ids 1, 2, 3 are the classes 0, 1, 2; void 0 becomes 255; frame 1 has raw id 2 in its first pixel.
    assert image.mode == "L"
    assert np.array(image).tolist() == [[1, 1, 2], [255, 1, 1]]
    assert pixels(frame["picture"]).size == (3, 2)
    assert block(page, "report-data")["ignore"] == 255


def test_more_than_255_classes_are_embedded_as_low_and_high_byte(tmp_path: Path) -> None:
    label_set = {"name": "many", "classes": [{"id": i, "name": f"c{i}"} for i in range(300)]}
    raw = np.array([[0, 255, 256], [299, 65535, 1]], np.uint16)
    page = page_of(make_run(tmp_path, num_frames=1, raw=raw, label_set=label_set))
    assert block(page, "report-data")["isWide"] is True
    read = np.array(pixels(block(page, "clip-0")["frames"][0]["refined"])).astype(int)
    # The first pixel of frame 0 is 1 + 0 % 3 = 1.
    assert (read[..., 0] + 256 * read[..., 1]).tolist() == [[1, 255, 256], [299, 65535, 1]]


@settings(max_examples=8, deadline=None)
@given(st.integers(481, 700), st.integers(2, 40), st.integers(0, 2**31))
def test_large_maps_shrink_to_480_columns_by_nearest_pixel(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, seed: int
) -> None:
    raw = np.random.default_rng(seed).integers(1, 4, (height, width)).astype(np.uint8)
    page = page_of(make_run(tmp_path_factory.mktemp("run"), num_frames=1, raw=raw))
    raw[0, 0] = 1
    clip = block(page, "clip-0")
    new_height = max(1, round(height * 480 / width))
    assert clip["size"] == [480, new_height]
    expected = np.zeros((new_height, 480), np.uint8)
    for y in range(new_height):
        for x in range(480):  # the source pixel under the centre (y + 1/2, x + 1/2), in whole numbers
            expected[y, x] = raw[(2 * y + 1) * height // (2 * new_height), (2 * x + 1) * width // 960] - 1
    assert (np.array(pixels(clip["frames"][0]["refined"])) == expected).all()
    assert "at most 480 pixels wide" in page


def test_maps_of_other_sizes_are_brought_to_the_size_of_the_refined_ones(tmp_path: Path) -> None:
    make_run(tmp_path, num_frames=1)
    save_labels(tmp_path / "base" / "street" / "0000.png", np.full((4, 6), 3, np.uint8))
    frame = block(page_of(tmp_path), "clip-0")["frames"][0]
    assert np.array(pixels(frame["base"])).tolist() == [[2, 2, 2], [2, 2, 2]]


def test_long_clips_are_thinned_evenly_and_the_page_says_so(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, num_frames=10), max_frames=4)
    clip = block(page, "clip-0")
    assert [frame["index"] for frame in clip["frames"]] == [0, 3, 6, 9]
    assert [frame["name"] for frame in clip["frames"]] == ["0000", "0003", "0006", "0009"]
    assert len(clip["series"]["coverage"]) == clip["total"] == 10
    assert "street: 4 of 10 frames are shown, evenly spread" in PageParser(page).text


def test_clips_that_fit_are_not_said_to_be_thinned(tmp_path: Path) -> None:
    assert "evenly spread" not in text_of(make_run(tmp_path, num_frames=4), max_frames=4)


def test_thinning_prefers_frames_that_have_a_picture(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, num_frames=10, preview_step=4), max_frames=4)
    assert [frame["index"] for frame in block(page, "clip-0")["frames"]] == [0, 4, 8]


@given(st.integers(0, 500), st.integers(1, 60))
def test_thinned_positions_are_ascending_even_and_hold_both_ends(num_items: int, limit: int) -> None:
    positions = thin(num_items, limit)
    assert len(positions) == min(num_items, limit)
    gaps = {b - a for a, b in itertools.pairwise(positions)}
    assert all(gap >= 1 for gap in gaps)
    assert len(gaps) <= 2
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    if num_items and limit > 1:
        assert (positions[0], positions[-1]) == (0, num_items - 1)


@pytest.mark.parametrize(
    ("num_clips", "expected"),
    # A page holds 4 * 120 = 480 frames: 480 / 6 = 80 a clip; never under 8 a clip, so at most 480 / 8 = 60 clips.
    [(1, (120, 4)), (4, (120, 4)), (6, (80, 6)), (60, (8, 60)), (343, (8, 60)), (0, (120, 4))],
)
def test_many_clips_share_the_frames_of_a_page(num_clips: int, expected: tuple[int, int]) -> None:
    assert share_frames(num_clips, 120) == expected


def test_every_clip_has_its_own_block_and_choice(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, clips=("a", "b")))
    assert [block(page, f"clip-{i}")["name"] for i in range(2)] == ["a", "b"]
    assert '<option value="1">b</option>' in page
    assert "8 frames of 2 clips" in PageParser(page).text


def test_clips_without_a_viewer_are_counted(tmp_path: Path) -> None:
    # One frame a clip: 4 * 1 = 4 frames a page, of which a clip may have 1, so 4 of 5 clips are shown.
    page = page_of(make_run(tmp_path, num_frames=2, clips=tuple("abcde")), max_frames=1)
    assert "The viewer holds 4 of 5 clips" in PageParser(page).text
    assert 'id="clip-4"' not in page


# ---- numbers


def test_scores_stand_in_percent_with_signed_differences(tmp_path: Path) -> None:
    scores = {
        "base": {"scores": {"mIoU": 0.5092, "mVC8": 0.9256, "wIoU": 0.5, "frames": None}},
        "refined": {"scores": {"mIoU": 0.5826, "mVC8": 0.9251, "wIoU": 0.5, "extra": float("nan")}},
    }
    (make_run(tmp_path) / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path)
    table = page[page.index('<table id="scores">') : page.index("</table>", page.index('<table id="scores">'))]
    cells = re.findall(r"<td>(.*?)</td>", table)
    # 58.26 - 50.92 = 7.34; 92.51 - 92.56 = -0.05; metrics without any value are left out.
    assert cells == [
        *["50.92", "92.56", "50.00"],
        *["58.26", "92.51", "50.00"],
        '<span class="good">+7.34</span>',
        '<span class="bad">\N{MINUS SIGN}0.05</span>',
        '<span class="same">0.00</span>',
    ]
    assert "mIoU rose from 50.92 to 58.26 %" in PageParser(page).text


def score_table_of(run_dir: Path, difference: Any, videos: int | None = None) -> str:
    """Return the table of a run with mIoU and mVC8 and that `difference` entry, scored over so many videos."""
    parts = {"base": {"mIoU": 0.5, "mVC8": 0.9}, "refined": {"mIoU": 0.512, "mVC8": 0.89}}
    scores: dict[str, Any] = {part: {"scores": values} for part, values in parts.items()}
    if videos is not None:
        scores["refined"]["per_video"] = {f"clip {i}": {} for i in range(videos)}
    if difference is not None:
        scores["difference"] = difference
    (make_run(run_dir) / "scores.json").write_text(json.dumps(scores))
    page = page_of(run_dir)
    start = page.index('<table id="scores">')
    return page[start : page.index("</table>", start)]


def test_differences_carry_their_stored_intervals(tmp_path: Path) -> None:
    stored = {
        "mIoU": {"difference": 0.012, "low": 0.003, "high": 0.021, "clips": 6},
        "mVC8": {"difference": -0.01, "low": -0.02, "high": 0.00001, "clips": 6},
    }
    table = score_table_of(tmp_path, stored)
    assert '+1.20</span> <small class="interval">[+0.30, +2.10]</small>' in table
    assert '<small class="interval">[\N{MINUS SIGN}2.00, +0.00]</small>' in table
    assert "In brackets: 95 % interval, 6 clips" in table


@pytest.mark.parametrize(
    ("difference", "videos", "sentence"),
    [
        (None, 1, "Differences: 1 clip, no interval<"),
        ({"mIoU": {"difference": 0.012, "low": None, "high": None, "clips": 1}}, None, "1 clip, no interval<"),
        (None, 3, "Differences: 3 clips, no interval stored<"),
        (None, None, "Differences without an interval<"),
        ("damaged", None, "Differences without an interval<"),
        ({"mIoU": "damaged", "mVC8": {"low": 0, "high": "x", "clips": []}}, None, "Differences without an interval<"),
        (
            {"mIoU": {"low": 0, "high": 0.1, "clips": 3}, "mVC8": {"low": 0, "high": 0.1, "clips": 5}},
            None,
            "In brackets: 95 % intervals, 3 to 5 clips<",
        ),
    ],
)
def test_where_there_is_no_interval_the_table_says_why(
    tmp_path: Path, difference: Any, videos: int | None, sentence: str
) -> None:
    assert sentence in score_table_of(tmp_path, difference, videos)


@pytest.mark.parametrize(
    "per_class",
    [
        {"sky": 0.25, "road": float("nan")},
        {"sky": {"IoU": 0.25}, "road": {"IoU": None}},
        {"IoU": {"sky": 0.25, "road": None}},
        {"IoU": [0.25, None]},
    ],
)
def test_class_bars_understand_the_usual_forms(tmp_path: Path, per_class: Any) -> None:
    (make_run(tmp_path) / "scores.json").write_text(json.dumps({"refined": {"per_class": per_class}}))
    page = page_of(tmp_path)
    bars = page[page.index('id="class-scores"') : page.index("</ul>", page.index('id="class-scores"'))]
    assert bars.count("<li>") == 1
    assert 'class="refined" style="width:25.00%"' in bars
    assert "<b>25.0</b>" in bars
    assert "1 class without a single pixel" in PageParser(page).text


def test_without_scores_and_truth_the_page_shows_neither(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    assert 'id="scores"' not in page
    assert 'id="class-scores"' not in page
    assert 'data-panel="truth"' not in page
    assert block(page, "clip-0")["panels"] == ["base", "refined"]


def test_summary_and_overview_tell_means_over_frames(tmp_path: Path) -> None:
    text = text_of(make_run(tmp_path, num_frames=4))
    assert (
        "4 frames of street, labelled by stored, refined with masklets of SAM 2 (nano) in windows of 3 frames" in text
    )
    assert "25.00 % of the pixels changed class, flicker fell from 20.00 to 10.00 %." in text
    assert "pixels inside masklets 50.00 %" in text
    assert "time per frame 1.00 s" in text  # (1 + 3) s / 4 frames
    assert "track 3.00 s 75.0 %" in text


def test_further_scores_stand_behind_the_headline_ones(tmp_path: Path) -> None:
    scores = {part: {"scores": {"mIoU": 0.5, "boundary": 0.25}} for part in ("base", "refined")}
    (make_run(tmp_path) / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path)
    details = page[page.index("<details>") : page.index("</details>")]
    assert "1 further score<" in details
    assert "boundary" in details
    assert "mIoU" not in details
    assert "mIoU stayed at 50.00 %." in PageParser(page).text


@pytest.mark.parametrize(
    ("run_settings", "sentence"),
    [
        (
            {"segmenter": "b2", "sam2": "tiny", "masklets": {"window": 8}},
            "labelled by b2, refined with masklets of SAM 2",
        ),
        ({"labels": "/data/preds", "segmenter": None, "tracker": "superpixel"}, "with stored labels (preds), refined"),
        ({"segmenter": "b2", "tracker": "none"}, "labelled by b2, without masklets"),
        ({"tracker": "superpixel"}, "of street, refined with masklets of superpixel:"),
    ],
)
def test_summary_says_where_labels_and_masklets_came_from(
    tmp_path: Path, run_settings: dict[str, Any], sentence: str
) -> None:
    assert sentence in text_of(make_run(tmp_path, settings=run_settings))


def test_masklets_carry_id_class_share_and_predicted_iou(tmp_path: Path) -> None:
    make_run(tmp_path, num_frames=3)
    line = json.loads((tmp_path / "windows.jsonl").read_text())
    line["masklets"] += [
        {"id": 8, "class": "road"},
        {"id": 9, "class": -1, "vote_share": 0.0},
        {"id": 10, "class": "x"},
    ]
    (tmp_path / "windows.jsonl").write_text(json.dumps(line))
    window = block(page_of(tmp_path), "clip-0")["windows"][0]
    assert window["rows"] == [[7, 1, 0.75, 0.9], [8, 1, None, None], [9, None, 0.0, None], [10, "x", None, None]]


@pytest.mark.parametrize(
    ("extra", "counts", "expected"),
    [
        ({"time_s": [0.5, 1.0, 9.0]}, {"time_base": "1/100"}, [0.5, 1.0, 9.0]),
        ({"pts": [0, 1001, None]}, {"time_base": "1/2002"}, [0.0, 0.5, None]),
        ({"pts": [0, 45, 90]}, {"time_base": [1, 90]}, [0.0, 0.5, 1.0]),
        ({"pts": [0, 1, 2]}, {"fps": 4}, [0.0, 0.25, 0.5]),
        ({"pts": [0, 1, 2]}, {"fps": "0/0"}, [None, None, None]),
        ({}, {}, [None, None, None]),
    ],
)
def test_times_come_from_the_best_source_there_is(
    tmp_path: Path, extra: dict[str, Any], counts: dict[str, Any], expected: list[float | None]
) -> None:
    make_run(tmp_path, num_frames=3)
    line = json.loads((tmp_path / "windows.jsonl").read_text())
    (tmp_path / "windows.jsonl").write_text(json.dumps({**line, **extra}))
    edit_json(tmp_path / "run.json", clips=[{"name": "street", **counts}])
    assert list(read_run(tmp_path).clips[0].times_s) == expected


# ---- what is missing or wrong


def test_frames_without_pictures_are_shown_with_labels_alone(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, preview_step=0))
    assert "picture" not in block(page, "clip-0")["frames"][0]
    assert "holds no input pictures" in PageParser(page).text


def test_an_unfinished_run_shows_what_is_there_and_says_so(tmp_path: Path) -> None:
    counts = {"frames_expected": 9, "frames_decoded": 6, "frames_refined": None}
    make_run(tmp_path, num_frames=6, status="running", clips=("street",))
    edit_json(tmp_path / "run.json", clips=[{"name": "street", **counts}, {"name": "not begun"}], stage_seconds=None)
    with open(tmp_path / "windows.jsonl", "a") as file:
        file.write('{"video": "street", "start": 6, "fra')
    page = page_of(tmp_path)
    text = PageParser(page).text
    assert "This run is not finished (its status is “running”)" in text
    assert "1 line of windows.jsonl cannot be read" in text
    assert "street: decoded 6 of 9 expected frames." in text
    assert "not begun" in text
    assert len(block(page, "clip-0")["frames"]) == 6


def test_a_run_without_any_frame_gives_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"package": "sam2vss", "format_version": 1, "status": "running"}')
    page = page_of(tmp_path)
    assert re.search(r'<section class="card" id="no-frames" ?>', page)
    assert 'id="clip-0"' not in page
    assert "does not say what its classes are called" in PageParser(page).text


def test_a_finished_run_has_no_warnings(tmp_path: Path) -> None:
    assert 'id="warnings"' not in page_of(make_run(tmp_path))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((5, 4, 4, 4), "street: decoded 4 of 5 expected frames."),
        ((3, 4, 4, 4), "street: decoded 4 frames where the file announced 3."),
        ((4, 4, 3, 3), "street: refined 3 of 4 decoded frames"),
        ((4, 4, 4, 2), "street: wrote 2 label maps for 4 refined frames."),
    ],
)
def test_frames_that_do_not_add_up_are_named(tmp_path: Path, counts: tuple[int, ...], message: str) -> None:
    make_run(tmp_path)
    stages = ("expected", "decoded", "refined", "written")
    entry = {f"frames_{stage}": number for stage, number in zip(stages, counts, strict=True)}
    edit_json(tmp_path / "run.json", clips=[{"name": "street", **entry}])
    text = text_of(tmp_path)
    assert message in text
    assert text.count("street: ") == 1


def test_what_cut_a_clip_short_is_told(tmp_path: Path) -> None:
    make_run(tmp_path)
    edit_json(tmp_path / "run.json", clips=[{"name": "street", "error": "the file breaks at frame 3"}])
    assert "street: the file breaks at frame 3" in text_of(tmp_path)


def test_a_window_written_twice_counts_once_and_the_later_line_wins(tmp_path: Path) -> None:
    make_run(tmp_path, num_frames=3)
    line = json.loads((tmp_path / "windows.jsonl").read_text())
    again = {**line, "coverage": [0.9, 0.9, 0.9]}
    (tmp_path / "windows.jsonl").write_text(f"{json.dumps(line)}\n\n{json.dumps(again)}\n")
    clip = read_run(tmp_path).clips[0]
    assert clip.frames == ("0000", "0001", "0002")
    assert clip.series["coverage"] == [0.9, 0.9, 0.9]


def test_without_windows_the_label_files_say_which_frames_there_are(tmp_path: Path) -> None:
    make_run(tmp_path, num_frames=0)
    for name in ("f10", "f9", "f1"):
        save_labels(tmp_path / "labels" / "street" / f"{name}.png", np.ones((2, 2), np.uint8))
    assert read_run(tmp_path).clips[0].frames == ("f1", "f9", "f10")


def test_missing_and_unreadable_label_files_are_counted(tmp_path: Path) -> None:
    make_run(tmp_path, num_frames=6)
    labels = tmp_path / "labels" / "street"
    (labels / "0000.png").unlink()
    (labels / "0001.png").write_bytes(b"no picture")
    whole = (labels / "0002.png").read_bytes()
    (labels / "0002.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (3, 2)).save(labels / "0003.png")
    page = page_of(tmp_path)
    text = PageParser(page).text
    assert "street: 1 frame named in windows.jsonl, but without a label file" in text
    assert "street: 2 frames with an unreadable file in labels/" in text
    assert "street: 1 frame with a colour picture instead of class ids in labels/" in text
    assert [frame["index"] for frame in block(page, "clip-0")["frames"]] == [4, 5]


def test_unreadable_pictures_are_counted_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "preview" / "street" / "0001.jpg").write_bytes(b"no picture")
    page = page_of(tmp_path)
    assert "1 frame with an unreadable picture" in PageParser(page).text
    assert ["picture" in frame for frame in block(page, "clip-0")["frames"]] == [True, False, True, True]


def test_ids_outside_the_label_set_are_shown_as_void_and_named(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, num_frames=1, raw=np.array([[1, 9]], np.uint8)))
    assert "labels hold the ids [9] that are not in the label set" in PageParser(page).text
    assert np.array(pixels(block(page, "clip-0")["frames"][0]["refined"])).tolist() == [[0, 255]]


def test_names_and_links_that_lead_out_of_the_run_folder_are_not_followed(tmp_path: Path) -> None:
    save_labels(tmp_path / "secret" / "0000.png", np.ones((2, 2), np.uint8))
    (tmp_path / "secret.mp4").write_bytes(b"")
    make_run(tmp_path / "run", num_frames=1)
    (tmp_path / "run" / "labels" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "overlay").mkdir()
    (tmp_path / "run" / "overlay" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    entries = [{"video": video, "start": 0, "frames": ["0000"]} for video in ("../../secret", "link")]
    (tmp_path / "run" / "windows.jsonl").write_text("\n".join(map(json.dumps, entries)))
    page = page_of(tmp_path / "run")
    assert block(page, "clip-0")["name"] == "street"  # from its label files
    assert 'id="clip-1"' not in page
    assert ".mp4" not in page.replace("in.mp4", "")


def test_overlay_is_linked_relative_to_the_page(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", clips=("my street #1",))
    video = tmp_path / "runs" / "a" / "overlay" / "my street #1.mp4"
    video.parent.mkdir()
    video.write_bytes(b"")
    assert 'href="./overlay/my%20street%20%231.mp4"' in page_of(tmp_path / "runs" / "a")
    elsewhere = page_of(tmp_path / "runs" / "a", out=tmp_path / "page.html")
    assert 'href="./runs/a/overlay/my%20street%20%231.mp4"' in elsewhere


def test_masklets_beyond_the_limit_are_left_out_by_whole_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2vss.report.MAX_MASKLET_ROWS", 1)
    windows = block(page_of(make_run(tmp_path, num_frames=6)), "clip-0")["windows"]
    assert [window["rows"] is None for window in windows] == [False, True]
    assert [window["masklets"] for window in windows] == [1, 1]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run\.json.*sam2vss refine"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot read"), ("[]", "expected a JSON object"), ('{"label_set": {}}', "not written by sam2vss")],
)
def test_a_damaged_run_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        write_report(tmp_path)


def test_a_page_of_no_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 1, found 0"):
        write_report(make_run(tmp_path), max_frames=0)


def test_a_page_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(MediaError, match=r"cannot write .*labels"):
        write_report(tmp_path, out=tmp_path / "labels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package": "other"}, "was not written by sam2vss; pass a folder of `sam2vss refine`, `classify`"),
        ({"format_version": 99}, "has run format 99, this version of sam2vss reads 1"),
        ({"label_set": {}}, "damaged label_set"),
        ({"label_set": {"classes": [{"id": 1, "name": "a", "color": [999, 0, 0]}]}}, "damaged label_set"),
    ],
)
def test_a_foreign_or_damaged_run_is_refused_and_an_earlier_page_stays(tmp_path, changes, message):
    make_run(tmp_path)
    edit_json(tmp_path / "run.json", **changes)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(RunError, match=message):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("clips", [[1, 2], 5, {"a": 1}, "street"])
def test_entries_of_clips_that_are_none_become_a_warning(tmp_path, clips):
    make_run(tmp_path)
    edit_json(tmp_path / "run.json", clips=clips)
    assert "run.json lists clips that cannot be read" in PageParser(page_of(tmp_path)).text


@pytest.mark.parametrize(
    "changes",
    [
        {"start": float("inf")}, {"masklets": [1, 2]}, {"masklets": {"id": 1}}, {"frames": 5}, {"frames": "ab"},
    ],
)  # fmt: skip
def test_damaged_entries_of_a_window_leave_its_line_out_with_a_warning(tmp_path, changes):
    make_run(tmp_path, num_frames=6)
    first, second = (tmp_path / "windows.jsonl").read_text().splitlines()
    (tmp_path / "windows.jsonl").write_text(json.dumps({**json.loads(first), **changes}) + f"\n{second}\n")
    page = page_of(tmp_path)
    assert "1 line of windows.jsonl cannot be read" in PageParser(page).text
    assert [frame["name"] for frame in block(page, "clip-0")["frames"]] == ["0003", "0004", "0005"]


@pytest.mark.parametrize(
    "changes",
    [
        {"masklets": [{"id": float("nan"), "class": 10**400, "vote_share": 10**400}]},
        {"coverage": [10**400, None, "x"], "time_s": {"a": 1}},
        {"pts": [1e300] * 3},
    ],
)
def test_impossible_numbers_are_shown_as_unknown(tmp_path, changes):
    make_run(tmp_path, num_frames=3)
    (tmp_path / "windows.jsonl").write_text(
        json.dumps({**json.loads((tmp_path / "windows.jsonl").read_text()), **changes})
    )
    edit_json(tmp_path / "run.json", clips=[{"name": "street", "time_base": 1e300, "frames_decoded": 10**400}])
    assert len(block(page_of(tmp_path), "clip-0")["frames"]) == 3


def test_a_line_separator_in_a_frame_name_does_not_cut_its_window(tmp_path):
    make_run(tmp_path, num_frames=1)
    window = json.loads((tmp_path / "windows.jsonl").read_text()) | {"frames": ["a\u2028b"]}
    (tmp_path / "windows.jsonl").write_text(json.dumps(window, ensure_ascii=False) + "\n")
    assert read_run(tmp_path).clips[0].frames == ("a\u2028b",)
    assert read_run(tmp_path).warnings == []


def test_a_folder_name_that_is_too_long_is_no_run_folder(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder.*`classify`"):
        write_report(tmp_path / ("x" * 300))
