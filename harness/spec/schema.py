"""Schema of a sweep file. Every model is closed: an unknown key is an error, never ignored."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from harness.errors import expected
from harness.spec import datasets, pretrained, tasks
from harness.spec.model_reference import ModelReference
from harness.spec.normalisation import Normalisation, StatedNormalisation
from harness.spec.pretrained_normalisation import published_normalisation
from harness.spec.recipe import Closed, Finite
from harness.spec.tasks import DatasetInfo
from harness.spec.teacher_reference import TeacherReference
from harness.spec.tuning_keys import Range, Tune

Seed = Annotated[int, Field(ge=0, lt=2**31)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
MOST_SEEDS = 10_000
_RANGE = re.compile(r"([0-9]{1,10}) ?- ?([0-9]{1,10})")
_SEEDS = re.compile(rf"(?=.*[-,])({_RANGE.pattern}|[0-9]{{1,10}})( ?, ?({_RANGE.pattern}|[0-9]{{1,10}}))*")


def _name_or_mapping(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError(expected("a recipe's name or a mapping", value))
    return value


def _seeds(part: Any) -> Any:
    """Return the seeds of an item of a list: of the range ``0-4``, or the item itself."""
    if not isinstance(part, str) or not (limits := _RANGE.fullmatch(part.strip())):
        return (part,)
    first, last = map(int, limits.groups())
    if not first <= last < first + MOST_SEEDS:
        raise ValueError(f"expected a range that rises, of at most {MOST_SEEDS:,} seeds, such as 0-4; found {part}")
    return range(first, last + 1)


def _pairs(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(expected("a list of pairs, each {teacher: NAME, student: NAME}", value))
    return value


def _one_model(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError(f"{expected('the name of one model', value)}; write a pair for each")
    return ModelReference.of(value).text if isinstance(value, dict) else value


def _either(names: tuple[str, ...]) -> str:
    return " and ".join(", ".join(f"`{name}`" for name in part) for part in (names[:-1], names[-1:]))


def _dataset_of_text(text: str) -> dict[str, Any]:
    try:
        reference = ModelReference.parse(text)
    except ValueError:
        return {"name": text}
    return {"name": reference.name, **({"params": reference.params} if reference.params else {})}


def _dataset_by_name(value: Any) -> Any:
    if isinstance(value, str):
        return _dataset_of_text(value)
    if not isinstance(value, dict | Dataset):
        raise ValueError(expected("a dataset's name or a mapping", value))
    return value


def _checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that leaves a text as it is; ``check`` raises a ValueError for a wrong one."""

    def validate(text: str) -> str:
        check(text)
        return text

    return AfterValidator(validate)


def _teacher_text(value: Any) -> Any:
    if not isinstance(value, str | dict | list | tuple):
        return value
    return TeacherReference.of(value).resolved(tasks.resolve_model).text


ModelName = Annotated[str, BeforeValidator(_one_model), AfterValidator(tasks.resolve_model)]
RecipeRef = Annotated[str | dict[str, Any], BeforeValidator(_name_or_mapping)]


class Recipe(tasks.RecipeKeys):
    """Everything about training that is not the method. All of it enters a run's identity."""


