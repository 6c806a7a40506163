"""The command line: turns words into calls, errors into exit codes. Nothing else knows that it exists.

Exit codes: 0 done, 1 our bug, 2 the user's input, 3 done but incomplete under --strict, 130 interrupted. Every command
is one function in a file of its own. Heavy libraries are imported inside the commands, so that `--help` stays fast.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from ..errors import MediaError, RunError, Sam2VssError, SettingsError
from .ablate import ablate
from .bench import bench
from .check_data import check_data
from .classify import classify
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .evaluate_panoptic import evaluate_panoptic
from .exit_codes import EXIT_DONE, EXIT_INPUT, EXIT_INTERRUPTED
from .models import models
from .refine import refine
from .report import report
from .stability import stability
from .synthetic import synthetic
from .train import nano
from .train_masklets import classifier, fusion
from .train_segmenter import segmenter

app = App(
    name="sam2vss",
    help="Temporally consistent, sharp-edged semantic masks for any video.",
    version=lambda: version("sam2vss"),
    suppress_keyboard_interrupt=False,  # `run` answers it
)
app.meta.suppress_keyboard_interrupt = False
app.command(refine)
app.command(classify)
app.command(evaluate)
app.command(evaluate_panoptic)
app.command(bench)
app.command(stability)
app.command(check_data)
app.command(synthetic)
app.command(ablate)
app.command(demo)
app.command(report)
app.command(models)
app.command(doctor)
train = App(name="train", help="Train models.")
train.command(classifier)
train.command(fusion)
train.command(segmenter)
train.command(nano)
app.command(train)

# What the system answers about a path that a user gave, wherever it is first touched.
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)

TRAININGS = ("classifier", "fusion", "segmenter", "nano")
COMMANDS = tuple(name for name in app if not name.startswith("-"))


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> int:
    """Run a command; options can also come from a file.

    Parameters
    ----------
    config
        YAML file of options, such as "window: 16"; the command line wins over it.
    """
    for previous, token in zip(("", *tokens), tokens, strict=False):
        if not token.strip() or re.fullmatch(r"--[\w-]+=\s*", token):
            raise SettingsError(f"an empty value was given {f'after {previous}' * bool(previous)}".rstrip())
    if config is not None:
        from cyclopts.config import Dict

        options = _read_config(config)
        # one entry a command: with a flat file cyclopts would silently drop options named like a command (report)
        data = {**dict.fromkeys(COMMANDS, options), "train": dict.fromkeys(TRAININGS, options)}
        app.config = (Dict(data, source=str(config.absolute())),)
    code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else EXIT_DONE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names from files may hold what no terminal can show
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; only our own bugs raise."""
    app.config = ()  # forget the file of an earlier call in this process
    _limit_noise()
    try:
        return _call(arguments)
    except Sam2VssError as error:
        _print_error(type(error).__name__, str(error))
        return EXIT_INPUT
    except CycloptsError as error:
        _print_error("usage", _usage_message(error))
        return EXIT_INPUT
    except KeyboardInterrupt:
        _print_error("interrupted", _way_on(arguments))
        return EXIT_INTERRUPTED


def _call(arguments: Sequence[str]) -> int:
    """Run the command and write out what it printed; a reader that left early is no failure, a full disk is."""
    try:
        code = app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except SystemExit as stop:  # how rich, which prints the help texts, answers a closed pipe
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return EXIT_DONE
    except OSError as error:
        if error.filename is not None and error.errno in REFUSALS:
            raise MediaError(f"cannot use {error.filename}: {error.strerror}") from error
        is_stream = error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EDQUOT)
        if not is_stream:
            raise
        with suppress(OSError, ValueError):  # what is left in the buffer must not fail once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return EXIT_DONE
        raise RunError(f"cannot write the standard output: {error.strerror}") from error
    return code if isinstance(code, int) else EXIT_DONE


def _way_on(arguments: Sequence[str]) -> str:
    """Say how to go on after an interruption."""
    if {"refine", "classify", "bench", "ablate", "classifier", "fusion", "segmenter"} & set(arguments):
        return "what is finished is kept; go on with the same command and --resume"
    if "train" in arguments:
        return "the same command goes on from the last checkpoint"
    return "the same command starts again"


def _read_config(config: Path) -> dict[str, Any]:
    """Read a file of options: a flat mapping from option names to values."""
    import yaml

    if not config.is_file():
        raise SettingsError(f"--config {config} does not exist")
    try:
        options = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {config} cannot be read as YAML: {error}") from error
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise SettingsError(
            f'--config {config} must be a mapping such as "window: 16", but got {type(options).__name__}'
        )
    for key, value in options.items():
        if not isinstance(key, str):
            raise SettingsError(
                f'--config {config} has the key {key!r}, expected names of options such as "window: 16"'
            )
        if isinstance(value, dict) or (key in COMMANDS and key != "report"):
            raise SettingsError(
                f'--config {config} nests options under "{key}": options stand at top level, such as "window: 16", and '
                "belong to the command that is called"
            )
        if key == "config":
            raise SettingsError(f"--config {config} names another config: give all options in one file")
        if isinstance(value, str) and not value.strip():
            raise SettingsError(f"--config {config} gives an empty value for {key}")
    return options


def _usage_message(error: CycloptsError) -> str:
    """Say what was wrong with the words; pydantic's findings become one line per option."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ValidationError):
        lines = [
            f"--{'-'.join(str(part).replace('_', '-') for part in found['loc'])} {found['input']}: {found['msg']}"
            for found in cause.errors()
        ]
        return "\n".join(lines)
    return f"{error} (sam2vss --help lists commands and options)"


def _print_error(kind: str, text: str) -> None:
    from ..console import print_error

    print_error(kind, text)


def _limit_noise() -> None:
    """Keep the libraries' chatter and telemetry off; must come before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on a busy machine multiply the time
