"""Run folders: nothing half-written counts, nothing finished is lost, nothing of others is removed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sam2vss
from clip_files import write_numbered_video, write_picture
from sam2vss.artifacts import FORMAT_VERSION, RunFolder, WindowRecord
from sam2vss.errors import LabelError, MediaError, RunError, ShapeError
from sam2vss.files import atomic_write_bytes, folder_fingerprint, take_lock
from sam2vss.images import read_label_map
from sam2vss.media import open_clip
from sam2vss.types import LabelSpace

SPACE = LabelSpace(
    ("road", "sky", "car"), np.array([[128, 64, 128], [70, 130, 180], [0, 0, 142]], np.uint8), name="toy"
)
SETTINGS = {"masklets": {"window": 2, "points": 16}, "vote": "window", "base": Path("labels")}


@pytest.fixture
def clip(tmp_path):
    for i in range(6):
        write_picture(tmp_path / "street" / f"f{i}.png", size=(2, 3))
    return open_clip(tmp_path / "street")


def create(out, *clips, **options):
    return RunFolder.create(
        out, command="refine", clips=clips, **{"settings": SETTINGS, "label_space": SPACE, "seed": 7} | options
    )


def make_record(start, length=2, video="street", **changes):
    frames = range(start, start + length)
    values = {
        "video": video,
        "start": start,
        "frames": tuple(f"f{i}" for i in frames),
        "pts": (None,) * length,
        "coverage": (0.5,) * length,
        "changed": (0.25,) * length,
        "flip_base": (None,) * length,
        "flip_refined": (None,) * length,
        "seconds": {"track": 2.0, "vote": 0.25},
    }
    return WindowRecord(**values | changes)


def make_labels(start, length=2):
    """Maps of 2 x 3 pixels that differ from frame to frame."""
    return ((np.arange(6).reshape(2, 3) + np.arange(start, start + length)[:, None, None]) % 3).astype(np.uint8)


def commit(run, start, length=2, **options):
    labels = make_labels(start, length)
    run.commit_window(make_record(start, length), labels, labels[:, ::-1], **options)


def list_files(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".run.lock")
    return sorted(str(path.relative_to(folder)) for path in found)


def read_contents(folder):
    """All files but run.json, which holds times."""
    return {name: (folder / name).read_bytes() for name in list_files(folder) if name != "run.json"}


# -------------------------------------------------------------------------------------------------- a run, start to end


def test_a_new_run_writes_down_what_it_was_asked(tmp_path, clip):
    video = open_clip(write_numbered_video(tmp_path / "drive.mp4", 3))
    run = create(tmp_path / "out", clip, video, device="cuda:0", dtype="bfloat16", weights={"sam2.1-tiny": "ab12"})
    info = json.loads((run.path / "run.json").read_text())
    assert info["format_version"] == FORMAT_VERSION
    assert info["settings"] == {"masklets": {"window": 2, "points": 16}, "vote": "window", "base": "labels"}
    assert (info["command"], info["status"], info["seed"]) == ("refine", "running", 7)
    assert (info["device"], info["dtype"], info["weights"]) == ("cuda:0", "bfloat16", {"sam2.1-tiny": "ab12"})
    assert {"python", "sam2vss", "torch", "transformers", "numpy", "av", "opencv-python-headless"} <= set(
        info["versions"]
    )
    assert LabelSpace.from_dict(info["label_set"]).names == SPACE.names
    assert [entry["name"] for entry in info["clips"]] == ["street", "drive"]
    pictures, film = info["clips"]
    assert (pictures["frames_expected"], pictures["time_base"], pictures["rate"]) == (6, None, None)
    assert (film["frames_expected"], film["time_base"], film["status"]) == (3, "1/30000", "planned")
    assert film["fingerprint"] == video.fingerprint()
    assert info["started"].endswith("+00:00")
    assert info["ended"] is None
    assert list_files(run.path) == ["run.json", "windows.jsonl"]


def test_a_window_becomes_files_and_then_a_line(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    picture = np.zeros((4, 6, 3), np.uint8)
    commit(run, 0, previews={"f1": picture}, truth=make_labels(3))
    assert list_files(run.path) == [
        "base/street/f0.png", "base/street/f1.png",
        "labels/street/f0.png", "labels/street/f1.png",
        "preview/street/f1.jpg",
        "run.json",
        "truth/street/f0.png", "truth/street/f1.png",
        "windows.jsonl",
    ]  # fmt: skip
    assert np.array_equal(read_label_map(run.label_path("street", "f1"), SPACE), make_labels(0)[1])
    assert np.array_equal(read_label_map(run.base_path("street", "f1"), SPACE), make_labels(0)[1, ::-1])
    assert np.array_equal(read_label_map(run.truth_path("street", "f1"), SPACE), make_labels(3)[1])
    with Image.open(run.preview_path("street", "f1")) as image:
        assert image.size == (6, 4)
    (line,) = run.manifest_path.read_text().splitlines()
    assert WindowRecord.from_dict(json.loads(line)) == make_record(0)
    assert run.finished_windows("street") == [make_record(0)]


def test_the_account_of_a_clip_adds_up(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    run.add_seconds("load weights", 1.5)
    run.start_clip("street")
    for start in (0, 2, 4):
        commit(run, start)
    assert run.finish_clip("street", frames_decoded=6)
    run.finish("done")
    info = RunFolder.open(run.path).info
    entry = info["clips"][0]
    assert [entry[f"frames_{stage}"] for stage in ("expected", "decoded", "refined", "written")] == [6, 6, 6, 6]
    assert (entry["status"], entry["error"]) == ("done", None)
    assert entry["started"] <= entry["ended"] <= info["ended"]
    assert entry["seconds"] == {"track": 6.0, "vote": 0.75}  # 3 windows of 2 s and 0.25 s
    assert info["seconds"] == {"track": 6.0, "vote": 0.75, "load weights": 1.5}
    assert info["status"] == "done"


@pytest.mark.parametrize(
    ("num_windows", "decoded", "error"), [(2, 6, None), (2, 4, None), (3, 6, "cut short"), (3, 7, None)]
)
def test_a_clip_whose_counts_disagree_is_incomplete(tmp_path, clip, num_windows, decoded, error):
    run = create(tmp_path / "out", clip)
    for window in range(num_windows):
        commit(run, 2 * window)
    assert not run.finish_clip("street", frames_decoded=decoded, error=error)
    entry = RunFolder.open(run.path).clip_info("street")
    assert (entry["status"], entry["error"]) == ("incomplete", error)


def test_the_report_can_read_a_run_while_it_is_written(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    with open(run.manifest_path, "ab") as file:
        file.write(b'{"video": "street", "sta')
    before = read_contents(run.path)
    opened = RunFolder.open(run.path)
    assert opened.finished_windows("street") == [make_record(0)]
    assert opened.label_space.names == SPACE.names
    assert read_contents(run.path) == before  # the half line is left alone


def test_windows_that_do_not_belong_are_refused(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    labels = make_labels(0)
    for record, message in (
        (make_record(0, video="other"), "other is not among the 1 clips"),
        (make_record(1), r"frames 1..2 of street overlap the finished window 0..1"),
        (make_record(2, frames=("f1", "f7")), "street has several frames of the name f1"),
        (make_record(2, frames=("a?", "a:")), "street has several frames of the name a_"),
    ):
        with pytest.raises(RunError, match=message):
            run.commit_window(record, labels)
    with pytest.raises(ShapeError, match="base hold 1 maps for a window of 2 frames"):
        run.commit_window(make_record(2), labels, labels[:1])
    with pytest.raises(ShapeError, match="preview of frame f9, which is not in the window"):
        run.commit_window(make_record(2), labels, previews={"f9": np.zeros((2, 2, 3), np.uint8)})
    with pytest.raises(LabelError, match=r"hold the ids \[9\]"):
        run.commit_window(make_record(2), labels + np.uint8(9) * (labels == 0))
    assert [record.start for record in run.finished_windows("street")] == [0]
    assert len(list_files(run.path / "labels")) == 2


def test_names_from_strangers_stay_in_the_folder(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    out = run.path.resolve()
    assert run.label_path("../../x", "../../etc/passwd") == out / "labels" / "x" / "etc_passwd.png"
    assert run.overlay_path("/tmp/x") == out / "overlay" / "tmp_x.mp4"
    (run.path / "labels").mkdir()
    (run.path / "labels" / "street").symlink_to(tmp_path)
    with pytest.raises(RunError, match="outside of"):
        commit(run, 0)
    assert not (tmp_path / "f0.png").exists()


# --------------------------------------------------------------------------------------------- folders that are in use


def test_a_folder_with_a_run_is_not_touched_without_being_asked(tmp_path, clip):
    commit(create(tmp_path / "out", clip), 0)
    before = read_contents(tmp_path / "out")
    with pytest.raises(
        RunError, match=r"already holds a run \(status running, 0 of 1 clips done\): go on with --resume, start again"
    ):
        create(tmp_path / "out", clip)
    assert read_contents(tmp_path / "out") == before


def test_an_empty_folder_is_fine_and_a_file_is_not(tmp_path, clip):
    (tmp_path / "out").mkdir()
    create(tmp_path / "out", clip)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is a file, expected a folder to write into"):
        create(tmp_path / "file", clip)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"package": "other", "format_version": 1}'])
def test_overwrite_does_not_touch_what_is_not_ours(tmp_path, clip, content):
    (tmp_path / "out" / "labels").mkdir(parents=True)
    (tmp_path / "out" / "labels" / "thesis.txt").write_text("years of work")
    if content is not None:
        (tmp_path / "out" / "run.json").write_text(content)
    before = list_files(tmp_path / "out")
    for options in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(RunError, match="out"):
            create(tmp_path / "out", clip, **options)
    assert list_files(tmp_path / "out") == before


def test_overwrite_removes_the_old_run_and_keeps_files_of_others(tmp_path, clip):
    commit(create(tmp_path / "out", clip), 0)
    (tmp_path / "out" / "report.html").write_text("old")
    (tmp_path / "out" / "my notes.txt").write_text("keep")
    run = create(tmp_path / "out", clip, overwrite=True, settings={"vote": "frame"})
    assert list_files(run.path) == ["my notes.txt", "run.json", "windows.jsonl"]
    assert run.finished_windows("street") == []
    assert run.info["settings"] == {"vote": "frame"}


def test_overwrite_does_not_remove_its_own_input(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    before = read_contents(tmp_path / "out")
    with pytest.raises(RunError, match=r"--overwrite would remove the input .*base"):
        create(tmp_path / "out", clip, overwrite=True, inputs=[tmp_path / "out" / "base"])
    with pytest.raises(RunError, match="--overwrite would remove the input"):
        create(tmp_path / "out", open_clip(tmp_path / "out" / "labels" / "street"), overwrite=True)
    assert read_contents(tmp_path / "out") == before


def test_overwrite_follows_no_link(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep.png").touch()
    (run.path / "labels").symlink_to(tmp_path / "elsewhere")
    create(tmp_path / "out", clip, overwrite=True)
    assert (tmp_path / "elsewhere" / "keep.png").exists()
    assert (run.path / "labels").is_symlink()


def test_resume_and_overwrite_exclude_each_other(tmp_path, clip):
    with pytest.raises(RunError, match="give one of them"):
        create(tmp_path / "out", clip, resume=True, overwrite=True)


def test_clips_need_distinct_safe_names(tmp_path, clip):
    with pytest.raises(RunError, match="clips need distinct, safe names"):
        create(tmp_path / "out", clip, clip)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- resuming


def whole_run(out, clip):
    run = create(out, clip)
    for start in (0, 2, 4):
        commit(run, start)
    return read_contents(out)


def go_on(out, clip):
    """What a pipeline does with --resume: all windows that are not finished."""
    run = create(out, clip, resume=True)
    done = {record.start for record in run.finished_windows("street")}
    for start in {0, 2, 4} - done:
        commit(run, start)
    return done


def test_resume_in_a_new_folder_starts(tmp_path, clip):
    assert go_on(tmp_path / "out", clip) == set()


def test_resume_keeps_finished_windows_and_notes_itself(tmp_path, clip):
    expected = whole_run(tmp_path / "whole", clip)
    commit(create(tmp_path / "out", clip), 0)
    assert go_on(tmp_path / "out", clip) == {0}
    assert read_contents(tmp_path / "out") == expected
    info = RunFolder.open(tmp_path / "out").info
    assert len(info["resumed"]) == 1
    assert info["status"] == "running"


@pytest.mark.parametrize("step", range(1, 6))
def test_a_kill_in_the_middle_of_a_commit_resumes_to_the_same_bytes(tmp_path, clip, step, monkeypatch):
    expected = whole_run(tmp_path / "whole", clip)
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    calls = []
    replace, fsync = os.replace, os.fsync

    def killed_at_step(real):
        def call(*arguments):
            calls.append(real)
            if calls.count(replace) == step or (step == 5 and calls.count(fsync) == 7):
                raise KeyboardInterrupt  # no `except Exception` stops it, as nothing stops a kill
            return real(*arguments)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed_at_step(replace))  # four files: steps 1 to 4
        patched.setattr(os, "fsync", killed_at_step(fsync))  # step 5: after four files and two folders, the manifest's
        with pytest.raises(KeyboardInterrupt):
            commit(run, 2)
    if step < 5:
        assert len(list_files(tmp_path / "out" / "labels")) == 2 + min(step - 1, 2)
    assert go_on(tmp_path / "out", clip) >= {0}
    assert read_contents(tmp_path / "out") == expected


@pytest.mark.parametrize("num_bytes", [1, 40, -1])
def test_a_truncated_last_line_is_dropped_and_its_window_done_again(tmp_path, clip, num_bytes):
    expected = whole_run(tmp_path / "whole", clip)
    whole_run(tmp_path / "out", clip)
    manifest = tmp_path / "out" / "windows.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:2]) + lines[2][:num_bytes])
    run = create(tmp_path / "out", clip, resume=True)
    assert [record.start for record in run.finished_windows("street")] == [0, 2]
    assert manifest.read_bytes() == b"".join(lines[:2])
    go_on(tmp_path / "out", clip)
    assert read_contents(tmp_path / "out") == expected


def test_resume_removes_temporary_files_and_nothing_else(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    before = list_files(run.path)
    for name in ("labels/street/.f2.png.99.part", ".run.json.99.part", "overlay/.street.mp4.99.part"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).touch()
    for name in ("overlay/street.mp4", "notes.part"):
        (run.path / name).touch()
    create(run.path, clip, resume=True)
    assert list_files(run.path) == sorted([*before, "overlay/street.mp4", "notes.part"])


def test_a_finished_window_whose_files_are_gone_is_done_again(tmp_path, clip, caplog):
    expected = whole_run(tmp_path / "out", clip)
    (tmp_path / "out" / "labels" / "street" / "f3.png").unlink()
    assert go_on(tmp_path / "out", clip) == {0, 4}
    assert "1 label maps of the window at frame 2 are gone or damaged (first: f3)" in caplog.text
    contents = read_contents(tmp_path / "out")
    lines = contents.pop("windows.jsonl").splitlines()
    assert sorted(lines) == sorted(expected.pop("windows.jsonl").splitlines())  # in another order
    assert contents == expected


def test_damage_inside_the_manifest_is_an_error(tmp_path, clip):
    whole_run(tmp_path / "out", clip)
    manifest = tmp_path / "out" / "windows.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(RunError, match=r"line 2 of .*windows.jsonl is damaged \(.*KeyError: 'video'.*--overwrite"):
        create(tmp_path / "out", clip, resume=True)


def test_resume_refuses_other_settings_and_names_them_with_both_values(tmp_path, clip):
    run = create(tmp_path / "out", clip, weights={"sam2": "aa"}, device="cuda:0")
    before = read_contents(run.path)
    other = {"masklets": {"window": 32, "points": 16}, "vote": "window", "base": "labels", "smooth": "flow"}
    with pytest.raises(RunError) as caught:
        create(run.path, clip, settings=other, seed=8, weights={"sam2": "bb"}, device="cpu", resume=True)
    for line in (
        "settings.masklets.window: 2 in the folder, 32 asked for",
        'settings.smooth: nothing in the folder, "flow" asked for',
        "seed: 7 in the folder, 8 asked for",
        'weights.sam2: "aa" in the folder, "bb" asked for',
        'device: "cuda" in the folder, "cpu" asked for',
    ):
        assert f"  {line}\n" in str(caught.value)
    assert "points" not in str(caught.value)
    assert "choose another --out, or start again with --overwrite" in str(caught.value)
    assert read_contents(run.path) == before


def test_resume_refuses_another_label_set(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    with pytest.raises(RunError, match=r"label_set.num_classes: 3 in the folder, 4 asked for"):
        create(run.path, clip, label_space=LabelSpace.numbered(4), resume=True)


def test_resume_refuses_another_input_of_the_same_name(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    write_picture(tmp_path / "street" / "f0.png", size=(2, 3), color=(1, 1, 1))
    with pytest.raises(RunError, match=r"clips.street.fingerprint: .* in the folder, .* asked for"):
        create(run.path, open_clip(tmp_path / "street"), resume=True)


def test_resume_goes_on_when_input_or_folder_were_moved_or_another_gpu_is_used(tmp_path, clip):
    run = create(tmp_path / "out", clip, device="cuda:0")
    commit(run, 0)
    shutil.copytree(tmp_path / "street", tmp_path / "moved" / "street")
    run.path.rename(tmp_path / "renamed")
    again = create(tmp_path / "renamed", open_clip(tmp_path / "moved" / "street"), device="cuda:1", resume=True)
    assert len(again.finished_windows("street")) == 1
    assert again.info["device"] == "cuda:1"


def test_resume_warns_of_other_package_versions(tmp_path, clip, caplog):
    run = create(tmp_path / "out", clip)
    run.update(versions={**run.info["versions"], "torch": "1.0"})
    again = create(run.path, clip, resume=True)
    assert "begun with other package versions" in caplog.text
    assert again.info["versions"]["torch"] != "1.0"


def test_another_format_version_is_not_read(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    run.update(format_version=99)
    with pytest.raises(RunError, match="has run format 99, this version of sam2vss reads 1"):
        RunFolder.open(run.path)
    with pytest.raises(RunError, match="run format 99"):
        create(run.path, clip, resume=True)
    create(run.path, clip, overwrite=True)  # ours all the same


def test_damaged_or_missing_run_files_are_named(tmp_path, clip):
    with pytest.raises(RunError, match=r"out holds no run: there is no run.json in it"):
        RunFolder.open(tmp_path / "out")
    run = create(tmp_path / "out", clip)
    content = json.loads((run.path / "run.json").read_text())
    for change in ({"label_set": {}}, {"clips": [{}]}, {"device": None}):
        (run.path / "run.json").write_text(json.dumps(content | change))
        with pytest.raises(RunError, match=r"run.json is damaged"):
            RunFolder.open(run.path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*run.json"):
        RunFolder.open(run.path)


# --------------------------------------------------------------------------------------------------- the disk, the kill


def test_a_full_disk_leaves_the_window_unfinished_and_the_run_usable(tmp_path, clip, monkeypatch):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    before = read_contents(run.path)
    fsync = os.fsync

    def full_for(number):
        calls = []

        def call(handle):
            calls.append(handle)
            if len(calls) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        return call

    for number in (1, 7):  # the first label map; the manifest's line
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full_for(number))
            with pytest.raises(MediaError, match=r"the disk is full while writing .*: free some space .* --resume"):
                commit(run, 2)
        assert [record.start for record in run.finished_windows("street")] == [0]
        assert run.manifest_path.read_bytes() == before["windows.jsonl"]
        assert not [name for name in list_files(run.path) if name.endswith(".part")]
    commit(run, 2)
    assert len(run.manifest_path.read_text().splitlines()) == 2


KILLED_WHILE_RENAMING = """
import os, signal, sys
from test_artifacts import commit, create
from sam2vss.media import open_clip

