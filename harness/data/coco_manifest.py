"""The manifest of a prepared dataset in COCO's format; imports no torch, so that planning can use it."""

from collections.abc import Mapping
from typing import Literal

from harness.data.manifest import Count, Images, Prepared, Tally, counted
from harness.phrases import plural
from harness.spec.recipe import Closed

# What is counted of annotations.
KINDS = {
    "objects": "trained on",
    "crowds": "not trained on, and ignored in evaluation",
    "degenerate": "of no width or height within the image: not trained on; in evaluation as they are",
}


# What annotations had that COCO's format does not, and what was made of it; and boxes that are not what it says.
REMARKS = {
    "ids_as_text": "ids that were text or had a fraction of 0, read as integers",
    "ids_numbered": "ids that are no numbers: numbered from 1 in their order",
    "numbers_as_text": "a box, an area or a side that was text, read as numbers",
    "crowd_flags": '`iscrowd` other than 0 and 1, such as false, "0" or null, read as one of them',
    "boxes_of_outlines": "without a box: that of the outline is used",
    "without_box": "neither a box nor an outline: left out",
    "areas_replaced": "impossible (0, negative, no number, larger than the box, 1 everywhere): the box's area is used",
    "annotations_twice": "there already, with the same image, category, box and area: left out",
    "ids_shared": "annotations with the id of another one that differs: kept, as no id of an annotation is used",
    "images_twice": "an image file under two ids: one image, with the annotations of both",
    "sizes_read": "images without width and height: the file's are used",
    "files_found_by_name": "a name from elsewhere: the file of that name in the image folder is used",
    "unnamed_categories": "a category without a name: named by its supercategory or id",
    "boxes_turned": "images whose boxes were in pixels before their EXIF orientation: boxes are turned with the image",
    "boxes_as_shares": "have only numbers of at most 1, as shares of the image; COCO's boxes are in pixels",
    "boxes_as_corners": "fit as corners x1, y1, x2, y2, and not as COCO's x, y, width and height",
    "boxes_outside": "reach beyond their image by more than a pixel",
}
_IMPLAUSIBLE = ("boxes_as_shares", "boxes_as_corners", "boxes_outside")


class CocoPart(Images):
    """Images with objects, which are in a file of their own."""

    later = ("remarks",)

    annotations: Literal["train.safetensors", "val.safetensors"]
    annotation_bytes: Count
    trained_on: Count  # images with an object to train on
    objects: dict[str, Count]  # by KINDS
    remarks: dict[str, Count] = {}  # by REMARKS

    def sizes(self) -> dict[str, int]:
        return {**super().sizes(), self.annotations: self.annotation_bytes}

    def tallies(self) -> list[Tally]:
        objects = f"annotations: {counted(self.objects, KINDS)}; {self.trained_on:,} images to train on"
        tallies = [*super().tallies(), Tally(objects, self.objects, KINDS)]
        if self.remarks:
            tallies.append(Tally(f"noticed: {counted(self.remarks, REMARKS)}", self.remarks, REMARKS))
        return tallies

    @property
    def no_objects(self) -> str:
        """Return why there is no object to train on, if so."""
        return "" if self.trained_on else reason({**self.objects, **self.remarks})

    def implausible(self) -> list[str]:
        """Return a warning if most boxes are not what they should be."""
        count = sum(self.objects.get(kind, 0) for kind in ("objects", "degenerate"))
        for kind in _IMPLAUSIBLE:
            if (many := self.remarks.get(kind, 0)) * 2 > count:
                boxes = f"{many:,} of {plural(count, 'box', 'boxes')}"
                return [f"{boxes} {REMARKS[kind]}; a detector learns them as they are"]
        return []


def reason(counts: Mapping[str, int]) -> str:
    """Return in words why no annotation is an object; ``counts``: by KINDS and REMARKS."""
    reasons = {
        "crowds": "crowds (`iscrowd: 1`)",
        "degenerate": "degenerate boxes (no width or height within the image)",
        "without_box": "of neither box nor outline",
    }
    facts = [f"{many:,} {text}" for kind, text in reasons.items() if (many := counts.get(kind))]
    return f"the annotations are {' and '.join(facts)}" if facts else "there are no annotations"


class Category(Closed):
    """A class of objects. Its label is its rank among all of them, counted from 1."""

    id: Count  # in the annotations and in results, where numbers may be left out
    name: str


class CocoManifest(Prepared):
    """A dataset to detect objects in. ``version``: of the categories and, in order, ids, stored JPEG bytes and
    annotations of both parts. ``source``: of the annotations, and of the image files' names and sizes."""

    example = "coco"

    dataset: Literal["coco"]
    categories: tuple[Category, ...]  # in the order of their ids
    train: CocoPart | None  # None: prepared for evaluation only
    test: CocoPart  # that of ``train`` where the training images are what is evaluated on

    @property
    def parts(self) -> Mapping[str, CocoPart]:
        return {"train": self.train, self.evaluated_on: self.test} if self.train else {"test": self.test}

    @property
    def class_count(self) -> int:
        return len(self.categories)

    @property
    def evaluated_on(self) -> Literal["train", "test"]:
        return "train" if self.train and self.test.file == self.train.file else "test"

    @property
    def train_size(self) -> int:
        return self.train.trained_on if self.train else 0

    @property
    def untrainable(self) -> str:
        if self.train and not self.train.trained_on:
            return f"was prepared with nothing to train on ({self.train.no_objects})"
        return super().untrainable

    def warnings(self) -> list[str]:
        purposes = {"train": "nothing to train on", "test": "nothing to evaluate with: AP cannot be measured"}
        warnings = [
            f"{name}: {purposes[name]}: {part.no_objects}" for name, part in self.parts.items() if not part.trained_on
        ]
        return warnings + [f"{name}: {text}" for name, part in self.parts.items() for text in part.implausible()]
