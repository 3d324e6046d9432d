"""Estimates of a plan's cost from records with synthetic costs."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.cost import disk, estimate, history, past_run, probe_results, submissions
from harness.planning.cost.devices import Device
from harness.planning.cost.interval import Interval
from harness.planning.cost.makespan import Job, makespan
from harness.planning.cost.similar_runs import LEVELS, OTHER_THREADS, shape
from harness.spec.science import DatasetChoice
from harness.training.probe import Clock, mean_paces
from tests.support.planned_costs import (
    CPU,
    GPU,
    HERE,
    START,
    SWEEP,
    by_label,
    finding,
    foretold,
    plan,
    record,
    runs,
    teacher,
)
from tests.support.sciences import make_science

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


def test_the_time_for_which_a_job_was_suspended_is_not_one_that_jobs_take(tmp_path: Path) -> None:
    planned = plan(tmp_path, seeds=4)
    for seed, besides in enumerate((5.0, 50.0, 3600.0)):
        lasted = timedelta(seconds=2 * 10.0 + 2.0 + 4.0 + besides)
        record(planned, *runs(planned, seed), own=10.0, job=seed, finished_at=START + timedelta(days=seed) + lasted)
    known = estimate.pack_costs(planned).similar_runs.predict(planned.plan.runs[runs(planned, 3)[1]].science, HERE)
    assert known and known.runs == 3 and (known.overhead.mid, known.overhead.high) == pytest.approx((27.5, 50.0))


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


# Probes --------------------------------------------------------------------------------------------------------------


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


def test_a_run_that_stops_early_takes_as_long_per_image(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    science = planned.plan.runs[runs(planned)[0]].science
    stopped = replace(science, recipe=science.recipe.model_copy(update={"stop_epoch": 1}))
    assert shape(stopped) == shape(science)


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
    monkeypatch.setattr("time.monotonic", lambda: now[0])
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


def test_submissions_of_a_sweep_before_a_change_are_not_shown(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    for run_ids in ({"of", "before"}, set(planned.plan.runs)):
        submissions.note_submission(planned.store, "small", run_ids, foretold(planned))
    assert len(submissions.submission_lines(planned.store, "small", {"of", *planned.plan.runs})) == 2
    (line,) = submissions.submission_lines(planned.store, "small", set(planned.plan.runs))
    assert line.startswith(f"small: {len(planned.plan.runs)} runs submitted ")


def test_what_was_taken_is_of_jobs_and_not_of_runs(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    submissions.note_submission(planned.store, "small", set(planned.plan.runs), foretold(planned))
    (submission,) = submissions.read_submissions(planned.store, "small")
    assert "time unknown" in submissions.submission_lines(planned.store, "small", set(planned.plan.runs))[0]
    assert submissions.measured_cost(planned.store, submission).elapsed_s is None
    record(planned, *runs(planned), own=10.0)
    took = submissions.measured_cost(planned.store, submission)
    assert took.records == 2 and took.device_s == {"core": pytest.approx(2 * (20.0 + 2.0 + 4.0 + 5.0))}
    assert took.left_bytes == sum(planned.store.record(k).stat().st_size for k in runs(planned))
    assert submissions.submission_lines(planned.store, "small", set(planned.plan.runs))[0].endswith(
        " for 2 of them so far"
    )
    # An interrupted run's last attempt may have been short, so the record's costs count.
    record(planned, teacher(planned), own=30.0, job=1, attempts=2, finished_at=START + timedelta(days=1, seconds=3))
    took = submissions.measured_cost(planned.store, submission)
    assert took.device_s == {"core": pytest.approx(2 * (31.0 + 32.0))}
