"""`sam2vss train`."""

from pathlib import Path
from typing import Literal

from .exit_codes import EXIT_DONE
from .options import Flag


def nano(
    *,
    out: Path = Path("runs/nano"),
    part: Literal["all", "sam2", "segformer"] = "all",
    seed: int = 0,
    threads: int = 2,
    smoke: Flag = False,
) -> int:
    """Train the bundled weights, sam2-nano and segformer-nano, from scratch on synthetic train scenes.

    Parameters
    ----------
    out
        Folder for metrics.jsonl, one checkpoint per stage and the models; finished stages are not repeated.
    part
        Which model.
    seed
        Seed of everything random.
    threads
        CPU threads.
    smoke
        A few steps only, to see that it runs.
    """
    import torch

    from ..console import stderr
    from ..training.nano import FULL, SMOKE, train_nano

    torch.set_num_threads(threads)
    parts: tuple[Literal["sam2", "segformer"], ...] = ("segformer", "sam2") if part == "all" else (part,)
    train_nano(out, parts, SMOKE if smoke else FULL, seed, progress=lambda entry: stderr.print(entry))
    print(f"models  {out}")
    return EXIT_DONE
