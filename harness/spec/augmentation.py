"""Augmentation: the keys `augment` and `random_erasing` of a recipe, checked and in their canonical form.

The canonical form states every setting. So a default that changes later changes no earlier run, and a recipe that
states a default has the same identity as one that does not. Imports no torch.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from harness.errors import expected, requirement, shorten, unknown
from harness.phrases import plural
from harness.spec.recipe import Closed, Count, Finite

Byte = Annotated[int, Field(ge=0, le=255)]
TIMM_FILL = (124, 116, 104)  # 255 times ImageNet's mean, rounded: `img_mean` in timm/data/transforms_factory.py
LARGEST = {"torchvision": 30, "timm": 10}  # magnitudes


def _one_if_equal(fill: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return fill[0] if isinstance(fill, tuple) and len(set(fill)) == 1 else fill


class _Pixels(Closed):
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "nearest", description="of shears, translations and rotations; torchvision's default"
    )
    fill: Annotated[Byte | tuple[Byte, ...], AfterValidator(_one_if_equal)] = Field(
        0, description="colour of what a shear, translation or rotation moves in: one number, or one per channel"
    )


class RandAugment(_Pixels):
    ops: int = Field(2, ge=1, le=16, description="operations per image, one after the other")
    magnitude: Finite = Field(9.0, ge=0, le=30, description="0 to 30 with torchvision's levels, 0 to 10 with timm's")
    magnitude_std: Finite = Field(
        0.0, ge=0, le=100, description="standard deviation of the magnitude, drawn for each operation (timm's `mstd`)"
    )
    probability: Finite = Field(1.0, ge=0, le=1, description="probability that a drawn operation is applied")
    levels: Literal["torchvision", "timm"] = Field(
        "torchvision", description="the operations, and what each does at a magnitude"
    )
    increasing: bool = Field(
        True, description="timm's `inc`: every operation changes more with a larger magnitude; false: only with timm's"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RandAugment":
        if self.magnitude > (most := LARGEST[self.levels]):
            raise ValueError(f"magnitude must be at most {most} with levels {self.levels!r}, found {self.magnitude:g}")
        if not self.increasing and self.levels != "timm":
            raise ValueError(f"increasing must be true with levels {self.levels!r}; only timm's have the other form")
        return self


class AutoAugment(_Pixels):
    policy: Literal["imagenet", "cifar10", "svhn"] = Field(
        "imagenet", description="the dataset that the policy was found on"
    )


class TrivialAugment(_Pixels):
    pass


def _between(low: float, high: float) -> Any:
    def check(values: tuple[float, float]) -> tuple[float, float]:
        if not low < values[0] <= values[1] <= high:
            limit = f" <= {high:g}" if high < math.inf else ""
            raise ValueError(f"must be two numbers with {low:g} < least <= largest{limit}, found {shorten(values)}")
        return values

    return AfterValidator(check)


class RandomErasing(Closed):
    probability: Finite = Field(ge=0, le=1, description="probability that an image is erased at all")
    mode: Literal["pixel", "constant"] = Field(
        "pixel", description="`pixel`: each value is drawn from a normal distribution; `constant`: it is `value`"
    )
    value: Finite = Field(0.0, description="mode `constant`: the value, after normalisation: 0 is the dataset's mean")
    area: Annotated[tuple[Finite, Finite], _between(0, 1)] = Field(
        (0.02, 1 / 3), description="least and largest share of the image that is erased"
    )
    aspect: Annotated[tuple[Finite, Finite], _between(0, math.inf)] = Field(
        (0.3, 1 / 0.3), description="least and largest height over width of a rectangle"
    )
    count: Count = Field(1, le=16, description="rectangles per image, which share the area")


POLICIES: dict[str, type[Closed]] = {
    "randaugment": RandAugment,
    "autoaugment": AutoAugment,
    "trivialaugment": TrivialAugment,
}
_TIMM = {"m": "magnitude", "n": "ops", "mstd": "magnitude_std", "p": "probability", "inc": "increasing"}


def canonical_augment(value: Any) -> dict[str, Any] | None:
    """Return the key `augment` with every setting stated: ``{randaugment: {ops: 2, ...}}``; None stays.

    Raises:
        ValueError: it is not valid.
    """
    if value is None:
        return None
    names = (*POLICIES, "timm")
    if not isinstance(value, dict):
        raise ValueError(expected(f"a mapping with one of {', '.join(names)}", value))
    for name in value:
        if name not in names:
            raise ValueError(unknown("augmentation", name, names))
    if len(value) != 1:
        raise ValueError(f"expected one of {', '.join(names)}; found {' and '.join(value) or 'none'}")
    ((name, keys),) = value.items()
    if name == "timm":
        name, keys = "randaugment", _read_timm(keys)
    return {name: _with_defaults(POLICIES[name], {} if keys is None else keys, name)}


def check_fill(augment: dict[str, Any] | None, channels: int) -> None:
    """Check that an augmentation's colour is one of images with so many channels.

    Raises:
        ValueError: it has another number of channels.
    """
    for policy, keys in (augment or {}).items():
        if isinstance(fill := keys["fill"], list | tuple) and len(fill) != channels:
            numbers, found = plural(len(fill), "number"), plural(channels, "channel")
            raise ValueError(
                f"augment: fill has {numbers}, the images have {found}; state `{policy}` with a `fill` of one number "
                f"(a text of timm's stands for the colour {list(TIMM_FILL)})"
            )


def canonical_erasing(value: Any) -> Any:
    """Return the key `random_erasing` with every setting stated, or 0.0 where nothing is ever erased.

    Raises:
        ValueError: it is not valid.
    """
    keys = value if isinstance(value, dict) else {"probability": value}
    settings = _with_defaults(RandomErasing, keys, "")
    if settings["mode"] == "pixel" and settings["value"]:
        raise ValueError("value is used with mode 'constant' only")
    return settings if settings["probability"] else 0.0


def _with_defaults(model: type[Closed], keys: Any, name: str) -> dict[str, Any]:
    if not isinstance(keys, dict):
        raise ValueError(f"{name}: {expected('a mapping of keys to values', keys)}")
    try:
        return model.model_validate(keys).model_dump(mode="json")
    except ValidationError as e:
        raise ValueError("; ".join(dict.fromkeys(_mistake(model, error, name) for error in _most(e)))) from None


def _most(error: ValidationError) -> list[Any]:
    """Return the errors of a validation; where a value fits no alternative, those of the one it is nearest to."""
    errors = error.errors(include_url=False)
    deeper = {err["loc"][0] for err in errors if len(err["loc"]) > 2}
    return [err for err in errors if len(err["loc"]) != 2 or err["loc"][0] not in deeper]


def _mistake(model: type[BaseModel], error: Any, name: str) -> str:
    keys = [str(part) for part in error["loc"][:1]]
    prefix = f"{name}: " if name else ""
    if error["type"] == "extra_forbidden":
        return prefix + unknown("key", keys[0], model.model_fields)
    if error["type"] == "missing":
        text = "is required and missing"
    elif error["type"] == "value_error":
        text = error["msg"].removeprefix("Value error, ")
    else:
        text = f"{requirement(error['msg'])}, found {shorten(error['input'])}"
        text = text[0].lower() + text[1:]
    return f"{prefix}{' '.join(keys)} {text}" if keys else prefix + text


def _read_timm(text: Any) -> dict[str, Any]:
    """Return RandAugment's keys for timm's text, such as ``rand-m9-mstd0.5-inc1``.

    Its defaults are those of ``rand_augment_transform`` in timm/data/auto_augment.py, and of the transforms that timm
    trains with: bicubic interpolation, ImageNet's mean as the fill colour.
    """
    if not isinstance(text, str) or text.split("-")[0] != "rand":
        raise ValueError(f"timm: {expected('a text such as rand-m9-mstd0.5-inc1', text)}")
    keys: dict[str, Any] = {
        "levels": "timm", "ops": 2, "magnitude": 10, "magnitude_std": 0.0, "probability": 0.5, "increasing": False,
        "interpolation": "bicubic", "fill": TIMM_FILL,
    }  # fmt: skip
    for part in text.split("-")[1:]:
        match = re.fullmatch(r"([a-z]+)([0-9]+(?:\.[0-9]+)?)", part)
        if not match or match[1] not in _TIMM:
            forms = ", ".join(f"{key}NUMBER" for key in _TIMM)
            raise ValueError(f"timm: {shorten(part)} in {shorten(text)} is not supported; supported are {forms}")
        number = float(match[2])
        whole = match[1] in ("n", "inc")
        keys[_TIMM[match[1]]] = bool(number) if match[1] == "inc" else int(number) if whole else number
    return keys
