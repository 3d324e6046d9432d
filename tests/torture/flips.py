"""Single bits of a store's files, flipped one at a time: each is noticed, healed or harmless, or its value was lost.

The store is the one in ``tests/data``, written again by today's harness, with every kind of file that a store of
digits holds. Each file is read back as commands read it, and now and then by whole commands.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from harness.errors import UserError
from harness.models.checkpoints import WeightsError
from harness.planning import plan
from harness.planning.cost import probe_results, submissions
from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables import table_folder
from harness.store import checksums, compaction, files, generations, json_files, live_curves, records
from harness.store.store import CONTENTS, Store
from harness.store.transfer_result import PROTOCOL, TransferResult, read_kept
from harness.store.tuning_log import Trial, TuningLog, read_log
from harness.training import checkpoint
from harness.training.distributed.ranks import Ranks
from harness.training.teacher_logits import CachedLogits, WrongLogits
from harness.training.trained_model import trained_model
from slurm.array_jobs import ArrayJob, ArrayJobs
from slurm.excluded_nodes import exclude_node, excluded_nodes
from slurm.queue import Queue, QueuedJob
from tests.support.cli import REPO, run_command
from tests.support.comparisons import invented_id, row
from tests.torture import Outcome

EARLIER = REPO / "tests" / "data" / "earlier_store"
COMMANDS_EVERY = 200  # trials
_ERRORS = (UserError, WeightsError, WrongLogits)
# What may stand in a file without a reader: a note that a check was passed counts by its name.
_UNREAD = ("checks",)


@dataclass(frozen=True)
class Kind:
    """Files that are read alike. ``read`` returns what was read, for comparison."""

    name: str
    paths: list[Path]
    read: Callable[[Path], Any]
    heals: bool = False  # whether None stands for a file that the next command writes again


def trials(folder: Path, random: Random) -> Iterator[Outcome]:
    """Flip a random bit of a random file, read the store and put the bit back, again and again."""
    home = folder / "home"
    kinds = _kinds(home, _written(home))
    _check_coverage(home, kinds)
    every = [(kind, path) for kind in kinds for path in kind.paths]
    before = {path: _read(kind, path) for kind, path in every}
    assert all(what.word == "" for what in before.values()), before
    with contextlib.chdir(home):
        printed = _commands()
        count = 0
        while True:
            kind, path = random.choice(every)
            content = path.read_bytes()
            bit = random.randrange(8 * len(content))
            _write(path, content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
            outcome = _outcome(kind, path, before[path], bit)
            if count % COMMANDS_EVERY == 0 and not outcome.lost and (changed := _changed(printed)):
                outcome = Outcome("lost", f"{path.relative_to(home)}: bit {bit}: {changed}")
            _write(path, content)
            count += 1
            yield outcome


def _write(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:  # also one that is linked
        file.write(content)


@dataclass(frozen=True)
class _Reading:
    """The value that a reader returned, or the word for damage that it noticed."""

    value: Any
    word: str = ""


def _read(kind: Kind, path: Path) -> _Reading:
    json_files.print_note.cache_clear()
    generations._parse_index.cache_clear()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            value = kind.read(path)
    except _ERRORS:
        return _Reading(None, "noticed")
    return _Reading(value, "noticed" if said.getvalue() else "")


def _outcome(kind: Kind, path: Path, before: _Reading, bit: int) -> Outcome:
    after = _read(kind, path)
    if after.word:
        return Outcome(after.word)
    if kind.heals and after.value is None:
        return Outcome("healed")
    if _equal(after.value, before.value):
        return Outcome("harmless")
    return Outcome("lost", f"{kind.name}: {path.name}: bit {bit}: read as another value")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


# the store -----------------------------------------------------------------------------------------------------------


def _written(home: Path) -> Planned:
    """Write the store of an earlier version again, as today's harness writes it, with more of what a store can hold."""
    shutil.copytree(EARLIER, home)
    with contextlib.chdir(home):
        planned = plan_sweep(Path("sweep.yaml"), Path("results"))
    store, runs = planned.store, planned.plan.runs
    (finished,) = store.done_ids()
    (old,) = records.read_records(store, [finished]).to_pylist()
    for folder in set(store.root.glob("runs/*")) - set(map(store.run, runs)):  # of a method's earlier version
        shutil.rmtree(folder)
    store.record(finished).unlink()
    for run_id in runs:
        attempts = store.attempts(run_id)
        (store.run(run_id) / "attempts.jsonl").unlink(missing_ok=True)
        store.write_science(run_id, runs[run_id].science)
        store.write_progress(run_id, **{"stage": "main", "epoch": 1, "epochs": 4, "fraction": 0.25})
        for epoch in (1, 2) if run_id != finished else ():
            live_curves.add_epoch(store, run_id, epoch, {"train_ce": 1.0 / epoch, "test_top1": float("nan")})
        for attempt in attempts or [{"log": "log", "pid": 1, "threads": 1}]:
            store.add_attempt(run_id, **attempt)
    first = dict(old, schema_version=records.SCHEMA_VERSION)
    _write_rows(store, [first, *(_row(i) for i in range(30))])
    compaction.compact(store, 0)
    to_do = [run_id for run_id in runs if run_id != finished]
    _write_rows(store, [_row(100), *(_like(first, run_id, planned) for run_id in to_do[:2])])
    store.write_failure(to_do[-1], "code", "a cause", "details", "log")
    jobs = tuple(QueuedJob.from_sciences({i: runs[i].science}, None) for i in to_do[:3])
    for path in (store.root / "queues").glob("*.json"):
        Queue(str(store.root), jobs, 2, 1, None, {}, None).write(path)
        exclude_node(path, "node1", "its job ended")
    ArrayJobs(store).write(ArrayJob("a-job", str(home), [[finished]], [{"some": "order"}], "12", "someone"))
    for path in (store.root / "estimates").glob("*.json"):
        noted = json.loads(path.read_bytes())
        files.replace_json(path, checksums.seal_value(noted))
    probe_results.ProbeResult(["shape"], "cpu", 1, 1, [0.1, 0.2], 1.0, 1000).write(store)
    cells = checksums.seal_value([vars(cell) for cell in planned.plan.cells[:2]])
    files.replace_json(store.added_seeds("old"), cells)
    trial = Trial("kd", 0, 0, {"weights.kd": 0.9}, ("0" * 16,), 1, 10, 50.0, "done")
    log = TuningLog("old", "top1", "tpe", (1000,), 10, (trial,), (), {"kd": {"weights.kd": [0.9, 1.8]}}, "identity")
    files.replace_json(store.tuning("old"), checksums.seal_value(asdict(log)))
    kept = TransferResult(finished, "0" * 64, "digits", "1" * 16, PROTOCOL, 10, 10, 4, 0.1, 50.0, 60.0, 50.0, True)
    kept.write(store)
    files.replace_json(store.check("ab"), {"run": "label", "at": 1.0})
    logits = _logits(store)
    logits.begin(0, 0, 1, torch.device("cpu"))
    logits(0, torch.arange(20), lambda: torch.randn(20, 10, generator=torch.Generator().manual_seed(0)))
    logits.end()
    table_folder.write_tables(Contents.of(planned.name, planned.plan), store, store.table_folder("old"))
    return planned


