"""The training of one pack of the published row, in a process of its own: ``run_job``, as in a job.

    python -m benchmarks.gpu.training ORDER STORE

It ends with every run checkpointed when its time is over, and at SIGTERM.
"""

import sys
import time
from pathlib import Path

from benchmarks.gpu.stage_order import StageOrder
from harness.hardware import cores
from harness.planning import locate
from harness.planning.plan import Planned, plan_sweep
from harness.training.job import run_job
from harness.training.job_order import JobOrder
from slurm.entry import note_signals

HERE = Path(__file__).parent


def sweep_file(smoke: bool) -> Path:
    return HERE / ("digits_smoke.yaml" if smoke else "resnet56_resnet20.yaml")


def plan(order: StageOrder, store: Path) -> Planned:
    """Return the plan of the row's sweep.

    Raises:
        UserError: the data or the teacher's weights are not there.
    """
    return plan_sweep(sweep_file(order.smoke), store, order.data)


def next_pack(planned: Planned) -> list[str]:
    """Return the open runs of the first pack that has some: teachers first, then seed by seed."""
    settled = planned.store.done_ids() | planned.store.failed_ids()
    return next((left for pack in planned.plan.packs if (left := [k for k in pack.run_ids if k not in settled])), [])


def main() -> None:
    order, signals = StageOrder.from_command_line(), note_signals()
    planned = plan(order, Path(sys.argv[2]))
    store, folder = planned.store, locate.dataset_folder(planned.plan.sweep.dataset, planned.data_root)
    run_ids = next_pack(planned)
    for run_id in run_ids:
        store.write_science(run_id, planned.plan.runs[run_id].science)
    threads = 1 if order.smoke else min(4, cores())
    weights = planned.weights_files(run_ids)
    job = JobOrder(str(store.root), tuple(run_ids), str(folder) if folder else None, weights, threads)
    run_job(job, lambda: bool(signals) or time.time() > order.until, began=time.monotonic())


if __name__ == "__main__":
    main()
