"""What the command line answers with."""

from typing import Final

EXIT_DONE: Final = 0
EXIT_BUG: Final = 1
EXIT_INPUT: Final = 2
EXIT_INCOMPLETE: Final = 3  # done, but not all of it, under --strict
EXIT_INTERRUPTED: Final = 130