class Dataset(Closed):
    """The images of a sweep."""

    name: Annotated[str, _checked_by(datasets.check_name)] = Field(
        description="a dataset of the harness, or `package.module:Class`, see [your-own-data.md](your-own-data.md)"
    )
    params: dict[str, Any] = Field({}, description="arguments of the constructor of a class of your own")
    folder: str | None = Field(
        None,
        min_length=1,
        description=f"for {_either(datasets.PREPARED)}: what `python -m harness.prepare` wrote, absolute or "
        "below the data root (`--data`, KD_DATA); the dataset's name when not stated",
    )
    train_subset: int | None = Field(
        None,
        ge=10,
        description="train on only this many images: the first in file order, equally many of each class if an "
        "image has one class; the test set is whole",
    )
    validation: int | None = Field(
        None,
        ge=10,
        description="for tuning: hold out this many training images, the last in file order (equally many of each "
        "class if an image has one class), and evaluate on them instead of the test set",
    )

    @field_validator("params")
    @classmethod
    def _as_a_reference(cls, params: dict[str, Any]) -> dict[str, Any]:
        return ModelReference.of({"name": "", "params": params}).params

    @model_validator(mode="after")
    def _params_of_own(self) -> "Dataset":
        if self.params and not datasets.is_own(self.name):
            raise ValueError(f"params is for a class of your own; remove it for {self.name}")
        return self

    @classmethod
    def of_reference(cls, text: str, folder: str | None = None) -> "Dataset":
        """Return the dataset that ``reference`` names."""
        return cls.model_validate({**_dataset_of_text(text), "folder": folder})

    @property
    def reference(self) -> str:
        """Return the name with its params, as one text, by which it goes in a run's settings and in tables."""
        return ModelReference(self.name, self.params).text

    @model_validator(mode="after")
    def _folder_of_stored(self) -> "Dataset":
        if self.folder is not None and self.name not in datasets.PREPARED:
            raise ValueError(f"folder is only for {_either(datasets.PREPARED)}; remove it for {self.name}")
        return self

    def check_parts(self, info: DatasetInfo) -> None:
        """Check the sizes of the parts.

        Raises:
            ValueError: the dataset has fewer images, fewer of a class, or none to train on.
        """
        if not info.train_size:
            reason = info.untrainable or "was prepared without training images"
            raise ValueError(f"{info.name} {reason}: it is for evaluation only")
        unit, largest = info.subset_unit, info.largest_subset
        multiple = f"a multiple of {unit} (the number of classes), " if unit > 1 else ""
        if self.validation is not None and (self.validation % unit or self.validation >= largest):
            raise ValueError(f"validation must be {multiple}less than {largest}, found {self.validation}")
        largest -= self.validation or 0
        if self.train_subset is not None and (self.train_subset % unit or self.train_subset > largest):
            rest = " without the images for validation" if self.validation else ""
            raise ValueError(f"train_subset must be {multiple}at most {largest}{rest}, found {self.train_subset}")


class WeightsSource(Closed):
    """Weights that are given rather than trained, by one of `file`, `url` and `name`."""

    file: str | None = Field(
        None,
        min_length=1,
        description="path: absolute, or below the data root (`--data`, KD_DATA), or next to the sweep file",
    )
    url: Annotated[str, Field(max_length=2000), _checked_by(pretrained.check_url)] | None = Field(
        None, description="https address of a file .pth, .pt, .bin or .safetensors"
    )
    name: Annotated[str, _checked_by(pretrained.weights_url)] | None = Field(
        None,
        description="their name in torchvision or timm: `torchvision:ResNet34_Weights.IMAGENET1K_V1`, "
        "`timm:mobilenetv1_100.ra4_e3600_r224_in1k`, `torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1`",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="sha256 of the file; computed from it when not stated"
    )
    key: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="the keys that lead to the state dict in the file, with dots between them: `state_dict_ema`; "
        "found by the model's names when not stated",
    )
    prefix: str | None = Field(
        None,
        max_length=500,
        description="what is taken off the state dict's names, where they begin so: `module.student.`; found by the "
        "model's names when not stated",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"{expected('a mapping of keys to values', value)}; write {{file: {value}}}")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSource":
        stated = [key for key in ("file", "url", "name") if getattr(self, key) is not None]
        if len(stated) != 1:
            raise ValueError(f"expected one of file, url and name; found {' and '.join(stated) or 'none of them'}")
        return self

    @property
    def place(self) -> pretrained.Place:
        """Return the place of the weights in their file."""
        return pretrained.Place(self.key, self.prefix)

    @property
    def source(self) -> str:
        """Return the file, address or name, for messages."""
        return self.file or self.url or str(self.name)

    @property
    def address(self) -> str | None:
        """Return the address to download from; None for a file."""
        return pretrained.weights_url(self.name) if self.name else self.url


