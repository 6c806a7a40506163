"""What a run will do and cost, before it starts: frames, windows, operations, memory and time."""

from collections.abc import Sequence

from .console import print_rows
from .devices import choose_device
from .media import ClipSource
from .settings import EngineChoice, FollowSettings, MaskletSettings
from .types import split_windows

ASSUMED_MASKLETS = (20, 40, 80)  # ours: 20 to 60 are typical of street and table-top scenes


def print_plan(
    clips: Sequence[ClipSource],
    sam2: str | None,
    masklets: MaskletSettings,
    follow: FollowSettings,
    engine: EngineChoice,
    device: str,
    has_base: bool = True,
) -> None:
    """Print clips and windows, and with SAM 2 the operations, time and memory to expect.

    Args:
        clips: What will be worked on.
        sam2: SAM 2 weights; None: other masklets.
        masklets: Window and point grid.
        follow: How masklets live on.
        engine: Mode and image size.
        device: Where it will run.
        has_base: Whether base labels will come on top.
    """
    rows = [["clip", "size", "frames", "windows"]]
    lengths: list[int] = []
    for clip in clips:
        frames = clip.num_frames_estimate
        windows = split_windows(frames, masklets.window) if frames else []
        lengths += [window.length for window in windows]
        height, width = clip.size
        rows.append([clip.name, f"{width}x{height}", str(frames or "unknown"), str(len(windows) or "unknown")])
    print_rows(rows, f"{len(clips)} clip{'s' * (len(clips) != 1)}")
    if sam2 is None:
        return
    from .refiner import choose_mode
    from .sam2.cost import probe_speed, tracking_cost
    from .sam2.loading import find_sam2

    device = choose_device(device)
    mode = choose_mode(engine.mode, device, sam2)
    cost = tracking_cost(find_sam2(sam2).path, masklets.points, engine.image_size)
    speed = probe_speed(device)
    base = "; base labels come on top" if has_base else ""
    rows = [["if a window has", "operations", "time", "state"]]
    for count in ASSUMED_MASKLETS:
        if mode == "exact":
            flops = sum(cost.window_flops(length, count) for length in lengths)
        else:
            # prompting alone is a window whose only grid is that of its first frame
            flops = sum(
                cost.fast_window_flops(length, follow.match_every if mode == "fast" else length, count)
                for length in lengths
            )
        state = f"{count * cost.state_bytes / 2**20:.0f} MiB" if mode == "exact" else "-"
        rows.append([f"{count} masklets", f"{flops / 1e12:.3g} TFLOP", _duration(flops / speed), state])
    unknown = sum(not clip.num_frames_estimate for clip in clips)
    left_out = f"; {unknown} of {len(clips)} clips are of unknown length and left out" if unknown else ""
    print_rows(
        rows,
        f"{sam2}, mode {mode}, on {device}, about {speed / 1e9:.0f} GFLOP/s{base}{left_out}",
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
