"""Claims that a method is better, or gains more under larger teachers: what a person states and the records say.

A claim is a folder, ``YYYY-MM-DD-NAME``, whose ``claim.yaml`` a person writes. The other two files follow from it and
from the store, and ``harness.verify`` compares them byte for byte.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.errors import UserError, unknown
from harness.reporting.claim_outcomes import ClaimedSlope, ComparedMethods, Outcome, SlopeOutcome, outcomes_of
from harness.reporting.comparison import Comparison, Contents, Row, load_comparisons
from harness.reporting.gap_slopes import LEAST, sizes_of
from harness.spec.lines import Line
from harness.spec.recipe import Closed
from harness.spec.schema import Name
from harness.spec.validation import validate_model
from harness.spec.yamlfile import Document, KeyPath, read_yaml
from harness.store import files, record_stream
from harness.store.store import Store

CLAIM = "claim.yaml"
_FOLDER = re.compile(r"(\d{4}-\d\d-\d\d)-[A-Za-z0-9][A-Za-z0-9_.+-]*")
_COLUMNS = (
    "run_id", "git_commit", "git_dirty", "hardware", "threads", "versions", "started_at", "finished_at", "curves",
)  # fmt: skip
Text = Annotated[str, Field(min_length=1)]


class Claim(Closed):
    """The content of ``claim.yaml``."""

    statement: Text
    table: Name  # the sweep's name in the store
    sweep: Text  # its file
    command: Text
    commits: tuple[str, ...]  # of the records of the compared runs
    hardware: tuple[str, ...]  # as these records name it
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]  # all that the table has of the compared methods
    comparisons: tuple[ComparedMethods, ...] = ()
    slopes: tuple[ClaimedSlope, ...] = ()
    test: Literal["paired t-test over seeds, Holm over the comparisons, p < 0.01"]  # with ``ERROR``

    @model_validator(mode="after")
    def _claims_something(self) -> "Claim":
        if not self.comparisons and not self.slopes:
            raise ValueError("expected comparisons or slopes, or both")
        return self


@dataclass(frozen=True)
class CheckedClaim:
    """A claim with what the store's records say of it."""

    claim: Claim
    comparison: Comparison
    outcomes: tuple[Outcome, ...]
    slopes: tuple[SlopeOutcome, ...]
    runs: Mapping[Line, Mapping[int, str]]  # by seed, the run id
    records: Mapping[str, Mapping[str, Any]]  # by run id

    @property
    def verdict(self) -> Literal["holds", "contradicted", "not told apart"]:
        """The weakest of the verdicts: a claim of several parts holds if all of them do."""
        verdicts = {o.verdict for o in self.outcomes} | {o.verdict for o in self.slopes}
        if verdicts & {"worse", "shrinks"}:
            return "contradicted"
        return "not told apart" if "not told apart" in verdicts else "holds"


def claim_folders(folder: Path) -> list[Path]:
    return [path for path in files.entries(folder) if path.is_dir()]


def check_claim(folder: Path, store: Store) -> CheckedClaim:
    """Compute what the store's records say of the claim in a folder.

    Raises:
        UserError: the claim is wrong by itself, or not about this store's records; the message names the key.
    """
    _check_name(folder)
    document = read_yaml(folder / CLAIM)
    claim = validate_model(Claim, document.data, document)
    _check_alone(folder, claim, document)
    contents = _contents(claim, document, store)
    (comparison,) = load_comparisons([contents], store)
    rows = {row.line: row for row in comparison.rows}
    compared = {line: rows[line] for line in _lines(claim, contents, document)}
    _check_seeds(claim, compared, contents, document)
    cells = contents.lines()
    runs = {line: {cell.seed: cell.run_id for cell in cells[line]} for line in compared}
    _check_other_tables(claim, runs, store, document)
    records = _records(store, [run_id for of_line in runs.values() for run_id in of_line.values()])
    for key, column in (("commits", "git_commit"), ("hardware", "hardware")):
        _check_provenance(document, key, getattr(claim, key), {r[column] or "unknown" for r in records.values()})
    return CheckedClaim(
        claim, comparison, *outcomes_of(claim.comparisons, claim.slopes, rows, comparison), runs, records
    )


def _check_name(folder: Path) -> None:
    match = _FOLDER.fullmatch(folder.name)
    try:
        date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise UserError(f"{folder}: expected a name such as 2026-11-30-kd-above-student, with its date") from None


def _check_alone(folder: Path, claim: Claim, document: Document) -> None:
    """Refuse a second claim about a table: Holm's correction would not cover both."""
    for other in claim_folders(folder.parent):
        if other.name != folder.name and read_yaml(other / CLAIM).data.get("table") == claim.table:
            text = f"{other.name} claims something about it too; put all comparisons of a table into one claim"
            raise document.mistake(("table",), text)


