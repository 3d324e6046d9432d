"""What runs on a node: one pack, from its runs' ids to their records. It needs the store and no driver."""

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.data import raw
from harness.data.resident import Normalise, TrainLoader
from harness.spec.datasets import CATALOG
from harness.spec.schema import Recipe
from harness.store import files, records
from harness.store.store import Store
from harness.training import checkpoint, memory
from harness.training.evaluate import TestSet
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.reporter import Interrupted, Reporter, note_failure
from harness.training.teacher import BadWeights, Teacher, load_teacher


@dataclass(frozen=True)
class PackJob:
    """Everything a job is told. Only ``run_ids`` is science; the rest says where and with what."""

    store: str
    run_ids: tuple[str, ...]
    data_root: str | None
    weights: dict[str, dict[str, Any]]  # sha256 -> {"file", "top1"} of given teacher weights
    threads: int
    log: str = ""


class TeacherNotReady(Exception):
    """The teacher has neither record nor failure yet: its training was cut off, and will be taken up again."""


def run_pack(job: PackJob, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Trains the pack's runs that have no record yet and that no other process is training.

    ``should_stop`` is asked after every step; when it says so, all runs are checkpointed and False is returned.
    """
    memory.keep()
    store = Store(Path(job.store))
    settled = store.done_ids() | store.failed_ids()
    locks = {k: files.Lock(store.run_lock(k)) for k in job.run_ids if k not in settled}
    mine = [k for k, lock in locks.items() if lock.acquire()]
    mine = [k for k in mine if k not in store.done_ids()]  # another job may have finished it just before the lock
    if not mine:
        print("nothing to do: every run is done, failed or in training elsewhere", flush=True)
        return True
    try:
        for threads, run_ids in _by_threads(job, store, mine).items():
            try:
                _train(job, store, run_ids, threads, should_stop)
            except TeacherNotReady as e:
                print(f"left for later: {e}", flush=True)
            except Exception as error:
                left = sorted(set(run_ids) - store.done_ids())
                note_failure(store, left, error, traceback.format_exc(), job.log)
    except Interrupted:
        print("told to stop: every run is checkpointed", flush=True)
        return False
    finally:
        for lock in locks.values():
            lock.release()
    return True


def _by_threads(job: PackJob, store: Store, run_ids: list[str]) -> dict[int, list[str]]:
    """Runs by the thread count of their first attempt: keeping it keeps sums in the same order, bit for bit."""
    groups: dict[int, list[str]] = {}
    for run_id in run_ids:
        first = next(iter(store.attempts(run_id)), {})
        groups.setdefault(first.get("threads", job.threads), []).append(run_id)
    return groups


def _train(job: PackJob, store: Store, run_ids: list[str], threads: int, should_stop: Callable[[], bool]) -> None:
    started = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sciences = {k: store.read_science(k) for k in run_ids}
    saved = {k: checkpoint.load_newest(store.checkpoints(k)) for k in run_ids}
    torch.set_num_threads(threads)
    reporter = Reporter(store, job.log, should_stop, threads, started, device, sciences)
    for k in run_ids:
        reporter.attempts[k] = store.add_attempt(k, log=job.log, pid=os.getpid(), threads=threads)

    any_science = sciences[run_ids[0]]
    recipe = Recipe.model_validate(any_science["recipe"])
    info = CATALOG[any_science["dataset"]["name"]]
    data = raw.read(info.name, Path(job.data_root) if job.data_root else None)
    normalise = Normalise(info, device)
    images, targets = data.train_images, data.train_targets
    if (count := any_science["dataset"]["train_subset"]) is not None:
        kept = raw.subset(targets, count // info.classes)
        images, targets = images[kept], targets[kept]
    test = TestSet(
        torch.from_numpy(data.test_images).to(device), torch.from_numpy(data.test_targets).to(device), normalise
    )
    train_targets = torch.from_numpy(targets).to(device)
    loader = TrainLoader(
        torch.from_numpy(images).to(device),
        train_targets,
        normalise,
        batch_size=recipe.batch_size,
        crop_padding=recipe.crop_padding,
        flip=recipe.flip,
        seed=any_science["seed"],
    )
    reporter.train_size, reporter.test_size = len(train_targets), len(test.targets)
    try:
        teacher = _teacher(job, store, sciences, test, info.image_shape, info.classes, device)
    except TeacherNotReady:
        raise
    except Exception as error:  # fails the runs that learn from it; a student alone goes on
        note_failure(store, [k for k in run_ids if sciences[k]["teacher"]], error, traceback.format_exc(), job.log)
        sciences, teacher = {k: s for k, s in sciences.items() if not s["teacher"]}, None
    reporter.teacher = teacher

    members: dict[str, Member] = {}
    for k, science in sciences.items():
        try:
            members[k] = Member(
                science, teacher.spec if teacher else None, train_targets, info.image_shape, info.classes, device
            )
            if (found := saved[k]) is not None:
                members[k].restore(*found)
        except Exception as error:
            members.pop(k, None)
            reporter.on_failure(k, error, traceback.format_exc())
    reporter.pack_size = len(members)
    print(f"training {len(members)} runs on {device}, {threads} threads: {', '.join(members)}", flush=True)
    Pack(members, loader, test, teacher, reporter).train()


def _teacher(
    job: PackJob, store: Store, sciences: dict[str, Any], test: TestSet, image_shape: tuple[int, int, int],
    num_classes: int, device: torch.device,
) -> Teacher | None:  # fmt: skip
    wanted = next((s["teacher"] for s in sciences.values() if s["teacher"]), None)
    if wanted is None:
        return None
    if "sha256" in wanted:
        given = job.weights[wanted["sha256"]]
        file, sha256, top1 = Path(given["file"]), wanted["sha256"], given["top1"]
    else:
        row = records.read_fresh(store, [wanted["run"]]).to_pylist()
        if not row and (failure := store.failure(wanted["run"])):
            raise BadWeights(f"its teacher's run {wanted['run']} failed: {failure.cause}")
        if not row:
            raise TeacherNotReady(f"teacher {wanted['model']}: its run {wanted['run']} has no record yet")
        if row[0]["status"] != "done":
            raise BadWeights(f"teacher {wanted['model']}: its run {wanted['run']} has {row[0]['status']}")
        file, sha256, top1 = store.student_weights(wanted["run"]), row[0]["weights_sha256"], row[0]["last_top1"]
    teacher = load_teacher(wanted["model"], file, sha256, top1, test, image_shape, num_classes, device)
    print(f"teacher {teacher.name}: top-1 {teacher.top1:.2f} % measured, sha256 {sha256}", flush=True)
    return teacher
