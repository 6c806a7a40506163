import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.predictions import PredictionForm
from sam2vss.errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from sam2vss.evaluate import Evaluation, compare, evaluate_folders
from sam2vss.evaluation_tables import curve_table, narrow_tables, scores_table
from sam2vss.metrics import VideoSegMetrics, paired_bootstrap
from sam2vss.types import LabelSpace, voc_palette

SPACE = LabelSpace.numbered(3)
FRAME = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)


def write(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def write_video(folder: Path, frames: int = 3, ids: np.ndarray = FRAME) -> None:
    for t in range(frames):
        write(folder / f"{t:04d}.png", ids)


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two videos of three frames, perfectly predicted."""
    for side in ("truth", "predictions"):
        for video in ("a", "b"):
            write_video(tmp_path / side / video)
    return tmp_path / "truth", tmp_path / "predictions"


@pytest.fixture
def shared_data() -> Path:
    """The recordings that lie beside the repository, if they do."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the recordings of ../shared/data are not there")
    return folder


# --- real recording --------------------------------------------------------------------------------------------------


@pytest.mark.dataset
def test_stored_predictions_of_camvid_get_their_published_scores(shared_data: Path):
    result = evaluate_folders(
        shared_data / "camvid",
        shared_data / "camvid_predictions",
        LabelSpace.from_json(shared_data / "camvid" / "label_set.json"),
        only=["0016E5_15hz_a"],
    )
    assert result.frames == 51
    # README.md of camvid_predictions, first row of its table
    assert scores_table({"base": result.scores}) == [
        ["", "mIoU", "wIoU", "mBIoU", "mVC8", "mVC16"],
        ["base", "50.92", "83.02", "28.22", "92.56", "90.34"],
    ]


# --- numbers and layouts ---------------------------------------------------------------------------------------------


def test_a_perfect_prediction_scores_one_and_says_how_much_it_saw(roots: tuple[Path, Path]):
    seen: list[tuple[int, int, str]] = []
    result = evaluate_folders(*roots, SPACE, windows=(2,), progress=lambda *step: seen.append(step))
    scores = result.to_json()["scores"]
    assert scores.pop("flicker_rate") == 0.0
    assert set(scores.values()) - {None} == {1.0}
    assert (result.frames, result.scores.clips, list(result.per_video), result.warnings) == (6, 2, ["a", "b"], ())
    assert seen == [(1, 6, "a"), (2, 6, "a"), (3, 6, "a"), (4, 6, "b"), (5, 6, "b"), (6, 6, "b")]


@pytest.mark.parametrize("true_layout", ["{}", "data/{}/mask"])
@pytest.mark.parametrize("predicted_layout", ["{}", "data/{}/mask", "labels/{}"])
def test_layouts_of_both_sides_mix_freely(tmp_path: Path, true_layout: str, predicted_layout: str):
    for video in ("a", "b"):
        write_video(tmp_path / "t" / true_layout.format(video))
        write_video(tmp_path / "p" / predicted_layout.format(video), ids=FRAME % 255 % 2)
    result = evaluate_folders(tmp_path / "t", tmp_path / "p", SPACE, windows=(2,))
    assert result.scores.pixel_accuracy == pytest.approx(4 / 5)


def test_one_folder_matches_the_only_video_of_the_other_side_whatever_its_name(tmp_path: Path):
    write_video(tmp_path / "data" / "camera_7" / "mask")
    write_video(tmp_path / "out")
    assert evaluate_folders(tmp_path / "data" / "camera_7", tmp_path / "out", SPACE).scores.miou == 1
    assert list(evaluate_folders(tmp_path, tmp_path / "out", SPACE).per_video) == ["camera_7"]


def test_two_named_videos_never_match_by_being_alone(tmp_path: Path):
    write_video(tmp_path / "truth" / "a")
    write_video(tmp_path / "predictions" / "b")
    with pytest.raises(MissingPredictionsError, match=r"3 of 3 frames .*it holds b/0000"):
        evaluate_folders(tmp_path / "truth", tmp_path / "predictions", SPACE)


