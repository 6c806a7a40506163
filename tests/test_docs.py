"""The documentation speaks only of things that exist, and its tables hold the values of the code.

Checked in docs/method.md and docs/evaluation.md: every code span, every table of values. In all pages: links to local
files and headings. In the README: the command lines.
"""

import ast
import dataclasses
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from cyclopts import App
from pydantic import BaseModel

from sam2vss import settings
from sam2vss.boards.results_page import join_results
from sam2vss.cli import app
from sam2vss.metrics import PROTOCOLS, VideoSegMetrics, consistency, curve_windows

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sam2vss"
CHECKED = [ROOT / "docs" / name for name in ("method.md", "evaluation.md")]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SETTINGS = (
    settings.MaskletSettings,
    settings.FollowSettings,
    settings.VoteSettings,
    settings.ClassifySettings,
    settings.TextSettings,
)
CHOICES = (
    settings.Mode,
    settings.Direction,
    settings.Smoothing,
    settings.VoteScope,
    settings.VoteWeight,
    settings.OverlapOrder,
    settings.Preset,
)
NOT_YET = "not yet implemented"

Rows = list[list[str]]


# --- reading markdown ------------------------------------------------------------------------------------------------


def prose_of(text: str) -> str:
    """The text without fenced code blocks."""
    return re.sub(r"^```.*?^```[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose_of(text))


def tables_of(text: str) -> list[tuple[list[str], Rows]]:
    """Headers and rows of every table."""
    tables = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text + "\n", flags=re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        tables.append((header, rows))
    return tables


def rows_under(text: str, *columns: str) -> Rows:
    """Rows of all tables that have exactly these columns."""
    return [row for header, rows in tables_of(text) if header == list(columns) for row in rows]


def anchors_of(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose_of(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links_of(text: str) -> list[str]:
    """Targets of links and pictures, outside code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose_of(text)))


def bare(cell: str) -> str:
    """The content of a cell that is one code span."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found, f"expected one code span, found {cell!r}"
    return found[1]


# --- what exists -----------------------------------------------------------------------------------------------------


def find_module(parts: list[str]) -> Any:
    """Import the module of ours with that path, None if there is none."""
    place = PACKAGE.joinpath(*parts)
    if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
        return None
    return importlib.import_module(".".join(["sam2vss", *parts]))


def find_member(owner: Any, name: str) -> Any:
    """Return an attribute, a setting's default, or the field of a dataclass; raises AttributeError."""
    if isinstance(owner, type) and issubclass(owner, BaseModel) and name in owner.model_fields:
        return owner.model_fields[name].default
    if isinstance(owner, type) and dataclasses.is_dataclass(owner) and not hasattr(owner, name):
        fields = {field.name: field for field in dataclasses.fields(owner)}
        if name in fields:
            return fields[name]
    return getattr(owner, name)


def find_object(name: str) -> Any:
    """Return what a dotted name stands for: "voting.count_votes", or "sam2vss.refine"; raises AttributeError."""
    parts = name.split(".")
    if parts[0] == "sam2vss":
        found, rest = importlib.import_module("sam2vss"), parts[1:]
    else:
        lengths = [n for n in range(len(parts), 0, -1) if find_module(parts[:n])]
        if not lengths:
            raise AttributeError(f"no module {parts[0]}")
        found, rest = find_module(parts[: lengths[0]]), parts[lengths[0] :]
    for part in rest:
        found = find_member(found, part)
    return found


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def commands_of(parent: App, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command with its words, those of groups such as `train` included."""
    for word in parent:
        if not word.startswith("-"):
            yield (*prefix, word), parent[word]
            yield from commands_of(parent[word], (*prefix, word))


@cache
def options_of(words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Options of one command, with their choices where the values are listed; () where any value goes."""
    options = {"--help": (), "--version": (), "--config": ()}  # `launch` takes --config before the command is known
    try:
        arguments = dict(commands_of(app))[words].assemble_argument_collection()
    except ValueError:  # a group of commands, which takes nothing itself
        return options
    for argument in arguments:
        choices = get_args(argument.hint) if get_origin(argument.hint) is Literal else ()
        options |= dict.fromkeys((name for name in argument.names if name.startswith("--")), choices)
    return options


@cache
def known_words() -> frozenset[str]:
    """Names that may stand alone: settings, the values of choices, protocols, scores."""
    fields = {name for model in SETTINGS for name in model.model_fields}
    choices = {value for choice in CHOICES for value in get_args(choice)}
    return frozenset(
        fields | choices | set(PROTOCOLS) | set(VideoSegMetrics(1, windows=curve_windows()).compute().as_dict())
    )


def check_option(option: str, value: str) -> str:
    """Say what is wrong with an option and its value ("" for none), in whatever command; "" if nothing is."""
    found = [options[option] for words, _ in commands_of(app) if option in (options := options_of(words))]
    if not found:
        return f"no command has the option {option}"
    if value and not any(value in choices for choices in found if choices) and all(found):
        return f"{option} takes {' or '.join(found[0])}, not {value}"
    return ""


def check_command(line: str) -> str:
    """Say what is wrong with a command line that begins with sam2vss, "" if nothing is."""
    tokens = shlex.split(line, comments=True)[1:]
    known = [words for words, _ in commands_of(app) if words == tuple(tokens[: len(words)])]
    if not known:
        return f"no command {tokens[0] if tokens else line}"
    words = max(known, key=len)
    options = options_of(words)
    for token in tokens[len(words) :]:
        if token.startswith("--") and token.split("=")[0] not in options:
            return f"sam2vss {' '.join(words)} has no option {token}"
    return ""


def check_span(span: str) -> str:
    """Say what is wrong with a code span of the method page, "" if nothing is."""
    if span.startswith("--"):
        return check_option(*span.partition(" ")[::2])
    if span.startswith("sam2vss "):
        return check_command(span)
    if "/" in span:
        path, _, test = span.partition("::")
        if not any((home / path).exists() for home in (ROOT, PACKAGE)):
            return f"no file {path}"
        return "" if not test or test in functions_of(ROOT / path) else f"no test {test} in {path}"
    if span in known_words():
        return ""
    try:
        find_object(span)
    except AttributeError as error:
        return f"{span} does not exist: {error}"
    return ""


def check_link(target: str, page: Path) -> str:
    """Say what is wrong with a link on a page, "" if nothing is or it leads to another site."""
    if re.match(r"[a-z]+:", target):
        return ""
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    if not path.is_relative_to(page.parent) and not path.is_relative_to(ROOT):
        return f"{target} leads out of the repository"
    if not path.exists():
        return f"{target} does not exist"
    if anchor and anchor not in anchors_of(path.read_text(encoding="utf-8")):
        return f"{file or page.name} has no heading #{anchor}"
    return ""


def shown(value: Any) -> str:
    """How tables write a value."""
    return f"{value.start} to {value.stop - 1}" if isinstance(value, range) else str(value)


def wrong_values(text: str) -> list[str]:
    """Rows `name` | value | ... whose value is not that of the code."""
    stated = [row for header, rows in tables_of(text) if "Value" in header[1:2] for row in rows]
    found = [(bare(name), value, shown(find_object(bare(name)))) for name, value, *_ in stated]
    return [f"{name} is {real}, not {value}" for name, value, real in found if value != real]


def unproven_rows(text: str) -> list[str]:
    """Rows that lead from the paper to the code and lack the code, the test, or the word that they are to come."""
    wrong = []
    for header, rows in tables_of(text):
        if header[:2] == ["Paper", "What"]:
            for row in rows:
                spans = [code_spans(cell) for cell in row]
                is_proven = len(row) == 4 and spans[2] and any("::" in span for span in spans[3])
                if not is_proven and not row[2].startswith(NOT_YET):
                    wrong.append(f"{row[0]}: {row[1]}")
    return wrong


# --- the pages as they are -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def method() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in CHECKED)


def test_everything_the_method_page_names_exists(method):
    spans = code_spans(method)
    assert len(spans) > 100  # else nothing was read
    assert [problem for span in dict.fromkeys(spans) if (problem := check_span(span))] == []


def test_values_stated_in_tables_are_those_of_the_code(method):
    assert len(rows_under(method, "Constant", "Value", "Meaning")) > 5
    assert wrong_values(method) == []


def test_every_setting_stands_in_the_table_of_defaults(method):
    rows = rows_under(method, "Setting", "Value", "Option", "Source")
    expected = [
        (f"settings.{model.__name__}.{name}", str(field.default), f"--{name.replace('_', '-')}")
        for model in SETTINGS
        for name, field in model.model_fields.items()
    ]
    assert [(bare(name), value, bare(option)) for name, value, option, _ in rows] == expected


def test_every_preset_stands_with_what_it_changes(method):
    expected = {}
    for name, preset in settings.PRESETS.items():
        default = settings.PresetValues()
        changes = {
            field.name: getattr(preset, field.name)
            for field in dataclasses.fields(preset)
            if getattr(preset, field.name) != getattr(default, field.name)
        }
        expected[name] = ", ".join(f"{key} = {value}" for key, value in changes.items()) or "nothing"
    assert {bare(name): text for name, text in rows_under(method, "Preset", "What it changes")} == expected


def test_every_protocol_stands_with_its_rule(method):
    voids = {
        consistency.STABLE: "every void id is a label of its own",
        consistency.MERGED: "one label",
        consistency.LABELLED: "left out",
    }
    kept = "its prediction stays the same"
    rules = {consistency.CORRECT: "its prediction is right in all n frames"}
    expected = [
        [
            f"`{name}`",
            voids[protocol.common],
            "T - n" if protocol.drop_last_window else "T - n + 1",
            str(protocol.min_frames),
            rules.get(protocol.kept, kept),
        ]
        for name, protocol in PROTOCOLS.items()
    ]
    (found,) = [rows for header, rows in tables_of(method) if header[0] == "Protocol"]
    assert found == expected


def test_every_training_stage_stands_with_its_numbers(method):
    from sam2vss.training.nano import FULL

    expected = [
        [path, stage.steps, stage.size, stage.images, stage.prompts, stage.rate, stage.warm_up]
        for path, stages in (("image", FULL.image_stages), ("memory", FULL.memory_stages))
        for stage in stages
    ]
    (found,) = [rows for header, rows in tables_of(method) if header[0] == "Path"]
    assert found == [[str(value) for value in row] for row in expected]


def test_every_row_leads_from_the_paper_to_code_and_test_or_is_still_to_come(method):
    assert unproven_rows(method) == []


@pytest.mark.parametrize("equation", range(1, 7))
def test_every_equation_of_the_paper_has_its_row(equation, method):
    places = [row[0] for header, rows in tables_of(method) if header[:2] == ["Paper", "What"] for row in rows]
    assert any(place.startswith(f"Eq. {equation}") for place in places)


def test_sections_that_the_code_refers_to_exist(method):
    headings = set(re.findall(r"^#+ +(.+)$", method, flags=re.MULTILINE))
    referred = {
        section
        for path in PACKAGE.rglob("*.py")
        for section in re.findall(r'docs/method\.md, "([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert "Voting" in referred  # else the pattern no longer fits
    assert referred <= headings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_local_files_and_headings_lead_somewhere(page):
    links = links_of(page.read_text(encoding="utf-8"))
    assert [problem for link in links if (problem := check_link(link, page))] == []


def test_the_page_of_results_is_what_its_parts_give():
    parts = sorted((ROOT / "docs" / "results").iterdir())
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == join_results(parts)


def test_command_lines_in_the_readme_are_understood():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}(?:\S*/)?(sam2vss .+)$", text, flags=re.MULTILINE)
    assert lines
    assert [problem for line in lines if (problem := check_command(line))] == []


# --- the checks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ("voting.count_votes", ""),
        ("settings.MaskletSettings.window", ""),
        ("types.Refinement.coverage", ""),  # a field without default is no attribute of the class
        ("sam2vss.refine", ""),
        ("mask_runs", ""),
        ("small-on-top", ""),
        ("mBIoU_per_image", ""),
        ("--mode exact", ""),
        ("--labels my_folder", ""),
        ("sam2vss train nano --smoke", ""),
        ("tests/test_docs.py::test_what_is_wrong_with_a_name_is_said", ""),
        ("voting.count_vote", "voting.count_vote does not exist"),
        ("voting.Refiner.refine", "voting.Refiner.refine does not exist"),
        ("refine.count_votes", "refine.count_votes does not exist: no module refine"),
        ("types.Refinement.cover", "types.Refinement.cover does not exist"),
        ("settings.MaskletSettings.windows", "settings.MaskletSettings.windows does not exist"),
        ("min_shares", "min_shares does not exist"),
        ("--vote-scope", "no command has the option --vote-scope"),
        ("--mode fast", ""),
        ("--mode slow", "--mode takes auto or exact or fast or prompt, not slow"),
        ("sam2vss benches", "no command benches"),
        ("sam2vss demo --smoke", "sam2vss demo has no option --smoke"),
        ("sam2vss train nano --frames 3", "sam2vss train nano has no option --frames"),
        ("tests/test_nothing.py::test_x", "no file tests/test_nothing.py"),
        ("tests/test_docs.py::test_x", "no test test_x in tests/test_docs.py"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(span, problem):
    found = check_span(span)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_links_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One title: `so`\n[a](other.md) ![b](b.png) [c](#one-title-so) [d](#two) [e](https://x.org)\n")
    (tmp_path / "other.md").touch()
    links = links_of(page.read_text())
    assert links == ["other.md", "b.png", "#one-title-so", "#two", "https://x.org"]
    problems = [check_link(link, page) for link in links]
    assert problems == ["", "b.png does not exist", "", "page.md has no heading #two", ""]
    assert check_link("../../x.md", page) == "../../x.md leads out of the repository"


def test_code_is_no_link_and_fenced_blocks_are_no_prose():
    text = "`a[i](x)` and `b`\n```python\nc = `d`[0](y)\n# no title\n```\n[z](z.md) `e`\n"
    assert links_of(text) == ["z.md"]
    assert code_spans(text) == ["a[i](x)", "b", "e"]
    assert anchors_of(text) == set()


def test_a_stale_value_is_found():
    page = "| Setting | Value |\n|---|---|\n| `settings.MaskletSettings.window` | 31 |\n"
    page += "| `datasets.synthetic.TEST_SEEDS` | 200000 to 200099 |\n"
    assert wrong_values(page) == ["settings.MaskletSettings.window is 32, not 31"]


def test_a_row_without_test_or_code_is_found():
    head = "| Paper | What | Code | Tests |\n|---|---|---|---|\n"
    proven = "| Eq. 1 | good | `voting.paint_masklets` | `tests/test_docs.py::test_x` |\n"
    lacking = "| Eq. 2 | no test | `voting.count_votes` | none |\n| Eq. 4 | no code | soon | `tests/a.py::test_x` |\n"
    to_come = f"\n| Paper | What | State |\n|---|---|---|\n| Eq. 3 | later | {NOT_YET} |\n| Eq. 5 | never | planned |\n"
    assert unproven_rows(head + proven + lacking + to_come) == ["Eq. 2: no test", "Eq. 4: no code", "Eq. 5: never"]
