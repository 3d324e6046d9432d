"""Expansion of a sweep: cells of the comparison, the runs behind them, and the packs that train together."""

import itertools
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from harness.errors import UserError, collected, raise_mistakes, unknown
from harness.spec import datasets, identity, method_settings, models, own_models, sweep_file, tasks
from harness.spec import methods as method_sources
from harness.spec.augmentation import check_fill
from harness.spec.canonical_recipe import canonical_recipe
from harness.spec.lines import Line, LinePart
from harness.spec.methods import MethodInfo
from harness.spec.model_reference import split_names
from harness.spec.schema import Method, Pair, Recipe, Sweep, Weights, WeightsSource
from harness.spec.science import (
    CLOSED,
    SHARED_RECIPE,
    DatasetChoice,
    Given,
    MethodSettings,
    Science,
    Several,
    Start,
    Trained,
    training_runs,
)
from harness.spec.tasks import DatasetInfo
from harness.spec.teacher_order import referred_pair, training_order
from harness.spec.teacher_reference import RunReference, TeacherReference
from harness.spec.yamlfile import Document, KeyPath

MAX_CELLS = 200_000  # more take minutes to plan, and are probably a typing mistake


@dataclass(frozen=True)
class Run:
    """One student trained once."""

    run_id: str
    science: Science
    label: str  # "resnet56 > resnet20 / kd / seed 0", for people


@dataclass(frozen=True)
class Cell(LinePart):
    """One number of the comparison: (pair, method, seed) and the run that yields it."""

    __pydantic_config__ = CLOSED
    seed: int
    run_id: str
    teacher_run: str | None  # None when the teacher's weights are given, or there are several teachers
    teacher_runs: tuple[str, ...] = ()  # of several teachers: the runs that train some of them

    @property
    def needed_runs(self) -> tuple[str, ...]:
        """The runs that train the cell's teachers."""
        return self.teacher_runs or tuple(filter(None, (self.teacher_run,)))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; the key of several teachers is left out where there are none."""
        return {key: value for key, value in vars(self).items() if value != () or key != "teacher_runs"}


@dataclass(frozen=True)
class Pack:
    """Runs that train together. ``needs`` is the run that trains their teacher, when there is one."""

    run_ids: tuple[str, ...]
    needs: str | None
    but_for_seed: tuple[int, str] | None = None  # equal where only seeds differ: pair and recipe; None: a teacher's
    also_needs: tuple[str, ...] = ()  # the runs that train their further teachers

    @classmethod
    def of(cls, run_ids: tuple[str, ...], needed: tuple[str, ...], but_for_seed: tuple[int, str] | None) -> "Pack":
        """Return a pack whose teachers are trained by the ``needed`` runs."""
        return cls(run_ids, next(iter(needed), None), but_for_seed, needed[1:])

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The runs that train their teachers."""
        return tuple(filter(None, (self.needs, *self.also_needs)))


@dataclass
class Plan:
    """Everything a sweep asks for."""

    sweep: Sweep
    document: Document
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)  # Given.weights_id -> its weights
    backbones: dict[str, WeightsSource] = field(default_factory=dict)  # Start.weights_id -> what networks start from
    sha256_of_source: dict[str, str] = field(default_factory=dict)  # file, address or name of any of these -> sha256
    dataset_label: str = ""  # see DatasetInfo.label; no part of any run


