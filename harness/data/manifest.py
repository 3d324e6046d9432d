"""The manifest of a prepared dataset (``manifest.json``); imports no torch, so that planning can use it."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from harness.errors import UserError, shorten
from harness.spec.recipe import Closed
from harness.spec.schema import Name
from harness.spec.tasks import DATASETS, import_object
from harness.store import files

FORMAT: Literal[1] = 1
FILE = "manifest.json"
FILES: dict[str, Literal["train.beton", "val.beton"]] = {"train": "train.beton", "test": "val.beton"}  # of the parts
Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


# What is counted. An image is one of the first four; the rest is what was found and, where needed, changed.
KINDS = {
    "kept": "stored as it is, byte for byte or, if marked, coefficient for coefficient",
    "resized": "larger than --max-side",
    "converted": "encoded again at its own size, as loaders could not decode it as it was, or as it was turned",
    "lossless": "of another format than JPEG: its pixels are stored, 3 bytes each, many times a JPEG's size",
    "marked": "with restart markers and their index, by which loaders decode no more than a crop",
    "greyscale": "one channel; loaders make three of it",
    "cmyk": "four channels of ink, made RGB",
    "transparent": "transparency, which is dropped",
    "deep": "16 bits a channel; the upper 8 are kept",
    "not_jpeg": "of another format, whatever its name",
    "misnamed": "named as a JPEG and of another format",
    "oriented": "an EXIF orientation, not applied, as in torchvision's ImageFolder; `--orientation apply` does",
    "turned": "an EXIF orientation, which is applied: stored as viewers show it",
    "unreadable": "not decodable",
    "ignored": "other files, whose names are no images', hidden folders and links to a folder that they are in",
}


class Extended(Closed):
    """Facts of which the ``later`` ones are left out of the JSON while they have their defaults, so that files from
    before stay equal.
    """

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in self.later}
        return {k: v for k, v in handler(self).items() if k not in defaults or v != defaults[k]}


class Settings(Extended):
    """The settings that decide the stored bytes, besides the source files."""

    later = ("orientation", "lossless", "val_share", "restart")

    max_side: int | None = Field(ge=8, le=1024, description="longest side of a stored image, in pixels; None: its own")
    quality: int = Field(ge=1, le=95, description="JPEG quality of images that had to be encoded")
    orientation: Literal["ignore", "apply"] = Field("ignore", description="what is done about an EXIF orientation")
    lossless: bool = Field(False, description="pixels of images that are not JPEGs are stored as they are")
    val_share: float | None = Field(None, gt=0, lt=1, description="share of each class that is held out")
    restart: int = Field(0, ge=0, le=64, description="most pixels between restart markers, by 16; 0: no markers")


class Images(Extended):
    """The training or the test images: one .beton file."""

    file: Literal["train.beton", "val.beton"]  # closed, so that a manifest cannot name a file elsewhere
    images: Count
    bytes: Count
    counts: dict[str, Count]  # by KINDS

    def sizes(self) -> dict[str, int]:
        """Return the names of its files, and the bytes of each."""
        return {self.file: self.bytes}

    def tallies(self) -> "list[Tally]":
        """Return counts of what the part holds, with text for people."""
        size = f"{self.images:,} images, {self.bytes / 1e9:,.2f} GB"
        return [Tally(f"{size}: {counted(self.counts, KINDS)}", self.counts, KINDS)]


class Tally(NamedTuple):
    line: str
    counts: Mapping[str, int]
    kinds: Mapping[str, str]  # what each count means


def counted(counts: Mapping[str, int], kinds: Iterable[str]) -> str:
    """Return counts other than 0 as text, in the order of ``kinds``."""
    return ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind in kinds if (n := counts.get(kind)))


class Part(Images):
    """Images with a class each."""

    per_class_min: Count  # images of the smallest class


class Unreadable(Closed):
    """A source file that was left out."""

    file: str  # relative to the source
    why: str


class Prepared(Extended):
    """The facts that every kind of prepared dataset states. ``version`` identifies its content, wherever it is."""

    format: Literal[1] = FORMAT
    version: Hash
    settings: Settings
    source: Hash  # of what it was made from
    unreadable: tuple[Unreadable, ...] = ()
    made_with: dict[str, str]  # package -> version
    dataset: str
    name: Name | None = None  # for tables: no part of the content or its identity

    example: ClassVar[str]  # a dataset of this kind
    later = ("name",)

    @property
    def parts(self) -> Mapping[str, Images]:
        """The training images, if there are any, and those that are evaluated on, by what they are."""
        raise NotImplementedError

    @property
    def class_count(self) -> int:
        raise NotImplementedError

    @property
    def evaluated_on(self) -> Literal["train", "test"]:
        return "test"

    @property
    def train_size(self) -> int:
        """Images that can be trained on."""
        raise NotImplementedError

    @property
    def train_per_class(self) -> int:
        """Training images of the smallest class, where each image has one."""
        return 0

    @property
    def untrainable(self) -> str:
        """Return why there is nothing to train on, if so."""
        return "" if self.train_size else "was prepared without training images"

    def warnings(self) -> list[str]:
        """Return what its user should look into before anything is trained."""
        return []

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of a prepared dataset whose files are there.

        Raises:
            UserError: the folder holds none, or it or one of its files is damaged.
        """
        return cls.checked(_content(folder, cls.example), folder / FILE)

    @classmethod
    def checked(cls, content: Any, path: Path) -> Self:
        """Return the manifest that ``content``, that of the file ``path``, holds.

        Raises:
            UserError: it, or one of the files that it names, is damaged.
        """
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise UserError(f"{path}: format {shorten(content.get('format'))}, this harness reads format {FORMAT}")
        try:
            manifest = cls.model_validate(content)
        except ValidationError as e:
            problem = e.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "its content"
            raise UserError(f"{path}: damaged: {place}: {problem['msg']}") from None
        for part in manifest.parts.values():
            for name, stated in part.sizes().items():
                file = path.parent / name
                size = file.stat().st_size if file.is_file() else None
                if size != stated:
                    state = "is missing" if size is None else f"has {size:,} bytes, {FILE} states {stated:,}"
                    raise UserError(f"{file}: {state}; prepare the dataset again into another folder")
        return manifest

    def write(self, folder: Path) -> None:
        """Write the manifest atomically: a folder with a manifest is complete."""
        files.replace_json(folder / FILE, self.model_dump(mode="json"))


