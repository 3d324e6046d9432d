"""A run's science: everything that decides its numbers, and nothing else. Imports no torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.spec import datasets, identity
from harness.spec.schema import Recipe
from harness.spec.tasks import DATASETS, DatasetInfo

# Keys of the first results, always in the JSON form. Younger ones are left out while unset, so that runs keep their
# ids.
FIRST_KEYS = frozenset(
    ("epochs", "batch_size", "lr", "momentum", "weight_decay", "nesterov", "schedule", "milestones", "gamma",
     "warmup_epochs", "crop_padding", "flip", "precision", "eval_every")
)  # fmt: skip


class PreparedCounts(NamedTuple):
    """Numbers that describe a prepared dataset, so that a science is complete wherever the prepared folder is."""

    classes: int
    train_size: int
    test_size: int
    train_per_class: int


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """A dataset, by name and content, and the parts of it that a run trains on and is evaluated on."""

    name: str
    version: str  # sha256 of the content
    train_subset: int | None = None  # training images; None: all that are not held out
    validation: int | None = None  # training images held out for evaluation; None: the test set is evaluated on
    counts: PreparedCounts | None = None  # of a prepared dataset

    @classmethod
    def of_info(
        cls, info: DatasetInfo, train_subset: int | None = None, validation: int | None = None
    ) -> "DatasetChoice":
        counts = PreparedCounts(*(getattr(info, key) for key in PreparedCounts._fields)) if info.preparation else None
        return cls(info.name, info.version, train_subset, validation, counts)

    @property
    def info(self) -> DatasetInfo:
        if self.counts is None:
            return DATASETS[self.name]
        return datasets.prepared_dataset(self.name, self.version, *self.counts)

    @property
    def train_images(self) -> int:
        """The number of images that a run trains on."""
        return self.info.trained_on(self.train_subset, self.validation)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"name": self.name, "version": self.version, "train_subset": self.train_subset}
        if self.validation is not None:  # a key younger than the first results: left out, those keep their ids
            value["validation"] = self.validation
        return value if self.counts is None else value | self.counts._asdict()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DatasetChoice":
        rest = dict(value)
        counts = None
        if "classes" in rest:
            counts = PreparedCounts(*(rest.pop(key) for key in PreparedCounts._fields))
        return cls(**rest, counts=counts)


@dataclass(frozen=True, slots=True)
class Trained:
    """A teacher that is trained here, by a run of its own."""

    model: str
    run: str

    def to_json(self) -> dict[str, str]:
        return {"model": self.model, "run": self.run}


@dataclass(frozen=True, slots=True)
class Given:
    """A teacher whose weights are given, known by their content."""

    model: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        return {"model": self.model, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """A method with all its resolved settings."""

    use: str  # "kd", "package.module:Class"
    version: int | str
    params: dict[str, Any]  # hyper-parameters
    weights: dict[str, float]  # of its loss terms

    def to_json(self) -> dict[str, Any]:
        return {"use": self.use, "version": self.version, "params": self.params, "weights": self.weights}


@dataclass(frozen=True, slots=True)
class Science:
    """Everything that decides a run's numbers."""

    dataset: DatasetChoice
    teacher: Trained | Given | None
    student: str
    method: MethodSettings
    recipe: Recipe
    seed: int
    backbone: str | None = None  # sha256 of the weights that a detector's backbone starts from
    protocol: int = identity.PROTOCOL

    @property
    def teacher_model(self) -> str | None:
        return self.teacher.model if self.teacher else None

    @property
    def run_id(self) -> str:
        return identity.digest(self.to_json())

    @property
    def text(self) -> str:
        """The canonical text, as records hold it."""
        return identity.canonical(self.to_json())

    def with_seed(self, seed: int) -> "Science":
        # Not dataclasses.replace, which takes three times as long: a sweep may have 10,000 runs.
        return Science(
            self.dataset, self.teacher, self.student, self.method, self.recipe, seed, self.backbone, self.protocol
        )

    def without_seed(self) -> dict[str, Any]:
        """Return the JSON form of what runs have in common that differ in their seeds only."""
        value: dict[str, Any] = {
            "protocol": self.protocol,
            "dataset": self.dataset.to_json(),
            "teacher": self.teacher.to_json() if self.teacher else None,
            "student": self.student,
            "method": self.method.to_json(),
            "recipe": recipe_json(self.recipe),
        }
        return value if self.backbone is None else value | {"backbone": self.backbone}

    def run_id_by_seed(self) -> Callable[[int], str]:
        """Return a function from a seed to the run id with it, which makes the text in common only once."""
        return identity.run_id_by_seed(self.without_seed())

    def teacher_evaluation_id(self, evaluated_on: str) -> str:
        """Return the hash of what decides a given teacher's measured score: runs with the same teacher share it."""
        views = {key: getattr(self.recipe, key) for key in self.dataset.info.images.views}
        common = {key: value for key, value in self.without_seed().items() if key in ("dataset", "teacher")}
        return identity.digest({**common, "views": views, "on": evaluated_on})

    def to_json(self) -> dict[str, Any]:
        return {**self.without_seed(), "seed": self.seed}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Science":
        """Read the JSON form. Keys that are younger than it have the values they stood for.

        Raises:
            UserError: it is not the science of a run, or of a later version of the harness.
        """
        try:
            teacher = value["teacher"]
            parts = {
                "dataset": DatasetChoice.from_json(value["dataset"]),
                "teacher": teacher and (Trained(**teacher) if "run" in teacher else Given(**teacher)),
                "method": MethodSettings(**value["method"]),
                "recipe": Recipe.model_validate(value["recipe"]),
            }
            return cls(**{**value, **parts})
        except (TypeError, KeyError, ValueError) as e:
            raise UserError(f"a run's settings are damaged, or of a later version of the harness: {e}") from None

    @classmethod
    def from_text(cls, text: str) -> "Science":
        """Read the text that a record holds.

        Raises:
            UserError: as ``from_json``.
        """
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        return cls.from_json(value)


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as the JSON form of a science has it."""
    return {k: v for k, v in recipe.model_dump(mode="json").items() if k in FIRST_KEYS or v != _default(k)}


def text_without_seed(text: str, seed: int) -> str:
    """Return a text that is the same for records whose sciences differ in the seed only, without parsing any."""
    before, _, after = text.rpartition(f'"seed":{seed},')
    return before + after


@cache
def _default(key: str) -> Any:
    return Recipe.model_fields[key].default
