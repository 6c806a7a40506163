"""Masklets that lie in files, as a run with `--save-masklets` wrote them: `--tracker stored:DIR`.

Votes, overlap order and base labels can be changed without finding the masklets again.
"""

from pathlib import Path

import numpy as np

from ..errors import MediaError, SettingsError, ShapeError
from ..files import safe_name
from ..masklet_files import SUFFIXES, masklet_path, read_masklets
from ..types import MaskletWindow, WindowContext

FOLDER_OF_RUN = "masklets"
_SHOWN = 5  # names listed in a message


class StoredMasklets:
    """A `MaskletTracker` that reads `DIR/<clip>/<start>.json.gz` (or `.json`) instead of looking at the frames.

    Args:
        folder: The folder with one folder per clip, or the run folder that holds it as `masklets`.
    """

    def __init__(self, folder: Path | str) -> None:
        """Point at a folder of masklets.

        Raises:
            MediaError: If it is no folder, or a run without masklets.
        """
        folder = Path(folder)
        if not folder.is_dir():
            found = "is a file" if folder.exists() else "does not exist"
            raise MediaError(f"{folder} {found}, expected a folder of masklets that a run with --save-masklets wrote")
        if (folder / "run.json").is_file():
            folder = folder / FOLDER_OF_RUN
            if not folder.is_dir():
                raise MediaError(f"the run in {folder.parent} kept no masklets: run it again with --save-masklets")
        self.folder = folder
        self._clip: str | None = None

    def begin_clip(self, name: str) -> None:
        """Say which clip the next windows belong to.

        Raises:
            MediaError: If no masklets of such a clip are there.
        """
        place = self.folder / safe_name(name)
        if not place.is_dir():
            clips = sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())
            raise MediaError(f"{self.folder} holds no masklets of the clip {name}; {_listed('clips there', clips)}")
        self._clip = name

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Return the stored masklets of the frames, uint8 RGB (L, H, W, 3), whose first one is frame `start`.

        Raises:
            SettingsError: If no clip was begun, or the windows were cut in another way.
            ShapeError: If the masklets are of frames of another size.
            MediaError: If the file is missing, damaged or of another window.
        """
        if self._clip is None:
            raise SettingsError("stored masklets belong to clips: call begin_clip(name) before the clip's first window")
        path = self._find(self._clip, start)
        masklets = read_masklets(path)
        length, height, width = frames.shape[:3]
        if masklets.window.start != start:
            raise MediaError(f"{path} holds masklets from frame {masklets.window.start} on: the file was renamed")
        if masklets.window.length != length:
            raise SettingsError(
                f"{path} holds masklets of {masklets.window.length} frames, and the window from frame {start} on has "
                f"{length}: pass the same --window as the run that wrote them, with the same frames"
            )
        if masklets.size != (height, width):
            raise ShapeError(
                f"{path} holds masks of {masklets.size[0]} x {masklets.size[1]} (height x width), but the frames are "
                f"{height} x {width}: masklets must come from the same frames at the same resolution"
            )
        return masklets

    def _find(self, clip: str, start: int) -> Path:
        path = masklet_path(self.folder, clip, start)
        files = [path.with_name(f"{start:08d}{suffix}") for suffix in SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is not None:
            return found
        stems = {file.name.split(".")[0] for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")}
        starts = sorted(int(stem) for stem in stems if stem.isdecimal())
        if starts and start > starts[-1]:
            hint = "and the run that wrote them did not come so far: its clip was shorter, or it broke off"
        else:
            hint = "so pass the same --window as the run that wrote them"
        raise MediaError(
            f"there are no masklets of the window from frame {start} on: {path} is missing, {hint} "
            f"({_listed('windows there begin at', starts)})"
        )


def _listed(what: str, entries: list[str] | list[int]) -> str:
    shown = ", ".join(str(entry) for entry in entries[:_SHOWN]) or "none"
    return f"{what}: {shown}{', ...' if len(entries) > _SHOWN else ''}"