def _row(number: int) -> dict[str, Any]:
    curves = [{"epoch": e, "name": "test_top1", "value": number + e / 7} for e in range(5)]
    made = row(invented_id(number), 50.0 + number / 7, 60.0 + number / 7, dataset=f"d{number % 2}", curves=curves)
    return {**made, "schema_version": records.SCHEMA_VERSION}


def _like(first: dict[str, Any], run_id: str, planned: Planned) -> dict[str, Any]:
    science = planned.plan.runs[run_id].science
    return {**first, "run_id": run_id, "science": science.text, "method": science.method.use, "seed": science.seed}


def _write_rows(store: Store, rows: list[dict[str, Any]]) -> None:
    for each in rows:
        assert records.write_record(store, each)


def _logits(store: Store) -> CachedLogits:
    return CachedLogits(store.logits("ab"), 3, 20, 10, Ranks())


# the readers ---------------------------------------------------------------------------------------------------------


def _kinds(home: Path, planned: Planned) -> list[Kind]:
    store = planned.store
    root, contents, tables = store.root, Contents.of(planned.name, planned.plan), store.table_folder("old")
    done = store.done_ids()
    compacted = sorted(path for path in store.compact.rglob("*") if path.is_file() and path.name != "lock")
    trained = [path for path in root.glob("runs/*/student.safetensors") if path.parent.name in done]

    def of_run(read: Callable[[str], Any]) -> Callable[[Path], Any]:
        return lambda path: read(path.parent.name)

    def table(path: Path) -> bool | None:
        return True if table_folder.tables_are_current(contents, store, tables) else None

    return [
        Kind("records", sorted(store.records.iterdir()), lambda path: _rows(store, frozenset([path.stem]))),
        Kind("compacted records", compacted, lambda _: _rows(store, done)),
        Kind("science", sorted(root.glob("runs/*/science.json")), of_run(lambda i: store.read_science(i).text)),
        Kind("progress", sorted(root.glob("runs/*/progress.json")), of_run(store.progress)),
        Kind("attempts", sorted(root.glob("runs/*/attempts.jsonl")), of_run(partial(_attempts, store))),
        Kind("curves", sorted(root.glob("runs/*/curves.jsonl")), of_run(partial(_curves, store)), heals=True),
        Kind("checkpoints", sorted(root.glob("runs/*/checkpoints/*")), lambda p: checkpoint.load_newest(p.parent)),
        Kind("weights", trained, partial(_weights, store)),
        Kind("failures", sorted(root.glob("failures/*.json")), lambda path: store.failure(path.stem)),
        Kind("queues", sorted(root.glob("queues/*.json")), Queue.read),
        Kind(
            "excluded nodes",
            sorted(root.glob("queues/*.nodes")),
            lambda p: excluded_nodes(p.with_name(f"{p.stem}-0.json")),
        ),
        Kind("submissions", sorted(store.submissions.glob("*.json")), lambda _: ArrayJobs(store).read()),
        Kind("estimates", sorted(root.glob("estimates/*.json")), lambda p: submissions.read_submissions(store, p.stem)),
        Kind("probes", sorted(store.probes.glob("*.json")), lambda _: probe_results.read_probe_results(store)),
        Kind("added seeds", sorted(root.glob("added_seeds/*.json")), plan.read_added),
        Kind("tunings", [store.tuning("old")], lambda path: read_log(store, path.stem)),
        Kind("transfers", sorted(store.transfers.glob("*/*.json")), partial(_transfer, store)),
        Kind("logits", sorted(root.glob("logits/*/*")), lambda _: _cached(store)),
        Kind("tables", sorted(path for path in tables.iterdir() if path.name != CONTENTS), table, heals=True),
        Kind("contents", [tables / CONTENTS], lambda path: Contents.read(path.parent)),
    ]


