"""The account of one first frame in a file: what the network did there, and what runs of their own would do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files import atomic_write_json
from .work import Work


@dataclass(frozen=True)
class StartWork:
    """Work that belongs to the windows that begin on one frame.

    Attributes:
        done: What the network did, in all sessions.
        asked: What a tracker of its own asked for, by `Point.tracks_key`.
    """

    done: Work = field(default_factory=Work)
    asked: Mapping[str, Work] = field(default_factory=dict)


def read_work(path: Path) -> StartWork:
    """Read an account; none where there is no file, or one that cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return StartWork(Work(**content["done"]), {key: Work(**work) for key, work in content["asked"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return StartWork()


def write_work(path: Path, work: StartWork) -> None:
    """Write an account; the file is there whole or not at all."""
    asked = {key: entry.to_dict() for key, entry in work.asked.items()}
    atomic_write_json(path, {"done": work.done.to_dict(), "asked": asked})
