"""A small sweep, its store, and ways to run it: through the command line, or one job in its own process."""

import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.planning.plan import Planned, plan_sweep
from harness.spec.sweep_plan import Cell
from harness.store import records
from harness.store.locks import is_locked
from harness.store.store import Store
from tests.support.cli import PATIENCE, REPO, CommandResult, arguments, run_command, use_cores
from tests.support.warm_python import executable

METHODS = ("student", "kd", "fitnets", "crd", "rekd")
EPOCHS = 3
IMAGES, BATCH = 190, 16  # that are trained on
STEPS = 12  # per epoch, the last batch of 14
OFTEN, SELDOM = 0.1, 1000  # seconds between checkpoints: a job that may be killed writes them at nearly every step
USER_METHODS = "tests.support.user_methods"
SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": {"name": "digits", "train_subset": IMAGES},
    "recipe": {"base": "digits_quick", "epochs": EPOCHS, "batch_size": BATCH},
    "methods": {
        "student": {},
        "kd": {},
        "fitnets": {"params": {"tap": "stage1"}},
        "crd": {"params": {"negatives": 64}},
        "rekd": {},
    },
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": [0, 1, 2],
}
# Everything that changes what is seen of images, of which only the own method reads the further view. Its optimiser
# has the most states.
AUGMENTED = {
    "mixup": 0.8, "cutmix": 1.0, "mix_probability": 0.9, "repeats": 3, "label_smoothing": 0.1, "accumulate": 2,
    "random_erasing": 0.25, "augment": {"randaugment": {}}, "image_size": 8, "crop_area": [0.3, 1.0], "crop_padding": 0,
    "views": {"strong": {"crop_area": [0.2, 0.8], "flip": True}}, "optimizer": "dot",
}  # fmt: skip
AUGMENTED_METHODS = {
    name: {"use": use, "recipe": AUGMENTED}
    for name, use in (("own", f"{USER_METHODS}:ReadsTwoViews"), ("kd", "kd"), ("dml", "dml"))
}
# Use this checkout's code, and `tests` for its methods.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO), "CUDA_VISIBLE_DEVICES": ""}
forkserver = multiprocessing.get_context("forkserver")


