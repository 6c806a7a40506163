"""Store what a results page shows of a board, for docs/results/.

    python benchmarks/store_board.py runs/results/bench-synthetic docs/results/21-synthetic-bench.json

Scores of single classes and clips, and pictures, stay behind: they make nine tenths of the file.
"""

import argparse
import json
from pathlib import Path

from sam2vss.boards.results_page import summary_of
from sam2vss.boards.scoreboard import Scoreboard
from sam2vss.boards.writing import find_board_file


def main() -> None:
    """Read the board of a folder and write its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    board = summary_of(Scoreboard.read(find_board_file(options.folder)))
    options.out.write_text(json.dumps(board.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