def _check_coverage(home: Path, kinds: list[Kind]) -> None:
    """Assert that every file of the store is of a kind, or has no content that anything depends on."""
    known = {path.resolve() for kind in kinds for path in kind.paths}
    for path in (home / "results").rglob("*"):
        is_read = path.is_file() and not path.name.endswith("lock") and path.parent.name not in _UNREAD
        assert not is_read or path.resolve() in known, path


def _transfer(store: Store, path: Path) -> TransferResult | None:
    return read_kept(store, path.stem, "0" * 64, "digits", "1" * 16)


def _rows(store: Store, run_ids: frozenset[str]) -> Any:
    return sorted(store.done_ids()), records.read_records(store, run_ids).to_pylist()


def _attempts(store: Store, run_id: str) -> list[list[Any]]:
    """Return what commands read of a run's attempts; with the key of its checksum changed, a line has one key more."""
    return [[attempt.get(key) for key in ("log", "host", "pid", "threads", "at")] for attempt in store.attempts(run_id)]


def _curves(store: Store, run_id: str) -> list[str] | None:
    """Return a run's live curves; None if lines are left out, whose values the record has in the end."""
    epochs = live_curves.read_epochs(store, run_id)
    return [repr(epoch) for epoch in epochs] if len(epochs) == 2 else None


def _weights(store: Store, path: Path) -> Any:
    (one,) = records.read_records(store, [path.parent.name]).to_pylist()
    science = store.read_science(path.parent.name)
    return dict(trained_model(science, path, one["weights_sha256"]).state_dict())


def _cached(store: Store) -> Any:
    logits = _logits(store)
    logits.begin(0, 0, 1, torch.device("cpu"))
    logits._checked = set()  # a sample of its batches is computed again, which is not what is tried here
    return logits(0, torch.arange(20), lambda: torch.zeros(20, 10))


# whole commands ------------------------------------------------------------------------------------------------------


def _commands() -> dict[str, tuple[int, str, str]]:
    json_files.print_note.cache_clear()
    generations._parse_index.cache_clear()
    results = {name: run_command(name, *args) for name, *args in (("status", "sweep.yaml"), ("report",), ("verify",))}
    return {name: (result.code, result.out, result.err) for name, result in results.items()}


def _changed(before: dict[str, tuple[int, str, str]]) -> str:
    """Return which command now prints other results without a word, if any."""
    for name, (code, out, err) in _commands().items():
        silent = code == before[name][0] and err == before[name][2]
        if silent and out != before[name][1]:
            return f"{name} prints other results without a word"
    return ""
