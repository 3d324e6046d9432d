"""Expansion of a sweep: cells of the comparison, the runs behind them, and the packs that train together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError, unknown
from harness.spec import datasets, identity, models, sweep_file, tasks
from harness.spec import methods as method_sources
from harness.spec.lines import Line, LinePart
from harness.spec.schema import Backbone, Method, Pair, Recipe, Sweep, Weights, WeightsSource
from harness.spec.science import DatasetChoice, Given, MethodSettings, Science, Trained
from harness.spec.tasks import DatasetInfo
from harness.spec.yamlfile import Document, KeyPath

MAX_CELLS = 200_000  # more take minutes to plan, and are probably a typing mistake
# Members of a pack share the data pass and the teacher's forward, so these parts of their recipes must agree.
SHARED_RECIPE = (
    "batch_size",
    "epoch_steps",
    "flip",
    "precision",
    "compile",
    "teacher_top_k",
    *(key for task in tasks.CATALOG.values() for images in task.images for key in images.views),
)


@dataclass(frozen=True)
class Run:
    """One student trained once."""

    run_id: str
    science: Science
    label: str  # "resnet56 > resnet20 / kd / seed 0", for people


@dataclass(frozen=True)
class Cell(LinePart):
    """One number of the comparison: (pair, method, seed) and the run that yields it."""

    seed: int
    run_id: str
    teacher_run: str | None  # None when the teacher's weights are given


@dataclass(frozen=True)
class Pack:
    """Runs trained in one process. ``needs`` is the run that trains their teacher, when there is one."""

    run_ids: tuple[str, ...]
    needs: str | None


@dataclass
class Plan:
    """Everything a sweep asks for."""

    sweep: Sweep
    document: Document
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)  # sha256 -> given teacher weights
    backbones: dict[str, Backbone] = field(default_factory=dict)  # sha256 -> what detectors start from


WeightsHash = Callable[[WeightsSource, KeyPath], str]
Only = dict[str, set[str]]
Keys = dict[str, Any]


def expand(
    sweep: Sweep, document: Document, info: DatasetInfo, weights_sha256: WeightsHash, only: Only | None = None,
    added: Iterable[Cell] = (),
) -> Plan:  # fmt: skip
    """Return all cells, runs and packs of a sweep, teachers first.

    ``added``: cells of seeds that the sweep does not list. A cell is left out when the sweep's science has changed
    since, so that its run does not belong to the sweep any more.

    Raises:
        UserError: a method, hyper-parameter, loss term or recipe that does not exist.
    """
    if (cells := len(sweep.pairs) * len(sweep.methods) * len(sweep.seeds)) > MAX_CELLS:
        raise UserError(f"{document.source}: asks for {cells:,} runs; a sweep may have {MAX_CELLS:,}: split it")
    try:
        sweep.dataset.check_parts(info)
    except ValueError as e:
        raise UserError(f"{document.where(('dataset',))}: {e}") from None
    plan = Plan(sweep, document)
    recipe = sweep_file.load_recipe(sweep.recipe, document, ("recipe",))
    teachers_recipe = recipe
    if sweep.teachers.recipe is not None:
        teachers_recipe = sweep_file.load_recipe(sweep.teachers.recipe, document, ("teachers", "recipe"))
    teachers = [
        _teacher(pair, i, sweep, teachers_recipe, document, info, weights_sha256, plan)
        for i, pair in enumerate(sweep.pairs)
    ]
    teacher_runs = dict(plan.runs)
    groups: dict[Any, list[str]] = {}
    needs: dict[Any, str | None] = {}
    added_runs: dict[Line, dict[int, str]] = {}
    for cell in added:
        if cell.seed not in sweep.seeds:
            added_runs.setdefault(cell.line, {})[cell.seed] = cell.run_id
    for i, (pair, teacher) in enumerate(zip(sweep.pairs, teachers, strict=True)):
        _check_pair(pair, sweep, document, info, i)
        teacher_run = teacher.run if isinstance(teacher, Trained) else None
        at: KeyPath = ("pairs", i, "student_backbone")
        backbone = _backbone(pair.student_backbone, at, document, info, weights_sha256, plan)
        for name, entry in sweep.methods.items():
            science = _science(pair, i, name, entry, sweep, recipe, document, info, teacher, backbone)
            _check_images(pair, science.recipe, document, info, i)
            shared = identity.canonical({key: getattr(science.recipe, key) for key in SHARED_RECIPE})
            run_id_of = science.run_id_by_seed()
            further = added_runs.get(Line(pair.teacher, pair.student, name), {})
            for seed in (*sweep.seeds, *further):
                if not _is_selected(only, pair, name, seed):
                    continue
                run_id = run_id_of(seed)
                if further.get(seed, run_id) != run_id:
                    continue
                plan.cells.append(Cell(pair.teacher, pair.student, name, seed, run_id, teacher_run))
                if run_id in plan.runs:  # a student without a teacher stands in several pairs, or is itself a teacher
                    continue
                label = f"{pair.teacher} > {pair.student} / {name} / seed {seed}"
                plan.runs[run_id] = Run(run_id, science.with_seed(seed), label)
                groups.setdefault((i, seed, shared), []).append(run_id)
                if science.teacher:
                    needs[(i, seed, shared)] = teacher_run
    if not plan.cells:
        raise UserError(f"{document.source}: --only leaves no run")
    # A teacher always trains in a process of its own: in a pack it could wait for a student that waits for it.
    needed = {c.run_id for c in plan.cells} | set(needs.values())
    plan.packs = [Pack((k,), None) for k in teacher_runs if k in needed]
    plan.packs += [Pack(tuple(group), needs.get(key)) for key, group in groups.items()]
    plan.runs = {k: plan.runs[k] for pack in plan.packs for k in pack.run_ids}
    return plan


def parse_only(texts: Iterable[str], sweep: Sweep) -> Only:
    """Parse selections such as ``method=kd,rekd`` into {field: values}.

    Raises:
        UserError: an unknown field, or a value the sweep does not have.
    """
    valid = {
        "method": set(sweep.methods),
        "teacher": {p.teacher for p in sweep.pairs},
        "student": {p.student for p in sweep.pairs},
        "seed": {str(s) for s in sweep.seeds},
    }
    only: Only = {}
    for text in texts:
        key, sep, values = text.partition("=")
        if not sep or key not in valid:
            raise UserError(f"--only {text!r}: expected FIELD=VALUE[,VALUE]; {unknown('field', key, valid)}")
        for value in values.split(","):
            if value not in valid[key]:
                raise UserError(f"--only {text!r}: {unknown(key, value, valid[key])}")
            only.setdefault(key, set()).add(value)
    return only


def _is_selected(only: Only | None, pair: Pair, method: str, seed: int) -> bool:
    names = {"method": method, "teacher": pair.teacher, "student": pair.student, "seed": str(seed)}
    return not only or all(names[k] in values for k, values in only.items())


def _check_images(pair: Pair, recipe: Recipe, document: Document, info: DatasetInfo, i: int) -> None:
    if (shape := datasets.image_shape(info, recipe.image_size)) is None:
        return
    for key, model in (("teacher", pair.teacher), ("student", pair.student)):
        try:
            models.check_images(model, info.name, shape)
        except ValueError as e:
            raise UserError(f"{document.where(('pairs', i, key))}: {e}") from None


def _check_pair(pair: Pair, sweep: Sweep, document: Document, info: DatasetInfo, i: int) -> None:
    for key, model in (("teacher", pair.teacher), ("student", pair.student)):
        try:
            tasks.check_task(model, info)
        except ValueError as e:
            raise UserError(f"{document.where(('pairs', i, key))}: {e}") from None
    for name in pair.methods:
        if name not in sweep.methods:
            where = document.where(("pairs", i, "methods", name))
            raise UserError(f"{where}: {unknown('method of this sweep', name, sweep.methods)}")


def _backbone(
    given: Backbone | None, at: KeyPath, document: Document, info: DatasetInfo, weights_sha256: WeightsHash, plan: Plan
) -> str | None:
    """Return the sha256 of the weights that a detector's backbone starts from; None where there are none.

    Raises:
        UserError: they cannot be read, or are given to a classifier.
    """
    if given is None:
        return None
    if not info.task.backbones:
        backbones = " and ".join(task.name for task in tasks.CATALOG.values() if task.backbones)
        raise UserError(f"{document.where(at)}: is for {backbones}; {info.name} is for {info.task.name}")
    sha256 = weights_sha256(given, at)
    plan.backbones.setdefault(sha256, given)
    return sha256


def _dataset(sweep: Sweep, info: DatasetInfo) -> DatasetChoice:
    return DatasetChoice.of_info(info, sweep.dataset.train_subset, sweep.dataset.validation)


def _recipe(recipe: Recipe, info: DatasetInfo, document: Document, at: KeyPath) -> Recipe:
    """Return a recipe with the defaults of the keys that are about this dataset's images.

    Raises:
        UserError: a key is about images that this dataset does not have.
    """
    keys: Keys = recipe.model_dump(mode="json")
    task, images = info.task, info.images
    for other in tasks.CATALOG.values():
        if other is not task:
            _refuse(keys, other.recipe, f"is for {other.name}; {info.name} is for {task.name}", document, at)
        for kind in other.images:
            of_others = kind.views.keys() - images.views.keys()
            _refuse(keys, of_others, f"is for {kind.name}; {info.name} has {images.name}", document, at)
    keys |= {k: default for k, default in {**images.views, **task.recipe}.items() if keys[k] is None}
    try:
        images.check(keys)
    except ValueError as e:
        raise UserError(f"{document.where(at)}: {e}") from None
    return Recipe.model_validate(keys)


def _refuse(recipe: Keys, keys: Iterable[str], why: str, document: Document, at: KeyPath) -> None:
    if stated := sorted(k for k in keys if recipe[k] != Recipe.model_fields[k].default):
        raise UserError(f"{document.where(at)}: {stated[0]} {why}")


def _teacher(
    pair: Pair, i: int, sweep: Sweep, recipe: Keys, document: Document, info: DatasetInfo, weights_sha256: WeightsHash,
    plan: Plan,
) -> Trained | Given:  # fmt: skip
    """Return the teacher's part of the students' science, and add the run that trains the teacher to the plan."""
    if pair.teacher_weights is not None:
        sha256 = weights_sha256(pair.teacher_weights, ("pairs", i, "teacher_weights"))
        known = plan.weights.setdefault(sha256, pair.teacher_weights)
        score = info.task.score
        stated, before = pair.teacher_weights.stated(score), known.stated(score)
        if before is None:
            plan.weights[sha256] = pair.teacher_weights
        elif stated not in (None, before):
            where = document.where(("pairs", i, "teacher_weights", score))
            raise UserError(f"{where}: another pair states {before} for the same weights")
        if pair.teacher_backbone is not None:
            where = document.where(("pairs", i, "teacher_backbone"))
            raise UserError(f"{where}: is for teachers that the sweep trains; this one has `teacher_weights`")
        return Given(pair.teacher, sha256)
    student = method_sources.describe_method("student")
    student_recipe = Recipe.model_validate({**recipe, "teacher_top_k": None})
    science = Science(
        dataset=_dataset(sweep, info),
        teacher=None,
        student=pair.teacher,
        method=MethodSettings("student", student.version, {}, student.weights),
        recipe=_recipe(student_recipe, info, document, ("teachers", "recipe")),
        seed=sweep.teachers.seed,
        backbone=_backbone(
            pair.teacher_backbone, ("pairs", i, "teacher_backbone"), document, info, weights_sha256, plan
        ),
        protocol=identity.PROTOCOL,
    )
    run_id = science.run_id
    plan.runs.setdefault(run_id, Run(run_id, science, f"teacher {pair.teacher} / seed {sweep.teachers.seed}"))
    return Trained(pair.teacher, run_id)


def _check_defined(
    use: str, source: method_sources.MethodInfo, pair: Pair, info: DatasetInfo, document: Document, at: KeyPath
) -> None:
    kinds = {*info.task.kinds(pair.student)} & {*info.task.kinds(pair.teacher)}
    if source.needs_teacher and kinds.isdisjoint(source.defined_for):
        defined = [name for name in method_sources.builtin_names() if _is_defined(name, kinds)]
        raise UserError(
            f"{document.where(at)}: {use} is defined only for {' and '.join(source.defined_for)}, "
            f"not for {pair.teacher} > {pair.student}; defined for this pair: {', '.join(defined)}"
        )


def _is_defined(name: str, kinds: set[str]) -> bool:
    source = method_sources.describe_method(name)
    return not source.needs_teacher or not kinds.isdisjoint(source.defined_for)


def _science(
    pair: Pair, i: int, name: str, entry: Method, sweep: Sweep, recipe: Keys, document: Document, info: DatasetInfo,
    teacher: Trained | Given, backbone: str | None,
) -> Science:  # fmt: skip
    """Return the science of (pair, method) with the first seed. The pair's own settings win over the sweep's."""
    override = pair.methods.get(name, Method())
    at: KeyPath = ("methods", name)
    use = override.use or entry.use or name
    try:
        source = method_sources.describe_method(use)
    except UserError as e:
        raise UserError(f"{document.where(at)}: {e}") from None
    _check_defined(use, source, pair, info, document, at)
    params = {k: h.default for k, h in source.hyper.items()}
    weights = dict(source.weights)
    for settings, path in ((entry, at), (override, ("pairs", i, "methods", name))):
        for key, value in settings.params.items():
            where = document.where((*path, "params", key))
            if key not in source.hyper:
                raise UserError(f"{where}: {unknown(f'hyper-parameter of {use}', key, source.hyper)}")
            try:
                params[key] = source.hyper[key].check(value)
            except ValueError as e:
                raise UserError(f"{where}: {e}") from None
        for term, weight in settings.weights.items():
            if term not in weights:
                where = document.where((*path, "weights", term))
                raise UserError(f"{where}: {unknown(f'loss term of {use}', term, weights)}")
            weights[term] = weight
    if not any(weights.values()):
        raise UserError(f"{document.where(at)}: every loss term has weight 0: nothing would be trained")
    layers: list[tuple[KeyPath, Keys]] = [
        ((*at, "recipe"), entry.recipe),
        (("pairs", i, "recipe"), pair.recipe),
        (("pairs", i, "methods", name, "recipe"), override.recipe),
    ]
    final = sweep_file.changed_recipe(recipe, layers, document, ("recipe",))
    if not source.logits_only:
        final = final.model_copy(update={"teacher_top_k": None})
    if final.label_smoothing and source.part_of_model:
        raise UserError(
            f"{document.where(at)}: {use} computes a cross-entropy of its own, which `label_smoothing` does not reach: "
            "expected 0 in its recipe"
        )
    return Science(
        dataset=_dataset(sweep, info),
        teacher=teacher if source.needs_teacher else None,
        student=pair.student,
        method=MethodSettings(use, source.version, params, weights),
        recipe=_recipe(final, info, document, ("recipe",)),
        seed=sweep.seeds[0],
        backbone=backbone,
        protocol=identity.PROTOCOL,
    )
