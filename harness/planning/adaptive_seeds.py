"""``sweep --until-decided``: further seeds, round by round, for the methods that are not told apart yet."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

from harness.console.terminal import say
from harness.errors import UserError
from harness.planning.plan import Planned, read_added
from harness.reporting import comparison
from harness.reporting.comparison import Contents
from harness.reporting.pairwise import Line, PairwiseTest, further_seeds, looks, pairwise_tests
from harness.spec.expand import Cell
from harness.store import files

MAX_SEEDS = 10


def check_seed_limit(planned: Planned, limit: int, only: Iterable[str]) -> None:
    """Raises:
    UserError: there is no seed to add.
    """
    if limit <= (listed := len(planned.plan.sweep.seeds)):
        raise UserError(f"{planned.document.source}: lists {listed} seeds: --max-seeds must be more, found {limit}")
    if any(text.startswith("seed=") for text in only):
        raise UserError("--until-decided adds seeds, and --only seed=... keeps them out: give one of them")


def until_decided(
    planned: Planned,
    contents: Callable[[Planned], Contents],
    train: Callable[[], Planned],
    against: str | None,
    limit: int,
) -> tuple[Planned, list[PairwiseTest]]:
    """Adds seeds and trains them until every contest is decided or has had its last look.

    ``train`` plans the sweep anew, with what has been added to it, and trains that. The plan in the end comes back, and
    the contests that are left undecided.
    """
    listed = planned.plan.sweep.seeds
    sizes = looks(len(listed), limit)
    while True:
        found = next(comparison.load_comparisons([contents(planned)], planned.store))
        undecided = [c for c in pairwise_tests(found, against, sizes) if not c.decided]
        further = further_seeds(found, undecided, listed, sizes)
        if set(planned.states().values()) != {"done"}:
            say("--until-decided: some runs have no record; no seeds are added before they have")
            return planned, undecided
        if not further:
            _tell(undecided, limit, found.contents.margin)
            return planned, undecided
        _add(planned, further)
        say(f"not told apart, tested at {5 / len(sizes):.2g} % in each of {len(sizes)} looks:")
        say("\n".join(f"  {contest}" for contest in undecided))
        say("so seeds are added:")
        say("\n".join(f"  {t} > {s}: {m}: {', '.join(map(str, seeds))}" for (t, s, m), seeds in further.items()))
        planned = train()


def _add(planned: Planned, further: dict[Line, list[int]]) -> None:
    """Notes the seeds' cells in the store, where every command finds them."""
    path = planned.store.added_seeds(planned.plan.sweep.name or planned.name)
    known = {cell: None for cell in read_added(path)}
    for cell in planned.plan.cells:  # the last of a line stands for all
        line = (cell.teacher, cell.student, cell.method)
        for seed in further.get(line, ()):
            run_id = planned.plan.runs[cell.run_id].science.with_seed(seed).run_id
            known[Cell(*line, seed, run_id, cell.teacher_run)] = None
    files.replace_json(path, [asdict(cell) for cell in known])


def _tell(undecided: list[PairwiseTest], limit: int, margin: float) -> None:
    if not undecided:
        say(f"decided: all that was compared differs, or is equal within {margin:g} points, at 95 %")
        return
    say(f"still undecided with {limit} seeds (in brackets the seeds in all that would find such a difference):")
    say("\n".join(f"  {contest} ({contest.seeds_needed or 'no estimate'})" for contest in undecided))
