"""The process of a check, which takes a first step of each run: ``python -m harness.training.check ORDER.json``.

``harness.planning.check`` starts it. It reads given weights but no data: images are random, and so is a teacher that is
yet to be trained. A run takes its step as in a job, on a few images, by itself.
"""

import math
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from harness.data.load.loader import EvalSet, Extras, LoadedBatch, Waiting
from harness.data.load.mixing import Mix, Mixing
from harness.spec import identity
from harness.spec.own_code import own_code
from harness.spec.pretrained import ANYWHERE
from harness.spec.schema import Recipe
from harness.spec.science import Given, Science, Trained, as_json
from harness.store import files
from harness.training.batch_sizes import BatchSizes
from harness.training.check_order import CheckOrder, CheckResult, RunToCheck, State
from harness.training.distributed.ranks import ONE_RANK
from harness.training.distributed.sync_batchnorm import sync_batch_norms
from harness.training.job_order import WeightsFile
from harness.training.member import Member
from harness.training.outputs import tensors_in
from harness.training.pack import Pack
from harness.training.recorder import kind_and_cause
from harness.training.tasks import StartWeights, Task, open_task
from harness.training.tasks.base import RandomImages
from harness.training.teacher import Teacher, TeacherSource, read_teacher
from harness.training.teacher_ensemble import ensemble
from harness.training.teacher_pass import measure
from harness.training.untrained_weights import write_untrained_weights

CPU = torch.device("cpu")
FEWEST, FEW = 2, 4  # images of a step: large and small ones
SMALL = 64 * 64  # pixels of an image
MOST_TRAIN_IMAGES = 50_000  # a method may keep something of every image
MOST_PIXELS = 32 * 224 * 224  # of a step that is repeated with a batch like the recipe's
TINY_LR = 1e-9  # a gradient that is not finite shows in the weights, and nothing else changes
HERE = Path(__file__).parent
# What torch, triton and extensions say where there is no GPU, or where an operation is for GPUs only.
ABOUT_GPUS = re.compile(
    r"cuda|gpu|nvidia|triton|accelerator|0 active drivers|'CPU' backend|not implemented for '(BFloat16|Half)'",
    re.IGNORECASE,
)


class TooSlow(BaseException):
    """The check of a run takes too long. It is not an Exception, so that a method does not catch it."""


class Done(BaseException):
    """The steps are taken. It is not an Exception, so that a pack does not take it for a run's failure."""


class NotFinite(Exception):
    """A loss or a gradient that is infinite or not a number."""


@dataclass
class RandomLoader:
    """A training set of one batch; its images and labels are random."""

    name = "test"  # as a set that is evaluated on, which it never is
    data: RandomImages
    extras: Extras = Extras()

    def __post_init__(self) -> None:
        self.batch_size, self.targets = len(self.data.images), self.data.train_targets

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, first_step: int = 0, waiting: Waiting = nullcontext) -> Iterator[LoadedBatch]:
        images = len(self.targets)  # a method that keeps something of each image must have room for the last ones
        yield self.data.images, self.data.targets, torch.arange(images - self.batch_size, images), self.extras

    def batches(self, mine: slice) -> NoReturn:
        raise NotImplementedError


@dataclass
class FirstSteps:
    """The observer of a run's first step in each of its stages."""

    error: BaseException | None = None

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        """Leave the step alone."""

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        self.error = error

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        """Look at the step's loss and gradients.

        Raises:
            Done: no stage is left.
        """
        last = [(name, value) for epoch, name, value in member.history.curves if epoch == member.history.epoch]
        if wrong := [f"{name.partition('_')[2]} is {value}" for name, value in last if not math.isfinite(value)]:
            self.error = NotFinite(f"the loss is not finite at the first step: {', '.join(wrong)}")
        elif not all(bool(p.isfinite().all()) for p in member.parameters):
            self.error = NotFinite("gradients are not finite at the first step")
        if self.error or member.history.epoch > 0:
            raise Done


