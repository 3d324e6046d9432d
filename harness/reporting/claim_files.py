"""The files that follow from a claim and the store's records: its log and its verdict."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.phrases import plural
from harness.reporting.claim_outcomes import ERROR, Outcome, SlopeOutcome
from harness.reporting.claims import CLAIM, CheckedClaim, check_claim, claim_folders
from harness.reporting.escape import escape_markdown
from harness.reporting.statistics import Difference
from harness.reporting.tables.columns import Column, interval_text, spread_text, table_lines
from harness.reporting.tables.formats import markdown_table
from harness.reporting.tables.text import capitalised, epochs, images
from harness.spec.lines import PairNames
from harness.store import files
from harness.store.store import Store

LOG, VERDICT = "log.txt", "verdict.md"


def write_claims(folder: Path, store: Store) -> Iterator[Path]:
    """Write the log and the verdict of each claim in a folder; yield their paths.

    Raises:
        UserError: there is no claim, or one that does not fit the store.
    """
    if not (claims := claim_folders(folder)):
        raise UserError(f"{folder}: no claim: expected folders YYYY-MM-DD-NAME, each with {CLAIM}")
    checked = [(claim, check_claim(claim, store)) for claim in claims]
    for claim, of_claim in checked:
        yield from write_claim(of_claim, claim)


def write_claim(checked: CheckedClaim, folder: Path) -> list[Path]:
    """Write a claim's log and verdict."""
    texts = {folder / LOG: log(checked), folder / VERDICT: verdict(checked)}
    for path, text in texts.items():
        files.replace_text(path, text)
    return list(texts)


def log(checked: CheckedClaim) -> str:
    """Return when, where and by what code the compared runs were trained, and their curves, as their records say."""
    return "".join(f"{line}\n" for line in _log_lines(checked))


def _log_lines(checked: CheckedClaim) -> Iterator[str]:
    comparison = checked.comparison
    curves = ("train_total", f"{comparison.evaluated_on}_{comparison.contents.task.score}")
    for line, run_ids in checked.runs.items():
        for seed, run_id in run_ids.items():
            record = checked.records[run_id]
            versions = ", ".join(f"{name} {version}" for name, version in json.loads(record["versions"]).items())
            changes = " with uncommitted changes" if record["git_dirty"] else ""
            yield f"run {run_id}: {line}, seed {seed}"
            yield f"  {_time(record['started_at'])} to {_time(record['finished_at'])}"
            yield f"  commit {record['git_commit'] or 'unknown'}{changes}"
            yield f"  {record['hardware']}, {plural(record['threads'], 'thread')}; {versions}"
            yield from (f"  {name} by epoch: {text}" for name, text in _curves(record, curves))


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _curves(record: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        points = (point for point in record["curves"] if point["name"] == name)
        yield name, ", ".join(f"{point['epoch']} {point['value']:.6g}" for point in points)


def verdict(checked: CheckedClaim) -> str:
    """Return the verdict on each part of a claim as Markdown, with the numbers that it follows from."""
    statement = escape_markdown(f"Claim: {' '.join(checked.claim.statement.split())}")
    parts = [f"# Verdict: {checked.verdict}\n\n{statement}"]
    parts += [_table(_columns(), checked.outcomes)] if checked.outcomes else []
    parts += [_table(_slope_columns(), checked.slopes)] if checked.slopes else []
    return "\n\n".join(parts) + "\n" + "".join(f"{escape_markdown(note)}\n" for note in _notes(checked))


def _table(columns: list[Column[Any]], outcomes: Sequence[Any]) -> str:
    return markdown_table([tuple(map(escape_markdown, line)) for line in table_lines(columns, outcomes)], names=3)


def _columns() -> list[Column[Outcome]]:
    return [
        Column("teacher > student", lambda o: str(PairNames(o.methods.teacher, o.methods.student))),
        Column("claimed to be better", lambda o: o.methods.better),
        Column("than", lambda o: o.methods.than),
        Column("difference", lambda o: spread_text(o.difference, signed=True)),
        Column("95 % CI", lambda o: interval_text(o.interval, signed=True)),
        Column("p", lambda o: _p_text(o.p)),
        Column("p, Holm", lambda o: f"{o.p_holm:.2g}"),
        Column("verdict", lambda o: o.verdict),
    ]


def _slope_columns() -> list[Column[SlopeOutcome]]:
    return [
        Column("student", lambda o: o.claimed.student),
        Column("claimed to gain more under larger teachers", lambda o: o.claimed.method),
        Column("over", lambda o: o.claimed.over),
        Column("teachers", lambda o: ", ".join(o.line.teachers)),
        Column("points per doubling", lambda o: spread_text(o.line.slope, signed=True)),
        Column("95 % CI, seeds", lambda o: _interval_text(o.line.over_seeds)),
        Column("95 % CI, teachers", lambda o: _interval_text(o.line.over_teachers)),
        Column("p", lambda o: _p_text(o.p)),
        Column("p, Holm", lambda o: f"{o.p_holm:.2g}"),
        Column("verdict", lambda o: o.verdict),
    ]


def _interval_text(test: Difference | None) -> str:
    return interval_text(test.interval, signed=True) if test else ""


def _p_text(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"


def _notes(checked: CheckedClaim) -> Iterator[str]:
    contents, claim = checked.comparison.contents, checked.claim
    yield (
        f"{contents.name}: {contents.shown_dataset}{images(checked.comparison)}, {epochs(contents)}. "
        f"{capitalised(contents.task.shown)} of the last epoch, differences in points, paired by seed, mean ± sample "
        f"std over {plural(len(claim.seeds), 'seed')}."
    )
    if contents.note:
        yield f"Note of the sweep: {' '.join(contents.note.split())}"
    started, finished = (
        f"{pick(record[key] for record in checked.records.values()):%Y-%m-%d}"
        for pick, key in ((min, "started_at"), (max, "finished_at"))
    )
    yield (
        f"Trained from {started} to {finished} on {', '.join(claim.hardware)}, by commit {', '.join(claim.commits)}; "
        f"command: {claim.command}"
    )
    together = "comparisons and slopes" if checked.outcomes and checked.slopes else "comparisons"
    if checked.outcomes:
        yield (
            f"Better: the paired t-test over seeds finds it with p < {ERROR:g} after Holm's correction over the "
            f"claim's {together}; worse: it finds the opposite; otherwise not told apart. The interval is not "
            "corrected."
        )
    if checked.slopes:
        yield (
            "Points per doubling: the slope of the advantage over log2 of the teacher's parameters, mean ± sample std "
            "of the seeds' slopes. p is the greater of two, of t-tests of the slope against 0 over seeds and over "
            f"teachers. Grows: p < {ERROR:g} after Holm's correction over the claim's "
            f"{together if checked.outcomes else 'slopes'}; shrinks: the same of a negative slope; otherwise not told "
            "apart. The intervals are not corrected."
        )
