"""Augmentation of pixels: each operation against PIL's, what is drawn, and independence of a batch's composition."""

import re
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import stats
from timm.data import auto_augment as timm_ops
from torch import Tensor
from torchvision.transforms import v2

from harness.data.augment import geometry, levels, operations, pixel_augmentation, pixels
from harness.data.augment.pixels import PixelAugmentation
from harness.data.augment.policies import read_policy
from harness.errors import UserError
from harness.spec.augmentation import canonical_augment
from harness.spec.schema import Recipe
from harness.spec.science import recipe_json

PIL_MODES = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
             "bicubic": Image.Resampling.BICUBIC}  # fmt: skip
FACTORS = (0.01, 0.1, 0.73, 1.0, 1.27, 1.9)


def make_images(height: int, width: int, channels: int) -> Tensor:
    """Return noise, a gradient, a picture of few values, a flat picture and a dark one, (5, H, W, C)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (height, width, channels), generator=generator)
    ramp = torch.arange(height)[:, None, None] * 5 + torch.arange(width)[:, None] * 3 + torch.arange(channels) * 40
    few = noise // 100 * 90
    return torch.stack([noise, ramp % 256, few, torch.full_like(noise, 77), noise // 8 + 3]).to(torch.uint8)


def as_pil(image: Tensor) -> Image.Image:
    array = image.numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def as_tensor(image: Image.Image, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(image)).view(like.shape)


SIZES = [(32, 32, 3), (17, 23, 1), (13, 40, 3)]
in_sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def check(size: tuple[int, int, int], ours: Callable[[Tensor], Tensor], pil: Callable[[Image.Image], Any]) -> None:
    images = make_images(*size)
    for image, result in zip(images, ours(images), strict=True):
        assert torch.equal(result, as_tensor(pil(as_pil(image)), image))


def in_tables(kind: str, argument: float) -> Callable[[Tensor], Tensor]:
    table = operations.fixed_table(kind, argument)
    return lambda images: operations.look_up(images, table.expand(len(images), 256))


@in_sizes
def test_tables_give_pils_bits(size: tuple[int, int, int]) -> None:
    for factor in FACTORS:
        check(size, in_tables("brightness", factor), lambda i, f=factor: timm_ops.brightness(i, f))  # type: ignore[misc]
    for bits in range(1, 9):
        check(size, in_tables("posterize", bits), lambda i, b=bits: timm_ops.posterize(i, b))  # type: ignore[misc]
    for threshold in (0, 1, 127.5, 178.5, 255, 256):
        check(size, in_tables("solarize", threshold), lambda i, t=threshold: timm_ops.solarize(i, t))  # type: ignore[misc]
    for add in (0, 55, 110):
        check(size, in_tables("solarize_add", add), lambda i, a=add: timm_ops.solarize_add(i, a))  # type: ignore[misc]
    check(size, in_tables("invert", 0), timm_ops.invert)
    # Pillow 13 refuses to keep no bits, which timm's `inc` comes to at level 10; earlier ones made the image black.
    assert not in_tables("posterize", 0)(make_images(*size)).any()
    check(size, operations.autocontrast, timm_ops.auto_contrast)
    check(size, operations.equalize, timm_ops.equalize)


@in_sizes
@pytest.mark.parametrize("kind", ["color", "contrast", "sharpness"])
def test_blends_give_pils_bits(kind: str, size: tuple[int, int, int]) -> None:
    for factor in FACTORS:
        check(
            size,
            lambda images, f=factor: getattr(operations, kind)(images, torch.full((len(images),), f)),  # type: ignore[misc]
            lambda image, f=factor: getattr(timm_ops, kind)(image, f),  # type: ignore[misc]
        )


GEOMETRIC = [
    *((kind, factor) for kind in ("shear_x", "shear_y") for factor in (0.0, 0.09, -0.3, 0.99)),
    *((kind, shift) for kind in ("translate_x", "translate_y") for shift in (0, 4, -14.4, 3.5, -0.5, 100)),
    *(("rotate", degrees) for degrees in (0, 9, -30, 45, 90, -135)),
]


TIMM_NAMES = {"translate_x": "translate_x_abs", "translate_y": "translate_y_abs"}


@pytest.mark.parametrize("interpolation, bound", [("nearest", 0), ("bilinear", 1), ("bicubic", 1)])
def test_geometry_agrees_with_pil(interpolation: str, bound: int) -> None:
    """Nearest interpolation has PIL's bits; the others, whose positions are rounded to 2^-16 pixel, are within 1."""
    for height, width, channels in SIZES if interpolation == "nearest" else SIZES[1:]:
        images, fill = make_images(height, width, channels), (9, 200, 30)[:channels]
        for kind, argument in GEOMETRIC:
            units = geometry.in_units(geometry.affine_map(kind, argument, height, width), interpolation)
            maps, colour = torch.tensor([units] * len(images)), torch.tensor(fill, dtype=torch.uint8)
            operate = getattr(timm_ops, TIMM_NAMES.get(kind, kind))
            pil = {"resample": PIL_MODES[interpolation], "fillcolor": fill if channels > 1 else fill[0]}
            for image, result in zip(images, geometry.resample(images, maps, colour, interpolation), strict=True):
                difference = result.int() - as_tensor(operate(as_pil(image), argument, **pil), image).int()
                assert difference.abs().max() <= bound, (kind, argument)