def test_only_scores_a_named_subset(roots: tuple[Path, Path]):
    write_video(roots[1] / "a", ids=np.zeros_like(FRAME))
    assert evaluate_folders(*roots, SPACE, only=["b"]).scores.miou == 1
    assert evaluate_folders(*roots, SPACE).scores.miou < 1
    with pytest.raises(SettingsError, match=r"1 of 2 named videos are not in .* \(c\); it has a, b"):
        evaluate_folders(*roots, SPACE, only=["a", "c"])


def test_stored_numbers_are_turned_into_train_ids_on_both_sides(tmp_path: Path):
    # truth as VSPW stores it: 1..3, void 0 and 255; predictions zero-based in 16 bits
    one_based = LabelSpace(("x", "y", "z"), voc_palette(3), raw_ids=(1, 2, 3), raw_void=(0, 255))
    write_video(tmp_path / "t" / "a", ids=np.array([[1, 2, 3, 0, 255]], np.uint8))
    write_video(tmp_path / "p" / "a", ids=np.array([[0, 1, 1, 0, 0]], np.uint16))
    result = evaluate_folders(tmp_path / "t", tmp_path / "p", one_based, LabelSpace.numbered(3), windows=(2,))
    assert result.counts["a"].confusion.tolist() == [[3, 0, 0, 0], [0, 3, 0, 0], [0, 3, 0, 0]]
    # without saying so, the same numbers are read as 1-based: 0 is void there, so it is unlabelled
    result = evaluate_folders(tmp_path / "t", tmp_path / "p", one_based, windows=(2,))
    assert result.counts["a"].confusion.tolist() == [[0, 0, 0, 3], [3, 0, 0, 0], [3, 0, 0, 0]]


def test_two_void_ids_of_the_truth_are_two_labels_for_vspw_only(tmp_path: Path):
    space = LabelSpace(("x",), voc_palette(1), raw_ids=(1,), raw_void=(0, 255))
    for t, void in enumerate((0, 255, 255)):
        write(tmp_path / "t" / "a" / f"{t}.png", np.array([[1, void]], np.uint8))
        write(tmp_path / "p" / "a" / f"{t}.png", np.array([[1, t]], np.uint8))  # flips in the void
    vc = {
        protocol: evaluate_folders(tmp_path / "t", tmp_path / "p", space, protocol=protocol, windows=(2,)).scores.vc[2]
        for protocol in ("vspw", "paper")
    }
    # vspw: window (0, 1) alone, where void goes from 0 to 255 -> 1/1; paper: both windows, one of two pixels kept
    assert vc == {"vspw": 1.0, "paper": 0.5}


def test_classes_are_matched_by_name_where_the_predictions_know_all_of_them(tmp_path: Path):
    truth = LabelSpace(("sky", "road"), voc_palette(2))
    richer = LabelSpace(("road", "sea", "sky"), voc_palette(3))
    write_video(tmp_path / "t" / "a", ids=np.array([[0, 1, 1]], np.uint8))
    write_video(tmp_path / "p" / "a", ids=np.array([[2, 0, 1]], np.uint8))  # sky, road, sea
    result = evaluate_folders(tmp_path / "t", tmp_path / "p", truth, richer)
    assert result.counts["a"].confusion.tolist() == [[3, 0, 0], [0, 3, 3]]
    assert any("1 ids without a class in the label set (1;" in warning for warning in result.warnings)
    with pytest.raises(LabelError, match=r"predictions have 1 classes, the truth 2, .*\(sky, road\)"):
        evaluate_folders(tmp_path / "t", tmp_path / "p", truth, LabelSpace.numbered(1))


def test_predicted_ids_outside_the_label_set_are_errors_and_are_reported(roots: tuple[Path, Path]):
    write(roots[1] / "a" / "0001.png", np.array([[77, 0, 1, 255, 2, 99]], np.uint8))
    result = evaluate_folders(*roots, SPACE)
    assert result.scores.unlabelled_share == pytest.approx(2 / 30)  # 6 frames of 5 labelled pixels
    assert result.scores.pixel_accuracy == pytest.approx(28 / 30)
    about_ids, share = result.warnings
    assert "2 ids without a class in the label set (77, 99; first in " in about_ids
    assert "0001.png" in about_ids
    assert share.startswith("6.67 % of the labelled pixels have no class")


