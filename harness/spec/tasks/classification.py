"""Classification: one class per image."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_serializer, model_validator

from harness.errors import shorten
from harness.spec import models
from harness.spec.augmentation import canonical_augment, canonical_erasing
from harness.spec.recipe import Closed, Count, Finite, GeneralKeys, Percent, PerMethod
from harness.spec.tasks.base import DatasetInfo, Images, Keys, Preparation, TaskInfo

# Keys of a recipe that change what is seen of training images, with their defaults.
AUGMENTATION: dict[str, Any] = {
    "augment": None,
    "random_erasing": 0.0,
    "repeats": 1,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mix_probability": 1.0,
    "mix_switch": 0.5,
    "views": None,
}


CropPadding = Annotated[int, Field(ge=0, le=64)]
CropArea = tuple[Finite, Finite]
ONE_CROP = "crop_padding and crop_area exclude each other: state one kind of random crop"


class ViewKeys(Closed):
    """A further view of each image; a key that is not stated is as in the recipe."""

    crop_padding: CropPadding | None = Field(None, description="as in the recipe, in place of its `crop_area`")
    crop_area: CropArea | None = Field(None, description="as in the recipe, in place of its `crop_padding`")
    flip: bool | None = Field(None, description="as in the recipe")
    augment: dict[str, Any] | None = Field(None, description="as in the recipe; `null`: none")
    random_erasing: Finite | dict[str, Any] | None = Field(None, description="as in the recipe")

    _augment = field_validator("augment", mode="before")(canonical_augment)
    _random_erasing = field_validator("random_erasing", mode="before")(canonical_erasing)

    @property
    def stated(self) -> dict[str, Any]:
        """The keys that are stated, with their values."""
        values = {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}
        return {key: value for key, value in values.items() if value is not None or key == "augment"}

    @model_serializer
    def _to_json(self) -> dict[str, Any]:
        # Keys that come later leave the ids of runs as they are.
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.stated.items()}

    @model_validator(mode="after")
    def _area(self) -> "ViewKeys":
        _check_area(self.crop_area)
        if self.crop_area and self.crop_padding:
            raise ValueError(ONE_CROP)
        return self


def _check_view_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        raise ValueError(f"expected a name of at most 64 lower-case letters, digits and _, found {shorten(name)}")
    return name


ViewName = Annotated[str, AfterValidator(_check_view_name)]


class RecipeKeys(GeneralKeys):
    crop_padding: CropPadding = Field(0, description="random crop after zero-padding each side by this many pixels")
    image_size: int | tuple[tuple[int, int], ...] | None = Field(
        None,
        description="side in pixels of the images that models see, to which crops are resized, or `[[epoch, side], "
        "...]` for a side that grows at these epochs, counted from 0 (progressive resolution); default: 224 for stored "
        "images, else the images' own",
    )
    crop_area: tuple[Finite, Finite] | None = Field(
        None,
        description="smallest and largest share of an image's area that a random crop takes (default 0.08, 1 for "
        "stored images, else none); its aspect ratio is 3/4 to 4/3",
    )
    eval_size: int | None = Field(
        None, ge=8, le=2048, description="stored images only: side of the central crop in evaluation (default 224)"
    )
    eval_resize: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="stored images only: length of the shorter side after resizing, before that crop (default 256)",
    )
    eval_crop_first: bool | None = Field(
        None,
        description="stored images only: crop the central square of `eval_size`/`eval_resize` of the shorter side, "
        "then resize it, as FFCV does (default false)",
    )
    teacher_top_k: PerMethod[int | None] = Field(
        None,
        ge=1,
        le=32_767,
        description="methods that read only the teacher's logits train on this many of its largest, in half precision; "
        "the first run stores them, and later runs with the same seed read them instead of running the teacher",
    )
    label_smoothing: Finite = Field(
        0.0, ge=0, lt=1, description="share of the target of the `ce` term that is spread evenly over all classes"
    )

    augment: dict[str, Any] | None = Field(
        None,
        description="augmentation of the pixels after crop and flip: `{randaugment: {ops: 2, magnitude: 9}}`, "
        "`{autoaugment: {policy: imagenet}}`, `{trivialaugment: {}}`, `{timm: rand-m9-mstd0.5-inc1}`",
    )
    random_erasing: Finite | dict[str, Any] = Field(
        0.0,
        description="probability that a rectangle of an image is erased (arXiv:1708.04896), or all settings: "
        "`{probability: 0.25, mode: pixel, area: [0.02, 0.33], aspect: [0.3, 3.3], count: 1}`",
    )
    repeats: Count = Field(
        1,
        description="repeated augmentation: a batch has this many copies of each of its images, augmented differently "
        "(arXiv:1901.09335)",
    )
    mixup: Finite = Field(
        0.0, ge=0, description="alpha of the Beta distribution of mixup's shares (arXiv:1710.09412); 0: no mixup"
    )
    cutmix: Finite = Field(0.0, ge=0, description="alpha of CutMix's shares (arXiv:1905.04899); 0: no CutMix")
    mix_probability: Finite = Field(1.0, ge=0, le=1, description="probability that a batch is mixed at all")
    mix_switch: Finite = Field(
        0.5, ge=0, le=1, description="with both mixup and cutmix: probability that a mixed batch is mixed by CutMix"
    )
    views: PerMethod[dict[ViewName, ViewKeys] | None] = Field(
        None,
        description="further views of each image, for methods that read them: "
        "`{strong: {augment: {randaugment: {}}}}`; what a view does not state is as in the recipe",
    )

    _augment = field_validator("augment", mode="before")(canonical_augment)
    _random_erasing = field_validator("random_erasing", mode="before")(canonical_erasing)

    @model_validator(mode="after")
    def _sizes(self) -> "RecipeKeys":
        if self.image_size is not None:
            self._check_growth(((0, self.image_size),) if isinstance(self.image_size, int) else self.image_size)
        _check_area(self.crop_area)
        return self

    def _check_growth(self, stages: tuple[tuple[int, int], ...]) -> None:
        epochs, sides = ([stage[i] for stage in stages] for i in (0, 1))
        rise = epochs == sorted(set(epochs)) and sides == sorted(set(sides))
        if not all(8 <= s <= 2048 for s in sides):
            raise ValueError(f"image_size must be 8 to 2048 pixels, found {sides}")
        if epochs[:1] != [0] or not rise or epochs[-1] >= self.epochs:
            raise ValueError("image_size must be [[0, side], ...] with rising epochs below `epochs` and rising sides")


def _check_area(area: CropArea | None) -> None:
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"crop_area must be two numbers with 0 < least <= largest <= 1, found {area}")


Recipe = TypeVar("Recipe", bound=RecipeKeys)


def view_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """Return what a recipe's further views are made by, each as a recipe."""
    return {name: recipe.model_copy(update=_changes(view)) for name, view in (recipe.views or {}).items()}


