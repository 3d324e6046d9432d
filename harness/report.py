"""``python -m harness.report``: the comparison tables of a store, from its records."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness import options
from harness.errors import UserError


class Format(StrEnum):
    md = "md"
    tex = "tex"
    csv = "csv"
    html = "html"


def report(
    file: options.SomeSweepFile = None,
    results: options.Results = Path("results"),
    data: options.Data = None,
    set_: options.Set = [],  # noqa: B006
    only: options.Only = [],  # noqa: B006
    format: Annotated[Format, typer.Option(help="What to print on stdout.")] = Format.md,
    out: Annotated[
        Path | None, typer.Option(help="Write every format and the Parquet file here instead, a folder per sweep.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Draw the students' accuracy against their teachers' size here: SVG and PDF, a folder per sweep."
        ),
    ] = None,
) -> None:
    """Print comparison tables, or write them with --out. Runs that have no record yet are counted under the table."""
    from harness.planning import plan_sweep
    from harness.reporting import comparison, publish
    from harness.store import compaction
    from harness.store.store import Store

    store = Store(results.resolve())
    if file is not None:
        planned = plan_sweep(file, results, data, set_, only)
        contents = [comparison.Contents.of(planned.name, planned.plan)]
    else:
        folders = sorted(p.parent for p in store.table_folder("x").parent.glob("*/contents.json"))
        if not folders:
            raise UserError(f"{results}: no table yet; run a sweep into it, or name a sweep file")
        contents = [comparison.Contents.read(folder) for folder in folders]
    if len(store.loose_ids()) > compaction.MANY:
        advice = f"python -m harness.compact --results {results}"
        print(f"many small record files make this slow; {advice} puts them together", file=sys.stderr)
    if figures is not None:
        from harness.reporting.figures import capacity_gap

        for found in comparison.load(contents, store):
            for path in capacity_gap(found, figures / found.contents.name):
                print(path)
    if out is not None:
        for content in contents:
            publish.publish(content, store, out / content.name)
            print(out / content.name)
    elif figures is None:
        for found in comparison.load(contents, store):
            sys.stdout.write(publish.text(found, format.value))


if __name__ == "__main__":
    from harness.cli import run_one

    run_one(report)