def test_wide_predicted_ids_do_not_wrap_around(tmp_path: Path):
    write_video(tmp_path / "t" / "a", ids=np.zeros((1, 2), np.uint8))
    write_video(tmp_path / "p" / "a", ids=np.array([[0, 256]], np.uint16))
    assert evaluate_folders(tmp_path / "t", tmp_path / "p", SPACE).scores.pixel_accuracy == 0.5


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_missing_frames_are_counted_and_the_first_are_named(roots: tuple[Path, Path]):
    (roots[1] / "a" / "0001.png").unlink()
    for path in (roots[1] / "b").iterdir():
        path.unlink()
    with pytest.raises(
        MissingPredictionsError,
        match=r"4 of 6 frames have no prediction in .* \(first: a/0001, b/0000, b/0001, b/0002\), 1 of 2 videos are "
        r"missing as a whole; it holds a/0000",
    ):
        evaluate_folders(*roots, SPACE)


def test_surplus_predictions_are_a_warning(roots: tuple[Path, Path]):
    write(roots[1] / "a" / "0009.png", FRAME)
    write_video(roots[1] / "c")
    result = evaluate_folders(*roots, SPACE)
    assert result.warnings == (
        "1 predicted videos have no truth and were not scored (c)",
        "1 predicted frames have no truth and were not scored (a/0009)",
    )
    assert result.to_json()["warnings"] == list(result.warnings)
    assert result.frames == 6


def test_another_size_names_the_files_and_both_sizes(roots: tuple[Path, Path]):
    write(roots[1] / "b" / "0001.png", np.zeros((2, 4), np.uint8))
    with pytest.raises(
        ShapeError, match=r"b/0001\.png is 4 x 2 pixels, its truth 6 x 1 pixels\..*--resize-predictions"
    ):
        evaluate_folders(*roots, SPACE)


def test_ids_of_the_truth_outside_the_label_set_name_the_file(roots: tuple[Path, Path]):
    write(roots[0] / "a" / "0001.png", FRAME + 5)
    with pytest.raises(LabelError, match=r"a/0001\.png holds the ids \[4, 5, 6, 7\] that are not in"):
        evaluate_folders(*roots, SPACE)


def test_a_video_of_the_truth_without_masks_is_not_skipped_in_silence(tmp_path: Path):
    write_video(tmp_path / "t" / "data" / "a" / "mask")
    write_video(tmp_path / "t" / "data" / "b" / "origin")
    write_video(tmp_path / "p" / "a")
    with pytest.raises(LabelError, match=r"1 of 2 videos .* have no label PNG \(b\)"):
        evaluate_folders(tmp_path / "t", tmp_path / "p", SPACE)
    assert evaluate_folders(tmp_path / "t", tmp_path / "p", SPACE, only=["a"]).frames == 3


def test_an_unknown_protocol_is_refused_before_any_file_is_read(tmp_path: Path):
    with pytest.raises(SettingsError, match="unknown protocol 'best'"):
        evaluate_folders(tmp_path / "nowhere", tmp_path / "nowhere", SPACE, protocol="best")


def test_clips_that_the_protocol_leaves_out_are_reported(roots: tuple[Path, Path]):
    result = evaluate_folders(*roots, SPACE, protocol="cffm")
    assert result.warnings == ("protocol cffm left out 2 clips as too short",)
    assert result.to_json()["dropped_clips"] == 2
    assert result.to_json()["scores"]["mIoU"] is None


# --- the result ------------------------------------------------------------------------------------------------------


def test_the_json_has_the_promised_form_and_no_nan(roots: tuple[Path, Path]):
    content = evaluate_folders(*roots, SPACE).to_json()
    assert json.loads(json.dumps(content, allow_nan=False))["sizes"] == [[1, 6]]
    assert list(content["scores"])[:5] == ["mIoU", "wIoU", "mBIoU", "mVC8", "mVC16"]
    assert content["scores"]["mVC8"] is None  # three frames
    assert content["per_class"]["class 1"]["IoU"] == 1.0
    assert content["per_video"]["b"]["mIoU"] == 1.0
    assert (content["protocol"], content["frames"], content["clips"], content["unlabelled_share"]) == ("vspw", 6, 2, 0)


