"""Options that several commands share."""

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(help="A sweep file, e.g. benchmarks/digits_pairs.yaml.")]
SomeSweepFile = Annotated[Path | None, typer.Argument(help="A sweep file (default: every sweep of the store).")]
Results = Annotated[Path, typer.Option("--results", help="The store: the folder of records, logs, weights and tables.")]
Data = Annotated[Path | None, typer.Option("--data", help="The folder of datasets and weights (default: $KD_DATA).")]
Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="Where jobs run: local (this machine), or a SLURM profile: a name in slurm/profiles/ or the path of a "
        "YAML file.",
    ),
]
MaxParallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        min=1,
        help="Most jobs to run at the same time (default: on a cluster, no limit; on this machine, one per GPU or, "
        "without GPUs, one per core up to 8).",
    ),
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Use another value for a key of the sweep file; dots lead to inner keys: --set recipe.epochs=10 "
        "--set seeds=[0,1]. Repeatable.",
    ),
]
Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        help="Only the runs with these values of method, teacher, student or seed: --only method=kd,rekd "
        "--only seed=0. Repeatable; a run must match every field given.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline", help="The method that all others are compared with, by its name in the table (default: student)."
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        min=0.0,
        help="Means that differ by at most this many percentage points of top-1 (or AP) count as equal (default: 0.5).",
    ),
]
MixProtocols = Annotated[
    bool,
    typer.Option(
        "--mix-protocols",
        help="Print a table whose rows follow different protocols (recipes), with marks, instead of refusing it.",
    ),
]
TrackingTool = StrEnum("TrackingTool", ["wandb", "mlflow", "trackio"])
Track = Annotated[
    list[TrackingTool],
    typer.Option(
        "--track",
        metavar="TOOL",
        help="Show every run in this tool while it trains, in RESULTS/tracking and without network: wandb, mlflow or "
        "trackio. Repeatable. docs/tracking.md has more.",
    ),
]
EventFiles = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard", help="Write TensorBoard event files into this folder while the runs train, one folder per run."
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="COMMAND",
        help="Run a command in the shell once when all is done, at the first failure, and when the work is stuck, with "
        "a line that says so as $KD_SUMMARY and as its input (default: the profile's `notify`). More in docs/slurm.md.",
    ),
]
Epoch = Annotated[
    str | None,
    typer.Option(
        "--epoch",
        help="With a run: last (the default) or best, whose weights `sweep --keep-best` has kept.",
    ),
]
OwnMethod = Annotated[
    str | None,
    typer.Option(
        "--own-method",
        metavar="MODULE:CLASS",
        help="The run's method, if it is your own and part of the model; its module is imported.",
    ),
]
OwnModel = Annotated[
    list[str],
    typer.Option(
        "--own-model",
        metavar="MODULE:NAME",
        help="The run's student or teacher, if it is your own; its module is imported. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def command_for(name: str, file: Path | None, results: Path, set_: Sequence[str] = (), only: Sequence[str] = ()) -> str:
    """Return the command line of another command, to be copied into a shell: for the same sweep, or the same store."""
    words = ["python", "-m", f"harness.{name}", *([str(file)] if file else [])]
    words += [word for change in set_ for word in ("--set", change)]
    words += [word for selection in only for word in ("--only", selection)]
    words += [] if results == Path("results") else ["--results", str(results)]
    return shlex.join(words)
