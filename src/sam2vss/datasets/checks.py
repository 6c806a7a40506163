"""Everything that is wrong with a data set, found before it costs a run: lists, label set, folders, files.

The quick look reads names, sizes and the ends of files; the deep one decodes every picture and every label map. What
can be wrong inside a video is in `video_checks.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..errors import LabelError
from ..types import LabelSpace
from . import vipseg, vspw
from .catalogue import SPLITS, Dataset, VideoFolders, find_dataset, read_video_facts
from .panoptic_codes import decode_vipseg
from .video_checks import Finding, IdCheck, check_video

Progress = Callable[[int, int, str], None]


def check_dataset(
    root: Path | str,
    split: str | None = None,
    deep: bool = False,
    label_set: LabelSpace | Path | str | None = None,
    progress: Progress | None = None,
) -> tuple[Finding, ...]:
    """List what is wrong with a data set; nothing found means ready to use.

    Args:
        root: Folder of the data set, as for `find_dataset`.
        split: Look at the videos of this list only.
        deep: Decode every picture and label map.
        label_set: As for `find_dataset`.
        progress: Called after every video with videos done, videos in all, and its name.

    Raises:
        LabelError: If the folder is no data set at all.
        SettingsError: If there is no such split.
    """
    dataset = find_dataset(root, label_set)
    findings = [*_check_lists(dataset, split), *_check_label_set(dataset)]
    wanted = dataset.folders if split is None else {
        name: dataset.folders[name] for name in dataset.splits.get(split, ()) if name in dataset.folders
    }  # fmt: skip
    if split is not None and not dataset.splits.get(split):
        dataset.videos(split)  # raises, and says which there are
    findings += _check_masks_exist(dataset, wanted)
    facts = read_video_facts(dataset.root)
    check_ids = _id_check(dataset)
    for done, (name, video) in enumerate(wanted.items(), 1):
        findings += check_video(name, video, check_ids, facts.get(name, {}).get("frames"), deep)
        if progress:
            progress(done, len(wanted), name)
    return tuple(findings)


def _id_check(dataset: Dataset) -> IdCheck | None:
    """Return what raises `LabelError` for numbers that are not the data set's; None where these are not known."""
    space = dataset.label_space
    if space is None:
        return None
    if dataset.is_panoptic:
        return lambda ids, what: decode_vipseg(ids, space, what)
    return space.from_raw


def _check_lists(dataset: Dataset, split: str | None) -> Iterator[Finding]:
    listed_in: dict[str, str] = {}
    for name in SPLITS if split is None else (split,):
        videos = dataset.splits.get(name)
        if videos is None:
            continue
        path = _list_file(dataset, name)
        if not videos:
            yield Finding("warning", path.name, "is empty", "name one video a line, or delete it")
            continue
        if not path.read_bytes().endswith(b"\n"):
            yield Finding(
                "warning", path.name, "ends without a newline",
                f"read right here, but the published scripts cut the last name short ({videos[-1][:-1]}): add one",
            )  # fmt: skip
        absent = [video for video in videos if video not in dataset.folders]
        if absent:
            yield Finding(
                "error", path.name, f"names videos that are not there (first: {absent[0]})",
                "fetch them, or take them off the list", len(absent),
            )  # fmt: skip
        twice = [video for video in videos if videos.count(video) > 1]
        if twice:
            yield Finding("warning", path.name, f"names {twice[0]} more than once", "keep one", len(set(twice)))
        shared = [video for video in videos if listed_in.get(video, name) != name]
        if shared:
            yield Finding(
                "error", path.name, f"shares videos with {listed_in[shared[0]]}.txt (first: {shared[0]})",
                "a video belongs to one split", len(shared),
            )  # fmt: skip
        listed_in |= dict.fromkeys(videos, name)
    loose = [video for video in dataset.folders if video not in listed_in]
    if dataset.splits and split is None and loose:
        yield Finding("warning", "data", f"holds videos on no list (first: {loose[0]})", "list them", len(loose))


def _list_file(dataset: Dataset, split: str) -> Path:
    """Return where a list of videos lies: in the data set, or, VIPSeg's, one folder higher."""
    path = dataset.root / f"{split}.txt"
    return path if path.is_file() else dataset.root.resolve().parent / path.name


def _check_label_set(dataset: Dataset) -> Iterator[Finding]:
    if dataset.label_space is None:
        yield Finding(
            "error", "label_set.json", "is missing, so nothing says what the ids of the label maps mean",
            "write one, or pass --label-set",
        )  # fmt: skip
        return
    try:
        if dataset.is_panoptic:
            name, difference = vipseg.CATEGORY_LIST, vipseg.find_category_difference(dataset.root)
        elif dataset.label_space.name == "vspw":
            name, difference = vspw.CLASS_LIST, vspw.find_class_list_difference(dataset.root, dataset.label_space)
        else:
            return
    except LabelError as error:
        yield Finding("error", "classes", str(error), "fetch it again")
        return
    if difference:
        yield Finding(
            "error", name, f"is not the release's list of classes: {difference}", "pass the right --label-set"
        )


def _check_masks_exist(dataset: Dataset, videos: Mapping[str, VideoFolders]) -> Iterator[Finding]:
    without = [name for name, video in videos.items() if video.masks is None]
    of_test = [name for name in without if name in dataset.splits.get("test", ())]
    if of_test and dataset.no_test_masks:
        yield Finding("warning", "test.txt", "names videos without masks", dataset.no_test_masks, len(of_test))
        without = [name for name in without if name not in of_test]
    if without:
        yield Finding(
            "error", "data", f"videos have no label maps (first: {without[0]})", "fetch them, or list other videos",
            len(without),
        )  # fmt: skip