def test_classes_of_the_same_name_keep_their_own_row():
    metrics = VideoSegMetrics(3)
    metrics.update(np.array([[0, 1, 2]]), np.array([[0, 1, 2]]))
    twins = LabelSpace(("door", "door", "wall"), voc_palette(3))
    assert list(Evaluation.from_metrics(metrics, twins).to_json()["per_class"]) == ["door (0)", "door (1)", "wall"]
    with pytest.raises(LabelError, match="counts of 3 classes do not fit a label set of 2"):
        Evaluation.from_metrics(metrics, LabelSpace.numbered(2))


def test_counts_in_memory_and_in_folders_give_the_same_result(roots: tuple[Path, Path]):
    metrics = VideoSegMetrics(3)
    for video in ("a", "b"):
        metrics.update(np.repeat(FRAME[None], 3, axis=0), np.repeat(FRAME[None], 3, axis=0), clip=video)
    from_memory = Evaluation.from_metrics(metrics, SPACE)
    assert from_memory.to_json() == evaluate_folders(*roots, SPACE).to_json()


def test_the_counts_of_two_evaluations_can_be_bootstrapped(roots: tuple[Path, Path]):
    base = evaluate_folders(roots[0], roots[1], SPACE)
    assert paired_bootstrap(base.counts, base.counts, "mIoU", n=5).clips == 2


@pytest.fixture
def scored() -> Callable[[int], Evaluation]:
    def score(right: int) -> Evaluation:
        """One class, three frames of eight pixels, `right` of them right."""
        metrics = VideoSegMetrics(1, windows=(2, 8))
        metrics.update(np.repeat((np.arange(8) >= right)[None, None] * 255, 3, axis=0), np.zeros((3, 1, 8), int))
        return Evaluation.from_metrics(metrics, LabelSpace.numbered(1))

    return score


def test_the_table_is_in_percent_with_the_difference_last(scored: Callable[[int], Evaluation]):
    base, refined = scored(5), scored(7)
    table = scores_table(
        {"base": base.scores, "refined": refined.scores}, {"refined - base": compare(base, refined, resamples=5)}
    )
    # one class and no edge: no band; VC8 needs more than three frames
    assert table == [
        ["", "mIoU", "wIoU", "mBIoU", "mVC2", "mVC8"],
        ["base", "62.50", "62.50", "-", "100.00", "-"],
        ["refined", "87.50", "87.50", "-", "100.00", "-"],
        ["refined - base", "+25.00", "+25.00", "-", "+0.00", "-"],
        ["  1 clip, no interval", "", "", "", "", ""],
    ]
    assert scores_table({"base": base.scores})[1:] == table[1:2]
    alone = narrow_tables({"base": base.scores}, {"refined - base": compare(base, refined, resamples=5)})[1]
    assert alone[:2] == [["refined - base, 1 clip, no interval", "points"], ["mIoU", "+25.00"]]


def pixel_clips(right: Sequence[int]) -> Evaluation:
    """One class, one frame of four pixels a clip, `right[i]` of them right in clip i."""
    metrics = VideoSegMetrics(1, windows=(2,))
    for clip, count in enumerate(right):
        metrics.update(np.where(np.arange(4) < count, 0, 255)[None], np.zeros((1, 4), int), clip=str(clip))
    return Evaluation.from_metrics(metrics, LabelSpace.numbered(1))


def test_the_difference_of_several_clips_carries_its_interval():
    base, other = pixel_clips([1, 1]), pixel_clips([1, 3])
    found = compare(base, other, resamples=400)["mIoU"]
    # (1 + 3) / 8 - (1 + 1) / 8 = 25 points; drawing the same clip twice gives 0 or 50 points in half of all draws
    assert (found.difference, found.interval, found.clips) == (0.25, (0.0, 0.5), 2)
    table = scores_table({"a": base.scores, "b": other.scores}, {"b - a": compare(base, other, resamples=400)})
    assert [row[:2] for row in table[3:]] == [
        ["b - a", "+25.00"],
        ["  95 % from, 2 clips", "+0.00"],
        ["  95 % to", "+50.00"],
    ]
    turned, differences = narrow_tables({"a": base.scores, "b": other.scores}, {"b - a": compare(base, other)})
    assert turned[:2] == [["", "a", "b"], ["mIoU", "25.00", "50.00"]]
    assert differences[:2] == [["b - a, 2 clips", "points", "from", "to"], ["mIoU", "+25.00", "+0.00", "+50.00"]]


