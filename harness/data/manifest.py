"""What a prepared data set states of itself (``manifest.json``); imports no torch, so that planning can use it."""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError, shorten
from harness.store import files

FORMAT: Literal[1] = 1
FILE = "manifest.json"
Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(_Closed):
    """What decides the stored bytes besides the source files."""

    max_side: int | None = Field(ge=8, le=1024, description="longest side of a stored image, in pixels; None: its own")
    quality: int = Field(ge=1, le=95, description="JPEG quality of images that had to be encoded anew")


class Images(_Closed):
    """The training or the test images: one .beton file."""

    file: Literal["train.beton", "val.beton"]  # closed, so that a manifest cannot name a file elsewhere
    images: Count
    bytes: Count
    counts: dict[str, Count]  # see harness.data.prepare.encode.KINDS


class Part(Images):
    """Images with a class each."""

    per_class_min: Count  # images of the smallest class


class DetectionPart(Images):
    """Images with objects, which are in a file of their own."""

    annotations: Literal["train.safetensors", "val.safetensors"]
    annotation_bytes: Count
    trained_on: Count  # images with an object to train on
    objects: dict[str, Count]  # see harness.data.annotations.KINDS


class Category(_Closed):
    """A class of objects. Its label is its rank among all of them, counted from 1."""

    id: Count  # in the annotations and in results, where numbers may be left out
    name: str


class Unreadable(_Closed):
    """A source file that was left out."""

    file: str  # relative to the source
    why: str


class Prepared(_Closed):
    """What every kind of prepared data set states. ``version`` identifies its content, wherever it lies."""

    format: Literal[1] = FORMAT
    version: Hash
    settings: Settings
    source: Hash  # of what it was made from
    unreadable: tuple[Unreadable, ...] = ()
    made_with: dict[str, str]  # package -> version

    example: ClassVar[str]  # a dataset of this kind

    @property
    def class_count(self) -> int:
        raise NotImplementedError

    @property
    def evaluated_on(self) -> Literal["train", "test"]:
        return "test"

    def sizes(self) -> dict[str, int]:
        """Its files, and the bytes of each."""
        raise NotImplementedError

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a prepared data set whose files are there.

        Raises:
            UserError: the folder holds none, or it or one of its files is damaged.
        """
        return cls._checked(_content(folder, cls.example), folder / FILE)

    @classmethod
    def _checked(cls, found: Any, path: Path) -> Self:
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise UserError(f"{path}: format {shorten(found.get('format'))}, this harness reads format {FORMAT}")
        try:
            manifest = cls.model_validate(found)
        except ValidationError as e:
            problem = e.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "its content"
            raise UserError(f"{path}: damaged: {place}: {problem['msg']}") from None
        for name, stated in manifest.sizes().items():
            file = path.parent / name
            size = file.stat().st_size if file.is_file() else None
            if size != stated:
                state = "is missing" if size is None else f"has {size:,} bytes, {FILE} states {stated:,}"
                raise UserError(f"{file}: {state}; prepare the data set again into another folder")
        return manifest

    def write(self, folder: Path) -> None:
        """Atomically: a folder with a manifest is complete."""
        files.replace_json(folder / FILE, self.model_dump(mode="json"))


class Manifest(Prepared):
    """A data set to classify. ``version``: of class names and, in order, labels and stored JPEG bytes of both parts.
    ``source``: of the source files' names, sizes and labels."""

    example = "imagenet"

    dataset: Literal["imagenet", "imagefolder"]
    classes: tuple[str, ...]  # in the order of their labels
    train: Part | None  # None: prepared for evaluation only
    test: Part

    @property
    def class_count(self) -> int:
        return len(self.classes)

    def sizes(self) -> dict[str, int]:
        return {part.file: part.bytes for part in (self.train, self.test) if part}


class DetectionManifest(Prepared):
    """A data set to detect objects in. ``version``: of the categories and, in order, ids, stored JPEG bytes and
    annotations of both parts. ``source``: of the annotations, and of the image files' names and sizes."""

    example = "coco"

    dataset: Literal["coco"]
    categories: tuple[Category, ...]  # in the order of their ids
    train: DetectionPart | None  # None: prepared for evaluation only
    test: DetectionPart  # that of ``train`` where the training images are what is evaluated on

    @property
    def class_count(self) -> int:
        return len(self.categories)

    @property
    def evaluated_on(self) -> Literal["train", "test"]:
        return "train" if self.train and self.test.file == self.train.file else "test"

    def sizes(self) -> dict[str, int]:
        parts = [part for part in (self.train, self.test) if part]
        return {p.file: p.bytes for p in parts} | {p.annotations: p.annotation_bytes for p in parts}


def read_manifest(folder: Path, dataset: str) -> Manifest | DetectionManifest:
    """The manifest of a folder that should hold ``dataset``, of whichever kind it is.

    Raises:
        UserError: as ``Prepared.read``.
    """
    found = _content(folder, dataset)
    detection = isinstance(found, dict) and found.get("dataset") == DetectionManifest.example
    kind: type[Manifest | DetectionManifest] = DetectionManifest if detection else Manifest
    return kind._checked(found, folder / FILE)


def _content(folder: Path, dataset: str) -> Any:
    path = folder / FILE
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{folder}: holds no prepared data set ({FILE} is missing); make one with: "
            f"python -m harness.prepare {dataset} --source DIR --out {folder}"
        ) from None
    except ValueError:
        raise UserError(f"{path}: damaged: not JSON") from None
