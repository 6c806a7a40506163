"""Names that stay where they are put, and files that are whole or absent."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sam2vss.errors import MediaError, RunError
from sam2vss.files import (
    MAX_NAME_BYTES,
    atomic_write_bytes,
    atomic_write_json,
    is_temporary,
    safe_name,
    sha256_of,
    temporary_name,
    under,
    write_together,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0016E5_15hz_a", "0016E5_15hz_a"),
        ("my clip (1)", "my clip (1)"),
        ("Straße 東京 улица", "Straße 東京 улица"),
        ("../../etc/passwd", "etc_passwd"),
        ("/etc/passwd", "etc_passwd"),
        ("C:\\Users\\me\\a", "Users_me_a"),
        ("c:/a", "a"),
        ("a/../../b", "a_b"),
        ("a\0b\nc\u202ed", "abcd"),
        ('what? a "b" <c>', "what_ a _b_ _c_"),
        (".hidden.", "hidden"),
        ("NUL", "_NUL"),
        ("com1.txt", "_com1.txt"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("\udcff", "unnamed"),
        ("é" * 200, "é" * 90),
    ],
)
def test_names_are_made_safe(text, expected):
    assert safe_name(text) == expected


@given(st.text())
@example("C:/C:/a")
@example("a" * 179 + " b")
@example("con .")
def test_safe_names_stay_inside_and_do_not_change_again(text):
    name = safe_name(text)
    assert safe_name(name) == name
    assert Path("out", name).parent == Path("out")
    assert name not in ("", ".", "..")
    assert not re.search(r'[\x00-\x1f/\\:<>"|?*]', name)
    assert len(name.encode()) <= MAX_NAME_BYTES + 1  # a reserved name gets one letter more


def test_paths_must_stay_under_their_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert under(out, out / "a" / "b.png") == out.resolve() / "a" / "b.png"
    with pytest.raises(RunError, match=r"outside of .*out; nothing is written"):
        under(out, out / ".." / "b.png")
    with pytest.raises(RunError, match="outside"):
        under(out, tmp_path / "outside.png")  # begins with the same letters
    (out / "link").symlink_to(tmp_path)
    with pytest.raises(RunError, match="outside"):
        under(out, out / "link" / "b.png")


def test_files_replace_their_predecessor_and_leave_no_temporary_one(tmp_path):
    path = tmp_path / "new" / "a.bin"
    atomic_write_bytes(path, b"one")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.bin"]


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(MediaError, match=r"cannot write .*pipe: what has that name is no ordinary file"):
        atomic_write_bytes(pipe, b"one")
    assert pipe.is_fifo()


def test_json_keeps_unicode_and_refuses_nan(tmp_path):
    atomic_write_json(tmp_path / "a.json", {"name": "Straße", "odd": "\udcff"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Straße" in text
    assert json.loads(text)["odd"] == "\udcff"
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"share": float("nan")})
    assert "Straße" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_nothing_is_renamed_before_everything_is_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MediaError, match="cannot write"):
        write_together({tmp_path / "a": b"a", tmp_path / "file" / "b": b"b"})
    assert os.listdir(tmp_path) == ["file"]


def test_an_interruption_while_renaming_removes_the_temporary_files(tmp_path, monkeypatch):
    renamed = []

    def stop_at_second(source, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        Path(source).rename(target)

    monkeypatch.setattr(os, "replace", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        write_together({tmp_path / name: b"x" for name in "abc"})
    assert os.listdir(tmp_path) == ["a"]


def test_temporary_names_are_known_again():
    path = Path("labels", "a.png")
    assert temporary_name(path).parent == path.parent
    assert is_temporary(temporary_name(path))
    assert not is_temporary(path)
    assert not is_temporary(Path("song.part"))


def test_hashes_are_those_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(MediaError, match=r"cannot read .*gone: No such file"):
        sha256_of(tmp_path / "gone")
