"""The start of every command, as ``python -m harness.NAME`` or ``harness NAME``.

Command modules import what they need when they run, so that ``--help`` answers at once.
"""

import gc
import importlib
import inspect
import io
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import typer

from harness.console.terminal import escape_output, say
from harness.errors import EXIT_BAD_INPUT, EXIT_OK, UserError, error_lines, one_line, system_error
from harness.hardware import wait_without_spinning

HELP = """Compare methods of knowledge distillation (KD).

A sweep file (YAML) names a dataset, teacher-student pairs, methods and seeds.
The harness trains the students, and prints a table that compares the methods.

Example: {program} sweep benchmarks/digits_pairs.yaml

"{program} COMMAND --help" shows a command's options, --version the versions.
docs/concepts.md explains the words, docs/sweep-file.md every key of a sweep file.
"""
COMMANDS = {
    "sweep": "train the students of a sweep file and compare the methods",
    "tune": "choose each method's settings first, with equal budgets",
    "list": "list methods, models, datasets and recipes",
    "status": "show which runs are done, running or failed, and why",
    "report": "print a sweep's table again; write LaTeX, figures, a bundle",
    "diff": "compare two sweep files, two runs or two stores",
    "leaderboard": "write a web page of all results",
    "merge": "copy what other stores have trained into one",
    "compact": "merge many small record files into a few",
    "verify": "check that records, weights and tables are unchanged",
    "evaluate": "measure the accuracy of a checkpoint, such as a teacher's",
    "transfer": "measure what a student's features are worth on other data",
    "export": "write a trained student as TorchScript, ONNX or safetensors",
    "prepare": "turn image files into the form that training reads",
}
GUIDE = """Compare methods of knowledge distillation (KD): a large trained network, the
teacher, helps to train a smaller one, the student.

You name a dataset, teacher-student pairs, methods and seeds in a sweep file
(YAML). The harness trains the students, and prints a table that compares the
methods. Every number in it can be traced to the runs behind it.

Start with these three, in the folder of the harness's repository:

  {program} list methods
      lists what a sweep file can name, with a line on each
  {program} sweep benchmarks/digits_pairs.yaml --plan
      shows what would be trained; --probe adds how long it would take
  {program} sweep benchmarks/digits_pairs.yaml
      trains it and prints the table: a few minutes on two cores

Commands ("{program} COMMAND --help" shows options and an example):

{commands}

README.md starts with a sweep file of your own. docs/concepts.md explains the
words, docs/sweep-file.md every key."""


def run_command(command: Callable[..., None]) -> None:
    """Run a command from ``if __name__ == "__main__"`` of its module."""
    app = _app()
    app.command(help=_help(command))(command)
    run_app(app)


def main() -> None:
    """Run the console script ``harness``."""
    program = "python -m harness" if Path(sys.argv[0]).name == "__main__.py" else "harness"
    if not sys.argv[1:]:
        print(_guide(program))
        sys.exit(EXIT_BAD_INPUT)
    app = _app(help=HELP.replace("{program}", program))
    for name, summary in COMMANDS.items():
        command = getattr(importlib.import_module(f"harness.{name}"), name)
        app.command(name, help=_help(command), short_help=summary)(command)
    run_app(app)


def _guide(program: str) -> str:
    commands = "\n".join(f"  {name:<13}{summary}" for name, summary in COMMANDS.items())
    return GUIDE.replace("{program}", program).replace("{commands}", commands)


def _help(command: Callable[..., None]) -> str:
    """Return a command's docstring with its paragraphs on one line each, as terminals are narrower than the source."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else " ".join(text.split()) for text in paragraphs)


def _app(help: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=help, add_completion=False, no_args_is_help=help is not None, pretty_exceptions_enable=False
    )


def _versions() -> str:
    """Return the versions to name in a report of a bug. torch is asked for its version only, as its import is slow."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    kd_harness = importlib.import_module("harness").__version__
    return f"kd-harness {kd_harness}, Python {platform.python_version()}, torch {torch}"


def run_app(app: typer.Typer) -> NoReturn:
    """Run an app and exit. Each mistake is one line on stderr, wrong options included."""
    from harness.store.files import DiskFull

    # Records hold no cycles, and the search for some takes a tenth of the time in a large store.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without "±" still gets its table
    escape_output()
    wait_without_spinning()
    if len(sys.argv) <= 3 and sys.argv[-1] == "--version":  # also `harness sweep --version`
        print(_versions())
        sys.exit(EXIT_OK)
    try:
        code = app(standalone_mode=False)  # so that a command's errors are reported below, not in typer's box
        sys.stdout.flush()
        sys.exit(code)
    except (UserError, DiskFull) as e:
        _exit(*error_lines(e))
    except BrokenPipeError:  # `harness report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BAD_INPUT)
    except OSError as e:  # no permission, a file where a folder should be, a read-only file system, ...
        _exit(system_error(e))
    except typer.Abort:
        sys.exit(130)
    except Exception as e:
        # Wrong options. Depending on its version, typer raises click's class or its own copy of it.
        if not hasattr(e, "format_message"):
            raise
        if not (text := e.format_message()):  # no command at all: the help has been printed
            sys.exit(EXIT_BAD_INPUT)
        text = " ".join(text.replace("Value error, ", "").split())  # as typer quotes pydantic, and lists choices
        context = getattr(e, "ctx", None)
        _exit(
            f"{text.removesuffix('.')}; see {context.command_path} --help"
            if text.startswith("Missing") and context
            else text
        )


def _exit(*messages: str) -> NoReturn:
    for message in messages:
        say(f"error: {one_line(message)}")
    sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
