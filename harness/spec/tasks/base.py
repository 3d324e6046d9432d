"""A task and its datasets, as planning and reporting know them."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.spec.normalisation import Normalisation

Keys = Mapping[str, Any]
CHANNELS = 3  # of prepared images


@dataclass(frozen=True, eq=False)  # there is one object of each kind
class Images:
    """A kind of images: what a recipe says about them, and what reads them."""

    name: str  # in messages: "stored images"
    source: str  # "package.module:Class" of a harness.data.load.source.Source
    # Keys of a recipe about what is seen of these images, with their defaults. The runs of a pack agree on them.
    views: Keys = field(default_factory=dict)
    size_keys: tuple[str, ...] = ()  # of ``views``: what `evaluate --size` sets
    resize_keys: tuple[str, ...] = ()  # likewise, `evaluate --resize`
    check: Callable[[Keys], None] = lambda recipe: None  # raises ValueError for a recipe that contradicts itself


@dataclass(frozen=True, eq=False)
class TaskInfo:
    name: str
    module: str  # has open_task(info, recipe, backbone) -> training.tasks.base.Task
    metrics: tuple[str, ...]  # columns of a record, as last_*, best_* and teacher_*
    printed: tuple[str, ...]  # those of tables, in %, higher is better; the first is the score
    loss: str  # what a person reads for the term `ce`: the student's loss without a teacher
    images: tuple[Images, ...]  # the kinds that its datasets have
    # Model -> what methods may know it as, see ``defined_for`` of methods.base.Distiller
    models: Mapping[str, tuple[str, ...]]
    examples: tuple[str, ...]  # of its models, for messages
    models_note: str = ""  # what the documentation's numbers of its models are for
    library_models: bool = False  # whether it also uses classifiers of timm and torchvision, and the user's own
    labels: Mapping[str, str] = field(default_factory=dict)  # metric -> what a person reads, where it is not the name
    recipe: Keys = field(default_factory=dict)  # further keys of a recipe that only this task has, with their defaults
    class_per_image: bool = False  # then a part of the training images has as many of each class
    backbones: bool = False  # whether models may start from the weights of a classifier
    fine_tuning: bool = False  # whether models may start from weights of their own
    pictures: str = ""  # module of the pictures that `report --images` draws, where there are any

    @property
    def score(self) -> str:
        """The metric by which the best epoch is chosen and tables compare."""
        return self.printed[0]

    @property
    def shown(self) -> str:
        """The score's name, for people."""
        return self.labels.get(self.score, self.score)

    def kinds(self, model: str) -> tuple[str, ...]:
        """Return what methods may know a model as; nothing if it is not a model for this task."""
        name = model.partition("(")[0]
        if self.library_models and ":" in name:  # a library's, or the user's own
            return (self.name,)
        return self.models.get(name, ())


@dataclass(frozen=True)
class Preparation:
    """The way in which ``harness.prepare`` makes a dataset out of image files."""

    # "package.module:function", called with a harness.data.prepare.part.Request and options
    prepare: str
    manifest: str  # "package.module:Class" of a harness.data.manifest.Prepared
    options: tuple[str, ...]  # of the command: those that not every dataset has


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset. What a prepared folder's manifest says is empty until it is read."""

    name: str
    task: TaskInfo
    images: Images
    classes: int = 0
    image_shape: tuple[int, int, int] | None = None  # C, H, W; None: files of any size
    train_size: int = 0
    test_size: int = 0
    train_per_class: int = 0  # the least number of training images of a class, where images have one
    untrainable: str = ""  # why there is nothing to train on, if so: "was prepared without ..."
    version: str = ""  # sha256 of the content in order
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # per channel, of pixel values in [0, 1]; as torchvision's and
    std: tuple[float, ...] = (0.229, 0.224, 0.225)  # timm's weights expect it
    module: str = ""  # has read_arrays(folder) -> data.load.arrays.ArrayDataset, where all pixels fit in memory
    # Whether its content is not known before it is read: then that is done once, and jobs read arrays from a cache,
    # see planning.readings. The sizes here are those of the official data.
    read_once: bool = False
    folder: str = ""  # below the data root; "": the dataset's name
    # "package.module:function" from the data root to the folder or file that has it, or to text on what is there
    # instead; "" where there is only ``folder``
    finder: str = ""
    label: str = ""  # the name that people gave to a prepared dataset, for tables
    embedded: bool = False  # comes with an installed package: needs no --data
    preparation: Preparation | None = None
    official_test_size: int = 0  # of the set that papers evaluate on, where a preparation may have another
    few_published: bool = False  # then tables also quote numbers that a source took over from another
    all_published: bool = False  # whether papers print all of the task's printed metrics rather than the score

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of its images."""
        return Normalisation(self.mean, self.std)

    @property
    def subset_unit(self) -> int:
        """The number that the size of a part of the training images is a multiple of: it has as many of each class."""
        return self.classes if self.task.class_per_image else 1

    @property
    def largest_subset(self) -> int:
        """The most images that a part of the training images may have."""
        return self.train_per_class * self.classes if self.task.class_per_image else self.train_size

    def trained_on(self, train_subset: int | None, validation: int | None) -> int:
        """Return how many training images a sweep's ``dataset`` leaves."""
        return train_subset or self.train_size - (validation or 0)


def import_object(reference: str) -> Any:
    """Return what ``package.module:Name`` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