def test_only_sets_that_saw_the_same_can_be_compared(roots: tuple[Path, Path]):
    whole, part = evaluate_folders(*roots, SPACE), evaluate_folders(*roots, SPACE, only=["a"])
    with pytest.raises(MissingPredictionsError, match="clip 'b' is only in the first of the two sets"):
        compare(whole, part)
    with pytest.raises(SettingsError, match="scores under vspw and paper cannot be compared"):
        compare(whole, evaluate_folders(*roots, SPACE, protocol="paper"))


# --- forms of predictions --------------------------------------------------------------------------------------------


def shifted(ids: np.ndarray, offset: int) -> np.ndarray:
    """Move the class ids, not void."""
    return np.where(ids == 255, 255, ids.astype(int) + offset).astype(np.uint8)


def test_one_based_predictions_are_refused_until_the_offset_is_named(roots: tuple[Path, Path]):
    for video in ("a", "b"):
        write_video(roots[1] / video, ids=shifted(FRAME, 1))  # 1 1 2 2 3
    with pytest.raises(
        LabelError,
        match=r"agree with the truth on 0\.0 % of the pixels as they are, and on 80\.0 % with every id moved by -1: "
        r"their ids seem to start at 1 instead of 0 \(first file with an id beyond the classes: .*a/0000\.png\)\. "
        r"Pass --id-offset=-1, or --id-offset=0",
    ):
        evaluate_folders(*roots, SPACE)
    right = evaluate_folders(*roots, SPACE, form=PredictionForm(id_offset=-1))
    assert (right.scores.miou, right.warnings) == (1.0, ())
    as_they_are = evaluate_folders(*roots, SPACE, form=PredictionForm(id_offset=0))
    assert as_they_are.scores.miou == 0.0


def test_zero_based_predictions_of_a_set_that_starts_at_one_are_refused_too(tmp_path: Path):
    space = LabelSpace(("x", "y", "z"), voc_palette(3), raw_ids=(1, 2, 3), raw_void=(255, 0))
    write_video(tmp_path / "t" / "a", ids=np.array([[1, 2, 2, 3, 0, 255]], np.uint8))
    write_video(tmp_path / "p" / "a", ids=np.array([[0, 1, 1, 2, 0, 255]], np.uint8))
    with pytest.raises(LabelError, match=r"seem to start at 0 instead of 1 .*Pass --id-offset=1"):
        evaluate_folders(tmp_path / "t", tmp_path / "p", space)
    found = evaluate_folders(tmp_path / "t", tmp_path / "p", space, form=PredictionForm(id_offset=1))
    assert found.scores.miou == 1


def test_a_constant_prediction_of_the_wrong_class_is_a_suspicion_only(roots: tuple[Path, Path]):
    for video in ("a", "b"):
        write_video(roots[0] / video, ids=np.array([[0, 0, 0, 1]], np.uint8))
        write_video(roots[1] / video, ids=np.array([[1, 1, 1, 1]], np.uint8))
    result = evaluate_folders(*roots, SPACE)
    assert result.scores.pixel_accuracy == 0.25
    assert result.warnings[0].endswith("if their ids are shifted, pass --id-offset=-1")


def test_colours_are_decoded_by_the_label_sets_palette_and_nothing_else(roots: tuple[Path, Path]):
    space = LabelSpace(SPACE.names, np.array([[10, 0, 0], [0, 20, 0], [0, 0, 30]], np.uint8))
    picture = space.colors[FRAME]  # void is black
    for video in ("a", "b"):
        for t in range(3):
            write(roots[1] / video / f"{t:04d}.png", picture)
    with pytest.raises(LabelError, match=r"a/0000\.png is a RGB picture.*--colors"):
        evaluate_folders(*roots, space)
    colors = PredictionForm(colors=True)
    assert evaluate_folders(*roots, space, form=colors).scores.miou == 1
    write(roots[1] / "b" / "0002.png", picture + np.uint8(1))
    with pytest.raises(LabelError, match=r"b/0002\.png holds colours that are not .* 6 pixels, first \(11, 1, 1\)"):
        evaluate_folders(*roots, space, form=colors)


