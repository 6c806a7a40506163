"""`sam2vss doctor`."""

import json
from typing import Annotated

from cyclopts import Parameter

from .exit_codes import EXIT_DONE


def doctor(*, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Say what is installed, which devices there are, and which weights are in reach.

    Parameters
    ----------
    json_output
        Print JSON instead of a table.
    """
    from .. import doctor as checks
    from ..console import print_rows

    found = checks.collect()
    if json_output:
        print(json.dumps(checks.to_json(found), indent=2))
    else:
        print_rows([["check", "state", "found"], *checks.rows(found)])
    return EXIT_DONE
