"""A job on a node: it trains packs, from their runs' ids to their records. It needs the store but no driver.

Packs of several seeds share the process, the dataset and the teacher, which is loaded and evaluated once. Each has its
own data order, teacher's forward passes, random numbers and checkpoints: a run ends as if its pack were alone.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from harness import hardware
from harness.data.load.fixed_epochs import FixedEpochs
from harness.data.load.loader import EvalSet, Loader
from harness.data.load.source import Source, open_source
from harness.errors import UserError
from harness.phrases import percent, plural
from harness.spec import identity
from harness.spec.own_code import own_code
from harness.spec.own_models import code_of, is_own_model
from harness.spec.run_labels import science_labels
from harness.spec.science import SHARED_RECIPE, Given, Science, Trained, recipe_json
from harness.store import checksums, leftovers, records
from harness.store.locks import Lock
from harness.store.store import Store
from harness.training import checkpoint, host_memory
from harness.training.cuda.graph import capture_cuda_graph
from harness.training.cuda.memory import MemoryBudget
from harness.training.cuda.streams import raise_stream_limit
from harness.training.distributed.ranks import LostRank, Ranks, join_ranks
from harness.training.engines.base import MakeEngine
from harness.training.engines.deepspeed import DeepSpeedEngine
from harness.training.engines.native import NativeEngine
from harness.training.fidelity import FidelityReference, TrainingImages
from harness.training.job_order import JobOrder
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.recorder import Interrupted, JobStart, RunRecorder, TeacherFailed, write_failure
from harness.training.rotation import train_in_turn
from harness.training.stopwatch import SharedStopwatch, SharedTime, Stopwatch
from harness.training.tasks import StartWeights, Task, open_task
from harness.training.teacher import (
    RUN_SCORE_TOLERANCE,
    SCORE_TOLERANCE,
    Teacher,
    TeacherSource,
    load_teacher,
    measure_teacher,
)
from harness.training.teacher_ensemble import ensemble
from harness.training.teacher_logits import CachedLogits
from harness.training.teacher_pass import measure
from methods.base import TeacherPass


class TeacherNotReady(Exception):
    """The teacher has neither record nor failure yet: its training was interrupted and will be resumed."""


def run_job(
    order: JobOrder,
    should_stop: Callable[[], bool] = lambda: False,
    log: str = "",
    began: float | None = None,
) -> bool:
    """Train the job's runs that have no record yet and that no other process is training.

    ``should_stop`` is called after every step. When it returns True, all runs in training are checkpointed and False is
    returned; else, the return value is True.
    Several processes that call this with the same ``order`` and torchrun's variables train the runs together.
    ``log`` is the file that this process prints to; ``began`` the ``time.monotonic()`` at which it started, if not
    just now.

    Raises:
        LostRank: another rank is gone; the runs resume from their checkpoints when all ranks are started again.
    """
    host_memory.retain_freed_memory()
    raise_stream_limit()
    store = Store(Path(order.store))
    locks: dict[str, Lock] = {}
    stop = _Stop(should_stop)
    log_bytes = Path(log).stat().st_size if log and Path(log).exists() else 0  # of earlier starts
    try:
        with join_ranks() as ranks:
            if ranks.rank == 0:
                locks = _lock(store, order.run_ids)
            groups = ranks.broadcast_json(_by_threads(order, store, list(locks)))
            started = JobStart.of(began)
            if not groups:
                print("nothing to do: every run is done, failed or in training elsewhere", flush=True)
            for threads, run_ids in groups:
                try:
                    sciences = _read_sciences(store, run_ids, ranks, log)
                    if sciences:
                        _Packs(order, store, sciences, threads, stop, ranks, log, log_bytes, started).train()
                except TeacherNotReady as e:
                    print(f"not trained now: {e}", flush=True)
                except Exception as error:
                    unfinished = sorted(set(run_ids) - store.done_ids() - store.failed_ids())
                    write_failure(store, unfinished, error, traceback.format_exc(), log)
                    ranks.confirm_failure(f"job {run_ids[0]}")
                started = JobStart.of()
    except Interrupted:
        print("stopped by a signal: every run is checkpointed", flush=True)
        return False
    finally:
        for lock in locks.values():
            lock.release()
    return True


@dataclass
class _Stop:
    """A job's ``should_stop`` that stays True: each pack in training asks for itself."""

    should_stop: Callable[[], bool]
    _stopped: bool = False

    def __call__(self) -> bool:
        self._stopped = self._stopped or self.should_stop()
        return self._stopped


