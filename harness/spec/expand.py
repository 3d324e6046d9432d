"""Expansion of a sweep file to its plan."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from harness.errors import UserError, raise_mistakes, unknown
from harness.spec import identity, tasks
from harness.spec import methods as method_sources
from harness.spec.lines import Line
from harness.spec.model_reference import split_names
from harness.spec.run_labels import run_label
from harness.spec.schema import Sweep
from harness.spec.science import SHARED_RECIPE, Several, Trained, training_runs
from harness.spec.sweep_plan import Cell, Pack, Plan, Run
from harness.spec.sweep_sciences import SweepSciences, TeacherChoice, WeightsHash
from harness.spec.tasks import DatasetInfo
from harness.spec.yamlfile import Document

MAX_CELLS = 200_000  # more take minutes to plan, and are probably a typing mistake
Only = dict[str, set[str]]


def expand(
    sweep: Sweep, document: Document, info: DatasetInfo, weights_sha256: WeightsHash, only: Only | None = None,
    added: Iterable[Cell] = (),
) -> Plan:  # fmt: skip
    """Return all cells, runs and packs of a sweep, teachers first.

    ``added``: cells of seeds that the sweep does not list. A cell is left out when the sweep's science has changed
    since, so that its run does not belong to the sweep any more.

    Raises:
        UserError: a method, hyper-parameter, loss term or recipe that does not exist; it names all mistakes.
    """
    if (cells := len(sweep.pairs) * len(sweep.methods) * len(sweep.seeds)) > MAX_CELLS:
        raise UserError(f"{document.source}: asks for {cells:,} runs; a sweep may have {MAX_CELLS:,}: split it")
    method_sources.describe_own_method.cache_clear()  # a user's own may have changed since this process planned
    expansion = SweepSciences(Plan(sweep, document), sweep, document, info, weights_sha256)
    try:
        return _expanded(expansion, only, added)
    except UserError as e:
        raise_mistakes([*e.parts, *expansion.mistakes()])
        raise


def _expanded(expansion: SweepSciences, only: Only | None, added: Iterable[Cell]) -> Plan:
    """Return the plan; the first mistake is raised."""
    plan, sweep, document = expansion.plan, expansion.sweep, expansion.document
    with document.place(("dataset",)):
        sweep.dataset.check_parts(expansion.info)
    teachers = expansion.load_teachers()
    teacher_runs = dict(plan.runs)
    groups: dict[Any, list[str]] = {}
    added_runs: dict[Line, dict[int, str]] = {}
    for cell in added:
        if cell.seed not in sweep.seeds:
            added_runs.setdefault(cell.line, {})[cell.seed] = cell.run_id
    for i, pair in enumerate(sweep.pairs):
        expansion.check_pair(i, pair)
        for k in training_runs(teachers[i]):
            expansion.check_images(i, pair, plan.runs[k].science.recipe, of=("teacher",))
        for name in sweep.methods:
            science = expansion.science_of(i, name)
            expansion.check_images(i, pair, science.recipe)
            shared = identity.canonical({key: getattr(science.recipe, key) for key in SHARED_RECIPE})
            run_id_of = science.run_id_by_seed()
            line = Line(pair.teacher_text, pair.student, name)
            further = added_runs.get(line, {})
            for seed in (*sweep.seeds, *further):
                if not _is_selected(only, line, seed):
                    continue
                run_id = run_id_of(seed)
                if further.get(seed, run_id) != run_id:
                    continue
                plan.cells.append(Cell(*line, seed, run_id, *_runs_of_teachers(teachers[i])))
                if run_id in plan.runs:  # a student without a teacher stands in several pairs, or is itself a teacher
                    continue
                plan.runs[run_id] = Run(run_id, science.with_seed(seed), run_label(line, seed))
                groups.setdefault((i, seed, shared), []).append(run_id)
    if not plan.cells:
        raise UserError(f"{document.source}: --only leaves no run")
    # A teacher always trains in a process of its own: in a pack it could wait for a student that waits for it.
    needed = _needed(plan)
    plan.packs = [Pack.of((k,), plan.runs[k].science.teacher_runs, None) for k in teacher_runs if k in needed]
    for (i, _, shared), group in groups.items():
        needs = max((plan.runs[k].science.teacher_runs for k in group), key=len)  # one without a teacher has none
        plan.packs.append(Pack.of(tuple(group), needs, (i, shared)))
    plan.runs = {k: plan.runs[k] for pack in plan.packs for k in pack.run_ids}
    return plan


def _needed(plan: Plan) -> set[str]:
    """Return the cells' runs, with their teachers' runs, the runs of these runs' teachers, and so on."""
    needed: set[str] = set()
    new = {cell.run_id for cell in plan.cells}
    while new := new - needed:
        needed |= new
        new = {teacher for k in new for teacher in plan.runs[k].science.teacher_runs}
    return needed


def _runs_of_teachers(teacher: TeacherChoice) -> tuple[str | None, tuple[str, ...]]:
    """Return what a cell says of its teachers' runs: that of a single one, and those of several."""
    if isinstance(teacher, Several):
        return None, training_runs(teacher)
    return (teacher.run if isinstance(teacher, Trained) else None), ()


def parse_only(texts: Iterable[str], sweep: Sweep) -> Only:
    """Parse selections such as ``method=kd,rekd`` into {field: values}.

    Raises:
        UserError: an unknown field, or a value the sweep does not have.
    """
    valid = {
        "method": set(sweep.methods),
        "teacher": {p.teacher_text for p in sweep.pairs},
        "student": {p.student for p in sweep.pairs},
        "seed": {str(s) for s in sweep.seeds},
    }
    only: Only = {}
    for text in texts:
        key, sep, values = text.partition("=")
        if not sep or key not in valid:
            raise UserError(f"--only {text!r}: expected FIELD=VALUE[,VALUE]; {unknown('field', key, valid)}")
        for value in split_names(values):
            if key == "student" or (key == "teacher" and value not in valid[key]):
                with suppress(ValueError):
                    value = tasks.resolve_model(value)
            if value not in valid[key]:
                raise UserError(f"--only {text!r}: {unknown(key, value, valid[key])}")
            only.setdefault(key, set()).add(value)
    return only


def _is_selected(only: Only | None, line: Line, seed: int) -> bool:
    names = {**line._asdict(), "seed": str(seed)}
    return not only or all(names[k] in values for k, values in only.items())
