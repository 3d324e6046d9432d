"""The code of the user's own that a run needs."""

from collections.abc import Iterable

from harness.spec.own_models import code_of, is_own_model
from harness.spec.science import Given, Science
from harness.spec.source_code import OwnCode


def own_code(science: Science) -> dict[OwnCode, int | str | None]:
    """Return the run's code that is the user's own, with the version that the run was planned with.

    None is the version of a teacher that is trained here: the science of its run has it.
    """
    versions: dict[OwnCode, int | str | None] = {}
    for teacher in science.teachers:
        if is_own_model(teacher.model):
            versions[code_of(teacher.model)] = teacher.source if isinstance(teacher, Given) else None
    if is_own_model(science.student):
        versions[code_of(science.student)] = science.student_source
    if ":" in science.method.use:
        versions[OwnCode("method", science.method.use)] = science.method.version
    return versions


def all_own_code(sciences: Iterable[Science]) -> list[OwnCode]:
    """Return the code of the user's own that any of these runs needs, in order of its names."""
    return sorted({code for science in sciences for code in own_code(science)}, key=str)
