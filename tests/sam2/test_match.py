from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sam2vss.sam2.association import MatchRule
from sam2vss.sam2.candidates import Candidates
from sam2vss.sam2.match import FrameMatcher, MatchSettings
from sam2vss.sam2.model import NO_OBJECT_LOGIT, FrameFeatures, Sam2Network
from sam2vss.sam2.prompts import PromptPropagator
from sam2vss.sam2.propagate import Tracks
from tiny_sam2 import tiny_network

SIDE = 32  # of the mask grid; the frame has twice, the picture the network sees four times as many pixels
PLAIN = MatchSettings(rescue=False)  # candidates alone decide


def square(left: int, top: int, width: int = 8, height: int = 8) -> Tensor:
    """Mask, bool (32, 32); what lies outside the grid is cut off."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (x >= left) & (x < left + width) & (y >= top) & (y < top + height)


def candidates(masks: Sequence[Tensor], iou: Sequence[float] | None = None) -> Candidates:
    """Proposals with logits of +-8; the point of number i is (i, 1)."""
    stacked = torch.stack(list(masks)) if masks else torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    points = torch.stack([torch.arange(len(masks)), torch.ones(len(masks))], dim=1)
    quality = torch.tensor([0.9] * len(masks) if iou is None else list(iou))
    return Candidates(torch.where(stacked, 8.0, -8.0), quality, points, (2 * SIDE, 2 * SIDE))


def looks(painted: Sequence[Tensor]) -> FrameFeatures:
    """Features in which the i-th mask has the i-th colour, later ones on top."""
    colours = torch.zeros(8, SIDE, SIDE)
    for i, mask in enumerate(painted):
        colours[:, mask] = 0
        colours[i, mask] = 1
    low = torch.nn.functional.avg_pool2d(colours[None], 4)
    return FrameFeatures(low, low, low)


def enlarged(*masks: Tensor) -> Tensor:
    """Masks of the frame, bool (N, 64, 64)."""
    return torch.stack(masks).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


class Film:
    """A matcher and the candidates it will find, frame by frame."""

    def __init__(self, network: Sam2Network, settings: MatchSettings = PLAIN, **options: object) -> None:
        self.found = candidates([])
        self.matcher = FrameMatcher(network, find=lambda *_: self.found, settings=settings, **options)  # type: ignore[arg-type]

    def start(self, *masks: Tensor) -> Tracks:
        return self.matcher.start(looks(masks), enlarged(*masks))

    def step(
        self, masks: Sequence[Tensor], painted: Sequence[Tensor] | None = None, iou: Sequence[float] | None = None
    ) -> Tracks:
        """One frame with these candidates; `painted` says what is to be seen where, by default the candidates."""
        self.found = candidates(masks, iou)
        return self.matcher.step(looks(masks if painted is None else painted))


@pytest.fixture
def film(network: Sam2Network) -> Film:
    return Film(network)


def masks_of(tracks: Tracks) -> Tensor:
    return tracks.logits > 0


def assert_rows(tracks: Tracks, *expected: Tensor | None) -> None:
    """Every row shows the mask expected of it, None for empty ones."""
    assert len(tracks.logits) == len(tracks.object_score) == len(expected)
    for row, (mask, score) in enumerate(zip(masks_of(tracks), tracks.object_score.tolist(), strict=True)):
        wanted = expected[row]
        assert torch.equal(mask, torch.zeros_like(mask) if wanted is None else wanted), f"row {row}"
        assert (score > 0) == (wanted is not None)
        assert wanted is not None or (tracks.logits[row] == NO_OBJECT_LOGIT).all()


def test_the_given_masks_are_the_first_tracks(film):
    assert_rows(film.start(square(4, 4), square(20, 20)), square(4, 4), square(20, 20))


def test_moving_objects_keep_their_rows_whatever_the_order_of_the_candidates(film):
    film.start(square(2, 4), square(20, 18))
    for t in range(1, 8):
        first, second = square(2 + 2 * t, 4), square(20 - t, 18)
        tracks = film.step([second, first] if t % 2 else [first, second], painted=[first, second])
        assert_rows(tracks, first, second)
        assert tracks.entered is None


def test_a_tracks_mask_is_the_logits_of_its_candidate(film):
    film.start(square(4, 4))
    film.found = candidates([square(5, 4)])
    film.found = replace(film.found, logits=film.found.logits * (1 + torch.rand(1, SIDE, SIDE)))
    tracks = film.matcher.step(looks([square(5, 4)]))
    assert torch.equal(tracks.logits, film.found.logits)


def test_a_tracks_predicted_iou_is_that_of_its_candidate_and_0_while_it_has_none(film):
    first, second, third = square(4, 4), square(20, 20), square(20, 4)
    assert film.start(first, second).predicted_iou.tolist() == [1, 1]  # given
    tracks = film.step([third, second, first], [first, second, third], iou=[0.8, 0.7, 0.5])
    assert_rows(tracks, first, second, third)
    assert tracks.predicted_iou.tolist() == pytest.approx([0.5, 0.7, 0.8])  # the third one enters
    tracks = film.step([third, first], [first, square(0, 0, 0), third], iou=[0.6, 0.9])
    assert_rows(tracks, first, None, third)
    assert tracks.predicted_iou.tolist() == pytest.approx([0.9, 0, 0.6])


def test_an_object_that_gathers_speed_is_followed_by_its_motion(network):
    # steps of 2, 3, 4, 4, 5, 5 cells at a width of 8: standing still, overlaps of the last are 3 / 13 and too little
    places = [2, 4, 7, 11, 15, 20, 25]

    def last_row(inertia: float) -> Tensor:
        film = Film(network, replace(PLAIN, inertia=inertia))
        film.start(square(places[0], 12))
        return [masks_of(film.step([square(place, 12)]))[0] for place in places[1:]][-1]

    assert torch.equal(last_row(inertia=0.5), square(places[-1], 12, 7))  # cut off by the edge
    assert not last_row(inertia=1.0).any()  # motion is never learned


def test_crossing_objects_keep_their_rows_by_what_they_look_like(film):
    film.start(square(2, 10), square(20, 14))
    for t in range(1, 10):
        right, left = square(2 + 2 * t, 10), square(20 - 2 * t, 14)
        assert_rows(film.step([left, right], painted=[right, left]), right, left)


def test_an_object_hidden_for_two_frames_comes_back_in_its_row(film):
    film.start(square(2, 4), square(20, 20))
    film.step([square(4, 4), square(20, 20)])
    for _ in range(2):
        assert_rows(film.step([square(20, 20)], painted=[square(0, 0, 0), square(20, 20)]), None, square(20, 20))
    tracks = film.step([square(9, 4), square(20, 20)])
    assert_rows(tracks, square(9, 4), square(20, 20))
    assert tracks.entered is None


def test_another_object_in_the_place_of_a_hidden_one_is_a_new_one(film):
    film.start(square(4, 4), square(20, 20))
    film.step([square(20, 20)])
    strange = [square(0, 0, 0), square(20, 20), square(4, 4)]  # of the third colour
    tracks = film.step([square(20, 20), square(4, 4)], painted=strange)
    assert_rows(tracks, None, square(20, 20), square(4, 4))


def test_an_object_out_of_sight_for_longer_than_the_patience_is_given_up(network):
    film = Film(network, replace(PLAIN, patience=2))
    film.start(square(4, 4))
    for _ in range(3):
        assert_rows(film.step([]), None)
    tracks = film.step([square(4, 4)])
    assert_rows(tracks, None, square(4, 4))
    assert len(tracks.entered) == 1


def test_an_object_gone_just_as_long_as_the_patience_is_found_again(network):
    film = Film(network, replace(PLAIN, patience=2))
    film.start(square(4, 4))
    for _ in range(2):
        film.step([])
    assert_rows(film.step([square(4, 4)]), square(4, 4))


def test_an_object_that_leaves_the_picture_ends_while_others_stay(film):
    film.start(square(22, 4), square(4, 20))
    for t in range(1, 5):
        film.step([square(22 + 2 * t, 4), square(4, 20)])
    assert_rows(film.step([square(4, 20)], painted=[square(0, 0, 0), square(4, 20)]), None, square(4, 20))


def test_an_object_that_enters_gets_the_next_row_and_tells_of_itself(film):
    film.start(square(4, 4))
    tracks = film.step([square(4, 4), square(20, 20)], iou=[0.7, 0.8])
    assert_rows(tracks, square(4, 4), square(20, 20))
    entered = tracks.entered
    assert torch.equal(entered.masks, enlarged(square(20, 20)))
    assert entered.predicted_iou.tolist() == pytest.approx([0.8])
    assert entered.stability.tolist() == pytest.approx([1], abs=0.2)
    assert (entered.points.tolist(), entered.rows.tolist()) == ([[1, 1]], [1])
    later = film.step([square(20, 20), square(4, 4)], painted=[square(4, 4), square(20, 20)])
    assert_rows(later, square(4, 4), square(20, 20))
    assert later.entered is None


def test_several_new_objects_come_best_first(film):
    film.start(square(12, 12))
    tracks = film.step([square(0, 0), square(22, 0), square(12, 12), square(0, 22)], iou=[0.7, 0.95, 0.9, 0.8])
    assert_rows(tracks, square(12, 12), square(22, 0), square(0, 22), square(0, 0))
    assert tracks.entered.rows.tolist() == [1, 3, 0]


def test_no_more_objects_enter_than_there_are_places(film):
    film.matcher.max_objects = 3
    film.start(square(12, 12))
    tracks = film.step([square(0, 0), square(22, 0), square(12, 12), square(0, 22)], iou=[0.7, 0.95, 0.9, 0.8])
    assert_rows(tracks, square(12, 12), square(22, 0), square(0, 22))
    assert film.step([square(0, 0), square(22, 0), square(12, 12), square(0, 22)]).entered is None


def test_a_candidate_inside_tracks_is_no_new_object(film):
    whole, part = square(4, 4, 16, 16), square(6, 6, 4, 4)
    film.start(whole)
    assert film.step([whole, part], painted=[whole]).entered is None


@pytest.mark.parametrize(("left", "is_new"), [(11, False), (12, True)])
def test_a_new_object_lies_outside_all_tracks_by_half_at_least(film, left, is_new):
    film.start(square(4, 4, 16, 16))  # columns 4..19
    newcomer = square(left, 4, 16)  # 11: 9 of its 16 columns are covered; 12: 8
    tracks = film.step([square(4, 4, 16, 16), newcomer], painted=[square(4, 4, 16, 16)])
    assert (tracks.entered is not None) is is_new


def test_a_new_object_needs_its_share_of_the_picture(network):
    film = Film(network, replace(PLAIN, min_new_area=10 / SIDE**2))
    film.start(square(4, 4))
    assert film.step([square(4, 4), square(20, 20, 3, 3)]).entered is None
    assert len(film.step([square(4, 4), square(20, 20, 5, 2)]).entered) == 1


def test_weak_masks_continue_a_track_but_open_none(film):
    film.start(square(4, 4))
    tracks = film.step([square(4, 4), square(20, 20)], iou=[0.5, 0.5])
    assert_rows(tracks, square(4, 4))
    assert_rows(film.step([square(4, 4)], iou=[0.4]), None)  # must be above 0.4


def test_unstable_masks_continue_no_track(film):
    film.start(square(4, 4))
    film.found = candidates([square(4, 4)])
    shaky = film.found.logits.clone()
    shaky[0, 4:12, 8:12] = 0.1  # 32 of the 64 cells lie between the cuts at +-0.9: stability 0.5
    film.found = replace(film.found, logits=shaky)
    assert_rows(film.matcher.step(looks([square(4, 4)])), None)


def test_a_part_stays_a_part_though_the_whole_is_the_better_mask(film):
    whole, part = square(4, 4, 16, 16), square(4, 4, 16, 10)  # box IoU 0.63: NMS at 0.7 keeps both
    near = square(4, 4, 16, 13)  # box IoU 0.81 with the whole and 0.77 with the part: NMS keeps one of them
    film.start(part)
    for iou in ([0.95, 0.5, 0.9], [0.5, 0.95, 0.5], [0.99, 0.45, 0.99]):
        tracks = film.step([whole, part, near], iou=iou, painted=[part])
        assert torch.equal(masks_of(tracks)[0], part)


def test_part_and_whole_are_two_tracks_side_by_side(film):
    whole, part = square(4, 4, 16, 16), square(6, 6, 6, 6)
    film.start(whole, part)
    for order in ([whole, part], [part, whole]):
        assert_rows(film.step(order, painted=[whole, part]), whole, part)
    # the part is hidden: the whole must not serve it
    assert_rows(film.step([whole], painted=[whole]), whole, None)


def test_permuting_the_candidates_changes_nothing(network):
    generator = torch.Generator().manual_seed(4)
    draws = torch.randint(0, 22, (6, 24, 2), generator=generator)
    iou = torch.rand(6, 24, generator=generator) * 0.6 + 0.35
    films = [Film(network), Film(network)]
    for film in films:
        film.start(*[square(int(x), int(y)) for x, y in draws[0, :5]])
    for t in range(6):
        masks = [square(int(x), int(y)) for x, y in draws[t]]
        order = torch.randperm(24, generator=generator)
        painted = masks[:8]
        straight = films[0].step(masks, painted, iou[t].tolist())
        shuffled = films[1].step([masks[i] for i in order], painted, iou[t, order].tolist())
        assert torch.equal(straight.logits, shuffled.logits)
        if straight.entered is not None:
            assert straight.entered.rows.tolist() == order[shuffled.entered.rows].tolist()
    assert len(straight.logits) > 5


def test_frames_without_candidates_and_windows_without_objects_pass(film):
    film.matcher.start(looks([]), torch.zeros(0, 64, 64, dtype=torch.bool))
    assert film.step([]).logits.shape == (0, SIDE, SIDE)
    assert_rows(film.step([square(4, 4)]), square(4, 4))
    assert_rows(film.step([]), None)


def test_empty_first_masks_stay_empty(film):
    assert masks_of(film.start(square(4, 4, 0), square(20, 20)))[:, 20, 20].tolist() == [False, True]
    tracks = film.step([square(20, 20), square(4, 4)], painted=[square(4, 4), square(20, 20)])
    assert_rows(tracks, None, square(20, 20), square(4, 4))


def test_added_objects_are_the_next_rows(film):
    film.start(square(4, 4))
    film.matcher.add(looks([square(4, 4), square(20, 20)]), enlarged(square(20, 20)))
    assert_rows(film.step([square(20, 20), square(5, 4)], [square(5, 4), square(20, 20)]), square(5, 4), square(20, 20))


def test_starting_again_forgets_everything(film):
    film.start(square(4, 4), square(20, 20))
    film.step([square(4, 4), square(20, 20)])
    film.start(square(20, 4))
    assert_rows(film.step([square(20, 4)]), square(20, 4))


class Follower:
    """Stands in for a `PromptPropagator`; answers with one mask for all."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.asked: list[Tensor] = []

    def follow(self, features: FrameFeatures, logits: Tensor) -> Tracks:
        self.asked.append(logits > 0)
        return Tracks(
            torch.where(self.answer, 8.0, -8.0).expand(len(logits), -1, -1),
            torch.ones(len(logits)),
            torch.full((len(logits),), 0.35),
        )


