"""Plans of a small sweep, records and probes of its runs, and what they are estimated to take."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from harness.planning.cost import estimate
from harness.planning.cost.devices import Device
from harness.planning.cost.estimate import Estimate
from harness.planning.cost.plan import PlanCosts
from harness.planning.cost.probe_results import ProbeResult
from harness.planning.cost.similar_runs import shape
from harness.planning.jobs import packs_to_do, plan_jobs
from harness.planning.plan import Planned, plan_sweep
from harness.store import records
from tests.support.comparisons import row

CPU = "Intel(R) Xeon(R) Processor"
GPU = "NVIDIA H100 80GB HBM3"
HERE = Device(False, CPU, 2, 1, 2)
START = datetime(2026, 1, 1, tzinfo=UTC)
SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": {"base": "digits_quick", "epochs": 2},
    "methods": ["student", "kd"],
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 1,
}


def plan(folder: Path, **changes: Any) -> Planned:
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    return plan_sweep(folder / "small.yaml", folder / "results")


def record(
    planned: Planned,
    *run_ids: str,
    own: float,
    data: float = 2.0,
    waiting: float | None = None,
    teacher: float = 4.0,
    job: int = 0,
    **more: Any,
) -> None:
    """Write records of runs that trained in one process, with each run's own seconds and those of the pack."""
    sciences = [planned.plan.runs[k].science for k in run_ids]
    learners = sum(s.teacher is not None for s in sciences)
    lasted = timedelta(seconds=own * len(run_ids) + data + (waiting or 0.0) + teacher * bool(learners) + 5.0)
    for run_id, science in zip(run_ids, sciences, strict=True):
        costs = {
            "student": own, "method": 0.0, "evaluation": 0.0, "first_stage": 0.0, "data": data / len(run_ids),
            "teacher": teacher / learners if science.teacher else 0.0,
        }  # fmt: skip
        fields = {
            "dataset": "digits", "student": science.student, "teacher": science.teacher_model,
            "method": science.method.use, "epochs": science.recipe.epochs, "science": science.text,
            "seed": science.seed,
            "hardware": CPU, "threads": 2, "processes": 1, "pack_size": len(run_ids), "attempts": 1, "host": "here",
            "method_parameters": 0, "started_at": START + timedelta(days=job),
            "cost_total_s": sum(costs.values()) + (waiting or 0.0) / len(run_ids),
            "finished_at": START + timedelta(days=job) + lasted,
            **{f"cost_{part}_s": seconds for part, seconds in costs.items()},
            "cost_waiting_s": None if waiting is None else waiting / len(run_ids),
        }  # fmt: skip
        values = row(run_id, 60.0, 60.0, **{**fields, **more})
        records.write_record(planned.store, {k: v for k, v in values.items() if k != "schema_version"})


def foretold(planned: Planned, device: Device = HERE, at_once: int = 1, packs_per_job: int | None = 1) -> Estimate:
    finished = planned.store.done_ids()
    to_do = {k for k in planned.plan.runs if k not in finished}
    costs = PlanCosts(planned, lambda _: device, estimate.pack_costs(planned))
    return estimate.estimate(plan_jobs(packs_to_do(planned, to_do), at_once, costs, packs_per_job), at_once, costs)


def by_label(planned: Planned) -> dict[str, str]:
    return {run.label: run_id for run_id, run in planned.plan.runs.items()}


def runs(planned: Planned, seed: int = 0) -> tuple[str, str]:
    """Return the run ids of the student and KD."""
    runs_by_label = by_label(planned)
    student, kd = (runs_by_label[f"digits_net_w8 > digits_net_w4 / {m} / seed {seed}"] for m in ("student", "kd"))
    return student, kd


def teacher(planned: Planned) -> str:
    return by_label(planned)["teacher digits_net_w8 / seed 0"]


def finding(planned: Planned, *run_ids: str, **more: Any) -> ProbeResult:
    shapes = [shape(planned.plan.runs[k].science) for k in run_ids]
    facts = dict(hardware=CPU, threads=2, processes=1, seconds_per_step=[0.1], start_s=7.0)
    return ProbeResult(shapes=shapes, **{**facts, "checkpoint_bytes": 10**6, **more})
