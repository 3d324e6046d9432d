"""Several teachers as one: a frozen network whose logits are the mean of theirs."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from harness.spec.science import Science
from harness.training.tasks import Task
from harness.training.teacher import Teacher
from methods.base import Outputs, TapSpec


class TeacherEnsemble(nn.Module):
    """Networks that see the same images, each by its own normalisation.

    Its taps are theirs, with a network's position before the name: ``0.stage1``. It has no embedding.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor, taps: Collection[str] = ()) -> Outputs:
        outputs: list[Outputs] = []
        for position, model in enumerate(self.models):
            own = [tap.removeprefix(f"{position}.") for tap in taps if tap.startswith(f"{position}.")]
            outputs.append(model(images, tuple(own)))
        logits = torch.stack([one.logits.float() for one in outputs]).mean(0)
        features = {f"{i}.{tap}": x for i, one in enumerate(outputs) for tap, x in one.features.items()}
        return Outputs(logits, logits.new_empty(0), features, teachers=tuple(outputs))


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
    """Return several teachers as one, whose score is not measured."""
    first, *_ = teachers
    return Teacher(
        TeacherEnsemble([teacher.model for teacher in teachers]).eval(),
        " + ".join(teacher.name for teacher in teachers),
        first.file,
        " + ".join(teacher.sha256 for teacher in teachers),
        None,
        combined_spec([teacher.spec for teacher in teachers]),
        first.ranks,
        note="\n".join(dict.fromkeys(teacher.note for teacher in teachers if teacher.note)),
    )


def combined_spec(specs: Sequence[TapSpec]) -> TapSpec:
    """Return what several teachers offer a method together."""
    channels = {f"{i}.{tap}": count for i, spec in enumerate(specs) for tap, count in spec.channels.items()}
    sizes = {f"{i}.{tap}": size for i, spec in enumerate(specs) for tap, size in spec.sizes.items()}
    return TapSpec(channels, sizes, embedding_dim=0, num_classes=specs[0].num_classes)


def teacher_spec(science: Science, task: Task) -> TapSpec:
    """Return what the teacher or the teachers of a run offer a method."""
    specs = [task.describe(task.build(teacher.model)) for teacher in science.teachers]
    return specs[0] if len(specs) == 1 else combined_spec(specs)
