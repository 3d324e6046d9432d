"""Runs killed at a step, and the comparison with runs that were never interrupted."""

import signal

from harness.store.schema import FIDELITY_COLUMNS
from tests.support.bench import OFTEN, SWEEP, USER_METHODS, Bench

KILLER = {"killer": {"use": f"{USER_METHODS}:Kills"}}


def same_end(bench: Bench, finished: Bench, *methods: str, seed: int = 0) -> None:
    """Check that runs ended with the weights and results of runs that were never interrupted."""
    assert methods
    cells = finished.cells()
    for method in methods:
        run_id = cells[method, seed].run_id
        assert bench.weights(run_id) == finished.weights(run_id), method
        assert bench.row(run_id)["status"] == "done"
        for column in (
            "last_top1",
            "last_loss",
            "best_top1",
            "best_epoch",
            "curves",
            "weights_sha256",
            *FIDELITY_COLUMNS,
        ):
            assert bench.row(run_id)[column] == finished.row(run_id)[column], (method, column)


def killed_at(bench: Bench, steps: int, *run_ids: str) -> None:
    """Train until the process kills itself at a step."""
    (bench.folder / "kill-at").write_text(str(steps))
    assert bench.train(*run_ids, checkpoint_seconds=OFTEN) == -signal.SIGKILL
    assert not (bench.folder / "kill-at").exists()


def pack(bench: Bench, **more: object) -> tuple[str, ...]:
    """Return the run ids of seed 0 of the small sweep with further methods."""
    bench.sweep = {**SWEEP, "methods": {**SWEEP["methods"], **more}, "seeds": [0]}
    return tuple(c.run_id for c in bench.cells().values())
