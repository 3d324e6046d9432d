"""The process of a probe, which times a few steps of a pack: ``python -m harness.training.probe ORDER.json``.

``harness.planning.cost.probe`` starts it. The pack trains as in a job, in a temporary store, and is then stopped.
"""

import hashlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from harness import hardware
from harness.spec.science import Given, Science, Several, Trained
from harness.store import files
from harness.store.store import Store
from harness.training.job import run_job
from harness.training.job_order import JobOrder, WeightsFile
from harness.training.probe_order import FIRST_STAGE, ProbeAnswer, ProbeOrder
from harness.training.tasks import open_task
from harness.training.untrained_weights import write_untrained_weights

PARTS = 4  # of the timed steps, whose mean paces are reported
WARM_UP = 3  # steps: on a GPU the first runs eagerly, the second is captured, the third replayed


@dataclass
class Clock:
    """A pack's ``should_stop``: it is called after every step and times the steps."""

    steps: int  # the most steps to time
    seconds: float  # the most seconds to take, if at least one pace is known
    per_epoch: int
    at_once: int  # steps that are timed together: on a GPU, waiting for each would slow it down
    first_step_at: float | None = None  # time.monotonic() after the first step
    paces: list[float] = field(default_factory=list)  # seconds per step
    _done: int = 0
    _last: tuple[int, float] | None = None  # the step that was last timed, and its perf_counter()

    def __call__(self) -> bool:
        self._done += 1
        self.first_step_at = self.first_step_at or time.monotonic()
        timed = self._done - min(WARM_UP, self.per_epoch)
        if timed < 0 or timed % self.at_once:
            return False
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last and self._epoch(self._last[0]) == self._epoch(self._done):  # otherwise an evaluation lies between
            self.paces.append((now - self._last[1]) / self.at_once)
        self._last = (self._done, now)
        return timed >= self.steps or bool(self.paces) and time.monotonic() - self.first_step_at > self.seconds

    def _epoch(self, step: int) -> int:
        """Return the epoch, from 0, of a step, from 1. If an epoch is one step, all steps count as one epoch."""
        return (step - 1) // self.per_epoch if self.per_epoch > 1 else 0


@dataclass
class PackTiming:
    """The timing of a pack."""

    clock: Clock
    left_out: dict[int, str]  # position of a run that it does not cover -> why
    checkpoint_bytes: int


def main() -> None:
    order = ProbeOrder.read(Path(sys.argv[1]))
    pack = {i: Science.from_json(science) for i, science in enumerate(order.sciences)}
    since = order.started_at
    timing = measure_pack(pack, Path(order.folder) / "first", order)
    left_out = timing.left_out
    if FIRST_STAGE in left_out.values():  # the other runs have waited for that stage
        pack = {i: science for i, science in pack.items() if i not in left_out}
        since = time.monotonic()
        if pack:
            timing = measure_pack(pack, Path(order.folder) / "second", order)
            left_out |= timing.left_out
    measured = [i for i in pack if i not in left_out]
    ProbeAnswer(
        measured=measured,
        left_out={str(i): why for i, why in left_out.items()},
        seconds_per_step=mean_paces(timing.clock.paces) if measured else [],
        start_s=(timing.clock.first_step_at or since) - since,
        checkpoint_bytes=timing.checkpoint_bytes,
        hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else hardware.cpu_name(),
    ).write(Path(order.answer))


def mean_paces(paces: list[float]) -> list[float]:
    """Return the mean paces of ``PARTS`` equal parts of consecutive steps, or of single steps if there are fewer."""
    return [float(part.mean()) for part in np.array_split(np.array(paces), min(PARTS, len(paces)))] if paces else []


def measure_pack(pack: Mapping[int, Science], folder: Path, order: ProbeOrder) -> PackTiming:
    """Train the pack in a store of its own, ``folder``, until the clock stops it."""
    store = Store(folder)
    weights: dict[str, WeightsFile] = {}
    run_ids = {}
    for i, science in pack.items():
        # The weights that a network starts from do not change its speed, and may not be on this machine.
        science = replace(science, backbone=None, start=None)
        if science.teacher:
            files_of = [_untrained(science, teacher, folder) for teacher in science.teachers]
            weights |= {teacher.weights_id: WeightsFile(str(file)) for teacher, file in files_of}
            given = tuple(teacher for teacher, _ in files_of)
            science = replace(science, teacher=given[0] if len(given) == 1 else Several(given))
        run_ids[i] = science.run_id
        store.write_science(run_ids[i], science)
    one = next(iter(pack.values()))
    per_epoch = one.recipe.epoch_steps or -(-one.images_per_pass // one.recipe.batch_size)
    at_once = 5 if torch.cuda.is_available() and per_epoch > order.steps else 1
    clock = Clock(order.steps, order.seconds, per_epoch, at_once)
    run_job(JobOrder(str(folder), tuple(run_ids.values()), order.data, weights, order.threads), clock)
    left_out = {i: FIRST_STAGE for i, run_id in run_ids.items() if store.progress(run_id).get("stage") == "first"}
    left_out |= {i: failure.cause for i, run_id in run_ids.items() if (failure := store.failure(run_id))}
    checkpoints = (path for run_id in run_ids.values() for path in sorted(store.checkpoints(run_id).glob("*"))[-1:])
    return PackTiming(clock, left_out, sum(path.stat().st_size for path in checkpoints))


def _untrained(science: Science, teacher: Trained | Given, folder: Path) -> tuple[Given, Path]:
    """Write untrained weights for one of a science's teachers; return it with them, and their file."""
    name = teacher.model
    file = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"
    if not file.exists():
        write_untrained_weights(open_task(science.dataset, science.recipe), name, file)
    own = teacher.normalisation if isinstance(teacher, Given) else None
    return Given(name, files.sha256(file), **(own._asdict() if own else {})), file


if __name__ == "__main__":
    main()
