import math

import numpy as np
import pytest

from sam2vss.errors import MissingPredictionsError, SettingsError
from sam2vss.metrics import (
    ClipCounts,
    VideoSegMetrics,
    paired_bootstrap,
    paired_bootstraps,
    score_interval,
    score_intervals,
)
from sam2vss.metrics.scores import score_clips

CLASSES, FRAMES = 3, 18


def counts(seed: int, noise: float, num_clips: int = 5) -> dict[str, ClipCounts]:
    """Counts of clips with the same truth for every noise level, and clip-wise different difficulty."""
    rng = np.random.default_rng(seed)
    metrics = VideoSegMetrics(CLASSES, boundary="full")
    for clip in range(num_clips):
        truth = np.repeat(rng.integers(0, CLASSES, (1, 6, 6)), FRAMES, axis=0)
        is_wrong = rng.random(truth.shape) < noise * (clip + 1) / num_clips
        metrics.update(np.where(is_wrong, (truth + 1) % CLASSES, truth), truth, clip=f"clip {clip}")
    return metrics.counts


STATISTICS = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16", "boundary_IoU_2px", "boundary_F", "mBIoU_per_image")


@pytest.mark.parametrize("statistic", STATISTICS)
def test_every_resample_is_scored_anew_from_summed_counts(statistic: str):
    base, refined = counts(0, 0.5), counts(0, 0.4)
    found = paired_bootstrap(base, refined, statistic, seed=3, n=50)

    draws = np.random.default_rng(3).integers(0, 5, (50, 5))
    slow = []
    for draw in draws:
        sides = [[list(side.values())[i] for i in draw] for side in (refined, base)]
        values = [score_clips(side, "vspw", CLASSES, (8, 16)).as_dict()[statistic] for side in sides]
        slow.append(values[0] - values[1])
    assert found.mean == pytest.approx(np.mean(slow), abs=1e-12)
    assert found.interval == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=1e-12)
    everything = [
        score_clips(list(side.values()), "vspw", CLASSES, (8, 16)).as_dict()[statistic] for side in (refined, base)
    ]
    assert found.difference == pytest.approx(everything[0] - everything[1])
    assert (found.clips, found.resamples) == (5, 50)


def test_all_scores_of_a_table_see_the_same_draws():
    base, refined = counts(0, 0.5), counts(0, 0.4)
    together = paired_bootstraps(base, refined, STATISTICS, seed=3, n=50)
    assert list(together) == list(STATISTICS)
    for name, found in together.items():
        assert found == paired_bootstrap(base, refined, name, seed=3, n=50)


def test_resamples_are_scored_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch):
    base, refined = counts(0, 0.5), counts(0, 0.4)
    at_once = paired_bootstraps(base, refined, STATISTICS, n=50)
    monkeypatch.setattr("sam2vss.metrics.bootstrap.DRAWS_AT_ONCE", 7)
    in_parts = paired_bootstraps(base, refined, STATISTICS, n=50)
    for name, found in in_parts.items():
        assert found.interval == pytest.approx(at_once[name].interval, abs=1e-12)
        assert found.resamples == 50


@pytest.mark.parametrize("statistic", ["mIoU", "mVC8", "boundary_F"])
def test_a_score_has_an_interval_of_its_own(statistic: str):
    found = score_intervals(counts(0, 0.5), (statistic, "wIoU"), seed=3, n=50)[statistic]
    draws = np.random.default_rng(3).integers(0, 5, (50, 5))
    clips = list(counts(0, 0.5).values())
    slow = [score_clips([clips[i] for i in draw], "vspw", CLASSES, (8, 16)).as_dict()[statistic] for draw in draws]
    assert found.interval == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=1e-12)
    assert found.score == pytest.approx(score_clips(clips, "vspw", CLASSES, (8, 16)).as_dict()[statistic])
    assert (found.clips, found.resamples) == (5, 50)
    assert found == score_interval(counts(0, 0.5), statistic, seed=3, n=50)
    low, high = found.interval or (math.nan, math.nan)
    assert str(found) == f"{100 * found.score:.2f} [{100 * low:.2f}, {100 * high:.2f}], 5 clips"


def test_one_clip_has_a_score_but_no_interval_and_says_so():
    found = score_interval(counts(0, 0.0, num_clips=1))
    assert (found.score, found.interval, str(found)) == (1, None, "100.00 (1 clip, no interval)")
    nothing = score_interval({}, "mIoU")
    assert math.isnan(nothing.score)
    assert nothing.clips == 0


def test_a_difference_can_be_taken_of_every_score():
    windows = (2, 3)
    metrics = VideoSegMetrics(2, windows=windows, boundary="full")
    for clip in "abc":
        still = np.repeat(np.kron([[0, 1], [1, 0]], np.ones((5, 5), int))[None], 5, axis=0)
        metrics.update(still, still, clip=clip)
    for protocol in ("vspw", "dvis-compat"):
        scores = metrics.compute(protocol).as_dict()
        found = score_intervals(metrics.counts, tuple(scores), n=3, protocol=protocol)
        assert {name: interval.score for name, interval in found.items()} == scores
        assert found["flicker_rate"].interval == (0, 0)


