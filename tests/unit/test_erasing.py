"""Random erasing: shares and places of rectangles, values, and independence of a batch's composition."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from harness.data.augment import erasing
from harness.data.augment.erasing import Erasing
from harness.spec.augmentation import canonical_erasing

IMAGES = torch.zeros((400, 3, 24, 30)).contiguous(memory_format=torch.channels_last) + 7
EVERY = torch.arange(len(IMAGES))
SETTINGS: list[Any] = [0.4, {"probability": 0.5, "mode": "constant", "value": -1.5, "count": 3}]


def make_erasing(settings: Any) -> Erasing:
    result = erasing(SimpleNamespace(augment=None, random_erasing=canonical_erasing(settings)))
    assert result
    return result


def is_changed(images: Tensor) -> Tensor:
    return (images != 7).any(dim=1)


def test_zero_is_no_erasing() -> None:
    for value in (0, 0.0, {"probability": 0}):
        assert erasing(SimpleNamespace(augment=None, random_erasing=canonical_erasing(value))) is None


@pytest.mark.parametrize("settings", SETTINGS, ids=("pixel", "constant"))
def test_an_image_is_erased_the_same_in_any_batch_and_the_way_of_a_gpu(settings: Any) -> None:
    erase, before = make_erasing(settings), IMAGES.clone()
    whole = erase(IMAGES, 5, 2, EVERY, "")
    some = torch.tensor([7, 399, 0, 7, 31])
    assert torch.equal(erase(IMAGES[some].contiguous(), 5, 2, some, ""), whole[some])
    assert torch.equal(Erasing(canonical_erasing(settings), dense=True)(IMAGES, 5, 2, EVERY, ""), whole)
    assert torch.equal(IMAGES, before)
    for other in ((6, 2, EVERY, ""), (5, 3, EVERY, ""), (5, 2, EVERY, "strong")):
        assert (erase(IMAGES, *other) == whole).flatten(1).all(1).float().mean() < 0.6


def test_a_rectangle_is_erased_with_the_stated_probability_and_area() -> None:
    changed = is_changed(make_erasing(0.25)(IMAGES, 0, 0, EVERY, ""))
    is_erased = changed.flatten(1).any(1)
    assert stats.binomtest(int(is_erased.sum()), len(IMAGES), 0.25).pvalue > 1e-4
    for mask in changed[is_erased]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert mask.sum() == height * width < 0.38 * mask.numel()
        assert 0.2 < height / width < 5


def test_areas_aspects_and_corners_are_uniform() -> None:
    every = torch.arange(20_000)
    rectangles = make_erasing(1).rectangles(2000, 2000, 0, 0, every, "")[0]
    top, left, height, width = rectangles.double().T
    shares, logs = height * width / 2000**2, (height / width).log()
    assert stats.kstest(shares[logs.abs() < 0.1], stats.uniform(0.02, 1 / 3 - 0.02).cdf).pvalue > 1e-3
    assert stats.kstest(logs[shares < 0.2], stats.uniform(logs.min(), 2 * -logs.min()).cdf).pvalue > 1e-3
    for corner, side in ((top, height), (left, width)):
        assert stats.kstest(corner / (2000 - side), stats.uniform(0, 1).cdf).pvalue > 1e-3


def test_values_are_normal_or_the_constant() -> None:
    erased = make_erasing(1)(IMAGES, 0, 1, EVERY, "")
    values = erased[erased != 7].double()
    assert stats.kstest(values, stats.norm(0, 1).cdf).pvalue > 1e-4
    assert len(values.unique()) > 20_000
    erased = make_erasing({"probability": 1, "mode": "constant", "value": 0.5})(IMAGES, 0, 0, EVERY, "")
    assert erased.unique().tolist() == [0.5, 7]


def test_rectangles_share_the_area() -> None:
    erase = make_erasing({"probability": 1, "count": 3, "area": [0.3, 0.3]})
    areas = (erase.rectangles(200, 200, 0, 0, EVERY, "")[..., 2:].prod(2) / 200**2).double()
    numbers = (areas > 0).sum(0)
    assert sorted(numbers.unique().tolist()) == [1, 2, 3]
    assert torch.allclose(areas.sum(0), torch.tensor(0.3).double(), atol=0.01)


def test_what_never_fits_erases_nothing() -> None:
    assert not is_changed(make_erasing({"probability": 1, "area": [1, 1]})(IMAGES, 0, 0, EVERY, "")).any()
