"""Estimates of a plan's cost from records with synthetic costs."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.cost import disk, estimate, history, past_run, probe_results, submissions
from harness.planning.cost.devices import Device
from harness.planning.cost.estimate import Estimate
from harness.planning.cost.interval import Interval
from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.plan import PlanCosts
from harness.planning.cost.probe_results import ProbeResult
from harness.planning.cost.similar_runs import LEVELS, OTHER_THREADS, shape
from harness.planning.jobs import packs_to_do, plan_jobs
from harness.planning.plan import Planned, plan_sweep
from harness.spec.science import DatasetChoice
from harness.store import records
from harness.training.probe import Clock, mean_paces
from tests.support.comparisons import row
from tests.support.sciences import make_science

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
    planned: Planned, *run_ids: str, own: float, data: float = 2.0, teacher: float = 4.0, job: int = 0, **more: Any
) -> None:
    """Write records of runs that trained in one process, with each run's own seconds and those of the pack."""
    sciences = [planned.plan.runs[k].science for k in run_ids]
    learners = sum(s.teacher is not None for s in sciences)
    lasted = timedelta(seconds=own * len(run_ids) + data + teacher * bool(learners) + 5.0)
    for run_id, science in zip(run_ids, sciences, strict=True):
        costs = {
            "student": own, "method": 0.0, "evaluation": 0.0, "first_stage": 0.0, "data": data / len(run_ids),
            "teacher": teacher / learners if science.teacher else 0.0,
        }  # fmt: skip
        fields = {
            "dataset": "digits", "science": science.text, "seed": science.seed, "epochs": science.recipe.epochs,
            "hardware": CPU, "threads": 2, "processes": 1, "pack_size": len(run_ids), "attempts": 1, "host": "here",
            "method_parameters": 0, "started_at": START + timedelta(days=job), "cost_total_s": sum(costs.values()),
            "finished_at": START + timedelta(days=job) + lasted,
            **{f"cost_{part}_s": seconds for part, seconds in costs.items()},
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


# Ranges and schedules ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.001, 1e6), min_size=1), st.floats(1.0, 4.0))
def test_a_range_contains_all_measurements_and_is_never_narrower_than_stated(
    values: list[float], widening: float
) -> None:
    bounds = Interval.of(values, widening)
    assert bounds.low <= min(values) and max(values) <= bounds.high
    assert bounds.low <= bounds.mid / widening * (1 + 1e-12) and bounds.mid * widening <= bounds.high * (1 + 1e-12)
    assert Interval.of(values, 1.0).low == min(values) and Interval.of(values, 1.0).high == max(values)


JOBS = st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=12)


@given(st.floats(0, 100), JOBS, st.integers(1, 5))
def test_jobs_take_no_less_than_their_work_and_their_longest_chain(first: float, packs: Any, at_once: int) -> None:
    jobs = [Job(("t",), None, first)]
    jobs += [Job((f"{i}",), "t" if has_teacher else None, seconds) for i, (seconds, has_teacher) in enumerate(packs)]
    total = sum(job.seconds for job in jobs)
    chain = max([first, *(job.seconds + first * (job.needs is not None) for job in jobs[1:])])
    took = makespan(jobs, at_once)
    assert max(chain, total / at_once) <= took * (1 + 1e-9) + 1e-9 and took <= total * (1 + 1e-9)
    assert makespan(jobs, 1) == pytest.approx(total)
    assert makespan(jobs, len(jobs)) == pytest.approx(chain)


def test_a_job_whose_teacher_is_there_already_waits_for_nothing() -> None:
    assert makespan([Job(("a",), "trained before", 3.0)], 2) == 3.0
    assert makespan([Job(("a",), "t", 3.0), Job(("t",), None, 2.0)], 2) == 5.0, "in whatever order"


# From records --------------------------------------------------------------------------------------------------------


