"""``sweep --until-decided``: further seeds, round by round, for the methods whose difference is not decided yet."""

from collections.abc import Iterable
from dataclasses import replace

from harness.console.terminal import say
from harness.errors import UserError
from harness.phrases import plural
from harness.planning.plan import Planned, read_added
from harness.planning.queues import Queues
from harness.planning.submit import Request, submit, work_of
from harness.planning.watch import watch
from harness.reporting import comparison
from harness.reporting.pairwise import PairwiseTest, further_seeds, looks, pairwise_tests
from harness.spec.lines import Line
from harness.store import checksums, files

MAX_SEEDS = 10


def check_seed_limit(planned: Planned, limit: int, only: Iterable[str]) -> None:
    """Check that there is a seed to add.

    Raises:
        UserError: there is none.
    """
    if limit <= (listed := len(planned.plan.sweep.seeds)):
        raise UserError(
            f"{planned.document.source}: lists {plural(listed, 'seed')}: --max-seeds must be larger, found {limit}"
        )
    if any(text.startswith("seed=") for text in only):
        raise UserError("--until-decided adds seeds, and --only seed=... excludes them: give only one of the two")


def until_decided(request: Request, planned: Planned, limit: int) -> tuple[Planned, list[PairwiseTest]]:
    """Add seeds and train them until every pairwise test is decided or has had its last look.

    Returns:
        The plan with all seeds, and the tests that are left undecided.

    Raises:
        KeyboardInterrupt: ctrl-C while watching; the jobs continue.
    """
    listed = planned.plan.sweep.seeds
    sizes = looks(len(listed), limit)
    while True:
        results = next(comparison.load_comparisons([request.contents(planned)], planned.store))
        undecided = [test for test in pairwise_tests(results, request.baseline, sizes) if not test.decided]
        further = further_seeds(results, undecided, listed, sizes)
        if set(planned.states().values()) != {"done"}:
            say("--until-decided: some runs have no record; seeds are added only when all have one")
            return planned, undecided
        if not further:
            _print_outcome(undecided, limit, results.contents.margin)
            return planned, undecided
        _add(planned, further)
        say(f"undecided, each tested at {5 / len(sizes):.2g} % in each of {plural(len(sizes), 'look')}:")
        say("\n".join(f"  {test}" for test in undecided))
        say("so seeds are added:")
        say("\n".join(f"  {line.pair}: {line.method}: {', '.join(map(str, s))}" for line, s in further.items()))
        planned = request.plan(fetch=True)
        request.track(planned)
        work = work_of(request, planned)
        say(work.text())
        watch(planned, Queues.of(submit(work)), restart=True, table_follows=True)


def _add(planned: Planned, further: dict[Line, list[int]]) -> None:
    """Note the seeds' cells in the store, where every command finds them."""
    path = planned.store.added_seeds(planned.plan.sweep.name or planned.name)
    cells = {cell: None for cell in read_added(path)}
    for cell in planned.plan.cells:  # of a line's cells, the last one counts
        for seed in further.get(cell.line, ()):
            run_id = planned.plan.runs[cell.run_id].science.with_seed(seed).run_id
            cells[replace(cell, seed=seed, run_id=run_id)] = None
    files.replace_json(path, checksums.seal_value([cell.to_json() for cell in cells]))


def _print_outcome(undecided: list[PairwiseTest], limit: int, margin: float) -> None:
    if not undecided:
        say(f"decided: every compared pair differs, or is equal within {margin:g} points, at 95 %")
        return
    say(f"still undecided with {plural(limit, 'seed')} (in brackets, how many seeds would show such a difference):")
    say("\n".join(f"  {test} ({test.seeds_needed or 'no estimate'})" for test in undecided))