class Weights(tasks.StatedScores, StatedNormalisation, WeightsSource):
    """A teacher's weights, and the score that they should have."""

    def stated(self, score: str) -> float | None:
        """Return the task's score that the weights should have."""
        return getattr(self, score, None)

    def normalisation(self, info: DatasetInfo) -> Normalisation | None:
        """Return what the teacher's images are normalised by: as stated, or as a library says; None: as the dataset's.

        Raises:
            ValueError: the stated mean and std are not for the dataset's channels.
        """
        if (own := self.stated_normalisation) is not None:
            own = own.of_channels(len(info.mean), info.name)
        elif self.name is not None:
            own = published_normalisation(self.name)
            if own is not None and len(own.mean) != len(info.mean):
                return None  # such weights do not fit a network for these images, which is said when they are loaded
        return None if own == info.normalisation else own


class Method(Closed):
    """One line of the comparison: a distiller with its settings."""

    use: str | None = Field(
        None, description="the method, when this entry has a name of its own: `kd`, `package.module:Class`"
    )
    params: dict[str, Any] = Field({}, description="hyper-parameters that replace the method's defaults")
    weights: dict[str, Finite] = Field({}, description="loss weights that replace the method's defaults")
    recipe: dict[str, Any] = Field({}, description="changes to the recipe for this method only")
    search: dict[str, list[Any] | Range] = Field(
        {},
        description="for `python -m harness.tune`: settings of this entry with the values to try, a list or a range: "
        "`{params.temperature: [2, 4, 8], weights.kd: {log: [0.1, 10]}}`",
    )


class Backbone(WeightsSource):
    """The weights of torchvision's classifier that a detector's backbone starts from."""


class Pair(Closed):
    """A teacher and a student."""

    teacher: Annotated[str, BeforeValidator(_teacher_text)] = Field(
        description="a model below, `timm:NAME`, `torchvision:NAME` or your own `package.module:Class`, with arguments "
        "as `{name: NAME, params: {...}}`, trained here first unless `teacher_weights` is given; "
        "`{run: {student: NAME, method: NAME}}`: a run of this sweep; or a list of these, whose logits are averaged"
    )
    student: ModelName = Field(description="such a model")
    teacher_weights: Weights | tuple[Weights | None, ...] | None = Field(
        None,
        description="the teacher's weights, when they are given; for several teachers a list, with null for each that "
        "is trained here",
    )
    teacher_epoch: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="the epoch after which a teacher trained here stops, while its schedule stays (arXiv:1910.01348); "
        "the recipe's last when not stated",
    )
    teacher_backbone: Backbone | None = Field(
        None, description="detection only: weights that the backbone of a teacher trained here starts from"
    )
    student_backbone: Backbone | None = Field(
        None, description="detection only: weights that the student's backbone starts from"
    )
    student_weights: WeightsSource | None = Field(
        None,
        description="classification only: weights that the student starts from (fine-tuning); a last layer for another "
        "number of classes is left out, and the student's own starts from random numbers",
    )
    teacher_init: WeightsSource | None = Field(
        None, description="classification only: likewise, weights that a teacher trained here starts from"
    )
    recipe: dict[str, Any] = Field({}, description="changes to the recipe for this pair")
    methods: dict[str, Method] = Field({}, description="changes to methods for this pair, by their names in `methods`")

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, dict | Pair):
            raise ValueError(expected("{teacher: NAME, student: NAME}", value))
        if isinstance(value, dict) and isinstance(text := value.get("teacher"), str) and "teacher_epoch" not in value:
            teacher = TeacherReference.parse(text)
            if teacher.epoch is not None:  # a text from a table
                return {**value, "teacher": replace(teacher, epoch=None).text, "teacher_epoch": teacher.epoch}
        return value

    @model_validator(mode="after")
    def _teachers_keys(self) -> "Pair":
        count = len(self.teacher_reference.teachers)
        weights = self.teacher_weights
        if isinstance(weights, tuple) and (count == 1 or len(weights) != count):
            of = f"a list of {count}, as there are teachers" if count > 1 else "a mapping, as there is one teacher"
            raise ValueError(f"teacher_weights: expected {of}; found {len(weights)}")
        if isinstance(weights, Weights) and count > 1:
            raise ValueError(f"teacher_weights: expected a list of {count}, as there are teachers, with null for each "
                             "that is trained here")  # fmt: skip
        return self

    @property
    def teacher_reference(self) -> TeacherReference:
        """The teachers, with the epoch after which they stop."""
        return replace(TeacherReference.parse(self.teacher), epoch=self.teacher_epoch)

    @property
    def teacher_text(self) -> str:
        """The teachers as one text, which names them in tables and selections."""
        return self.teacher_reference.text

    @property
    def weights_by_teacher(self) -> tuple[Weights | None, ...]:
        """The given weights of each teacher; None for one that is trained."""
        weights = self.teacher_weights
        return weights if isinstance(weights, tuple) else (weights,) * len(self.teacher_reference.teachers)