def test_what_a_pack_shares_is_counted_once(tmp_path: Path) -> None:
    methods = ["student", "kd", "fitnets"]
    before = plan(tmp_path, methods=methods)
    record(before, teacher(before), own=3.0, job=1)
    of_fitnets = by_label(before)["digits_net_w8 > digits_net_w4 / fitnets / seed 0"]
    record(before, *runs(before), of_fitnets, own=10.0)
    for method in ("kd", "fitnets"):
        (pack,) = [g for g in history.read_history(before.store, "digits") if g.science.method.use == method]
        images = 2 * 1442
        assert pack.own * images == pytest.approx([10.0])
        assert pack.data * images == pytest.approx([2.0]) and pack.teacher * images == pytest.approx([4.0])
        assert pack.overhead == pytest.approx([5.0])
    # Twice the epochs and another seed, in a pack as before; then KD by itself, with the costs of data and teacher.
    changed = {"recipe": {"base": "digits_quick", "epochs": 4}, "teachers": {"recipe": SWEEP["recipe"]}, "seeds": [7]}
    whole = foretold(plan(tmp_path, **changed, methods=methods))
    assert whole.device_s and whole.device_s.mid == pytest.approx(2 * (3 * 20.0 + 2 * 2.0 + 2 * 4.0 + 5.0)), "2 cores"
    single = foretold(plan(tmp_path, **changed, methods=["kd"]))
    assert single.device_s and single.device_s.mid == pytest.approx(2 * (20.0 + 4.0 + 8.0 + 5.0))
    assert [(b.source, b.runs, b.least, b.most) for b in whole.bases] == [(LEVELS[0].label, 3, 1, 1)]
    assert single.unit == "core" and not single.runs_of_unknown_time


@pytest.mark.parametrize(
    ("changes", "step", "times"),
    [
        ({"recipe": {"base": "digits_quick", "epochs": 2, "lr": 0.2}}, 0, 1.0),
        ({"methods": {"kd": {"weights": {"kd": 0.3}}}}, 0, 1.0),
        ({"recipe": {"base": "digits_quick", "epochs": 2, "batch_size": 32}}, 1, 1.0),
        ({"methods": {"kd": {"params": {"temperature": 9.0}}}}, 1, 1.0),
        ({"methods": ["fitnets"]}, 2, 1.0),
        ({"pairs": [{"teacher": "digits_net_w16", "student": "digits_net_w4"}]}, 3, 1.0),
        ({"pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w16"}]}, 4, None),
    ],
)
def test_less_like_runs_say_less(tmp_path: Path, changes: dict[str, Any], step: int, times: float | None) -> None:
    before = plan(tmp_path)
    for seed, job in enumerate((1, 2)):
        record(before, runs(before)[seed], own=10.0, job=job)
    changes = {"methods": ["kd"], "teachers": {"recipe": SWEEP["recipe"]}, **changes}
    planned = plan(tmp_path, **changes)
    known = estimate.pack_costs(planned).similar_runs.predict(
        next(r.science for r in planned.plan.runs.values() if r.science.teacher), HERE
    )
    assert known is not None and known.level == step
    assert known.own.high == pytest.approx(known.own.mid * LEVELS[step].widening)
    assert known.own.low == pytest.approx(known.own.mid / LEVELS[step].widening)
    if times:
        assert known.own.mid == pytest.approx(10.0 * times)
    else:
        assert known.own.mid > 20.0, "a student four times as wide"


def test_images_that_runs_see() -> None:
    science = replace(make_science("s", epochs=5, eval_every=2), dataset=DatasetChoice("cifar100", "v"))
    assert past_run.image_counts(science) == (250_000, 30_000)
    steps = make_science("s", epochs=5, eval_every=2, batch_size=64, epoch_steps=7)
    assert past_run.image_counts(replace(steps, dataset=science.dataset)) == (5 * 7 * 64, 30_000)
    held_out = DatasetChoice("cifar100", "v", validation=1000)
    assert past_run.image_counts(replace(science, dataset=held_out)) == (245_000, 3000)


def test_steps_are_ever_less_sure() -> None:
    assert [s.widening for s in LEVELS] == sorted(s.widening for s in LEVELS)


