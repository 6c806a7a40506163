import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from meta_predictor import GOLDEN_FRAMES, compared_network, excerpt, follow, load_predictor
from sam2vss.sam2.model import Decoded, FrameFeatures, Sam2Network
from sam2vss.sam2.propagate import MemoryPropagator, Tracks, best_of_three
from tiny_sam2 import first_masks, moving_frames, tiny_network

# Meta's SAM2VideoPredictor (sam2 repository, commit 2b90b9f) on the tiny network's weights, the 20 moving frames and
# the four first masks: disc, box, band, empty. By frame: logits of each object at the cells below, mean absolute logit,
# object score. Measured differences: 0.001 from Meta's, 0.001 from our own with another batch size, while two objects
# differ by 0.1 to 0.5 on average.
GOLDEN_CELLS = ([3, 11, 20, 28], [25, 6, 17, 12])
GOLDEN = {
    1: (
        [
            [-1.3336, -2.6240, -1.4116, -1.4814],
            [-1.2577, -2.8103, -1.5045, -1.4622],
            [-0.9319, -2.4179, -1.0054, -1.0445],
            [-0.6076, -1.9484, -0.3987, -0.6735],
        ],
        [1.6531, 1.6834, 1.2848, 1.0224],
        [0.6318, 0.7109, 0.7099, 0.7215],
    ),
    2: (
        [
            [-1.0926, -2.7379, -1.4645, -1.4598],
            [-1.0030, -2.7293, -1.3252, -1.3907],
            [-0.6438, -2.4825, -1.0741, -1.0758],
            [-0.5501, -2.0473, -0.5587, -0.8653],
        ],
        [1.6299, 1.5389, 1.2707, 1.0154],
        [0.6270, 0.6570, 0.7394, 0.7197],
    ),
    7: (
        [
            [-0.4596, -1.1800, -2.1940, -0.8159],
            [-0.4382, -1.2293, -2.0291, -0.8277],
            [-0.1643, -0.8083, -2.0932, -0.4469],
            [-0.4852, -1.1860, -1.8213, -0.7744],
        ],
        [1.0128, 0.9907, 0.8575, 0.9224],
        [0.6877, 0.6509, 0.6890, 0.6667],
    ),
    8: (
        [
            [0.0551, -0.9719, -2.2466, -0.5414],
            [-0.3084, -1.3286, -2.4198, -0.9703],
            [0.0295, -0.9570, -2.1368, -0.5522],
            [0.1159, -0.7324, -1.9672, -0.5353],
        ],
        [0.9436, 1.2327, 0.9226, 0.8588],
        [0.6994, 0.7178, 0.7192, 0.7142],
    ),
    16: (
        [
            [-0.0956, -0.9764, -1.5211, -1.7891],
            [-0.1910, -1.5137, -1.5910, -1.8856],
            [-0.0697, -1.1045, -1.7445, -1.9480],
            [-0.3046, -0.8552, -1.1675, -1.5758],
        ],
        [0.7750, 0.8749, 0.8392, 0.7274],
        [0.6448, 0.5420, 0.6290, 0.6692],
    ),
    19: (
        [
            [-0.2479, -0.7015, -1.6051, -1.7713],
            [-0.5219, -1.0601, -1.8680, -1.9414],
            [-0.3593, -1.0588, -1.6414, -1.8781],
            [-0.5773, -0.9250, -1.6813, -1.9298],
        ],
        [0.8353, 0.9880, 0.9084, 0.9637],
        [0.7183, 0.6707, 0.6703, 0.6277],
    ),
}
# The same with 0.6 taken off the object score: the box is gone in frame 16 alone. Scores, mean absolute logits.
GOLDEN_GONE = {
    15: ([0.0069, 0.0083, 0.0673, 0.0833], [0.9718, 0.9119, 0.9044, 0.8684]),
    16: ([0.0448, -0.0580, 0.0290, 0.0692], [0.7750, 1024.0, 0.8392, 0.7274]),
    17: ([0.1053, 0.0681, 0.0555, 0.0443], [0.9743, 0.9872, 1.0431, 1.1850]),
    19: ([0.1183, 0.0524, 0.0703, 0.0277], [0.8353, 0.9623, 0.9084, 0.9637]),
}
# With 0.88 taken off, the decoder finds no disc under the disc's own prompt, and nothing at all later. Scores.
GOLDEN_NEVER = {
    1: [-0.1844, -0.1691, -0.1701, -0.1585],
    2: [-0.1672, -0.1787, -0.1551, -0.1521],
    8: [-0.1888, -0.1819, -0.1762, -0.1919],
}


