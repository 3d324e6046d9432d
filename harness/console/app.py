"""The start of every command, as ``python -m harness.NAME`` or ``harness NAME``.

Command modules import what they need when they run, so that ``--help`` answers at once.
"""

import gc
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from harness.console.terminal import escape_output
from harness.errors import EXIT_BAD_INPUT, UserError, error_lines, one_line, system_error

HELP = """Compare knowledge distillation methods: train students, print tables, trace every number to its runs.

A sweep file (YAML) names a dataset, teacher-student pairs, methods and seeds.
Start with "python -m harness sweep benchmarks/digits_pairs.yaml --plan".
It shows what would be trained; without --plan, it is trained.

docs/sweep-file.md lists all keys, methods, datasets, models and recipes.
docs/concepts.md explains the words.
"python -m harness COMMAND --help" shows a command's options.
"""
COMMANDS = (
    "sweep", "tune", "list", "status", "report", "leaderboard", "compact", "verify", "evaluate", "transfer", "export",
    "prepare",
)  # fmt: skip


def run_command(command: Callable[..., None]) -> None:
    """Run a command from ``if __name__ == "__main__"`` of its module."""
    app = _app()
    app.command()(command)
    run_app(app)


def main() -> None:
    """Run the console script ``harness``."""
    app = _app(help=HELP)
    for name in COMMANDS:
        app.command(name)(getattr(importlib.import_module(f"harness.{name}"), name))
    run_app(app)


def _app(help: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=help, add_completion=False, no_args_is_help=help is not None, pretty_exceptions_enable=False
    )


def run_app(app: typer.Typer) -> NoReturn:
    """Run an app and exit. Each mistake is one line on stderr, wrong options included."""
    from harness.store.files import DiskFull

    # Records hold no cycles, and the search for some takes a tenth of the time in a large store.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without "±" still gets its table
    escape_output()
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
        _exit(text.replace("Value error, ", ""))  # as typer quotes pydantic


def _exit(*messages: str) -> NoReturn:
    for message in messages:
        print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
