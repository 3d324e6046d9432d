"""Weights & Biases in its offline mode: a folder for each run, which ``wandb sync`` can send later."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.phrases import file_name
from harness.store import files
from harness.tracking.tracked_run import FINAL, Key, Point, RunFacts, State, TrackedRun, by_epoch

_STATE = "harness-state"  # in a run's folder: how the run had ended when the folder was closed


class WeightsAndBiases:
    """The runs that are open. A folder cannot be continued: that of an unfinished run is written anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._runs: dict[TrackedRun, Any] = {}

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key] | None:
        import wandb

        folder = self.folder / "wandb" / file_name(run.sweep)  # other sweeps can have the same run
        folder.mkdir(parents=True, exist_ok=True)
        before = files.entries(folder / "wandb", f"offline-run-*-{run.run_id}")
        if any(_state(path) == facts.state != State.RUNNING for path in before):
            return None
        for path in before:
            shutil.rmtree(path)
        self._runs[run] = opened = wandb.init(
            project=run.sweep,
            dir=str(folder),
            id=run.run_id,
            name=run.label,
            group=run.group,
            job_type=run.method,
            tags=[run.method, f"seed {run.seed}"],
            config={"run_id": run.run_id, **facts.settings},
            reinit="create_new",
            settings=_settings(),
        )
        opened.define_metric("epoch")
        opened.define_metric("*", step_metric="epoch")
        return set()

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        for epoch, of_epoch in by_epoch(p for p in points if not p.tag.startswith(FINAL)).items():
            self._runs[run].log({"epoch": epoch, **{p.tag: p.value for p in of_epoch}})
        self._runs[run].summary.update({p.tag.removeprefix(FINAL): p.value for p in points if p.tag.startswith(FINAL)})

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        opened = self._runs.pop(run)
        opened.summary.update({"status": facts.state.value} | ({"cause": facts.cause} if facts.cause else {}))
        opened.finish(exit_code=1 if facts.state in (State.FAILED, State.RUNNING) else 0)
        (Path(opened.dir).parent / _STATE).write_text(facts.state)


def _state(folder: Path) -> str:
    path = folder / _STATE
    return files.read_bytes(path).decode() if path.exists() else ""


def _settings() -> Any:
    """Return the settings of a run: of this machine, its code and its output, only the host's name is kept."""
    import wandb

    return wandb.Settings(
        mode="offline",
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def make(folder: Path) -> WeightsAndBiases:
    """Return the tracker that writes to ``wandb`` in a folder."""
    # In the environment: with `mode="offline"` alone, wandb 0.31 still sends reports of its use to a server.
    os.environ |= {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    import wandb  # noqa: F401

    return WeightsAndBiases(folder)
