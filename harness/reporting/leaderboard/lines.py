"""The lines of the leaderboard: records whose science differs in the seed alone, summed up.

Two lines are compared (rank, gain, gain per hour) when dataset, recipe, evaluation, student and teacher are the same.
"""

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from harness.reporting.beside import recipe_name
from harness.reporting.comparison import BASELINE, REFERENCE, Spread
from harness.spec import methods
from harness.spec.identity import canonical
from harness.spec.schema import Recipe
from harness.store.provenance import is_gpu

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What must be the same for two accuracies of one pair to be comparable."""

    id: str
    dataset: str
    label: str
    held_out: bool  # evaluated on training images that were held out, not on the test set


@dataclass(frozen=True)
class Cost:
    """Mean over runs."""

    hours: float
    unit: str  # GPU-h; or CPU-h, of one core each
    hardware: str


@dataclass(frozen=True)
class Line:
    """One method with its settings on one pair under one protocol. Top-1 in %, differences in points."""

    id: str
    protocol: Protocol
    teacher: str | None
    student: str
    teacher_key: str  # its weights' hash or its run
    use: str
    settings: Mapping[str, Any]  # those that are not the method's defaults
    science: Mapping[str, Any]  # without the seed
    sweeps: tuple[str, ...]  # "sweep: entry", where a table has these runs
    run_ids: tuple[str, ...]  # by seed
    by_seed: Mapping[int, float]  # after the last epoch
    last: Spread | None
    best: Spread | None  # at the best test epoch
    teacher_top1: float | None
    cost: Cost | None
    diverged: int
    warnings: int  # runs with any
    rank: int | None = None
    to_baseline: Spread | None = None
    to_reference: Spread | None = None
    per_hour: float | None = None  # points gained over KD per hour that a run takes longer than KD's


def lines(records: Iterable[Record], sweeps: Mapping[str, Sequence[str]]) -> list[Line]:
    """``sweeps``: run id -> where tables have it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        science = json.loads(record["science"])
        del science["seed"]
        groups.setdefault(canonical(science), []).append(record)
    return _compared([_line(text, found, sweeps) for text, found in groups.items()])


def _line(text: str, records: Sequence[Record], sweeps: Mapping[str, Sequence[str]]) -> Line:
    science = json.loads(text)
    records = sorted(records, key=lambda r: (r["seed"], r["run_id"]))
    by_seed = {r["seed"]: r["last_top1"] for r in records if r["last_top1"] is not None}
    teacher = science["teacher"] or {}
    return Line(
        id=_short(text),
        protocol=_protocol(canonical({k: science[k] for k in ("dataset", "recipe", "protocol")}), records[0]),
        teacher=teacher.get("model"),
        student=science["student"],
        teacher_key=teacher.get("sha256") or teacher.get("run") or "",
        use=science["method"]["use"],
        settings=_settings(science["method"]),
        science=science,
        sweeps=tuple(dict.fromkeys(name for r in records for name in sweeps.get(r["run_id"], ()))),
        run_ids=tuple(r["run_id"] for r in records),
        by_seed=by_seed,
        last=Spread.of(by_seed.values()),
        best=Spread.of(r["best_top1"] for r in records if r["last_top1"] is not None and r["best_top1"] is not None),
        teacher_top1=next((r["teacher_top1"] for r in records if r["teacher_top1"] is not None), None),
        cost=_cost([r for r in records if r["status"] == "done"]),
        diverged=sum(r["status"] == "diverged" for r in records),
        warnings=sum(bool(r["warnings"]) for r in records),
    )


def _protocol(text: str, record: Record) -> Protocol:
    parts = json.loads(text)
    recipe = Recipe.whole(parts["recipe"])
    held_out = record["evaluated_on"] == "validation"
    on = f"{record['evaluated_size']:,} {'held-out' if held_out else 'test'} images"
    label = f"{_name(canonical(recipe))}, {recipe['epochs']} epochs, {record['train_size']:,} training images, {on}"
    return Protocol(_short(canonical({**parts, "recipe": recipe})), record["dataset"], label, held_out)


@cache
def _name(recipe: str) -> str:
    name = recipe_name(json.loads(recipe))
    return f"a recipe of its own ({_short(recipe)[:4]})" if name == "of its own" else name


def _settings(method: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a method beside its name: settings other than its defaults; all, where these are not known."""
    values = {**method["weights"], **method["params"]}
    if method["use"] not in methods.builtin_names():
        return values
    info = methods.describe(method["use"])
    defaults = {**info.weights, **{name: hyper.default for name, hyper in info.hyper.items()}}
    return {k: v for k, v in values.items() if k not in defaults or defaults[k] != v}


def _cost(records: Sequence[Record]) -> Cost | None:
    """None without a finished run, or where runs were on unlike hardware."""
    if len({r["hardware"] for r in records}) != 1:
        return None
    hardware = records[0]["hardware"]
    gpu = is_gpu(hardware)
    hours = [r["cost_total_s"] / 3600 * r["processes"] * (1 if gpu else r["threads"]) for r in records]
    return Cost(statistics.fmean(hours), "GPU-h" if gpu else "CPU-h", hardware)


def _compared(found: list[Line]) -> list[Line]:
    baselines = [line for line in found if line.use == BASELINE]
    alone = {(line.protocol.id, line.student): line for line in baselines if not line.settings}
    contests: dict[tuple[str, ...], list[Line]] = {}
    for line in found:
        if line.use != BASELINE:
            contests.setdefault((line.protocol.id, line.student, line.teacher or "", line.teacher_key), []).append(line)
    out = baselines
    for contest in contests.values():
        reference = _reference(contest)
        means = sorted((line.last.mean for line in contest if line.last), reverse=True)
        for line in contest:
            to_reference = _paired(line, reference)
            out.append(
                replace(
                    line,
                    rank=means.index(line.last.mean) + 1 if line.last else None,
                    to_baseline=_paired(line, alone.get((line.protocol.id, line.student))),
                    to_reference=to_reference,
                    per_hour=_per_hour(to_reference, line.cost, reference.cost if reference else None),
                )
            )
    return sorted(out, key=lambda line: line.id)


def _reference(contest: Sequence[Line]) -> Line | None:
    """The contest's KD: the one with default settings where there are several, None where that is not clear."""
    found = [line for line in contest if line.use == REFERENCE]
    plain = [line for line in found if not line.settings]
    return found[0] if len(found) == 1 else plain[0] if plain else None


def _paired(line: Line, other: Line | None) -> Spread | None:
    if other is None or other is line:
        return None
    return Spread.of(v - other.by_seed[seed] for seed, v in line.by_seed.items() if seed in other.by_seed)


def _per_hour(gain: Spread | None, cost: Cost | None, reference: Cost | None) -> float | None:
    """None where a run costs no more than KD's, or hours do not compare."""
    if gain is None or cost is None or reference is None or cost.hardware != reference.hardware:
        return None
    extra = cost.hours - reference.hours
    return gain.mean / extra if extra > 0 else None


def ambiguous_teachers(found: Iterable[Line]) -> set[tuple[str, str]]:
    """(protocol, teacher's name) where one name stands for several teachers."""
    keys = {(line.protocol.id, line.teacher, line.teacher_key) for line in found if line.teacher}
    counts = Counter((protocol, teacher) for protocol, teacher, _ in keys)
    return {(protocol, teacher) for (protocol, teacher), count in counts.items() if teacher and count > 1}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
