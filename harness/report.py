"""``python -m harness.report``: the comparison tables of a store, from its records."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.store.store import Store


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
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Print the paper's table: methods by pairs, the best marked, published numbers beside ours, and the "
            "command that re-runs each cell.",
        ),
    ] = False,
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    out: Annotated[
        Path | None, typer.Option(help="Write every format and the Parquet file here instead, a folder per sweep.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Draw every figure that the records allow here, SVG and PDF, a folder per sweep: accuracy against "
            "cost and against the teacher's size, training curves, loss terms, a method's diagnostics."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Of detectors: draw images that they are evaluated on here, with objects, the teacher's boxes and the "
            "students', a PNG per pair in a folder per sweep. The leaderboard shows those in RESULTS/images."
        ),
    ] = None,
    image_count: Annotated[int, typer.Option(min=1, max=100, help="With --images: how many.")] = 6,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write an event file for TensorBoard here for every run with a record, a folder each: curves, "
            "learning rate, settings."
        ),
    ] = None,
    run: Annotated[
        list[str],
        typer.Option(metavar="RUN", help="With --tensorboard: only this run (its id, or its start). Repeatable."),
    ] = [],  # noqa: B006
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Pack the sweep's tables, figures, records, settings, environment and commands into this zip file, to "
            "attach to a paper."
        ),
    ] = None,
) -> None:
    """Print comparison tables, or write them and more of a sweep with the options that name a folder or file.

    Runs that have no record yet are counted under the table. What the sweeps were estimated to take, and have taken,
    is told on stderr.
    """
    from harness.console.terminal import say
    from harness.planning.cost import submissions
    from harness.planning.plan import plan_sweep
    from harness.reporting import comparison, protocol_guard
    from harness.reporting.tables import table_folder
    from harness.store import arrow, compaction
    from harness.store.store import Store

    arrow.without_pandas()
    store = Store(results.resolve())
    if run:
        if tensorboard is None:
            raise UserError("--run goes with --tensorboard")
        run_ids = (store.find(prefix, "--run") for prefix in run)
        _write_events(store, {run_id: run_id for run_id in run_ids}, tensorboard)
        return
    planned = None
    if file is not None:
        planned = plan_sweep(file, results, data, set_, only)
        contents = [comparison.Contents.of(planned.name, planned.plan)]
    else:
        if not (folders := store.tables()):
            raise UserError(f"{results}: no table yet; run a sweep into it, or name a sweep file")
        contents = [comparison.Contents.read(folder) for folder in folders]
    contents = [content.asked(baseline, margin) for content in contents]
    for content in contents:
        protocol_guard.refuse_mixed(content.name, content.cells, content.recipe_changes, mix_protocols)
    if len(store.loose_ids()) > compaction.MANY_FILES:
        advice = f"python -m harness.compact --results {results}"
        print(f"many small record files make this slow; {advice} puts them together", file=sys.stderr)
    if figures is not None:
        from harness.reporting import curves
        from harness.reporting.figures import write_figures

        for found in comparison.load_comparisons(contents, store):
            of_runs = curves.load_curves(store, comparison.wanted_runs(found.contents))
            for path in write_figures(found, of_runs, figures / found.contents.name):
                print(path)
    if images is not None:
        if planned is None:
            raise UserError("--images draws one sweep's results: name its file")
        from harness.planning import locate
        from harness.reporting.figures import pictures_of

        if (pictures := pictures_of(planned.info.task)) is None:
            raise UserError(f"{planned.name}: there is no picture of what models do in {planned.info.task.name}")
        data_folder = locate.dataset_folder(planned.plan.sweep.dataset, locate.data_root(data))
        assert data_folder is not None
        for found in comparison.load_comparisons(contents, store):
            for path in pictures.write_pictures(found, store, data_folder, image_count, images / found.contents.name):
                print(path)
    if tensorboard is not None:
        from harness.reporting.export.tensorboard import event_folders

        _write_events(store, {k: v for content in contents for k, v in event_folders(content).items()}, tensorboard)
    if bundle is not None:
        if planned is None:
            raise UserError("--bundle holds one sweep's results: name its file")
        from harness.reporting.export.bundle import write_bundle

        for note in write_bundle(bundle, contents[0], planned.plan, planned.document, store, only, mix_protocols):
            say(note)
        print(bundle)
    if out is not None:
        for content in contents:
            table_folder.write_tables(content, store, out / content.name)
            print(out / content.name)
    elif figures is None and images is None and tensorboard is None and bundle is None:
        for found in comparison.load_comparisons(contents, store):
            sys.stdout.write(table_folder.table_text(found, f"{'paper' if paper else 'table'}.{format.value}"))
    for content in contents:
        for line in submissions.submission_lines(store, content.name):
            say(line)


def _write_events(store: "Store", shown: dict[str, str], folder: Path) -> None:
    from harness.reporting.export import tensorboard

    for path in tensorboard.write_event_files(store, shown, folder):
        print(path)


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(report)
