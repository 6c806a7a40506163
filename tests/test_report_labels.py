"""Which label sets a report shows and what it calls them: classified runs, runs without base labels, further labels."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2vss.report_data import read_run
from sam2vss.report_frames import share_frames
from sam2vss.report_labels import LabelWords, label_sets, label_words
from sam2vss.report_scores import UNKNOWN
from toy_report import HOSTILE, PageParser, block, edit_json, make_run, page_of, pixels, save_labels, text_of

REFINED = LabelWords("refined", has_base=True)
CLASSIFIED = LabelWords("classified", has_base=True, decides=True)
WITHOUT_BASE = LabelWords("classified", has_base=False, decides=True)
DECIDED = LabelWords("refined", has_base=True, decides=True)
CLASSIFY = {"command": "classify", "settings": {"classifier": "/models/i-nano", "base": None, "sam2": "nano"}}


def save_clip(folder: Path, maps: list[np.ndarray | None], clip: str = "street") -> Path:
    """Write raw maps as `<clip>/0000.png` and so on, None for a frame that is missing."""
    for i, raw in enumerate(maps):
        if raw is not None:
            save_labels(folder / clip / f"{i:04d}.png", raw)
    return folder


def constant(value: int) -> np.ndarray:
    return np.full((2, 3), value, np.uint8)


def table_of(page: str, table_id: str) -> str:
    start = page.index(f'<table id="{table_id}">')
    return page[start : page.index("</table>", start)]


# ---- words


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"command": "refine", "settings": {"base": None}}, REFINED),
        ({"command": "refine", "settings": {"fusion": "nano-any"}}, DECIDED),
        ({"command": "demo", "settings": {"segmenter": "nano"}}, REFINED),
        ({}, REFINED),
        ({"command": ["classify"], "settings": 5}, REFINED),
        ({"command": "classify", "settings": {"base": None}}, WITHOUT_BASE),
        ({"command": "classify", "settings": {"base": "labels"}}, CLASSIFIED),
        ({"command": "classify", "settings": {}}, CLASSIFIED),  # only an explicit None says that there is no base
        ({"command": "classify"}, CLASSIFIED),
        ({"command": "demo", "settings": {"classifier": "nano", "base": None}}, WITHOUT_BASE),
        ({"command": "demo", "settings": {"classifier": "nano", "base": "nano"}}, CLASSIFIED),
    ],
)
def test_words_follow_from_command_and_settings(info: dict[str, Any], words: LabelWords) -> None:
    assert label_words(info) == words


def test_panels_stand_in_order_and_a_sixth_further_set_has_the_first_colour_again() -> None:
    others = {f"set {i}": Path("x") for i in range(6)}
    sets = label_sets(Path("run"), REFINED, others)
    assert [labels.name for labels in sets] == ["base", "refined", *others, "truth"]
    assert [labels.tone for labels in sets[2:-1]] == ["tone-1", "tone-2", "tone-3", "tone-4", "tone-5", "tone-1"]
    assert [labels.key for labels in label_sets(Path("run"), WITHOUT_BASE, {})] == ["refined", "truth"]


# ---- classified runs


def test_a_classified_run_without_base_shows_nothing_about_base_labels(tmp_path: Path) -> None:
    make_run(tmp_path, **CLASSIFY)
    entry = {"scores": {"mIoU": 0.5, "extra": 0.25}, "per_class": {"sky": 0.25}}
    scores = {"base": entry, "refined": entry, "difference": {"mIoU": {"low": 0, "high": 1, "clips": 6}}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path)
    parser = PageParser(page)
    clip = block(page, "clip-0")
    assert clip["panels"] == ["refined"]
    assert "base" not in clip["frames"][0]
    assert sorted(clip["series"]) == ["coverage", "flip_refined"]
    data = block(page, "report-data")
    assert data["labelSets"] == [{"key": "refined", "name": "classified", "tone": "refined"}]
    assert (data["hasBase"], data["abstained"]) == (False, "stays unlabelled")
    assert "masklets of SAM 2 (nano) classified by i-nano, without base labels: flicker 10.00 %, mIoU 50.00 %." in (
        parser.text
    )
    assert "Classified labels" in parser.text
    for word in ("refined", "Base labels", "pixels changed", "changed class", "ifference", "interval"):
        assert word not in parser.text, word
    assert re.findall(r"<td>(.*?)</td>", table_of(page, "scores")) == ["50.00"]
    assert re.findall(r"<td>(.*?)</td>", table_of(page, "more-scores")) == ["25.00"]
    bars = page[page.index('id="class-scores"') : page.index("</ul>", page.index('id="class-scores"'))]
    assert bars.count('class="bar"') == 1


@pytest.mark.parametrize(
    ("run_settings", "over"),
    [
        ({"base": "org/segformer-b1"}, "over base labels (segformer-b1)"),
        ({"base": {"labels": "/data/preds"}}, "over base labels (preds)"),
        ({}, "over base labels:"),
    ],
)
def test_a_classified_run_with_base_shows_base_and_classified(
    tmp_path: Path, run_settings: dict[str, Any], over: str
) -> None:
    scores = {part: {"scores": {"mIoU": 0.5}} for part in ("base", "refined")}
    (make_run(tmp_path, command="classify", settings=run_settings) / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path)
    text = PageParser(page).text
    assert block(page, "clip-0")["panels"] == ["base", "refined"]
    assert "Base labels Classified labels" in text
    assert "flicker, base \N{RIGHTWARDS ARROW} classified 20.00 % \N{RIGHTWARDS ARROW} 10.00 %" in text
    assert "25.00 % of the pixels changed class, flicker fell from 20.00 to 10.00 %, mIoU stayed at 50.00 %." in text
    assert f"masklets classified, {over}" in text
    assert "decoded classified written" in text
    assert "refined" not in text
    assert block(page, "report-data")["maker"] == "classifier"


def test_frames_that_do_not_add_up_are_told_in_the_words_of_the_run(tmp_path: Path) -> None:
    make_run(tmp_path, **CLASSIFY)
    counts = {"frames_decoded": 4, "frames_refined": 3, "frames_written": 2}
    edit_json(tmp_path / "run.json", clips=[{"name": "street", **counts}])
    text = text_of(tmp_path)
    assert "street: classified 3 of 4 decoded frames" in text
    assert "street: wrote 2 label maps for 3 classified frames." in text


def test_settings_that_the_page_does_not_know_are_shown_as_they_are(tmp_path: Path) -> None:
    encoder = {"id": "dino", "levels": [1, 2], "empty": {}}
    page = page_of(make_run(tmp_path, settings={"encoder": encoder, "combine": None, "fusion": "f.safetensors"}))
    text = PageParser(page).text
    assert "encoder.id dino encoder.levels [1, 2] encoder.empty {} combine null fusion f.safetensors" in text


# ---- further labels


def test_further_labels_have_panels_between_refined_and_truth(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", folders=("labels", "base", "truth"))
    others = {
        "I-SAM2": save_clip(tmp_path / "a", [constant(1)] * 4),
        HOSTILE: save_clip(tmp_path / "b", [constant(2)] * 4),
    }
    page = page_of(run, others=others)
    parser = PageParser(page)
    clip = block(page, "clip-0")
    assert clip["panels"] == ["base", "refined", "further-1", "further-2", "truth"]
    canvases = [attributes["data-panel"] for tag, attributes in parser.tags if tag == "canvas"]
    assert canvases == clip["panels"]
    # Raw ids 1 and 2 are the classes 0 and 1.
    assert np.array(pixels(clip["frames"][0]["further-1"])).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert np.array(pixels(clip["frames"][3]["further-2"])).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert [entry["name"] for entry in block(page, "report-data")["labelSets"]][2:4] == ["I-SAM2", HOSTILE]
    assert HOSTILE in parser.texts  # as a title, and nothing of it became markup
    assert "img" not in {tag for tag, _ in parser.tags}
    assert 'id="warnings"' not in page


def test_without_further_labels_only_the_runs_own_are_shown(tmp_path: Path) -> None:
    make_run(tmp_path)
    assert page_of(tmp_path) == page_of(tmp_path, others={})
    assert "further-" not in re.sub(r"<(script|style)>.*?</\1>", "", page_of(tmp_path), flags=re.DOTALL)


def test_flicker_of_further_labels_counts_classes_that_differ_from_the_frame_before(tmp_path: Path) -> None:
    first, second = constant(1), constant(1)
    second[0, :2] = 2
    third = second.copy()
    third[1, 0] = 3
    others = {"other": save_clip(tmp_path / "other", [first, second, None, third, third])}
    page = page_of(make_run(tmp_path / "run", num_frames=5), others=others)
    clip = block(page, "clip-0")
    # 2 of 6 pixels; no third map, so nothing to compare it and the fourth with; the fifth is as the fourth.
    assert clip["series"]["flip_further-1"] == [None, 0.33333, None, None, 0.0]
    assert ["further-1" in frame for frame in clip["frames"]] == [True, True, False, True, True]
    assert "street: 1 frame without a label map of other." in PageParser(page).text


def test_flicker_holds_all_frames_of_a_thinned_clip_and_counts_what_is_missing_once(tmp_path: Path) -> None:
    others = {"other": save_clip(tmp_path / "other", [constant(1 + i % 2) for i in range(8)])}
    page = page_of(make_run(tmp_path / "run", num_frames=10), max_frames=4, others=others)
    assert block(page, "clip-0")["series"]["flip_further-1"] == [None, *[1.0] * 7, None, None]
    assert "street: 2 frames without a label map of other." in PageParser(page).text


def test_void_ids_are_one_class_and_maps_of_another_size_are_not_compared(tmp_path: Path) -> None:
    maps = [constant(0), constant(255), np.full((4, 4), 1, np.uint8)]
    others = {"other": save_clip(tmp_path / "other", maps)}
    run = make_run(tmp_path / "run", num_frames=3)
    page = page_of(run, others=others)
    assert block(page, "clip-0")["series"]["flip_further-1"] == [None, 0.0, None]
    assert pixels(block(page, "clip-0")["frames"][2]["further-1"]).size == (3, 2)


def test_folders_and_clips_that_further_labels_lack_are_named(tmp_path: Path) -> None:
    others = {"<gone>": tmp_path / "gone", "half": save_clip(tmp_path / "half", [constant(1)] * 4, clip="a")}
    page = page_of(make_run(tmp_path / "run", clips=("a", "b")), others=others)
    text = PageParser(page).text
    assert f"<gone>: there is no folder {tmp_path / 'gone'}, so its labels are not shown." in text
    assert "b: half holds no label maps of this clip." in text
    assert [block(page, f"clip-{i}")["panels"] for i in range(2)] == [
        ["base", "refined", "further-1"],
        ["base", "refined"],
    ]
    assert "a: " not in text


def test_files_of_further_labels_that_cannot_be_read_are_counted_once(tmp_path: Path) -> None:
    other = save_clip(tmp_path / "other", [constant(1), constant(9), np.zeros((2, 3, 3), np.uint8)])
    (other / "street" / "0000.png").write_bytes(b"no picture")
    text = text_of(make_run(tmp_path / "run", num_frames=3), others={"other": other})
    assert "street: 1 frame with an unreadable file of other; left out." in text
    assert "street: 1 frame with a colour picture instead of class ids of other; left out." in text
    assert "labels hold the ids [9] that are not in the label set" in text


def test_links_that_lead_out_of_a_folder_of_further_labels_are_not_followed(tmp_path: Path) -> None:
    secret = save_clip(tmp_path / "secret", [constant(1)] * 4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "street").symlink_to(secret / "street")
    page = page_of(make_run(tmp_path / "run"), others={"other": tmp_path / "other"})
    assert block(page, "clip-0")["panels"] == ["base", "refined"]
    assert "street: other holds no label maps of this clip." in PageParser(page).text


def test_a_link_in_place_of_the_runs_own_folder_of_labels_is_not_followed(tmp_path: Path) -> None:
    save_clip(tmp_path / "secret", [constant(1)] * 4)
    run = make_run(tmp_path / "run", folders=("labels",))
    (run / "truth").symlink_to(tmp_path / "secret")
    assert block(page_of(run), "clip-0")["panels"] == ["refined"]


@pytest.mark.parametrize(
    ("num_clips", "num_panels", "expected"),
    # A page holds 4 * 120 frames of 3 panels = 1440 maps: 240 frames of 6 panels, 60 frames of 24 panels.
    [(1, 2, (120, 4)), (1, 6, (120, 2)), (6, 6, (40, 6)), (60, 6, (8, 30)), (1, 24, (60, 1))],
)
def test_more_panels_mean_fewer_frames(num_clips: int, num_panels: int, expected: tuple[int, int]) -> None:
    assert share_frames(num_clips, 120, num_panels) == expected


# ---- scores


def test_further_scores_are_lines_in_file_order_with_the_colour_of_their_panel(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    values = {"fast": 0.3, "base": 0.1, "I-SAM2": 0.4, HOSTILE: 0.5, "refined": 0.2}
    scores = {name: {"scores": {"mIoU": value, "extra": value / 2}} for name, value in values.items()}
    scores["I-SAM2"]["scores"]["mBIoU"] = 0.7
    (run / "scores.json").write_text(json.dumps(scores))
    page = page_of(run, others={"I-SAM2": save_clip(tmp_path / "other", [constant(1)])})
    table = table_of(page, "scores")
    heads = [PageParser(head).text.strip() for head in re.findall(r'<th scope="row">(.*?)</th>', table)]
    assert heads == ["base", "refined", "fast", "I-SAM2", HOSTILE, "refined \N{MINUS SIGN} base"]
    assert re.findall(r"<td>([^<]*)</td>", table) == [
        *["10.00", UNKNOWN],
        *["20.00", UNKNOWN],
        *["30.00", UNKNOWN],
        *["40.00", "70.00"],
        *["50.00", UNKNOWN],
        UNKNOWN,  # mBIoU was gained over nothing
    ]
    assert '<span class="dot tone-1"></span>I-SAM2' in table
    assert '<th scope="row">fast' in table  # has no panel, so no colour
    assert '<span class="good">+10.00</span>' in table
    more = re.findall(r"<td>(.*?)</td>", table_of(page, "more-scores"))
    assert more == ["5.00", "10.00", "15.00", "20.00", "25.00", '<span class="good">+5.00</span>']


@pytest.mark.parametrize("entry", [5, None, "x", [], {}, {"scores": 5}, {"scores": {"mIoU": "high", "wIoU": None}}])
def test_entries_without_scores_are_left_out_and_named(tmp_path: Path, entry: Any) -> None:
    scores = {"base": {"scores": {"mIoU": 0.5}}, "refined": {"scores": {"mIoU": 0.5}}, "<odd>": entry}
    (make_run(tmp_path) / "scores.json").write_text(json.dumps(scores))
    page = page_of(tmp_path)
    assert "Left out of scores.json, as they hold no scores: <odd>." in PageParser(page).text
    assert "odd" not in table_of(page, "scores")
    assert '<th scope="row">difference</th>' in table_of(page, "scores")


def test_scores_of_further_labels_alone_are_shown(tmp_path: Path) -> None:
    (make_run(tmp_path) / "scores.json").write_text(json.dumps({"fast": {"scores": {"mIoU": 0.5}}}))
    assert "50.00" in table_of(page_of(tmp_path), "scores")


def test_reading_a_run_keeps_scores_of_base_labels_that_there_are(tmp_path: Path) -> None:
    make_run(tmp_path, command="classify", settings={"base": "labels"})
    (tmp_path / "scores.json").write_text('{"base": {}, "difference": {}, "refined": {}}')
    assert list(read_run(tmp_path).scores) == ["base", "difference", "refined"]
