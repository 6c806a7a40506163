import pytest

from sam2vss.ablate.grid import DEFAULT_NAME, GridFile, Point, built_in_grid, expand, read_grid
from sam2vss.errors import SettingsError
from sam2vss.settings import FollowSettings, MaskletSettings, VoteSettings


def grid_of(**content):
    return expand([("toy.yaml", GridFile(**content))])


def write(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_paper_s_tables_have_the_paper_s_values_around_the_paper_s_settings():
    grid = built_in_grid(("4", "5", "6", "7"))
    assert grid.base == Point()
    values = {axis.setting: axis.values for axis in grid.axes}
    assert values == {
        "window": (1, 2, 4, 8, 10, 16, 32),
        "points": (8, 16, 32, 64),
        "pred_iou": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "stability": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    }
    # 7 + 4 + 6 + 6 values, of which the base is one four times
    assert len(grid.points) == 23 - 3


def test_our_own_axes_cover_what_the_issue_asks():
    settings = {axis.setting for axis in built_in_grid(("ours",)).axes}
    assert settings >= {"stability_offset", "vote", "vote_weight", "min_share", "overlap", "mode", "carry"}


def test_every_built_in_axis_holds_its_default_and_has_a_title():
    for axis in built_in_grid().axes:
        assert getattr(Point(), axis.setting) in axis.values
        assert axis.title


def test_a_point_is_named_by_what_sets_it_apart_from_the_base():
    grid = grid_of(
        base={"window": 8}, axes={"window": [4, 8], "carry": [True]}, product=[{"window": [4], "points": [8]}]
    )
    assert [grid.name_of(point) for point in grid.points] == [
        DEFAULT_NAME,
        "window 4",
        "carry on",
        "window 4, points 8",
    ]


def test_products_are_all_combinations_and_duplicates_are_one_point():
    grid = grid_of(axes={"window": [8, 16, 32]}, product=[{"window": [8, 16], "vote": ["window", "frame"]}])
    found = {(point.window, point.vote) for point in grid.points}
    assert found == {(32, "window"), (8, "window"), (16, "window"), (8, "frame"), (16, "frame")}
    assert len(grid.points) == 5


def test_defaults_are_those_of_the_settings():
    point = Point()
    assert (point.masklets, point.follow, point.votes) == (MaskletSettings(), FollowSettings(), VoteSettings())


def test_masklets_are_shared_where_they_do_not_see_one_another():
    shared = grid_of(axes={"mode": ["exact", "prompt"], "vote": ["frame"], "max_masklets": [5], "min_mask_area": [9]})
    assert all(point.is_shareable for point in shared.points)
    alone = grid_of(axes={"mode": ["fast"], "direction": ["both"], "carry": [True], "discover": [4]})
    assert not any(point.is_shareable for point in alone.points[1:])


def test_votes_do_not_change_the_tracks_and_labels_only_where_they_choose_masklets():
    base, vote, smooth = grid_of(axes={"vote": ["frame"], "smooth": ["static"]}).points
    assert base.tracks_key == vote.tracks_key == smooth.tracks_key
    assert len({base.key, vote.key, smooth.key}) == 3
    limited, both = grid_of(base={"max_masklets": 3}, axes={"smooth": ["static"]}).points
    assert limited.tracks_key != both.tracks_key
    policies = {"void": ["nearest", "previous", "vote"]}
    assert len({point.tracks_key for point in grid_of(axes=policies).points}) == 1
    keep, nearest, previous, vote = grid_of(base={"skip_settled": True}, axes=policies).points
    assert keep.tracks_key == vote.tracks_key  # the voters see the same labels
    assert len({keep.tracks_key, nearest.tracks_key, previous.tracks_key}) == 3


def test_one_void_policy_is_set_for_all_points():
    grid = grid_of(axes={"window": [2, 4]}).with_void("vote")
    assert {point.void for point in (*grid.points, *grid.axes[0].points)} == {"vote"}
    assert [grid.name_of(point) for point in grid.points] == ["default", "window 2", "window 4"]
    with pytest.raises(SettingsError, match="the grid varies void, and --void sets it for all points"):
        grid_of(axes={"void": ["vote"]}).with_void("nearest")


def test_points_that_need_probabilities_are_left_out_by_name():
    grid, left_out = built_in_grid(("ours",)).without_probabilities()
    assert left_out == ("vote_weight probability",)
    assert "vote_weight" not in {axis.setting for axis in grid.axes}
    with pytest.raises(SettingsError, match="base of the grid has vote_weight probability"):
        grid_of(base={"vote_weight": "probability"}, axes={"window": [2]}).without_probabilities()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {windw: [1, 2]}", "axis 'windw' of grid.yaml: 'windw' is unknown, expected .*window"),
        ("base: {poits: 3}\naxes: {window: [1]}", "the base of grid.yaml: 'poits' is unknown"),
        ("axis: {window: [1]}", "'axis' is unknown, expected base, axes, product, titles"),
        ("axes: {window: [0]}", "'window' is 0: Input should be greater than or equal to 1"),
        ("axes: {window: ['8']}", "'window' is '8': Input should be a valid integer"),
        ("axes: {vote: [windows]}", "'vote' is 'windows': Input should be 'window' or 'frame'"),
        ("axes: {window: [8, 8]}", r"axis 'window' of grid.yaml has \[8, 8\], expected values that differ"),
        ("axes: {window: []}", "expected values that differ"),
        ("axes: {window: 8}", "'axes.window' is 8: Input should be a valid list"),
        ("axes: {discover: [40]}", "axis 'discover' of grid.yaml: discover 40 never comes in windows of 32"),
        ("axes: {match_every: [2]}", "match_every is for mode fast"),
        ("base: {mode: fast}\naxes: {crop_layers: [1]}", "--crop-layers"),
        ("base: {smooth: flow}\naxes: {vote_weight: [probability]}", "smooth gives labels without probabilities"),
        ("axes: {window: [1]}\ntitles: {points: P}", "has a title for 'points', which is no axis"),
        ("base: {window: 8}", "varies nothing"),
        ("axes:\n  window: [2, 3]\n  window: [4]", "line 3 of the grid .*grid.yaml has a second 'window'"),
        ("product: [{window: []}]", "'window' in a product of grid.yaml is an empty list"),
        (
            f"product: [{{window: {list(range(1, 102))}, points: {list(range(1, 101))}}}]",
            "10100 points, .*at most 2000",
        ),
        (f"axes: {{min_mask_area: {list(range(2001))}}}", "2001 points, expected at most 2000"),
        ("- 1", "holds list, expected a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_grid_that_cannot_be_used_says_where_and_why(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        read_grid(write(tmp_path, text))


def test_a_grid_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="cannot read the grid"):
        read_grid(tmp_path / "none.yaml")


def test_unknown_tables_are_refused():
    with pytest.raises(SettingsError, match="there is no grid '8', expected 4, 5, 6, 7, ours"):
        built_in_grid(("8",))


def test_grids_with_different_bases_are_not_mixed():
    files = [("a", GridFile(axes={"window": [1]})), ("b", GridFile(base={"points": 8}, axes={"window": [1]}))]
    with pytest.raises(SettingsError, match="the grids a and b have different bases"):
        expand(files)


def test_a_grid_file_is_read(tmp_path):
    grid = read_grid(write(tmp_path, "base: {window: 8, carry: true}\naxes:\n  carry: [false, true]\n"))
    assert grid.base.carry
    assert grid.axes[0].values == (False, True)
    assert [grid.name_of(point) for point in grid.points] == [DEFAULT_NAME, "carry off"]


def test_a_grid_that_repeats_itself_by_anchors_is_answered_in_one_short_message(tmp_path):
    settings = ("vote", "mode", "overlap", "smooth", "direction", "vote_weight", "window", "points", "stability")
    lines = ["base:", "  pred_iou: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  {name}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i, name in enumerate(settings)]
    with pytest.raises(SettingsError) as caught:
        read_grid(write(tmp_path, "\n".join([*lines, "axes: {window: [2, 3]}"])))
    assert len(str(caught.value)) < 1000
