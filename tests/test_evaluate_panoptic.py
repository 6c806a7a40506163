import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metrics.panoptic_clips import MADE_UP, MadeUpClip
from sam2vss.cli import run
from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.panoptic_codes import PanopticMap
from sam2vss.datasets.panoptic_folders import PanopticWriter, write_codes
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, render_clip
from sam2vss.errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from sam2vss.evaluate_panoptic import PanopticEvaluation, evaluate_panoptic, panoptic_table
from sam2vss.types import LabelSpace, voc_palette

VIPSEG = find_label_space("vipseg")
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "metrics" / "golden_panoptic.json").read_text())["sets"]
FRAME = PanopticMap(np.array([[0, 60, 60]], np.uint8), np.array([[0, 1, 2]], np.int32))


def frames_of(clip: MadeUpClip, side: str) -> list[PanopticMap]:
    planes = clip.arrays()[:2] if side == "predictions" else clip.arrays()[2:]
    return [PanopticMap(*pair) for pair in zip(*planes, strict=True)]


def write_form(root: Path, clips: dict[str, MadeUpClip], side: str, form: str) -> Path:
    """Write one side of made-up clips as "coco", or as "codes"."""
    writer = PanopticWriter(root, VIPSEG, "VIPSeg_val" if side == "truth" else None)
    for video, clip in clips.items():
        for t, frame in enumerate(frames_of(clip, side)):
            if form == "codes":
                write_codes(root / "panomasks" / video / f"{t:08d}.png", frame, VIPSEG)
            else:
                writer.write(video, f"{t:08d}", frame)
    if form == "coco":
        writer.finish()
    return root


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two videos of two frames in VIPSeg's code, perfectly predicted."""
    for side in ("truth", "predictions"):
        for video in ("a", "b"):
            for frame in ("0", "1"):
                write_codes(tmp_path / side / "panomasks" / video / f"{frame}.png", FRAME, VIPSEG)
    return tmp_path / "truth", tmp_path / "predictions"


def score(roots: tuple[Path, Path], **options: Any) -> PanopticEvaluation:
    return evaluate_panoptic(*roots, **{"windows": (1, 2), **options})


# --- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true_form", ["coco", "codes"])
@pytest.mark.parametrize("predicted_form", ["coco", "codes"])
def test_every_form_gives_the_scores_of_the_published_scripts(tmp_path: Path, true_form: str, predicted_form: str):
    truth = write_form(tmp_path / "truth", MADE_UP["street"], "truth", true_form)
    predictions = write_form(tmp_path / "predictions", MADE_UP["street"], "predictions", predicted_form)
    result = evaluate_panoptic(truth, predictions)
    golden = GOLDEN["street"]
    assert result.scores.stq == pytest.approx(golden["stq_script"][0], abs=1e-12)
    for k, parts in golden["vpq_vipseg"].items():
        assert result.scores.vpq[int(k)].all.pq == pytest.approx(parts["all"][0], abs=1e-12)
    assert (result.scores.frames, result.scores.clips, result.warnings) == (19, 2, ())


def test_crowds_of_the_truth_are_read_from_the_json(tmp_path: Path):
    truth = write_form(tmp_path / "truth", MADE_UP["crowd"], "truth", "coco")
    predictions = write_form(tmp_path / "predictions", MADE_UP["crowd"], "predictions", "coco")
    result = evaluate_panoptic(truth / "panoptic_gt_VIPSeg_val.json", predictions / "pred.json")
    assert result.scores.stq == pytest.approx(GOLDEN["crowd"]["stq_script"][0], abs=1e-12)
    assert result.scores.vpq[8].things.pq == pytest.approx(GOLDEN["crowd"]["vpq_vipseg"]["8"]["things"][0], abs=1e-12)


def test_crowds_of_predictions_are_tubes_like_any_other(tmp_path: Path):
    folder = tmp_path / "pan_pred" / "a"
    folder.mkdir(parents=True)
    Image.fromarray(np.array([[[1, 0, 0], [2, 0, 0], [3, 0, 0]]], np.uint8)).save(folder / "0.png")
    segments = [{"id": i, "category_id": category, "iscrowd": 1} for i, category in ((1, 0), (2, 60), (3, 60))]
    annotations = [{"file_name": "0.png", "segments_info": segments}]
    (tmp_path / "pred.json").write_text(json.dumps({"annotations": [{"video_id": "a", "annotations": annotations}]}))
    write_codes(tmp_path / "truth" / "panomasks" / "a" / "0.png", FRAME, VIPSEG)
    assert score((tmp_path / "truth", tmp_path), windows=(1,)).scores.vpq[1].all.pq == 1


