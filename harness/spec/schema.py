"""The sweep file's schema. Every model is closed: a key it does not know is an error, never ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from harness.errors import shorten
from harness.spec import datasets, models, pretrained

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]


def _name_or_mapping(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError(f"expected a recipe's name or a mapping, found {shorten(value)}")
    return value


RecipeRef = Annotated[str | dict[str, Any], BeforeValidator(_name_or_mapping)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Closed):
    """Everything about training that is not the method. All of it enters a run's identity."""

    epochs: int = Field(ge=1, le=100_000, description="passes over the training set")
    batch_size: int = Field(64, ge=2, le=1_000_000, description="images per optimiser step")
    lr: Finite = Field(gt=0, description="learning rate of SGD before any decay")
    momentum: Finite = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: Finite = Field(5e-4, ge=0, description="L2 penalty on every parameter, BatchNorm and biases included")
    nesterov: bool = Field(False, description="Nesterov's form of momentum")
    schedule: Literal["step", "cosine"] = Field("step", description="lr decay; set once per epoch")
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="schedule `step`: epochs after which the learning rate is multiplied by `gamma`"
    )
    gamma: Finite = Field(0.1, gt=0, le=1, description="schedule `step`: the factor at each milestone")
    warmup_epochs: int = Field(0, ge=0, description="first epochs with a learning rate rising linearly to `lr`")
    warmup_steps: int = Field(
        0, ge=0, description="first steps with a learning rate rising linearly from 0.001 of what it then is"
    )
    epoch_steps: int | None = Field(
        None,
        ge=1,
        description="steps of what is called an epoch, where that is not one pass over the training set: an endless "
        "stream of passes is cut into epochs of so many steps",
    )
    crop_padding: int = Field(0, ge=0, le=64, description="random crop after zero-padding each side by so many pixels")
    flip: bool = Field(False, description="random horizontal flip with probability 1/2")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="`bf16`: bfloat16 autocast of the models; losses stay float32. `tf32`: float32 whose factors a "
        "GPU rounds to TF32; as float32 on a CPU",
    )
    image_size: int | tuple[tuple[int, int], ...] | None = Field(
        None,
        description="stored images only: side in pixels of the random crop's result (default 224), or "
        "`[[epoch, side], ...]` for sides that grow from those 0-based epochs on (progressive resolution)",
    )
    crop_area: tuple[Finite, Finite] | None = Field(
        None,
        description="stored images only: least and largest share of an image that a random crop takes "
        "(default 0.08, 1); its sides' ratio is 3/4 to 4/3",
    )
    eval_size: int | None = Field(
        None, ge=8, le=2048, description="stored images only: side of the central crop in evaluation (default 224)"
    )
    eval_resize: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="stored images only: what the shorter side is resized to before that (default 256)",
    )
    eval_crop_first: bool | None = Field(
        None,
        description="stored images only: crop the central square of `eval_size`/`eval_resize` of the shorter side, "
        "then resize it, as FFCV does (default false)",
    )
    sides: tuple[Annotated[int, Field(ge=32, le=4096)], ...] | None = Field(
        None,
        min_length=1,
        description="detection only: sides in pixels of which one is drawn for an image's shorter side (default 800)",
    )
    max_side: int | None = Field(
        None, ge=32, le=8192, description="detection only: the most an image's longer side may have (default 1333)"
    )
    eval_side: int | None = Field(
        None, ge=32, le=4096, description="detection only: an image's shorter side in evaluation (default 800)"
    )
    norm: Literal["frozen", "batch"] | None = Field(
        None,
        description="detection only: batch norms of the backbone stay as they are loaded, or are trained "
        "(default `frozen`)",
    )
    frozen_stages: int | None = Field(
        None,
        ge=0,
        le=5,
        description="detection only: of the backbone's stem and four stages, how many are not trained (default 0)",
    )
    anchors_per_image: int | None = Field(
        None, ge=2, le=4096, description="detection only: anchors that proposals are learned from (default 256)"
    )
    rois_per_image: int | None = Field(
        None, ge=2, le=4096, description="detection only: regions that classes and boxes are learned from (default 512)"
    )
    eval_every: int = Field(1, ge=1, description="evaluate every so many epochs, and after the last")
    ema: Finite = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay per step of an exponential moving average of the student's weights, which then is what is "
        "evaluated and kept; 0: none",
    )
    teacher_top_k: int | None = Field(
        None,
        ge=1,
        le=32_767,
        description="methods that read the teacher's logits alone train on so many of its largest, in half precision, "
        "which are kept in the store: later runs with this seed read them instead of running the teacher",
    )
    compile: bool = Field(
        False, description="on a GPU, compile the teacher (torch.compile), which changes its outputs by rounding"
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="micro-batches per optimiser step, each of every so-many-th image of the batch, their gradients "
        "averaged; batch norms and methods see one micro-batch at a time",
    )
    clip_norm: Finite | None = Field(
        None, gt=0, description="greatest L2 norm of all gradients together, the method's included"
    )
    label_smoothing: Finite = Field(
        0.0, ge=0, lt=1, description="share of the target of the `ce` term that is spread over all classes"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if isinstance(self.image_size, int | tuple):
            self._check_sizes(self.image_size)
        if self.crop_area is not None and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError("crop_area must be two numbers with 0 < least <= largest <= 1")
        if self.eval_size is not None and self.eval_resize is not None and self.eval_size > self.eval_resize:
            raise ValueError("eval_size must be at most eval_resize")
        if self.schedule == "cosine" and self.milestones:
            raise ValueError("milestones belong to schedule 'step'; remove them or change the schedule")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("warmup_epochs and warmup_steps are two ways to say the same; state one")
        if self.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be fewer than epochs")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate: a batch of {self.batch_size} cannot be cut into {self.accumulate}")
        return self

    def _check_sizes(self, sizes: int | tuple[tuple[int, int], ...]) -> None:
        grows = ((0, sizes),) if isinstance(sizes, int) else sizes
        epochs, sides = ([stage[i] for stage in grows] for i in (0, 1))
        rise = epochs == sorted(set(epochs)) and sides == sorted(set(sides))
        if not all(8 <= s <= 2048 for s in sides):
            raise ValueError("image_size must be 8 to 2048 pixels")
        if epochs[:1] != [0] or not rise or epochs[-1] >= self.epochs:
            raise ValueError("image_size must be [[0, side], ...] with rising epochs below `epochs` and rising sides")