def _contents(claim: Claim, document: Document, store: Store) -> Contents:
    tables = {path.name: path for path in store.tables()}
    if claim.table not in tables:
        raise document.mistake(("table",), unknown("table of this store", claim.table, tables))
    contents = Contents.read(tables[claim.table])
    if claim.sweep != contents.file:
        raise document.mistake(("sweep",), f"the table {claim.table} is of {contents.file}, found {claim.sweep}")
    return contents


def _lines(claim: Claim, contents: Contents, document: Document) -> list[Line]:
    """Return the compared lines, each once; refuse those that the table lacks, and those of unlike protocols."""
    compared: dict[KeyPath, Sequence[Line]] = {}
    for i, methods in enumerate(claim.comparisons):
        _check_names(("comparisons", i), methods, ("better", "than"), contents, document)
        compared["comparisons", i] = methods.lines
    for i, slope in enumerate(claim.slopes):
        place: KeyPath = ("slopes", i)
        known = _check_names(place, slope, ("method", "over"), contents, document)
        teachers = [line.teacher for line in known if line.method == slope.method]
        both = [[Line(t, slope.student, method) for method in (slope.method, slope.over)] for t in teachers]
        compared[place] = [line for lines in both if set(lines) <= set(known) for line in lines]
        if len(set(sizes_of(line.teacher for line in compared[place]).values())) < LEAST:
            raise document.mistake(place, f"a slope needs both methods under {LEAST} teachers of different known sizes")
    unlike = {change.line: change.change for change in contents.recipe_changes if change.unlike}
    for place, lines in compared.items():
        protocols = {unlike.get(line, "the table's"): line.method for line in reversed(lines)}
        if len(protocols) > 1:
            text = "; ".join(f"{method}: {protocol}" for protocol, method in reversed(protocols.items()))
            raise document.mistake(place, f"different protocols: {text}")
    return list(dict.fromkeys(line for lines in compared.values() for line in lines))


def _check_names(
    place: KeyPath, part: ComparedMethods | ClaimedSlope, methods: tuple[str, str], contents: Contents,
    document: Document,
) -> list[Line]:  # fmt: skip
    """Return the table's lines of the stated models; refuse a name that it lacks, and a method against itself."""
    known = list(contents.lines())
    for key in ("teacher", "student"):
        if (name := getattr(part, key, None)) is None:  # a slope is over all teachers
            continue
        if name not in (names := {getattr(line, key) for line in known}):
            raise document.mistake((*place, key), unknown(f"{key} of {contents.name}", name, names))
        known = [line for line in known if getattr(line, key) == name]
    for key in methods:
        if (name := getattr(part, key)) not in (names := {line.method for line in known}):
            raise document.mistake((*place, key), unknown(f"method of {contents.name}", name, names))
    first, second = (getattr(part, key) for key in methods)
    if first == second:
        raise document.mistake((*place, methods[1]), f"expected another method than {first}")
    return known


def _check_seeds(claim: Claim, rows: Mapping[Line, Row], contents: Contents, document: Document) -> None:
    for line, cells in contents.lines().items():
        if line not in rows:
            continue
        if (seeds := sorted(cell.seed for cell in cells)) != sorted(claim.seeds):
            text = f"a claim counts all seeds of its table; {line} has {_listed(seeds)}, found {_listed(claim.seeds)}"
            raise document.mistake(("seeds",), text)
        if missing := [seed for seed in seeds if seed not in rows[line].by_seed]:
            raise document.mistake(("seeds",), f"{line}: no result in this store at {_listed(missing)}")


def _check_other_tables(claim: Claim, runs: Mapping[Line, Mapping[int, str]], store: Store, document: Document) -> None:
    """Refuse a table of chosen seeds: one of a compared line of which another table of the store has more."""
    for path in store.tables():
        try:
            others = [{cell.run_id for cell in cells} for cells in Contents.read(path).lines().values()]
        except UserError:  # a damaged one is told by itself
            continue
        for line, of_line in runs.items():
            own = set(of_line.values())
            if any(other & own and other - own for other in others):
                text = f"a claim counts all seeds; the table {path.name} has more of {line}: make it about that one"
                raise document.mistake(("seeds",), text)


def _check_provenance(document: Document, key: str, stated: Iterable[str], recorded: set[str]) -> None:
    if set(stated) != recorded:
        text = f"the records have {_listed(sorted(recorded))}, found {_listed(stated)}"
        raise document.mistake((key,), text)


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"


def _records(store: Store, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    tables = record_stream.stream_records(store, run_ids, _COLUMNS)
    return {record["run_id"]: record for table in tables for record in table.to_pylist()}
