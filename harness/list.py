"""``python -m harness.list``: what a sweep file can name."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.console import options
from harness.phrases import plural

if TYPE_CHECKING:
    from harness.spec.listing import Entry

WIDE = 10_000  # columns where nobody looks: a line for each entry


def list(
    kind: Annotated[
        str | None, typer.Argument(help="methods, models, datasets or recipes (default: how many there are).")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of them, with all that is known of it, or a part of several names.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """List the methods, models, datasets and recipes that a sweep file can name.

    Models of timm and torchvision are listed where a part of their names is given.

    Examples:

    \b
    python -m harness list methods
    python -m harness list methods kd
    python -m harness list models vit_tiny
    """
    from harness.spec import listing

    if kind is None:
        counts = {kind: len(listing.entries(kind)) for kind in listing.LISTINGS}
        print(json.dumps(counts) if json_ else "\n".join(f"{k:<10}{n:>4}" for k, n in counts.items()))
        return
    found = listing.entries(kind, name)
    if json_:
        print(json.dumps([asdict(entry) for entry in found]))
        return
    print("\n".join(_lines(found)))
    if name is not None and len(found) == 1:
        print("".join(f"{line}\n" for line in _details(found[0].details)), end="")
    elif sys.stdout.isatty():
        print(f"\n{plural(len(found), 'entry', 'entries')}; all of one: python -m harness.list {kind} NAME")


def _lines(found: "Iterable[Entry]") -> Iterable[str]:
    """Return a paragraph for each entry: its name, and its summary beside it."""
    found = tuple(found)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    margin = min(max(len(entry.name) for entry in found), 32) + 2
    for entry in found:
        name = entry.name.ljust(margin)
        yield textwrap.fill(name + entry.summary, columns, subsequent_indent=" " * margin, break_long_words=False)


def _details(details: dict[str, Any]) -> Iterable[str]:
    for key, value in details.items():
        if isinstance(value, dict):
            yield f"  {key}:"
            yield from (f"    {k}: {json.dumps(v)}" for k, v in value.items())
        elif value not in ([], ()):
            are_words = isinstance(value, tuple | [].__class__) and all(isinstance(v, str) for v in value)
            text = ", ".join(value) if are_words else json.dumps(value)
            yield f"  {key}: {text}"


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(list)
