"""The content of the leaderboard's page, as JSON data. The same records give the same data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import UserError
from harness.reporting import comparison, curves, figures, protocol_guard
from harness.reporting.comparison import Contents, Spread
from harness.reporting.figures.style import COLUMN, render
from harness.reporting.leaderboard import entries as leaderboard
from harness.reporting.leaderboard.dataset_labels import dataset_labels
from harness.reporting.leaderboard.entries import COLUMNS, LeaderboardEntry, Protocol
from harness.reporting.leaderboard.failures import causes
from harness.reporting.leaderboard.pairs import PairGroup, RowSettings, pair_groups, recipe_differences
from harness.reporting.leaderboard.run_details import COLUMNS as DETAILS
from harness.reporting.leaderboard.run_details import WHOLE, chunks_of, details, number
from harness.reporting.statistics import ERROR
from harness.spec.lines import grouped
from harness.store import files, records
from harness.store.schema import SCHEMA
from harness.store.store import Store
from harness.store.tuning_log import read_log

MOST_SWEEPS = 12  # whose figures the page has
MOST_IMAGE_BYTES = 8_000_000  # of a picture: with a larger one the page would be slow to open
Data = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    caption: str
    svg: bytes
    wide: bool  # as wide as both columns of a two-column page


@dataclass(frozen=True)
class Images:
    """A picture that ``report --images`` has drawn for a pair of a sweep."""

    sweep: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Board:
    overview: Data  # protocols, groups, lines, failures
    chunks: tuple[Data, ...]  # line id -> its runs; a line says which chunk has them, if any
    figures: Mapping[str, Sequence[Picture]]  # by sweep, the most recently changed first
    figures_note: str  # names the sweeps without figures
    images: tuple[Images, ...]  # a line refers to those of its pair by their indices


def build_board(store: Store) -> Board:
    """Read a store's records, its failures and the contents of its tables.

    Raises:
        UserError: a damaged record.
    """
    run_ids = store.done_ids()
    whole = len(run_ids) <= WHOLE
    table = records.read_records(store, run_ids, SCHEMA.names if whole else COLUMNS)
    contents, unread = _tables(store)
    teachers = frozenset(run_id for content in contents for cell in content.cells for run_id in cell.needed_runs)
    entries = leaderboard.leaderboard_entries(table, _sweep_entries(contents), teachers)
    positions = {line.id: i for i, line in enumerate(entries)}
    groups = pair_groups(entries, leaderboard.ambiguous_names(entries))
    settings = {line_id: own for group in groups for line_id, own in group.settings.items()}
    trials, damaged = _trials(store, entries)
    chunks = chunks_of(entries)
    chunk_of = {line.id: i for i, chunk in enumerate(chunks) for line in chunk}
    held = {run_id for chunk in chunks for line in chunk for run_id in line.run_ids}
    drawn, note = _figures(store, contents, table)
    images, of_run = _images(store, contents)
    newest = pc.max(table.column("finished_at")).as_py()
    return Board(
        overview={
            "newest": (newest or datetime.min).isoformat(" ", "minutes")[:16],
            "runs": len(table),
            "held": len(held),
            "unread": unread + damaged,
            "protocols": _protocols(entries, dataset_labels(entries, contents), recipe_differences(entries)),
            "groups": [_group(group, positions) for group in groups],
            "lines": [
                _line(line, chunk_of.get(line.id), settings.get(line.id), line.id in trials, of_run) for line in entries
            ],
            "quantiles": _quantiles(entries),
            "failures": causes(store, contents, entries, _retried(table)),
        },
        chunks=details(chunks, table if whole else records.read_records(store, held, DETAILS)),
        figures=drawn,
        figures_note=note,
        images=images,
    )


def _tables(store: Store) -> tuple[list[Contents], list[str]]:
    """Return the contents of the store's tables, and the names of damaged ones, which do not hide the rest."""
    contents, unread = [], []
    for folder in store.tables():
        try:
            contents.append(Contents.read(folder))
        except UserError:
            unread.append(folder.name)
    return contents, unread