@dataclass
class Checker:
    """The checks of an order's runs, one after the other. Neighbours with the same teacher share it."""

    order: CheckOrder
    folder: Path  # for untrained weights
    _teacher: tuple[str, Teacher] | None = None  # the last one, with what it depends on
    _too_slow: set[str] = field(default_factory=set)  # methods
    _start_note: str = ""  # on the last run's first weights

    def check(self, run: RunToCheck) -> CheckResult:
        """Return the result of a run's check, whose position in the order is yet to be set."""
        science = Science.from_json(run.science)
        method = science.method.use
        if method in self._too_slow:
            return CheckResult(0, State.TOO_SLOW)
        before = signal.signal(signal.SIGALRM, _raise_too_slow)
        signal.setitimer(signal.ITIMER_REAL, self.order.seconds)
        try:
            cause = self._cause(science, run.processes)
        except TooSlow:
            self._too_slow.add(method)
            return CheckResult(0, State.TOO_SLOW)
        except BaseException as error:  # SystemExit, of a method, among them
            if lacks := lacking(error, run.gpu):
                return CheckResult(0, State.NOT_HERE, lacks)
            cause = described(error, science)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if cause:
            return CheckResult(0, State.FAILED, cause)
        of_teacher = self._teacher[1].note if self._teacher and science.teacher else ""
        return CheckResult(0, State.PASSED, notes=tuple(filter(None, (of_teacher, self._start_note))))

    def _cause(self, science: Science, processes: int) -> str | None:
        """Return why a run would fail at its smallest batch; None if it would not.

        Raises whatever a model or a method raises before.
        """
        start = StartWeights.of(science, self.order.weights)
        task = open_task(science.dataset, science.recipe, start)
        teacher = self._teacher_of(science, task) if science.teacher else None
        self._start_note = ""
        if not self.order.steps or processes > 1 or start:
            student = task.build(science.student)
            self._start_note = task.start(student, science.student)
            if processes > 1:
                sync_batch_norms(student, ONE_RANK)
        if not self.order.steps:
            return None
        batches = BatchSizes(science, processes if not task.whole_batch else 1)
        height, width = task.random_images(1, 1).images.shape[-2:]
        few = min(FEW if height * width <= SMALL else FEWEST, batches.largest)
        error, most = first_steps(science, teacher, task, few), few
        if error and not is_own(error):  # a method may need more images than a few
            most = max(few, min(batches.largest, MOST_PIXELS // (height * width)))
            if most > few:
                error = first_steps(science, teacher, task, most)
        if error and most > 1:
            raise error
        for side in smaller_sides(science.recipe):
            if error := first_steps(science, teacher, task, most, side):
                return f"at image_size {side}, of {as_json(science.recipe.image_size)}: {described(error, science)}"
        last = batches.smallest
        if last < most and (last == 1 or few < most):
            error = first_steps(science, teacher, task, last)
        return f"{batches.last}: {described(error, science)}; {batches.advice}" if error else None

    def _teacher_of(self, science: Science, task: Task) -> Teacher | None:
        """Return a run's teacher; None for one whose weights are not at hand, when only weights are looked at."""
        choice = science.teacher
        given = [t for t in science.given_teachers if t.weights_id in self.order.weights]
        if not self.order.steps and not given:
            return None
        built = [getattr(science.recipe, name) for name in ("precision", "image_size", *task.info.recipe)]
        key = identity.canonical({"dataset": as_json(science.dataset), "teacher": as_json(choice), "built": built})
        if self._teacher is None or self._teacher[0] != key:
            self._teacher = None  # before the next one is in memory
            teachers = [self._single_teacher(science, one, task) for one in science.teachers]
            teacher = teachers[0] if len(teachers) == 1 else ensemble(teachers)
            teacher.prepare(science.recipe.precision)
            self._teacher = key, teacher
        return self._teacher[1]

    def _single_teacher(self, science: Science, choice: Trained | Given, task: Task) -> Teacher:
        """Return a teacher with its given weights, or with random ones where they are not at hand."""
        given: WeightsFile | None = self.order.weights.get(choice.weights_id) if isinstance(choice, Given) else None
        if given and isinstance(choice, Given):
            return read_teacher(TeacherSource.of_run(science, choice, Path(given.file), choice.sha256), task, CPU)
        file = self.folder / "untrained.safetensors"
        write_untrained_weights(task, choice.model, file)
        source = replace(TeacherSource.of_run(science, choice, file, files.sha256(file)), place=ANYWHERE)
        return read_teacher(source, task, CPU)


def _raise_too_slow(*_: object) -> NoReturn:
    raise TooSlow


def smaller_sides(recipe: Recipe) -> list[int]:
    """Return the sides that images have before the last one, where they grow."""
    sizes = recipe.image_size
    return [] if sizes is None or isinstance(sizes, int) else [side for _, side in sizes[:-1]]


def first_steps(
    science: Science, teacher: Teacher | None, task: Task, count: int, side: int | None = None
) -> BaseException | None:
    """Take the first step of each stage of a run, on ``count`` images; return what went wrong.

    ``side``: of the images, in pixels, if it is smaller than at the end of training.

    Raises whatever the method's constructor raises.
    """
    torch.manual_seed(0)
    train_images = max(count, min(science.dataset.train_images, MOST_TRAIN_IMAGES))
    data = task.random_images(count, train_images)
    if side is not None:
        data = data._replace(images=data.images[..., :side, :side].contiguous(memory_format=torch.channels_last))
    loader = RandomLoader(data, _extras(science, data))
    # No evaluation after the first epoch.
    changes = {"lr": TINY_LR, "accumulate": 1, "epochs": 2, "eval_every": 2, "stop_epoch": None}
    member = Member(
        replace(science, recipe=science.recipe.model_copy(update=changes)), teacher, loader.targets, task, CPU
    )
    request = member.distiller.teacher_pass
    if request and teacher:
        few = loader.data.targets, lambda positions: [loader.data.images[positions]]
        member.distiller.use_teacher_pass(measure(request, teacher, *few, science.recipe.precision))
    member.history.epoch = -1 if member.in_first_stage else 0
    steps = FirstSteps()
    evalset: EvalSet = loader
    try:
        Pack({"run": member}, loader, evalset, teacher, steps).train()  # type: ignore[arg-type]
    except Done:
        pass
    if isinstance(steps.error, NotFinite) and teacher and not _is_telling(science, teacher, member, loader.data.images):
        return None
    if steps.error is None and member.distiller.part_of_model:
        with torch.no_grad():
            member.evaluated_model.eval()(loader.data.images)
    return steps.error


def _extras(science: Science, data: RandomImages) -> Extras:
    """Return what a recipe adds to a batch: further views, and the classes' shares of mixed images."""
    views = {name: torch.randn_like(data.images) for name in science.recipe.views or {}}
    mixing = Mixing.of(science.recipe, science.dataset.info.classes)
    return Extras(Mix(mixing.classes).probs(data.targets) if mixing else None, views)


def _is_telling(science: Science, teacher: Teacher, member: Member, images: Tensor) -> bool:
    """Return whether a teacher's outputs are finite or, given, as they will be; otherwise losses tell nothing."""
    outputs = teacher(images, member.main_taps, science.recipe.precision, len(images))
    given = len(science.given_teachers) == len(science.teachers)
    return given or all(bool(x.isfinite().all()) for x in tensors_in(outputs))


def lacking(error: BaseException, gpu: bool) -> str:
    """Return what an error says that this machine lacks, though the job's may have it: disk, memory or a GPU."""
    kind, cause = kind_and_cause(error)
    if kind == "disk":
        return cause
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "needs more memory than this machine gives it"
    return "needs a GPU" if gpu and kind == "code" and ABOUT_GPUS.search(f"{cause} {error}") else ""


def is_own(error: BaseException) -> bool:
    """Return whether the harness has refused what a method does, which no other batch would change."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(HERE)


def described(error: BaseException, science: Science) -> str:
    """Return an error's cause, with the line in a user's own method or model that it comes from."""
    cause = str(error) if isinstance(error, NotFinite) else kind_and_cause(error)[1]
    return cause + next(filter(None, (code.place_of(error) for code in own_code(science))), "")


def main() -> None:
    order = CheckOrder.read(Path(sys.argv[1]))
    results = Path(order.results)
    torch.set_num_threads(order.threads)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # methods may print without end
        os.dup2(null, stream)
    with tempfile.TemporaryDirectory(prefix="untrained-", dir=results.parent) as folder:
        checker = Checker(order, Path(folder))
        for i, run in enumerate(order.runs):
            CheckResult(i, State.BEGUN).append_to(results)
            replace(checker.check(run), run=i).append_to(results)


if __name__ == "__main__":
    main()
