"""Frames per second and memory of SAM 2 engines that follow N masks: Meta's, transformers' and ours, on GPU or CPU.

    python benchmarks/engine.py --device cuda --configs tiny large --sizes 1024 --objects 1 10 50 64 100 --json gpu.json
    python benchmarks/engine.py --configs tiny --sizes 256 512 --objects 1 8 16 --frames 20 --timed 3 --json cpu.json

Every cell runs in a process of its own, and rounds go through all engines in turn, so that load and heat meet all
alike. Timed are the last frames of a clip, with the memory full (16 frames and more); on a CPU as processor time of one
thread, on a GPU as wall time. Peak memory is that of PyTorch's allocator on a GPU and of the whole process on a CPU,
libraries included. Weights are random: speed does not depend on them. Engines that cannot run here say why and are
skipped.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch

from engine_peers import CONFIGS, ENGINES, Cell, SkippedError, make_scene, run_engine

MEMORY_FULL = 16  # frames until all pointers of SAM 2 are there
VIDEO_SIZES = {"cpu": (240, 426), "cuda": (480, 853)}


@dataclass(frozen=True)
class Result:
    """One cell in one round; `error` says why there are no numbers."""

    cell: Cell
    frames_per_s: float = 0.0
    peak_gib: float = 0.0
    error: str = ""


def measure(cell: Cell, timed: int) -> Result:
    """Run a cell in this process."""
    if cell.device == "cpu":
        torch.set_num_threads(1)
    scene = make_scene(cell.frames, cell.objects, VIDEO_SIZES[torch.device(cell.device).type])
    try:
        steps = run_engine(cell, scene)
        for _ in range(cell.frames - timed):
            next(steps)
        started = _now(cell.device)
        for _ in range(timed):
            next(steps)
        seconds = _now(cell.device) - started
    except SkippedError as error:
        return Result(cell, error=str(error))
    return Result(cell, timed / seconds, _peak_bytes(cell.device) / 2**30)


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: str) -> int:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated(device)


def measure_apart(cell: Cell, timed: int, timeout_s: float) -> Result:
    """Run a cell in a process of its own; whatever goes wrong there becomes the result's error."""
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--timed", str(timed)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if cell.device == "cpu" else {})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except subprocess.TimeoutExpired:
        return Result(cell, error=f"took longer than {timeout_s:.0f} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Result(cell, error=next((line for line in reversed(lines) if "Error" in line), lines[-1])[:300])
    found = json.loads(done.stdout.splitlines()[-1])
    return Result(**{**found, "cell": cell})


def run_all(cells: Sequence[Cell], rounds: int, timed: int, timeout_s: float) -> Iterator[Result]:
    """Measure all cells once a round; a cell that failed is not tried again."""
    failed: set[Cell] = set()
    for number in range(rounds):
        for cell in cells:
            if cell in failed:
                continue
            result = measure_apart(cell, timed, timeout_s)
            failed |= {cell} if result.error else set()
            outcome = result.error or f"{result.frames_per_s:.2f} frames/s, {result.peak_gib:.2f} GiB"
            place = f"round {number + 1}, {cell.config} {cell.size}, N={cell.objects}"
            print(f"{place}, {cell.engine}: {outcome}", file=sys.stderr, flush=True)
            yield result


def make_table(results: Sequence[Result], baseline: str) -> str:
    """One markdown row per config, size and engine; per N frames a second, the ratio to the baseline, peak memory."""
    speeds: dict[Cell, list[Result]] = {}
    for result in results:
        speeds.setdefault(result.cell, []).append(result)
    counts = sorted({cell.objects for cell in speeds})
    lines = [f"| model | engine | {' | '.join(f'N={n}' for n in counts)} |", "|---|---|" + "---|" * len(counts)]
    by_place = {(cell.config, cell.size, cell.engine, cell.objects): runs for cell, runs in speeds.items()}
    for config, size, engine in dict.fromkeys(key[:3] for key in by_place):
        row = [
            _entry(by_place.get((config, size, engine, n), []), by_place.get((config, size, baseline, n), []))
            for n in counts
        ]
        lines.append(f"| {config} {size} | {ENGINES[engine]} | {' | '.join(row)} |")
    reasons = dict.fromkeys(
        f"{ENGINES[result.cell.engine]}, {result.cell.config}: {result.error}" for result in results if result.error
    )
    return "\n".join([*lines, "", *(f"* {reason}" for reason in reasons)])


def _entry(runs: Sequence[Result], baseline: Sequence[Result]) -> str:
    if not runs or any(run.error for run in runs):
        return "-"
    speed, peak = median(run.frames_per_s for run in runs), max(run.peak_gib for run in runs)
    ratio = ""
    if baseline and not any(run.error for run in baseline):
        ratio = f" ({speed / median(run.frames_per_s for run in baseline):.2f}x)"
    return f"{speed:.2f}{ratio}, {peak:.2f} GiB"


def describe_machine(device: str) -> dict[str, str]:
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        name = str(capabilities.get("cpu_name", platform.processor()))
    else:
        name = torch.cuda.get_device_name(device)
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=["tiny"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[1024], help="side of the square pictures, pixels")
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 10, 50, 64, 100])
    parser.add_argument("--frames", type=int, default=24, help="frames a clip")
    parser.add_argument("--timed", type=int, default=8, help="frames at its end that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=ENGINES, default=list(ENGINES), help="engines to compare")
    parser.add_argument("--baseline", choices=ENGINES, default="meta", help="the engine that ratios refer to")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a cell may take, compilation included")
    parser.add_argument("--meta", default="", help="folders to import Meta's sam2 from, joined as in PYTHONPATH")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure all cells, print the table, write the file."""
    arguments = read_arguments()
    if arguments.cell:
        print(json.dumps(asdict(measure(Cell(**json.loads(arguments.cell)), arguments.timed))))
        return
    if arguments.frames < MEMORY_FULL + arguments.timed:
        sys.exit(f"--frames {arguments.frames} is too few: the memory is full after {MEMORY_FULL}, and --timed follow")
    cells = [
        Cell(engine, config, size, objects, arguments.frames, arguments.device, arguments.meta)
        for config, size, objects, engine in product(
            arguments.configs, arguments.sizes, arguments.objects, arguments.peers
        )
    ]
    results = list(run_all(cells, arguments.rounds, arguments.timed, arguments.timeout))
    machine = describe_machine(arguments.device)
    print(make_table(results, arguments.baseline))
    if arguments.json:
        content = {"machine": machine, "timed": arguments.timed, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
