"""Expected jobs: the jobs of queues, and how long past runs let expect that they take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UserError
from harness.planning.cost import devices, probe_results
from harness.planning.cost.pack import PackCost, PackCosts
from harness.planning.cost.past_run import PastRun, image_counts
from harness.planning.cost.similar_runs import SimilarRuns
from harness.planning.cost.time_left import ExpectedJob, ExpectedPack
from harness.spec.lines import grouped
from harness.spec.science import Science
from harness.store.store import Store
from slurm.queue import Queue, QueuedJob

PATIENCE = 50  # readings of the past take at most this part of the time between them


def expected_jobs(queues: Sequence[Queue], sciences: Mapping[str, Science], known: PackCosts) -> list[ExpectedJob]:
    """Return what the jobs of queues are expected to take.

    A pack of which nothing is known counts with its images, at the mean seconds per image of all others.

    Raises:
        UserError: the profile of a queue's cluster is missing or wrong.
    """
    jobs: list[tuple[QueuedJob, list[tuple[tuple[str, ...], PackCost]]]] = []
    for queue in queues:
        device_of = devices.devices(queue.cluster or "local", queue.threads)
        for job in queue.jobs:
            device = device_of(next((s for k in job.run_ids if (s := sciences[k]).teacher), sciences[job.run_ids[0]]))
            packs = grouped(job.run_ids, lambda k: sciences[k].seed).values()
            jobs.append((job, [(tuple(p), known.cost([sciences[k] for k in p], device)) for p in packs]))
    costs = [pack for _, packs in jobs for pack in packs]
    seconds = sum(cost.seconds.mid for _, cost in costs if cost.seconds)
    images = sum(_images(run_ids, sciences) for run_ids, cost in costs if cost.seconds)
    per_image = seconds / images if images else 1.0  # of no unit, until something has been seen

    def training(run_ids: tuple[str, ...], cost: PackCost) -> float:
        if not cost.seconds:
            return per_image * _images(run_ids, sciences)
        return max(0.0, cost.seconds.mid - (cost.start.mid if cost.start else 0.0))

    return [
        ExpectedJob(
            tuple(ExpectedPack(run_ids, training(run_ids, cost), None not in cost.bases) for run_ids, cost in packs),
            packs[0][1].start.mid if packs[0][1].start and packs[0][1].seconds else 0.0,
            job.all_needs,
        )
        for job, packs in jobs
    ]


def _images(run_ids: Sequence[str], sciences: Mapping[str, Science]) -> int:
    return sum(image_counts(sciences[k])[0] for k in run_ids)


@dataclass
class Forecast:
    """The expectation for some queues, made anew when queues change, and when runs have ended since."""

    store: Store
    dataset: str
    _made_of: tuple[object, ...] = ()
    _expected: list[ExpectedJob] = field(default_factory=list)
    _next: float = 0.0

    def jobs(self, queues: Sequence[Queue], sciences: Mapping[str, Science], ended: int) -> list[ExpectedJob]:
        """Return the queues' jobs, none where nothing can be said of them. ``ended``: how many runs have."""
        made_of = (*map(id, queues), ended)
        if made_of != self._made_of and (self._made_of[:-1] != made_of[:-1] or time.monotonic() >= self._next):
            begin = time.monotonic()
            try:
                self._expected = expected_jobs(queues, sciences, self._known())
            except (UserError, OSError):
                self._expected = []  # the estimate before the jobs' start has said so
            now = time.monotonic()
            self._made_of, self._next = made_of, now + PATIENCE * (now - begin)
        return self._expected

    def _known(self) -> PackCosts:
        past: list[PastRun] = []
        if self.store.done_ids():
            from harness.planning.cost import history  # waits for pyarrow

            past = history.read_history(self.store, self.dataset)
        return PackCosts(SimilarRuns(past), probe_results.read_probe_results(self.store))
