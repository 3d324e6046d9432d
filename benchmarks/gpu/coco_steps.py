"""Stage `coco`: 200 training steps of a detector with recipe `coco_1x`, on coco128 below the data root.

The images have COCO's sizes. The teacher has random weights, which take as long as trained ones.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.gpu import mosaics
from benchmarks.gpu.pack_trainer import reserved
from benchmarks.gpu.stage_order import StageOrder
from harness.planning.plan import plan_sweep
from harness.training.probe import measure_pack
from harness.training.probe_order import ProbeOrder

NAME = "coco"
FOLDER = "coco128"
STEPS = 200
END_SECONDS = 5.0
SMALL = (
    "recipe=coco128_quick",
    "pairs=[{teacher: fasterrcnn_mobilenet_v2_fpn64, student: fasterrcnn_mobilenet_v2_fpn64}]",
)


def lacks(order: StageOrder) -> str:
    """Return what is not there of the images; "" if they are."""
    return "" if order.data and mosaics.find(order.data, FOLDER) else f"no folder {FOLDER} below the data root"


def main() -> None:
    order = StageOrder.from_command_line()
    assert order.data is not None
    prepared = order.work / "coco128_prepared"
    if not prepared.exists():
        source = mosaics.find(order.data, FOLDER)[0]
        command = ["harness.prepare", "coco", "--source", str(source), "--out", str(prepared)]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    file, changes = Path(__file__).with_name("coco128_steps.yaml"), SMALL if order.smoke else ()
    planned = plan_sweep(file, order.work / "coco_store", order.work, changes)
    student = next(run.science for run in planned.plan.runs.values() if run.science.teacher)
    began = time.time()
    probe = ProbeOrder(
        sciences=[], data=str(prepared), threads=1 if order.smoke else 4, steps=2 if order.smoke else STEPS,
        seconds=max(3.0, order.seconds_left - END_SECONDS), folder="", answer="", started_at=time.monotonic(),
    )  # fmt: skip
    timing = measure_pack({0: student}, order.work / f"coco_steps_{began:.0f}", probe)
    if not timing.clock.paces:
        raise SystemExit(f"no step was timed: {timing.left_out.get(0, 'the time was over')}")
    paces = timing.clock.paces
    order.findings.add(
        NAME, "detector", pair=f"{student.teacher_model} -> {student.student}", batch=student.recipe.batch_size,
        steps=len(paces) * timing.clock.at_once, seconds_per_step=round(sum(paces) / len(paces), 4),
        memory_mib=round(reserved(torch.device(order.device)) / 2**20, 1),
    )  # fmt: skip


if __name__ == "__main__":
    main()