# Keys of a recipe that say what is seen of stored images, and what they are when not stated.
STORED_VIEWS: dict[str, Any] = {
    "image_size": 224, "crop_area": [0.08, 1.0], "eval_size": 224, "eval_resize": 256, "eval_crop_first": False
}  # fmt: skip


# The same of detection: what is seen of images, and how detectors are built and trained.
DETECTION_VIEWS: dict[str, Any] = {"sides": [800], "max_side": 1333, "eval_side": 800}
DETECTOR: dict[str, Any] = {"norm": "frozen", "frozen_stages": 0, "anchors_per_image": 256, "rois_per_image": 512}
# By what a dataset's images are (``DatasetInfo.views``): keys of a recipe that say more, with their defaults.
VIEWS: dict[str, dict[str, Any]] = {"pixels": {}, "stored": STORED_VIEWS, "detection": DETECTION_VIEWS | DETECTOR}


class Dataset(Closed):
    """Which images."""

    name: str = Field(description="a dataset of the harness")
    folder: str | None = Field(
        None,
        min_length=1,
        description="of `imagenet`, `imagefolder` and `coco`: what `python -m harness.prepare` wrote, absolute or "
        "below the data root (`--data`, KD_DATA); the dataset's name when not stated",
    )
    train_subset: int | None = Field(
        None,
        ge=10,
        description="train on so many images only, the first of each class (of `coco`, the first) in file order; the "
        "test set is whole",
    )
    validation: int | None = Field(
        None,
        ge=10,
        description="for tuning: evaluate on so many training images, the last of each class (of `coco`, the last) in "
        "file order, which are not trained on; the test set is left alone",
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        datasets.check_name(name)
        return name

    @model_validator(mode="after")
    def _folder_of_stored(self) -> "Dataset":
        if self.folder is not None and self.name not in datasets.STORED:
            raise ValueError(f"folder belongs to {' and '.join(datasets.STORED)}; {self.name} is found by its own name")
        return self

    def check_parts(self, info: datasets.DatasetInfo) -> None:
        """Raises:
        ValueError: the dataset has not so many images, or not so many of each class, or none to train on.
        """
        if not info.train_size:
            raise ValueError(f"{info.name} was prepared without training images: it is for evaluation only")
        unit, room = info.taken_together, info.room
        multiple = f"a multiple of {unit} (the number of classes), " if unit > 1 else ""
        if self.validation is not None and (self.validation % unit or self.validation >= room):
            raise ValueError(f"validation must be {multiple}less than {room}")
        room -= self.validation or 0
        if self.train_subset is not None and (self.train_subset % unit or self.train_subset > room):
            rest = " beside the images for validation" if self.validation else ""
            raise ValueError(f"train_subset must be {multiple}at most {room}{rest}")


class WeightsSource(Closed):
    """Weights that are given rather than trained: one of `file`, `url` and `name` says which."""

    file: str | None = Field(
        None,
        min_length=1,
        description="path: absolute, or below the data root (`--data`, KD_DATA), or beside the sweep file",
    )
    url: str | None = Field(
        None, max_length=2000, description="https address of a file .pth, .pt, .bin or .safetensors"
    )
    name: str | None = Field(
        None,
        description="as the libraries name them: `torchvision:ResNet34_Weights.IMAGENET1K_V1`, "
        "`timm:mobilenetv1_100.ra4_e3600_r224_in1k`, `torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1`",
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the file; read from it when not stated")

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None:
            pretrained.check_url(url)
        return url

    @field_validator("name")
    @classmethod
    def _published(cls, name: str | None) -> str | None:
        if name is not None:
            pretrained.weights_url(name)
        return name

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSource":
        said = [key for key in ("file", "url", "name") if getattr(self, key) is not None]
        if len(said) != 1:
            raise ValueError(f"expected one of file, url and name; found {' and '.join(said) or 'none of them'}")
        return self

    @property
    def source(self) -> str:
        """The file, address or name, for messages."""
        return self.file or self.url or str(self.name)

    @property
    def address(self) -> str | None:
        """Where they are downloaded from; None: they are a file."""
        return pretrained.weights_url(self.name) if self.name else self.url


class Weights(WeightsSource):
    """A teacher's weights, with how good they should be."""

    top1: Finite | None = Field(
        None,
        ge=0,
        le=100,
        description="test accuracy in % it should have; re-measured before training, off by more than 0.1 is a failure",
    )
    AP: Finite | None = Field(None, ge=0, le=100, description="of a detector, the same for its AP")

    def stated(self, score: str) -> float | None:
        """The task's score that they should have."""
        return {"top1": self.top1, "AP": self.AP}[score]


class Method(Closed):
    """One line of the comparison: a distiller with its settings."""

    use: str | None = Field(
        None, description="the method, when this entry has a name of its own: `kd`, `package.module:Class`"
    )
    params: dict[str, Any] = Field({}, description="hyper-parameters, over the method's defaults")
    weights: dict[str, Finite] = Field({}, description="weights of the loss terms, over the method's defaults")
    recipe: dict[str, Any] = Field({}, description="changes to the recipe for this method alone")


class Backbone(WeightsSource):
    """The weights of torchvision's classifier that a detector's backbone starts from."""


class Pair(Closed):
    """A teacher and a student."""

    teacher: str = Field(
        description="a model below, `timm:NAME` or `torchvision:NAME`; "
        "trained here first unless `teacher_weights` is given"
    )
    student: str = Field(description="a model below, `timm:NAME` or `torchvision:NAME`")
    teacher_weights: Weights | None = Field(None, description="the teacher's weights, when they are given")
    teacher_backbone: Backbone | None = Field(
        None, description="detection only: what the backbone of a teacher that is trained here starts from"
    )
    student_backbone: Backbone | None = Field(
        None, description="detection only: what the student's backbone starts from"
    )
    recipe: dict[str, Any] = Field({}, description="changes to the recipe for this pair")
    methods: dict[str, Method] = Field({}, description="changes to methods for this pair, by their names in `methods`")

    @field_validator("teacher", "student")
    @classmethod
    def _known(cls, name: str) -> str:
        return models.resolve_model(name)


class Teachers(Closed):
    """How teachers that are trained here are trained."""

    recipe: RecipeRef | None = Field(None, description="a recipe; the sweep's own when not stated")
    seed: Seed = Field(0, description="one teacher serves all of a pair's seeds, so that seeds are comparable")


class Sweep(Closed):
    """A sweep file: dataset, recipe, pairs, methods and seeds."""

    name: Name | None = Field(
        None, description="names the sweep's folder of tables; the file's own name when not stated"
    )
    note: str = Field("", max_length=500, description="printed under every table of this sweep")
    dataset: Dataset = Field(description="a dataset's name, or a mapping")
    recipe: RecipeRef = Field(
        description="by name, a file in `recipes/` beside the sweep file or in benchmarks/recipes; "
        "or a mapping, which may start from one of them with `base: NAME`"
    )
    teachers: Teachers = Field(Teachers(), description="how teachers are trained")
    methods: dict[Name, Method] = Field(
        min_length=1, description="a list of names, or a mapping from a name to its settings"
    )
    pairs: tuple[Pair, ...] = Field(min_length=1, description="teacher-student pairs")
    seeds: tuple[Seed, ...] = Field(
        min_length=1, max_length=10_000, description="a number of seeds (3 means 0, 1, 2) or a list"
    )

    @field_validator("dataset", mode="before")
    @classmethod
    def _dataset_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _methods_by_name(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            if len(set(value)) < len(value):
                raise ValueError("a method is listed twice")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {k: {} if v is None else v for k, v in value.items()}
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_by_count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= 10_000:
                raise ValueError("expected 1 to 10,000 seeds")
            return tuple(range(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is listed twice")
        return value