def test_rendered_clips_with_their_exact_objects_score_one_and_less_when_late(tmp_path: Path):
    clip = render_clip(VALIDATION_SEEDS[0], num_frames=4, size=(48, 64))
    things = np.array([kind == "thing" for kind in LABEL_SPACE.kinds])
    objects = np.where(things[clip.labels], clip.objects, 0).astype(np.int32)
    for name, delay in (("truth", 0), ("late", 1)):
        writer = PanopticWriter(tmp_path / name, LABEL_SPACE, "x" if name == "truth" else None)
        for t in range(4):
            source = max(0, t - delay)
            writer.write("v", str(t), PanopticMap(clip.labels[source], objects[source]))
        writer.finish()
    perfect = score((tmp_path / "truth", tmp_path / "truth"))
    assert set(perfect.scores.as_dict().values()) == {1.0}
    late = score((tmp_path / "truth", tmp_path / "late"))
    assert 0.3 < late.scores.stq < 1
    assert 0.3 < late.scores.mean_vpq < 1


def test_classes_are_matched_by_name_where_the_sets_differ(tmp_path: Path, roots: tuple[Path, Path]):
    own = LabelSpace(("person", "wall", "unicorn"), voc_palette(3), kinds=("thing", "stuff", "thing"))
    other = replace(VIPSEG, names=(*VIPSEG.names[:59], "person", "ladle", *VIPSEG.names[61:]))
    with pytest.raises(
        LabelError, match="predictions have 3 classes, the truth 124, and 122 of its names are not among"
    ):
        score((roots[0], roots[0]), prediction_label_space=own)
    result = score(roots, prediction_label_space=other)
    assert any("matched by position (first difference: 'person' counts as" in warning for warning in result.warnings)
    reversed_set = replace(
        VIPSEG, names=VIPSEG.names[::-1], kinds=VIPSEG.kinds[::-1], palette=VIPSEG.palette[::-1].copy()
    )
    writer = PanopticWriter(tmp_path / "reversed", reversed_set)
    for video in ("a", "b"):
        for frame in ("0", "1"):
            writer.write(video, frame, PanopticMap(123 - FRAME.semantic, FRAME.instance))
    writer.finish()
    assert score((roots[0], tmp_path / "reversed")).scores.stq == 1


def write_lists(root: Path, videos: dict[str, list[PanopticMap]]) -> Path:
    """DEVA's form: segment ids from 1 on in every frame's picture, and a JSON list of their categories 0..C-1."""
    for video, frames in videos.items():
        (root / video).mkdir(parents=True)
        for t, frame in enumerate(frames):
            ids, listed = np.zeros(frame.semantic.shape, np.uint8), []
            for category, instance in sorted({*zip(frame.semantic.flat, frame.instance.flat, strict=True)}):
                number = int(instance) or 200  # of stuff there is one segment here
                ids[(frame.semantic == category) & (frame.instance == instance)] = number
                is_thing = VIPSEG.kinds[category] == "thing"
                listed.append({"id": number, "isthing": is_thing, "category_id": int(category)})
            Image.fromarray(ids).save(root / video / f"{t}.png")
            (root / video / f"{t}.json").write_text(json.dumps(listed))
    return root


@pytest.mark.parametrize("true_form", ["coco", "codes"])
def test_lists_of_segments_are_read_and_never_taken_for_codes(tmp_path: Path, true_form: str):
    # ids 200 (a wall), 1 and 2 (persons); as codes they would be an instance of class 2, and the classes 1 and 2
    late = PanopticMap(np.array([[0, 0, 60]], np.uint8), np.array([[0, 0, 2]], np.int32))
    truth = tmp_path / "truth"
    writer = PanopticWriter(truth, VIPSEG, "x")
    for t in range(2):
        if true_form == "codes":
            write_codes(truth / "panomasks" / "a" / f"{t}.png", FRAME, VIPSEG)
        else:
            writer.write("a", str(t), FRAME)
    if true_form == "coco":
        writer.finish()
    right = score((truth, write_lists(tmp_path / "right", {"a": [FRAME, FRAME]})))
    assert (set(right.scores.as_dict().values()) - {None}, right.warnings) == ({1.0}, ())
    wrong = score((truth, write_lists(tmp_path / "wrong", {"a": [FRAME, late]})))
    # by hand: the wall is found once, and once its IoU is 1/2, which is no match; of four persons one is missed
    wall, person = 1 / (1 + 0.5 + 0.5), 3 / (3 + 0.5)
    assert wrong.scores.vpq[1].all.pq == pytest.approx((wall + person) / 2)


