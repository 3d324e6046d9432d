"""Reports of ``harness.diff``: the differences between two things, A and B, as lines and as plain data."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from harness.phrases import plural, some
from harness.planning import sweep_differences
from harness.planning.plan import Planned
from harness.reporting.key_table import change_of, key_table, section
from harness.spec.science_differences import Difference, Differences, as_dicts, shown
from harness.store.store import Store

SHOWN = 20  # runs that are in A or B only, and runs whose results differ; --json has all


@dataclass(frozen=True)
class Report:
    """The outcome of a comparison."""

    is_different: bool
    facts: dict[str, Any]
    lines: list[str]


class NamedRun(Protocol):
    @property
    def run_id(self) -> str: ...
    @property
    def label(self) -> str: ...


def of_sweeps(first: Planned, second: Planned) -> Report:
    """Compare what two sweep files train."""
    differences = sweep_differences.plan_differences(first.plan, second.plan)
    lines = [f"{name} {p.document.source}: {_runs(p.plan.runs)}" for name, p in (("A", first), ("B", second))]
    if not differences:
        lines.append(f"the same {_runs(first.plan.runs)}")
    else:
        changed = f"{differences.changed_runs:,} with other settings"
        lines.append(f"{differences.same:,} the same, {changed}, {_only(differences)}")
    groups = []
    for pairs in differences.changed:
        _, _, of_each = pairs[0]
        lines += ["", *section(f"{_runs(pairs)} of {some(_but_seeds(pairs))}", of_each)]
        run_ids = [{"a": pair.first.run_id, "b": pair.second.run_id} for pair in pairs]
        groups.append({"runs": run_ids, "equal": of_each.equal, "keys": as_dicts(of_each.keys, "a", "b")})
    lines += _only_lines(differences.only_first, differences.only_second)
    only = {"only_a": _ids(differences.only_first), "only_b": _ids(differences.only_second)}
    return Report(bool(differences), {"same": differences.same, "changed": groups, **only}, lines)


def of_sweep_and_run(planned: Planned, store: Store, run_id: str, run_first: bool) -> Report:
    """Compare the science of a finished run with that of the nearest run of a sweep file.

    Raises:
        UserError: a damaged record.
    """
    from harness.store.stored_sciences import read_sciences

    source = planned.document.source
    if run_id in planned.plan.runs:
        text = f"{source} trains run {run_id}: {planned.plan.runs[run_id].label}"
        return Report(False, {"run": run_id, "nearest": run_id, "keys": []}, [text])
    sciences = read_sciences(store, [run_id])
    pair = sweep_differences.nearest_run(planned.plan, sciences[run_id], sciences)
    if pair is None:
        text = f"{source}: trains no run with the teacher, student, method and seed of run {run_id}"
        return Report(True, {"run": run_id, "nearest": None, "keys": []}, [text])
    differences = pair.differences
    sides = [f"{source}: run {pair.first.run_id}, {pair.first.label}", f"run {run_id} of {store.root}"]
    if run_first:
        keys = tuple(Difference(d.key, d.second, d.first) for d in differences.keys)
        differences, sides = Differences(keys, differences.equal), sides[::-1]
    lines = [f"A {sides[0]}", f"B {sides[1]}", "", *section("science", differences)]
    nearest = {"run": run_id, "nearest": pair.first.run_id, "equal": differences.equal}
    return Report(True, {**nearest, "keys": as_dicts(differences.keys, "a", "b")}, lines)


def of_runs(store: Store, first: str, second: str) -> Report:
    """Compare two finished runs.

    Raises:
        UserError: a damaged record.
    """
    from harness.reporting.record_differences import run_differences

    compared = run_differences(store, first, second)
    runs = {"A": compared.first, "B": compared.second}
    lines = [f"{name} {run.run_id}  {run.label}" for name, run in runs.items()]
    facts: dict[str, Any] = {"a": first, "b": second}
    for part in ("science", "provenance", "results", "cost"):
        differences: Differences = getattr(compared, part)
        lines += ["", *section(part, differences, change=part in ("results", "cost"))]
        facts[part] = {"equal": differences.equal, "keys": _with_changes(differences.keys)}
    is_different = any(facts[part]["keys"] for part in ("science", "provenance", "results", "cost"))
    return Report(is_different, facts, lines)


def of_stores(first: Store, second: Store) -> Report:
    """Compare the records of two stores.

    Raises:
        UserError: a damaged record.
    """
    from harness.reporting.record_differences import store_differences

    differences = store_differences(first, second)
    lines = [f"{name} {store.root}: {_runs(store.done_ids())}" for name, store in (("A", first), ("B", second))]
    in_both = differences.same + len(differences.changed)
    results = f"{differences.same:,} of them with the same results, {len(differences.changed):,} with others"
    lines.append(f"{in_both:,} in both, {results}; {_only(differences)}")
    lines += _only_lines(differences.only_first, differences.only_second)
    if differences.changed:
        lines += ["", "results that differ:"]
        for run, keys in differences.changed[:SHOWN]:
            lines += [f"  {run.run_id}  {run.label}", *(f"  {line}" for line in key_table(keys, change=True))]
        lines += _more(differences.changed)
    if differences.provenance:
        lines += ["", f"provenance of the {_runs(in_both)} in both, which makes no difference here:"]
        for difference, runs in differences.provenance[:SHOWN]:
            values = f"A {shown(difference.first)}, B {shown(difference.second)}"
            lines.append(f"  {difference.key}: {values} ({plural(runs, 'run')})")
        lines += _more(differences.provenance)
    facts = {
        "same": differences.same,
        "only_a": _ids(differences.only_first),
        "only_b": _ids(differences.only_second),
        "results": [{"run_id": run.run_id, "keys": _with_changes(keys)} for run, keys in differences.changed],
        "provenance": [{**as_dicts([d], "a", "b")[0], "runs": runs} for d, runs in differences.provenance],
    }
    return Report(bool(differences), facts, lines)


def _but_seeds(pairs: Iterable[sweep_differences.RunPair]) -> list[str]:
    return list(dict.fromkeys(pair.first.label.rpartition(" / seed ")[0] for pair in pairs))


def _runs(runs: Collection[Any] | int) -> str:
    return plural(runs if isinstance(runs, int) else len(runs), "run")


def _only(differences: Any) -> str:
    return f"{len(differences.only_first):,} in A only, {len(differences.only_second):,} in B only"


def _only_lines(first: Collection[NamedRun], second: Collection[NamedRun]) -> list[str]:
    lines = []
    for name, runs in (("A", list(first)), ("B", list(second))):
        if runs:
            lines += ["", f"in {name} only:", *(f"  {run.run_id}  {run.label}" for run in runs[:SHOWN]), *_more(runs)]
    return lines


def _more(items: Collection[Any]) -> list[str]:
    return [f"  and {len(items) - SHOWN:,} more; --json has all"] if len(items) > SHOWN else []


def _ids(runs: Iterable[NamedRun]) -> list[dict[str, str]]:
    return [{"run_id": run.run_id, "label": run.label} for run in runs]


def _with_changes(differences: Iterable[Difference]) -> list[dict[str, Any]]:
    return [{**as_dicts([d], "a", "b")[0], "difference": change_of(d)} for d in differences]
