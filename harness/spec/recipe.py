"""The keys of a recipe that every task has."""

from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Value = TypeVar("Value")
PER_METHOD = "per method"
# A key that papers choose per method and student: the optimiser's settings, the trained part of a backbone, and how the
# teacher's logits are computed. Numbers whose recipes differ in another key are not comparable.
PerMethod = Annotated[Value, PER_METHOD]


def _no_share(percent: float) -> float:
    if 0 < percent <= 1:
        raise ValueError(f"is in %; {percent:g} looks like a share: write {100 * percent:g}")
    return percent


Percent = Annotated[Finite, AfterValidator(_no_share)]


def types_of(annotation: Any) -> set[Any]:
    """Return the types of values that an annotation allows, also inside lists and mappings."""
    if get_origin(annotation) is Annotated:
        return types_of(get_args(annotation)[0])
    return {kind for part in get_args(annotation) for kind in types_of(part)} or {annotation}


class Closed(BaseModel):
    """A model that refuses keys it does not know."""

    # Few of a command's models are used; the others are not built.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        if any(isinstance(v, bool) for v in values):  # pydantic would read 1 or 0
            types = types_of(cls.model_fields[info.field_name or ""].annotation)
            if types & {int, float} and bool not in types:
                kind, words = ("int_type", "an integer") if float not in types else ("float_type", "a number")
                raise PydanticCustomError(kind, f"must be {words}")
        return value

    @classmethod
    def owner_of(cls, key: str) -> str:
        """Return what to write for a key that belongs elsewhere, or nothing."""
        return ""


