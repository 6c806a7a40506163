"""What a folder of label maps holds: class ids, or panoptic maps in one of three forms.

Names of files tell; pictures are looked into only where 16-bit numbers may be class ids or panoptic codes.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from ..errors import LabelError
from ..types import IGNORE_INDEX, WIDE_IGNORE_INDEX, LabelSpace
from .deva import has_segment_list
from .folders import find_label_folders, read_colors, read_ids, subfolders
from .id_checks import sample_of
from .panoptic_codes import INSTANCES_PER_CLASS
from .panoptic_folders import PREDICTION_FILE, PREDICTION_FOLDER, TRUTH_PATTERN
from .vipseg import CODE_FOLDER, SEGMENT_FOLDER, find_vipseg

Form = Literal["class ids", "pred.json", "segment lists", "panoptic codes"]
FORMS: Final[Mapping[Form, str]] = {
    "pred.json": f"{PREDICTION_FILE} beside {PREDICTION_FOLDER}/<video>/<frame>.png (DVIS, DVIS++, CAVIS, VidEoMT)",
    "segment lists": "<video>/<frame>.json, a list of segments, beside <video>/<frame>.png (DEVA)",
    "panoptic codes": f"{CODE_FOLDER}/<video>/<frame>.png or 16-bit <video>/<frame>.png in VIPSeg's panoptic code",
    "class ids": "grey or palette <video>/<frame>.png, pixel = class id (CFFM, MRCFA, TV3S, VSPW_baseline, mmseg)",
}
RESULT_FOLDERS: Final = ("result_submission", "inference")  # where CFFM, MRCFA, TV3S and DVIS, VidEoMT write
_RUN_PARTS: Final = ("labels", "base", "truth")
_WIDE_MODES: Final = ("I", "I;16", "I;16B")


@dataclass(frozen=True)
class LabelForm:
    """What a folder holds.

    Attributes:
        name: The form.
        folder: Where the pictures lie, in one of the layouts of `find_label_folders`.
        listing: The file that lists the segments; None for all forms but "pred.json".
    """

    name: Form
    folder: Path
    listing: Path | None = None

    @property
    def is_panoptic(self) -> bool:
        return self.name != "class ids"


def find_label_form(folder: Path, label_space: LabelSpace | None = None) -> LabelForm:
    """Recognise what a folder of label maps holds.

    The first of these that fits counts, whatever else lies beside it:

    1. a run of ours, or its `labels`, `base` or `truth`: class ids;
    2. `pred.json`, in the folder or beside it where it is called `pan_pred`;
    3. VIPSeg: `panomasks` in panoptic codes, else one `panoptic_gt_*.json` beside `panomasksRGB`;
    4. a JSON list of the name of a picture beside it: DEVA's lists of segments;
    5. 16-bit grey pictures, some of which hold the number of an instance of a thing, under a label set with ids 1..255
       that knows things from stuff: panoptic codes;
    6. grey and palette pictures: class ids.

    Where the folder holds nothing but a `result_submission` or `inference`, what lies in there counts.

    Args:
        folder: The folder.
        label_space: What class ids would mean.

    Raises:
        LabelError: If its pictures are in colour and nothing says what they mean, or a `pan_pred` has no `pred.json`.
    """
    folder = step_into(Path(folder))
    place = folder.resolve()
    if any((run / "run.json").is_file() for run in (place, *([place.parent] if place.name in _RUN_PARTS else []))):
        return LabelForm("class ids", folder)
    for listing in (folder / PREDICTION_FILE, folder.parent / PREDICTION_FILE):
        if listing.is_file() and (listing.parent == folder or folder.name == PREDICTION_FOLDER):
            return LabelForm("pred.json", listing.parent / PREDICTION_FOLDER, listing)
    check_not_orphaned(folder)
    vipseg = find_vipseg(folder)
    if vipseg is not None:
        return LabelForm("panoptic codes", vipseg.root / CODE_FOLDER)
    listings = sorted(folder.glob(TRUTH_PATTERN))
    if len(listings) == 1 and (folder / SEGMENT_FOLDER).is_dir():
        return LabelForm("pred.json", folder / SEGMENT_FOLDER, listings[0])
    pictures = _first_video(folder)
    if any(has_segment_list(path) for path in pictures):
        return LabelForm("segment lists", folder)
    mode = _mode(pictures[0]) if pictures else ""
    if mode in _WIDE_MODES and label_space is not None and _shows_instances(folder, label_space):
        return LabelForm("panoptic codes", folder)
    if mode in ("RGB", "RGBA") and not _is_grey(pictures[0]):
        raise LabelError(
            f"{pictures[0]} has mode {mode}: its colours cannot be decoded into classes, and no list of segments says "
            f"what they mean. Known forms: {'; '.join(FORMS.values())}"
        )
    return LabelForm("class ids", folder)


def check_is_folder(folder: Path) -> None:
    """Raise `LabelError` for what is no folder, such as the JSON in one, or mmsegmentation's `res.pkl`."""
    if folder.suffix == ".pkl" and folder.is_file():
        raise LabelError(
            f"{folder} is a pickle, which is never opened; the one that mmsegmentation's test script writes holds only "
            "paths of temporary files, which are deleted when it ends: pass the folder result_submission beside it"
        )
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        fix = f": pass {folder.parent}, the folder that holds it" if folder.exists() else ""
        raise LabelError(f"{folder} {found}, expected a folder of label PNGs{fix}")


