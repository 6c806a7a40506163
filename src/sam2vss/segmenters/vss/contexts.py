"""What a native video model looks at besides the frame, and how a user says so: "tv3s_b1.pth@stream"."""

from collections.abc import Mapping, Sequence
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


def contexts_of(family: str) -> tuple[Context, ...]:
    """Return the contexts that a native family has, the default first."""
    own: Mapping[str, tuple[Context, ...]] = {"SegFormer": ("frame",), "TV3S": ("clip", "frame", "stream")}
    return own.get(family, ("clip", "frame"))


def check_context(context: Context, has: Sequence[Context], what: str) -> None:
    """Raise `SettingsError` unless a model has a context.

    Args:
        context: The one asked for.
        has: Those of the model, see `contexts_of`; none for models that are not native.
        what: Names the model in messages.
    """
    if context in has:
        return
    if not has:
        raise SettingsError(
            f"{what}: only native models (SegFormer, CFFM, MRCFA, TV3S) have a context; leave out @{context}"
        )
    if context == "stream":
        raise SettingsError(f"{what}: only TV3S carries a state from frame to frame; leave out @stream")
    raise SettingsError(f"{what}: a SegFormer sees each frame by itself; leave out @{context}")