def _changes(view: ViewKeys) -> dict[str, Any]:
    changes = view.stated
    if "crop_area" in changes:
        return {"crop_padding": 0, **changes}
    return {"crop_area": None, **changes} if "crop_padding" in changes else changes


class StatedScore(Closed):
    top1: Percent | None = Field(
        None,
        ge=0,
        le=100,
        description="test accuracy in % that it should have; measured again before training, where a difference of "
        "more than 0.1 is a failure",
    )


def _check_stored(recipe: Keys) -> None:
    if recipe["eval_size"] > recipe["eval_resize"]:
        sizes = f"{recipe['eval_size']} > {recipe['eval_resize']}"
        raise ValueError(f"eval_size must be at most eval_resize, found {sizes}")
    for name, view in (recipe.get("views") or {}).items():
        if "crop_padding" in view:
            raise ValueError(f"views.{name}.crop_padding is for pixels of one size; state its crop_area")


def _check_pixels(recipe: Keys) -> None:
    if recipe["crop_padding"] and recipe["crop_area"]:
        raise ValueError(ONE_CROP)


PIXELS = Images(
    "pixels of one size",
    "harness.data.load.tensors:TensorSource",
    {"crop_padding": 0, "image_size": None, "crop_area": None},
    size_keys=("image_size",),
    check=_check_pixels,
)
STORED = Images(
    "stored images",
    "harness.data.load.imagefolder:ImageFolderSource",
    {"image_size": 224, "crop_area": [0.08, 1.0], "eval_size": 224, "eval_resize": 256, "eval_crop_first": False},
    size_keys=("image_size", "eval_size"),
    resize_keys=("eval_resize",),
    check=_check_stored,
)
TASK = TaskInfo(
    "classification",
    "harness.training.tasks.classification",
    metrics=("top1", "top5", "loss"),
    printed=("top1", "top5"),
    loss="cross-entropy",
    images=(PIXELS, STORED),
    models=dict.fromkeys(models.CATALOG, ("classification",)),
    examples=("resnet20", "torchvision:resnet18"),
    models_note="The numbers are for one forward pass of an image of 3x32x32 and 100 classes (`digits_net`: 1x8x8, 10 "
    "classes). Taps inside a stage are not listed.",
    library_models=True,
    labels={"top1": "top-1", "top5": "top-5"},
    recipe={"teacher_top_k": None, "label_smoothing": 0.0, **AUGMENTATION},
    class_per_image=True,
    fine_tuning=True,
)