TeacherChoice = Trained | Given | Several
WeightsHash = Callable[[WeightsSource], str]
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
        UserError: a method, hyper-parameter, loss term or recipe that does not exist; it names all mistakes.
    """
    if (cells := len(sweep.pairs) * len(sweep.methods) * len(sweep.seeds)) > MAX_CELLS:
        raise UserError(f"{document.source}: asks for {cells:,} runs; a sweep may have {MAX_CELLS:,}: split it")
    method_sources.describe_own_method.cache_clear()  # a user's own may have changed since this process planned
    expansion = _Expansion(Plan(sweep, document), sweep, document, info, weights_sha256)
    try:
        return _expanded(expansion, only, added)
    except UserError as e:
        raise_mistakes([*e.parts, *expansion.mistakes()])
        raise


def _expanded(expansion: "_Expansion", only: Only | None, added: Iterable[Cell]) -> Plan:
    """Return the plan; the first mistake is raised."""
    plan, sweep, document = expansion.plan, expansion.sweep, expansion.document
    with document.place(("dataset",)):
        sweep.dataset.check_parts(expansion.info)
    teachers = expansion.load_teachers()
    teacher_runs = dict(plan.runs)
    groups: dict[Any, list[str]] = {}
    added_runs: dict[Line, dict[int, str]] = {}
    for cell in added:
        if cell.seed not in sweep.seeds:
            added_runs.setdefault(cell.line, {})[cell.seed] = cell.run_id
    for i, pair in enumerate(sweep.pairs):
        expansion.check_pair(i, pair)
        for k in training_runs(teachers[i]):
            expansion.check_images(i, pair, plan.runs[k].science.recipe, of=("teacher",))
        for name in sweep.methods:
            science = expansion.science_of(i, name)
            expansion.check_images(i, pair, science.recipe)
            shared = identity.canonical({key: getattr(science.recipe, key) for key in SHARED_RECIPE})
            run_id_of = science.run_id_by_seed()
            line = Line(pair.teacher_text, pair.student, name)
            further = added_runs.get(line, {})
            for seed in (*sweep.seeds, *further):
                if not _is_selected(only, line, seed):
                    continue
                run_id = run_id_of(seed)
                if further.get(seed, run_id) != run_id:
                    continue
                plan.cells.append(Cell(*line, seed, run_id, *_teacher_runs(teachers[i])))
                if run_id in plan.runs:  # a student without a teacher stands in several pairs, or is itself a teacher
                    continue
                plan.runs[run_id] = Run(run_id, science.with_seed(seed), _label(line, seed))
                groups.setdefault((i, seed, shared), []).append(run_id)
    if not plan.cells:
        raise UserError(f"{document.source}: --only leaves no run")
    # A teacher always trains in a process of its own: in a pack it could wait for a student that waits for it.
    needed = _needed(plan)
    plan.packs = [Pack.of((k,), plan.runs[k].science.teacher_runs, None) for k in teacher_runs if k in needed]
    for (i, _, shared), group in groups.items():
        needs = max((plan.runs[k].science.teacher_runs for k in group), key=len)  # one without a teacher has none
        plan.packs.append(Pack.of(tuple(group), needs, (i, shared)))
    plan.runs = {k: plan.runs[k] for pack in plan.packs for k in pack.run_ids}
    return plan


def _needed(plan: Plan) -> set[str]:
    """Return the cells' runs, with their teachers' runs, the runs of these runs' teachers, and so on."""
    needed: set[str] = set()
    new = {cell.run_id for cell in plan.cells}
    while new := new - needed:
        needed |= new
        new = {teacher for k in new for teacher in plan.runs[k].science.teacher_runs}
    return needed


def _teacher_runs(teacher: TeacherChoice) -> tuple[str | None, tuple[str, ...]]:
    """Return what a cell says of its teachers' runs: that of a single one, and those of several."""
    if isinstance(teacher, Several):
        return None, training_runs(teacher)
    return (teacher.run if isinstance(teacher, Trained) else None), ()


def _label(line: Line, seed: int) -> str:
    return f"{line.pair} / {line.method} / seed {seed}"


def parse_only(texts: Iterable[str], sweep: Sweep) -> Only:
    """Parse selections such as ``method=kd,rekd`` into {field: values}.

    Raises:
        UserError: an unknown field, or a value the sweep does not have.
    """
    valid = {
        "method": set(sweep.methods),
        "teacher": {p.teacher_text for p in sweep.pairs},
        "student": {p.student for p in sweep.pairs},
        "seed": {str(s) for s in sweep.seeds},
    }
    only: Only = {}
    for text in texts:
        key, sep, values = text.partition("=")
        if not sep or key not in valid:
            raise UserError(f"--only {text!r}: expected FIELD=VALUE[,VALUE]; {unknown('field', key, valid)}")
        for value in split_names(values):
            if key == "student" or (key == "teacher" and value not in valid[key]):
                with suppress(ValueError):
                    value = tasks.resolve_model(value)
            if value not in valid[key]:
                raise UserError(f"--only {text!r}: {unknown(key, value, valid[key])}")
            only.setdefault(key, set()).add(value)
    return only


