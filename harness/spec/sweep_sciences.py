"""The sciences of a sweep's runs, put together from the parts of its file."""

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from harness.errors import UserError, collected, unknown
from harness.spec import datasets, identity, method_settings, models, own_models, sweep_file, tasks
from harness.spec import methods as method_sources
from harness.spec.augmentation import check_fill
from harness.spec.canonical_recipe import canonical_recipe
from harness.spec.lines import Line
from harness.spec.methods import MethodInfo
from harness.spec.optimizers import check_terms
from harness.spec.run_labels import run_label
from harness.spec.schema import Method, Pair, Recipe, Sweep, Weights, WeightsSource
from harness.spec.science import DatasetChoice, Given, MethodSettings, Science, Several, Start, Trained
from harness.spec.sweep_plan import Plan, Run
from harness.spec.tasks import DatasetInfo
from harness.spec.teacher_order import referred_pair, training_order
from harness.spec.teacher_reference import RunReference, TeacherReference
from harness.spec.yamlfile import Document, KeyPath

TeacherChoice = Trained | Given | Several
WeightsHash = Callable[[WeightsSource], str]
Keys = dict[str, Any]


def _refuse(recipe: Keys, keys: Iterable[str], why: str) -> None:
    if stated := sorted(k for k in keys if recipe[k] != Recipe.model_fields[k].default):
        instead = json.dumps(Recipe.model_fields[stated[0]].default)
        raise ValueError(f"{stated[0]} {why}: leave it out, or write `{stated[0]}: {instead}` if the base states it")


@dataclass
class SweepSciences:
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
                    by = "" if side is None and self.info.image_shape else f" by `recipe.{size}`"
                    raise ValueError(f"{e}{by}{datasets.size_advice(self.info, getattr(pair, key))}") from None

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
        self.plan.runs.setdefault(run_id, Run(run_id, science.with_seed(seed), run_label(line, seed)))
        return Trained(teacher.student, run_id)

    def trained_teacher(self, i: int, pair: Pair, model: str) -> Trained:
        student = method_sources.describe_method("student")
        place: KeyPath = ("teachers", "recipe") if self.sweep.teachers.recipe else ("recipe",)
        of_students: Keys = {}
        if not self.sweep.teachers.recipe:
            of_students = {"freeze": (), "momentum_delta": Recipe.model_fields["momentum_delta"].default}
            if self._teachers_recipe.get("optimizer") == "dot":
                of_students["optimizer"] = "sgd"  # what DOT is without a distillation
        keys = {**self._teachers_recipe, "teacher_top_k": None, "views": None, **of_students}
        if (epoch := pair.teacher_epoch) is not None:
            if epoch > keys["epochs"]:
                message = f"expected at most the teachers' epochs, {keys['epochs']}, found {epoch}"
                raise self.document.mistake(("pairs", i, "teacher_epoch"), message)
            keys["stop_epoch"] = epoch if epoch < keys["epochs"] else None  # all: the run of those that do not stop
        recipe = self.recipe(Recipe.model_validate(keys), place)
        with self.document.place(place):
            check_terms(recipe.optimizer, "a teacher", student.weights)
        science = Science(
            protocol=identity.PROTOCOL,
            dataset=self.dataset,
            teacher=None,
            student=model,
            student_source=self.source_of(model),
            method=MethodSettings("student", student.version, {}, student.weights),
            recipe=recipe,
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
            final = method_settings.with_views(final, settings, source)
            method_settings.check_augmentation(final, use, source)
            check_terms(final.optimizer, use, settings.weights)
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
