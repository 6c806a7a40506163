"""`sam2vss synthetic`."""

import os
import re
import shutil
from pathlib import Path
from typing import Literal

from ..errors import RunError, SettingsError
from .exit_codes import EXIT_DONE
from .options import Flag
from .progress import counting_bar

SPLIT_LISTS = {"train": "train", "validation": "val", "test": "test"}  # as VSPW calls them
PREDICTIONS = Path("predictions") / "segformer-nano"


def synthetic(
    *,
    out: Path,
    split: Literal["test", "validation", "train"] = "test",
    clips: int = 20,
    first: int = 0,
    frames: int = 48,
    size: str = "240x320",
    predictions: Flag = False,
    overwrite: Flag = False,
) -> int:
    """Render synthetic street clips with exact truth as a data set in VSPW's layout.

    Parameters
    ----------
    out
        Folder to write: data/VIDEO/{origin,mask}, label_set.json, videos.json and the list of videos.
    split
        Which seeds: test (never used for tuning), validation, or train (the bundled weights know these).
    clips
        Number of videos.
    first
        Seeds of the split to pass over; from 1500 on the bundled SAM 2 and SegFormer have not seen the train seeds.
    frames
        Frames per video.
    size
        HEIGHTxWIDTH in pixels.
    predictions
        Also write the base labels of the bundled model, to OUT/predictions/segformer-nano.
    overwrite
        Replace the synthetic data set in --out.
    """
    from ..datasets.synthetic import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, export_vspw
    from ..files import temporary_name

    seeds = {"train": TRAIN_SEEDS, "validation": VALIDATION_SEEDS, "test": TEST_SEEDS}[split]
    if not 1 <= clips <= len(seeds):
        raise SettingsError(f"--clips {clips} is out of range: split {split} has 1 to {len(seeds)} clips")
    if not 0 <= first <= len(seeds) - clips:
        raise SettingsError(f"--first {first} is out of range: split {split} has {len(seeds)} clips, {clips} are asked")
    if frames < 1:
        raise SettingsError(f"--frames must be at least 1, found {frames}")
    height_width = _parse_size(size)
    _check_out(out, overwrite)
    target = Path(os.path.realpath(out))  # a link stays one; Path.resolve raises where links run in a circle
    place = temporary_name(target)  # whole before it gets its name
    shutil.rmtree(place, ignore_errors=True)
    try:
        with counting_bar("rendering") as progress:
            export_vspw(place, seeds[first : first + clips], frames, height_width, SPLIT_LISTS[split], progress)
        if predictions:
            _predict(place)
        _publish(place, target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"data set     {out} ({clips} clips of {frames} frames, split {SPLIT_LISTS[split]})")
    if predictions:
        print(f"predictions  {out / PREDICTIONS}")
    return EXIT_DONE


def _parse_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    if found is None or min(int(found[1]), int(found[2])) < 8:
        raise SettingsError(f"--size {text} is not of the form HEIGHTxWIDTH with sides of 8..9999, such as 240x320")
    return int(found[1]), int(found[2])


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse a folder that is in use, and one that `--overwrite` must not delete."""
    if not out.exists():
        if out.is_symlink():
            raise RunError(f"{out} is a link that leads nowhere; mend or delete it, or choose another --out")
        return
    if not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    if not any(out.iterdir()):
        return
    if not _is_ours(out):
        raise RunError(f"{out} holds something else than a synthetic data set, which stays: choose another --out")
    if not overwrite:
        raise RunError(
            f"{out} already holds a synthetic data set: replace it with --overwrite, or choose another --out"
        )


def _is_ours(folder: Path) -> bool:
    from ..datasets.synthetic import LABEL_SPACE
    from ..errors import LabelError
    from ..types import LabelSpace

    known = {"data", "label_set.json", "videos.json", "predictions", *(f"{name}.txt" for name in SPLIT_LISTS.values())}
    try:
        name = LabelSpace.from_json(folder / "label_set.json").name
    except LabelError:
        return False
    return name == LABEL_SPACE.name and {path.name for path in folder.iterdir()} <= known


def _predict(root: Path) -> None:
    """Label the stored pictures with the bundled model."""
    from ..datasets.catalogue import find_dataset
    from ..files import atomic_write_json
    from ..images import write_label_map
    from ..media import open_clip
    from ..segmenters import ModelLabels, load_segmenter

    model = ModelLabels(load_segmenter("segformer-nano"))
    videos = find_dataset(root).videos()
    atomic_write_json(root / PREDICTIONS / "label_set.json", model.label_space.to_dict())
    with counting_bar("predicting") as progress:
        for done, (name, video) in enumerate(videos.items(), 1):
            assert video.frames is not None, "rendered above"
            for frame in open_clip(video.frames).frames():
                labels = model.labels_for(name, [frame]).labels[0]
                write_label_map(root / PREDICTIONS / name / f"{frame.name}.png", labels, model.label_space)
            progress(done, len(videos), name)


def _publish(place: Path, out: Path) -> None:
    """Give the whole data set its name; what was there goes when the new one is in place."""
    from ..files import temporary_name, write_error

    old = temporary_name(out.with_name(f"{out.name}.old"))
    try:
        if out.exists():
            out.rename(old)
        place.rename(out)
    except OSError as error:
        if old.exists():
            old.rename(out)
        raise write_error(out, error) from error
    shutil.rmtree(old, ignore_errors=True)
