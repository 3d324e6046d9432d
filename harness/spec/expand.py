"""Expansion of a sweep: cells of the comparison, the runs behind them, and the packs that train together."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError, collected, raise_mistakes, unknown
from harness.spec import datasets, identity, method_settings, models, sweep_file, tasks
from harness.spec import methods as method_sources
from harness.spec.lines import Line, LinePart
from harness.spec.methods import MethodInfo
from harness.spec.schema import Backbone, Method, Pair, Recipe, Sweep, Weights, WeightsSource
from harness.spec.science import (
    CLOSED,
    SHARED_RECIPE,
    DatasetChoice,
    Given,
    MethodSettings,
    Science,
    Trained,
    backbone_id,
)
from harness.spec.tasks import DatasetInfo
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
    teacher_run: str | None  # None when the teacher's weights are given


@dataclass(frozen=True)
class Pack:
    """Runs that train together. ``needs`` is the run that trains their teacher, when there is one."""

    run_ids: tuple[str, ...]
    needs: str | None
    but_for_seed: tuple[int, str] | None = None  # equal where only seeds differ: pair and recipe; None: a teacher's


@dataclass
class Plan:
    """Everything a sweep asks for."""

    sweep: Sweep
    document: Document
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)  # Given.weights_id -> its weights
    backbones: dict[str, Backbone] = field(default_factory=dict)  # backbone_id -> what detectors start from
    sha256_of_source: dict[str, str] = field(default_factory=dict)  # file, address or name of any of these -> sha256
    dataset_label: str = ""  # see DatasetInfo.label; no part of any run


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
    recipe = sweep_file.load_recipe(sweep.recipe, document, ("recipe",))
    teachers_recipe = recipe
    if sweep.teachers.recipe is not None:
        teachers_recipe = sweep_file.load_recipe(sweep.teachers.recipe, document, ("teachers", "recipe"))
    teachers = [expansion.teacher(i, pair, teachers_recipe) for i, pair in enumerate(sweep.pairs)]
    teacher_runs = dict(plan.runs)
    groups: dict[Any, list[str]] = {}
    needs: dict[Any, str | None] = {}
    added_runs: dict[Line, dict[int, str]] = {}
    for cell in added:
        if cell.seed not in sweep.seeds:
            added_runs.setdefault(cell.line, {})[cell.seed] = cell.run_id
    for i, (pair, teacher) in enumerate(zip(sweep.pairs, teachers, strict=True)):
        expansion.check_pair(i, pair)
        teacher_run = teacher.run if isinstance(teacher, Trained) else None
        if teacher_run is not None:
            expansion.check_images(i, pair, plan.runs[teacher_run].science.recipe, of=("teacher",))
        backbone = expansion.backbone(pair.student_backbone, ("pairs", i, "student_backbone"))
        for name in sweep.methods:
            science = expansion.science(i, pair, name, recipe, teacher, backbone)
            expansion.check_images(i, pair, science.recipe)
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
    for key, group in groups.items():
        i, _, shared = key
        plan.packs.append(Pack(tuple(group), needs.get(key), (i, shared)))
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


def _refuse(recipe: Keys, keys: Iterable[str], why: str) -> None:
    if stated := sorted(k for k in keys if recipe[k] != Recipe.model_fields[k].default):
        raise ValueError(f"{stated[0]} {why}")


@dataclass
class _Expansion:
    """The parts of a sweep's sciences. ``i`` is a pair's position; errors are UserErrors that name the place."""

    plan: Plan
    sweep: Sweep
    document: Document
    info: DatasetInfo
    weights_sha256: WeightsHash

    @property
    def dataset(self) -> DatasetChoice:
        return DatasetChoice.of_info(self.info, self.sweep.dataset.train_subset, self.sweep.dataset.validation)

    def check_pair(self, i: int, pair: Pair) -> None:
        for key in ("teacher", "student"):
            with self.document.place(("pairs", i, key)):
                tasks.check_task(getattr(pair, key), self.info)
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
                    models.check_images(getattr(pair, key), self.info.name, shape)
                except ValueError as e:
                    if self.info.image_shape is None:  # the recipe decides
                        text = f"{e} by `recipe.{size}`; set `image_size`, `eval_size` and `eval_resize` of the recipe"
                        raise ValueError(text) from None
                    if side is not None:
                        raise ValueError(f"{e} by `recipe.{size}`") from None
                    raise

    def backbone(self, given: Backbone | None, at: KeyPath) -> dict[str, Any]:
        """Return the science of the weights that a detector's backbone starts from; nothing where there are none."""
        if given is None:
            return {}
        with self.document.place(at):
            if not self.info.task.backbones:
                backbones = " and ".join(task.name for task in tasks.CATALOG.values() if task.backbones)
                raise ValueError(f"is for {backbones}; {self.info.name} is for {self.info.task.name}")
            sha256 = self.sha256(given)
        self.plan.backbones.setdefault(backbone_id(sha256, given.place), given)
        return {"backbone": sha256, "backbone_key": given.key, "backbone_prefix": given.prefix}

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
        return Recipe.model_validate(keys)

    def teacher(self, i: int, pair: Pair, recipe: Keys) -> Trained | Given:
        """Return the teacher's part of the students' science, and add the run that trains the teacher to the plan."""
        if pair.teacher_weights is not None:
            return self.given_teacher(i, pair, pair.teacher_weights)
        student = method_sources.describe_method("student")
        student_recipe = Recipe.model_validate({**recipe, "teacher_top_k": None, "views": None})
        science = Science(
            protocol=identity.PROTOCOL,
            dataset=self.dataset,
            teacher=None,
            student=pair.teacher,
            method=MethodSettings("student", student.version, {}, student.weights),
            recipe=self.recipe(student_recipe, ("teachers", "recipe") if self.sweep.teachers.recipe else ("recipe",)),
            seed=self.sweep.teachers.seed,
            **self.backbone(pair.teacher_backbone, ("pairs", i, "teacher_backbone")),
        )
        run_id = science.run_id
        self.plan.runs.setdefault(run_id, Run(run_id, science, f"teacher {pair.teacher} / seed {science.seed}"))
        return Trained(pair.teacher, run_id)

    def given_teacher(self, i: int, pair: Pair, weights: Weights) -> Given:
        with self.document.place(("pairs", i, "teacher_weights")):
            own = weights.normalisation(self.info)
            more = {**(own._asdict() if own else {}), **weights.place._asdict()}
            given = Given(pair.teacher, self.sha256(weights), **more)
        score = self.info.task.score
        stated, before = weights.stated(score), self.plan.weights.setdefault(given.weights_id, weights).stated(score)
        if before is None:
            self.plan.weights[given.weights_id] = weights
        elif stated not in (None, before):
            message = f"another pair states {before} for the same weights"
            raise self.document.mistake(("pairs", i, "teacher_weights", score), message)
        if pair.teacher_backbone is not None:
            message = "is for teachers that the sweep trains; this one has `teacher_weights`"
            raise self.document.mistake(("pairs", i, "teacher_backbone"), message)
        return given

    def science(
        self, i: int, pair: Pair, name: str, recipe: Keys, teacher: Trained | Given, backbone: dict[str, Any]
    ) -> Science:
        """Return the science of (pair, method) with the first seed. The pair's own settings win over the sweep's."""
        at = ("methods", name)
        source, settings = self.settings(i, pair, name)
        use = settings.use
        with self.document.place(at):
            self.check_defined(use, source, pair)
        final = self.changed_recipe(i, pair, name, recipe)
        if not source.logits_only:
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
                        science = self.science(i, pair, name, recipe, Given(pair.teacher, ""), {})
                        self.check_images(i, pair, science.recipe)
        return mistakes

    def settings(self, i: int, pair: Pair, name: str) -> tuple[MethodInfo, MethodSettings]:
        layers = {
            ("methods", name): self.sweep.methods[name],
            ("pairs", i, "methods", name): pair.methods.get(name, Method()),
        }
        return method_settings.resolve(name, layers, self.document)

    def check_defined(self, use: str, source: MethodInfo, pair: Pair) -> None:
        kinds = {*self.info.task.kinds(pair.student)} & {*self.info.task.kinds(pair.teacher)}
        if source.needs_teacher and kinds.isdisjoint(source.defined_for):
            methods = {name: method_sources.describe_method(name) for name in method_sources.builtin_names()}
            defined = [k for k, m in methods.items() if not m.needs_teacher or not kinds.isdisjoint(m.defined_for)]
            raise ValueError(
                f"{use} is defined only for {' and '.join(source.defined_for)}, not for {pair.teacher} > "
                f"{pair.student}; defined for this pair: {', '.join(defined)}"
            )
