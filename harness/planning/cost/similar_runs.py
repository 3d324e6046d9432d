"""Past runs that are similar to a planned one, from the most similar on, and the times that they predict."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.planning.cost.devices import Device
from harness.planning.cost.interval import Interval
from harness.planning.cost.past_run import PastRun, image_counts
from harness.spec import identity, models
from harness.spec.science import Science, recipe_json

if TYPE_CHECKING:
    from harness.planning.cost.past_run import Floats

# Keys of a recipe that hardly change the time an image takes.
_FREE = {
    "epochs", "lr", "momentum", "weight_decay", "nesterov", "schedule", "milestones", "gamma", "warmup_epochs",
    "warmup_steps", "eval_every", "label_smoothing", "clip_norm", "schedule_by", "min_lr", "warmup_lr", "betas", "eps",
    "decay_norms_and_biases", "stop_epoch", "momentum_delta",
}  # fmt: skip
# What a job takes besides training is more than slow if it is so many times the least, and so many seconds more.
SUSPENDED_TIMES, SUSPENDED_SECONDS = 10.0, 60.0
OTHER_THREADS = 1.5  # further widening where the similar runs had other threads; each thread is assumed to do as much


@dataclass(frozen=True)
class SimilarityLevel:
    """A degree of similarity: runs with an equal ``key``. ``widening`` is that of ``Interval.of``."""

    label: str
    widening: float
    key: Callable[[Science], Hashable]
    by_size: bool = False  # the models differ: time goes with their multiply-adds


def shape(science: Science) -> str:
    """Return a text that is equal for runs that differ in seed, schedule and loss weights only."""
    recipe = {k: v for k, v in recipe_json(science.recipe).items() if k not in _FREE}
    method = {"use": science.method.use, "params": science.method.params}
    return identity.canonical({"pair": _pair(science), "method": method, "recipe": recipe})


def _images(science: Science) -> str:
    """Return a text that is equal for runs on images of one kind: those in memory can have any size too."""
    size = science.recipe.image_size if science.dataset.info.image_shape else None
    return science.dataset.name if size is None else f"{science.dataset.name} at {size}"


def _pair(science: Science) -> tuple[str, str | None, str]:
    return _images(science), science.teacher_model, science.student


# From the most similar on. The factors hold for the short runs in results/published, each predicted from the others.
LEVELS = (
    SimilarityLevel("the same method and pair", 1.5, shape),
    SimilarityLevel("the same method and pair with other settings", 1.75, lambda s: (*_pair(s), s.method.use)),
    SimilarityLevel("the same pair by other methods", 2.0, _pair),
    SimilarityLevel("the same student", 2.5, lambda s: (_images(s), s.student), by_size=True),
    SimilarityLevel("other models, by their multiply-adds", 4.0, _images, by_size=True),
)
SAME_METHOD = 1  # the last of these levels at which the method is the same
SAME_PAIR = 2  # the last of these levels at which the models are the same


@dataclass(frozen=True)
class RunEstimate:
    """The predicted seconds of one run; data and teacher are its whole pack's."""

    level: int  # of LEVELS; 0: the most similar
    runs: int  # past runs behind it
    own: Interval
    data: Interval
    teacher: Interval
    overhead: Interval  # what its job takes besides training
    evaluated_parameters: int | None  # of the model that a run leaves; None: past runs had another student
    method_parameters: int


class SimilarRuns:
    """Past runs, indexed by similarity."""

    def __init__(self, past: Iterable[PastRun]):
        self._by_key: list[dict[Hashable, list[PastRun]]] = [{} for _ in LEVELS]
        for group in past:
            for by_key, level in zip(self._by_key, LEVELS, strict=True):
                by_key.setdefault(level.key(group.science), []).append(group)

    def of_method_and_pair(self, science: Science) -> list[PastRun]:
        """Return the past runs with a run's method and pair, whatever their settings and hardware."""
        return self._by_key[SAME_METHOD].get(LEVELS[SAME_METHOD].key(science), [])

    def predict(self, science: Science, device: Device) -> RunEstimate | None:
        """Predict a run from the most similar past runs on its device; None where there are none."""
        for i, (by_key, level) in enumerate(zip(self._by_key, LEVELS, strict=True)):
            near = [
                (past, scales)
                for past in by_key.get(level.key(science), ())
                if device.is_like(past.hardware, past.processes)
                and (scales := _scales(science, past.science, level.by_size))
            ]
            alike = [(past, scales) for past, scales in near if device.gpu or past.threads == device.threads]
            if near:
                widening = level.widening * (1.0 if alike else OTHER_THREADS)
                return _predict(science, device, i, alike or near, widening)
        return None


def _scales(science: Science, past: Science, by_size: bool) -> tuple[float, float] | None:
    """Return the factors of student and teacher over those of the past run; None where they are unknown."""
    if not by_size:
        return 1.0, 1.0
    student = _ratio(science.student, past.student)
    teacher = _ratio(science.teacher_model, past.teacher_model) if science.teacher else 1.0
    return (student, teacher) if student and teacher else None


def _ratio(model: str | None, other: str | None) -> float | None:
    if model == other:
        return 1.0
    if model is None or other is None or not (models.has_model_facts(model) and models.has_model_facts(other)):
        return None
    return models.model_facts(model).macs / models.model_facts(other).macs


def _predict(
    science: Science, device: Device, level: int, near: list[tuple[PastRun, tuple[float, float]]], widening: float
) -> RunEstimate:
    import numpy as np

    images, evaluated = image_counts(science)

    def whole(
        values: Callable[[PastRun], Any], scale: Callable[[tuple[float, float]], float] = lambda _: 1.0
    ) -> Interval:
        scaled = [values(past) * scale(scales) * _of_threads(past, device) for past, scales in near]
        return Interval.of(np.concatenate(scaled), widening)

    own = whole(lambda past: past.own * images + past.evaluation * evaluated, lambda scales: scales[0])
    if first := [past for past, _ in near if past.science.method.use == science.method.use]:
        own += Interval.of(np.concatenate([past.first_stage * _of_threads(past, device) for past in first]), widening)
    nothing = Interval(0.0, 0.0, 0.0)
    overhead = _not_suspended(np.concatenate([past.overhead for past, _ in near]))
    same_student = [past for past, _ in near if past.science.student == science.student]
    return RunEstimate(
        level=level,
        runs=sum(len(past.own) for past, _ in near),
        own=own,
        data=whole(lambda past: past.data * images),
        teacher=whole(lambda past: past.teacher * images, lambda scales: scales[1]) if science.teacher else nothing,
        overhead=Interval.of(overhead, widening) if len(overhead) else nothing,
        evaluated_parameters=max((past.evaluated_parameters for past in same_student), default=None),
        method_parameters=max(past.method_parameters for past, _ in near),
    )


def _not_suspended(overhead: "Floats") -> "Floats":
    """Return what jobs took besides training, as far as it is known, without jobs that were suspended meanwhile.

    Records do not say so: a job's time goes on while SLURM has stopped it, and the costs of its runs do not. So much
    time besides training tells, if another job had less.
    """
    import numpy as np

    known = overhead[~np.isnan(overhead)]
    least = known.min(initial=np.inf)
    return known[known <= max(SUSPENDED_TIMES * least, least + SUSPENDED_SECONDS)]


def _of_threads(past: PastRun, device: Device) -> float:
    """Return the seconds on this device for one of the past run; a core does as much whatever the threads."""
    return 1.0 if device.gpu else past.threads / device.threads
