"""What is special about VSPW as it is distributed (VSPW-dataset/VSPW-dataset-download), at 480p and in full size.

Layout: `train.txt`, `val.txt`, `test.txt`, `label_num_dic_final.json`, `data/<video>/{origin,mask}/<frame>`. Masks hold
0 ("others", void in evaluation), 1..124 and 255 (void); the test split comes without masks.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import LabelError
from ..types import LabelSpace

CLASS_LIST: Final = "label_num_dic_final.json"  # name -> raw id as text, "others" is 0
FRAME_RATE: Final = 15.0  # the frames were extracted at 15 a second
SMALL_HEIGHT: Final = 480  # of VSPW_480p; its width is int(480 * w / h)
DAMAGED_CLIP: Final = "988_f_Xvy_DCPt8"
DAMAGED_CLIP_FIX: Final = (
    f"pictures of clip {DAMAGED_CLIP} are empty in the release of VSPW: the README of "
    "VSPW-dataset/VSPW-dataset-download links an archive that replaces them"
)
NO_TEST_MASKS: Final = "VSPW's test split is distributed without masks (scored by a server): take --split val"


def is_vspw(root: Path) -> bool:
    """Tell whether a folder in this layout is VSPW itself: by its list of classes, or by its name."""
    return (root / CLASS_LIST).is_file() or re.search(r"vspw", root.resolve().name, re.IGNORECASE) is not None


def find_class_list_difference(root: Path, label_space: LabelSpace) -> str | None:
    """Compare the release's own list of classes, where it is there, with a label set; say the first difference.

    Raises:
        LabelError: If the list cannot be read.
    """
    path = root / CLASS_LIST
    if not path.is_file():
        return None
    try:
        listed: Mapping[str, int] = {name: int(raw_id) for name, raw_id in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise LabelError(f'{path} is no list of classes such as {{"wall": "1", ...}}: {error}') from error
    ours = dict(zip(label_space.names, label_space.raw_ids, strict=True))
    for name, raw_id in listed.items():
        if name != "others" and ours.get(name) != raw_id:
            return f"{name!r} is {raw_id} there and {ours.get(name, 'no class')} in label set {label_space.name}"
    absent = next((name for name in ours if name not in listed), None)
    return None if absent is None else f"{absent!r} is not in it"
