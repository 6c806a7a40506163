"""A budget that is quick to check: the start of the command line.

python benchmarks/small_costs.py
"""

import subprocess
import sys
import time


def main() -> None:
    """Measure and print."""
    starts = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sam2vss", "--help"], check=True, capture_output=True)
        starts.append(time.perf_counter() - started)
    print(f"sam2vss --help: {min(starts):.2f} s (best of 5)")


if __name__ == "__main__":
    main()
