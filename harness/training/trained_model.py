"""The model that a run trains: its student, together with the method where that is part of the model."""

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from harness.errors import UserError, shorten
from harness.models.checkpoints import hold_a_method, load_weights
from harness.spec import methods as method_sources
from harness.spec.own_models import code_of, is_own_model
from harness.spec.science import Given, MethodSettings, Science
from harness.spec.source_code import OwnCode
from harness.spec.tasks import import_object
from harness.training.outputs import to_float32
from harness.training.tasks import open_task
from harness.training.teacher_ensemble import teacher_spec
from methods.base import Distiller, Outputs, TapSpec


class StudentWithMethod(nn.Module):
    """A student whose logits its method predicts."""

    def __init__(self, student: nn.Module, distiller: Distiller):
        super().__init__()
        self.student, self.method = student, distiller

    def forward(self, images: Tensor) -> Outputs:
        outputs = to_float32(self.student(images, self.method.student_taps))
        return Outputs(self.method.predict(outputs), outputs.embedding)


def build_distiller(method: MethodSettings, student: TapSpec, teacher: TapSpec) -> Distiller:
    """Build a method with its hyper-parameters."""
    return method_class(method.use)(student, teacher, **method.params)


def method_class(name: str) -> type[Distiller]:
    """Import a built-in method by its name, or a user's own by ``package.module:Class``.

    The name must be one that the user has given: this runs the module's code.

    Raises:
        UserError: there is no such method, or the class is not a Distiller.
    """
    target = method_sources.describe_method(name).target
    distiller: type[Distiller] = OwnCode("method", name).load() if ":" in name else import_object(target)
    if not (isinstance(distiller, type) and issubclass(distiller, Distiller)):
        raise UserError(f"method {name!r}: the class must derive from methods.base.Distiller")
    return distiller


def trained_model(
    science: Science, file: Path, sha256: str | None, own_method: str | None = None, own_models: Collection[str] = ()
) -> nn.Module:
    """Load a finished run's model from its weights file.

    A record may come from others, so a method or model that is not the harness's is imported only if it is
    ``own_method`` or one of ``own_models``, which the user has named, and only if its source is the run's.

    Raises:
        WeightsError: the file is not what the run wrote.
        UserError: the model cannot be built without a method or model that the user has not named, or whose source has
            changed.
    """
    check_named(science.student, science.student_source, own_models)
    task = open_task(science.dataset, science.recipe)
    student = task.build(science.student)
    model: nn.Module = student
    if _is_part_of_model(science.method.use, file, own_method):
        for teacher in science.teachers:
            check_named(teacher.model, teacher.source if isinstance(teacher, Given) else None, own_models)
        if own_method:
            OwnCode("method", own_method).check_version(science.method.version)
        specs = task.describe(student), teacher_spec(science, task)
        model = StudentWithMethod(student, build_distiller(science.method, *specs))
    load_weights(model, f"{science.student} trained with {science.method.use}", file, sha256)
    return model


def check_named(model: str, source: str | None, own_models: Collection[str]) -> None:
    """Check that a record's model may be imported: it is the harness's or a library's, or the user has named it.

    Raises:
        UserError: it is of somebody's own and not named, or its source is not the run's.
    """
    if not is_own_model(model):
        return
    code = code_of(model)
    if not {code.name, model} & set(own_models):
        raise UserError(
            f"no model named {shorten(code.name)} in the harness: to let code of your own run, name it by --own-model"
        )
    code.check_version(source)


def _is_part_of_model(method: str, file: Path, own_method: str | None) -> bool:
    if ":" not in method or method == own_method:
        return method_class(method).part_of_model
    if hold_a_method(file):
        raise UserError(
            f"weights {file}: the method {shorten(method)} is part of them and not the harness's: to let its code run, "
            "name it by --own-method"
        )
    return False
