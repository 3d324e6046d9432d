"""What runs on a node: one pack, from its runs' ids to their records. It needs the store and no driver."""

import hashlib
import json
import os
import resource
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.data import raw
from harness.data.catalog import CATALOG
from harness.data.resident import Normalise, TrainLoader
from harness.errors import UserError
from harness.spec import identity
from harness.spec.estimate import timing_key
from harness.spec.schema import Recipe
from harness.store import files, provenance, records
from harness.store.store import Store
from harness.training import checkpoint
from harness.training.evaluate import TestSet
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.teacher import BadWeights, Teacher, load_teacher

# Seconds between checkpoints of a run; an epoch longer than this is always followed by one.
CHECKPOINT_SECONDS = float(os.environ.get("KD_CHECKPOINT_SECONDS", "15"))
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class PackJob:
    """Everything a job is told. Only ``run_ids`` is science; the rest says where and with what."""

    store: str
    run_ids: tuple[str, ...]
    data_root: str | None
    weights: dict[str, dict[str, Any]]  # sha256 -> {"file", "top1"} of given teacher weights
    threads: int
    log: str = ""


def run_pack(job: PackJob) -> None:
    """Trains the pack's runs that have no record yet and that no other process is training."""
    store = Store(Path(job.store))
    done = store.done_ids()
    locks = {k: files.Lock(store.run_lock(k)) for k in job.run_ids if k not in done}
    mine = [k for k, lock in locks.items() if lock.acquire()]
    mine = [k for k in mine if k not in store.done_ids()]  # another job may have finished it just before the lock
    if not mine:
        print("nothing to do: every run is done or in training elsewhere", flush=True)
        return
    try:
        _train(job, store, mine)
    except Exception as error:
        _fail(store, mine, error, traceback.format_exc(), job.log)
    finally:
        for lock in locks.values():
            lock.release()


def _train(job: PackJob, store: Store, run_ids: list[str]) -> None:
    started = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sciences = {k: store.read_science(k) for k in run_ids}
    saved = {k: checkpoint.load_newest(store.checkpoints(k)) for k in run_ids}
    # Resuming with the thread count of the first attempt keeps sums in the same order, bit for bit.
    threads = next((state["threads"] for _, state in filter(None, saved.values())), job.threads)
    torch.set_num_threads(threads)
    reporter = _Reporter(store, job.log, threads, started, device, sciences)
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
    reporter.teacher = teacher = _teacher(job, store, sciences, test, info.image_shape, info.classes, device)

    members: dict[str, Member] = {}
    for k, science in sciences.items():
        try:
            members[k] = Member(
                science, teacher.spec if teacher else None, train_targets, info.image_shape, info.classes, device
            )
            if (found := saved[k]) is not None:
                members[k].restore(found[0], found[1]["history"])
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
        if not row:
            raise BadWeights(f"teacher {wanted['model']}: its run {wanted['run']} has no record")
        if row[0]["status"] != "done":
            raise BadWeights(f"teacher {wanted['model']}: its run {wanted['run']} has {row[0]['status']}")
        file, sha256, top1 = store.student_weights(wanted["run"]), row[0]["weights_sha256"], row[0]["last_top1"]
    teacher = load_teacher(wanted["model"], file, sha256, top1, test, image_shape, num_classes, device)
    print(f"teacher {teacher.name}: top-1 {teacher.top1:.2f} % measured, sha256 {sha256}", flush=True)
    return teacher


def _fail(store: Store, run_ids: list[str], error: BaseException, details: str, log: str) -> None:
    """Notes why runs have no record. A full disk may refuse even that; the log has it then."""
    kinds = ((files.DiskFull, "disk"), (BadWeights, "data"), (raw.WrongData, "data"), (UserError, "data"))
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "code")
    cause = str(error) if kind != "code" else f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"FAILED {', '.join(run_ids)}: {cause}\n{details}", flush=True)
    for run_id in run_ids:
        try:
            store.write_failure(run_id, kind, cause, details, log)
        except (OSError, files.DiskFull) as e:
            print(f"the failure of {run_id} could not be noted: {e}", flush=True)


