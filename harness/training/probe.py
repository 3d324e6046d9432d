"""A few steps of a pack, timed: ``python -m harness.training.probe ORDER.json``, as harness.planning.cost.probe asks.

The pack trains as a job would train it, in a store that is thrown away, and is told to stop.
"""

import hashlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from harness import hardware
from harness.spec.science import Given, Science
from harness.store import files
from harness.store.store import Store
from harness.training.job import run_pack
from harness.training.job_order import JobOrder, WeightsFile
from harness.training.probe_order import ProbeAnswer, ProbeOrder
from harness.training.tasks import open_task

PARTS = 4  # of the timed steps: the mean of each is told
WARM_UP = 3  # steps: on a GPU the first is done as it stands, the second recorded, the third played
FIRST_STAGE = "it begins with a first stage, which is not probed"


@dataclass
class Clock:
    """Asked after every step whether to stop; takes the steps' times meanwhile."""

    steps: int  # that are timed, at most
    seconds: float  # for them, at most, unless there is no pace by then
    per_epoch: int
    at_once: int  # steps that are timed together: on a GPU, waiting for each would slow it down
    began: float | None = None  # when the first step was done, as time.time() has it
    paces: list[float] = field(default_factory=list)  # seconds per step
    _seen: int = 0
    _last: tuple[int, float] | None = None  # a step, and when it was done

    def __call__(self) -> bool:
        self._seen += 1
        self.began = self.began or time.time()
        timed = self._seen - min(WARM_UP, self.per_epoch)
        if timed < 0 or timed % self.at_once:
            return False
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last and self._epoch(self._last[0]) == self._epoch(self._seen):  # else an evaluation lies between
            self.paces.append((now - self._last[1]) / self.at_once)
        self._last = (self._seen, now)
        return timed >= self.steps or bool(self.paces) and time.time() - self.began > self.seconds

    def _epoch(self, step: int) -> int:
        """Of the ``step``-th, from 1; where an epoch is one step, all count as one."""
        return (step - 1) // self.per_epoch if self.per_epoch > 1 else 0


@dataclass
class Measured:
    """Of some of a pack's runs, by their positions."""

    clock: Clock
    failed: dict[int, str]
    first_stage: list[int]
    checkpoint_bytes: int


def main() -> None:
    order = ProbeOrder.read(Path(sys.argv[1]))
    pack = {i: Science.from_json(science) for i, science in enumerate(order.sciences)}
    since = order.started_at
    found = measure_pack(pack, Path(order.folder) / "first", order)
    left_out = dict.fromkeys(found.first_stage, FIRST_STAGE) | found.failed
    if found.first_stage:  # the others have waited for it
        pack = {i: science for i, science in pack.items() if i not in left_out}
        since = time.time()
        if pack:
            found = measure_pack(pack, Path(order.folder) / "second", order)
            left_out |= found.failed
    measured = [i for i in pack if i not in left_out]
    ProbeAnswer(
        measured=measured,
        left_out={str(i): why for i, why in left_out.items()},
        seconds_per_step=mean_paces(found.clock.paces) if measured else [],
        start_s=(found.clock.began or since) - since,
        checkpoint_bytes=found.checkpoint_bytes,
        hardware=torch.cuda.get_device_name() if torch.cuda.is_available() else hardware.cpu_name(),
    ).write(Path(order.answer))


def mean_paces(paces: list[float]) -> list[float]:
    """Of ``PARTS`` runs of consecutive steps, as long as each other to a step, or of as many as there are steps."""
    return [float(part.mean()) for part in np.array_split(np.array(paces), min(PARTS, len(paces)))] if paces else []


def measure_pack(pack: Mapping[int, Science], folder: Path, order: ProbeOrder) -> Measured:
    """Trains in a store of its own, ``folder``, until the clock says stop."""
    store = Store(folder)
    weights: dict[str, WeightsFile] = {}
    names = {}
    for i, science in pack.items():
        # What a detector's backbone starts from takes no time: such weights need not be here.
        science = replace(science, backbone=None)
        if science.teacher:
            sha256, file = _untrained(science, science.teacher.model, folder)
            weights[sha256] = WeightsFile(str(file))
            science = replace(science, teacher=Given(science.teacher.model, sha256))
        names[i] = science.run_id
        store.write_science(names[i], science)
    one = next(iter(pack.values()))
    per_epoch = one.recipe.epoch_steps or -(-one.dataset.train_images // one.recipe.batch_size)
    at_once = 5 if torch.cuda.is_available() and per_epoch > order.steps else 1
    clock = Clock(order.steps, order.seconds, per_epoch, at_once)
    run_pack(JobOrder(str(folder), tuple(names.values()), order.data, weights, order.threads), clock)
    failures = {i: failure.cause for i, run_id in names.items() if (failure := store.failure(run_id))}
    first = [i for i, run_id in names.items() if store.progress(run_id).get("stage") == "first"]
    files = (path for run_id in names.values() for path in sorted(store.checkpoints(run_id).glob("*"))[-1:])
    return Measured(clock, failures, first, sum(path.stat().st_size for path in files))


def _untrained(science: Science, name: str, folder: Path) -> tuple[str, Path]:
    """Weights for a science's teacher, of that name: their sha256 and file."""
    file = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        state = open_task(science.dataset, science.recipe).build(name).state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, file)
    return files.sha256(file), file


if __name__ == "__main__":
    main()
