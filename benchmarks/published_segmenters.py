"""Our video models beside their official code, on equal weights and input: the largest difference of the logits.

    python benchmarks/published_segmenters.py [--cffm DIR] [--mrcfa DIR] [--tv3s DIR --mamba DIR]
        [--sizes b0 b1] [--inputs 480x864 416x864 864x480] [--keys tests/segmenters/vss/published_keys]

The folders are clones of GuoleiSun/VSS-CFFM, GuoleiSun/VSS-MRCFA, Ashesham/TV3S and state-spaces/mamba. Their files run
unchanged on a CPU (`official_stubs.py`); `einops` must be installed besides. Weights are random, drawn by the name of
each tensor. Ours are loaded from the official state dict, strictly, so this also shows that every key of a checkpoint
is used or named. `--keys` stores the names and shapes of the official checkpoints that the tests compare with.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from official_cffm import CFFM_PLUS, compare_cffm, official_cffm
from official_rows import HEADER, Row, write_keys

Inputs = Sequence[tuple[int, int]]


def cffm_rows(arguments: argparse.Namespace, inputs: Inputs) -> Iterator[Row]:
    """CFFM, SegFormer as its head for single frames, and CFFM++."""
    if arguments.keys:
        plain = official_cffm(arguments.cffm, "b0")
        write_keys(arguments.keys, "cffm_b0", plain)
        write_keys(arguments.keys, "cffm_plus_b0", official_cffm(arguments.cffm, "b0", CFFM_PLUS), beside=plain)
    for size in arguments.sizes:
        yield from compare_cffm(arguments.cffm, size, inputs)


def all_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    inputs = [(int(height), int(width)) for height, width in (text.split("x") for text in arguments.inputs)]
    if arguments.cffm:
        yield from cffm_rows(arguments, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cffm", "mrcfa", "tv3s", "mamba", "keys"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["b0", "b1"])
    parser.add_argument("--inputs", nargs="+", default=["480x864", "416x864", "864x480"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    for row in all_rows(arguments):
        print(row, flush=True)


if __name__ == "__main__":
    main()
