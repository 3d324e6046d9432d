"""``sweep --probe``: a few steps of each kind of pack that the store has no similar runs of, in their own process."""

import os
import subprocess
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from harness.console.terminal import say
from harness.errors import Mistakes, UserError
from harness.phrases import plural, some
from harness.planning.cost.devices import Device, DeviceOf
from harness.planning.cost.pack import PackCosts
from harness.planning.cost.probe_results import ProbeResult
from harness.planning.cost.similar_runs import shape
from harness.planning.jobs import packs_to_do
from harness.planning.plan import Planned
from harness.spec.science import Science
from harness.store import files
from harness.training.probe_order import FIRST_STAGE, ProbeAnswer, ProbeOrder
from slurm.module_command import module_command

STEPS = 20  # to time, at most
SECONDS = 10.0  # to spend on them, at most
PATIENCE = 180.0  # seconds for a whole probe: data, models and the teacher's evaluation come before its steps


def probe(planned: Planned, to_do: Collection[str], device: DeviceOf, known: PackCosts, data: Path | None) -> None:
    """Time packs, and write the results into the store. ``data`` is the dataset's folder.

    Teachers have random weights, which take as long as trained ones. No file is written that a run reads.

    Raises:
        UserError: some runs fail; the others were measured.
    """
    runs = planned.plan.runs
    packs: dict[tuple[str, ...], tuple[str, ...]] = {}
    for pack_to_do in packs_to_do(planned, to_do):
        run_ids = pack_to_do.run_ids
        pack = [runs[k].science for k in run_ids]
        if not all(known.is_known(science, device(science)) for science in pack):
            packs.setdefault(tuple(map(shape, pack)), run_ids)
    problems: list[str] = []
    for i, (shapes, run_ids) in enumerate(packs.items(), 1):
        pack, labels = [runs[k].science for k in run_ids], [runs[k].label for k in run_ids]
        head, on = f"probe {i} of {len(packs)}, {some(labels, shown=1)}", device(pack[0])
        answer = _run(pack, on, data)
        if isinstance(answer, str):
            say(f"{head}: not measured: {answer}")
            continue
        for at, why in answer.left_out.items():
            say(f"{head}: without {pack[int(at)].method.use}: {why}")
        problems += [f"{labels[int(at)]}: {why}" for at, why in answer.left_out.items() if why != FIRST_STAGE]
        if not answer.seconds_per_step:
            say(f"{head}: not measured")
            continue
        paces = answer.seconds_per_step
        say(
            f"{head}: {min(paces):.2g} to {max(paces):.2g} s a step, {answer.start_s:.1f} s to start, "
            f"on {answer.hardware}"
        )
        of = [shapes[at] for at in answer.measured]
        measured = (paces, answer.start_s, answer.checkpoint_bytes)
        ProbeResult(of, answer.hardware, on.threads, on.processes, *measured).write(planned.store)
    if problems:
        head = f"{planned.document.source}: --probe found {plural(len(problems), 'problem')}:"
        raise Mistakes(map(UserError, (head, *problems)))


def _run(pack: list[Science], device: Device, data: Path | None) -> ProbeAnswer | str:
    """Return the answer of the probe's process, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="harness-probe-") as scratch:
        order, answer, log = (Path(scratch) / name for name in ("order.json", "answer.json", "log"))
        sciences = [science.to_json() for science in pack]
        ProbeOrder(
            sciences,
            str(data) if data else None,
            device.threads,
            STEPS,
            SECONDS,
            scratch,
            str(answer),
            time.monotonic(),
        ).write(order)
        environment = {**os.environ, "OMP_NUM_THREADS": str(device.threads)}
        with log.open("w") as out:
            command = module_command("harness.training.probe", order)
            try:
                code = subprocess.run(command, stdout=out, stderr=out, env=environment, timeout=PATIENCE).returncode
            except subprocess.TimeoutExpired:
                return f"no answer within {PATIENCE:.0f} s"
        if code or (probed := ProbeAnswer.read(answer)) is None:
            return files.tail(log, 1) or f"its process ended with code {code}"
        return probed