def test_a_track_without_candidate_is_rescued_by_its_own_prompt(network):
    follower = Follower(square(5, 4))
    film = Film(network, replace(PLAIN, rescue=True), between=follower)
    film.start(square(4, 4), square(20, 20))
    tracks = film.step([square(20, 20)], [square(5, 4), square(20, 20)])
    assert_rows(tracks, square(5, 4), square(20, 20))
    assert tracks.predicted_iou.tolist() == pytest.approx([0.35, 0.9])  # the follower's, the candidate's
    assert [asked.tolist() for asked in follower.asked] == [square(4, 4)[None].tolist()]


def test_a_rescue_that_looks_otherwise_is_none(network):
    film = Film(network, replace(PLAIN, rescue=True), between=Follower(square(4, 4, 16, 16)))
    film.start(square(4, 4))
    tracks = film.step([])
    assert_rows(tracks, None)
    assert tracks.predicted_iou.tolist() == [0]
    assert_rows(film.step([]), None)  # and what is lost already is not asked for


def test_only_every_kth_frame_is_matched_and_prompts_bridge_the_others(network):
    follower = Follower(square(7, 4))
    film = Film(network, PLAIN, between=follower, every=3)
    film.start(square(4, 4), square(20, 20, 0))
    for _ in range(2):
        tracks = film.step([square(5, 4), square(20, 20)])
        assert_rows(tracks, square(7, 4), None)
        assert tracks.predicted_iou.tolist() == pytest.approx([0.35, 0])
    assert [len(asked) for asked in follower.asked] == [1, 1]  # empty rows are not asked for
    assert_rows(film.step([square(8, 4), square(20, 20)]), square(8, 4), None, square(20, 20))


