"""A job on a node: it trains one pack, from its runs' ids to their records. It needs the store but no driver."""

import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from harness import hardware
from harness.data.load.fixed_epochs import FixedEpochs
from harness.data.load.loader import EvalSet, Loader
from harness.data.load.source import open_source
from harness.phrases import percent, plural
from harness.spec import identity
from harness.spec.science import SHARED_RECIPE, Given, Science, recipe_json
from harness.store import files, records
from harness.store.store import Store
from harness.training import checkpoint, host_memory
from harness.training.cuda.graph import capture_cuda_graph
from harness.training.cuda.streams import raise_stream_limit
from harness.training.distributed.ranks import LostRank, Ranks, join_ranks
from harness.training.engines.base import MakeEngine
from harness.training.engines.deepspeed import DeepSpeedEngine
from harness.training.engines.native import NativeEngine
from harness.training.job_order import JobOrder
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.recorder import Interrupted, RunRecorder, TeacherFailed, write_failure
from harness.training.tasks import Task, open_task
from harness.training.teacher import Teacher, load_teacher
from harness.training.teacher_logits import CachedLogits


class TeacherNotReady(Exception):
    """The teacher has neither record nor failure yet: its training was interrupted and will be resumed."""


def run_pack(
    order: JobOrder, should_stop: Callable[[], bool] = lambda: False, log: str = "", began: float | None = None
) -> bool:
    """Train the pack's runs that have no record yet and that no other process is training.

    ``should_stop`` is called after every step. When it returns True, all runs are checkpointed and False is returned;
    else, the return value is True.
    Several processes that call this with the same ``order`` and torchrun's variables train the pack together.
    ``log`` is the file that this process prints to; ``began`` the time at which it started, if not just now.

    Raises:
        LostRank: another rank is gone; the runs resume from their checkpoints when all ranks are started again.
    """
    host_memory.retain_freed_memory()
    raise_stream_limit()
    store = Store(Path(order.store))
    locks: dict[str, files.Lock] = {}
    try:
        with join_ranks() as ranks:
            if ranks.rank == 0:
                locks = _lock(store, order.run_ids)
            groups = ranks.broadcast_json("groups", _by_threads(order, store, list(locks)))
            started = began or time.time()
            if not groups:
                print("nothing to do: every run is done, failed or in training elsewhere", flush=True)
            for threads, run_ids in groups:
                try:
                    _train(order, store, run_ids, threads, should_stop, ranks, log, started)
                except TeacherNotReady as e:
                    print(f"not trained now: {e}", flush=True)
                except Exception as error:
                    unfinished = sorted(set(run_ids) - store.done_ids() - store.failed_ids())
                    write_failure(store, unfinished, error, traceback.format_exc(), log)
                    ranks.confirm_failure(f"pack {run_ids[0]}")
                started = time.time()
    except Interrupted:
        print("stopped by a signal: every run is checkpointed", flush=True)
        return False
    finally:
        for lock in locks.values():
            lock.release()
    return True


def _lock(store: Store, run_ids: tuple[str, ...]) -> dict[str, files.Lock]:
    """Lock the runs that are not done, failed or in training elsewhere; return the locks by run_id."""
    settled = store.done_ids() | store.failed_ids()
    locks = {k: files.Lock(store.run_lock(k)) for k in run_ids if k not in settled}
    mine = {k: lock for k, lock in locks.items() if lock.acquire()}
    done = store.done_ids()  # another job may have finished one just before the lock
    for k in [k for k in mine if k in done]:
        mine.pop(k).release()
    for k in mine:  # remove the files of a process that was killed while it was writing
        for partial_file in (
            *store.checkpoints(k).glob(".*.tmp"),
            *store.run(k).glob(f".{store.student_weights(k).name}.*.tmp"),
        ):
            partial_file.unlink(missing_ok=True)
    return mine


def _by_threads(order: JobOrder, store: Store, run_ids: list[str]) -> list[tuple[int, list[str]]]:
    """Group runs by the thread count of their first attempt: it fixes the order of sums, and so every bit."""
    groups: dict[int, list[str]] = {}
    for run_id in run_ids:
        first = next(iter(store.attempts(run_id)), {})
        groups.setdefault(first.get("threads", order.threads), []).append(run_id)
    return list(groups.items())


