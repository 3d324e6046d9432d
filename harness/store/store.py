"""A store's paths and the state of its runs. Imports neither torch nor pyarrow."""

import difflib
import glob
import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError, shorten, unknown
from harness.phrases import file_name, some
from harness.spec import identity
from harness.spec.science import Science
from harness.store import checksums, files, generations, json_files, ownership
from harness.store.locks import is_locked
from harness.store.run_notes import Attempt, Progress

CONTENTS = "contents.json"  # in a sweep's folder of tables: its cells
_HEX = "[0-9a-f]"
_ARCHIVED_FAILURE = re.compile(r"failure-(\d+)-\d+\.json")  # the number of attempts before, and the time


@dataclass(frozen=True)
class Failure:
    """The reason why a run has no record. ``kind``: code, data, teacher, disk, killed."""

    __pydantic_config__ = json_files.CLOSED
    run_id: str
    kind: str
    cause: str
    details: str  # traceback or last lines of the log
    log: str
    host: str
    at: json_files.Timestamp


class Store:
    """A results folder. Every path in it is spelled here and nowhere else."""

    def __init__(self, root: Path):
        self.root = root
        self.jobs = root / "jobs"
        self.records = root / "records"
        self.compact = root / "compact"
        self.compact_lock = self.compact / "lock"
        self.all_runs = root / "runs.parquet"  # a link to the newest compacted records, for any reader of Parquet
        self.all_images = root / "images"
        self.probes = root / "probes"  # measurements of ``sweep --probe``
        self.checks = root / "checks"  # notes of what has passed the check before training
        self.submissions = root / "queues" / "submissions"  # notes about submitted arrays
        self.weights = root / "weights"  # downloads of ``harness.store.weight_cache``, unless KD_WEIGHTS names a folder
        self.datasets = root / "datasets"  # of ``harness.store.data_cache``, unless KD_DATASETS names a folder
        self.code = root / "code"  # copies of the packages that a cluster's jobs run from
        self.transfers = root / "transfer"
        self.all_tables = root / "tables"
        self.claims = root / "claims"
        self.all_tunings = root / "tuning"
        self.leaderboard = root / "leaderboard.html"
        self.tracking = root / "tracking"  # what ``sweep --track`` writes
        self.tracking_log = self.tracking / f"{os.geteuid()}.log"  # of this user's commands

    @classmethod
    def at(cls, folder: Path) -> "Store":
        """Return the store in a folder that a user names. Links that lead in a circle are told where it is read.

        Raises:
            UserError: the path is not UTF-8, which writers of Parquet and safetensors need.
        """
        root = os.path.realpath(folder)
        if root != os.fsencode(root).decode(errors="replace"):
            raise UserError(f"{root}: expected a name in UTF-8")
        return cls(Path(root))

    @classmethod
    def existing(cls, folder: Path) -> "Store":
        """Return the store in a folder that a command reads.

        Raises:
            UserError: there is no such folder, or as ``at``.
        """
        if not folder.is_dir():
            raise UserError(missing_store(folder))
        return cls.at(folder)

    # paths -------------------------------------------------------------------------------------------------------

    def record(self, run_id: str) -> Path:
        return self.records / f"{run_id}.parquet"

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def checkpoints(self, run_id: str) -> Path:
        return self.run(run_id) / "checkpoints"

    def student_weights(self, run_id: str) -> Path:
        return self.run(run_id) / "student.safetensors"

    def best_weights(self, run_id: str) -> Path:
        """The student's weights after its best epoch, where ``sweep --keep-best`` asked for them."""
        return self.run(run_id) / "student.best.safetensors"

    def predictions(self, run_id: str) -> Path:
        """The trained student's predictions for the evaluated images, where the task stores them."""
        return self.run(run_id) / "predictions.json"

    def teacher_predictions(self, evaluation: str) -> Path:
        """A given teacher's predictions; ``evaluation`` comes from ``Science.teacher_evaluation_id``."""
        return self.root / "teachers" / f"{evaluation}.json"

    def images(self, sweep: str) -> Path:
        """Pictures of detections that the leaderboard shows."""
        return self.all_images / sweep

    def live_curves(self, run_id: str) -> Path:
        """The curves of a run in training, see ``harness.store.live_curves``."""
        return self.run(run_id) / "curves.jsonl"

    def tracking_lock(self, tool: str, sweep: str) -> Path:
        """The lock of the process that tracks a sweep with a tool."""
        return self.tracking / "locks" / f"{file_name(tool, sweep)}.lock"

    def run_lock(self, run_id: str) -> Path:
        return self.run(run_id) / "lock"

    def failure_file(self, run_id: str) -> Path:
        return self.root / "failures" / f"{run_id}.json"

    def logits(self, key: str) -> Path:
        return self.root / "logits" / key

    def check(self, key: str) -> Path:
        """The note that a check was passed; ``key`` comes from ``harness.planning.check``."""
        return self.checks / f"{key}.json"

    def estimates(self, sweep: str) -> Path:
        """The estimated cost of a sweep's submissions."""
        return self.root / "estimates" / f"{sweep}.json"

    def queue(self, name: str) -> Path:
        return self.root / "queues" / f"{name}.json"

    def queues(self, sweep: str, with_selections: bool = False) -> list[Path]:
        """Return the files of a sweep's queues, oldest first: one for each set of runs that was started.

        ``with_selections``: also those of its selections (`--only`, `--set`), and of all tunings.
        """
        mark = f"-{_HEX * 6}"
        parts = ("", mark, "-tuning", f"{mark}-tuning") if with_selections else ("",)
        return self._dated_queues(f"{glob.escape(sweep)}{part}" for part in parts)

    def all_queues(self) -> list[Path]:
        """Return the files of the queues of every sweep, oldest first."""
        return self._dated_queues("*")

    def _dated_queues(self, names: Iterable[str]) -> list[Path]:
        """Return the queues whose names match patterns, oldest first."""
        dated = []
        for name in names:
            for path in files.entries(self.root / "queues", f"{name}-{_HEX * 8}.json"):
                with suppress(FileNotFoundError):  # removed since
                    dated.append((path.lstat().st_mtime_ns, path))  # a link to nothing is told by who reads it
        return [path for _, path in sorted(dated)]

    def submission(self, name: str) -> Path:
        return self.submissions / f"{name}.json"

    def added_seeds(self, sweep: str) -> Path:
        return self.root / "added_seeds" / f"{sweep}.json"

    def tuning(self, sweep: str) -> Path:
        """The trials of a sweep's tuning."""
        return self.all_tunings / f"{sweep}.json"

    def tuned_sweep(self, sweep: str) -> Path:
        """The sweep file with the settings that its tuning chose."""
        return self.all_tunings / sweep / "tuned.yaml"

    def transfer(self, network: str, target: str, version: str) -> Path:
        """The linear probe of a network on a target dataset with this content."""
        return self.transfers / file_name(target, version[:16]) / f"{network}.json"

    def table_folder(self, sweep: str) -> Path:
        return self.all_tables / sweep

    def tables(self) -> list[Path]:
        """Return the folders that hold a sweep's tables, by name."""
        return [path for path in files.entries(self.all_tables) if files.is_there(path / CONTENTS)]

    # science -----------------------------------------------------------------------------------------------------

    def write_science(self, run_id: str, science: Science) -> None:
        path = self.run(run_id) / "science.json"
        value = science.to_json()
        with suppress(OSError):  # what cannot be read is replaced, as its content is known
            if files.read_json(path) == value:
                return
        files.replace_json(path, value, durable=False)

    def read_science(self, run_id: str) -> Science:
        """Return a run's science.

        Raises:
            UserError: the file is missing, or holds another science than the run id stands for.
            OSError: it cannot be read.
        """
        path = self.run(run_id) / "science.json"
        value = files.read_json(path)
        with suppress(ValueError):  # not a number that a science can hold
            if isinstance(value, dict) and identity.digest(value) == run_id:
                return Science.from_json(value, str(path))
        raise UserError(f"{path}: missing or damaged; the sweep, run again with --retry-failed, writes it")

    # state -------------------------------------------------------------------------------------------------------

    def record_index(self) -> generations.RecordIndex:
        """Return where each record is now.

        Record files are listed first: a file that compaction then removes is in the generation that is read after it.

        Raises:
            UserError: the compacted records are damaged.
        """
        loose = self.loose_ids()
        generation = generations.newest_generation(self.compact)
        return generations.RecordIndex(generation, frozenset(loose - generation.run_ids if generation else loose))

    def loose_ids(self) -> set[str]:
        """Return the runs with a record file of their own, compacted or not, by one listing of the folder."""
        return _stems(self.records, ".parquet")

    def done_ids(self) -> frozenset[str]:
        """Return the runs that have a record."""
        return self.record_index().run_ids

    def find(self, prefix: str, option: str, run_ids: Collection[str] | None = None) -> str:
        """Return the one run whose id starts with ``prefix``, among those with a record or the given ones.

        Raises:
            UserError: none or several start with it; the message begins with ``option``, which named it.
        """
        kind, candidates = ("finished run", self.done_ids()) if run_ids is None else ("run", run_ids)
        matches = [run_id for run_id in sorted(candidates) if prefix and run_id.startswith(prefix)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(f"{option} {shorten(prefix)}: {len(matches)} runs start with it: {some(matches)}")
        raise UserError(f"{option}: {unknown(kind, prefix, candidates)}")

    def record_files(self, run_ids: Set[str]) -> set[Path]:
        """Return the files that hold the runs' records.

        Raises:
            FileNotFoundError: a run has no record.
        """
        index = self.record_index()
        if missing := run_ids - index.run_ids:
            raise FileNotFoundError(self.record(min(missing)))
        parts = index.generation.files(run_ids) if index.generation else set()
        return parts | {self.record(run_id) for run_id in run_ids & index.loose}

    def ordered_ids(self) -> set[str]:
        """Return the runs with a folder: those that a job was to train at any time."""
        return _stems(self.root / "runs", "")

    def failed_ids(self) -> set[str]:
        return _stems(self.root / "failures", ".json")

    def is_running(self, run_id: str) -> bool:
        return is_locked(self.run_lock(run_id))

    # failures ----------------------------------------------------------------------------------------------------

    def write_failure(self, run_id: str, kind: str, cause: str, details: str, log: str) -> None:
        failure = Failure(run_id, kind, cause, details[-8000:], log, socket.gethostname(), time.time())
        files.replace_json(self.failure_file(run_id), checksums.seal_value(failure.__dict__))

    def failure(self, run_id: str) -> Failure | None:
        """Return why a run failed, or None where that is not known."""
        failure = json_files.read_if_valid(Failure, path := self.failure_file(run_id))
        if failure and failure.run_id != run_id:
            json_files.print_note(f"{path}: of another run, {shorten(failure.run_id)}; left out")
            return None
        return failure

    def archive_failure(self, run_id: str) -> None:
        """Move a run's failure into the run's folder, which makes way for another attempt.

        Its name says how many attempts came before: their order must not depend on clocks.
        """
        self.run(run_id).mkdir(parents=True, exist_ok=True)
        name = f"failure-{len(self._attempt_lines(run_id))}-{int(time.time())}.json"
        with suppress(FileNotFoundError):
            os.replace(self.failure_file(run_id), self.run(run_id) / name)

    # live progress -----------------------------------------------------------------------------------------------

    def write_progress(self, run_id: str, **values: Any) -> None:
        """Note how far a run has come. No run ends because this fails: then the progress seen is an old one."""
        path = self.run(run_id) / "progress.json"
        try:
            files.replace_json(path, checksums.seal_value({**values, "at": time.time()}), durable=False)
        except files.DiskFull as e:
            json_files.print_note(str(e))
        except OSError as e:
            json_files.print_note(f"{path}: cannot be written: {e.strerror}")

    def progress(self, run_id: str) -> dict[str, Any]:
        """Return how far a run has come, as far as it has said so."""
        return json_files.read_if_valid(Progress, self.run(run_id) / "progress.json") or {}

    def add_attempt(self, run_id: str, **values: Any) -> int:
        """Note that a job has started the run, and return the number of attempts so far."""
        path = self.run(run_id) / "attempts.jsonl"
        begun_from = self._newest_checkpoint(run_id)
        attempt = {**values, "host": socket.gethostname(), "at": time.time(), "checkpoint": begun_from}
        line = json.dumps(checksums.seal_value(attempt)) + "\n"
        with files.full_disk_as_error(path), open(path, "a+b", opener=ownership.without_links) as f:
            if f.tell() and (f.seek(-1, os.SEEK_END), f.read(1))[1] != b"\n":  # a crash has torn the last line
                line = "\n" + line
            f.write(line.encode())
        return max(1, len(self.attempts(run_id)))  # its line may be gone again, but it is one

    def attempts(self, run_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the run's starts so far, from line ``after`` on, without torn and damaged lines."""
        path, attempts = self.run(run_id) / "attempts.jsonl", []
        for number, line in enumerate(self._attempt_lines(run_id)[after:], after + 1):
            try:
                attempts.append(json_files.parse_checked(Attempt, line, f"{path}:{number}"))
            except UserError as e:
                json_files.print_note(f"{e}; left out")
        return attempts

    def _attempt_lines(self, run_id: str) -> list[bytes]:
        """Return the lines of the run's starts without the zeros that a crash of the machine may leave in a file."""
        try:
            lines = files.read_bytes(self.run(run_id) / "attempts.jsonl").split(b"\n")
        except FileNotFoundError:
            return []
        return [line.strip(b"\0") or line for line in lines if line]

    def fruitless_attempts(self, run_id: str) -> int:
        """Return how many of the run's latest attempts since its last failure have left no newer checkpoint."""
        newest, count = self._newest_checkpoint(run_id), 0
        for attempt in reversed(self.attempts_since_failure(run_id)):
            if attempt.get("checkpoint", newest) != newest:
                break
            count += 1
        return count

    def _newest_checkpoint(self, run_id: str) -> str:
        """Return the name of the run's newest checkpoint, "" where there is none."""
        return max((path.stem for path in files.entries(self.checkpoints(run_id), "epoch-*.safetensors")), default="")

    def attempts_since_failure(self, run_id: str) -> list[dict[str, Any]]:
        """Return the attempts after the run's last archived failure."""
        archived = files.entries(self.run(run_id), "failure-*.json")
        if counts := [int(name[1]) for path in archived if (name := _ARCHIVED_FAILURE.fullmatch(path.name))]:
            return self.attempts(run_id, after=max(counts))
        # Names of an earlier harness have the time only.
        failures = [json_files.read_if_valid(Failure, path) for path in archived]
        since = max((failure.at for failure in failures if failure), default=0.0)
        return [attempt for attempt in self.attempts(run_id) if attempt.get("at", 0.0) > since]


def _stems(folder: Path, suffix: str) -> set[str]:
    try:
        with files.errors_named(folder), os.scandir(folder) as entries:
            return {e.name.removesuffix(suffix) for e in entries if e.name.endswith(suffix) and e.name[0] != "."}
    except FileNotFoundError:
        return set()


def missing_store(folder: Path) -> str:
    """Return that a folder, which a user names, is not there, with the nearest name beside it."""
    near = difflib.get_close_matches(folder.name, (path.name for path in files.entries(folder.parent)), n=1)
    hint = f"did you mean {folder.with_name(near[0])}?" if near else "the first sweep makes it"
    return f"{folder}: no such store; {hint}"
