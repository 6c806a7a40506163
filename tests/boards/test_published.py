"""Figures copied from the paper (arXiv 2512.01774, Tables 1 to 7) and how rows find them."""

import pytest

from sam2vss.boards.published import find_published, find_published_setting, published_notes, read_published

TABLE_1_CFFM_B0 = {"mIoU": 0.354, "wIoU": 0.585, "mBIoU": 0.218, "mVC8": 0.877, "mVC16": 0.829}


@pytest.mark.parametrize(
    ("dataset", "name", "values"),
    [  # read off the paper's tables
        ("VSPW", "CFFM-B0", TABLE_1_CFFM_B0),
        ("VSPW", "SAM2-CFFM MiT-B1", {"mIoU": 0.403, "wIoU": 0.611, "mBIoU": 0.293, "mVC8": 0.894, "mVC16": 0.851}),
        ("VSPW", "tv3s-b5", {"mIoU": 0.498, "mBIoU": 0.329, "mVC8": 0.917, "mVC16": 0.887}),
        ("VSPW", "Segformer-B5", {"mIoU": 0.489, "wIoU": 0.651, "mVC8": 0.878, "mVC16": 0.837}),
        ("VSPW", "SAM2-TV3S-B5", {"mIoU": 0.513, "wIoU": 0.671, "mBIoU": 0.381, "mVC8": 0.922, "mVC16": 0.893}),
        ("VSPW", "I-CFFM_base-B2", {"mIoU": 0.423, "wIoU": 0.632, "mBIoU": 0.281, "mVC8": 0.791, "mVC16": 0.73}),
        ("VSPW", "I-SAM2", {"mIoU": 0.1803, "wIoU": 0.365, "mBIoU": 0.133, "mVC8": 0.528, "mVC16": 0.437}),
        ("VIPSeg", "CAVIS-R50", {"mIoU": 0.504, "mBIoU": 0.553, "mVC8": 0.862, "mVC16": 0.794}),
        ("VIPSeg", "sam2-dvis-offline", {"mIoU": 0.572, "mBIoU": 0.623, "mVC8": 0.918, "mVC16": 0.883}),
    ],
)
def test_figures_are_those_of_the_paper(dataset, name, values):
    assert find_published(dataset, name).values == values


def test_the_tables_are_complete():
    rows = read_published()
    assert [sum(row.table == table for row in rows) for table in range(1, 8)] == [26, 8, 11, 7, 4, 6, 6]
    assert all(0 < value < 1 for row in rows for value in row.values.values())


@pytest.mark.parametrize(
    "name", ["cffm-b0", "CFFM_MiT-B0", "CFFM-B0", "Cffm mit b0", "b0-cffm", "CFFM (MiT-B0)", "cffm.b0"]
)
def test_a_name_matches_by_its_parts_whatever_stands_between_them(name):
    found = find_published("vspw_480p", name)
    assert (found.values, found.source) == (TABLE_1_CFFM_B0, "arXiv 2512.01774, Table 1, CFFM MiT-B0")


@pytest.mark.parametrize(
    "name",
    ["cffm", "b0", "cffm-b3", "cffm-b0-mine", "cffmb0", "my-cffm-b0", "SAM2", "unet", "", "mit"],
)
def test_a_name_with_a_part_more_or_less_matches_nothing(name):
    assert find_published("VSPW", name) is None


def test_no_two_names_of_one_data_set_mean_different_rows():
    rows = [row for row in read_published() if not row.setting]
    for row in rows:
        for name in row.names:
            found = find_published(row.datasets[0], name)
            differing = {key for key in row.values if found.values[key] != row.values[key]}
            # the one place where the paper's tables disagree: mBIoU of CFFM-B0, 21.8 and 21.5
            assert differing <= ({"mBIoU"} if (row.table, name) == (3, "CFFM MiT-B0") else set()), name


def test_plus_signs_belong_to_a_name():
    assert find_published("VIPSeg", "DVIS++").values["mIoU"] == 0.499
    assert find_published("VIPSeg", "DVIS").values["mIoU"] == 0.552


def test_a_backbone_may_be_left_out_only_where_the_paper_has_one():
    assert find_published("VIPSeg_720P", "CAVIS") == find_published("VIPSeg", "cavis-r50")
    assert find_published("VSPW", "SAM2-CFFM") is None


def test_data_set_split_and_height_must_be_those_of_the_paper():
    assert find_published("camvid", "CFFM-B0") is None
    assert find_published("VIPSeg", "CFFM-B0") is None
    assert find_published("VSPW", "CFFM-B0", "test") is None
    assert find_published("VSPW", "CFFM-B0", height_px=480) is not None
    assert find_published("VSPW", "CFFM-B0", height_px=720) is None
    assert find_published("VIPSeg", "CAVIS", height_px=360) is not None  # Table 2 states none


@pytest.mark.parametrize(
    ("setting", "value", "miou", "mvc16", "table"),
    [("window", 32, 0.404, 0.851, 4), ("points", 8, 0.399, 0.851, 5), ("pred_iou", 0.9, 0.398, 0.851, 6),
     ("stability", 0.9, 0.4, 0.85, 7)],
)  # fmt: skip
def test_ablations_are_found_by_setting_and_value(setting, value, miou, mvc16, table):
    found = find_published_setting(setting, value)
    assert (found.values["mIoU"], found.values["mVC16"]) == (miou, mvc16)
    assert found.source == f"arXiv 2512.01774, Table {table}, SAM2-CFFM MiT-B1, VSPW"


@pytest.mark.parametrize(("setting", "value"), [("window", 3), ("window", True), ("carry", True), ("", None)])
def test_settings_that_the_paper_did_not_try_have_no_figures(setting, value):
    assert find_published_setting(setting, value) is None


def test_figures_given_out_can_be_changed_without_harm():
    find_published("VSPW", "CFFM-B0").values["mIoU"] = 1.0
    assert find_published("VSPW", "CFFM-B0").values == TABLE_1_CFFM_B0


def test_the_papers_own_contradictions_are_noted():
    notes = " ".join(published_notes())
    assert "21.8" in notes
    assert "21.5" in notes
    assert "40.3" in notes
    assert "40.4" in notes
