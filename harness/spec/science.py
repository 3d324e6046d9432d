"""A run's science: everything that decides its numbers, and nothing else. Imports no torch."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.errors import UserError
from harness.spec import datasets, identity
from harness.spec.normalisation import Normalisation
from harness.spec.pretrained import ANYWHERE, Place
from harness.spec.repeated_augmentation import images_per_pass
from harness.spec.schema import Recipe
from harness.spec.tasks import CATALOG, DATASETS, DatasetInfo, classification

# Keys of the first results, always in the JSON form. Younger ones are left out while unset, so that runs keep their
# ids.
FIRST_KEYS = frozenset(
    ("epochs", "batch_size", "lr", "momentum", "weight_decay", "nesterov", "schedule", "milestones", "gamma",
     "warmup_epochs", "crop_padding", "flip", "precision", "eval_every", "train_subset", "protocol")
)  # fmt: skip
# Members of a pack share the data pass and the teacher's forward, so these parts of their recipes must agree.
SHARED_RECIPE = (
    "batch_size",
    "epoch_steps",
    "flip",
    "precision",
    "compile",
    "teacher_top_k",
    *classification.AUGMENTATION,
    *(key for task in CATALOG.values() for images in task.images for key in images.views),
)
CLOSED = ConfigDict(extra="forbid")  # a science with keys that are unknown here is of a later version


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """A dataset, by name and content, and the parts of it that a run trains on and is evaluated on."""

    __pydantic_config__ = CLOSED
    name: str
    version: str  # sha256 of the content
    train_subset: int | None = None  # training images; None: all that are not held out
    validation: int | None = None  # training images held out for evaluation; None: the test set is evaluated on
    # Numbers that describe a prepared dataset, so that a science is complete wherever the prepared folder is.
    classes: int | None = None
    train_size: int | None = None
    test_size: int | None = None
    train_per_class: int | None = None
    # Of a user's own data, likewise.
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of_info(
        cls, info: DatasetInfo, train_subset: int | None = None, validation: int | None = None
    ) -> "DatasetChoice":
        stated = {key: getattr(info, key) for key in datasets.stated_keys(info)}
        return cls(info.name, info.version, train_subset, validation, **stated)

    @property
    def info(self) -> DatasetInfo:
        if self.classes is None:
            return DATASETS[self.name]
        info = datasets.info_of(self.name)
        stated = {key: getattr(self, key) for key in datasets.stated_keys(info)}
        return replace(info, version=self.version, **{key: value for key, value in stated.items() if value is not None})

    @property
    def train_images(self) -> int:
        """The number of images that a run trains on."""
        return self.info.trained_on(self.train_subset, self.validation)


@dataclass(frozen=True, slots=True)
class Trained:
    """A teacher that is trained here, by a run of its own."""

    __pydantic_config__ = CLOSED
    model: str
    run: str


@dataclass(frozen=True, slots=True)
class Given:
    """A teacher whose weights are given, known by their content."""

    __pydantic_config__ = CLOSED
    model: str
    sha256: str
    # Normalisation of the images that it sees; None: the dataset's.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    # Place of its weights in the file; None: found by the model's names.
    key: str | None = None
    prefix: str | None = None
    source: str | None = None  # hash of the source of a user's own model

    @property
    def weights_id(self) -> str:
        """The weights' sha256, or a hash of all that is stated where that is more: it tells given teachers apart."""
        content = as_json(self)
        return self.sha256 if content.keys() == {"model", "sha256"} else identity.digest(content)

    @property
    def normalisation(self) -> Normalisation | None:
        return None if self.mean is None or self.std is None else Normalisation(self.mean, self.std)

    @property
    def place(self) -> Place:
        """The place of the weights in their file."""
        return Place(self.key, self.prefix)


@dataclass(frozen=True, slots=True)
class Several:
    """Several teachers, whose mean of logits students learn from."""

    __pydantic_config__ = CLOSED
    teachers: tuple[Trained | Given, ...]

    @property
    def model(self) -> str:
        return " + ".join(teacher.model for teacher in self.teachers)