def test_lists_of_segments_can_be_the_truth_and_take_categories_by_position(tmp_path: Path, roots: tuple[Path, Path]):
    truth = write_lists(tmp_path / "lists", {"a": [FRAME, FRAME], "b": [FRAME, FRAME]})
    with pytest.raises(
        LabelError, match=r"lists of segments in .*lists do not name their categories: pass --label-set"
    ):
        score((truth, roots[1]))
    assert score((truth, roots[1]), label_space=VIPSEG).scores.stq == 1
    (truth / "label_set.json").write_text(json.dumps(VIPSEG.to_dict()))
    assert score((truth, truth)).scores.stq == 1


def test_a_list_of_segments_in_any_video_is_seen_and_a_missing_one_named(tmp_path: Path, roots: tuple[Path, Path]):
    predictions = write_lists(tmp_path / "lists", {"a": [FRAME, FRAME], "b": [FRAME, FRAME]})
    for path in (predictions / "a").glob("*.json"):
        path.unlink()
    with pytest.raises(LabelError, match=r"2 pictures in .*a have no JSON list of segments \(first: 0\)"):
        score((roots[0], predictions))


def test_a_segment_of_lists_that_changes_its_class_is_noted(tmp_path: Path, roots: tuple[Path, Path]):
    other = PanopticMap(np.array([[0, 61, 60]], np.uint8), FRAME.instance)  # detections are numbered frame by frame
    predictions = write_lists(tmp_path / "lists", {"a": [FRAME, other], "b": [FRAME, FRAME]})
    (warning,) = score((roots[0], predictions)).warnings
    assert "segment 1 of predicted video a changes its class" in warning


def test_codes_without_a_label_set_of_their_own_take_the_truths(tmp_path: Path, roots: tuple[Path, Path]):
    (roots[1] / "panomasks").rename(roots[1] / "own")  # so that nothing says that it is VIPSeg's code
    assert score((roots[0], roots[1] / "own")).scores.stq == 1
    writer = PanopticWriter(tmp_path / "coco", VIPSEG, "x")
    for video in ("a", "b"):
        for frame in ("0", "1"):
            writer.write(video, frame, FRAME)
    writer.finish()
    # categories of a JSON count from 0 and say nothing about the class numbers of codes
    with pytest.raises(LabelError, match="for predictions --prediction-label-set"):
        score((tmp_path / "coco", roots[1] / "own"))
    assert score((tmp_path / "coco", roots[1] / "own"), prediction_label_space=VIPSEG).scores.stq == 1


def test_splits_and_only_choose_videos(roots: tuple[Path, Path]):
    (roots[0] / "val.txt").write_text("b\n")
    assert list(score(roots, split="val").per_video) == ["b"]
    assert list(score(roots, only=["a"]).per_video) == ["a"]
    with pytest.raises(SettingsError, match=r"1 of 2 named videos are not in .* \(c\); it has a, b"):
        score(roots, only=["a", "c"])


# --- what is wrong or left over --------------------------------------------------------------------------------------


def test_frames_without_prediction_are_an_error_that_names_the_first(roots: tuple[Path, Path]):
    (roots[1] / "panomasks" / "b" / "0.png").unlink()
    with pytest.raises(
        MissingPredictionsError, match=r"1 of 4 frames have no prediction in .* \(first: b/0\); it holds a"
    ):
        score(roots)


def test_what_has_no_truth_is_named_in_a_warning(roots: tuple[Path, Path]):
    for place in ("a/7.png", "c/0.png"):
        write_codes(roots[1] / "panomasks" / place, FRAME, VIPSEG)
    warnings = score(roots).warnings
    assert warnings[0] == "1 predicted videos have no truth and were not scored (c)"
    assert warnings[1] == "1 predicted frames have no truth and were not scored (a/7)"
    assert score(roots, only=["b"]).warnings == ()


