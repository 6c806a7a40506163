import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.sam2.memory import MemoryBank


def mark(time: int, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A spatial memory and a pointer that say from which frame they are (small integers are exact in bfloat16)."""
    return torch.full((count, 2, 3), float(time)), torch.full((count, 5), float(time))


def bank_after(num_frames: int, num_memories: int, num_pointers: int) -> MemoryBank:
    bank = MemoryBank(*mark(0), num_memories, num_pointers)
    for time in range(1, num_frames):
        bank.write(slice(0, 1), time, *mark(time))
    return bank


def test_a_new_bank_offers_the_conditioning_frame_alone():
    spatial, spatial_ages, pointer, pointer_ages = bank_after(1, 7, 16).read(slice(0, 1), now=1)

    assert (spatial.shape, pointer.shape) == ((1, 1, 2, 3), (1, 1, 5))
    assert (spatial_ages, pointer_ages) == ([0], [1])


def test_ages_after_the_rings_have_wrapped_around():
    _, spatial_ages, _, pointer_ages = bank_after(20, 7, 16).read(slice(0, 1), now=20)

    # Spatial slots 1..6 hold frames 19, 14, 15, 16, 17, 18: frame t lies in slot 1 + (t - 1) % 6, and 18 % 6 = 0.
    assert spatial_ages == [0, 20 - 19, 20 - 14, 20 - 15, 20 - 16, 20 - 17, 20 - 18]
    # Pointer slots 1..15 hold frames 16..19 and 5..15; the conditioning pointer keeps its real age.
    assert pointer_ages == [20, *(20 - t for t in [16, 17, 18, 19, *range(5, 16)])]


@given(num_frames=st.integers(1, 40), num_memories=st.integers(2, 7), num_pointers=st.integers(2, 16))
def test_the_ring_holds_what_a_list_of_all_frames_would_offer(num_frames: int, num_memories: int, num_pointers: int):
    now = num_frames
    bank = bank_after(num_frames, num_memories, num_pointers)
    spatial, spatial_ages, pointer, pointer_ages = bank.read(slice(0, 1), now)

    recent = [t for t in range(now) if t > 0 and now - t < num_memories]  # Meta: up to num_memories - 1 frames before
    expected = {(0.0, 0)} | {(float(t), now - t) for t in recent}
    assert set(zip(spatial[0, :, 0, 0].tolist(), spatial_ages, strict=True)) == expected
    recent = [t for t in range(now) if t > 0 and now - t < num_pointers]
    expected = {(0.0, now)} | {(float(t), now - t) for t in recent}
    assert set(zip(pointer[0, :, 0].tolist(), pointer_ages, strict=True)) == expected


def test_writing_some_rows_leaves_the_others_alone():
    bank = MemoryBank(*mark(0, count=3), 7, 16)
    bank.write(slice(0, 2), 1, *mark(1, count=2))

    spatial, _, pointer, _ = bank.read(slice(0, 3), now=2)

    assert spatial[:, 1, 0, 0].tolist() == [1, 1, 0]
    assert pointer[:, 1, 0].tolist() == [1, 1, 0]
    assert bank.read(slice(1, 3), now=2)[0][:, 1, 0, 0].tolist() == [1, 0]


def test_memories_are_kept_in_bfloat16_and_pointers_as_they_come():
    spatial = torch.full((1, 2, 3), 1 + 2**-9)  # bfloat16 has 8 bits: rounds to 1
    pointer = torch.full((1, 5), 1 + 2**-9)
    bank = MemoryBank(spatial, pointer, 7, 16)
    bank.write(slice(0, 1), 1, spatial, pointer)

    stored, _, pointers, _ = bank.read(slice(0, 1), now=2)

    assert stored.dtype == torch.bfloat16
    assert stored.unique().tolist() == [1.0]
    assert pointers.unique().tolist() == [1 + 2**-9]


def test_state_of_one_object_at_1024_pixels_is_three_and_a_half_mebibytes_whatever_the_time():
    num_cells = (1024 // 16) ** 2
    with torch.device("meta"):
        bank = MemoryBank(torch.zeros(1, num_cells, 64), torch.zeros(1, 256), 7, 16)
        sizes = set()
        for time in range(1, 40):
            bank.write(slice(0, 1), time, torch.zeros(1, num_cells, 64), torch.zeros(1, 256))
            sizes.add((bank.spatial.nbytes, bank.pointer.nbytes))

    # 7 memories x 4096 cells x 64 channels x 2 bytes = 3.5 MiB, and 16 pointers x 256 x 4 bytes = 1/64 MiB
    assert sizes == {(3.5 * 2**20, 2**20 / 64)}


def test_number_of_objects_is_that_of_the_rows():
    assert MemoryBank(*mark(0, count=3), 7, 16).num_objects == 3


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_time_advances_however_many_chunks_are_written(chunk: int):
    bank = MemoryBank(*mark(0, count=5), 7, 16)
    for time in (1, 2, 3):
        for first in range(0, 5, chunk):
            rows = slice(first, min(first + chunk, 5))
            bank.write(rows, time, *mark(time, count=rows.stop - rows.start))
        assert bank.time == time
    assert bank.read(slice(0, 5), 4)[0][:, :, 0, 0].tolist() == [[0, 1, 2, 3]] * 5
