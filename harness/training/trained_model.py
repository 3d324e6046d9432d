"""The model that a run trains: its student, together with the method where that is part of the model."""

import importlib
from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from harness.errors import UserError, shorten
from harness.models.checkpoints import hold_a_method, load_weights
from harness.spec import methods as method_sources
from harness.spec.library_models import is_library_model
from harness.spec.model_reference import ModelReference
from harness.spec.science import MethodSettings, Science
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
    module, _, class_name = method_sources.describe_method(name).target.partition(":")
    if ":" in name:
        method_sources.add_current_folder_to_path()
    distiller: type[Distiller] = getattr(importlib.import_module(module), class_name)
    if not (isinstance(distiller, type) and issubclass(distiller, Distiller)):
        raise UserError(f"method {name!r}: the class must derive from methods.base.Distiller")
    return distiller


def trained_model(
    science: Science, file: Path, sha256: str | None, own_method: str | None = None, own_models: Collection[str] = ()
) -> nn.Module:
    """Load a finished run's model from its weights file.

    A record may come from others, so a method or a model that is not the harness's is imported only if it is
    ``own_method`` or among ``own_models``, which the user has named.

    Raises:
        WeightsError: the file is not what the run wrote.
        UserError: the model cannot be built without a method or a model that the user has not named.
    """
    _check_own_model(science.student, own_models)
    task = open_task(science.dataset, science.recipe)
    student = task.build(science.student)
    model: nn.Module = student
    if _is_part_of_model(science.method.use, file, own_method):
        for teacher in science.teachers:
            _check_own_model(teacher.model, own_models)
        specs = task.describe(student), teacher_spec(science, task)
        model = StudentWithMethod(student, build_distiller(science.method, *specs))
    load_weights(model, f"{science.student} trained with {science.method.use}", file, sha256)
    return model


def _check_own_model(model: str, own_models: Collection[str]) -> None:
    name = ModelReference.parse(model).name
    if ":" in name and not is_library_model(name) and name not in own_models:
        raise UserError(f"the model {shorten(name)} is not the harness's: to let its code run, name it by --own-model")


def _is_part_of_model(method: str, file: Path, own_method: str | None) -> bool:
    if ":" not in method or method == own_method:
        return method_class(method).part_of_model
    if hold_a_method(file):
        raise UserError(
            f"weights {file}: the method {shorten(method)} is part of them and not the harness's: to let its code run, "
            "name it by --own-method"
        )
    return False