def step_into(folder: Path) -> Path:
    """Return the one result folder that a model's output folder holds, else the folder itself."""
    if (folder / PREDICTION_FILE).is_file():
        return folder
    inside = [folder / name for name in RESULT_FOLDERS if (folder / name).is_dir()]
    others = [entry for entry in subfolders(folder) if entry not in inside] if inside else []
    return inside[0] if len(inside) == 1 and not others else folder


def check_not_orphaned(folder: Path) -> None:
    """Raise `LabelError` for pictures of segments whose list was left behind."""
    if (folder / PREDICTION_FOLDER).is_dir() and not (folder / PREDICTION_FILE).is_file():
        raise LabelError(
            f"{folder} holds {PREDICTION_FOLDER} and no {PREDICTION_FILE}, which says what the segments in its "
            "pictures are: copy that file too"
        )


def _first_video(folder: Path) -> list[Path]:
    """Return the pictures of the first video that has any; none where the layout is unknown, which others report."""
    with suppress(LabelError, OSError):
        return next((list(frames.values()) for frames in find_label_folders(folder).values() if frames), [])
    return []


def _mode(path: Path) -> str:
    """Return Pillow's mode of a picture, "" where it cannot be read, which others report with its name."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""


def _is_grey(path: Path) -> bool:
    """Tell whether all channels of a colour picture are equal, as some writers store class ids."""
    colors = read_colors(path)
    return bool((colors[..., :1] == colors).all())


def _shows_instances(folder: Path, label_space: LabelSpace) -> bool:
    """Tell whether one of a sample of maps holds a number that is no id, but the code of an instance of a thing.

    Codes of stuff are its ids, so numbers of 16 bits alone do not tell codes from class ids.
    """
    if not has_codes(label_space):
        return False
    is_instance = np.zeros(WIDE_IGNORE_INDEX + 1, bool)
    for raw_id, kind in zip(label_space.raw_ids, label_space.kinds, strict=True):
        if kind == "thing":
            is_instance[raw_id * INSTANCES_PER_CLASS : (raw_id + 1) * INSTANCES_PER_CLASS] = True
    is_instance[[*range(max(label_space.raw_ids) + 1), *label_space.raw_void]] = False
    for path in sample_of(folder):
        with suppress(LabelError):
            if is_instance[read_ids(path)].any():
                return True
    return False


def has_codes(label_space: LabelSpace) -> bool:
    """Tell whether VIPSeg's code can be read with a label set: ids 1..255, void 0, things and stuff known."""
    is_known = all(kind in ("thing", "stuff") for kind in label_space.kinds)
    return is_known and min(label_space.raw_ids) >= 1 and max(label_space.raw_ids) <= IGNORE_INDEX
