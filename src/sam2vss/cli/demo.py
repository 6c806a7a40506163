"""`sam2vss demo`."""

import time
from pathlib import Path

from .exit_codes import EXIT_DONE


def demo(
    *,
    out: Path = Path("runs/demo"),
    seed: int | None = None,
    frames: int | None = None,
) -> int:
    """Render, segment, refine, classify, score and report a synthetic clip, offline, in about a minute.

    Parameters
    ----------
    out
        Run folder to write; an earlier demo there is replaced.
    seed
        Scene to render; default: the first test seed, which no model was trained on.
    frames
        Length of the clip; default 48.
    """
    from ..console import RunBars, print_rows, print_summary, stderr
    from ..datasets.synthetic import TEST_SEEDS
    from ..demo import DEMO_FRAMES, ROWS, run_demo
    from ..evaluate import compare
    from ..evaluation_tables import scores_table

    started = time.monotonic()
    stderr.print("rendering a clip, segmenting it with segformer-nano, refining and classifying it with sam2-nano ...")
    with RunBars() as bars:
        result = run_demo(
            out, TEST_SEEDS[0] if seed is None else seed, DEMO_FRAMES if frames is None else frames, progress=bars
        )
    print_summary(result.summary, time.monotonic() - started)
    titles = {
        "fast": "refined, mode fast",
        "refined": "refined, mode exact",
        "fusion": "refined, learned fusion",
        "I-SAM2 base": "I-SAM2 with base",
    }
    scores = result.scores
    changes = {"exact - base": compare(scores["base"], scores["refined"])}
    rows = scores_table({titles.get(name, name): part.scores for name, part in scores.items()}, changes)
    print_rows(rows, f"scores of {scores['base'].frames} frames, percent")
    print(f"report  {result.report}")
    for name, place in ROWS.items():
        if name != "refined":
            print(f"        {out / place / 'report.html'} ({titles.get(name, name)})")
    print(f"labels  {out / 'labels'}")
    print(f"scene   {out / 'scene'}")
    return EXIT_DONE