def _train(
    order: JobOrder, store: Store, run_ids: list[str], threads: int, should_stop: Callable[[], bool], ranks: Ranks,
    log: str, started: float,
) -> None:  # fmt: skip
    device = ranks.device()
    sciences = {k: store.read_science(k) for k in run_ids}
    checkpoints = {k: checkpoint.load_newest(store.checkpoints(k)) for k in run_ids}
    torch.set_num_threads(threads)
    recorded = run_ids if ranks.rank == 0 else []
    attempts = {k: store.add_attempt(k, log=log, pid=os.getpid(), threads=threads) for k in recorded}

    any_science = sciences[run_ids[0]]
    recipe = any_science.recipe
    set_float32(recipe.precision)
    dataset = any_science.dataset
    task = open_task(dataset, recipe, _backbone(order, any_science))
    source = open_source(dataset, recipe, Path(order.data) if order.data else None, device, threads)
    evaluated_on = source.evaluation()
    loader: Loader = source.training(recipe, any_science.seed, ranks.rows)
    if recipe.epoch_steps:
        loader = FixedEpochs(loader, recipe.epoch_steps)
    try:
        # A given teacher may have been trained on the images that are held out here.
        given = any(isinstance(s.teacher, Given) for s in sciences.values())
        on = source.evaluation(whole=True) if given and evaluated_on.name != "test" else evaluated_on
        teacher = _teacher(order, store, sciences, on, task, device, ranks)
    except TeacherNotReady:
        raise
    except Exception as error:  # it fails the runs that learn from the teacher; a plain student continues
        write_failure(store, [k for k in run_ids if sciences[k].teacher], error, traceback.format_exc(), log)
        ranks.confirm_failure("teacher of " + run_ids[0])
        sciences, teacher = {k: s for k, s in sciences.items() if not s.teacher}, None
    if teacher:
        rows = ranks.rows(recipe.batch_size)
        compiles = recipe.compile and device.type == "cuda"
        teacher.prepare(recipe.precision, rows.stop - rows.start if compiles else None)

    deepspeed = partial(DeepSpeedEngine, zero_stage=order.zero_stage)
    engine: MakeEngine = deepspeed if order.engine == "deepspeed" else NativeEngine
    members: dict[str, Member] = {}
    for k, science in sciences.items():
        try:
            members[k] = Member(science, teacher, source.train_targets, task, device, ranks, engine)
            if (saved := checkpoints[k]) is not None:
                members[k].restore(*saved)
        except Exception as error:
            members.pop(k, None)
            write_failure(store, [k], error, traceback.format_exc(), log)
            ranks.confirm_failure(k)
    where = f"{device}, {plural(threads, 'thread')}"
    if ranks.world_size > 1:
        where += f", process {ranks.rank} of {ranks.world_size}, engine {order.engine}"
        where += f" with ZeRO stage {order.zero_stage}" if order.engine == "deepspeed" else ""
    print(f"training {plural(len(members), 'run')} on {where}: {', '.join(members)}", flush=True)
    reached = [[k, m.history.epoch, m.steps] for k, m in members.items()]
    # A file system may show some nodes old files.
    if ranks.broadcast_json(f"reached {run_ids[0]}", reached) != reached:
        raise LostRank(f"process {ranks.rank} reads other checkpoints than process 0: {reached}")
    recorder = RunRecorder(
        store, log, should_stop, threads, started, device, ranks, source, evaluated_on, teacher, attempts, len(members)
    )
    capture = capture_cuda_graph if device.type == "cuda" and ranks.world_size == 1 and task.capturable else None
    logits = None
    if recipe.teacher_top_k and teacher:
        folder = store.logits(_logits_key(any_science, device, threads, ranks.world_size))
        size = len(source.train_targets)
        logits = CachedLogits(folder, recipe.teacher_top_k, size, dataset.info.classes, ranks)
    Pack(members, loader, evaluated_on, teacher, recorder, ranks, capture, logits).train()


def _backbone(order: JobOrder, science: Science) -> tuple[Path, str] | None:
    """Return the file and sha256 of the weights that the students' backbones start from; None where none are stated."""
    sha256 = science.backbone
    return None if sha256 is None else (Path(order.weights[sha256].file), sha256)


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
    choice = science.teacher
    assert choice is not None
    if isinstance(choice, Given):
        given = order.weights[choice.sha256]
        file, sha256, stated = Path(given.file), choice.sha256, given.score
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
    teacher = load_teacher(choice.model, file, sha256, stated, on, task, device, ranks)
    print(
        f"teacher {teacher.name}: {task.info.shown} {percent(teacher.score)} measured ({on.name}), sha256 {sha256}",
        flush=True,
    )
    # A trained teacher's run has its predictions already.
    if isinstance(choice, Given) and teacher.predictions is not None and ranks.rank == 0:
        content, path = teacher.predictions, store.teacher_predictions(science.teacher_evaluation_id(on.name))
        files.replace(path, lambda temporary: temporary.write_bytes(content))
    return teacher