def augmentation(**augment: Any) -> PixelAugmentation:
    result = pixel_augmentation(SimpleNamespace(augment=canonical_augment(augment), random_erasing=0.0))
    assert result
    return result


POLICIES: list[dict[str, Any]] = [
    {"randaugment": {}},
    {"timm": "rand-m9-mstd0.5-inc1"},
    {"autoaugment": {"policy": "cifar10", "fill": 128}},
    {"trivialaugment": {"interpolation": "bilinear"}},
]
in_policies = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: next(iter(p)))
IMAGES = make_images(16, 20, 3).repeat(12, 1, 1, 1).permute(0, 3, 1, 2)  # (60, 3, 16, 20), channels last


@in_policies
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10_000), data=st.data())
def test_an_image_is_augmented_the_same_in_any_batch(policy: dict[str, Any], seed: int, epoch: int, data: Any) -> None:
    augment, every = augmentation(**policy), torch.arange(len(IMAGES)) + 31
    whole = augment(IMAGES, seed, epoch, every, "")
    some = torch.tensor(data.draw(st.lists(st.integers(0, len(IMAGES) - 1), min_size=1, max_size=9)))
    assert torch.equal(augment(IMAGES[some].contiguous(), seed, epoch, every[some], ""), whole[some])


@in_policies
def test_the_way_of_a_gpu_gives_the_same_bits_and_changes_no_input(policy: dict[str, Any]) -> None:
    before, every = IMAGES.clone(), torch.arange(len(IMAGES))
    (one, other) = (PixelAugmentation(canonical_augment(policy) or {}, dense=dense) for dense in (False, True))
    assert torch.equal(one(IMAGES, 3, 1, every, "strong"), other(IMAGES, 3, 1, every, "strong"))
    assert torch.equal(IMAGES, before)


@pytest.mark.slow  # compiling takes some seconds, once per installation
@pytest.mark.parametrize("policy", [*POLICIES, {"trivialaugment": {"interpolation": "bicubic"}}], ids=str)
def test_the_compiled_operations_give_the_same_bits(policy: dict[str, Any]) -> None:
    pytest.importorskip("numba")
    augment = canonical_augment(policy) or {}
    one, other = PixelAugmentation(augment), PixelAugmentation(augment, compile_after=0)
    for channels in (1, 3) if "timm" not in policy else (3,):
        images = make_images(24, 19, channels).repeat(30, 1, 1, 1).permute(0, 3, 1, 2)
        every = torch.arange(len(images))
        assert torch.equal(one(images, 3, 1, every, ""), other(images, 3, 1, every, ""))


def test_without_numba_torchs_operations_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_compiled_operations", lambda: None)
    augment = PixelAugmentation(canonical_augment({"randaugment": {}}) or {}, compile_after=0)
    every = torch.arange(len(IMAGES))
    assert torch.equal(augment(IMAGES, 0, 0, every, ""), augmentation(randaugment={})(IMAGES, 0, 0, every, ""))


@in_policies
def test_seeds_epochs_and_streams_are_independent(policy: dict[str, Any]) -> None:
    augment, every = augmentation(**policy), torch.arange(len(IMAGES))
    results = [
        augment(IMAGES, *place)
        for place in ((0, 0, every, ""), (1, 0, every, ""), (0, 1, every, ""), (0, 0, every, "x"))
    ]
    for other in results[1:]:
        same = (results[0] == other).flatten(1).all(1).float().mean()
        assert same < 0.5
    assert torch.equal(augment(IMAGES, 0, 0, every, ""), results[0])