def _lock(store: Store, run_ids: tuple[str, ...]) -> dict[str, Lock]:
    """Lock the runs that are not done, failed or in training elsewhere; return the locks by run_id."""
    settled = store.done_ids() | store.failed_ids()
    locks = {k: Lock(store.run_lock(k)) for k in run_ids if k not in settled}
    mine = {k: lock for k, lock in locks.items() if lock.acquire()}
    done = store.done_ids()  # another job may have finished one just before the lock
    for k in [k for k in mine if k in done]:
        mine.pop(k).release()
    for k in mine:
        leftovers.remove_partial_files(store, k)
    return mine


def _read_sciences(store: Store, run_ids: list[str], ranks: Ranks, log: str) -> dict[str, Science]:
    """Return the runs' sciences; a run whose file is missing or damaged fails alone."""
    sciences = {}
    for run_id in run_ids:
        try:
            science = store.read_science(run_id)
            check_own_code(store, science)
            sciences[run_id] = science
        except UserError as error:
            write_failure(store, [run_id], error, "", log)
            ranks.confirm_failure(f"science of {run_id}")
    return sciences


def check_own_code(store: Store, science: Science) -> None:
    """Check the user's own code that a run would import: it is not in the store, and still what was planned.

    Raises:
        UserError: it is in the store, has changed, or is not found.
    """
    for code, version in own_code(science).items():
        code.refuse_in(store.root)
        code.check_version(version)
    for teacher in science.teachers:
        if isinstance(teacher, Trained) and is_own_model(teacher.model):
            rows = records.read_records(store, [teacher.run], ["science"]).to_pylist()
            for row in rows:  # without one, the teacher is not ready
                code_of(teacher.model).check_version(Science.from_text(row["science"]).student_source)


def _by_threads(order: JobOrder, store: Store, run_ids: list[str]) -> list[tuple[int, list[str]]]:
    """Group runs by the thread count of their first attempt: it fixes the order of sums, and so every bit."""
    groups: dict[int, list[str]] = {}
    for run_id in run_ids:
        first = next(iter(store.attempts(run_id)), {})
        groups.setdefault(first.get("threads", order.threads), []).append(run_id)
    return list(groups.items())


