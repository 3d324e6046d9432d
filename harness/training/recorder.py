"""The recorder: it writes a pack's progress, checkpoints, weights, records and failures into the store."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from harness import hardware
from harness.data.load import arrays
from harness.data.load.loader import EvalSet
from harness.data.load.source import Source
from harness.errors import UserError
from harness.models.checkpoints import WeightsError
from harness.spec.tasks import METRICS
from harness.store import checksums, files, live_curves, provenance, records
from harness.store.run_notes import retry_texts
from harness.store.schema import COST_PARTS, FIDELITY_COLUMNS
from harness.store.store import Store
from harness.training import checkpoint
from harness.training.distributed.ranks import Ranks
from harness.training.member import Member, Metrics
from harness.training.suspension import suspended_seconds
from harness.training.teacher import Teacher
from harness.training.teacher_logits import WrongLogits

PROGRESS_SECONDS = 1.0


class Interrupted(BaseException):
    """The job must stop. This is no failure: the runs will resume from their checkpoints.

    Like KeyboardInterrupt it is not an Exception, so that nothing takes it for a member's own failure.
    """


class TeacherFailed(Exception):
    """The run that trains the teacher failed or diverged, so its students cannot be trained."""


class NextAction(IntEnum):
    """The action after a step. If the ranks differ, all take the largest."""

    CONTINUE = 0
    CHECKPOINT = 1
    STOP = 2  # after a checkpoint


@dataclass(frozen=True)
class JobStart:
    """The start of a job's process. A duration comes from the steady clock, as the time of day may be set meanwhile."""

    steady: float  # time.monotonic()
    at: float  # seconds since 1970

    @classmethod
    def of(cls, steady: float | None = None) -> "JobStart":
        """Return the start at a time of the steady clock; None for now."""
        now = time.monotonic()
        steady = now if steady is None else steady
        return cls(steady, time.time() - (now - steady))

    def started_at(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def finished_at(self) -> datetime:
        """Return the time of now, as many seconds after the start as have passed."""
        return datetime.fromtimestamp(self.at + time.monotonic() - self.steady, UTC)


def _checkpoint_seconds() -> float:
    text = os.environ.get("KD_CHECKPOINT_SECONDS", "60")
    try:
        return float(text)
    except ValueError:
        raise UserError(f"KD_CHECKPOINT_SECONDS={text}: expected a number of seconds") from None


@dataclass
class RunRecorder:
    """The observer of a pack that writes files. Ranks after the first write only failures.

    They stop when the first rank does, and give their shards of a checkpoint when the first rank writes one.
    """

    store: Store
    log: str
    should_stop: Callable[[], bool]
    threads: int
    started: JobStart
    device: torch.device
    ranks: Ranks
    source: Source
    evalset: EvalSet
    teacher: Teacher | None
    attempts: dict[str, int]
    pack_size: int
    labels: Mapping[str, str]  # of the runs, for people
    checkpoint_seconds: float = field(default_factory=_checkpoint_seconds)
    _last_progress: float = 0.0  # the time at which progress was last written
    _last_checkpoint: float = field(default_factory=time.monotonic)
    _first_progress: dict[str, tuple[float, int]] = field(default_factory=dict)  # run_id -> time and step of the first

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        """Write progress and, when due, checkpoints, with the members' costs up to this step.

        Training continues if the disk is too full for a checkpoint.

        Raises:
            Interrupted: the job must stop; every member is checkpointed.
        """
        due = self.ranks.rank == 0 and time.monotonic() - self._last_checkpoint >= self.checkpoint_seconds
        proposed = NextAction.STOP if self.should_stop() else NextAction.CHECKPOINT if due else NextAction.CONTINUE
        action = NextAction(self.ranks.all_reduce_max(proposed, self.device))
        if self.ranks.rank == 0:
            self._write_progress(members, steps_per_epoch)
        if action is not NextAction.CONTINUE:
            share_costs()
            self._write_checkpoints(members)
        if action is NextAction.STOP:
            raise Interrupted

    def _write_checkpoints(self, members: dict[str, Member]) -> None:
        for run_id, member in members.items():
            tensors = member.tensors()  # of all ranks together
            if self.ranks.rank > 0:
                continue
            done = member.history.epoch + member.first_stage.epochs
            try:
                checkpoint.save(self.store.checkpoints(run_id), done, member.steps, tensors, member.state())
            except files.DiskFull as e:
                print(f"{run_id} has no new checkpoint: {e}", flush=True)
        self._last_checkpoint = time.monotonic()

    def _write_progress(self, members: dict[str, Member], steps_per_epoch: int) -> None:
        now = time.monotonic() - suspended_seconds()
        if now - self._last_progress < PROGRESS_SECONDS:
            return
        self._last_progress = now
        for run_id, member in members.items():
            stage, epoch, epochs = "main", member.history.epoch, member.recipe.last_epoch
            if member.in_first_stage:
                stage, epoch, epochs = "first", epoch + member.first_stage.epochs, member.first_stage.epochs
            step = (member.history.epoch + member.first_stage.epochs) * steps_per_epoch + member.steps
            last_step = (member.recipe.last_epoch + member.first_stage.epochs) * steps_per_epoch
            first_time, first_step = self._first_progress.setdefault(run_id, (now, step))
            seconds_left = (now - first_time) / (step - first_step) * (last_step - step) if step > first_step else None
            score = member.task.info.score
            last_score = {score: member.history.last[score] if member.history.last else None}
            self.store.write_progress(
                run_id, stage=stage, epoch=epoch, epochs=epochs, fraction=step / last_step, seconds_left=seconds_left,
                **last_score,
            )  # fmt: skip

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        """Print the epoch's curves and note them for who follows the run; write the record of a finished run."""
        if self.ranks.rank > 0:
            return
        history = member.history
        added = {name: value for epoch, name, value in history.curves if epoch == history.epoch}
        head = f"{time.strftime('%H:%M:%S')} {self.labels[run_id]}: "
        print(head + epoch_text(member, added), flush=True)
        live_curves.add_epoch(self.store, run_id, history.epoch, added)
        for warning in history.warnings:
            print(f"{head}WARNING {warning}", flush=True)
        if finished:
            self._record(run_id, member)

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        write_failure(self.store, [run_id], error, details, self.log)

    def _record(self, run_id: str, member: Member) -> None:
        weights_file = self.store.student_weights(run_id)
        tensors = {k: v.detach().contiguous().cpu() for k, v in member.trained_tensors().items()}
        files.replace(weights_file, lambda path: save_file(tensors, path))
        weights_sha256 = files.sha256(weights_file)
        self._write_best_weights(run_id, member)
        if member.predictions is not None:
            checksums.write_with_sum(self.store.predictions(run_id), member.predictions)
        science, history = member.science, member.history
        teacher = self.teacher if science.teacher else None
        commit, dirty = provenance.git_state()
        last: Metrics = {} if history.diverged else history.last or {}
        best: Metrics = history.best or {}
        costs = {p: history.costs.get(p, 0.0) for p in COST_PARTS}
        row = {
            "run_id": run_id,
            "status": "diverged" if history.diverged else "done",
            "dataset": science.dataset.name,
            "dataset_version": science.dataset.version,
            "train_size": len(self.source.train_targets),
            "evaluated_on": self.evalset.name,
            "evaluated_size": len(self.evalset.targets),
            "student": science.student,
            "student_parameters": count_parameters(member.student.parameters()),
            "evaluated_parameters": count_parameters(member.evaluated_model.parameters()),
            "teacher": teacher.name if teacher else None,
            "teacher_run": " + ".join(science.teacher_runs) or None,
            "teacher_sha256": teacher.sha256 if teacher else None,
            **{f"teacher_{m}": teacher.metrics.get(m) if teacher else None for m in METRICS},
            "method": science.method.use,
            "method_parameters": count_parameters(p for p in member.distiller.parameters() if p.requires_grad),
            "seed": science.seed,
            "epochs": science.recipe.last_epoch,
            "precision": science.recipe.precision,
            "science": science.text,
            **{f"last_{m}": last.get(m) for m in METRICS},
            **{f"best_{m}": best.get(m) for m in METRICS},
            "best_epoch": history.best_epoch,
            **{name: member.fidelity.get(name) for name in FIDELITY_COLUMNS},
            "warnings": history.warnings,
            "curves": [{"epoch": e, "name": n, "value": v} for e, n, v in history.curves],
            **{f"cost_{p}_s": seconds for p, seconds in costs.items()},
            "cost_total_s": sum(costs.values()),
            "pack_size": self.pack_size,
            "peak_memory_bytes": self._peak_memory(),
            "weights_sha256": weights_sha256,
            "git_commit": commit,
            "git_dirty": dirty,
            "versions": provenance.versions(self.source.decoder),
            "hardware": torch.cuda.get_device_name() if self.device.type == "cuda" else hardware.cpu_name(),
            "threads": self.threads,
            "processes": self.ranks.world_size,
            "host": os.uname().nodename,
            "attempts": self.attempts[run_id],
            "retries": retry_texts(self.store.attempts(run_id)),
            "started_at": self.started.started_at(),
            "finished_at": self.started.finished_at(),
        }
        # Before the record: whoever sees the record reads the result here.
        self.store.write_progress(
            run_id, stage="main", epoch=history.epoch, epochs=row["epochs"], fraction=1.0, seconds_left=0.0,
            **{member.task.info.score: last.get(member.task.info.score)},
        )  # fmt: skip
        records.write_record(self.store, row)
        live_curves.remove(self.store, run_id)
        shutil.rmtree(self.store.checkpoints(run_id), ignore_errors=True)
        self.store.archive_failure(run_id)

    def _write_best_weights(self, run_id: str, member: Member) -> None:
        if member.best_weights is not None:
            content = checksums.seal_bytes(save(member.best_weights, {checksums.KEY: checksums.ZEROS}))
            files.replace(self.store.best_weights(run_id), lambda path: path.write_bytes(content))
        elif member.keeps_best and (epoch := member.history.best_epoch):
            print(f"{run_id}: the weights of epoch {epoch}, the best, are lost: --keep-best came later", flush=True)

    def _peak_memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved()  # graphs hold their memory whether or not it is in use
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def epoch_text(member: Member, values: Mapping[str, float]) -> str:
    """Return ``epoch 3/240, lr 0.05, loss 1.2345, ce 1.1234, top-1 45.20 %``: an epoch that has ended, with the
    learning rate of its last step and what it has added to the curves."""
    history, info = member.history, member.task.info
    if history.epoch > 0:
        where = f"epoch {history.epoch}/{member.recipe.last_epoch}"
    else:
        where = f"first stage, epoch {history.epoch + member.first_stage.epochs}/{member.first_stage.epochs}"
    parts = [where, f"lr {member.last_lr:.4g}"]
    losses = {name.partition("_")[2]: x for name, x in values.items() if name.startswith(("train_", "first_"))}
    if "total" in losses:
        parts.append(f"loss {losses.pop('total'):.4f}")
    parts += [f"{name} {x:.4f}" for name, x in losses.items()]
    for name, x in values.items():
        on, _, metric = name.partition("_")
        if on not in ("train", "first"):
            parts.append(f"{info.shown} {x:.2f} %" if metric == info.score else f"{name} {x:.4f}")
    return ", ".join(parts)


def count_parameters(parameters: Iterable[Tensor]) -> int:
    """Return the number of values in these parameters."""
    return sum(p.numel() for p in parameters)


def kind_and_cause(error: BaseException) -> tuple[str, str]:
    """Return a failure's kind, see ``Failure``, and its cause in one line."""
    data_errors = (WeightsError, arrays.WrongData, WrongLogits, UserError)
    kinds = ((files.DiskFull, "disk"), (TeacherFailed, "teacher"), (data_errors, "data"))
    kind = next((kind for errors, kind in kinds if isinstance(error, errors)), "code")
    if kind != "code":
        return kind, str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return kind, ": ".join((type(error).__name__, *lines[:1]))


def write_failure(store: Store, run_ids: list[str], error: BaseException, details: str, log: str) -> None:
    """Write why runs have no record. If even that fails, as on a full disk, only the log has the cause."""
    kind, cause = kind_and_cause(error)
    for run_id in run_ids:  # before the log takes the last bytes of a full disk
        try:
            store.write_failure(run_id, kind, cause, details, log)
        except (OSError, files.DiskFull) as e:
            print(f"the failure of {run_id} could not be written: {e}", flush=True)
    print(f"FAILED {', '.join(run_ids)}: {cause}\n{details}", flush=True)
