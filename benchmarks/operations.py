"""What SAM 2 costs before any machine runs it: operations of its parts, and of a window in the modes exact and fast.

    python benchmarks/operations.py --size 1024

Counted on the meta device from the released architectures, 2 operations per multiply-add; no weights are needed.
"""

import argparse

import torch

LENGTH, POINTS, OBJECTS = 32, 16, (1, 10, 50, 100)


def main() -> None:
    """Count and print the tables."""
    from transformers import Sam2VideoModel

    from sam2vss.sam2.cost import network_cost
    from sam2vss.sam2.meta_checkpoints import TRUNKS, MetaArchitecture, video_config
    from sam2vss.sam2.model import Sam2Network

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    size = parser.parse_args().size
    parts, windows = [], []
    for trunk in TRUNKS:
        with torch.device("meta"):
            network = Sam2Network(Sam2VideoModel(video_config(MetaArchitecture(trunk, is_2_1=True))))
        network.set_image_size(size)
        cost = network_cost(network, POINTS)
        numbers = (cost.encode, cost.candidates, cost.follow, cost.prompt)
        parts.append([trunk.size, *(f"{number / 1e9:.1f}" for number in numbers), f"{cost.state_bytes / 2**20:.2f}"])
        for count in OBJECTS:
            exact, fast = cost.window_flops(LENGTH, count), cost.fast_window_flops(LENGTH, 1, count)
            per_frame = (f"{flops / LENGTH / 1e12:.2f}" for flops in (exact, fast))
            windows.append([trunk.size, str(count), *per_frame, f"{exact / fast:.1f}"])
    print(f"SAM 2.1 at {size} pixels, GFLOP\n")
    show(
        ["model", "encode a frame", f"{POINTS}x{POINTS} points", "follow one object", "prompt one", "MiB an object"],
        parts,
    )
    print(f"\nA frame of a window of {LENGTH}, TFLOP\n")
    show(["model", "objects", "exact", "fast", "ratio"], windows)


def show(head: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