@dataclass
class Bench:
    """A sweep file and a store in their own folder."""

    folder: Path
    sweep: dict[str, Any] = field(default_factory=lambda: SWEEP)
    cores: int = 1  # one core gives jobs one thread, so that bits compare between commands
    checkpoint_seconds: float = OFTEN  # of the jobs that commands start
    _started: list[subprocess.Popen[str]] = field(default_factory=list)
    _forked: list[Any] = field(default_factory=list)  # processes

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    def command(self, name: str, *args: str, file: str | None = "sweep.yaml") -> list[str]:
        if file:
            (self.folder / file).write_text(yaml.safe_dump(self.sweep, sort_keys=False))
        head = [executable(), "-m", f"harness.{name}", *([file] if file else [])]
        return [*head, "--results", "results", *arguments(name, *args)]

    def _process_options(self) -> dict[str, Any]:
        def as_from_a_shell() -> None:
            use_cores(self.cores)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background shell's children ignore it

        return {
            "cwd": self.folder,
            "env": {**ENVIRONMENT, "KD_CHECKPOINT_SECONDS": str(self.checkpoint_seconds)},
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "preexec_fn": as_from_a_shell,
        }

    def run(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(self.command(name, *args), timeout=PATIENCE, check=False, **self._process_options())

    def call(self, name: str, *args: object) -> CommandResult:
        """Run a command to its end in this process, which is faster."""
        words = self.command(name, *map(str, args))
        with contextlib.chdir(self.folder):
            return run_command(name, *words[3:])

    def start(self, name: str, *args: str) -> subprocess.Popen[str]:
        """Start a command in the background, in its own process group as a shell does."""
        process = subprocess.Popen(self.command(name, *args), start_new_session=True, **self._process_options())
        self._started.append(process)
        return process

    def fork(self, function: Callable[..., None], *arguments: Any) -> Any:
        """Start a process that has imported the harness already; return it."""
        process = forkserver.Process(target=function, args=arguments)
        process.start()
        self._forked.append(process)
        return process

    def clean_up(self) -> None:
        """End the processes that commands have left running."""
        for process in self._forked:
            process.kill()
        for command in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.communicate()
        for lock in filter(is_locked, (self.store.root / "queues").glob("*.lock")):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.killpg(int(lock.read_text().split()[0]), signal.SIGKILL)
        for attempts in (self.store.root / "runs").glob("*/attempts.jsonl"):
            run_id = attempts.parent.name
            with contextlib.suppress(ProcessLookupError):
                if self.store.is_running(run_id):
                    os.kill(self.store.attempts(run_id)[-1]["pid"], signal.SIGKILL)

    def plan(self, *only: str) -> Planned:
        self.command("status")
        return plan_sweep(self.folder / "sweep.yaml", self.folder / "results", only=only)

    def cells(self, *only: str) -> dict[tuple[str, int], Cell]:
        """Return (method, seed) -> cell for a sweep of one pair."""
        return {(c.method, c.seed): c for c in self.plan(*only).plan.cells}

    def row(self, run_id: str) -> dict[str, Any]:
        return records.read_records(self.store, [run_id]).to_pylist()[0]

    def weights(self, run_id: str) -> bytes:
        return self.store.student_weights(run_id).read_bytes()

    def states(self) -> dict[str, dict[str, Any]]:
        """Return label -> its row in ``status --json``."""
        return {row["label"]: row for row in json.loads(self.run("status", "--json").stdout)}

    def take(self, other: "Bench", *run_ids: str) -> None:
        """Copy finished runs from another store."""
        for run_id in run_ids:
            shutil.copytree(other.store.run(run_id), self.store.run(run_id))
            self.store.records.mkdir(parents=True, exist_ok=True)
            shutil.copy2(other.store.record(run_id), self.store.record(run_id))

    def job(
        self, *run_ids: str, threads: int = 1, stop_after: int | None = None, checkpoint_seconds: float = OFTEN,
        in_turn: bool = False, train: Callable[..., None] | None = None,
    ) -> Any:  # fmt: skip
        """Start a job in its own process and return it; ``in_turn``: its packs take their steps as on a GPU.

        ``train`` replaces the function that trains, which it calls at last.
        """
        runs = self.plan().plan.runs
        for run_id in run_ids:
            self.store.write_science(run_id, runs[run_id].science)
        return self.fork(
            train or train_job, str(self.folder), run_ids, threads, stop_after, checkpoint_seconds, in_turn
        )

    def train(self, *run_ids: str, checkpoint_seconds: float = SELDOM, **options: Any) -> int:
        """Run ``job`` to its end, or stop it after some steps, and return its exit code."""
        process = self.job(*run_ids, checkpoint_seconds=checkpoint_seconds, **options)
        process.join()
        return process.exitcode


def train_job(
    folder: str, run_ids: tuple[str, ...], threads: int, stop_after: int | None, checkpoint_seconds: float,
    in_turn: bool,
) -> None:  # fmt: skip
    from harness.training import job
    from harness.training.job_order import JobOrder

    os.chdir(folder)
    os.environ["KD_CHECKPOINT_SECONDS"] = str(checkpoint_seconds)
    log = os.open("job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    steps = itertools.count(1)
    if in_turn:
        job.packs_overlap = lambda device, ranks: True
    job.run_job(JobOrder(str(Path("results").resolve()), run_ids, None, {}, threads), lambda: next(steps) == stop_after)


def until(condition: Callable[[], Any]) -> Any:
    """Wait until the condition is true and return its value."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def teacher_run(bench: Bench) -> str:
    run_id = bench.cells()["kd", 0].teacher_run
    assert run_id is not None
    return run_id
