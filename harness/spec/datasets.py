"""What is known of every dataset before it is read; imports no torch, so that planning can use it."""

from dataclasses import dataclass

from harness.errors import unknown
from harness.spec import tasks

CHANNELS = 3  # of stored images


@dataclass(frozen=True)
class DatasetInfo:
    name: str
    classes: int
    image_shape: tuple[int, int, int] | None  # C, H, W; None for stored images: the recipe says
    train_size: int
    test_size: int
    train_per_class: int  # the least number of training images of a class
    version: str  # sha256 of the content in order
    mean: tuple[float, ...]  # per channel, of pixel values in [0, 1]
    std: tuple[float, ...]
    module: str = ""  # has read_arrays(folder) -> data.load.arrays.ArrayDataset; "": stored images, see harness.prepare
    embedded: bool = False  # comes with an installed package: needs no --data
    task: tasks.TaskInfo = tasks.CLASSIFICATION

    @property
    def stored(self) -> bool:
        """Whether its images are JPEG files of any size in a prepared folder, rather than pixels of one size."""
        return not self.module

    @property
    def views(self) -> str:
        """What its images are, by which a recipe says more of them: see ``schema.VIEWS``."""
        if self.task is tasks.DETECTION:
            return "detection"
        return "stored" if self.stored else "pixels"

    @property
    def taken_together(self) -> int:
        """A part of the training images has a multiple of so many: as many of each class."""
        return self.classes if self.task is tasks.CLASSIFICATION else 1

    @property
    def room(self) -> int:
        """The most images that a part of the training images may have."""
        return self.train_per_class * self.classes if self.task is tasks.CLASSIFICATION else self.train_size

    def trained_on(self, train_subset: int | None, validation: int | None) -> int:
        """Training images that a sweep's ``dataset`` leaves."""
        return train_subset or self.train_size - (validation or 0)


CATALOG = {
    info.name: info
    for info in (
        DatasetInfo(
            name="digits",
            classes=10,
            image_shape=(1, 8, 8),
            train_size=1442,
            test_size=355,
            train_per_class=140,
            version="6000b9393a3f3f11",
            mean=(0.3052,),
            std=(0.3760,),
            module="harness.data.load.digits",
            embedded=True,
        ),
        DatasetInfo(
            name="cifar100",
            classes=100,
            image_shape=(3, 32, 32),
            train_size=50_000,
            test_size=10_000,
            train_per_class=500,
            version="7aa2560ea3dd37c2",
            mean=(0.5071, 0.4867, 0.4408),
            std=(0.2675, 0.2565, 0.2761),
            module="harness.data.load.cifar",
            embedded=False,
        ),
    )
}


COCO = "coco"
STORED = ("imagenet", "imagefolder", COCO)  # what harness.prepare writes


def prepared_dataset(
    name: str, version: str, classes: int, train_size: int, test_size: int, train_per_class: int
) -> DatasetInfo:
    """A dataset in a prepared folder. Pixels are normalised as the weights of torchvision and timm expect it."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return DatasetInfo(
        name, classes, None, train_size, test_size, train_per_class, version, mean, std, task=task_of(name)
    )


def check_name(name: str) -> None:
    """Raises:
    ValueError: naming the datasets there are.
    """
    if name not in CATALOG and name not in STORED:
        raise ValueError(unknown("dataset", name, [*CATALOG, *STORED]))


def task_of(name: str) -> tasks.TaskInfo:
    return tasks.DETECTION if name == COCO else tasks.CLASSIFICATION


def image_shape(info: DatasetInfo, size: int | tuple[tuple[int, int], ...] | None) -> tuple[int, int, int]:
    """(C, H, W) of the images that models are given at the end of training. ``size``: a recipe's ``image_size``."""
    if info.image_shape is not None:
        return info.image_shape
    assert size is not None
    side = size if isinstance(size, int) else size[-1][1]
    return (CHANNELS, side, side)
