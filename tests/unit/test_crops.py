"""Crops and flips are functions of (seed, epoch, index) with torchvision's distribution; also in evaluation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from harness.data.load.crops import as_views, evaluation_views, training_views

seeds, epochs, sides = st.integers(0, 2**31), st.integers(-100, 1000), st.integers(1, 2000)
shapes = st.lists(st.tuples(sides, sides), min_size=1, max_size=20)


def sizes(n: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(1)
    return drawn.integers(100, 500, n), drawn.integers(100, 500, n)


@given(seeds, epochs, shapes, st.sampled_from([(0.08, 1.0), (0.25, 1.0), (1.0, 1.0)]))
def test_parts_lie_inside_their_images(
    seed: int, epoch: int, shapes: list[tuple[int, int]], area: tuple[float, float]
) -> None:
    heights, widths = np.array(shapes).T
    top, left, height, width, flip = training_views(seed, epoch, np.arange(len(shapes)), heights, widths, area).T
    assert (top >= 0).all() and (left >= 0).all() and (height > 0).all() and (width > 0).all()
    assert (top + height <= heights).all() and (left + width <= widths).all()
    assert set(flip) <= {0, 1}


@given(seeds, epochs, st.data())
@settings(max_examples=30)
def test_an_image_is_shown_the_same_whichever_others_are_asked_for(seed: int, epoch: int, data: st.DataObject) -> None:
    heights, widths = sizes(50)
    whole = training_views(seed, epoch, np.arange(50), heights, widths)
    some = np.array(data.draw(st.lists(st.integers(0, 49), min_size=1, unique=True)))
    assert np.array_equal(training_views(seed, epoch, some, heights[some], widths[some]), whole[some])


def test_parts_change_with_seed_and_epoch_and_flips_can_be_left_out() -> None:
    heights, widths = sizes(500)
    every = np.arange(500)
    first, later, other = (training_views(s, e, every, heights, widths) for s, e in ((0, 0), (0, 1), (1, 0)))
    for changed in (later, other):
        assert (first[:, :4] == changed[:, :4]).all(axis=1).sum() < 5
        assert 150 < (first[:, 4] == changed[:, 4]).sum() < 350
    unflipped = training_views(0, 0, every, heights, widths, flip=False)
    assert np.array_equal(unflipped[:, :4], first[:, :4]) and not unflipped[:, 4].any()


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (64, 64), (100, 400), (30, 400)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.35, 1.0)])
def test_distribution_is_torchvisions(height: int, width: int, area: tuple[float, float]) -> None:
    n = 4000
    heights, widths = np.full(n, height), np.full(n, width)
    ours = training_views(3, 5, np.arange(n), heights, widths, area)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.empty((3, height, width))
        theirs = np.array([RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(n)])
    for quantity in (
        lambda v: v[:, 0], lambda v: v[:, 1], lambda v: v[:, 2], lambda v: v[:, 3],
        lambda v: v[:, 2] * v[:, 3], lambda v: v[:, 2] / v[:, 3],
        lambda v: v[:, 0] + v[:, 2], lambda v: v[:, 1] + v[:, 3],
    ):  # fmt: skip
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).pvalue > 1e-4
    assert abs(ours[:, 4].mean() - 0.5) < 0.04
    for column in range(4):  # a crop is independent of its flip
        if len(set(ours[:, column])) > 1:
            assert abs(np.corrcoef(ours[:, column], ours[:, 4])[0, 1]) < 0.07
    if len(set(ours[:, 0])) > 1 and len(set(ours[:, 1])) > 1:  # and the corner's coordinates of each other
        ours_together, theirs_together = (np.corrcoef(v[:, 0], v[:, 1])[0, 1] for v in (ours, theirs))
        assert abs(ours_together - theirs_together) < 0.1


def test_what_no_try_fits_into_is_shown_as_torchvision_does() -> None:
    """An image too narrow for any allowed crop of this area is shown as its largest central crop."""
    for height, width in ((1000, 10), (10, 1000), (7, 200)):
        views = training_views(0, 0, np.arange(20), np.full(20, height), np.full(20, width), (0.9, 1.0))
        expected = RandomResizedCrop.get_params(torch.empty((3, height, width)), [0.9, 1.0], [3 / 4, 4 / 3])
        assert (views[:, :4] == np.array(expected)).all()


@given(st.integers(8, 600), st.integers(8, 600), st.sampled_from([(224, 256), (160, 182), (64, 64), (288, 320)]))
def test_evaluation_is_torchvisions(height: int, width: int, sizes: tuple[int, int]) -> None:
    """Pixels encode their own position, which nearest-neighbour resizing preserves."""
    size, resize = sizes
    (view,) = evaluation_views(
        np.array([7]), np.array([height]), np.array([width]), size=size, resize=resize, crop_first=False
    )
    image = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    resized = tv.resize(image, resize, tv.InterpolationMode.NEAREST)
    assert (view["to_width"], view["to_height"]) == resized.size
    assert view["position"] == 7 and not view["flip"]
    assert (view["top"], view["left"], view["height"], view["width"]) == (0, 0, height, width)
    row, column = int(view["row"]), int(view["column"])
    window = np.asarray(resized)[row : row + size, column : column + size]
    assert np.array_equal(window, np.asarray(tv.center_crop(resized, size)))


@given(shapes)
def test_evaluation_with_the_crop_first_is_ffcvs(shapes: list[tuple[int, int]]) -> None:
    heights, widths = np.array(shapes).T
    views = evaluation_views(np.arange(len(shapes)), heights, widths, size=224, resize=256, crop_first=True)
    for view, (height, width) in zip(views, shapes, strict=True):
        side = max(1, int(224 / 256 * min(height, width)))
        assert (view["height"], view["width"], view["to_height"], view["to_width"]) == (side, side, 224, 224)
        assert (view["top"], view["left"]) == ((height - side) // 2, (width - side) // 2)


def test_golden_views() -> None:
    """These crops are part of a run_id's meaning: if they change, raise identity.PROTOCOL."""
    heights, widths = np.array([375, 375, 500, 64, 30]), np.array([500, 500, 333, 64, 400])
    views = training_views(0, 0, np.arange(5), heights, widths)
    assert views.tolist() == [
        [1, 11, 368, 443, 1], [87, 184, 285, 312, 1], [28, 22, 338, 298, 1], [11, 4, 36, 43, 0], [0, 180, 30, 40, 1]
    ]  # fmt: skip
    assert training_views(5, 2, np.array([1_281_166]), heights[:1], widths[:1], (0.25, 1.0)).tolist() == [
        [9, 23, 342, 423, 0]
    ]
    assert as_views(np.array([9]), views[:1], 160)[0].tolist() == (9, 1, 11, 368, 443, 160, 160, 0, 0, 1)