@dataclass
class _Reporter:
    """Turns a pack's progress into files: progress, checkpoints, weights, records, failures."""

    store: Store
    log: str
    threads: int
    started: float
    device: torch.device
    sciences: dict[str, dict[str, Any]]
    train_size: int = 0
    test_size: int = 0
    pack_size: int = 0
    teacher: Teacher | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    _first_step: tuple[float, int] | None = None
    _told: float = 0.0
    _saved: dict[str, float] = field(default_factory=dict)
    _top1: dict[str, float] = field(default_factory=dict)

    def on_batch(self, run_ids: list[str], epoch: int, step: int, steps: int) -> None:
        now = time.monotonic()
        finished = epoch * steps + step + 1
        if self._first_step is None:
            self._first_step = (now, finished)
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        pace = (now - self._first_step[0]) / max(1, finished - self._first_step[1])
        for k in run_ids:
            epochs = self.sciences[k]["recipe"]["epochs"]
            left = pace * (epochs * steps - finished) if finished > self._first_step[1] else None
            fraction = finished / (epochs * steps)
            self.store.write_progress(
                k, epoch=epoch, epochs=epochs, fraction=fraction, top1=self._top1.get(k), seconds_left=left
            )

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        history = member.history
        if history.last:
            self._top1[run_id] = history.last["top1"]
        shown = {name: f"{value:.4f}" for epoch, name, value in history.curves if epoch == history.epoch}
        method = member.science["method"]["use"]
        print(f"{run_id} {method} epoch {history.epoch}/{member.recipe.epochs} {_pairs(shown)}", flush=True)
        if finished:
            self._record(run_id, member)
        elif time.monotonic() - self._saved.setdefault(run_id, self._told or time.monotonic()) >= CHECKPOINT_SECONDS:
            state = {"history": history.__dict__, "threads": self.threads}
            checkpoint.save(self.store.checkpoints(run_id), history.epoch, member.tensors(), state)
            self._saved[run_id] = time.monotonic()

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        _fail(self.store, [run_id], error, details, self.log)

    def _record(self, run_id: str, member: Member) -> None:
        weights_file = self.store.student_weights(run_id)
        tensors = {k: v.detach().contiguous().cpu() for k, v in member.student.state_dict().items()}
        files.replace(weights_file, lambda path: save_file(tensors, path))
        with weights_file.open("rb") as f:
            weights_sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        science, history = member.science, member.history
        teacher = self.teacher if science["teacher"] else None
        commit, dirty = provenance.git_state()
        none: dict[str, float] = {}
        last, best = (none if history.diverged else history.last or none), history.best or none
        costs = {p: history.costs.get(p, 0.0) for p in ("data", "teacher", "student", "method", "evaluation")}
        if teacher is None:
            costs["teacher"] = 0.0
        row = {
            "run_id": run_id,
            "status": "diverged" if history.diverged else "done",
            "dataset": science["dataset"]["name"],
            "dataset_version": science["dataset"]["version"],
            "train_size": self.train_size,
            "test_size": self.test_size,
            "student": science["student"],
            "student_parameters": sum(p.numel() for p in member.student.parameters()),
            "teacher": teacher.name if teacher else None,
            "teacher_run": (science["teacher"] or {}).get("run"),
            "teacher_sha256": teacher.sha256 if teacher else None,
            "teacher_top1": teacher.top1 if teacher else None,
            "method": science["method"]["use"],
            "method_parameters": sum(p.numel() for p in member.distiller.parameters()),
            "seed": science["seed"],
            "epochs": science["recipe"]["epochs"],
            "precision": science["recipe"]["precision"],
            "science": identity.canonical(science),
            **{f"last_{m}": last.get(m) for m in ("top1", "top5", "loss")},
            **{f"best_{m}": best.get(m) for m in ("top1", "top5", "loss")},
            "best_epoch": history.best_epoch,
            "curves": [{"epoch": e, "name": n, "value": v} for e, n, v in history.curves],
            **{f"cost_{p}_s": seconds for p, seconds in costs.items()},
            "cost_total_s": sum(costs.values()),
            "pack_size": self.pack_size,
            "peak_memory_bytes": self._peak_memory(),
            "weights_sha256": weights_sha256,
            "git_commit": commit,
            "git_dirty": dirty,
            "versions": provenance.versions(),
            "hardware": torch.cuda.get_device_name() if self.device.type == "cuda" else provenance.cpu_name(),
            "threads": self.threads,
            "host": os.uname().nodename,
            "attempts": self.attempts[run_id],
            "started_at": datetime.fromtimestamp(self.started, UTC),
            "finished_at": datetime.now(UTC),
        }
        records.write(self.store, row)
        self.store.write_progress(
            run_id, epoch=history.epoch, epochs=row["epochs"], fraction=1.0, top1=row["last_top1"], seconds_left=0.0
        )
        self.store.forget_failure(run_id)
        seconds_per_epoch = row["cost_total_s"] / history.epoch
        files.replace_json(self.store.timing(timing_key(science)), seconds_per_epoch, durable=False)

    def _peak_memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _pairs(values: dict[str, str]) -> str:
    return " ".join(f"{k}={v}" for k, v in values.items())


def main() -> None:
    """``python -m harness.training.job JSON``: a pack without a scheduler, as the tests and the profiler want it."""
    import sys

    run_pack(PackJob(**{**(spec := json.loads(sys.argv[1])), "run_ids": tuple(spec["run_ids"])}))


if __name__ == "__main__":
    main()