def test_other_threads_count_by_core_and_widen(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=3)
    record(planned, runs(planned)[1], own=10.0)
    science = planned.plan.runs[runs(planned, seed=1)[1]].science
    likeness = estimate.pack_costs(planned).similar_runs
    same, four = (likeness.predict(science, Device(False, CPU, threads, 1, threads)) for threads in (2, 4))
    assert same and same.own.mid == pytest.approx(10.0)
    assert four and four.own.mid == pytest.approx(5.0)
    assert four.own.high == pytest.approx(5.0 * LEVELS[0].widening * OTHER_THREADS)
    record(planned, runs(planned, seed=2)[1], own=9.0, threads=4, job=1)
    four = estimate.pack_costs(planned).similar_runs.predict(science, Device(False, CPU, 4, 1, 4))
    assert four and (four.own.mid, four.runs) == (pytest.approx(9.0), 1), "runs with as many are nearer"


@pytest.mark.parametrize(
    ("device", "known"),
    [
        (HERE, True),
        (Device(False, None, 2, 1, 2), True),  # a cluster's nodes are unknown before
        (Device(False, "AMD EPYC 7763", 2, 1, 2), False),
        (Device(False, CPU, 2, 2, 4), False),  # two processes
        (Device(True, GPU, 2, 1, 1), False),
        (Device(True, None, 2, 1, 1), False),
    ],
)
def test_only_runs_on_such_a_machine_are_like(tmp_path: Path, device: Device, known: bool) -> None:
    planned = plan(tmp_path, seeds=2)
    record(planned, teacher(planned), own=3.0, job=1)
    record(planned, *runs(planned), own=10.0)
    estimate = foretold(planned, device)
    assert (not estimate.runs_of_unknown_time) == known == (estimate.elapsed_s is not None)
    assert known or len(estimate.runs_of_unknown_time) == 2


def test_on_a_gpu_hours_are_of_gpus_and_threads_do_not_matter(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=2)
    record(planned, teacher(planned), own=3.0, job=1, hardware=f"{GPU} MIG 1g.10gb")
    record(planned, *runs(planned), own=10.0, hardware=f"{GPU} MIG 1g.10gb")
    for device in (Device(True, None, 16, 1, 1), Device(True, GPU, 16, 1, 1)):
        estimate = foretold(planned, device)
    assert estimate.unit == "GPU" and estimate.device_s and estimate.device_s.mid == pytest.approx(31.0)


def test_what_diverged_or_was_interrupted_does_not_mislead(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=4)
    record(planned, teacher(planned), own=3.0, job=1)
    record(planned, *runs(planned, 0), own=10.0, job=2)
    record(planned, *runs(planned, 1), own=0.1, job=3, status="diverged")
    # The last attempt was short; the costs include earlier attempts.
    record(planned, *runs(planned, 2), own=10.0, job=4, attempts=3, finished_at=START + timedelta(days=4, seconds=1))
    estimate = foretold(planned)
    assert estimate.device_s and estimate.device_s.mid == pytest.approx(2 * (20.0 + 2.0 + 4.0 + 5.0))
    assert estimate.bases[0].least == 2


def test_a_pack_with_unknown_runs_is_estimated_as_far_as_it_is_known(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=2)
    estimate = foretold(planned)
    assert len(estimate.runs_of_unknown_time) == 5 and estimate.elapsed_s is None is estimate.device_s
    assert estimate.left_bytes and estimate.left_bytes.mid > 0, "the models' sizes are known"


