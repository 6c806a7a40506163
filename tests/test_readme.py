"""The README's Python example runs and prints what the README says it prints."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_example_prints_what_stands_below_it(capsys):
    text = README.read_text(encoding="utf-8")
    found = re.search(r"```python\n(?P<code>(?s:.*?))```\n\nprints\n\n(?P<output>(?:    .*\n)+)", text)
    assert found is not None, "the README has no Python example with its output"
    exec(compile(found["code"], str(README), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.removeprefix("    ") for line in found["output"].splitlines()]
    # How many masks pass the thresholds may differ by a few between processors, so numbers of masklets are not held.
    assert [line.split(" masklets")[0].rsplit(" ", 1)[0] for line in printed] == [
        line.split(" masklets")[0].rsplit(" ", 1)[0] for line in promised
    ]
    assert all("masklets voted for 10 classes" in line for line in printed)
