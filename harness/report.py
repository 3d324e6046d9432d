"""``python -m harness.report``: the comparison tables of a store, from its records."""

import json
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


Format = StrEnum("Format", ["terminal", "md", "tex", "csv", "html"])


def report(
    file: options.SomeSweepFile = None,
    results: options.Results = Path("results"),
    data: options.Data = None,
    set_: options.Set = [],  # noqa: B006
    only: options.Only = [],  # noqa: B006
    format: Annotated[
        Format | None,
        typer.Option(
            help="Format of the table on stdout: fitted to a terminal, Markdown, LaTeX, CSV or HTML (default: terminal "
            "on a terminal, else md).",
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Print the table in a paper's layout: methods by pairs, the best marked, published numbers next to "
            "ours, and the command that trains each cell again.",
        ),
    ] = False,
    settings: Annotated[
        bool,
        typer.Option("--settings", help="Print each line's hyper-parameters and loss weights under the table."),
    ] = False,
    gap: Annotated[
        bool,
        typer.Option(
            "--gap",
            help="Print how each method's gain changes with the teacher's size, for students with three teachers or "
            "more, and whether rekd's advantage over each other method grows. With --out: also write it, as gap.md.",
        ),
    ] = False,
    efficiency: Annotated[
        bool,
        typer.Option(
            "--efficiency",
            help="Print the time, memory, cores and GPUs that a sweep's jobs asked for and used, from SLURM's "
            "accounting or else the records, and a profile's lines for next time: the time that covers 9 of 10 "
            "finished jobs, and the most memory and cores, plus 25 % each; none for fewer than three jobs.",
        ),
    ] = False,
    json_: Annotated[
        bool,
        typer.Option("--json", help="With --gap or --efficiency: print JSON on stdout and nothing else."),
    ] = False,
    fidelity: Annotated[
        bool,
        typer.Option(
            "--fidelity",
            help="Print how closely students follow their teachers, on evaluated and on training images: agreement, "
            "KL divergence, calibration error. With --out: write this table too.",
        ),
    ] = False,
    columns: Annotated[
        list[str],
        typer.Option(
            metavar="NAMES",
            help="Print only these columns of the first table, by the names in its head and in this order: "
            "--columns 'top-1 last,seeds'. Repeatable.",
        ),
    ] = [],  # noqa: B006
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    draw: Annotated[
        bool,
        typer.Option(
            "--draw",
            help="Draw each method's gain over the baseline, with its interval, in plain characters: a line per method "
            "and pair, in 80 columns.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the tables in every format and the records as Parquet into this folder, one folder per sweep."
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            help="Draw every figure that the records allow into this folder, as SVG, PDF and PNG, one folder per "
            "sweep: accuracy against cost, the teacher's size and agreement with the teacher, training curves, loss "
            "terms times their weights, a method's diagnostics."
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
    claims: Annotated[
        Path | None,
        typer.Option(
            help="Write the log and the verdict of every claim in this folder, each in a folder with a claim.yaml, "
            "from the store's tables and records.",
        ),
    ] = None,
) -> None:
    """Print comparison tables, or write tables, figures, event files or a bundle to the folder or file you name.

    Example: python -m harness report benchmarks/digits_pairs.yaml --format tex

    --out, --figures, --images, --tensorboard, --bundle and --claims write files and print their paths instead of a
    table. Runs that have no record yet are counted under the table. The estimated and actual times of the sweeps go
    to stderr.
    """
    from harness.phrases import file_name
    from harness.planning.cost import submissions
    from harness.planning.plan import plan_sweep
    from harness.reporting import protocol_guard
    from harness.reporting.claim_files import write_claims
    from harness.reporting.comparison import Contents, load_comparisons
    from harness.reporting.export.tensorboard import write_event_files
    from harness.reporting.tables.printed_table import print_columns, print_table
    from harness.store import arrow, compaction
    from harness.store.store import Store

    arrow.without_pandas()
    if paper and fidelity:
        raise UserError("--paper and --fidelity are two tables: leave one of them out")
    if columns and (paper or gap or claims or run):
        raise UserError("--columns chooses of the first table, or with --fidelity of that one: leave out the others")
    store = Store.at(results) if file is not None else Store.existing(results)
    if draw and (paper or gap or fidelity or claims is not None):
        raise UserError("--draw prints a drawing: give it without --paper, --gap, --fidelity and --claims")
    if json_ and not (gap or efficiency):
        raise UserError("--json goes with --gap and --efficiency")
    if gap and (paper or fidelity or settings or format not in (None, Format.terminal, Format.md)):
        others = "--paper, --fidelity, --settings and other formats"
        raise UserError(f"--gap prints Markdown, a terminal's table, or JSON with --json: give it without {others}")
    if format is None:
        format = Format.terminal if sys.stdout.isatty() else Format.md
    if settings and (paper or fidelity or columns or draw or format not in (Format.terminal, Format.md)):
        raise UserError("--settings goes with the table of a terminal and of Markdown: leave out what prints another")
    if claims is not None:
        if file is not None or set_ or only:
            raise UserError("--claims reads the store's tables: give it without a sweep file, --set and --only")
        layouts, files = (paper, fidelity, settings, gap), (out, figures, images, tensorboard, bundle)
        if any((*layouts, run, baseline, margin, mix_protocols, *files)):
            raise UserError("--claims prints no table and writes nothing else: give it with --results alone")
        for path in write_claims(claims, store):
            print(path)
        return
    if efficiency:
        tables = (paper, settings, gap, fidelity, columns, baseline, margin, mix_protocols, draw, run)
        if file is None or any((*tables, out, figures, images, tensorboard, bundle)):
            raise UserError("--efficiency is about one sweep's jobs: name its file, and print nothing else")
        if format not in (Format.terminal, Format.md):
            raise UserError("--efficiency prints Markdown, a terminal's table, or JSON with --json")
        _print_efficiency(plan_sweep(file, results, data, set_, only), json_, format is Format.terminal)
        return
    if run:
        if tensorboard is None:
            raise UserError("--run goes with --tensorboard")
        run_ids = (store.find(prefix, "--run") for prefix in run)
        print(*write_event_files(store, {file_name(run_id): run_id for run_id in run_ids}, tensorboard), sep="\n")
        return
    if file is None and (set_ or only):
        raise UserError("--set and --only change or select the runs of a sweep file: name the file")
    planned = plan_sweep(file, results, data, set_, only) if file is not None else None
    if planned is not None:
        planned.say_missing_store()
        planned.say_tuned()
        folder = store.table_folder(planned.name)
        contents = [Contents.of(planned.name, planned.plan).with_tuning_of(folder)]
    elif not (contents := [Contents.read(folder) for folder in store.tables()]):
        raise UserError(f"{results}: no table yet; run a sweep first, or name a sweep file")
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
        products.append(_tables(contents, store, out, fidelity))
        if gap:
            products.append(_gaps(load_comparisons(contents, store), store, out))
    if columns and products:
        raise UserError("--columns changes what is printed: give it without what writes files")
    if json_ and products:
        raise UserError("--json prints nothing but the gap: give it without what writes files")
    for path in chain.from_iterable(products):
        print(path)
    if gap and out is None:
        _print_gaps(load_comparisons(contents, store), json_, format is Format.terminal)
    elif draw:
        _print_charts(load_comparisons(contents, store), titled=planned is None)
    elif columns:
        print_columns(load_comparisons(contents, store), columns, format.value, fidelity, titled=planned is None)
    elif not products:
        layout = "paper" if paper else "fidelity" if fidelity else "table"
        for i, comparison in enumerate(load_comparisons(contents, store)):
            print("\n" * (i > 0), end="")
            print_table(comparison, store, f"{layout}.{format.value}", settings, titled=planned is None)
    for content in contents:
        submissions.say_submissions(store, content.name, content.run_ids())


def _print_charts(comparisons: "Iterable[Comparison]", titled: bool) -> None:
    """Print a drawing of each sweep. ``titled``: with the sweep's name, as it stands among others."""
    from harness.reporting.figures.gain_chart import fitted_chart

    if not (charts := [chart for comparison in comparisons if (chart := fitted_chart(comparison, titled))]):
        raise UserError("--draw: no pair has results of a method and of the baseline yet")
    print("\n".join(charts), end="")


def _figures(comparisons: "Iterable[Comparison]", store: "Store", folder: Path) -> Iterator[Path]:
    from harness.reporting.figures import write_figures
    from harness.reporting.tables.table_folder import writing_alone

    for comparison in comparisons:
        out = folder / comparison.contents.name
        with writing_alone(store, out):
            written = write_figures(comparison, store, out)
        yield from written


def _print_gaps(comparisons: "Iterable[Comparison]", json_: bool, as_terminal: bool) -> None:
    from harness.reporting.tables.gap import gap_dict, gap_tables
    from harness.reporting.tables.printed_table import print_gap

    if json_:
        print(json.dumps({comparison.contents.name: gap_dict(comparison) for comparison in comparisons}))
        return
    with_gap = [tables for comparison in comparisons if (tables := list(gap_tables(comparison)))]
    if not with_gap:
        raise UserError("--gap needs a student with results under three teachers of different known sizes")
    for i, tables in enumerate(with_gap):
        print("\n" * (i > 0), end="")
        print_gap(tables, as_terminal)


def _print_efficiency(planned: "Planned", json_: bool, as_terminal: bool) -> None:
    from harness.planning.job_uses import job_uses
    from harness.reporting.efficiency import classes, efficiency_dict
    from harness.reporting.tables.printed_table import print_efficiency

    planned.say_missing_store()
    jobs, not_answered = job_uses(planned)
    groups = classes(jobs)
    if json_:
        print(json.dumps({"sweep": planned.name, "not_answered": not_answered, **efficiency_dict(groups)}))
    elif groups:
        print_efficiency(groups, not_answered, as_terminal)
    else:
        raise UserError(f"--efficiency: no job of {planned.name} has ended yet")


def _gaps(comparisons: "Iterable[Comparison]", store: "Store", folder: Path) -> Iterator[Path]:
    from harness.reporting.tables.table_folder import write_gap

    for comparison in comparisons:
        if path := write_gap(comparison, store, folder / comparison.contents.name):
            yield path


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


def _tables(contents: "list[Contents]", store: "Store", folder: Path, fidelity: bool) -> Iterator[Path]:
    from harness.reporting.tables.table_folder import write_fidelity, write_tables

    for content in contents:
        comparison = write_tables(content, store, folder / content.name)
        if fidelity:
            write_fidelity(comparison, store, folder / content.name)
        yield folder / content.name


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(report)