def test_runs_without_a_teacher_say_nothing_of_those_with_one(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    record(planned, teacher(planned), own=3.0, job=1)
    record(planned, runs(planned)[0], own=10.0)
    estimate = foretold(planned)
    assert estimate.runs_of_unknown_time == ("digits_net_w8 > digits_net_w4 / kd / seed 0",)


def test_of_a_pack_with_a_failed_run_only_the_training_is_known(tmp_path: Path) -> None:
    """The job's duration includes the failed run's time."""
    planned = plan(tmp_path, seeds=2)
    record(planned, teacher(planned), own=3.0, job=1)
    record(planned, *runs(planned), own=10.0, pack_size=3)
    known = estimate.pack_costs(planned).similar_runs.predict(planned.plan.runs[runs(planned, 1)[1]].science, HERE)
    assert known and known.own.mid == pytest.approx(10.0) and known.overhead == Interval(0.0, 0.0, 0.0)


def test_packs_that_shared_a_job_are_told_apart(tmp_path: Path) -> None:
    """Each pack had a teacher's forward of its own, and the job one start."""
    planned = plan(tmp_path, seeds=3)
    lasted = 2 * (2 * 10.0 + 2.0 + 4.0) + 5.0
    for seed in (0, 1):
        record(planned, *runs(planned, seed), own=10.0, finished_at=START + timedelta(seconds=lasted))
    known = estimate.pack_costs(planned).similar_runs.predict(planned.plan.runs[runs(planned, 2)[1]].science, HERE)
    assert known and known.teacher.mid == pytest.approx(4.0) and known.data.mid == pytest.approx(2.0)
    assert known.overhead.mid == pytest.approx(5.0)


def test_a_damaged_record_of_any_sweep_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(tmp_path)
    record(planned, teacher(planned), own=3.0)
    damaged = planned.store.record("0" * 16)
    damaged.write_bytes(b"PAR1")
    assert foretold(planned).runs_of_unknown_time
    assert capsys.readouterr().err.startswith(
        f"past runs cannot be used for the estimate: {damaged}: not a readable record"
    )


def test_evaluations_count_by_how_many_there_are(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    record(planned, runs(planned)[1], own=10.0, cost_evaluation_s=6.0)
    rare = plan(tmp_path, recipe={"base": "digits_quick", "epochs": 8, "eval_every": 4}, methods=["kd"])
    known = estimate.pack_costs(rare).similar_runs.predict(rare.plan.runs[rare.plan.cells[0].run_id].science, HERE)
    assert known and known.own.mid == pytest.approx(4 * 10.0 + 2 / 2 * 6.0), "of 2 evaluations then, 2 now"


# Jobs of several packs ------------------------------------------------------------------------------------------------


def seeds_of_jobs(
    planned: Planned, at_once: int = 1, packs_per_job: int | None = None, device: Device = HERE
) -> list[list[int]]:
    """Return the seeds of each job that is no teacher's."""
    costs = PlanCosts(planned, lambda _: device, estimate.pack_costs(planned))
    to_do = planned.plan.runs.keys() - planned.store.done_ids()
    jobs = plan_jobs(packs_to_do(planned, to_do), at_once, costs, packs_per_job)
    assert sorted(k for job in jobs for k in job.run_ids) == sorted(to_do)
    of_students = [job for job in jobs if all(" > " in planned.plan.runs[k].label for k in job.run_ids)]
    return [list(dict.fromkeys(planned.plan.runs[k].science.seed for k in job.run_ids)) for job in of_students]


def probed(folder: Path, start_s: float = 7.0, **changes: Any) -> Planned:
    """Return a plan of which a probe knows every pack: 4.9 s of training each, and the start."""
    planned = plan(folder, **changes)
    for pack in planned.plan.packs:
        finding(planned, *pack.run_ids, start_s=start_s).write(planned.store)
    return planned


@pytest.mark.parametrize(
    ("at_once", "packs_per_job", "expected"),
    [
        (1, None, [[0, 1, 2, 3, 4, 5]]),
        (2, None, [[0, 1, 2], [3, 4, 5]]),
        (4, None, [[0, 1], [2, 3], [4], [5]]),
        (7, None, [[0], [1], [2], [3], [4], [5]]),
        (1, 1, [[0], [1], [2], [3], [4], [5]]),
        (7, 4, [[0, 1, 2], [3, 4, 5]]),
        (7, 5, [[0, 1, 2], [3, 4, 5]]),
        (7, 9, [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_seeds_share_jobs_that_still_fill_the_places(
    tmp_path: Path, at_once: int, packs_per_job: int | None, expected: list[list[int]]
) -> None:
    """A number that is asked for is kept, whatever the places."""
    planned = probed(tmp_path, seeds=6)
    assert seeds_of_jobs(planned, at_once, packs_per_job) == expected
    stated = replace(HERE, packs_per_job=packs_per_job)
    assert seeds_of_jobs(planned, at_once, None, stated) == expected, "in a profile"


def test_seeds_stay_apart_where_nothing_is_known_to_be_saved(tmp_path: Path) -> None:
    unknown = plan(tmp_path, seeds=3)
    assert seeds_of_jobs(unknown) == [[0], [1], [2]]
    record(unknown, teacher(unknown), own=3.0)
    assert seeds_of_jobs(unknown) == [[0], [1], [2]], "the teacher's start"
    assert seeds_of_jobs(unknown, packs_per_job=3) == [[0, 1, 2]]
    record(unknown, *runs(unknown, 0), own=10.0, job=1)
    assert seeds_of_jobs(unknown) == [[1, 2]], "past runs of the pair"
    pairs = [{"teacher": "digits_net_w16", "student": f"digits_net_{student}"} for student in ("w8", "w4")]
    others = plan(tmp_path / "others", pairs=pairs, methods=["student"], seeds=[1, 2, 3])
    record(others, by_label(others)["digits_net_w16 > digits_net_w8 / student / seed 1"], own=10.0)
    assert sorted(seeds_of_jobs(others)) == [[1], [2], [2, 3], [3]], "another student's start"
    little = probed(tmp_path / "little", start_s=0.2, seeds=3)
    assert seeds_of_jobs(little) == [[0], [1], [2]], "too little to be worth it"


def test_a_joined_job_saves_the_starts_and_keeps_to_the_time_limit(tmp_path: Path) -> None:
    planned = probed(tmp_path, seeds=4)
    apart, joined = (foretold(planned, packs_per_job=number) for number in (1, 4))
    assert apart.device_s and joined.device_s
    assert apart.device_s.mid - joined.device_s.mid == pytest.approx(2 * 3 * 7.0)
    alone, start = 4.9 * probe_results.WIDENING, 7.0 * probe_results.WIDENING
    limited = replace(HERE, time_limit_s=start + 2.5 * alone)
    assert seeds_of_jobs(planned, device=limited) == [[0, 1], [2, 3]]


def test_only_packs_of_one_pair_and_recipe_are_joined(tmp_path: Path) -> None:
    pairs = [{"teacher": f"digits_net_{t}", "student": f"digits_net_{s}"} for t, s in (("w16", "w4"), ("w16", "w8"))]
    methods = {"kd": {}, "at": {"recipe": {"batch_size": 32}}}
    planned = probed(tmp_path, pairs=pairs, methods=methods, seeds=2)
    costs = PlanCosts(planned, lambda _: HERE, estimate.pack_costs(planned))
    jobs = plan_jobs(packs_to_do(planned, planned.plan.runs), 1, costs, None)
    kinds = [{planned.plan.runs[k].label.rpartition(" / ")[0] for k in job.run_ids} for job in jobs]
    assert len(jobs) == 5 and all(len(kind) == 1 for kind in kinds)
    assert sorted(len(job.packs) for job in jobs) == [1, 2, 2, 2, 2]


def test_seeds_that_need_the_teacher_are_not_joined_with_those_that_do_not(tmp_path: Path) -> None:
    """The latter need not wait for it."""
    planned = probed(tmp_path, seeds=3)
    record(planned, runs(planned, 0)[1], own=10.0)
    assert sorted(seeds_of_jobs(planned)) == [[0], [1, 2]]


def test_joined_jobs_end_no_later_than_single_ones(tmp_path: Path) -> None:
    """Three jobs of two packs take longer on two places than six of one, unless the start is most of their time."""
    pairs = [
        {"teacher": f"digits_net_{t}", "student": f"digits_net_{s}"}
        for t, s in (("w8", "w4"), ("w16", "w8"), ("w8", "w16"))
    ]
    changes = {"pairs": pairs, "methods": ["student"], "seeds": [1, 2]}  # with seed 0 they would be the teachers
    for start_s, jobs in ((1.0, 6), (20.0, 3)):
        planned = probed(tmp_path / str(start_s), start_s=start_s, **changes)
        costs = PlanCosts(planned, lambda _: HERE, estimate.pack_costs(planned))
        assert len(plan_jobs(packs_to_do(planned, planned.plan.runs), 2, costs, None)) == jobs


# Probes --------------------------------------------------------------------------------------------------------------


def finding(planned: Planned, *run_ids: str, **more: Any) -> ProbeResult:
    shapes = [shape(planned.plan.runs[k].science) for k in run_ids]
    facts = dict(hardware=CPU, threads=2, processes=1, seconds_per_step=[0.1], start_s=7.0)
    return ProbeResult(shapes=shapes, **{**facts, "checkpoint_bytes": 10**6, **more})


def test_a_probe_comes_before_less_like_runs_and_after_like_ones(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    finding(planned, *runs(planned)).write(planned.store)
    finding(planned, teacher(planned), seconds_per_step=[0.2]).write(planned.store)
    steps = (2 * 1442 + 2 * 355 / 3) / 64
    estimate = foretold(planned)
    assert estimate.device_s and estimate.device_s.mid == pytest.approx(2 * (steps * 0.1 + 7.0 + steps * 0.2 + 7.0))
    assert [(b.source, b.runs) for b in estimate.bases] == [("a probe", 3)]
    assert estimate.device_s.high == pytest.approx(estimate.device_s.mid * probe_results.WIDENING)
    assert estimate.peak_bytes and estimate.peak_bytes > 2 * 10**6

    record(planned, teacher(planned), own=3.0, job=1, data=0.0)
    record(planned, *runs(planned), own=10.0)
    more = foretold(plan(tmp_path, seeds=2))
    assert [b.source for b in more.bases] == [LEVELS[0].label], "records of the same kind are worth more"
    other = plan(tmp_path, seeds=2, methods=["student", "kd", "fitnets"])
    of_fitnets = next(k for k, r in other.plan.runs.items() if "fitnets / seed 1" in r.label)
    finding(other, *runs(other, 1), of_fitnets, seconds_per_step=[0.5]).write(other.store)
    assert "a probe" in [b.source for b in foretold(other).bases], "fitnets has no run of its own kind"


def test_runs_that_a_probe_left_out_add_only_their_own_cost(tmp_path: Path) -> None:
    """The probe of the other runs has already loaded the data and run the teacher."""
    planned = plan(tmp_path, methods=["student", "kd", "dkd"], seeds=[3])
    of_dkd = by_label(planned)["digits_net_w8 > digits_net_w4 / dkd / seed 3"]
    before = plan(tmp_path)
    record(before, runs(before)[1], own=10.0)
    pack = [planned.plan.runs[k].science for k in (*runs(planned, 3), of_dkd)]
    finding(planned, *runs(planned, 3)).write(planned.store)
    price = estimate.pack_costs(planned).cost(pack, HERE)
    assert price.seconds and price.seconds.mid == pytest.approx((2 * 1442 + 2 * 355 / 3) / 64 * 0.1 + 7.0 + 10.0)
    assert price.bases == (("a probe", 0), ("a probe", 0), (LEVELS[2].label, 1))


def test_a_finding_holds_for_its_machine_and_replaces_the_one_before(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    own_runs = runs(planned)
    shapes = [shape(planned.plan.runs[k].science) for k in own_runs]
    for pace in (0.1, 0.3):
        finding(planned, *own_runs, seconds_per_step=[pace]).write(planned.store)
    finding(planned, *own_runs, threads=1).write(planned.store)
    (planned.store.probes / "torn.json").write_text('{"shapes": [')
    measured = probe_results.read_probe_results(planned.store)
    assert len(measured) == 2
    chosen = probe_results.largest_within(measured, shapes, HERE)
    assert chosen and chosen.seconds_per_step == [0.3]
    assert probe_results.largest_within(measured, shapes, Device(False, "AMD EPYC", 2, 1, 2)) is None
    assert probe_results.largest_within(measured, shapes[:1], HERE) is None, "it says nothing of a smaller pack"


def test_the_clock_leaves_out_warm_up_and_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take 1 s, the first three 100 s, and between epochs of 5 steps lie 50 s."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    clock = Clock(steps=12, seconds=1e9, per_epoch=5, at_once=1)
    for step in range(1, 100):
        now[0] += (100.0 if step <= 3 else 1.0) + (50.0 if step % 5 == 1 and step > 1 else 0.0)
        if clock():
            break
    assert step == 3 + 12 and clock.paces == [1.0] * 10, "two steps come after an evaluation"


def test_the_clock_waits_for_one_step_however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    clock = Clock(steps=20, seconds=10.0, per_epoch=1000, at_once=1)
    calls = 1
    now[0] += 30.0
    while not clock():
        calls += 1
        now[0] += 30.0
    assert (calls, clock.paces) == (4, [30.0])


def test_means_of_parts() -> None:
    assert mean_paces([]) == [] and mean_paces([2.0]) == [2.0] and mean_paces([1.0, 3.0] * 4) == [2.0] * 4


# Disk ----------------------------------------------------------------------------------------------------------------


def test_cached_logits_are_counted_to_the_byte() -> None:
    dataset = DatasetChoice("cifar100", "v")
    science = replace(make_science("s", teacher="t", epochs=3, teacher_top_k=8), dataset=dataset)
    assert disk.logits_bytes(science) == 3 * 50_000 * (8 * (2 + 2) + 2)
    assert disk.logits_bytes(replace(make_science("s", teacher="t", epochs=3), dataset=dataset)) == 0
    assert disk.logits_bytes(replace(science, teacher=None)) == 0


# A submission's stored estimate --------------------------------------------------------------------------------------


def test_the_first_estimate_of_a_run_stands(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=2)
    first, second = foretold(planned), foretold(planned)
    every = set(planned.plan.runs)
    submissions.note_submission(planned.store, "small", every, first)
    submissions.note_submission(planned.store, "small", set(sorted(every)[:2]), second)
    assert [set(s.run_ids) for s in submissions.read_submissions(planned.store, "small")] == [every]
    submissions.note_submission(planned.store, "small", {*every, "another"}, second)
    assert len(submissions.read_submissions(planned.store, "small")) == 2
    planned.store.estimates("small").write_text(json.dumps([{"run_ids": 7}]))
    assert submissions.read_submissions(planned.store, "small") == []


def test_what_was_taken_is_of_jobs_and_not_of_runs(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    submissions.note_submission(planned.store, "small", set(planned.plan.runs), foretold(planned))
    (submission,) = submissions.read_submissions(planned.store, "small")
    assert "time unknown" in submissions.submission_lines(planned.store, "small")[0]
    assert submissions.measured_cost(planned.store, submission).elapsed_s is None
    record(planned, *runs(planned), own=10.0)
    took = submissions.measured_cost(planned.store, submission)
    assert took.records == 2 and took.device_s == {"core": pytest.approx(2 * (20.0 + 2.0 + 4.0 + 5.0))}
    assert took.left_bytes == sum(planned.store.record(k).stat().st_size for k in runs(planned))
    assert submissions.submission_lines(planned.store, "small")[0].endswith(" for 2 of them so far")
    # An interrupted run's last attempt may have been short, so the record's costs count.
    record(planned, teacher(planned), own=30.0, job=1, attempts=2, finished_at=START + timedelta(days=1, seconds=3))
    took = submissions.measured_cost(planned.store, submission)
    assert took.device_s == {"core": pytest.approx(2 * (31.0 + 32.0))}