@dataclass
class _Packs:
    """Packs that differ in their seeds only, with what they share: the dataset, the task and the teacher."""

    order: JobOrder
    store: Store
    sciences: dict[str, Science]  # by run_id
    threads: int
    should_stop: Callable[[], bool]
    ranks: Ranks
    log: str
    log_bytes: int
    started: JobStart
    device: torch.device = field(init=False)
    task: Task = field(init=False)
    source: Source = field(init=False)
    evaluated_on: EvalSet = field(init=False)
    teacher: Teacher | None = field(init=False)
    fidelity: FidelityReference | None = None  # for classifiers
    _attempts: dict[str, int] = field(default_factory=dict)  # by run_id; of packs that have begun
    _measured: dict[TeacherPass, Tensor] = field(default_factory=dict)  # on the teacher, for methods

    def train(self) -> None:
        """Train the packs: one after the other, which takes the least memory, or in turn where they overlap."""
        torch.set_num_threads(self.threads)
        seeds = list(dict.fromkeys(science.seed for science in self.sciences.values()))
        if len(seeds) > 1:
            print(f"{plural(len(seeds), 'pack')}, of seeds {', '.join(map(str, seeds))}", flush=True)
        self._note_attempts(seeds[0])  # before the data is opened, in which the process may be killed
        self._open()
        device, shared_time = self.device, SharedTime()
        if len(seeds) > 1 and packs_overlap(device, self.ranks):
            memory = MemoryBudget(device)
            packs = {s: self._turns(s, memory, partial(SharedStopwatch, shared=shared_time, seed=s)) for s in seeds}
            train_in_turn(packs, memory, shared_time, device, self._fail_pack)
            return
        for seed in seeds:
            memory = MemoryBudget(device)
            train_in_turn({seed: self._turns(seed, memory)}, memory, shared_time, device, self._fail_pack)

    def _open(self) -> None:
        any_science = next(iter(self.sciences.values()))
        recipe, dataset = any_science.recipe, any_science.dataset
        self.device = self.ranks.device()
        set_float32(recipe.precision)
        self.task = open_task(dataset, recipe, StartWeights.of(any_science, self.order.weights))
        data = Path(self.order.data) if self.order.data else None
        self.source = open_source(dataset, recipe, data, self.device, self.threads)
        self.evaluated_on = self.source.evaluation()
        try:
            self.teacher = self._load_teacher()
        except TeacherNotReady:
            raise
        except Exception as error:  # it fails the runs that learn from the teacher; a plain student continues
            learners = [k for k, science in self.sciences.items() if science.teacher]
            write_failure(self.store, learners, error, traceback.format_exc(), self.log)
            self.ranks.confirm_failure("teacher of " + next(iter(self.sciences)))
            self.sciences = {k: s for k, s in self.sciences.items() if not s.teacher}
            self.teacher = None
        if self.task.info.class_per_image:
            images = TrainingImages(self.source.unaugmented, self.source.train_targets, len(self.evaluated_on.targets))
            self.fidelity = FidelityReference.of(self.teacher, images, self.evaluated_on, self.task, self.ranks)
        if self.teacher:
            rows = self.ranks.rows(recipe.batch_size)
            compiles = recipe.compile and self.device.type == "cuda"
            self.teacher.prepare(recipe.precision, rows.stop - rows.start if compiles else None)

    def _load_teacher(self) -> Teacher | None:
        on = self.evaluated_on
        # A given teacher may have been trained on the images that are held out here.
        if on.name != "test" and any(s.given_teachers for s in self.sciences.values()):
            on = self.source.evaluation(whole=True)
        return _teacher(self.order, self.store, self.sciences, on, self.task, self.device, self.ranks)

    def _of_seed(self, seed: int) -> dict[str, Science]:
        return {k: science for k, science in self.sciences.items() if science.seed == seed}

    def _note_attempts(self, seed: int) -> None:
        for k in self._of_seed(seed) if self.ranks.rank == 0 else ():
            if k not in self._attempts:
                self._attempts[k] = self.store.add_attempt(
                    k, log=self.log, log_bytes=self.log_bytes, pid=os.getpid(), threads=self.threads, **self.order.asked
                )

    def _fail_pack(self, seed: int, error: Exception) -> None:
        run_ids = self._of_seed(seed)
        unfinished = sorted(run_ids.keys() - self.store.done_ids() - self.store.failed_ids())
        details = "".join(traceback.format_exception(error))
        write_failure(self.store, unfinished, error, details, self.log)
        self.ranks.confirm_failure(f"pack {next(iter(run_ids))}")

    def _turns(
        self, seed: int, memory: MemoryBudget, make_stopwatch: Callable[[torch.device], Stopwatch] = Stopwatch
    ) -> Iterator[bool]:
        """Build the pack of a seed and take its steps, see ``Pack.turns``. Before and after, nothing of it is held."""
        sciences = self._of_seed(seed)
        if not sciences:
            return
        store, ranks, device, source = self.store, self.ranks, self.device, self.source
        self._note_attempts(seed)
        any_science = next(iter(sciences.values()))
        recipe, info = any_science.recipe, any_science.dataset.info
        loader: Loader = source.training(recipe, seed, ranks.rows)
        if recipe.epoch_steps:
            loader = FixedEpochs(loader, recipe.epoch_steps)
        members: dict[str, Member] = {}
        for k, science in sciences.items():
            try:
                members[k] = self._member(k, science)
            except Exception as error:
                write_failure(store, [k], error, traceback.format_exc(), self.log)
                ranks.confirm_failure(k)
        for note in dict.fromkeys(m.start_note for m in members.values() if m.start_note):
            print(note, flush=True)
        labels = science_labels(sciences)
        head = f"{time.strftime('%H:%M:%S')} training {plural(len(members), 'run')} on {self._where()}"
        print("\n  ".join((head, *(f"{k}  {labels[k]}" for k in members))), flush=True)
        reached = [[k, m.history.epoch, m.steps] for k, m in members.items()]
        # A file system may show some nodes old files.
        if ranks.broadcast_json(reached) != reached:
            raise LostRank(f"process {ranks.rank} reads other checkpoints than process 0: {reached}")
        for k, member in list(members.items()):
            try:
                self._use_teacher_pass(member)
            except Exception as error:
                write_failure(store, [k], error, traceback.format_exc(), self.log)
                ranks.confirm_failure(k)
                del members[k]
        recorder = RunRecorder(
            store, self.log, self.should_stop, self.threads, self.started, device, ranks, source, self.evaluated_on,
            self.teacher, self._attempts, len(members), labels,
        )  # fmt: skip
        captures = device.type == "cuda" and ranks.world_size == 1 and self.task.capturable
        logits = None
        if recipe.teacher_top_k and self.teacher:
            folder = store.logits(_logits_key(any_science, device, self.threads, ranks.world_size))
            logits = CachedLogits(folder, recipe.teacher_top_k, len(source.train_targets), info.classes, ranks)
        yield from Pack(
            members, loader, self.evaluated_on, self.teacher, recorder, ranks, capture_cuda_graph if captures else None,
            logits, memory, make_stopwatch, self.fidelity,
        ).turns()  # fmt: skip

    def _member(self, run_id: str, science: Science) -> Member:
        """Return a run as its newest checkpoint left it."""
        deepspeed = partial(DeepSpeedEngine, zero_stage=self.order.zero_stage)
        engine: MakeEngine = deepspeed if self.order.engine == "deepspeed" else NativeEngine
        targets = self.source.train_targets
        member = Member(science, self.teacher, targets, self.task, self.device, self.ranks, engine)
        member.keeps_best = self.order.keep_best
        if (saved := checkpoint.load_newest(self.store.checkpoints(run_id))) is not None:
            member.restore(*saved)
        return member

    def _use_teacher_pass(self, member: Member) -> None:
        """Give a method what it measures on the teacher, unless it has that from a checkpoint."""
        request, teacher = member.distiller.teacher_pass, self.teacher
        if request is None or teacher is None or not member.is_fresh:
            return
        if request not in self._measured:
            targets, read, precision = self.source.train_targets, self.source.unaugmented, member.recipe.precision
            self._measured[request] = measure(request, teacher, targets, read, precision, self.ranks)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        member.distiller.use_teacher_pass(self._measured[request])

    def _where(self) -> str:
        where, ranks = f"{self.device}, {plural(self.threads, 'thread')}", self.ranks
        if ranks.world_size > 1:
            where += f", process {ranks.rank} of {ranks.world_size}, engine {self.order.engine}"
            where += f" with ZeRO stage {self.order.zero_stage}" if self.order.engine == "deepspeed" else ""
        return where