class GeneralKeys(Closed):
    """Everything about training that is not the method and not the task."""

    epochs: int = Field(ge=1, le=100_000, description="passes over the training set")
    batch_size: PerMethod[int] = Field(64, ge=2, le=1_000_000, description="images per optimiser step")
    optimizer: PerMethod[Literal["sgd", "dot", "adamw", "lamb"]] = Field(
        "sgd",
        description="`sgd`; `dot`: SGD with one momentum for the gradient of the labels' loss and another for that of "
        "the distillation's (DOT, ICCV 2023); `adamw`: Adam with decoupled weight decay (arXiv:1711.05101); `lamb`: "
        "layer-wise adapted steps for large batches (arXiv:1904.00962)",
    )
    lr: PerMethod[Finite] = Field(gt=0, description="learning rate before any decay")
    momentum: PerMethod[Finite] = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: PerMethod[Finite] = Field(
        5e-4,
        ge=0,
        description="on every parameter, norms and biases included: with `sgd` an L2 penalty, with `adamw` a shrinking "
        "of the weights, with `lamb` a part of the step",
    )
    momentum_delta: PerMethod[Finite] = Field(
        0.075,
        ge=0,
        lt=1,
        description="`dot`: how much lower the momentum of the labels' loss is than `momentum`, and how much higher "
        "that of the distillation's",
    )
    nesterov: PerMethod[bool] = Field(False, description="Nesterov's form of momentum")
    betas: PerMethod[tuple[Decay, Decay]] = Field(
        (0.9, 0.999), description="`adamw` and `lamb`: decay rates of the running means of gradients and their squares"
    )
    eps: PerMethod[Finite] = Field(
        1e-8, gt=0, description="`adamw` and `lamb`: added to the denominator, for numerical stability"
    )
    decay_norms_and_biases: PerMethod[bool] = Field(
        True,
        description="false: no weight decay on biases, norms, other parameters of one dimension, and what timm's "
        "models except, such as `pos_embed` and `cls_token`",
    )
    layer_decay: PerMethod[Finite | None] = Field(
        None,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer to the one before it: a block of timm's models, a "
        "stage of the harness's own (arXiv:2106.08254); the head and a method's parameters have the whole rate",
    )
    freeze: PerMethod[tuple[str, ...]] = Field(
        (),
        description="parts of the student that stay as they start, by the beginnings of their names, such as `layer1`; "
        "their batch norms are in evaluation mode",
    )
    drop_path: PerMethod[Finite] = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that a residual branch of the student is left out "
        "(arXiv:1603.09382): timm's `drop_path_rate`, torchvision's `stochastic_depth_prob`",
    )
    schedule: PerMethod[Literal["step", "cosine"]] = Field("step", description="lr decay")
    schedule_by: PerMethod[Literal["epoch", "step"]] = Field(
        "epoch",
        description="whether the schedule and `warmup_epochs` set the learning rate once per epoch or at each step",
    )
    min_lr: PerMethod[Finite] = Field(0.0, ge=0, description="schedule `cosine`: the learning rate it falls to")
    warmup_lr: PerMethod[Finite] = Field(
        0.0, ge=0, description="`schedule_by: step`: the learning rate from which `warmup_epochs` rises"
    )
    milestones: PerMethod[tuple[Count, ...]] = Field(
        (), description="schedule `step`: epochs after which the learning rate is multiplied by `gamma`"
    )
    gamma: PerMethod[Finite] = Field(0.1, gt=0, le=1, description="schedule `step`: the factor at each milestone")
    warmup_epochs: PerMethod[int] = Field(
        0, ge=0, description="number of first epochs in which the learning rate rises linearly to `lr`"
    )
    warmup_steps: PerMethod[int] = Field(
        0,
        ge=0,
        description="number of first steps in which the learning rate rises linearly, from 0.001 of what is scheduled",
    )
    epoch_steps: Count | None = Field(
        None,
        description="steps that count as one epoch, if that is not one pass over the training set: the passes follow "
        "each other without end and are cut into epochs of this many steps",
    )
    flip: bool = Field(False, description="random horizontal flip with probability 1/2")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="`bf16`: bfloat16 autocast of the models; losses stay float32. `tf32`: float32 with matrix "
        "products and convolutions in TF32 on a GPU; the same as `float32` on a CPU",
    )
    stop_epoch: Count | None = Field(
        None,
        description="training ends after this many of `epochs`, whose schedule stays: an early-stopped teacher "
        "(arXiv:1910.01348)",
    )
    eval_every: int = Field(
        1, ge=1, description="number of epochs between evaluations; the last epoch is always evaluated"
    )
    ema: Finite = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay per step of an exponential moving average of the student's weights; the average is "
        "evaluated and saved instead of the weights; 0: no average",
    )
    compile: PerMethod[bool] = Field(
        False, description="on a GPU, compile the teacher (torch.compile), which rounds its outputs differently"
    )
    accumulate: PerMethod[Count] = Field(
        1,
        description="micro-batches per optimiser step, whose gradients are averaged; with N, each has every N-th image "
        "of the batch; batch norms and methods see one micro-batch at a time",
    )
    clip_norm: PerMethod[Finite | None] = Field(
        None, gt=0, description="maximum L2 norm of all gradients together, including those of the method's parameters"
    )

    @property
    def last_epoch(self) -> int:
        """The number of epochs after which training ends."""
        return self.stop_epoch or self.epochs

    @model_validator(mode="after")
    def _consistent(self) -> "GeneralKeys":
        if self.schedule == "cosine" and self.milestones:
            raise ValueError("milestones belong to schedule 'step', found 'cosine'; remove them or change the schedule")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, found {list(self.milestones)}")
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("warmup_epochs and warmup_steps exclude each other; state one of them")
        for key in ("min_lr", "warmup_lr"):
            if (value := getattr(self, key)) > self.lr:
                raise ValueError(f"{key} must be at most lr, {self.lr:g}, found {value:g}")
        if self.stop_epoch is not None and self.stop_epoch > self.epochs:
            raise ValueError(f"stop_epoch must be at most epochs, {self.epochs}, found {self.stop_epoch}")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than epochs, {self.epochs}, found {self.warmup_epochs}")
        if self.optimizer == "dot":
            self._check_dot()
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate: a batch of {self.batch_size} cannot be cut into {self.accumulate}")
        return self

    def _check_dot(self) -> None:
        if self.clip_norm is not None:
            raise ValueError(f"clip_norm is not defined for optimizer dot, found {self.clip_norm:g}; remove it")
        most = min(self.momentum, 1 - self.momentum)
        if self.momentum_delta >= most:
            raise ValueError(
                f"momentum_delta must be below {most:g}, so that momentum {self.momentum:g} less it and more it is "
                f"between 0 and 1; found {self.momentum_delta:g}"
            )
