"""What a prepared data set states of itself (``manifest.json``); imports no torch, so that planning can use it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

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

    max_side: int = Field(ge=8, le=1024, description="longest side of a stored image, in pixels")
    quality: int = Field(ge=1, le=95, description="JPEG quality of images that had to be encoded anew")


class Part(_Closed):
    """The training or the test images: one .beton file."""

    file: Literal["train.beton", "val.beton"]  # closed, so that a manifest cannot name a file elsewhere
    images: Count
    per_class_min: Count  # images of the smallest class
    bytes: Count
    counts: dict[str, Count]  # see harness.data.images.KINDS


class Unreadable(_Closed):
    """A source file that was left out."""

    file: str  # relative to the source
    why: str


class Manifest(_Closed):
    """A prepared data set. ``version`` is what identifies its content, wherever it lies."""

    format: Literal[1] = FORMAT
    dataset: Literal["imagenet", "imagefolder"]
    version: Hash  # of class names and, in order, labels and stored JPEG bytes of both parts
    settings: Settings
    source: Hash  # of the source files' names, sizes and labels
    classes: tuple[str, ...]  # in the order of their labels
    train: Part | None  # None: prepared for evaluation only
    test: Part
    unreadable: tuple[Unreadable, ...] = ()
    made_with: dict[str, str]  # package -> version

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a prepared data set whose files are there.

        Raises:
            UserError: the folder holds none, or it or one of its files is damaged.
        """
        path = folder / FILE
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise UserError(
                f"{folder}: holds no prepared data set ({FILE} is missing); make one with: "
                f"python -m harness.prepare imagenet --source DIR --out {folder}"
            ) from None
        except ValueError:
            raise UserError(f"{path}: damaged: not JSON") from None
        return cls._checked(found, path)

    @classmethod
    def _checked(cls, found: Any, path: Path) -> "Manifest":
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise UserError(f"{path}: format {shorten(found.get('format'))}, this harness reads format {FORMAT}")
        try:
            manifest = cls.model_validate(found)
        except ValidationError as e:
            problem = e.errors()[0]
            place = ".".join(map(str, problem["loc"])) or "its content"
            raise UserError(f"{path}: damaged: {place}: {problem['msg']}") from None
        for part in filter(None, (manifest.train, manifest.test)):
            file = path.parent / part.file
            size = file.stat().st_size if file.is_file() else None
            if size != part.bytes:
                state = "is missing" if size is None else f"has {size:,} bytes, {FILE} states {part.bytes:,}"
                raise UserError(f"{file}: {state}; prepare the data set again into another folder")
        return manifest

    def write(self, folder: Path) -> None:
        """Atomically: a folder with a manifest is complete."""
        files.replace_json(folder / FILE, self.model_dump(mode="json"))