@dataclass(frozen=True, slots=True)
class Start:
    """The weights that a classifier or a detector's backbone starts from, and their place in the file."""

    __pydantic_config__ = CLOSED
    sha256: str
    key: str | None = None
    prefix: str | None = None

    @property
    def place(self) -> Place:
        """The place of the weights in their file."""
        return Place(self.key, self.prefix)

    @property
    def weights_id(self) -> str:
        """The name of the weights in a plan: the file's sha256, and the place in it if that is stated."""
        return backbone_id(self.sha256, self.place)


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """A method with all its resolved settings."""

    __pydantic_config__ = CLOSED
    use: str  # "kd", "package.module:Class"
    version: int | str
    params: dict[str, Any]  # hyper-parameters
    weights: dict[str, float]  # of its loss terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Science:
    """Everything that decides a run's numbers."""

    __pydantic_config__ = CLOSED
    protocol: int = identity.PROTOCOL
    dataset: DatasetChoice
    teacher: Trained | Given | Several | None
    student: str
    method: MethodSettings
    recipe: Recipe
    backbone: str | None = None  # sha256 of the weights that a detector's backbone starts from
    backbone_key: str | None = None
    backbone_prefix: str | None = None
    start: Start | None = None  # None: random numbers
    student_source: str | None = None  # hash of the source of a user's own model
    seed: int

    @property
    def images_per_pass(self) -> int:
        """The number of images, copies included, that one pass over the training set shows."""
        return images_per_pass(self.dataset.train_images, self.recipe.repeats)

    @property
    def teacher_model(self) -> str | None:
        return self.teacher.model if self.teacher else None

    @property
    def teachers(self) -> tuple[Trained | Given, ...]:
        """Every teacher; none where the run learns from none."""
        return single_teachers(self.teacher)

    @property
    def given_teachers(self) -> tuple[Given, ...]:
        return tuple(teacher for teacher in self.teachers if isinstance(teacher, Given))

    @property
    def teacher_runs(self) -> tuple[str, ...]:
        """The runs that train the teachers, each once."""
        return training_runs(self.teacher)

    @property
    def initial_weights(self) -> Start | None:
        """The weights that the student, or a detector's backbone, starts from; None: random numbers."""
        if self.backbone is None:
            return self.start
        return Start(self.backbone, self.backbone_key, self.backbone_prefix)

    @property
    def run_id(self) -> str:
        return identity.digest(self.to_json())

    @property
    def text(self) -> str:
        """The canonical text, as records hold it."""
        return identity.canonical(self.to_json())

    def with_seed(self, seed: int) -> "Science":
        return replace(self, seed=seed)

    def without_seed(self) -> dict[str, Any]:
        """Return the JSON form of what runs have in common that differ in their seeds only."""
        return {key: part for key, part in self.to_json().items() if key != "seed"}

    def run_id_by_seed(self) -> Callable[[int], str]:
        """Return a function from a seed to the run id with it."""
        common = self.without_seed()
        before = identity.canonical({key: part for key, part in common.items() if key < "seed"})[:-1]
        after = identity.canonical({key: part for key, part in common.items() if key > "seed"})[1:]
        return lambda seed: identity.of_text(f'{before},"seed":{seed},{after}')  # the canonical text with it

    def teacher_evaluation_id(self, evaluated_on: str) -> str:
        """Return the hash of what decides a given teacher's measured score: runs with the same teacher share it."""
        views = {key: getattr(self.recipe, key) for key in self.dataset.info.images.views}
        views = {key: value for key, value in views.items() if value is not None}  # as before there was such a key
        common = {key: value for key, value in self.without_seed().items() if key in ("dataset", "teacher")}
        return identity.digest({**common, "views": views, "on": evaluated_on})

    def to_json(self) -> dict[str, Any]:
        return {**as_json(self), "recipe": recipe_json(self.recipe)}

    @classmethod
    def from_json(cls, value: dict[str, Any], place: str = "a run's settings") -> "Science":
        """Read the JSON form. Keys that are younger than it have the values they stood for. ``place``: of messages.

        Raises:
            UserError: it is not the science of a run, or of a later version of the harness.
        """
        try:
            return _SCIENCE.validate_python(value)
        except ValidationError as e:
            problem = e.errors(include_url=False)[0]
            key = ".".join(map(str, problem["loc"]))
            raise UserError(
                f"{place}: damaged, or of a later version of the harness: {f'{key}: ' if key else ''}{problem['msg']}"
            ) from None

    @classmethod
    def from_text(cls, text: str) -> "Science":
        """Read the text that a record holds.

        Raises:
            UserError: as ``from_json``.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        return cls.from_json(value, f"the settings of run {identity.of_text(text)}")


_SCIENCE = TypeAdapter(Science)


def single_teachers(teacher: Trained | Given | Several | None) -> tuple[Trained | Given, ...]:
    """Return each of several teachers, a single one, or none."""
    if teacher is None:
        return ()
    return teacher.teachers if isinstance(teacher, Several) else (teacher,)


def training_runs(teacher: Trained | Given | Several | None) -> tuple[str, ...]:
    """Return the runs that train a teacher or several, each once."""
    return tuple(dict.fromkeys(t.run for t in single_teachers(teacher) if isinstance(t, Trained)))


def backbone_id(sha256: str, place: Place) -> str:
    """Return the name of a backbone's weights in a plan: the file's sha256, and the place in it if that is stated."""
    return sha256 if place == ANYWHERE else identity.digest({"sha256": sha256, **place._asdict()})


def as_json(part: Any) -> Any:
    """Return the JSON form of a part of a science; a recipe needs ``recipe_json``."""
    if not is_dataclass(part):
        return [as_json(value) for value in part] if isinstance(part, tuple) else part
    values = ((f, getattr(part, f.name)) for f in fields(part))
    return {f.name: as_json(value) for f, value in values if f.name in FIRST_KEYS or value != f.default}


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's part of a science's JSON form."""
    return {k: v for k, v in recipe.model_dump(mode="json").items() if k in FIRST_KEYS or v != _default(k)}


def distinct_sciences(texts: Iterable[str], seeds: Iterable[int]) -> tuple[dict[str, Science], list[int]]:
    """Return the sciences that differ in more than the seed, and the position of each record's among them.

    Args:
        texts, seeds: each record's science and its seed. Of texts that differ only in the seed, one is parsed: stores
            may hold 100,000.

    Returns:
        One of the sciences that differ in the seed only, by their canonical text without it; and the positions.
    """
    sciences: dict[str, Science] = {}
    positions: dict[str, int] = {}  # by canonical text
    by_text: dict[str, int] = {}
    of_record: list[int] = []
    for text, seed in zip(texts, seeds, strict=True):
        before, _, after = text.rpartition(f'"seed":{seed},')
        if (position := by_text.get(alike := before + after)) is None:
            science = Science.from_text(text)
            key = identity.canonical(science.without_seed())
            sciences.setdefault(key, science)
            position = by_text[alike] = positions.setdefault(key, len(positions))
        of_record.append(position)
    return sciences, of_record


@cache
def _default(key: str) -> Any:
    default = Recipe.model_fields[key].default
    return list(default) if isinstance(default, tuple) else default