def propagate(network: Sam2Network, features: list[FrameFeatures], masks: Tensor, chunk: int) -> list[Tracks]:
    propagator = MemoryPropagator(network, chunk)
    return [propagator.start(features[0], masks), *(propagator.step(frame) for frame in features[1:])]


@pytest.fixture(scope="module")
def tracks(network: Sam2Network, features: list[FrameFeatures], masks: Tensor) -> list[Tracks]:
    return propagate(network, features, masks, chunk=16)


def literally(network: Sam2Network, features: list[FrameFeatures], mask: Tensor) -> list[Tracks]:
    """Follow one object (H, W) with plain lists of all its memories, read in the order of Meta's code."""
    side = network.image_size
    with torch.inference_mode():
        prompt = F.interpolate(mask[None, None].float(), size=(side, side), mode="bilinear", antialias=True) >= 0.5
        logits = F.interpolate(prompt.float() * 20 - 10, size=(side // 4, side // 4), mode="bilinear", antialias=True)
        score = torch.tensor([10.0 if prompt.any() else -10.0])
        dense = network.embed_masks(prompt[0].float())
        decoded = network.decode(features[0].low, features[0], network.no_points(1), dense)
        is_present = (decoded.object_score > 0) & prompt.any()
        tracks = [Tracks(logits[0], score, prompt.any()[None].float())]
        pointers = [network.object_pointer(decoded.tokens[:, 0], is_present)]
        memories = [network.write_memory(features[0].low, logits[0], score, binarise=True).bfloat16()]
        for now in range(1, len(features)):
            spatial_times = [0, *(now - age for age in range(6, 0, -1) if now - age > 0)]  # oldest first
            pointer_times = [0, *(now - age for age in range(1, 16) if now - age > 0)]  # newest first
            low = network.attend(
                features[now].low,
                torch.stack([memories[t] for t in spatial_times], dim=1),
                [0 if t == 0 else now - t for t in spatial_times],
                torch.stack([pointers[t] for t in pointer_times], dim=1),
                [now - t for t in pointer_times],
            )
            decoded = network.decode(low, features[now], network.no_points(1), network.no_mask())
            best = 1 + max(range(3), key=lambda token: float(decoded.iou[0, 1 + token]))
            is_there = bool(decoded.object_score > 0)
            logits = decoded.logits[:, best] if is_there else torch.full_like(decoded.logits[:, best], -1024.0)
            tracks.append(Tracks(logits, decoded.object_score, decoded.iou[:, best] * is_there))
            pointers.append(network.object_pointer(decoded.tokens[:, best], decoded.object_score > 0))
            written = network.write_memory(features[now].low, logits, decoded.object_score, binarise=False)
            memories.append(written.bfloat16())
        return tracks


def test_logits_and_scores_are_those_of_metas_predictor(tracks: list[Tracks]):
    for time, (samples, mean_size, scores) in GOLDEN.items():
        logits = tracks[time].logits
        torch.testing.assert_close(logits[:, *GOLDEN_CELLS], torch.tensor(samples), atol=0.01, rtol=0)
        torch.testing.assert_close(logits.abs().mean((1, 2)), torch.tensor(mean_size), atol=0.003, rtol=0)
        torch.testing.assert_close(tracks[time].object_score, torch.tensor(scores), atol=0.001, rtol=0)


def test_memory_decides_so_that_the_comparison_with_meta_means_something(tracks: list[Tracks]):
    for time in GOLDEN:
        logits = tracks[time].logits
        assert (logits[0] - logits[1]).abs().mean() > 0.05
        assert (logits[0] - logits[2]).abs().mean() > 0.05


def test_an_object_that_disappears_and_returns_is_followed_as_by_metas_predictor(
    features: list[FrameFeatures], masks: Tensor
):
    tracks = propagate(tiny_network(object_score_bias=-0.6), features, masks, chunk=4)

    for time, (scores, mean_size) in GOLDEN_GONE.items():
        torch.testing.assert_close(tracks[time].object_score, torch.tensor(scores), atol=0.001, rtol=0)
        found = tracks[time].logits.abs().mean((1, 2))
        torch.testing.assert_close(found, torch.tensor(mean_size), atol=0.004, rtol=0)
    assert tracks[16].logits[1].unique().tolist() == [-1024.0]


def test_a_prompt_in_which_the_decoder_finds_nothing_gets_the_no_object_pointer_as_in_metas_predictor(
    features: list[FrameFeatures], masks: Tensor
):
    tracks = propagate(tiny_network(object_score_bias=-0.88), features[:9], masks, chunk=4)

    for time, scores in GOLDEN_NEVER.items():
        torch.testing.assert_close(tracks[time].object_score, torch.tensor(scores), atol=0.0005, rtol=0)


@pytest.mark.parametrize("bias", [0.0, -0.6])
def test_ring_and_batches_equal_lists_of_all_memories_object_by_object(
    bias: float, features: list[FrameFeatures], masks: Tensor
):
    network = tiny_network(object_score_bias=bias)
    batched = propagate(network, features, masks, chunk=16)

    for row, mask in enumerate(masks[[1, 3]]):
        alone = literally(network, features, mask)
        for time, (expected, found) in enumerate(zip(alone, batched, strict=True)):
            logits = found.logits[[1, 3][row]]
            assert (logits - expected.logits[0]).abs().max() < 0.01, time  # measured: 0.001
            assert abs(found.object_score[[1, 3][row]] - expected.object_score[0]) < 0.001
            assert abs(found.predicted_iou[[1, 3][row]] - expected.predicted_iou[0]) < 0.001


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_results_do_not_depend_on_the_chunk(
    chunk: int, network: Sam2Network, features: list[FrameFeatures], masks: Tensor, tracks: list[Tracks]
):
    for found, expected in zip(propagate(network, features[:9], masks, chunk), tracks[:9], strict=True):
        torch.testing.assert_close(found.logits, expected.logits, atol=0.005, rtol=0)  # measured: 0.001
        torch.testing.assert_close(found.object_score, expected.object_score, atol=0.0005, rtol=0)


def test_permuting_the_objects_permutes_the_tracks(
    network: Sam2Network, features: list[FrameFeatures], masks: Tensor, tracks: list[Tracks]
):
    order = [2, 0, 3, 1]

    for found, expected in zip(propagate(network, features[:9], masks[order], 16), tracks[:9], strict=True):
        torch.testing.assert_close(found.logits, expected.logits[order], atol=0.005, rtol=0)
        torch.testing.assert_close(found.object_score, expected.object_score[order], atol=0.0005, rtol=0)
        torch.testing.assert_close(found.predicted_iou, expected.predicted_iou[order], atol=0.0005, rtol=0)


def test_a_shorter_window_is_a_prefix_of_a_longer_one(
    network: Sam2Network, features: list[FrameFeatures], masks: Tensor, tracks: list[Tracks]
):
    for found, expected in zip(propagate(network, features[:4], masks, 16), tracks[:4], strict=True):
        assert torch.equal(found.logits, expected.logits)


def test_first_tracks_are_the_given_masks_as_logits_of_ten(network: Sam2Network, features: list[FrameFeatures]):
    given = torch.zeros(2, 128, 128, dtype=torch.bool)
    given[0, 32:64, 64:96] = True  # cells 8..15 x 16..23 of the 32 x 32 logits

    tracks = MemoryPropagator(network).start(features[0], given)

    assert tracks.object_score.tolist() == [10.0, -10.0]  # the second mask is empty
    assert tracks.predicted_iou.tolist() == [1.0, 0.0]
    assert tracks.logits.shape == (2, 32, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:16, 16:24] = True
    assert torch.equal(tracks.logits[0] > 0, inside)
    torch.testing.assert_close(tracks.logits[0, 9:15, 17:23], torch.full((6, 6), 10.0))
    torch.testing.assert_close(tracks.logits[1], torch.full((32, 32), -10.0))


@pytest.mark.parametrize("size", [(480, 853), (853, 480), (31, 77)])
def test_masks_of_any_size_are_stretched_to_the_square(
    size: tuple[int, int], network: Sam2Network, features: list[FrameFeatures]
):
    height, width = size
    lower_left = torch.zeros(1, height, width, dtype=torch.bool)
    lower_left[:, height // 2 :, : width // 2] = True

    logits = MemoryPropagator(network).start(features[0], lower_left).logits[0]

    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[16:, :16] = True
    border = torch.zeros(32, 32, dtype=torch.bool)
    border[15:17] = border[:, 15:17] = True  # an odd side puts the cut inside a cell
    assert torch.equal((logits > 0)[~border], expected[~border])


def test_the_state_stays_the_same_size_over_time(network: Sam2Network, features: list[FrameFeatures], masks: Tensor):
    propagator = MemoryPropagator(network)
    propagator.start(features[0], masks)
    held = set()
    for frame in features[1:]:
        propagator.step(frame)
        assert propagator.banks is not None
        (bank,) = propagator.banks
        tensors = [value for value in vars(bank).values() if isinstance(value, Tensor)]
        held.add((sum(tensor.untyped_storage().nbytes() for tensor in tensors), len(vars(bank))))

    # 4 objects x (7 memories x 64 cells x 64 channels x 2 bytes + 16 pointers x 128 x 4 bytes), and the time
    assert held == {(4 * (7 * 64 * 64 * 2 + 16 * 128 * 4), 3)}


def test_starting_again_forgets_the_previous_window(
    network: Sam2Network, features: list[FrameFeatures], masks: Tensor, tracks: list[Tracks]
):
    propagator = MemoryPropagator(network)
    propagator.start(features[5], masks[:1])
    propagator.step(features[6])

    propagator.start(features[0], masks)

    assert torch.equal(propagator.step(features[1]).logits, tracks[1].logits)


def test_stepping_before_starting_is_a_bug(network: Sam2Network, features: list[FrameFeatures]):
    with pytest.raises(AssertionError, match=r"start\(\) comes first"):
        MemoryPropagator(network).step(features[0])


def test_best_of_three_takes_the_best_multi_mask_token_and_never_token_0():
    logits = torch.arange(8.0).view(2, 4, 1, 1)
    tokens = torch.arange(8.0).view(2, 4, 1)
    iou = torch.tensor([[0.9, 0.1, 0.3, 0.2], [0.9, 0.5, 0.4, 0.6]])

    chosen, token, quality = best_of_three(Decoded(logits, iou, tokens, torch.zeros(2)))

    assert chosen.flatten().tolist() == [2, 7]  # token 2 of prompt 0, token 3 of prompt 1
    assert token.flatten().tolist() == [2, 7]
    assert quality.tolist() == pytest.approx([0.3, 0.6])


@pytest.fixture
def decodings(network: Sam2Network, monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    """What the network's decoder answers from here on."""
    answers: list[Decoded] = []
    decode = network.decode
    monkeypatch.setattr(network, "decode", lambda *prompts: (answers.append(decode(*prompts)), answers[-1])[1])
    return answers


def test_the_predicted_iou_of_a_step_is_the_decoders_own_of_the_token_that_was_taken(
    network: Sam2Network, features: list[FrameFeatures], masks: Tensor, decodings: list[Decoded]
):
    propagator = started(network, features[0], masks[:3], chunk=16)
    for frame in features[1:]:
        tracks = propagator.step(frame)
        decoded = decodings[-1]
        for row in range(3):
            token = 1 + max(range(3), key=lambda k: float(decoded.iou[row, 1 + k]))
            assert torch.equal(tracks.logits[row], decoded.logits[row, token])
            assert tracks.predicted_iou[row] == decoded.iou[row, token] > 0
            assert tracks.predicted_iou[row] != decoded.iou[row, 0]


def test_the_predicted_iou_of_an_object_that_is_gone_is_0(features: list[FrameFeatures], masks: Tensor):
    tracks = propagate(tiny_network(object_score_bias=-0.6), features[:17], masks, chunk=4)

    assert (tracks[16].predicted_iou > 0).tolist() == [True, False, True, True]  # as in GOLDEN_GONE
    assert (tracks[15].predicted_iou > 0).all()


def test_bfloat16_networks_follow_objects_too(features: list[FrameFeatures], masks: Tensor):
    network = tiny_network()
    network.model.bfloat16()
    halves = [FrameFeatures(f.high.bfloat16(), f.mid.bfloat16(), f.low.bfloat16()) for f in features[:4]]

    found = propagate(network, halves, masks, chunk=16)

    assert found[-1].logits.dtype == torch.bfloat16
    assert all(track.predicted_iou.dtype == torch.float32 for track in found)
    expected = propagate(tiny_network(), features[:4], masks, chunk=16)
    assert ((found[-1].logits > 0) == (expected[-1].logits > 0)).float().mean() > 0.9  # measured: 0.98


# With ordinary random weights objects differ by about 8e-6, so that comparison alone is weak: it would pass if rows
# were swapped. With memory-sensitive weights they differ by 0.1 and more; that one would not.
# Differences allowed between Meta's predictor and ours: 1e-5 with ordinary weights; 2 % of the median mean difference
# between two objects where memory decides. Measured: 1e-6; 0.6 % at 128 and 0.5 % at 256 pixels, of which half and
# more vanishes when both keep memories in float32 instead of bfloat16: these weights amplify every rounding.
META = json.loads((Path(__file__).parent / "meta_predictor.json").read_text())


def allowed(golden: dict[str, Any], is_sensitive: bool) -> float:
    return 0.02 * float(golden["between"]) if is_sensitive else 1e-5


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("ordinary", 128),
        ("sensitive", 128),
        pytest.param("ordinary", 256, marks=pytest.mark.slow),
        pytest.param("sensitive", 256, marks=pytest.mark.slow),
    ],
)
def test_followed_objects_are_those_of_metas_predictor(kind: str, size: int, chunk: int):
    network, golden = compared_network(size, kind == "sensitive"), META[f"{kind} {size}"]
    with torch.inference_mode():
        pixels = network.pixels(torch.from_numpy(moving_frames(22)))
        encoded = [network.encode(frame[None]) for frame in pixels]

    tracks = propagate(network, encoded, first_masks(), chunk)

    tolerance = allowed(golden, kind == "sensitive")
    for time in GOLDEN_FRAMES:
        cells = tracks[time].logits[:, *excerpt(size)]
        torch.testing.assert_close(cells, torch.tensor(golden["cells"][str(time)]), atol=tolerance, rtol=0)
        scores = torch.tensor(golden["scores"][str(time)])
        torch.testing.assert_close(tracks[time].object_score, scores, atol=tolerance, rtol=0)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("kind", ["ordinary", "sensitive"])
@pytest.mark.parametrize("size", [128, 256])
def test_metas_predictor_run_beside_ours_follows_the_same_objects(size: int, kind: str):
    network = compared_network(size, kind == "sensitive")
    try:
        theirs = load_predictor(network)
    except ImportError as error:
        pytest.skip(f"Meta's sam2 package cannot be imported: {error}")
    with torch.inference_mode():
        pixels = network.pixels(torch.from_numpy(moving_frames(22)))
        encoded = [network.encode(frame[None]) for frame in pixels]
    logits, scores = follow(theirs, pixels, first_masks())

    for chunk in (1, 2, 4):
        tracks = propagate(network, encoded, first_masks(), chunk)
        found = torch.stack([track.logits for track in tracks])
        found_scores = torch.stack([track.object_score for track in tracks])
        worst, worst_score = (found - logits).abs().max(), (found_scores - scores).abs().max()
        print(f"{kind} {size}, chunk {chunk}: logits {worst:.1e}, scores {worst_score:.1e}")
        assert max(worst, worst_score) < allowed(META[f"{kind} {size}"], kind == "sensitive")


def started(network: Sam2Network, frame: FrameFeatures, masks: Tensor, chunk: int = 2) -> MemoryPropagator:
    propagator = MemoryPropagator(network, chunk)
    propagator.start(frame, masks)
    return propagator


@pytest.mark.parametrize("chunk", [1, 2, 16])
def test_objects_added_later_are_followed_as_by_a_propagator_of_their_own(
    chunk: int, network: Sam2Network, features: list[FrameFeatures], masks: Tensor
):
    propagator = started(network, features[0], masks[:3], chunk)
    early = started(network, features[0], masks[:3], chunk)
    late: list[MemoryPropagator] = []
    for time, frame in enumerate(features[1:12], start=1):
        tracks = propagator.step(frame)

        apart = [early.step(frame), *(other.step(frame) for other in late)]
        assert torch.equal(tracks.logits, torch.cat([track.logits for track in apart]))
        assert torch.equal(tracks.object_score, torch.cat([track.object_score for track in apart]))
        assert torch.equal(tracks.predicted_iou, torch.cat([track.predicted_iou for track in apart]))
        if time in (2, 9):  # the second time the first ring is full
            propagator.add(frame, masks[time % 2 :: 2])
            late.append(started(network, frame, masks[time % 2 :: 2], chunk))
    assert len(tracks.logits) == 3 + 2 + 2


def test_windows_may_begin_without_objects_and_get_some_later(
    network: Sam2Network, features: list[FrameFeatures], masks: Tensor, tracks: list[Tracks]
):
    propagator = MemoryPropagator(network)

    first, second = propagator.start(features[0], masks[:0]), propagator.step(features[5])
    propagator.add(features[0], masks[:0])
    propagator.add(features[0], masks)

    assert first.logits.shape == second.logits.shape == (0, 32, 32)
    assert first.object_score.shape == first.predicted_iou.shape == second.predicted_iou.shape == (0,)
    assert torch.equal(propagator.step(features[1]).logits, tracks[1].logits)


def test_adding_before_starting_is_a_bug(network: Sam2Network, features: list[FrameFeatures], masks: Tensor):
    with pytest.raises(AssertionError, match=r"start\(\) comes first"):
        MemoryPropagator(network).add(features[0], masks)


def reachable_bytes(root: object) -> int:
    """Bytes of all tensors that can be reached from an object, the network's own left out."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, torch.nn.Module):
            continue
        seen.add(id(found))
        if isinstance(found, Tensor):
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
        elif isinstance(found, (list, tuple, set)):
            waiting += found
        elif isinstance(found, dict):
            waiting += found.values()
        elif hasattr(found, "__dict__"):
            waiting += vars(found).values()
    return sum(storages.values())


def test_all_that_a_propagator_holds_is_as_large_at_step_40_as_at_step_10():
    network = tiny_network(64)
    with torch.inference_mode():
        frames = [network.encode(frame[None]) for frame in network.pixels(torch.from_numpy(moving_frames(3)))]
    propagator = started(network, frames[0], first_masks())
    held = {}
    for time in range(1, 41):
        propagator.step(frames[time % 3])
        held[time] = reachable_bytes(propagator)

    # 4 objects x (7 memories x 16 cells x 64 channels x 2 bytes + 16 pointers x 128 x 4 bytes)
    assert held[10] == held[40] == 4 * (7 * 16 * 64 * 2 + 16 * 128 * 4)


class NoHost(TorchDispatchMode):
    """Fails where the host would wait for the device, or hand it tensors: the meta device stands for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        asks = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal.default", "masked_select", "unique")
        assert not any(part in name for part in asks), f"{name} waits for the device"
        # the only traces that torch.tensor(list, device=...) leaves
        assert not any(part in name for part in ("lift_fresh", "detach_.")), f"{name}: a tensor made on the host"
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", f"{name} takes a tensor of the host"
        return result


@pytest.mark.parametrize("num_groups", [1, 2])
def test_a_step_neither_waits_for_the_device_nor_sends_it_tensors(num_groups: int, network: Sam2Network):
    from transformers import Sam2VideoModel

    with torch.device("meta"):
        meta = Sam2Network(Sam2VideoModel(network.model.config).eval())
        frame = FrameFeatures(torch.zeros(1, 16, 32, 32), torch.zeros(1, 32, 16, 16), torch.zeros(1, 128, 8, 8))
        masks = torch.zeros(5, 90, 130, dtype=torch.bool)
    propagator = started(meta, frame, masks)
    for _ in range(num_groups - 1):
        propagator.add(frame, masks)

    assert propagator.banks is not None
    for time in (0, 8, 200):  # 200 is beyond the ages that tables are made for at first
        for bank in propagator.banks:
            bank.time = time
        with NoHost():
            propagator.step(frame)


@pytest.mark.parametrize("bad", ["item", "table", "where", "copy"])
def test_the_check_for_waiting_sees_what_it_is_for(bad: str):
    score = torch.zeros(2, device="meta")
    acts = {
        "item": lambda: bool((score > 0).any()),
        "table": lambda: torch.tensor([1, 2], device="meta"),
        "where": lambda: score[score > 0],
        "copy": lambda: torch.ones(2).to("meta"),
    }
    with pytest.raises((AssertionError, NotImplementedError)), torch.inference_mode(), NoHost():
        acts[bad]()


class OperationCount(TorchDispatchMode):
    """Counts what would be launched on a device: every operation that does not only make a view."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        makes_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not makes_view:
            self.operations[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations_of_a_step(network: Sam2Network, count: int, chunk: int) -> int:
    """Operations of encoding and following one frame with all memories full, counted without computing anything."""
    propagator = MemoryPropagator(network, chunk)
    pixels = torch.zeros(1, 3, network.image_size, network.image_size, device="meta")
    with torch.inference_mode():
        frame = network.encode(pixels)
    propagator.start(frame, torch.zeros(count, 480, 853, dtype=torch.bool, device="meta"))
    assert propagator.banks is not None
    propagator.banks[0].time = 40
    with OperationCount() as counter, torch.inference_mode():
        propagator.step(network.encode(pixels))
    return counter.operations.total()


def test_a_step_takes_as_many_operations_for_many_objects_as_for_one_and_at_most_850():
    from transformers import Sam2VideoConfig, Sam2VideoModel

    with torch.device("meta"):
        network = Sam2Network(Sam2VideoModel(Sam2VideoConfig()).eval())  # the sizes of SAM 2.1 tiny, 1024 pixels
    operations_of_a_step(network, 1, 16)  # position tables that are made once

    counts = {count: operations_of_a_step(network, count, chunk=16) for count in (1, 8, 16)}

    assert len(set(counts.values())) == 1, counts
    assert counts[16] <= 850  # measured: 565, frame encoding (276) included
    assert operations_of_a_step(network, 32, chunk=16) > counts[16]  # the counter sees the loop over chunks


def test_an_empty_mask_is_followed_without_error(network: Sam2Network, features: list[FrameFeatures]):
    tracks = propagate(network, features[:3], first_masks()[3:], chunk=4)

    assert [track.logits.shape for track in tracks] == [(1, 32, 32)] * 3
    assert tracks[0].object_score.tolist() == [-10.0]
    assert all(torch.isfinite(track.logits).all() for track in tracks)
