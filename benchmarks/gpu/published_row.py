"""Stage `row`: real training of a published row, with its records, and its table beside the published numbers.

It trains until its time is over, or until SIGTERM. What it leaves, checkpoints included, a later call goes on with.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu import mosaics, saved_store
from benchmarks.gpu.findings import TRAINING as NAME
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.training import next_pack, plan, sweep_file
from harness.errors import UserError
from harness.planning.plan import Planned
from harness.store.store import Store
from slurm.entry import note_signals

SAVE_SECONDS = 60.0  # between two saves of the store while it trains
END_SECONDS = 20.0  # that checkpoints, the last save and the table take
LEAST_SECONDS = END_SECONDS + 30.0  # with less, no training would begin
CIFAR, WEIGHTS = "cifar-100-python", "resnet56.pth"


def lacks(order: StageOrder) -> str:
    """Return what the training needs and the data root does not have; "" if it has all."""
    root = order.data
    if order.smoke:
        return ""
    if root is None:
        return f"no data root is given: it needs CIFAR-100 and {WEIGHTS}"
    if not _has_cifar(root) and (absent := mosaics.missing(root)):
        return f"CIFAR-100 is not below {root}; of its mosaics missing: {', '.join(absent)}"
    return "" if mosaics.find(root, WEIGHTS) else f"the teacher's weights {WEIGHTS} are not below {root}"


def main() -> None:
    order = StageOrder.from_command_line()
    store = Store(order.work / "store")
    if list(order.out.glob("store.[0-9]")) and not saved_store.restore(order.out, store):
        order.findings.add(NAME, "damaged", what="some of the saved store could not be read")
    try:
        order = replace(order, data=data_root(order))
        planned = plan(order, store.root)
        for run_id in store.failed_ids() & planned.plan.runs.keys():  # its cause may have been mended since
            store.archive_failure(run_id)
        crashes = Training(order, planned).run()
    except UserError as error:
        order.findings.add(NAME, "waits", why=str(error))
        return
    sys.exit(1 if crashes else 0)


def _has_cifar(root: Path) -> bool:
    return all((root / CIFAR / split).is_file() for split in mosaics.SPLITS)


def data_root(order: StageOrder) -> Path | None:
    """Return a data root as the sweep file needs it: the given one, or one in the work folder with the unpacked images.

    Raises:
        UserError: the images cannot be read.
    """
    root = order.data
    if order.smoke or root is None or (_has_cifar(root) and (root / "weights" / WEIGHTS).is_file()):
        return root
    made = order.work / "data"
    (made / "weights").mkdir(parents=True, exist_ok=True)
    if _has_cifar(root):
        (made / CIFAR).mkdir(exist_ok=True)
        for split in mosaics.SPLITS:
            shutil.copyfile(root / CIFAR / split, made / CIFAR / split)
    elif not _has_cifar(made):
        mosaics.unpack(root, made / CIFAR)
    for weights in mosaics.find(root, WEIGHTS)[:1]:
        shutil.copyfile(weights, made / "weights" / WEIGHTS)
    return made


class Training:
    """The training of the row: pack after pack in a process of its own, with a save of the store once in a while."""

    def __init__(self, order: StageOrder, planned: Planned):
        self.order, self.planned, self.store = order, planned, planned.store
        end = 0.0 if order.smoke else END_SECONDS
        training = replace(order, until=order.until - end).to_argument()
        self.command = [sys.executable, "-u", "-m", "benchmarks.gpu.training", training, str(self.store.root)]
        self.trains_until = order.until - end
        self.in_table: set[str] = set()  # runs

    def run(self) -> int:
        """Train until the time is over, all is done, or a pack's process has crashed twice; return the crashes."""
        began, crashes, signals = time.time(), 0, note_signals()
        done_before = self.store.done_ids()
        while next_pack(self.planned) and crashes < 2 and not signals and time.time() < self.trains_until:
            crashes += self._train_pack(signals) not in (0, -signal.SIGTERM)  # told again when it was about to end
        left_out = saved_store.save(self.store, self.order.out)
        self._note_progress(done_before)
        runs = self.planned.plan.runs
        self.order.findings.add(
            NAME, "trained", seconds=round(time.time() - began, 1), crashes=crashes, runs=len(runs),
            done=len(self.store.done_ids() & runs.keys()), not_saved=left_out,
        )  # fmt: skip
        if not signals:
            self._write_table()
        return crashes

    def _train_pack(self, signals: list[int]) -> int:
        """Train in a process of its own until it ends, or is told to; return its exit code."""
        environment = {"KD_CHECKPOINT_SECONDS": "30", **os.environ}
        saved_at, told = time.time(), False
        with subprocess.Popen(self.command, env=environment) as process:
            while process.poll() is None:
                time.sleep(0.2)
                if (signals or time.time() > self.order.until) and not told:
                    process.terminate()
                    told = True
                if time.time() - saved_at > SAVE_SECONDS:
                    saved_store.save(self.store, self.order.out)
                    self._write_table()
                    saved_at = time.time()
        return process.returncode

    def _note_progress(self, done_before: frozenset[str]) -> None:
        findings = self.order.findings
        for run_id, run in self.planned.plan.runs.items():
            progress = self.store.progress(run_id)
            if failure := self.store.failure(run_id):
                findings.add(NAME, "failed", run=run.label, why=failure.cause)
            elif run_id in self.store.done_ids() - done_before:
                findings.add(NAME, "done", run=run.label, top1=progress.get("top1"))
            elif progress and run_id not in done_before:
                where = {k: progress.get(k) for k in ("epoch", "epochs", "seconds_left", "top1")}
                findings.add(NAME, "in training", run=run.label, **where)

    def _write_table(self) -> None:
        """Write the records as Parquet into the output folder; the finding has the table with the published numbers."""
        done = self.store.done_ids() & self.planned.plan.runs.keys()
        if done == self.in_table:
            return
        tables = self.order.work / "tables"
        data = ["--data", str(self.order.data)] if self.order.data else []
        command = ["harness.report", str(sweep_file(self.order.smoke)), "--results", str(self.store.root), *data]
        subprocess.run([sys.executable, "-m", *command, "--out", str(tables)], check=True, stdout=subprocess.DEVNULL)
        folder = next(tables.glob("*/records.parquet")).parent
        shutil.copyfile(folder / "records.parquet", self.order.out / "records.parquet")
        lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith(("|", "["))]
        self.order.findings.add(NAME, "table", lines=lines)
        self.in_table = set(done)


if __name__ == "__main__":
    main()
