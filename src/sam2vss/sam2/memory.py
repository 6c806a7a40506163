"""What an object remembers: a fixed number of spatial memories and pointers per object, constant in time."""

import torch
from torch import Tensor


class MemoryBank:
    """Ring memory of N objects; slot 0 holds the conditioning frame, the other slots the most recent frames.

    The slot of a frame never moves, only the ages returned by `read` do: attention does not depend on the order of its
    keys. Memories are kept in bfloat16, as Meta's predictor keeps them.

    Args:
        num_memories: Spatial memories per object, the conditioning frame included (SAM 2: 7).
        num_pointers: Pointers per object, the conditioning frame included (SAM 2: 16).
    """

    def __init__(self, spatial: Tensor, pointer: Tensor, num_memories: int, num_pointers: int) -> None:
        count, num_cells, memory_size = spatial.shape
        self.spatial = torch.zeros(
            (count, num_memories, num_cells, memory_size), dtype=torch.bfloat16, device=spatial.device
        )
        self.pointer = torch.zeros((count, num_pointers, pointer.shape[1]), dtype=pointer.dtype, device=pointer.device)
        self.spatial[:, 0] = spatial
        self.pointer[:, 0] = pointer
        self.time = 0  # of the newest frame written

    @staticmethod
    def bytes_per_object(
        num_cells: int,
        memory_size: int,
        num_memories: int,
        pointer_size: int,
        num_pointers: int,
        pointer_bytes: int = 4,
    ) -> int:
        """What one object takes; `pointer_bytes` is the size of one number of a pointer."""
        return num_memories * num_cells * memory_size * 2 + num_pointers * pointer_size * pointer_bytes

    @property
    def num_objects(self) -> int:
        return len(self.spatial)

    def write(self, rows: slice, time: int, spatial: Tensor, pointer: Tensor) -> None:
        """Store what the objects of `rows` remember of frame `time`, 1 or later, counted from the conditioning frame.

        `time` advances once all rows are written; writing chunk after chunk at the same time is fine.
        """
        self.spatial[rows, self._slot(time, self.spatial.shape[1])] = spatial.to(self.spatial.dtype)
        self.pointer[rows, self._slot(time, self.pointer.shape[1])] = pointer
        self.time = time

    def read(self, rows: slice, now: int) -> tuple[Tensor, list[int], Tensor, list[int]]:
        """Return spatial memories (P, M, h*w, 64), their ages, pointers (P, K, D) and their ages at frame `now`.

        Ages are in frames; a spatial memory of age 0 is the conditioning frame (its encoding knows no age), while
        the conditioning pointer has its real age.
        """
        spatial_ages, pointer_ages = self.ages(now)
        return (
            self.spatial[rows, : len(spatial_ages)],
            spatial_ages,
            self.pointer[rows, : len(pointer_ages)],
            pointer_ages,
        )

    def ages(self, now: int) -> tuple[list[int], list[int]]:
        """Ages of the spatial memories and of the pointers that `read` returns; the same for all objects."""
        num_spatial, num_pointers = self.spatial.shape[1], self.pointer.shape[1]
        spatial_ages = [0, *self._ages(now, min(now, num_spatial), num_spatial)]
        return spatial_ages, [now, *self._ages(now, min(now, num_pointers), num_pointers)]

    @staticmethod
    def _slot(time: int, num_slots: int) -> int:
        return 1 + (time - 1) % (num_slots - 1)

    @classmethod
    def _ages(cls, now: int, num_used: int, num_slots: int) -> list[int]:
        """Ages of slots 1..num_used-1 just before frame `now` is written."""
        slot_of_time = {cls._slot(time, num_slots): time for time in range(max(1, now - num_slots + 1), now)}
        return [now - slot_of_time[slot] for slot in range(1, num_used)]
