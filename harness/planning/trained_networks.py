"""Trained networks that a command is given: finished runs, those of a sweep, and their teachers. Imports no torch."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.console.terminal import say
from harness.errors import UserError
from harness.phrases import plural
from harness.planning.plan import plan_sweep
from harness.spec import identity
from harness.spec.lines import PairNames
from harness.spec.science import Given, Science, as_json
from harness.spec.tasks import classification
from harness.store.store import Store
from harness.training.job_order import WeightsFile

if TYPE_CHECKING:
    from torch import nn

    from harness.store.saved_run import SavedRun

_SHOWN = ("image_size", "eval_size", "eval_resize", "eval_crop_first")  # keys of a recipe: what is seen of images


class Network(NamedTuple):
    """A trained network, and its place in the table."""

    pair: str
    method: str
    seed: int | None  # None: of a given teacher
    key: str  # of its results in the store
    sha256: str  # of its weights
    science: Science  # of the run that it belongs to
    load: Callable[[], "nn.Module"]


class Own(NamedTuple):
    """The code of the user's own that may be imported."""

    method: str | None
    models: Collection[str]


def networks_of_runs(store: Store, prefixes: Sequence[str], teacher: bool, own: Own) -> Iterator[Network]:
    """Yield the students of finished runs, whose ids start with ``prefixes``; ``teacher``: then their teachers.

    Raises:
        UserError: there is no such run, or it is no classifier's; or nothing says where its teacher's weights are.
    """
    from harness.store.saved_run import find_saved_run

    saved = {run.run_id: run for run in (find_saved_run(store, prefix, "last", "RUN") for prefix in prefixes)}
    for run in saved.values():
        model = run.science.teacher_model
        pair = str(PairNames(model, run.science.student)) if model else run.science.student
        yield _student(run, pair, run.science.method.use, own)
    if teacher:
        yield from teachers_of(store, saved.values(), {}, own)


def networks_of_sweep(
    file: Path, results: Path, data: Path | None, sets: Sequence[str], only: Sequence[str], teacher: bool, own: Own
) -> Iterator[Network]:
    """Yield the students of a sweep's finished runs; ``teacher``: then their teachers.

    Raises:
        UserError: the sweep file or the overrides are wrong, none of its runs is finished, or it is for no classifiers.
    """
    from harness.store.saved_run import find_saved_run

    planned = plan_sweep(file, results, data, sets, only)
    planned.say_tuned()
    done = planned.store.done_ids()
    cells = [cell for cell in planned.plan.cells if cell.run_id in done]
    run_ids = tuple(dict.fromkeys(cell.run_id for cell in cells))
    missing = len({cell.run_id for cell in planned.plan.cells} - done)
    if not cells:
        raise UserError(f"{file}: none of its runs is finished in {planned.store.root}; train them with harness.sweep")
    if missing:
        say(f"{file}: {plural(missing, 'run')} without a record: left out")
    saved = {run_id: find_saved_run(planned.store, run_id, "last", str(file)) for run_id in run_ids}
    for cell in cells:
        yield _student(saved[cell.run_id], str(cell.pair), cell.method, own)
    if teacher:
        yield from teachers_of(planned.store, saved.values(), planned.weights_files(run_ids), own)


def _student(saved: "SavedRun", pair: str, method: str, own: Own) -> Network:
    science = saved.science
    if (info := science.dataset.info).task is not classification.TASK:
        raise UserError(f"run {saved.run_id}: {science.student} is for {info.task.name}; only classifiers are probed")

    def load() -> "nn.Module":
        from harness.training.trained_model import trained_model

        return trained_model(science, saved.file, saved.sha256, own.method, own.models)

    return Network(pair, method, science.seed, saved.run_id, saved.sha256 or "", science, load)


def teachers_of(
    store: Store, saved: Collection["SavedRun"], weights: Mapping[str, WeightsFile], own: Own
) -> Iterator[Network]:
    """Yield the runs' teachers, each once; ``weights``: the files of those that are given.

    Raises:
        UserError: a trained teacher's run has no record, or a given one's file is not known.
    """
    from harness.store.saved_run import find_saved_run

    networks: dict[str, Network] = {}
    for run in saved:
        for choice in run.science.teachers:
            if isinstance(choice, Given):
                network = _given_teacher(run, choice, weights, own)
            else:
                of_run = find_saved_run(store, choice.run, "last", f"the teacher of run {run.run_id}")
                network = _student(of_run, choice.model, "teacher", own)
            networks[network.key] = network
    yield from networks.values()


def _given_teacher(run: "SavedRun", choice: Given, weights: Mapping[str, WeightsFile], own: Own) -> Network:
    science, file = run.science, weights.get(choice.weights_id)
    if file is None:
        raise UserError(
            f"run {run.run_id}: the weights of its teacher {choice.model} are given, and a record does not say where "
            "they are: name the sweep file with --sweep"
        )

    def load() -> "nn.Module":
        import torch

        from harness.training.tasks import open_task
        from harness.training.teacher import TeacherSource, read_teacher
        from harness.training.trained_model import check_named

        check_named(choice.model, choice.source, own.models)
        source = TeacherSource.of_run(science, choice, Path(file.file), choice.sha256)
        return read_teacher(source, open_task(science.dataset, science.recipe), torch.device("cpu")).model

    shown = {key: getattr(science.recipe, key) for key in _SHOWN}
    normalisation = science.dataset.info.normalisation._asdict()
    key = identity.digest({"teacher": as_json(choice), "shown": shown, "normalisation": normalisation})
    return Network(choice.model, "teacher", None, key, choice.sha256, science, load)