def packs_overlap(device: torch.device, ranks: Ranks) -> bool:
    """Return whether packs take their steps in turn: on a CPU, and among several processes, nothing would overlap."""
    return device.type == "cuda" and ranks.world_size == 1


def _logits_key(science: Science, device: torch.device, threads: int, world: int) -> str:
    """Return the name of a cache of logits: one for each teacher, dataset, seed, augmentation, hardware and torch."""
    content, recipe = science.to_json(), recipe_json(science.recipe)
    on_cpu = f"{hardware.cpu_name()}, {threads} threads"
    name = torch.cuda.get_device_name() if device.type == "cuda" else on_cpu
    machine = [name, world, torch.__version__]
    views = {k: recipe.get(k) for k in SHARED_RECIPE}
    return identity.digest({"of": [*(content[k] for k in ("protocol", "dataset", "teacher", "seed")), views, machine]})


def _teacher(
    order: JobOrder, store: Store, sciences: dict[str, Science], on: EvalSet, task: Task, device: torch.device,
    ranks: Ranks,
) -> Teacher | None:  # fmt: skip
    science = next((s for s in sciences.values() if s.teacher), None)
    if science is None:
        return None
    teachers = [_single_teacher(order, store, science, choice, on, task, device, ranks) for choice in science.teachers]
    if len(teachers) == 1:
        return teachers[0]
    teacher = measure_teacher(ensemble(teachers), on, task, ranks)
    print(f"teachers {teacher.name}, mean of logits: {_measured(teacher, on, task)}", flush=True)
    return teacher


def _single_teacher(
    order: JobOrder, store: Store, science: Science, choice: Trained | Given, on: EvalSet, task: Task,
    device: torch.device, ranks: Ranks,
) -> Teacher:  # fmt: skip
    if isinstance(choice, Given):
        given = order.weights[choice.weights_id]
        file, sha256, stated, tolerance = Path(given.file), choice.sha256, given.score, SCORE_TOLERANCE
    else:
        score = f"last_{task.info.score}"
        row = records.read_records(store, [choice.run], ["status", "weights_sha256", score]).to_pylist()
        if not row and (failure := store.failure(choice.run)):
            raise TeacherFailed(f"its teacher's run {choice.run} failed: {failure.cause}")
        if not row:
            raise TeacherNotReady(f"teacher {choice.model}: its run {choice.run} has no record yet")
        if row[0]["status"] != "done":
            raise TeacherFailed(f"teacher {choice.model}: its run {choice.run} has {row[0]['status']}")
        file, sha256, stated = store.student_weights(choice.run), row[0]["weights_sha256"], row[0][score]
        tolerance = RUN_SCORE_TOLERANCE
    source = TeacherSource.of_run(science, choice, file, sha256)
    teacher = load_teacher(source, stated, on, task, device, ranks, tolerance)
    if teacher.note:
        print(teacher.note, flush=True)
    print(f"teacher {teacher.name}: {_measured(teacher, on, task)}, sha256 {sha256}", flush=True)
    # A trained teacher's run has its predictions already.
    if isinstance(choice, Given) and teacher.predictions is not None and ranks.rank == 0:
        path = store.teacher_predictions(science.teacher_evaluation_id(on.name))
        checksums.write_with_sum(path, teacher.predictions)
    return teacher


def _measured(teacher: Teacher, on: EvalSet, task: Task) -> str:
    return f"{task.info.shown} {percent(teacher.score)} measured ({on.name})"