def test_grey_images_need_one_fill_colour() -> None:
    grey = make_images(8, 8, 1).permute(0, 3, 1, 2)
    assert augmentation(randaugment={"fill": 7})(grey, 0, 0, torch.arange(5), "").shape == grey.shape
    with pytest.raises(UserError, match="fill has 3 numbers, the images have 1 channel"):
        augmentation(timm="rand-m9")(grey, 0, 0, torch.arange(5), "")


def drawn(augment: PixelAugmentation, count: int = 60_000, size: int = 32) -> list[list[levels.Row]]:
    """Return the rows that images 0 to ``count`` - 1 have at each step."""
    steps = augment.draw(size, size, 0, 0, torch.arange(count), "")
    return [[arguments.rows[row] for row in rows.tolist()] for arguments, rows in steps]


def uniform(counts: Counter[Any]) -> float:
    return float(stats.chisquare(list(counts.values())).pvalue)


def test_randaugment_draws_torchvisions_operations() -> None:
    """Operations, signs and pairs of operations are uniform, and arguments are torchvision's at that magnitude."""
    first, second = drawn(augmentation(randaugment={"magnitude": 12}))
    assert uniform(Counter(row.kind for row in first)) > 1e-4
    pairs = Counter((a.kind, b.kind) for a, b in zip(first, second, strict=True))
    assert len(pairs) == 14**2 and uniform(pairs) > 1e-4
    space = v2.RandAugment._AUGMENTATION_SPACE
    for kind in {row.kind for row in first}:
        name = "AutoContrast" if kind == "autocontrast" else kind.title().replace("_", "")
        magnitudes, is_signed = space[name]
        values = magnitudes(31, 32, 32)
        arguments = Counter(row.argument for row in first if row.kind == kind)
        if values is None:
            assert list(arguments) == [0]
            continue
        value = float(values[12])
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            expected = [1 + value, 1 - value]
        elif name == "Solarize":
            expected = [255 * value]
        else:
            expected = [int(value) if "Translate" in name or name == "Posterize" else value]
            expected += [-v for v in expected if is_signed]
        assert sorted(arguments) == pytest.approx(sorted(expected), rel=1e-6)
        assert len(arguments) == 1 or uniform(arguments) > 1e-4


def test_trivialaugment_draws_torchvisions_levels() -> None:
    (rows,) = drawn(augmentation(trivialaugment={}))
    assert uniform(Counter(row.kind for row in rows)) > 1e-4
    for kind, name in (("rotate", "Rotate"), ("shear_x", "ShearX"), ("solarize", "Solarize")):
        values = v2.TrivialAugmentWide._AUGMENTATION_SPACE[name][0](31, 32, 32).double()
        values = 255 * values if kind == "solarize" else torch.cat([-values[1:], values])
        counts = Counter(row.argument for row in rows if row.kind == kind)
        assert sorted(counts) == pytest.approx(values.sort().values.tolist(), rel=1e-6, abs=1e-9)
        assert uniform(Counter({k: n for k, n in counts.items() if k})) > 1e-4  # both signs of 0 are one


@pytest.mark.parametrize("policy", list(v2.AutoAugmentPolicy))
def test_autoaugment_has_torchvisions_policies(policy: v2.AutoAugmentPolicy) -> None:
    expected = v2.AutoAugment(policy)._get_policies(policy)
    pairs = read_policy(policy.value)
    assert len(pairs) == len(expected) == 25
    for pair, theirs in zip(pairs, expected, strict=True):
        for (kind, probability, level), (name, chance, index) in zip(pair, theirs, strict=True):
            assert (kind.replace("_", ""), probability) == (name.lower(), chance)
            assert index is None or level == index
    first, second = drawn(augmentation(autoaugment={"policy": policy.value}), 30_000)
    applied = Counter(row.kind for row in first)
    for kind in {pair[0][0] for pair in pairs}:
        share = sum(pair[0][1] for pair in pairs if pair[0][0] == kind) / 25
        assert stats.binomtest(applied[kind], 30_000, share).pvalue > 1e-5
    allowed = {(a[0], b[0]) for a, b in pairs}
    both = {(a.kind, b.kind) for a, b in zip(first, second, strict=True)}
    assert {pair for pair in both if "identity" not in pair} <= allowed


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("magnitude", [0, 4, 9, 10])
def test_timms_arguments(magnitude: int, increasing: bool) -> None:
    transforms = timm_ops._RAND_INCREASING_TRANSFORMS if increasing else timm_ops._RAND_TRANSFORMS
    assert len(transforms) == len(levels.TIMM_KINDS)
    for kind, name in zip(levels.TIMM_KINDS, transforms, strict=True):
        level = timm_ops.LEVEL_TO_ARG[name]
        expected = {level(magnitude, {})[0] * (32 if "Rel" in name else 1) for _ in range(40)} if level else {0}
        found = {levels.timm_argument(kind, magnitude / 10, sign, 32, 32, increasing=increasing) for sign in (1, -1)}
        assert sorted(found) == pytest.approx(sorted(expected)), kind


