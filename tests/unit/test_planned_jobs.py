"""Jobs of a plan: packs of several seeds are joined where that is known to be cheaper, or as asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.planning.cost import estimate, probe_results
from harness.planning.cost.devices import Device
from harness.planning.cost.plan import PlanCosts
from harness.planning.jobs import packs_to_do, plan_jobs
from harness.planning.plan import Planned
from tests.support.planned_costs import HERE, by_label, finding, foretold, plan, record, runs, teacher


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
