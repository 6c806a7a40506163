import torch
from torch import Tensor

from sam2vss.sam2.track_states import TrackStates

LOW = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def square(left: int) -> Tensor:
    """Logits (1, 32, 32) of a mask of 6 x 6 cells."""
    logits = torch.full((1, 32, 32), -10.0)
    logits[0, 10:16, left : left + 6] = 10.0
    return logits


NOTHING = torch.full((1, 32, 32), -10.0)


def test_the_velocity_is_the_way_since_the_last_sighting_per_frame():
    states = TrackStates.born(square(4), LOW, never=9)

    for logits in (NOTHING, NOTHING, square(13)):
        states = states.seen(logits, LOW, inertia=0.0)

    torch.testing.assert_close(states.velocity, torch.tensor([[9 / 32 / 3, 0.0, 0.0, 0.0]]))  # 9 cells in 3 frames


def test_a_hidden_object_is_expected_where_it_would_be_by_now():
    states = TrackStates.born(square(4), LOW, never=9)
    for logits in (square(6), NOTHING, NOTHING):  # 2 cells to the right, and hidden in two frames
        states = states.seen(logits, LOW, inertia=0.0)

    assert states.missing.tolist() == [2]
    assert torch.equal(states.predicted_masks(), square(6 + 3 * 2) > 0)
