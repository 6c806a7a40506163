"""Run folders that commands are pointed at: which may be written, which are not one run but several."""

from pathlib import Path

from ..errors import RunError


def check_out(out: Path, resume: bool, overwrite: bool) -> str:
    """Refuse a folder that is in use before weights are loaded or fetched; say in a word what becomes of it."""
    from ..files import is_temporary
    from ..run_info import describe

    if resume and overwrite:
        raise RunError("--overwrite starts again and --resume goes on: give one of them")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    if not (out.is_dir() and any(not is_temporary(entry) for entry in out.iterdir())):
        return "free"
    if not (resume or overwrite):
        raise RunError(f"{out} {describe(out)}")
    return "the run there goes on" if resume else "the run there is replaced"


def refuse_shards(folder: Path) -> None:
    """Raise `RunError` for the folder around the runs that `refine --shard` wrote."""
    shards = sorted(shard.name for shard in folder.glob("shard-*-of-*")) if folder.is_dir() else []
    if shards and not (folder / "run.json").exists():
        raise RunError(f"{folder} holds {len(shards)} shards ({', '.join(shards[:4])}), each a run: pass one of them")