def test_a_prediction_of_another_size_is_named(roots: tuple[Path, Path]):
    Image.fromarray(np.ones((2, 3), np.uint16)).save(roots[1] / "panomasks" / "a" / "1.png")
    with pytest.raises(ShapeError, match=r"a/1.png is 3 x 2 pixels, its truth .*a/1.png is 3 x 1 pixels"):
        score(roots)


def test_windows_that_no_video_fills_and_unlabelled_pixels_are_said(roots: tuple[Path, Path]):
    write_codes(roots[1] / "panomasks/a/1.png", PanopticMap(np.array([[0, 60, 255]], np.uint8), FRAME.instance), VIPSEG)
    write_codes(roots[0] / "panomasks/b/2.png", FRAME, VIPSEG)
    write_codes(roots[1] / "panomasks/b/2.png", FRAME, VIPSEG)
    result = score(roots, windows=(1, 3, 8))
    assert result.scores.as_dict()["VPQ"] is None
    assert result.warnings == (
        "1 of 2 videos have fewer than 3 frames and have no part in VPQ3 (a)",
        "VPQ8 and the mean over k are undefined: no video has 8 frames; pass smaller windows with --k",
        "6.67 % of the labelled pixels have no class (counted as errors)",  # 1 of 15
    )
    assert "are one window of VPQ3" in score(roots, windows=(1, 3), protocol="deva").warnings[0]


def test_a_segment_that_changes_its_class_is_said(tmp_path: Path):
    folder = tmp_path / "pan_pred" / "a"
    folder.mkdir(parents=True)
    annotations = []
    for frame, category in enumerate((60, 62)):
        Image.fromarray(np.full((1, 3, 3), (7, 0, 0), np.uint8)).save(folder / f"{frame}.png")
        annotations.append({"file_name": f"{frame}.png", "segments_info": [{"id": 7, "category_id": category}]})
    (tmp_path / "pred.json").write_text(json.dumps({"annotations": [{"video_id": "a", "annotations": annotations}]}))
    for frame in range(2):
        write_codes(tmp_path / "truth" / "panomasks" / "a" / f"{frame}.png", FRAME, VIPSEG)
    result = score((tmp_path / "truth", tmp_path))
    assert any("segment 7 of predicted video a changes its class" in warning for warning in result.warnings)


def test_label_sets_without_kinds_cannot_be_scored(tmp_path: Path):
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(LabelError, match="whether they are things"):
        score((tmp_path, tmp_path), label_space=LabelSpace.numbered(3))


# --- how it is shown -------------------------------------------------------------------------------------------------


def test_tables_have_a_row_per_score():
    table = panoptic_table({})
    assert table == [["score"]]


def test_the_command_prints_a_table_and_writes_all_scores(
    roots: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_codes(roots[1] / "panomasks/a/1.png", PanopticMap(FRAME.semantic, np.array([[0, 1, 1]])), VIPSEG)
    out = tmp_path / "scores.json"
    code = run(["evaluate-panoptic", *map(str, roots), "--k", "1", "2", "--json", str(out), "--per-class"])
    printed = capsys.readouterr().out
    assert code == 0
    assert "4 frames of 2 videos" in printed
    content = json.loads(out.read_text())
    assert content["per_video"]["b"]["VPQ2"] == 1
    assert content["per_video"]["a"]["VPQ2"] < 1
    assert content["per_video"]["a"]["frames"] == 2
    assert content["scores"]["SQ"] == 1
    # a: predicted number 1 has both pixels of true 1 and one of true 2, number 2 has the other; b: both right
    # true 1: 1/2 x 2 x 2/3; true 2: 1/2 (1 x 1/4 + 1 x 1/2)
    assert content["scores"]["AQ"] == pytest.approx((2 / 3 + 3 / 8 + 2) / 4)
    assert f"{100 * content['scores']['AQ']:.2f}" in printed
    assert (content["vpq"]["2"]["windows"], content["vpq"]["2"]["stuff"]["PQ"]) == (2, 1)
    person = content["per_class"][60]
    assert (person["name"], person["tubes"], person["IoU"]) == ("person", 4, 1)
    assert content["per_class"][1]["IoU"] is None


def test_the_command_answers_bad_input_with_one_message(
    roots: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["evaluate-panoptic", str(roots[0]), str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in " ".join(capsys.readouterr().err.split())
    assert run(["evaluate-panoptic", *map(str, roots), "--protocol", "vpq"]) == 2
    assert run(["evaluate-panoptic", *map(str, roots), "--k", "0"]) == 2
