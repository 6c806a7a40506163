import json
import math

import pytest

from made_up_boards import bench_board
from sam2vss.boards.scoreboard import Axis, BoardRow, Picture, Published, Scoreboard
from sam2vss.errors import RunError
from sam2vss.metrics import PairedDifference

BASE = BoardRow("unet", "unet", "base", {"mIoU": 0.5, "mVC2": 0.9, "mVC16": None, "mVC8": 0.8})
REFINED = BoardRow(
    "SAM2-unet",
    "unet",
    "refined",
    {"mIoU": 0.6},
    against="unet",
    differences={
        "mIoU": PairedDifference("mIoU", 0.1, 0.09, (0.05, 0.15), 3, 2000),
        "mVC16": PairedDifference("mVC16", math.nan, None, None, 1, 0),
    },
    per_class={"sky": {"IoU": 0.7, "pixels": 12}},
    per_clip={"a": {"mIoU": None, "frames": 3}},
    settings={"window": 32, "mode": "exact", "carry": False},
    facts={"seconds": 0.5},
    published=Published({"mIoU": 0.403}, "arXiv 2512.01774, Table 1"),
    command="sam2vss refine ...",
)
BOARD = Scoreboard(
    title="bench of unet",
    kind="bench",
    dataset="camvid val",
    protocol="vspw",
    clips=3,
    frames=51,
    class_names=("sky",),
    rows=(BASE, REFINED),
    axes=(Axis("window", (1, 32), ("unet", "SAM2-unet"), 32, "Window (Table 4)"),),
    pictures=(Picture("a", "00000001", "best clip", {"frame": "pictures/a.png"}),),
    work={"frames encoded": (3, 12)},
    warnings=("2 frames were not scored",),
)


def test_a_board_survives_being_stored_as_json(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(BOARD.to_json(), allow_nan=False), encoding="utf-8")
    again = Scoreboard.read(path)
    assert math.isnan(again.row("SAM2-unet").differences["mVC16"].difference)  # NaN is not equal to itself
    assert again.to_json() == BOARD.to_json()
    assert (again.axes, again.pictures, again.work) == (BOARD.axes, BOARD.pictures, BOARD.work)
    assert again.row("unet") == BASE
    assert again.row("SAM2-unet").published == REFINED.published
    assert again.row("SAM2-unet").differences["mIoU"] == REFINED.differences["mIoU"]


def test_rows_of_one_model_stand_together():
    assert BOARD.models == ("unet",)
    assert [row.name for row in BOARD.of_model("unet")] == ["unet", "SAM2-unet"]


def test_the_curve_holds_every_window_that_was_counted_in_order():
    assert BASE.vc_curve == {2: 0.9, 8: 0.8}  # mVC16 is undefined


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds no scores, found list"),
        ("{}", "scores of format None, expected '1'"),
        ('{"format_version": "1"}', "no stored scores .*rows"),
        ('{"format_version": "1", "rows": [{"name": 3}]}', "no stored scores"),
    ],
)
def test_a_file_that_holds_no_board_is_named(tmp_path, text, message):
    path = tmp_path / "bench.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        Scoreboard.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"cannot read the scores .*bench.json"):
        Scoreboard.read(tmp_path / "bench.json")


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("versions", {"torch": 3}, "versions.torch"),
        ("title", None, "title"),
        ("kind", "x", "kind"),
        ("clips", [], "clips"),
    ],
)
def test_values_of_another_type_are_refused_by_name(key, value, place):
    with pytest.raises(RunError, match=rf"these are no stored scores \({place}"):
        Scoreboard.from_json({**bench_board().to_json(), key: value})