def test_timms_noise_and_probability() -> None:
    first, _ = drawn(augmentation(timm="rand-m7-mstd0.5-inc1-p0.4"))
    kinds = Counter(row.kind for row in first)
    assert stats.binomtest(kinds.pop("identity"), len(first), 0.6).pvalue > 1e-5
    assert len(kinds) == 15 and uniform(kinds) > 1e-4
    magnitudes = [abs(row.argument) / 3 for row in first if row.kind == "rotate"]
    assert stats.kstest(magnitudes, stats.norm(7, 0.5).cdf).pvalue > 1e-4
    assert np.mean([row.argument > 0 for row in first if row.kind == "rotate"]) == pytest.approx(0.5, abs=0.05)


def test_what_is_stated_and_what_is_the_default_are_one_science() -> None:
    forms = [{"randaugment": {}}, {"randaugment": None}, {"randaugment": {"ops": 2, "magnitude": 9}}]
    recipes = [Recipe.model_validate({"epochs": 1, "lr": 0.1, "augment": form}) for form in forms]
    assert recipes[0] == recipes[1] == recipes[2]
    stated = recipe_json(recipes[0])["augment"]
    assert stated == {
        "randaugment": {
            "ops": 2, "magnitude": 9.0, "magnitude_std": 0.0, "probability": 1.0, "levels": "torchvision",
            "increasing": True, "interpolation": "nearest", "fill": 0,
        }
    }  # fmt: skip
    assert canonical_augment(stated) == stated
    assert canonical_augment({"timm": "rand-m9-mstd0.5-inc1"}) == canonical_augment(
        {
            "randaugment": {
                "levels": "timm",
                "magnitude": 9,
                "magnitude_std": 0.5,
                "probability": 0.5,
                "interpolation": "bicubic",
                "fill": [124, 116, 104],
            }
        }  # fmt: skip
    )
    assert recipe_json(Recipe.model_validate({"epochs": 1, "lr": 0.1, "random_erasing": 0.25}))["random_erasing"] == {
        "probability": 0.25, "mode": "pixel", "value": 0.0, "area": [0.02, 1 / 3], "aspect": [0.3, 1 / 0.3], "count": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("augment", {"randaug": {}}, "unknown augmentation 'randaug'; did you mean 'randaugment'?"),
        ("augment", {"randaugment": {"magnitud": 1}}, "randaugment: unknown key 'magnitud'; did you mean 'magnitude'?"),
        ("augment", {"randaugment": {"magnitude": 31}}, "randaugment: magnitude must be at most 30"),
        ("augment", {"randaugment": {"magnitude": 11, "levels": "timm"}}, "magnitude must be at most 10 with levels"),
        ("augment", {"randaugment": {"increasing": False}}, "increasing must be true with levels 'torchvision'"),
        ("augment", {"randaugment": {"fill": [1, 256]}}, "fill must be at most 255, found 256"),
        ("augment", {"randaugment": {}, "trivialaugment": {}}, "found randaugment and trivialaugment"),
        ("augment", {"autoaugment": {"policy": "cifar"}}, "policy must be 'imagenet', 'cifar10' or 'svhn'"),
        ("augment", {"timm": "rand-m9-tweights"}, "'tweights' in 'rand-m9-tweights' is not supported"),
        ("augment", {"timm": "rand-m12"}, "magnitude must be at most 10 with levels 'timm', found 12"),
        ("augment", "randaugment", "expected a mapping with one of randaugment, autoaugment, trivialaugment, timm"),
        ("augment", {"randaugment": 9}, "randaugment: expected a mapping of keys to values, found 9"),
        ("random_erasing", 2, "must be at most 1, found 2"),
        ("random_erasing", {"probability": 0.1, "area": [0.5, 0.1]}, "must be two numbers with 0 < least <= largest"),
        ("random_erasing", {"probability": 0.1, "mod": "pixel"}, "unknown key 'mod'; did you mean 'mode'?"),
        ("random_erasing", {"probability": 0.1, "value": 1}, "value is used with mode 'constant' only"),
    ],
)
def test_mistakes_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Recipe.model_validate({"epochs": 1, "lr": 0.1, key: value})