run = create(sys.argv[1], open_clip(sys.argv[2]))
commit(run, 0)
replace, calls = os.replace, []

def killed_at_third(*arguments):
    calls.append(arguments)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments)

os.replace = killed_at_third
commit(run, 2)
"""


def test_a_killed_process_resumes_to_the_same_bytes(tmp_path, clip):
    expected = whole_run(tmp_path / "whole", clip)
    out = tmp_path / "out"
    paths = [str(Path(sam2vss.__file__).parents[1]), str(Path(__file__).parent)]
    command = [sys.executable, "-c", KILLED_WHILE_RENAMING, str(out), str(clip.path)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = list_files(out)
    assert sum(name.endswith(".part") for name in left) == 2  # two of four were renamed
    assert go_on(out, clip) == {0}
    assert read_contents(out) == expected


# -------------------------------------------------------------------------------------------------- files of the user


def put(path, content="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_resume_leaves_files_of_others_alone_also_behind_links(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    own = [put(run.path / "labels" / name) for name in ("street/f0_fixed.png", "corrected/f0.png", "street/.x.part")]
    own += [put(tmp_path / "truth" / "street" / name) for name in ("g0.png", ".g1.png.99.part")]
    (run.path / "truth").symlink_to(tmp_path / "truth")
    create(run.path, clip, resume=True)
    assert all(file.read_text() == "mine" for file in own)


def test_overwrite_removes_only_what_the_run_recorded(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    own = [
        put(run.path / name)
        for name in ("labels/notes.txt", "labels/corrected/f0.png", "truth/street/f0.png", "preview/a.jpg", "scene/a")
    ]
    put(run.path / "overlay" / "street.mp4")
    create(run.path, clip, overwrite=True)
    assert list_files(run.path) == sorted(
        [*(str(file.relative_to(run.path)) for file in own), "run.json", "windows.jsonl"]
    )
    assert not (run.path / "base").exists()  # empty folders go


def test_overwrite_removes_truth_that_the_run_wrote(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0, truth=make_labels(0))
    create(run.path, clip, overwrite=True)
    assert list_files(run.path) == ["run.json", "windows.jsonl"]


def test_overwrite_does_not_remove_inputs_behind_links(tmp_path, clip):
    run = create(tmp_path / "out", clip)
    commit(run, 0)
    before = read_contents(run.path)
    (tmp_path / "linked" / "deep").mkdir(parents=True)
    (tmp_path / "linked" / "circle").symlink_to("circle")
    (tmp_path / "linked" / "deep" / "up").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "deep" / "street").symlink_to(run.path / "labels" / "street")
    with pytest.raises(RunError, match=r"would remove the input .*linked \(it leads to .*labels/street\)"):
        create(run.path, clip, overwrite=True, inputs=[tmp_path / "linked"])
    assert read_contents(run.path) == before


def test_a_new_run_removes_what_a_kill_before_the_first_file_left(tmp_path, clip):
    put(tmp_path / "out" / ".run.json.99.part")
    run = create(tmp_path / "out", clip)
    assert list_files(run.path) == ["run.json", "windows.jsonl"]


def test_a_folder_name_that_is_too_long_is_our_error(tmp_path, clip):
    with pytest.raises(MediaError, match=r"cannot write .*x{300}: File name too long"):
        create(tmp_path / ("x" * 300), clip)


def test_an_error_of_writing_names_the_file(tmp_path):
    put(tmp_path / "file")
    with pytest.raises(MediaError, match=r"cannot write .*file/below/run\.json: Not a directory"):
        atomic_write_bytes(tmp_path / "file" / "below" / "run.json", b"")


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_a_second_process_is_kept_out_until_the_first_has_finished(tmp_path, clip, options):
    run = create(tmp_path / "out", clip)
    lock, own = run.path / ".run.lock", (run.path / ".run.lock").read_text()
    assert own.split()[0] == str(os.getpid())
    lock.write_text(own.replace(str(os.getpid()), str(os.getppid()), 1))
    before = read_contents(run.path)
    with pytest.raises(RunError, match=rf"another run writes into .*out .*{os.getppid()} .*delete .*\.run\.lock"):
        create(run.path, clip, **options)
    assert read_contents(run.path) == before
    lock.write_text(f"{os.getppid()} another-machine")
    with pytest.raises(RunError, match="another-machine"):
        create(run.path, clip, **options)
    lock.write_text(own)
    create(run.path, clip, **options).finish("incomplete")
    assert not lock.exists()


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    take_lock(tmp_path / "lock")
    own = (tmp_path / "lock").read_text()
    (tmp_path / "lock").write_text(own.replace(str(os.getpid()), str(ended.pid), 1))
    take_lock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == own


def test_the_fingerprint_of_a_folder_knows_names_sizes_and_contents_but_not_times(tmp_path):
    for name in ("a/f0.png", "a/f1.png", "label_set.json", "notes.txt", "run/f0.png"):
        put(tmp_path / "labels" / name, name)

    def found():
        return folder_fingerprint(tmp_path / "labels", without=tmp_path / "labels" / "run")

    first = found()
    shutil.copytree(tmp_path / "labels", tmp_path / "copy")
    assert folder_fingerprint(tmp_path / "copy", without=tmp_path / "copy" / "run") == first
    os.utime(tmp_path / "labels" / "a" / "f0.png", (1, 1))
    for name in ("notes.txt", "run/f0.png", "run/f1.png"):
        put(tmp_path / "labels" / name, "changed")
    assert found() == first
    put(tmp_path / "labels" / "a" / "f1.png", "a/f9.png")  # as long as before
    second = found()
    (tmp_path / "labels" / "a" / "f1.png").rename(tmp_path / "labels" / "a" / "f2.png")
    assert len({first, second, found()}) == 3