def _is_selected(only: Only | None, line: Line, seed: int) -> bool:
    names = {**line._asdict(), "seed": str(seed)}
    return not only or all(names[k] in values for k, values in only.items())


def _refuse(recipe: Keys, keys: Iterable[str], why: str) -> None:
    if stated := sorted(k for k in keys if recipe[k] != Recipe.model_fields[k].default):
        instead = json.dumps(Recipe.model_fields[stated[0]].default)
        raise ValueError(f"{stated[0]} {why}: leave it out, or write `{stated[0]}: {instead}` if the base states it")


@dataclass
class _Expansion:
    """The parts of a sweep's sciences. ``i`` is a pair's position; errors are UserErrors that name the place."""

    plan: Plan
    sweep: Sweep
    document: Document
    info: DatasetInfo
    weights_sha256: WeightsHash
    source_of: Callable[[str], str | None] = field(default_factory=lambda: cache(own_models.source_of))
    _recipe: Keys = field(default_factory=dict)
    _teachers_recipe: Keys = field(default_factory=dict)
    _teachers: dict[int, TeacherChoice] = field(default_factory=dict)  # by position of the pair
    _sciences: dict[tuple[int, str], Science] = field(default_factory=dict)  # of (pair, method), with the first seed

    @property
    def dataset(self) -> DatasetChoice:
        return DatasetChoice.of_info(self.info, self.sweep.dataset.train_subset, self.sweep.dataset.validation)

    def load_teachers(self) -> dict[int, TeacherChoice]:
        """Return the teachers of each pair, in the order in which they can be trained, and add their runs to the plan.

        Raises:
            UserError: a mistake in a recipe or a teacher.
        """
        sweep, document = self.sweep, self.document
        self._recipe = self._teachers_recipe = sweep_file.load_recipe(sweep.recipe, document, ("recipe",))
        if sweep.teachers.recipe is not None:
            self._teachers_recipe = sweep_file.load_recipe(sweep.teachers.recipe, document, ("teachers", "recipe"))
        for i in training_order(sweep, document):
            self._teachers[i] = self.teacher(i, sweep.pairs[i])
        return self._teachers

    def science_of(self, i: int, name: str) -> Science:
        """Return the science of (pair, method) with the first seed, once the teachers that it has are known."""
        if (i, name) not in self._sciences:
            pair = self.sweep.pairs[i]
            start = self.initial_weights(i, "student_backbone", "student_weights")
            self._sciences[i, name] = self.science(i, pair, name, self._recipe, self._teachers.get(i), start)
        return self._sciences[i, name]

    def check_pair(self, i: int, pair: Pair) -> None:
        for key, names in (("teacher", pair.teacher_reference.models), ("student", (pair.student,))):
            for name in names:
                with self.document.place(("pairs", i, key)):
                    tasks.check_task(name, self.info)
        for name in pair.methods:
            if name not in self.sweep.methods:
                message = unknown("method of this sweep", name, self.sweep.methods)
                raise self.document.mistake(("pairs", i, "methods", name), message)

    def check_images(self, i: int, pair: Pair, recipe: Recipe, of: tuple[str, ...] = ("teacher", "student")) -> None:
        sizes = [size for size in ("image_size", "eval_size") if size in self.info.images.views]
        for size, key in itertools.product(sizes, of):
            side = getattr(recipe, size)
            if (shape := datasets.image_shape(self.info, side)) is None:
                continue
            with self.document.place(("pairs", i, key)):
                try:
                    for name in pair.teacher_reference.models if key == "teacher" else (pair.student,):
                        models.check_images(name, self.info.name, shape)
                except ValueError as e:
                    if self.info.image_shape is None:  # the recipe decides
                        text = f"{e} by `recipe.{size}`; set `image_size`, `eval_size` and `eval_resize` of the recipe"
                        raise ValueError(text) from None
                    if side is not None:
                        raise ValueError(f"{e} by `recipe.{size}`") from None
                    raise ValueError(f"{e}{datasets.size_advice(self.info, getattr(pair, key))}") from None

    def initial_weights(self, i: int, of_backbone: str, of_classifier: str) -> dict[str, Any]:
        """Return the science of the weights that a network starts from; nothing where there are none.

        ``of_backbone``, ``of_classifier``: the pair's keys for them, each for its tasks.
        """
        for key, other, kind in (
            (of_backbone, of_classifier, "backbones"),
            (of_classifier, of_backbone, "fine_tuning"),
        ):
            given: WeightsSource | None = getattr(self.sweep.pairs[i], key)
            if given is None:
                continue
            with self.document.place(("pairs", i, key)):
                if not getattr(self.info.task, kind):
                    names = " and ".join(task.name for task in tasks.CATALOG.values() if getattr(task, kind))
                    use = f": use `{other}`" if self.info.task.backbones or self.info.task.fine_tuning else ""
                    raise ValueError(f"is for {names}; {self.info.name} is for {self.info.task.name}{use}")
                start = Start(self.sha256(given), given.key, given.prefix)
            self.plan.backbones.setdefault(start.weights_id, given)
            if key == of_classifier:
                return {"start": start}
            return {"backbone": start.sha256, "backbone_key": start.key, "backbone_prefix": start.prefix}
        return {}

    def sha256(self, given: WeightsSource) -> str:
        """Return the sha256 of given weights."""
        sha256 = self.plan.sha256_of_source[given.source] = self.weights_sha256(given)
        return sha256

    def recipe(self, recipe: Recipe, at: KeyPath) -> Recipe:
        """Return a recipe with the defaults of the keys that are about this dataset's images."""
        keys: Keys = recipe.model_dump(mode="json")
        task, images, dataset = self.info.task, self.info.images, self.info.name
        with self.document.place(at):
            for other in tasks.CATALOG.values():
                if other is not task:
                    _refuse(keys, other.recipe, f"is for {other.name}; {dataset} is for {task.name}")
                for kind in other.images:
                    for key in sorted(kind.views.keys() - images.views.keys()):
                        owners = [k.name for t in tasks.CATALOG.values() for k in t.images if key in k.views]
                        _refuse(keys, (key,), f"is for {' and '.join(owners)}; {dataset} has {images.name}")
            keys |= {k: default for k, default in {**images.views, **task.recipe}.items() if keys[k] is None}
            images.check(keys)
            for part in (keys, *(keys["views"] or {}).values()):
                check_fill(part.get("augment"), len(self.info.mean))
        return canonical_recipe(Recipe.model_validate(keys), self.info)

    def teacher(self, i: int, pair: Pair) -> TeacherChoice:
        """Return the teachers' part of the students' science, and add the runs that train them to the plan."""
        reference = pair.teacher_reference
        self.check_teacher_keys(i, pair)
        chosen: list[Trained | Given] = []
        for number, (teacher, weights) in enumerate(zip(reference.teachers, pair.weights_by_teacher, strict=True)):
            if isinstance(teacher, RunReference):
                chosen.append(self.run_as_teacher(i, teacher))
            elif weights is not None:
                at: KeyPath = ("pairs", i, "teacher_weights")
                if len(reference.teachers) > 1:
                    at = (*at, number)
                chosen.append(self.given_teacher(i, pair, teacher, weights, at))
            else:
                chosen.append(self.trained_teacher(i, pair, teacher))
        if twice := next((t.model for t in chosen if chosen.count(t) > 1), None):
            message = f"{twice} stands twice for the same weights; runs of other seeds differ: run.seed"
            raise self.document.mistake(("pairs", i, "teacher"), message)
        return Several(tuple(chosen)) if len(chosen) > 1 else chosen[0]

    def check_teacher_keys(self, i: int, pair: Pair) -> None:
        """Check that a pair's keys are about teachers that it has."""
        teachers, document = pair.teacher_reference.teachers, self.document
        for teacher, weights in zip(teachers, pair.weights_by_teacher, strict=True):
            if weights is not None and isinstance(teacher, RunReference):
                raise document.mistake(("pairs", i, "teacher_weights"), "is for models; this teacher is a run")
        by_recipe = [
            t for t, w in zip(teachers, pair.weights_by_teacher, strict=True) if isinstance(t, str) and w is None
        ]
        for key in ("teacher_epoch", "teacher_init"):
            if getattr(pair, key) is not None and not by_recipe:
                why = "is for teachers that the sweep trains by its teachers' recipe; this pair has none"
                raise document.mistake(("pairs", i, key), why)
        if len(teachers) == 1:
            return
        for key in ("teacher_backbone", "teacher_init"):
            if getattr(pair, key) is not None:
                raise document.mistake(("pairs", i, key), "is for pairs with one teacher")
        if not self.info.task.class_per_image:
            message = f"expected one teacher: several are for classification; {self.info.name} is for "
            raise document.mistake(("pairs", i, "teacher"), message + self.info.task.name)

    def run_as_teacher(self, i: int, teacher: RunReference) -> Trained:
        """Return a run of another pair as a teacher, and add it to the plan."""
        at = ("pairs", i, "teacher")
        j, method = referred_pair(self.sweep, i, teacher, self.document), teacher.method
        if method_sources.describe_method(self.sweep.methods[method].use or method).part_of_model:
            raise self.document.mistake(at, f"{method} is a part of the model that it trains, so that it cannot teach")
        science = self.science_of(j, method)
        seed = self.sweep.teachers.seed if teacher.seed is None else teacher.seed
        line = Line(self.sweep.pairs[j].teacher_text, teacher.student, method)
        run_id = science.run_id_by_seed()(seed)
        self.plan.runs.setdefault(run_id, Run(run_id, science.with_seed(seed), _label(line, seed)))
        return Trained(teacher.student, run_id)

    def trained_teacher(self, i: int, pair: Pair, model: str) -> Trained:
        student = method_sources.describe_method("student")
        place: KeyPath = ("teachers", "recipe") if self.sweep.teachers.recipe else ("recipe",)
        of_students = {} if self.sweep.teachers.recipe else {"freeze": ()}
        keys = {**self._teachers_recipe, "teacher_top_k": None, "views": None, **of_students}
        if (epoch := pair.teacher_epoch) is not None:
            if epoch > keys["epochs"]:
                message = f"expected at most the teachers' epochs, {keys['epochs']}, found {epoch}"
                raise self.document.mistake(("pairs", i, "teacher_epoch"), message)
            keys["stop_epoch"] = epoch if epoch < keys["epochs"] else None  # all: the run of those that do not stop
        science = Science(
            protocol=identity.PROTOCOL,
            dataset=self.dataset,
            teacher=None,
            student=model,
            student_source=self.source_of(model),
            method=MethodSettings("student", student.version, {}, student.weights),
            recipe=self.recipe(Recipe.model_validate(keys), place),
            seed=self.sweep.teachers.seed,
            **self.initial_weights(i, "teacher_backbone", "teacher_init"),
        )
        run_id = science.run_id
        name = TeacherReference((model,), pair.teacher_epoch).text
        self.plan.runs.setdefault(run_id, Run(run_id, science, f"teacher {name} / seed {science.seed}"))
        return Trained(model, run_id)

    def given_teacher(self, i: int, pair: Pair, model: str, weights: Weights, at: KeyPath) -> Given:
        with self.document.place(at):
            own = weights.normalisation(self.info)
            more = {**(own._asdict() if own else {}), **weights.place._asdict(), "source": self.source_of(model)}
            given = Given(model, self.sha256(weights), **more)
        score = self.info.task.score
        stated, before = weights.stated(score), self.plan.weights.setdefault(given.weights_id, weights).stated(score)
        if before is None:
            self.plan.weights[given.weights_id] = weights
        elif stated not in (None, before):
            message = f"another pair states {before} for the same weights"
            raise self.document.mistake((*at, score), message)
        for key in ("teacher_backbone", "teacher_init"):
            if getattr(pair, key) is not None:
                message = "is for teachers that the sweep trains; this one has `teacher_weights`"
                raise self.document.mistake(("pairs", i, key), message)
        return given

    def science(
        self, i: int, pair: Pair, name: str, recipe: Keys, teacher: TeacherChoice | None, backbone: dict[str, Any]
    ) -> Science:
        """Return the science of (pair, method) with the first seed. The pair's own settings win over the sweep's."""
        at = ("methods", name)
        source, settings = self.settings(i, pair, name)
        use = settings.use
        with self.document.place(at):
            self.check_defined(use, source, pair)
        final = self.changed_recipe(i, pair, name, recipe)
        if not source.logits_only or (source.several_teachers and isinstance(teacher, Several)):
            final = final.model_copy(update={"teacher_top_k": None})
        with self.document.place(at):
            final = method_settings.with_views(final, use, source)
            method_settings.check_augmentation(final, use, source)
        # A finished run may have such a recipe, so it is not the recipe's own check.
        if final.epoch_steps and (final.teacher_top_k or not isinstance(final.image_size, int | None)):
            key = "`teacher_top_k`" if final.teacher_top_k else "a growing `image_size`"
            raise self.document.mistake(at, f"expected {key}, which goes by passes, or `epoch_steps`, found both")
        if final.label_smoothing and source.part_of_model:
            raise self.document.mistake(
                at,
                f"{use} computes a cross-entropy of its own, which `label_smoothing` does not reach: expected 0 in its "
                "recipe",
            )
        return Science(
            protocol=identity.PROTOCOL,
            dataset=self.dataset,
            teacher=teacher if source.needs_teacher else None,
            student=pair.student,
            student_source=self.source_of(pair.student),
            method=settings,
            recipe=self.recipe(final, ("recipe",)),
            seed=self.sweep.seeds[0],
            **backbone,
        )

    def changed_recipe(self, i: int, pair: Pair, name: str, recipe: Keys) -> Recipe:
        """Return the recipe of (pair, method)."""
        at, at_pair = ("methods", name, "recipe"), ("pairs", i, "methods", name, "recipe")
        own, of_pair = self.sweep.methods[name].recipe, pair.methods.get(name, Method()).recipe
        layers: list[tuple[KeyPath, Keys]] = [(at, own), (("pairs", i, "recipe"), pair.recipe), (at_pair, of_pair)]
        return sweep_file.changed_recipe(recipe, layers, self.document, ("recipe",))

    def mistakes(self) -> list[UserError]:
        """Return all mistakes that need no look at weights, for a sweep that is known to have some."""
        mistakes: list[UserError] = []
        recipe: Keys | None = None
        with collected(mistakes):
            recipe = sweep_file.load_recipe(self.sweep.recipe, self.document, ("recipe",))
        if self.sweep.teachers.recipe is not None:
            with collected(mistakes):
                sweep_file.load_recipe(self.sweep.teachers.recipe, self.document, ("teachers", "recipe"))
        for i, pair in enumerate(self.sweep.pairs):
            with collected(mistakes):
                self.check_pair(i, pair)
            for name in self.sweep.methods:
                with collected(mistakes):
                    self.settings(i, pair, name)
                if recipe is not None:
                    with collected(mistakes):
                        self.changed_recipe(i, pair, name, recipe)
                        science = self.science(i, pair, name, recipe, Given(pair.teacher_text, ""), {})
                        self.check_images(i, pair, science.recipe)
        return mistakes

    def settings(self, i: int, pair: Pair, name: str) -> tuple[MethodInfo, MethodSettings]:
        layers = {
            ("methods", name): self.sweep.methods[name],
            ("pairs", i, "methods", name): pair.methods.get(name, Method()),
        }
        return method_settings.resolve(name, layers, self.document)

    def check_defined(self, use: str, source: MethodInfo, pair: Pair) -> None:
        models_of_pair = (pair.student, *pair.teacher_reference.models)
        kinds = set.intersection(*({*self.info.task.kinds(model)} for model in models_of_pair))
        if source.needs_teacher and len(models_of_pair) > 2 and not (source.logits_only or source.several_teachers):
            methods = {name: method_sources.describe_method(name) for name in method_sources.builtin_names()}
            able = [k for k, m in methods.items() if m.needs_teacher and (m.logits_only or m.several_teachers)]
            raise ValueError(
                f"{use} reads more of a teacher than its logits, of which alone there is a mean of "
                f"{pair.teacher_text}; defined for several teachers: {', '.join(able)}, and methods of your own that "
                "state `several_teachers = True`"
            )
        if source.needs_teacher and kinds.isdisjoint(source.defined_for):
            methods = {name: method_sources.describe_method(name) for name in method_sources.builtin_names()}
            defined = [k for k, m in methods.items() if not m.needs_teacher or not kinds.isdisjoint(m.defined_for)]
            raise ValueError(
                f"{use} is defined only for {' and '.join(source.defined_for)}, not for {pair.teacher_text} > "
                f"{pair.student}; defined for this pair: {', '.join(defined)}"
            )
