"""``python -m harness.report``: the comparison tables of a store, from its records."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import say
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.planning.plan import Planned
    from harness.reporting.comparison import Comparison, Contents
    from harness.store.store import Store


Format = StrEnum("Format", ["md", "tex", "csv", "html"])


def report(
    file: options.SomeSweepFile = None,
    results: options.Results = Path("results"),
    data: options.Data = None,
    set_: options.Set = [],  # noqa: B006
    only: options.Only = [],  # noqa: B006
    format: Annotated[
        Format, typer.Option(help="Format of the table on stdout: Markdown, LaTeX, CSV or HTML.")
    ] = Format.md,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Print the table in a paper's layout: methods by pairs, the best marked, published numbers next to "
            "ours, and the command that trains each cell again.",
        ),
    ] = False,
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the tables in every format and the records as Parquet into this folder, one folder per sweep."
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Draw every figure that the records allow into this folder, as SVG and PDF, one folder per sweep: "
            "accuracy against cost and against the teacher's size, training curves, loss terms, a method's diagnostics."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="For detectors: draw evaluation images with their objects, the teacher's and the students' boxes "
            "into this folder, one PNG per pair in a folder per sweep. The leaderboard shows those in RESULTS/images."
        ),
    ] = None,
    image_count: Annotated[int, typer.Option(min=1, max=100, help="With --images: the number of images.")] = 6,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write a TensorBoard event file for every run with a record into this folder, one folder per run: "
            "curves, learning rate, settings."
        ),
    ] = None,
    run: Annotated[
        list[str],
        typer.Option(metavar="RUN", help="With --tensorboard: only this run (its id or the start of it). Repeatable."),
    ] = [],  # noqa: B006
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Write the sweep's tables, figures, records, settings, environment and commands into this zip file, "
            "to attach to a paper."
        ),
    ] = None,
) -> None:
    """Print comparison tables, or write tables, figures, event files or a bundle to the folder or file you name.

    --out, --figures, --images, --tensorboard and --bundle write files and print their paths instead of a table.
    Runs that have no record yet are counted under the table. The estimated and actual times of the sweeps go to
    stderr.
    """
    from harness.phrases import file_name
    from harness.planning.cost import submissions
    from harness.planning.plan import plan_sweep
    from harness.reporting import protocol_guard
    from harness.reporting.comparison import Contents, load_comparisons
    from harness.reporting.export.tensorboard import write_event_files
    from harness.reporting.tables.table_folder import table_text
    from harness.store import arrow, compaction
    from harness.store.store import Store

    arrow.without_pandas()
    store = Store.at(results)
    if run:
        if tensorboard is None:
            raise UserError("--run goes with --tensorboard")
        run_ids = (store.find(prefix, "--run") for prefix in run)
        print(*write_event_files(store, {file_name(run_id): run_id for run_id in run_ids}, tensorboard), sep="\n")
        return
    planned = plan_sweep(file, results, data, set_, only) if file is not None else None
    if planned is not None:
        planned.say_tuned()
        folder = store.table_folder(planned.name)
        contents = [Contents.of(planned.name, planned.plan).with_tuning_of(folder)]
    elif not (contents := [Contents.read(folder) for folder in store.tables()]):
        raise UserError(f"{results}: no table yet; run a sweep into it, or name a sweep file")
    contents = [content.with_options(baseline, margin) for content in contents]
    for content in contents:
        protocol_guard.refuse_mixed(content.name, content.cells, content.recipe_changes, mix_protocols)
    if len(store.loose_ids()) > compaction.MANY_FILES:
        advice = f"python -m harness.compact --results {results}"
        print(f"many small record files make this slow; {advice} merges them", file=sys.stderr)
    products: list[Iterator[Path]] = []
    if figures is not None:
        products.append(_figures(load_comparisons(contents, store), store, figures))
    if images is not None:
        if planned is None:
            raise UserError("--images draws one sweep's results: name its file")
        products.append(_images(planned, load_comparisons(contents, store), data, image_count, images))
    if tensorboard is not None:
        products.append(_events(contents, store, tensorboard))
    if bundle is not None:
        if planned is None:
            raise UserError("--bundle holds one sweep's results: name its file")
        products.append(_bundle(planned, contents[0], only, mix_protocols, bundle))
    if out is not None:
        products.append(_tables(contents, store, out))
    for path in chain.from_iterable(products):
        print(path)
    if not products:
        for comparison in load_comparisons(contents, store):
            sys.stdout.write(table_text(comparison, f"{'paper' if paper else 'table'}.{format.value}"))
    for content in contents:
        submissions.say_submissions(store, content.name)


def _figures(comparisons: "Iterable[Comparison]", store: "Store", folder: Path) -> Iterator[Path]:
    from harness.reporting.figures import write_figures
    from harness.reporting.tables.table_folder import writing_alone

    for comparison in comparisons:
        out = folder / comparison.contents.name
        with writing_alone(store, out):
            written = write_figures(comparison, store, out)
        yield from written


def _images(
    planned: "Planned", comparisons: "Iterable[Comparison]", data: Path | None, count: int, folder: Path
) -> Iterator[Path]:
    from harness.planning import locate
    from harness.reporting.figures import pictures_of

    if (pictures := pictures_of(planned.info.task)) is None:
        raise UserError(f"{planned.name}: --images draws detections; this is a sweep of {planned.info.task.name}")
    data_folder = locate.dataset_folder(planned.plan.sweep.dataset, locate.data_root(data))
    for comparison in comparisons:
        out = folder / comparison.contents.name
        yield from pictures.write_pictures(comparison, planned.store, data_folder, count, out)


def _events(contents: "list[Contents]", store: "Store", folder: Path) -> Iterator[Path]:
    from harness.reporting.export.tensorboard import event_folders, write_event_files

    run_of = {place: run_id for content in contents for place, run_id in event_folders(content).items()}
    yield from write_event_files(store, run_of, folder)


def _bundle(
    planned: "Planned", contents: "Contents", only: list[str], mix_protocols: bool, file: Path
) -> Iterator[Path]:
    from harness.reporting.export.bundle import write_bundle

    for note in write_bundle(file, contents, planned.plan, planned.store, only, mix_protocols):
        say(note)
    yield file


def _tables(contents: "list[Contents]", store: "Store", folder: Path) -> Iterator[Path]:
    from harness.reporting.tables.table_folder import write_tables

    for content in contents:
        write_tables(content, store, folder / content.name)
        yield folder / content.name


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(report)
