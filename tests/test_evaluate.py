import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from sam2vss.evaluate import Evaluation, evaluate_folders, scores_table
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
    assert set(result.to_json()["scores"].values()) - {None} == {1.0}
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
    with pytest.raises(ShapeError, match=r"b/0001\.png is 4 x 2 pixels, its truth .*b/0001\.png is 6 x 1 pixels"):
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
    table = scores_table({"base": scored(5).scores, "refined": scored(7).scores}, difference=True)
    # one class and no edge: no band; VC8 needs more than three frames
    assert table == [
        ["", "mIoU", "wIoU", "mBIoU", "mVC2", "mVC8"],
        ["base", "62.50", "62.50", "-", "100.00", "-"],
        ["refined", "87.50", "87.50", "-", "100.00", "-"],
        ["difference", "+25.00", "+25.00", "-", "+0.00", "-"],
    ]