def test_a_colour_of_two_classes_is_refused(roots: tuple[Path, Path]):
    space = LabelSpace(("slide", "sky", "car"), np.array([[140, 140, 140], [1, 2, 3], [140, 140, 140]], np.uint8))
    for video in ("a", "b"):
        for t in range(3):
            write(roots[1] / video / f"{t:04d}.png", space.colors[FRAME])
    with pytest.raises(LabelError, match=r"the colour \(140, 140, 140\), which .* gives to slide and car"):
        evaluate_folders(*roots, space, form=PredictionForm(colors=True))


def test_resized_predictions_are_counted_and_said(roots: tuple[Path, Path]):
    write(roots[1] / "b" / "0001.png", np.repeat(FRAME, 2, axis=1).repeat(2, axis=0))
    result = evaluate_folders(*roots, SPACE, form=PredictionForm(resize=True))
    assert result.scores.miou == 1
    assert result.warnings[0].startswith(
        "1 predictions were resized to their truth's size by the nearest pixel (first:"
    )
    assert "b/0001.png, 12 x 2 pixels to 6 x 1 pixels" in result.warnings[0]


def test_missing_frames_can_count_as_wrong(roots: tuple[Path, Path]):
    (roots[1] / "a" / "0001.png").unlink()
    for path in (roots[1] / "b").iterdir():
        path.unlink()
    result = evaluate_folders(*roots, SPACE, form=PredictionForm(missing="void"))
    assert result.frames == 6
    assert result.scores.pixel_accuracy == pytest.approx(2 / 6)  # two of six frames are there, and right
    assert result.warnings[0].startswith("4 frames have no prediction and count as wrong everywhere (first: a/0001)")
    assert result.scores.unlabelled_share == pytest.approx(4 / 6)


def test_truth_frames_of_several_sizes_name_the_file(roots: tuple[Path, Path]):
    for root in roots:
        write(root / "a" / "0002.png", FRAME[:, :4])
    with pytest.raises(ShapeError, match=r"truth/a/0002\.png is 4 x 1 pixels, the frames of a before it 6 x 1"):
        evaluate_folders(*roots, SPACE)


# --- splits, curve, workers ------------------------------------------------------------------------------------------


def test_a_split_is_the_list_of_the_truth(tmp_path: Path):
    for video in ("a", "b"):
        write_video(tmp_path / "t" / "data" / video / "mask")
        write_video(tmp_path / "p" / video)
    (tmp_path / "t" / "val.txt").write_text("b")  # no newline at the end
    folders = (tmp_path / "t", tmp_path / "p")
    assert list(evaluate_folders(*folders, SPACE, split="val").per_video) == ["b"]
    with pytest.raises(SettingsError, match=r"test\.txt does not exist; it has val"):
        evaluate_folders(*folders, SPACE, split="test")
    with pytest.raises(SettingsError, match="a is not in split val"):
        evaluate_folders(*folders, SPACE, split="val", only=["a"])


def test_the_curve_has_its_own_place_and_leaves_the_scores_alone(roots: tuple[Path, Path]):
    for side in roots:
        write_video(side / "a", frames=40)
    write(roots[1] / "a" / "0010.png", np.zeros_like(FRAME))
    plain, curve = evaluate_folders(*roots, SPACE), evaluate_folders(*roots, SPACE, curve=True)
    assert plain.to_json()["curve"] == {}
    assert list(curve.to_json()["curve"]) == [str(n) for n in range(2, 33)]
    assert curve.curve[8] == plain.scores.vc[8] < 1
    assert dict(curve.scores.vc) == dict(plain.scores.vc)
    heads, row = curve_table({"p": curve.curve})
    assert heads[1:] == ["2", "4", "8", "16", "24", "32", "mean"]
    assert row[3] == f"{100 * curve.curve[8]:.2f}"
    with pytest.raises(SettingsError, match="has no curve: drop --curve"):
        evaluate_folders(*roots, SPACE, protocol="dvis-compat", curve=True)