def test_equal_predictions_differ_by_exactly_nothing():
    same = paired_bootstrap(counts(0, 0.5), counts(0, 0.5), "mIoU")
    assert (same.difference, same.interval, same.is_clear) == (0, (0, 0), False)


def test_a_clear_gain_is_clear_and_a_loss_too():
    worse, better = counts(0, 0.6, num_clips=6), counts(0, 0.1, num_clips=6)
    gain, loss = paired_bootstrap(worse, better), paired_bootstrap(better, worse)
    assert gain.is_clear
    assert gain.interval is not None
    assert 0 < gain.interval[0] <= gain.difference <= gain.interval[1]
    assert loss.is_clear
    assert loss.difference == -gain.difference


def test_a_gain_over_few_clips_is_not_clear_whatever_its_interval():
    gain = paired_bootstrap(counts(0, 0.6), counts(0, 0.1))  # 5 clips
    assert gain.interval is not None
    assert gain.interval[0] > 0
    assert not gain.is_clear


def test_the_same_seed_gives_the_same_interval():
    first, second = (paired_bootstrap(counts(0, 0.5), counts(0, 0.4), seed=7, n=30) for _ in range(2))
    assert first == second
    assert first != paired_bootstrap(counts(0, 0.5), counts(0, 0.4), seed=8, n=30)


def test_one_clip_has_a_difference_but_no_interval_and_says_so():
    found = paired_bootstrap(counts(0, 0.5, num_clips=1), counts(0, 0.0, num_clips=1))
    assert found.difference > 0
    assert found.interval is None
    assert not found.is_clear
    assert str(found).endswith("(1 clip, no interval)")


def test_the_text_is_in_percentage_points():
    found = paired_bootstrap(counts(0, 0.6), counts(0, 0.1), n=20)
    low, high = found.interval or (math.nan, math.nan)
    assert str(found) == f"{100 * found.difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}], 5 clips"


def test_the_protocol_decides_which_clips_are_drawn():
    metrics = VideoSegMetrics(2)
    for clip, frames in (("short", 16), ("long", 17)):
        still = np.zeros((frames, 1, 1), int)
        metrics.update(still, still, clip=clip)
    assert paired_bootstrap(metrics.counts, metrics.counts, protocol="vspw").clips == 2
    assert paired_bootstrap(metrics.counts, metrics.counts, protocol="cffm").clips == 1


def test_an_undefined_score_has_no_interval():
    metrics = VideoSegMetrics(2)
    for clip in "ab":
        metrics.update(np.zeros((3, 1, 1), int), np.zeros((3, 1, 1), int), clip=clip)
    found = paired_bootstrap(metrics.counts, metrics.counts, "mVC8")  # three frames hold no window of eight
    assert math.isnan(found.difference)
    assert found.interval is None
    assert paired_bootstrap({}, {}).clips == 0


def test_both_sides_must_cover_the_same_clips_and_frames():
    base = counts(0, 0.5)
    fewer = {clip: base[clip] for clip in list(base)[:-1]}
    with pytest.raises(MissingPredictionsError, match="clip 'clip 4' is only in the first"):
        paired_bootstrap(base, fewer)
    with pytest.raises(MissingPredictionsError, match="clip 'clip 4' is only in the second"):
        paired_bootstrap(fewer, base)
    metrics = VideoSegMetrics(CLASSES)
    metrics.update(np.zeros((2, 1, 1), int), np.zeros((2, 1, 1), int), clip="clip 0")
    with pytest.raises(MissingPredictionsError, match="has 18 and 2 frames"):
        paired_bootstrap({"clip 0": base["clip 0"]}, metrics.counts)


def test_unknown_statistics_are_named_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"unknown statistic 'miou'; choose one of mIoU, wIoU, mBIoU, mVC8, mVC16"):
        paired_bootstrap(counts(0, 0.5), counts(0, 0.5), "miou")
    with pytest.raises(SettingsError, match="at least 1, found 0"):
        paired_bootstrap(counts(0, 0.5), counts(0, 0.5), n=0)


def test_clips_are_paired_by_name_in_whatever_order_they_were_counted():
    base, refined = counts(0, 0.5), counts(0, 0.4)
    backwards = dict(reversed(list(refined.items())))
    assert list(backwards) != list(base)
    assert paired_bootstraps(base, backwards, STATISTICS, n=50) == paired_bootstraps(base, refined, STATISTICS, n=50)
    same = paired_bootstrap(base, dict(reversed(list(base.items()))), "mIoU", n=50)
    assert (same.difference, same.interval) == (0.0, (0.0, 0.0))