def test_a_track_lost_between_two_looks_is_looked_for_at_the_next_one(network):
    film = Film(network, replace(PLAIN, patience=2), between=Follower(square(0, 0, 0)), every=5)
    film.start(square(4, 4))
    for _ in range(4):  # frames 1 to 4 are without automatic masks, and the prompt loses the object in the first
        assert not masks_of(film.step([])).any()
    tracks = film.step([square(4, 4)])
    assert_rows(tracks, square(4, 4))
    assert tracks.entered is None
    for _ in range(9):  # frames 6 to 14, with a look in vain in frame 10
        film.step([])
    assert_rows(film.step([square(4, 4)]), None, square(4, 4))


def test_frames_between_equal_prompt_propagation(features, masks):
    network = tiny_network(object_score_bias=20.0)
    prompts = PromptPropagator.by_clicks(network)
    prompts.min_predicted_iou = -100
    matcher = FrameMatcher(network, points=2, every=4, between=prompts)
    alone = PromptPropagator.by_clicks(network)
    alone.min_predicted_iou = -100
    matcher.start(features[0], masks[:3])
    alone.start(features[0], masks[:3])
    for t in (1, 2, 3):
        expected, found = alone.step(features[t]), matcher.step(features[t])
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.predicted_iou, expected.predicted_iou)


