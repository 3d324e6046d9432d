"""One way to start every command: ``python -m harness.NAME`` or ``harness NAME``.

Command modules import what they need when they run, so that ``--help`` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Callable

import typer

from harness.errors import EXIT_BAD_INPUT, UserError

COMMANDS = ("sweep", "status", "report", "verify", "evaluate")


def run_one(command: Callable[..., None]) -> None:
    """For ``if __name__ == "__main__"`` of a command's module."""
    app = _app()
    app.command()(command)
    _run(app)


def main() -> None:
    """The console script."""
    app = _app(help="A benchmark harness for knowledge distillation: sweeps, tables, and what is behind every number.")
    for name in COMMANDS:
        app.command(name)(getattr(importlib.import_module(f"harness.{name}"), name))
    _run(app)


def _app(help: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=help, add_completion=False, no_args_is_help=help is not None, pretty_exceptions_enable=False
    )


def _run(app: typer.Typer) -> None:
    from harness.store.files import DiskFull

    try:
        app()
    except (UserError, DiskFull) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except PermissionError as e:
        print(f"error: {e.filename}: no permission", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:  # `harness report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
