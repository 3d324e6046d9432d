"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(help="A sweep file, e.g. benchmarks/digits_pairs.yaml.")]
SomeSweepFile = Annotated[Path | None, typer.Argument(help="A sweep file (default: every sweep of the store).")]
Results = Annotated[Path, typer.Option("--results", help="The store: the folder of records and artefacts.")]
Data = Annotated[Path | None, typer.Option("--data", help="The folder of datasets and weights (default: $KD_DATA).")]
Set = Annotated[
    list[str],
    typer.Option("--set", help="Change a key of the sweep file: --set recipe.epochs=10, --set seeds=5. Repeatable."),
]
Only = Annotated[
    list[str],
    typer.Option(
        "--only", help="Select runs: --only method=kd,rekd --only seed=0. Fields: method, teacher, student, seed."
    ),
]
Baseline = Annotated[
    str | None, typer.Option("--baseline", help="The method that all others are compared with (default: student).")
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        min=0.0,
        help="Means that differ by at most this many points of top-1 (or AP) count as equal (default: 0.5).",
    ),
]
MixProtocols = Annotated[
    bool,
    typer.Option(
        "--mix-protocols", help="Print rows of different protocols in one column, marked, instead of refusing them."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
