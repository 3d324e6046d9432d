"""Names of runs for people."""

from collections import Counter
from collections.abc import Container, Mapping

from harness.spec.lines import Line
from harness.spec.science import Science


def run_label(line: Line, seed: int) -> str:
    """Return a run's name for people."""
    return f"{line.pair} / {line.method} / seed {seed}"


def science_labels(sciences: Mapping[str, Science], teachers: Container[str] = ()) -> dict[str, str]:
    """Return names for people of runs, by run id, where no sweep file names their methods.

    ``teachers``: the runs that train a teacher. Runs with the same name get the start of their ids.
    """
    labels = {k: _science_label(science, k in teachers) for k, science in sciences.items()}
    number = Counter(labels.values())
    return {k: label if number[label] == 1 else f"{label} ({k[:6]})" for k, label in labels.items()}


def _science_label(science: Science, is_teacher: bool) -> str:
    if is_teacher and science.teacher is None:
        return f"teacher {science.student} / seed {science.seed}"
    pair = f"{science.teacher_model} > {science.student}" if science.teacher else science.student
    return f"{pair} / {science.method.use} / seed {science.seed}"