class Manifest(Prepared):
    """A dataset to classify. ``version``: of class names and, in order, labels and stored JPEG bytes of both parts.
    ``source``: of the source files' names, sizes and labels."""

    example = "imagenet"

    dataset: Literal["imagenet", "imagefolder"]
    classes: tuple[str, ...]  # in the order of their labels
    train: Part | None  # None: prepared for evaluation only
    test: Part

    @property
    def parts(self) -> Mapping[str, Part]:
        return {"train": self.train, "test": self.test} if self.train else {"test": self.test}

    @property
    def class_count(self) -> int:
        return len(self.classes)

    def warnings(self) -> list[str]:
        """Return that timm would number the classes otherwise, if so and if their order was not stated."""
        ranks = sorted(self.classes)
        if self.dataset == "imagenet" or list(self.classes) != ranks or (theirs := timm_order(ranks)) == ranks:
            return []
        name, other = next(pair for pair in zip(ranks, theirs, strict=True) if pair[0] != pair[1])
        return [
            f"class {ranks.index(name)} is {name!r}, by the order of characters, as torchvision's; timm's readers of "
            f"folders and tars number classes in another order, in which it is {other!r}: for weights trained with "
            "them, prepare with --classes and a file of their order"
        ]

    @property
    def train_size(self) -> int:
        return self.train.images if self.train else 0

    @property
    def train_per_class(self) -> int:
        return self.train.per_class_min if self.train else 0


def timm_order(names: Iterable[str]) -> list[str]:
    """Return classes in the order in which timm 1.0 numbers folders: numbers in names by value, without case."""

    def key(name: str) -> list[str | int]:
        parts = re.split(r"(\d+)", name.lower())  # text, digits, text, ...
        return [int(part) if i % 2 else part for i, part in enumerate(parts)]

    return sorted(sorted(names), key=key)


def read_manifest(folder: Path, dataset: str) -> Prepared:
    """Return the manifest of a prepared folder, of whichever kind it is. ``dataset``: what it should hold, for
    messages.

    Raises:
        UserError: as ``Prepared.read``.
    """
    content = _content(folder, dataset)
    stated = content.get("dataset") if isinstance(content, dict) else None
    info = DATASETS.get(stated if isinstance(stated, str) else "")
    kind: type[Prepared] = import_object(info.preparation.manifest) if info and info.preparation else Manifest
    return kind.checked(content, folder / FILE)


def _content(folder: Path, dataset: str) -> Any:
    path = folder / FILE
    try:
        return json.loads(files.read_bytes(path))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: holds no prepared dataset ({FILE} is missing); make one with: "
            f"python -m harness.prepare {dataset} --source DIR --out {folder}"
        ) from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged: not JSON") from None