def test_any_number_of_workers_gives_the_same_result(roots: tuple[Path, Path]):
    write(roots[1] / "a" / "0001.png", np.array([[77, 0, 1, 255, 2, 99]], np.uint8))
    write(roots[1] / "b" / "0002.png", np.array([[7, 0, 1, 255, 2, 99]], np.uint8))
    seen: list[tuple[int, int, str]] = []
    alone = evaluate_folders(*roots, SPACE)
    shared = evaluate_folders(*roots, SPACE, workers=2, progress=lambda *step: seen.append(step))
    assert shared.to_json() == alone.to_json()
    assert seen == [(3, 6, "a"), (6, 6, "b")]
    (roots[1] / "a" / "0001.png").write_bytes(b"")
    with pytest.raises(LabelError, match=r"a/0001\.png is not an image \(0 bytes\)"):
        evaluate_folders(*roots, SPACE, workers=2)


def test_no_workers_are_refused(roots: tuple[Path, Path]):
    with pytest.raises(SettingsError, match="--workers must be at least 1, found 0"):
        evaluate_folders(*roots, SPACE, workers=0)


# --- VIPSeg ----------------------------------------------------------------------------------------------------------


def test_vipsegs_panoptic_codes_are_scored_as_classes(tmp_path: Path):
    space = find_label_space("vipseg")
    wall, person = space.names.index("wall"), space.names.index("person")
    codes = np.array([[1, 6100, 6101, 0]], np.uint16)  # wall, two persons, void
    for t in range(2):
        write(tmp_path / "panomasks" / "v" / f"{t:04d}.png", codes)
        write(tmp_path / "p" / "v" / f"{t:04d}.png", np.array([[0, 60, 60, 5]], np.uint8))  # 0-based, as DVIS writes
    with pytest.raises(LabelError, match="--id-offset=1"):
        evaluate_folders(tmp_path, tmp_path / "p", space)
    found = evaluate_folders(tmp_path, tmp_path / "p", space, form=PredictionForm(id_offset=1))
    assert found.scores.miou == 1
    confusion = found.counts["v"].confusion
    assert (confusion[wall, wall], confusion[person, person], confusion.sum()) == (2, 4, 6)


def test_panoptic_codes_are_known_in_any_folder_of_16_bit_maps_under_their_label_set(tmp_path: Path):
    codes = np.array([[1, 6100, 6101, 0]], np.uint16)  # wall, two persons, void
    for side in ("truth", "codes"):
        write(tmp_path / side / "v" / "0000.png", codes)
    write(tmp_path / "ids" / "v" / "0000.png", np.array([[1, 61, 61, 5]], np.uint8))
    write(tmp_path / "wide" / "v" / "0000.png", np.array([[1, 61, 61, 0]], np.uint16))  # class ids in 16 bits
    space = find_label_space("vipseg")
    for truth in ("truth", "wide"):
        for predictions in ("codes", "ids", "wide"):
            found = evaluate_folders(tmp_path / truth, tmp_path / predictions, space, windows=(2,))
            assert (found.scores.miou, found.counts["v"].confusion.sum()) == (1, 3)
    with pytest.raises(LabelError, match="Pass the right --label-set"):  # that of no panoptic code
        evaluate_folders(tmp_path / "truth", tmp_path / "ids", LabelSpace.numbered(124))


def test_clips_without_a_window_are_named_where_others_have_one(tmp_path: Path):
    for side in ("truth", "predictions"):
        write_video(tmp_path / side / "long", frames=4)
        write_video(tmp_path / side / "short", frames=3)
    roots = tmp_path / "truth", tmp_path / "predictions"
    found = evaluate_folders(*roots, SPACE, windows=(2, 3))
    assert found.warnings == ("1 of 2 clips have fewer than 4 frames and add nothing to mVC3 (short)",)
    assert evaluate_folders(*roots, SPACE, windows=(2, 3), protocol="paper").warnings == ()  # T - n + 1 windows
    assert evaluate_folders(*roots, SPACE, windows=(8,)).warnings == ()  # mVC8 itself is undefined