@pytest.mark.parametrize("input_size", [128, (128, 160)])
def test_the_tiny_network_gives_masks_of_the_right_form(input_size):
    network = tiny_network()
    network.set_image_size(input_size)
    frame = torch.randint(0, 256, (3, 1, 90, 130, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    matcher = FrameMatcher(network, points=3, pred_iou=-10, settings=MatchSettings(keep_pred_iou=-10))
    with torch.inference_mode():
        features = [network.encode(network.pixels(picture)) for picture in frame]
    first = torch.zeros(2, 90, 130, dtype=torch.bool)
    first[:, 20:60, 30:80] = True
    count = len(matcher.start(features[0], first).logits)
    for t in (1, 2):
        tracks = matcher.step(features[t])
        count += 0 if tracks.entered is None else len(tracks.entered)
        assert tracks.logits.shape == (count, *network.logit_size)
        assert tracks.object_score.shape == (count,)
        assert tracks.predicted_iou.shape == (count,)
        assert {tracks.logits.dtype, tracks.object_score.dtype, tracks.predicted_iou.dtype} == {torch.float32}
        if tracks.entered is not None:
            assert tracks.entered.masks.shape[1:] == (90, 130)


def test_stricter_overlap_lets_a_jump_end_the_track(network):
    def survives(min_overlap: float) -> bool:
        film = Film(network, replace(PLAIN, rule=MatchRule(min_overlap=min_overlap)))
        film.start(square(4, 4))
        return bool(masks_of(film.step([square(7, 4)]))[0].any())  # IoU 5 / 11 = 0.4545

    assert survives(0.45)
    assert not survives(0.46)
