"""Names and bytes on their way to disk: safe file names, paths that stay inside a folder, whole-or-absent writes.

Everything that this package writes goes through here. A file is written to a temporary name in its own folder, flushed
to the disk and then renamed, so that a half-written file is never taken for a whole one.
"""

import errno
import hashlib
import json
import os
import re
import socket
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import MediaError, RunError

TEMPORARY_SUFFIX = ".part"
MAX_NAME_BYTES = 180  # ours: file systems take 255, the rest is for suffixes and the temporary name
_END_BYTES = 1 << 20
_FINGERPRINT_FILES = 2000  # ours: ends of so many label maps are read in about a second
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.part", re.DOTALL)
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text: str) -> str:
    """Turn any text into one file or folder name that stays where it is put.

    Drive letters, leading slashes, `.` and `..` go; remaining path separators and characters that some system refuses
    become `_`; control and invisible format characters go; letters of all scripts stay. Applying it twice changes
    nothing. Nothing left gives "unnamed".
    """
    text = "".join(char for char in text if not unicodedata.category(char).startswith("C"))
    text = re.sub(r"^\s*[A-Za-z]:(?=[\\/])", "", text)
    parts = [part.strip(" .") for part in re.split(r"[\\/]", text)]
    name = re.sub(r'[<>:"|?*]', "_", "_".join(part for part in parts if part))
    while len(name.encode()) > MAX_NAME_BYTES:
        name = name[:-1]
    name = name.strip(" .")
    if _RESERVED_ON_WINDOWS.fullmatch(name):
        name = f"_{name}"
    return name or "unnamed"


def under(folder: Path, path: Path) -> Path:
    """Return `path` resolved, after making sure that it lies under `folder`; symbolic links are followed.

    Raises:
        RunError: If it does not.
    """
    resolved = path.resolve()
    if not resolved.is_relative_to(folder.resolve()):
        raise RunError(f"{path} leads to {resolved}, outside of {folder}; nothing is written there")
    return resolved


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits, read in chunks."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error


