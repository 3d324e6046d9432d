"""From a sweep file to what is done, failed, running and to do. Shared by the commands; imports no torch."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data import locate
from harness.errors import UserError
from harness.spec import expand, load
from harness.spec.datasets import DatasetInfo
from harness.spec.schema import Weights
from harness.spec.yamlfile import Document, KeyPath
from harness.store.store import Store


@dataclass
class Planned:
    """A sweep, expanded and held against the store."""

    name: str  # of the comparison: the sweep's, with a mark when --set or --only changed it
    plan: expand.Plan
    document: Document
    store: Store
    data_root: Path | None
    info: DatasetInfo

    def states(self) -> dict[str, str]:
        """run_id -> done, failed or to do. Whether one is running is asked of the few that matter."""
        done, failed = self.store.done_ids(), self.store.failed_ids()
        return {k: "done" if k in done else "failed" if k in failed else "to do" for k in self.plan.runs}

    def weights_files(self) -> dict[str, dict[str, object]]:
        """Where given teacher weights lie, by sha256.

        Raises:
            UserError: one is missing.
        """
        found: dict[str, dict[str, object]] = {}
        for sha256, weights in self.plan.weights.items():
            file = locate.weights_file(weights, self.data_root, _folder(self.document))
            if file is None:
                raise UserError(f"{self.document.source}: weights {weights.file}: no such file; {locate.ADVICE}")
            found[sha256] = {"file": str(file), "top1": weights.top1}
        return found


def plan_sweep(
    file: Path, results: Path, data: Path | None = None, sets: Sequence[str] = (), only: Sequence[str] = ()
) -> Planned:
    """Reads and expands a sweep file.

    Raises:
        UserError: any mistake in it, in the overrides or in what it refers to.
    """
    root = locate.data_root(data)
    sweep, document = load.load(file, sets)
    hashes: dict[Weights, str] = {}

    def weights_sha256(weights: Weights, at: KeyPath) -> str:
        if weights not in hashes:
            try:
                hashes[weights] = locate.checked_sha256(weights, locate.weights_file(weights, root, _folder(document)))
            except UserError as e:
                raise UserError(f"{document.where(at)}: {e}") from None
        return hashes[weights]

    try:
        info = locate.dataset_info(sweep.dataset, root)
    except UserError as e:
        raise UserError(f"{document.where(('dataset',))}: {e}") from None
    plan = expand.expand(sweep, document, info, weights_sha256, expand.parse_only(only, sweep))
    name = sweep.name or file.stem
    if sets or only:
        name += "-" + hashlib.sha256("".join(c.run_id for c in plan.cells).encode()).hexdigest()[:6]
    return Planned(name, plan, document, Store(results.resolve()), root, info)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def _folder(document: Document) -> Path:
    return Path(document.source).resolve().parent
