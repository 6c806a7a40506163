"""What is known to be wrong with files of data sets, and what to do about it, in words for messages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .vspw import DAMAGED_CLIP, DAMAGED_CLIP_FIX

FETCH_AGAIN: Final = "fetch or write it again"
_LFS_HEAD: Final = b"version https://git-lfs.github.com/spec/"
_LFS_MAX_BYTES: Final = 1024  # Git LFS: a pointer is shorter
_PNG_END: Final = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Defect:
    """What is wrong with a file ("is an empty file (0 bytes)") and how to mend it ("fetch it again")."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}"


def find_defect(path: Path) -> Defect | None:
    """Look at a picture's size, head and last bytes, without decoding it; None if they look right."""
    try:
        size = path.stat().st_size
        if not size:
            return Defect("is not an image (0 bytes)", _way_to_mend(path))
        with path.open("rb") as file:
            head = file.read(len(_LFS_HEAD))
            file.seek(max(0, size - 64))  # some writers leave a few bytes after the end
            end = file.read()
    except OSError as error:  # a folder of that name, a link that leads nowhere, no right to read
        return Defect(f"cannot be opened ({error.strerror})", "put a picture there that you may read")
    if size < _LFS_MAX_BYTES and head == _LFS_HEAD:
        return Defect(
            f"is not an image ({size} bytes) but a Git LFS pointer to one", "run `git lfs pull` where it came from"
        )
    if head[:4] == b"\x89PNG" and _PNG_END not in end:
        return Defect("is a PNG that is cut short", _way_to_mend(path))
    return None


def unreadable(path: Path, reason: object) -> Defect:
    """Say what is wrong with a picture that could not be decoded."""
    return find_defect(path) or Defect(f"is damaged or no picture ({reason})", _way_to_mend(path))


def _way_to_mend(path: Path) -> str:
    return DAMAGED_CLIP_FIX if DAMAGED_CLIP in path.parts else FETCH_AGAIN
