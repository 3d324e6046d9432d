"""What is known of every dataset before it is read; imports no torch, so that planning can use it."""

from dataclasses import dataclass

from harness.errors import unknown


@dataclass(frozen=True)
class DatasetInfo:
    name: str
    classes: int
    image_shape: tuple[int, int, int]  # C, H, W
    train_size: int
    test_size: int
    train_per_class: int  # the least number of training images of a class
    version: str  # sha256 of pixels and labels in order; checked whenever the data is read
    mean: tuple[float, ...]  # per channel, of pixel values in [0, 1]
    std: tuple[float, ...]
    module: str  # has read(data_root) -> data.raw.RawDataset
    embedded: bool  # comes with an installed package: needs no --data

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
            module="harness.data.digits",
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
            module="harness.data.cifar",
            embedded=False,
        ),
    )
}


def info(name: str) -> DatasetInfo:
    """Raises:
    ValueError: naming the datasets there are.
    """
    if name not in CATALOG:
        raise ValueError(unknown("dataset", name, CATALOG))
    return CATALOG[name]
