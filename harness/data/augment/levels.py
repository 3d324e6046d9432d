"""Levels: the argument that an operation has at a magnitude, as torchvision and timm define it.

All arguments that can be drawn are listed here, on the host, and a draw is a place in that list: what has a sine or a
normal distribution in it is the same on every device.
"""

from statistics import NormalDist
from typing import Any, NamedTuple

from harness.data.augment.policies import read_policy

TORCHVISION_KINDS = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
                     "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")  # fmt: skip
TIMM_KINDS = ("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color",
              "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y")  # fmt: skip
QUANTILES = 256  # equally likely magnitudes that stand for a normal distribution
TRIVIAL_LEVELS = 31
_SIGNS = (1, -1)


class Row(NamedTuple):
    """An operation with its argument, and the probability with which it is applied once it is drawn."""

    kind: str
    argument: float
    probability: float = 1.0


class Layer(NamedTuple):
    """The operations among which one step of a policy draws: first a group for the image, then a row of the group.

    Steps with the same ``group_stream`` draw the same group.
    """

    groups: tuple[tuple[Row, ...], ...]  # all of one length
    group_stream: str


def list_layers(augment: dict[str, Any], height: int, width: int) -> list[Layer]:
    """Return what the steps of an augmentation, in its canonical form, draw among for images of a size."""
    ((name, keys),) = augment.items()
    size = (height, width)
    if name == "randaugment":
        rows = [_randaugment_rows(kind, keys, size) for kind in _kinds(keys)]
        return [Layer(tuple(rows), f"kind {step}") for step in range(keys["ops"])]
    if name == "trivialaugment":
        shares = [level / (TRIVIAL_LEVELS - 1) for level in range(TRIVIAL_LEVELS)]
        groups = [
            tuple(Row(kind, wide_argument(kind, share, sign)) for share in shares for sign in _SIGNS)
            for kind in TORCHVISION_KINDS
        ]
        return [Layer(tuple(groups), "kind 0")]
    pairs = read_policy(keys["policy"])
    return [Layer(tuple(_autoaugment_rows(*pair[step], size) for pair in pairs), "pair") for step in (0, 1)]


def _kinds(keys: dict[str, Any]) -> tuple[str, ...]:
    return TIMM_KINDS if keys["levels"] == "timm" else TORCHVISION_KINDS


def _autoaugment_rows(kind: str, probability: float, level: int, size: tuple[int, int]) -> tuple[Row, ...]:
    return tuple(Row(kind, torchvision_argument(kind, level / 9, sign, *size), probability) for sign in _SIGNS)


def _randaugment_rows(kind: str, keys: dict[str, Any], size: tuple[int, int]) -> tuple[Row, ...]:
    """Return the rows of a kind: each magnitude with each sign."""
    most = 10 if keys["levels"] == "timm" else 30
    magnitudes = [keys["magnitude"]]
    if std := keys["magnitude_std"]:
        normal = NormalDist(keys["magnitude"], std)
        magnitudes = [normal.inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES)]
    shares = [min(max(magnitude, 0), most) / most for magnitude in magnitudes]

    def argument(share: float, sign: int) -> float:
        if keys["levels"] == "timm":
            return timm_argument(kind, share, sign, *size, increasing=keys["increasing"])
        return torchvision_argument(kind, share, sign, *size)

    return tuple(Row(kind, argument(share, sign), keys["probability"]) for share in shares for sign in _SIGNS)


def torchvision_argument(kind: str, share: float, sign: int, height: int, width: int) -> float:
    """Return an operation's argument in torchvision's RandAugment and AutoAugment; ``share``: of the largest level."""
    match kind:
        case "shear_x" | "shear_y":
            return sign * 0.3 * share
        case "translate_x" | "translate_y":
            return -sign * int(150 / 331 * (width if kind == "translate_x" else height) * share)
        case "rotate":
            return sign * 30 * share
        case "brightness" | "color" | "contrast" | "sharpness":
            return 1 + sign * 0.9 * share
        case "posterize":
            return round(8 - 4 * share)
        case "solarize":
            return 255 * (1 - share)
    return 0.0


def wide_argument(kind: str, share: float, sign: int) -> float:
    """Return an operation's argument in TrivialAugment's wide space, as torchvision has it."""
    match kind:
        case "shear_x" | "shear_y":
            return sign * 0.99 * share
        case "translate_x" | "translate_y":
            return -sign * int(32 * share)
        case "rotate":
            return sign * 135 * share
        case "brightness" | "color" | "contrast" | "sharpness":
            return 1 + sign * 0.99 * share
        case "posterize":
            return round(8 - 6 * share)
        case "solarize":
            return 255 * (1 - share)
    return 0.0


def timm_argument(kind: str, share: float, sign: int, height: int, width: int, *, increasing: bool) -> float:
    """Return an operation's argument in timm's RandAugment (timm/data/auto_augment.py); ``increasing`` is its `inc`.

    Without it, the four blends go from 0.1 to 1.9, so that the middle level changes nothing, and posterize and solarize
    become weaker with the level.
    """
    match kind:
        case "shear_x" | "shear_y":
            return sign * 0.3 * share
        case "translate_x" | "translate_y":
            return sign * 0.45 * share * (width if kind == "translate_x" else height)
        case "rotate":
            return sign * 30 * share
        case "brightness" | "color" | "contrast" | "sharpness":
            return max(0.1, 1 + sign * 0.9 * share) if increasing else 0.1 + 1.8 * share
        case "posterize":
            return 4 - int(4 * share) if increasing else int(4 * share)
        case "solarize":
            return 256 - int(256 * share) if increasing else int(256 * share)
        case "solarize_add":
            return int(110 * share)
    return 0.0