def byte_size(path: Path) -> int:
    """Return the size of a file, or raise `MediaError`."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error


def hash_ends(digest: "hashlib._Hash", path: Path) -> None:
    """Feed the first and last MiB of a file to a hash."""
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_END_BYTES))
            file.seek(-min(_END_BYTES, byte_size(path)), os.SEEK_END)
            digest.update(file.read(_END_BYTES))
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error


def folder_fingerprint(path: Path, without: Path | None = None) -> str:
    """Return a SHA-256 that tells a folder of label maps from another, cheap to compute and stable across copies.

    Counts the relative names and sizes of all PNG, JSON and gzip files below the folder, links followed, and the first
    and last MiB of up to 2000 of them, evenly spread; times do not count.

    Args:
        path: The folder.
        without: A folder below it to leave out, such as the one that a run writes into.

    Raises:
        MediaError: If a file cannot be read.
    """
    left_out = None if without is None else without.resolve()
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in _walk(path)
        if file.suffix.lower() in (".png", ".json", ".gz")
        and not (left_out and Path(os.path.realpath(file)).is_relative_to(left_out))
    )
    digest = hashlib.sha256(b"folder-1")
    for i, (name, file) in enumerate(files):
        digest.update(f"\n{name}\0{byte_size(file)}\0".encode("utf-8", "surrogateescape"))
        if len(files) <= _FINGERPRINT_FILES or i * _FINGERPRINT_FILES % len(files) < _FINGERPRINT_FILES:
            hash_ends(digest, file)
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, links followed, every folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen]
        yield from (Path(place, name) for name in names)


def link_targets(path: Path) -> Iterator[Path]:
    """Yield where a path leads to, and every link below it, links followed."""
    yield Path(os.path.realpath(path))  # Path.resolve raises where links run in a circle
    seen: set[str] = set()
    for place, folders, names in os.walk(path, followlinks=True):
        seen.add(os.path.realpath(place))
        links = [link for name in [*folders, *names] if os.path.islink(link := os.path.join(place, name))]
        yield from (Path(os.path.realpath(link)) for link in links)
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen]


def take_lock(path: Path) -> None:
    """Make a lock file that keeps other processes away until `release_lock`, or until this process has ended.

    Raises:
        RunError: If another process holds it, or one on another machine may.
        MediaError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _is_stale(path):
            path.unlink(missing_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(_lock_text())
    except FileExistsError as error:
        if not path.exists():  # what exists is a file in the place of the folder
            raise write_error(path, error) from error
        raise RunError(
            f"another run writes into {path.parent} (process and machine: {_read_lock(path).strip() or 'unknown'}): "
            f"wait for it, or choose another --out. If it has ended, delete {path}"
        ) from error
    except OSError as error:
        raise write_error(path, error) from error


def release_lock(path: Path) -> None:
    """Remove a lock file that this process holds; one of another process stays."""
    if _read_lock(path) == _lock_text():
        discard(path)


def _lock_text() -> str:
    return f"{os.getpid()} {socket.gethostname()}\n"


def _read_lock(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # gone, or not to be read: nobody is known to hold it
        return ""


def _is_stale(path: Path) -> bool:
    """Tell whether a lock file is this process's own, or its process is known to have ended."""
    number, _, host = _read_lock(path).strip().partition(" ")
    if not number.isdigit() or host != socket.gethostname():
        return False
    if int(number) == os.getpid():
        return True
    if os.name == "nt":  # there, os.kill(pid, 0) is no question but Ctrl+C
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # alive, of another user
        return False
    return False


def temporary_name(path: Path) -> Path:
    """Return the name under which `path` is written before it is whole; the process number keeps two writers apart."""
    return path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")


def is_temporary(path: Path) -> bool:
    """Tell whether the name is one that `temporary_name` gives."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_temporary_of(path: Path, names: tuple[str, ...]) -> bool:
    """Tell whether the name is one that `temporary_name` gives for a file of one of these names."""
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and match["name"] in names


def write_error(path: Path, error: Exception) -> MediaError:
    """Return the error to raise when `path` could not be written, from what the system or the encoder said."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return MediaError(
            f"the disk is full while writing {path}: free some space or choose another place with --out; "
            "a run goes on with --resume"
        )
    return MediaError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def publish(temporary: Path, path: Path) -> None:
    """Give a whole file its final name, replacing what was there; its bytes are on the disk before."""
    flush_to_disk(temporary)
    os.replace(temporary, path)


def flush_to_disk(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    """Wait until renames in a folder are on the disk, where the system can tell."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(temporary: Path) -> None:
    """Remove a temporary file if it is there."""
    with suppress(OSError):  # the error that led here says more than this one would; --resume removes what is left
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all; missing folders are made.

    Raises:
        MediaError: If the disk is full or the file cannot be written.
    """
    write_together({path: content})


def atomic_write_json(path: Path, content: Any) -> None:
    """Write JSON (no NaN, unicode as it is, indented) that is there whole or not at all; see `atomic_write_bytes`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files: all are whole under temporary names before the first one is renamed.

    When renaming fails half-way, some files are in place and the rest is gone; the caller's own record of what is
    finished must come after this call.

    Raises:
        MediaError: If the disk is full or a file cannot be written.
    """
    for path in contents:
        if path.exists() and not path.is_file():  # renaming would put a file in the place of a device
            raise MediaError(f"cannot write {path}: what has that name is no ordinary file; choose another name")
    temporaries = {path: temporary_name(path) for path in contents}
    path = Path()
    try:
        for path in contents:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            temporaries[path].write_bytes(content)
        for path in temporaries:
            flush_to_disk(temporaries[path])
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
        for folder in {path.parent for path in contents}:
            _flush_names(folder)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        for temporary in temporaries.values():
            discard(temporary)