def _prepared(name: str, *options: str, **more: Any) -> DatasetInfo:
    preparation = Preparation(
        f"harness.data.prepare.imagefolder:prepare_{name}", "harness.data.manifest:Manifest", options
    )
    return DatasetInfo(name, TASK, STORED, preparation=preparation, **more)


DATASETS = (
    DatasetInfo(
        "digits", TASK, PIXELS, classes=10, image_shape=models.DIGITS, train_size=1442, test_size=355,
        train_per_class=140, version="6000b9393a3f3f11", mean=(0.3052,), std=(0.3760,),
        module="harness.data.load.digits", embedded=True,
    ),
    DatasetInfo(
        "cifar100", TASK, PIXELS, classes=100, image_shape=models.CIFAR, train_size=50_000, test_size=10_000,
        train_per_class=500, version="7aa2560ea3dd37c2", mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761),
        module="harness.data.load.cifar", folder="cifar-100-python", finder="harness.data.cifar_files:find_cifar100",
    ),
    DatasetInfo(
        "cifar10", TASK, PIXELS, classes=10, image_shape=models.CIFAR, train_size=50_000, test_size=10_000,
        train_per_class=5000, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), read_once=True,
        module="harness.data.load.cifar10", folder="cifar-10-batches-py",
        finder="harness.data.cifar_files:find_cifar10",
    ),
    DatasetInfo(
        "tiny_imagenet", TASK, PIXELS, classes=200, image_shape=(3, 64, 64), train_size=100_000, test_size=10_000,
        train_per_class=500, mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821), read_once=True,
        module="harness.data.load.tiny_imagenet", folder="tiny-imagenet-200",
        finder="harness.data.tiny_imagenet_files:find_tiny_imagenet",
    ),
    DatasetInfo(
        "stl10", TASK, PIXELS, classes=10, image_shape=(3, 96, 96), train_size=5000, test_size=8000,
        train_per_class=500, mean=(0.4467, 0.4398, 0.4066), std=(0.2603, 0.2566, 0.2713), read_once=True,
        module="harness.data.load.stl10", folder="stl10_binary", finder="harness.data.stl10_files:find_stl10",
    ),
    _prepared("imagenet", "max_side", "orientation", "restart", all_published=True),
    _prepared("imagefolder", "max_side", "orientation", "restart", "classes", "val_share", "name"),
)  # fmt: skip