def _sweep_entries(contents: Iterable[Contents]) -> dict[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for content in contents:
        for cell in content.cells:
            entries.setdefault(cell.run_id, []).append(f"{content.name}: {cell.method}")
    return entries


def _protocols(
    entries: Iterable[LeaderboardEntry], labels: Mapping[str, str], recipes: Mapping[str, Sequence[tuple[str, str]]]
) -> Data:
    protocols = {line.protocol.id: line.protocol for line in entries}.values()
    ordered = sorted(protocols, key=lambda p: (p.dataset, p.held_out, p.label, p.id))
    return {p.id: _protocol(p, labels.get(p.id, p.dataset), recipes[p.id]) for p in ordered}


def _protocol(p: Protocol, dataset: str, recipe: Sequence[tuple[str, str]]) -> Data:
    scores = {"score": p.task.score, "shown": p.task.shown, "metrics": list(p.task.metrics)}
    return {"dataset": dataset, "label": p.label, "recipe": list(recipe), **scores}


def _trials(store: Store, entries: Iterable[LeaderboardEntry]) -> tuple[set[str], list[str]]:
    """Return the entries that are trials of tunings, which no table has, and the names of damaged tunings' logs."""
    runs: set[str] = set()
    damaged = []
    for path in files.entries(store.all_tunings, "*.json"):
        try:
            runs.update(run_id for trial in read_log(store, path.stem).trials for run_id in trial.run_ids)
        except UserError:
            damaged.append(f"tuning {path.stem}")
    own = (line for line in entries if runs and line.protocol.held_out and not line.sweeps)
    return {line.id for line in own if line.science.recipe.stop_epoch or runs.issuperset(line.run_ids)}, damaged


def _group(group: PairGroup, positions: Mapping[str, int]) -> Data:
    return {
        "protocol": group.protocol.id,
        "teacher": group.teacher,
        "student": group.student,
        "teacher_score": number(group.teacher_score),
        "teacher_runs": list(group.teacher_runs),
        "baseline": positions[group.baseline.id] if group.baseline else None,
        "lines": [positions[line.id] for line in group.entries],
    }


def _line(
    line: LeaderboardEntry, chunk: int | None, settings: RowSettings | None, trial: bool, images: Mapping[str, set[int]]
) -> Data:
    """Return an entry. ``settings``: None for a teacher; ``images``: run id -> its pictures."""
    return {
        "id": line.id,
        "chunk": chunk,
        "protocol": line.protocol.id,
        "method": line.science.method.use,
        "names": list(dict.fromkeys(name.partition(": ")[2] for name in line.sweeps)),
        "differing": list(settings.differing.items()) if settings else [],
        "settings": list(settings.changed.items()) if settings else [],
        "sweeps": list(line.sweeps),
        "runs": list(line.run_ids),
        "teaches": line.teaches,
        "trial": trial,
        "rank": line.rank,
        "standing": line.standing,
        "by_seed": [list(line.by_seed), [number(score) for score in line.by_seed.values()]],
        "last": _spread(line.last),
        "best": _spread(line.best),
        "to_baseline": _spread(line.to_baseline),
        "to_reference": _spread(line.to_reference),
        "hours": number(line.cost.hours if line.cost else None),
        "unit": line.cost.unit if line.cost else None,
        "hardware": line.cost.hardware if line.cost else None,
        "per_hour": number(line.per_hour),
        "diverged": line.diverged,
        "warnings": line.warnings,
        "images": sorted(set().union(*(images.get(run_id, ()) for run_id in line.run_ids))),
    }


def _quantiles(entries: Iterable[LeaderboardEntry]) -> list[float]:
    """Return Student's t for 95 % intervals by degrees of freedom, from 2 on, as far as the page needs them."""
    from scipy.special import stdtrit

    most = max((len(line.by_seed) for line in entries), default=0)
    return [round(float(stdtrit(degrees, 1 - ERROR / 2)), 6) for degrees in range(2, most)]


def _retried(table: pa.Table) -> list[str]:
    return table.filter(pc.greater(table.column("attempts"), 1)).column("run_id").to_pylist()


def _figures(store: Store, contents: Sequence[Contents], table: pa.Table) -> tuple[dict[str, list[Picture]], str]:
    """Return the figures of the sweeps with the newest records, and a note on those left out."""
    if len(table) > WHOLE:
        return {}, f"None, as this store has more than {WHOLE:,} runs."
    if find_spec("matplotlib") is None:
        return {}, "None: they need matplotlib, pip install 'kd-harness[figures]'."
    finished = dict(zip(*(table.column(name).to_pylist() for name in ("run_id", "finished_at")), strict=True))
    newest = {c: max(at) for c in contents if (at := [finished[x.run_id] for x in c.cells if x.run_id in finished])}
    alike = [c for c in newest if _one_protocol(c)]
    order = sorted(alike, key=lambda c: (newest[c], c.name), reverse=True)
    shown, rest = order[:MOST_SWEEPS], len(order[MOST_SWEEPS:])
    drawn = {c.name: _drawn(store.root, c, frozenset(c.run_ids() & finished.keys())) for c in shown}
    notes = []
    if rest:
        notes.append(f"Drawn for the {len(shown)} sweeps last added to; {rest} more have tables in this store.")
    if mixed := sorted(c.name for c in newest.keys() - set(alike)):
        notes.append(f"Not drawn, as their lines are of unlike protocols: {', '.join(mixed)}.")
    return drawn, " ".join(notes)


def _images(store: Store, contents: Iterable[Contents]) -> tuple[tuple[Images, ...], dict[str, set[int]]]:
    """Return the pictures in the store, and run id -> the indices of those of the run's pair."""
    images: list[Images] = []
    of_run: dict[str, set[int]] = {}
    for content in (c for c in contents if store.images(c.name).is_dir()):
        if (pictures := figures.pictures_of(content.task)) is None:
            continue
        for pair, cells in grouped(content.cells, lambda cell: cell.pair).items():
            path = store.images(content.name) / f"{pictures.name(*pair)}.png"
            if path.is_file() and path.stat().st_size <= MOST_IMAGE_BYTES:
                for cell in cells:
                    of_run.setdefault(cell.run_id, set()).add(len(images))
                images.append(Images(content.name, pictures.caption(*pair), path.read_bytes()))
    return tuple(images), of_run


def _one_protocol(contents: Contents) -> bool:
    try:
        protocol_guard.refuse_mixed(contents.name, contents.cells, contents.recipe_changes, mix=False)
    except UserError:
        return False
    return True


@lru_cache(maxsize=4 * MOST_SWEEPS)  # ``leaderboard --watch`` draws only the sweeps that have changed
def _drawn(root: Path, contents: Contents, having: frozenset[str]) -> list[Picture]:
    store = Store(root)
    compared, of_runs = next(comparison.load_comparisons([contents], store)), curves.load_curves(store, having)
    drawings = figures.drawings(compared, of_runs)
    return [Picture(d.caption, render(d, "svg")["svg"], d.size[0] > COLUMN) for d in drawings]


def _spread(spread: Spread | None) -> list[Any] | None:
    return None if spread is None else [number(spread.mean), number(spread.std), spread.n]
