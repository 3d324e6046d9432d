"""Stage `row`: real training of a published row, with its records, and its table beside the published numbers.

It trains until its time is over, or until SIGTERM. What it leaves, checkpoints included, a later call goes on with.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu import mosaics, saved_store
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.gpu.training import plan, sweep_file
from harness.errors import UserError
from harness.store.store import Store
from slurm.entry import note_signals

NAME = "row"
SAVE_SECONDS = 60.0  # between two saves of the store while it trains
END_SECONDS = 25.0  # that checkpoints, the last save and the table take
CIFAR = "cifar-100-python"


def main() -> None:
    order = StageOrder.from_command_line()
    store = Store(order.work / "store")
    if not store.root.exists() and (order.out / "store.0").exists():
        restored = saved_store.restore(order.out, store)
        order.findings.add(NAME, kind="restored", intact=restored)
    try:
        train(replace(order, data=data_root(order)), store)
    except UserError as error:
        order.findings.add(NAME, kind="waits", why=str(error))


def data_root(order: StageOrder) -> Path | None:
    """Return the data root; with mosaics in it, one in the work folder into which CIFAR-100 was unpacked.

    Raises:
        UserError: the images are not there, or cannot be read.
    """
    root = order.data
    if root is None or order.smoke or (root / CIFAR).is_dir():
        return root
    if absent := mosaics.missing(root):
        raise UserError(f"CIFAR-100 is not below {root}; of its mosaics missing: {', '.join(absent)}")
    unpacked = order.work / "data"
    if not (unpacked / CIFAR / "test").exists():
        mosaics.unpack(root, unpacked / CIFAR)
    for weights in mosaics.find(root, "resnet56.pth")[:1]:
        (unpacked / "weights").mkdir(exist_ok=True)
        shutil.copy(weights, unpacked / "weights")
    return unpacked


def train(order: StageOrder, store: Store) -> None:
    """Train, save the store once in a while, and write records and table at the end."""
    planned = plan(order, store.root)
    planned.weights_files(planned.plan.runs)  # missing ones are reported before anything is trained
    training = replace(order, until=order.until - (0 if order.smoke else END_SECONDS))
    command = [sys.executable, "-u", "-m", "benchmarks.gpu.training", training.to_argument(), str(store.root)]
    environment = {"KD_CHECKPOINT_SECONDS": "30", **os.environ}
    began = saved_at = time.time()
    done, signals = store.done_ids(), note_signals()
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if signals:
                process.terminate()
            if time.time() - saved_at > SAVE_SECONDS:
                saved_store.save(store, order.out)
                saved_at = time.time()
    left_out = saved_store.save(store, order.out)
    runs = planned.plan.runs
    for run_id, run in runs.items():
        progress = store.progress(run_id)
        if failure := store.failure(run_id):
            order.findings.add(NAME, kind="failed", run=run.label, why=failure.cause)
        elif run_id in store.done_ids() - done:
            order.findings.add(NAME, kind="done", run=run.label, top1=progress.get("top1"))
        elif progress:
            where = {k: progress.get(k) for k in ("epoch", "epochs", "seconds_left", "top1")}
            order.findings.add(NAME, kind="in training", run=run.label, **where)
    order.findings.add(
        NAME, kind="trained", seconds=round(time.time() - began, 1), exit_code=process.returncode,
        runs=len(runs), done=len(store.done_ids() & runs.keys()), not_saved=left_out,
    )  # fmt: skip
    if store.done_ids() & runs.keys() and not signals:
        write_table(order, store)


def write_table(order: StageOrder, store: Store) -> None:
    """Write the records as Parquet into the output folder; the finding has the table with the published numbers."""
    tables = order.work / "tables"
    command = [sys.executable, "-m", "harness.report", str(sweep_file(order.smoke)), "--results", str(store.root)]
    command += ["--out", str(tables), *(["--data", str(order.data)] if order.data else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    folder = next(tables.glob("*/records.parquet")).parent
    shutil.copy(folder / "records.parquet", order.out / "records.parquet")
    order.findings.add(NAME, kind="table", lines=list(_rows((folder / "table.md").read_text())))


def _rows(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.startswith("|"))


if __name__ == "__main__":
    main()