class Teachers(Closed):
    """Recipe and seed of the teachers that are trained here."""

    recipe: RecipeRef | None = Field(None, description="a recipe; the sweep's own when not stated")
    seed: Seed = Field(0, description="one teacher serves all of a pair's seeds, so that seeds are comparable")


class Sweep(Closed):
    """A sweep file: dataset, recipe, pairs, methods and seeds."""

    name: Name | None = Field(
        None, description="names the sweep's folder of tables; the file's own name when not stated"
    )
    note: str = Field("", max_length=500, description="printed under every table of this sweep")
    dataset: Annotated[Dataset, BeforeValidator(_dataset_by_name)] = Field(description="a dataset's name, or a mapping")
    recipe: RecipeRef = Field(
        description="by name, a file in `recipes/` next to the sweep file or in benchmarks/recipes; "
        "or a mapping, which may start from one of them with `base: NAME`"
    )
    teachers: Teachers = Field(Teachers(), description="how teachers are trained")
    methods: dict[Name, Method] = Field(
        min_length=1, description="a list of names, or a mapping from a name to its settings"
    )
    pairs: Annotated[tuple[Pair, ...], BeforeValidator(_pairs)] = Field(
        min_length=1, description="teacher-student pairs"
    )
    seeds: tuple[Seed, ...] = Field(
        min_length=1,
        max_length=MOST_SEEDS,
        description="a number of seeds (3 means 0, 1, 2), a range (`0-4`) or a list of both",
    )
    tune: Tune | None = Field(None, description="for `python -m harness.tune`: the search of the methods' settings")

    @classmethod
    def owner_of(cls, key: str) -> str:
        if key in Pair.model_fields:
            return f"it is a key of each of pairs: - {{{key}: ...}}"
        if key in Method.model_fields:
            return "it is a key of an entry of methods"
        return f"it is a key of dataset: dataset.{key}" if key in Dataset.model_fields else ""

    @field_validator("methods", mode="before")
    @classmethod
    def _methods_by_name(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            if len(set(value)) < len(value):
                raise ValueError(f"method {max(value, key=value.count)!r} is listed twice")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {k: {} if v is None else v for k, v in value.items()}
        instead = f"; write [{', '.join(re.findall('[^][ ,]+', value))}]" if isinstance(value, str) else ""
        if isinstance(value, list) and any(isinstance(v, dict) for v in value):
            instead = "; with settings, write `NAME: {params: ...}` for each, without dashes"
        raise ValueError(expected("a list of names, or a mapping of names to settings", value) + instead)

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_by_count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= MOST_SEEDS:
                raise ValueError(f"expected 1 to {MOST_SEEDS:,} seeds, found {value}")
            return tuple(range(value))
        if isinstance(value, str) and _SEEDS.fullmatch(value):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list | tuple):
            quoted = "; take the quotes away" if isinstance(value, str) and value.isdecimal() else ""
            text = expected("a number of seeds or a list", value)
            raise ValueError(f"{text}{quoted}; valid: 5, 0-4, [0, 2, 7]")
        return list(islice((seed for part in value for seed in _seeds(part)), MOST_SEEDS + 1))

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"seed {max(value, key=value.count)} is listed twice")
        return value
