"""What a native video model looks at besides the frame, and how a user says so: "tv3s_b1.pth@stream"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, cast

from ...errors import SettingsError

Context = Literal["clip", "stream", "frame"]
CONTEXTS: Final[Mapping[Context, str]] = {
    "clip": "the frames 9, 6 and 3 before it, as in the published test scripts (default)",
    "stream": "a state that is carried from frame to frame (TV3S)",
    "frame": "nothing: the single-frame SegFormer that each of these models holds",
}


def split_context(name: str) -> tuple[str, Context | None]:
    """Split the name of a local checkpoint or folder from the context behind its last "@"; None if there is none.

    What stands behind the "@" of a hub id is a revision and stays where it is.

    Raises:
        SettingsError: If a local file is followed by something that is no context.
    """
    target, at, context = name.rpartition("@")
    if not at or Path(name).exists() or not Path(target).expanduser().exists():
        return name, None
    if context not in CONTEXTS:
        choices = "; ".join(f"@{known}: {meaning}" for known, meaning in CONTEXTS.items())
        raise SettingsError(f"{name}: {context!r} behind the @ is no context of a video model. Known are {choices}")
    return target, cast(Context, context)
