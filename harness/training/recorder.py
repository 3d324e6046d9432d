"""What becomes of a pack's training: progress, checkpoints, weights, records and failures, as files in the store."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import hardware
from harness.data.load import arrays
from harness.errors import UserError
from harness.models.checkpoints import WeightsError
from harness.spec.science import Science, Trained
from harness.spec.tasks import METRICS
from harness.store import files, provenance, records
from harness.store.schema import COST_PARTS
from harness.store.store import Store
from harness.training import checkpoint
from harness.training.distributed.ranks import ONE_RANK, Ranks
from harness.training.member import Member
from harness.training.teacher import Teacher
from harness.training.teacher_logits import WrongLogits

CHECKPOINT_SECONDS = float(os.environ.get("KD_CHECKPOINT_SECONDS", "60"))
PROGRESS_SECONDS = 1.0


class Interrupted(BaseException):
    """The job was told to stop. No failure: the runs go on from their checkpoints. Like KeyboardInterrupt, it is
    not an Exception, so that nothing takes it for a member's own failure."""


class Wish(IntEnum):
    """Where the processes differ, they do the greatest."""

    GO_ON = 0
    CHECKPOINT = 1
    STOP = 2  # with checkpoints


@dataclass
class RunRecorder:
    """Turns a pack's progress into files: progress, checkpoints, weights, records, failures."""

    store: Store
    log: str
    should_stop: Callable[[], bool]
    threads: int
    started: float
    device: torch.device
    sciences: dict[str, Science]
    ranks: Ranks = ONE_RANK
    train_size: int = 0
    decoder: str = ""  # of stored images
    evaluated_on: str = "test"
    evaluated_size: int = 0
    pack_size: int = 0
    teacher: Teacher | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    _told: float = 0.0
    _saved: float = field(default_factory=time.monotonic)  # when the last checkpoints were written
    _pace: dict[str, tuple[float, int]] = field(
        default_factory=dict
    )  # run_id -> when and at which step we first looked

    def on_step(self, members: dict[str, Member], steps_per_epoch: int) -> None:
        """Progress and, when due, checkpoints. Training goes on when the disk has no room for one.

        Raises:
            Interrupted: the job was told to stop; every member is checkpointed.
        """
        due = time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        wish = self.agreed(Wish.CHECKPOINT if due else Wish.GO_ON)
        self._show_progress(members, steps_per_epoch)
        if wish is not Wish.GO_ON:
            for run_id, member in members.items():
                done = member.history.epoch + member.first_stage.epochs
                try:
                    checkpoint.save(
                        self.store.checkpoints(run_id), done, member.steps, member.tensors(), member.state()
                    )
                except files.DiskFull as e:
                    print(f"{run_id} has no new checkpoint: {e}", flush=True)
            self._saved = time.monotonic()
        if wish is Wish.STOP:
            raise Interrupted

    def agreed(self, mine: Wish) -> Wish:
        """What all processes do after this step, where this one would do ``mine`` if it is not told to stop."""
        return Wish(self.ranks.all_reduce_max(Wish.STOP if self.should_stop() else mine, self.device))

    def _show_progress(self, members: dict[str, Member], steps_per_epoch: int) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        for run_id, member in members.items():
            stage, epoch, epochs = training_position(member)
            at = (member.history.epoch + member.first_stage.epochs) * steps_per_epoch + member.steps
            end = (member.recipe.epochs + member.first_stage.epochs) * steps_per_epoch
            began, first = self._pace.setdefault(run_id, (now, at))
            left = (now - began) / (at - first) * (end - at) if at > first else None
            score = member.task.info.score
            reached = {score: member.history.last[score] if member.history.last else None}
            self.store.write_progress(
                run_id, stage=stage, epoch=epoch, epochs=epochs, fraction=at / end, seconds_left=left, **reached
            )

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        history = member.history
        shown = {name: f"{value:.4f}" for epoch, name, value in history.curves if epoch == history.epoch}
        method = member.science.method.use
        if history.epoch > 0:
            where = f"epoch {history.epoch}/{member.recipe.epochs}"
        else:
            where = f"first stage, epoch {history.epoch + member.first_stage.epochs}/{member.first_stage.epochs}"
        print(f"{run_id} {method} {where} {_pairs(shown)}", flush=True)
        for warning in history.warnings:
            print(f"{run_id} {method} WARNING {warning}", flush=True)
        if finished:
            self._record(run_id, member)

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        note_failure(self.store, [run_id], error, details, self.log)

    def _record(self, run_id: str, member: Member) -> None:
        weights_file = self.store.student_weights(run_id)
        tensors = {k: v.detach().contiguous().cpu() for k, v in member.trained_tensors().items()}
        files.replace(weights_file, lambda path: save_file(tensors, path))
        weights_sha256 = files.sha256(weights_file)
        if member.predictions is not None:
            predictions = member.predictions
            files.replace(self.store.predictions(run_id), lambda path: path.write_bytes(predictions))
        science, history = member.science, member.history
        teacher = self.teacher if science.teacher else None
        commit, dirty = provenance.git_state()
        none: dict[str, float | None] = {}
        last, best = (none if history.diverged else history.last or none), history.best or none
        costs = {p: history.costs.get(p, 0.0) for p in COST_PARTS}
        row = {
            "run_id": run_id,
            "status": "diverged" if history.diverged else "done",
            "dataset": science.dataset.name,
            "dataset_version": science.dataset.version,
            "train_size": self.train_size,
            "evaluated_on": self.evaluated_on,
            "evaluated_size": self.evaluated_size,
            "student": science.student,
            "student_parameters": count_parameters(member.student.parameters()),
            "evaluated_parameters": count_parameters(member.evaluated_model.parameters()),
            "teacher": teacher.name if teacher else None,
            "teacher_run": science.teacher.run if isinstance(science.teacher, Trained) else None,
            "teacher_sha256": teacher.sha256 if teacher else None,
            **{f"teacher_{m}": teacher.metrics.get(m) if teacher else None for m in METRICS},
            "method": science.method.use,
            "method_parameters": count_parameters(p for p in member.distiller.parameters() if p.requires_grad),
            "seed": science.seed,
            "epochs": science.recipe.epochs,
            "precision": science.recipe.precision,
            "science": science.text,
            **{f"last_{m}": last.get(m) for m in METRICS},
            **{f"best_{m}": best.get(m) for m in METRICS},
            "best_epoch": history.best_epoch,
            "warnings": history.warnings,
            "curves": [{"epoch": e, "name": n, "value": v} for e, n, v in history.curves],
            **{f"cost_{p}_s": seconds for p, seconds in costs.items()},
            "cost_total_s": sum(costs.values()),
            "pack_size": self.pack_size,
            "peak_memory_bytes": self._peak_memory(),
            "weights_sha256": weights_sha256,
            "git_commit": commit,
            "git_dirty": dirty,
            "versions": provenance.versions(self.decoder),
            "hardware": torch.cuda.get_device_name() if self.device.type == "cuda" else hardware.cpu_name(),
            "threads": self.threads,
            "processes": self.ranks.world_size,
            "host": os.uname().nodename,
            "attempts": self.attempts[run_id],
            "started_at": datetime.fromtimestamp(self.started, UTC),
            "finished_at": datetime.now(UTC),
        }
        # Before the record: who sees that tells the result from here.
        self.store.write_progress(
            run_id, stage="main", epoch=history.epoch, epochs=row["epochs"], fraction=1.0, seconds_left=0.0,
            **{member.task.info.score: last.get(member.task.info.score)},
        )  # fmt: skip
        records.write_record(self.store, row)
        shutil.rmtree(self.store.checkpoints(run_id), ignore_errors=True)
        self.store.archive_failure(run_id)

    def _peak_memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved()  # graphs hold theirs, whether or not it is in use
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_parameters(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def training_position(member: Member) -> tuple[str, int, int]:
    """The stage that is running, ``first`` or ``main``, its finished epochs, and how many it has."""
    if member.in_first_stage:
        return "first", member.history.epoch + member.first_stage.epochs, member.first_stage.epochs
    return "main", member.history.epoch, member.recipe.epochs


def _pairs(values: dict[str, str]) -> str:
    return " ".join(f"{k}={v}" for k, v in values.items())


@dataclass
class FollowerRecorder:
    """What the further processes of a run tell: nothing but failures. They stop when the first does, and give what they
    hold of a checkpoint when it writes one."""

    reporter: RunRecorder

    def on_step(self, members: dict[str, Member], steps_per_epoch: int) -> None:
        wish = self.reporter.agreed(Wish.GO_ON)
        if wish is not Wish.GO_ON:
            for member in members.values():
                member.tensors()
        if wish is Wish.STOP:
            raise Interrupted

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        pass

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        self.reporter.on_failure(run_id, error, details)


def note_failure(store: Store, run_ids: list[str], error: BaseException, details: str, log: str) -> None:
    """Notes why runs have no record. A full disk may refuse even that; the log has it then."""
    of_data = (WeightsError, arrays.WrongData, WrongLogits, UserError)
    kind = "disk" if isinstance(error, files.DiskFull) else "data" if isinstance(error, of_data) else "code"
    cause = str(error) if kind != "code" else f"{type(error).__name__}: {error}".splitlines()[0]
    for run_id in run_ids:  # before the log takes what little room a full disk may have left
        try:
            store.write_failure(run_id, kind, cause, details, log)
        except (OSError, files.DiskFull) as e:
            print(f"the failure of {run_id} could not be noted: {e}", flush=True)
    print(f"FAILED {', '.join(run_ids)}: {cause}\n{details}", flush=True)
