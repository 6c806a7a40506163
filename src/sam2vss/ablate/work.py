"""How much the network had to do, counted in what costs: frames encoded, points prompted, masks followed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

KINDS: Final = {"encoded": "frames encoded", "prompted": "points prompted", "followed": "masks followed a frame on"}


@dataclass(frozen=True)
class Work:
    """Passes through the parts of the network.

    Attributes:
        encoded: Frames through the encoder.
        prompted: Points of a grid through the mask decoder; crop layers are not counted.
        followed: Masks followed into a further frame. Masks that mode fast matches anew are not followed.
    """

    encoded: int = 0
    prompted: int = 0
    followed: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.encoded + other.encoded, self.prompted + other.prompted, self.followed + other.followed)

    def __sub__(self, other: "Work") -> "Work":
        return Work(self.encoded - other.encoded, self.prompted - other.prompted, self.followed - other.followed)

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def compare(done: Work, needed: Work) -> Mapping[str, tuple[int, int]]:
    """Return work done and work that separate runs of every point need, by kind in words."""
    done_by, needed_by = done.to_dict(), needed.to_dict()
    return {words: (done_by[kind], needed_by[kind]) for kind, words in KINDS.items()}
