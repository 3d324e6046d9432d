"""The order in which pairs and runs can be trained, where runs of one pair teach another."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from harness.errors import UserError, unknown
from harness.spec import methods
from harness.spec.lines import PairNames
from harness.spec.schema import Pair, Sweep
from harness.spec.teacher_reference import RunReference
from harness.spec.yamlfile import Document


def training_order(sweep: Sweep, document: Document) -> tuple[int, ...]:
    """Return the pairs' positions, so that each comes after those whose runs teach it.

    Raises:
        UserError: a pair's teacher is no run of the sweep, several runs could be meant, or a run would teach itself.
    """
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for i, pair in enumerate(sweep.pairs):
        runs = [t for t in pair.teacher_reference.teachers if isinstance(t, RunReference)]
        before = [referred_pair(sweep, i, run, document) for run in runs]
        sorter.add(i, *(j for j, run in zip(before, runs, strict=True) if _needs_teacher(sweep, run.method)))
    try:
        order = tuple(sorter.static_order())
    except CycleError as e:
        circle = e.args[1]
        names = " > ".join(f"({_names(sweep.pairs[i])})" for i in circle)
        message = f"a circle, in which no run can be trained first: {names}"
        raise document.mistake(("pairs", min(circle), "teacher"), message) from None
    return order if any(_refers(pair) for pair in sweep.pairs) else tuple(range(len(sweep.pairs)))


def referred_pair(sweep: Sweep, i: int, run: RunReference, document: Document) -> int:
    """Return the position of the pair whose run teaches the pair at ``i``.

    Raises:
        UserError: no pair has such a run, or several have.
    """
    with document.place(("pairs", i, "teacher")):
        if run.method not in sweep.methods:
            raise ValueError(f"run.method: {unknown('method of this sweep', run.method, sweep.methods)}")
        of_student = {j: pair for j, pair in enumerate(sweep.pairs) if pair.student == run.student}
        if not of_student:
            raise ValueError(f"run.student: {unknown('student', run.student, {p.student for p in sweep.pairs})}")
        if run.teacher is not None:
            texts = {pair.teacher_text for pair in of_student.values()}
            of_student = {j: pair for j, pair in of_student.items() if pair.teacher_text == run.teacher}
            if not of_student:
                raise ValueError(f"run.teacher: {unknown(f'teacher of {run.student}', run.teacher, texts)}")
        # Born-again networks: a student may be taught by a run of the same name.
        others = {j: pair for j, pair in of_student.items() if j != i} or of_student
        if len(others) > 1 and (_needs_teacher(sweep, run.method) or not _alike(list(others.values()), run.method)):
            candidates = "; ".join(_names(pair) for pair in others.values())
            raise ValueError(f"several pairs have such a run: {candidates}; tell them apart by run.teacher")
        return next(iter(others))


def teacher_levels(needs: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return 0 for each run that waits for no other, and else one more than the highest of those it waits for.

    ``needs``: by run, the runs that train its teachers; those that are no keys are waited for by nobody.
    """
    levels: dict[str, int] = {}
    for run_id in needs:
        waiting = [run_id]
        while waiting:
            current = waiting[-1]
            before = [k for k in needs[current] if k in needs]
            if unknown := [k for k in before if k not in levels]:
                waiting += unknown
                continue
            levels[current] = max((levels[k] + 1 for k in before), default=0)
            waiting.pop()
    return levels


def _alike(pairs: list[Pair], method: str) -> bool:
    """Return whether pairs have the same run of a method that has no teacher."""
    settings = [(p.recipe, p.methods.get(method), p.student_weights, p.student_backbone) for p in pairs]
    return all(part == settings[0] for part in settings)


def _refers(pair: Pair) -> bool:
    return any(isinstance(teacher, RunReference) for teacher in pair.teacher_reference.teachers)


def _needs_teacher(sweep: Sweep, method: str) -> bool:
    try:
        return methods.describe_method(sweep.methods[method].use or method).needs_teacher
    except UserError:  # which is told where the method is looked at
        return False


def _names(pair: Pair) -> str:
    return str(PairNames(pair.teacher_text, pair.student))
