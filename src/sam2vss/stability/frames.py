"""The pictures that label maps belong to, where labels are looked at without ground truth."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..errors import MediaError, RunError, SettingsError
from ..files import safe_name
from ..media import BrokenVideoError, ClipSource, ImageClip, find_clips
from ..run_info import read_info
from ..types import Frame
from .sets import LabelSet, listed


def find_frames(sets: Sequence[LabelSet], source: Path | str | None = None) -> dict[str, ClipSource]:
    """Find the pictures of every clip: those of the source given, or those that the first run among the sets was of.

    A source of one clip belongs to labels of one clip whatever their names.

    Raises:
        SettingsError: If there is no source and no set belongs to a run.
        MediaError: If the pictures of a clip are not there.
        RunError: If a run does not list the clip.
    """
    labelled = list(sets[0].files)
    if source is None:
        made = next((one for one in sets if one.run is not None), None)
        if made is None or made.run is None:
            raise SettingsError(
                f"consistency along optical flow needs the pictures, and {sets[0].name} does not say where they are: "
                "pass --frames SOURCE, or --flow none for flips alone"
            )
        return {clip: _recorded_clip(made.run, made.own_name(clip)) for clip in labelled}
    clips = {clip.name: clip for clip in find_clips(source)}
    if len(clips) == len(labelled) == 1:
        return dict(zip(labelled, clips.values(), strict=True))
    absent = [clip for clip in labelled if safe_name(clip) not in clips]
    if absent:
        raise MediaError(
            f"{source} has no pictures of {len(absent)} of {len(labelled)} labelled clips (first: {listed(absent)}); "
            f"it holds {listed(clips)}"
        )
    return {clip: clips[safe_name(clip)] for clip in labelled}


def _recorded_clip(run: Path, clip: str) -> ClipSource:
    entry = next((entry for entry in read_info(run)["clips"] if safe_name(str(entry["name"])) == safe_name(clip)), None)
    if entry is None:
        raise RunError(f"{run} does not list the clip {clip}; pass --frames SOURCE")
    source = Path(str(entry["source"]))
    try:
        found = {one.name: one for one in find_clips(source)}
    except MediaError as error:
        raise MediaError(
            f"the frames of {clip}, which {run} was made of, cannot be read again ({error}); pass --frames SOURCE with "
            "the place where they are now, or --flow none for flips alone"
        ) from error
    if len(found) > 1 and clip not in found:
        raise MediaError(
            f"{source}, where {run} had {clip} from, now holds {listed(found)}; pass --frames SOURCE with the place "
            "where its frames are"
        )
    return found.get(clip) or next(iter(found.values()))


def labelled_frames(
    clip: str, source: ClipSource, names: Collection[str], warnings: list[str]
) -> Iterator[tuple[str, Frame]]:
    """Stream the pictures that have labels, each with the name of its label, in the order of the source.

    Pictures and labels belong together by name. Where no name agrees (as for videos, whose frames are numbered), they
    belong together in order, and there must be as many of the one as of the other.

    Args:
        clip: Name of the clip, for messages.
        source: Its pictures.
        names: Names of the labelled frames, in natural order.
        warnings: Pictures without labels are noted here.

    Raises:
        MediaError: If a label has no picture, or the pictures cannot be read.
    """
    in_order = list(names)
    by_name = {safe_name(name): name for name in in_order}
    is_by_name = _has_common_name(source, by_name)
    num_pictures, num_found = 0, 0
    try:
        for frame in source.frames():
            num_pictures += 1
            if is_by_name:
                name = by_name.get(safe_name(frame.name))
            else:
                name = in_order[frame.index] if frame.index < len(in_order) else None
            if name is not None:
                num_found += 1
                yield name, frame
    except BrokenVideoError as error:
        if num_found < len(in_order):
            raise
        warnings.append(f"{error}; all labels of {clip} lie before that")
    if num_found < len(in_order) or (not is_by_name and num_pictures != len(in_order)):
        how = "by name" if is_by_name else "in order, as no name agrees"
        raise MediaError(
            f"{clip} has {len(in_order)} label maps (first: {in_order[0]}) and {source.path} has {num_pictures} "
            f"pictures, of which {num_found} belong to labels {how}; every label map needs its picture"
        )
    if num_pictures > num_found:
        warnings.append(
            f"{num_pictures - num_found} of {num_pictures} pictures of {clip} have no labels: steps from one labelled "
            "picture to the next are longer there"
        )


def _has_common_name(source: ClipSource, names: Collection[str]) -> bool:
    """Whether labels are named like pictures; frames of videos are named by their number in 8 digits."""
    if isinstance(source, ImageClip):
        return any(safe_name(file.stem) in names for file in source.files)
    return any(re.fullmatch(r"[0-9]{8}", name) for name in names)
