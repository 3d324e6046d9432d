"""Invariant 2: data order and augmentation are pure functions of (seed, epoch, index)."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from harness import rng
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader, TensorSource
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.tasks import DATASETS

CIFAR = DATASETS["cifar100"]
IMAGES = torch.randint(0, 256, (60, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
seeds = st.integers(0, 2**31 - 1)
epochs = st.integers(0, 100_000)


def test_normalising_on_another_device_has_the_formats_of_the_cpu() -> None:
    """A meta tensor has shape and type, as on a GPU, but no values; ``tests/gpu`` compares those."""
    here, there = (Normalise(CIFAR, torch.device(device))(IMAGES.to(device)) for device in ("cpu", "meta"))
    assert (there.shape, there.dtype, there.stride()) == (here.shape, here.dtype, here.stride())


class AsTheyAre:
    """A stand-in for normalisation that leaves pixels unchanged, so that they compare exactly."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels


def loader(
    images: Tensor = IMAGES, batch: int = 16, padding: int = 2, flip: bool = True, seed: int = 3
) -> TensorLoader:
    return TensorLoader(
        images, torch.arange(len(images)) % 10, AsTheyAre(),  # type: ignore[arg-type]
        batch_size=batch, crop_padding=padding, flip=flip, seed=seed,
    )  # fmt: skip


def by_index(loader: TensorLoader, epoch: int) -> dict[int, Tensor]:
    """Return the augmented image of every index in an epoch."""
    return {
        int(i): image for images, _, indices in loader.epoch(epoch) for image, i in zip(images, indices, strict=True)
    }


@given(seeds, epochs, st.integers(1, 2000))
def test_order_is_a_permutation(seed: int, epoch: int, n: int) -> None:
    order = rng.random_permutation(seed, epoch, n)
    assert torch.equal(order.sort().values, torch.arange(n))
    assert torch.equal(order, rng.random_permutation(seed, epoch, n))


@given(seeds, epochs)
def test_order_differs_between_epochs_and_seeds(seed: int, epoch: int) -> None:
    orders = [rng.random_permutation(seed, epoch, 100), rng.random_permutation(seed, epoch + 1, 100)]
    orders.append(rng.random_permutation(seed + 1, epoch, 100))
    assert len({tuple(o.tolist()) for o in orders}) == 3


def test_order_is_unbiased() -> None:
    """Over many epochs index 0 comes at every place, and every index comes first, equally often."""
    orders = torch.stack([rng.random_permutation(7, epoch, 20) for epoch in range(4000)])
    for counts in ((orders == 0).sum(0), torch.bincount(orders[:, 0], minlength=20)):
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@given(seeds, epochs, st.integers(2, 70), st.integers(0, 3), st.booleans())
@settings(max_examples=25)
def test_each_index_once_per_epoch(seed: int, epoch: int, batch: int, padding: int, flip: bool) -> None:
    one = loader(batch=batch, padding=padding, flip=flip, seed=seed)
    batches = list(one.epoch(epoch))
    assert len(batches) == len(one)
    assert sorted(i for _, _, indices in batches for i in indices.tolist()) == list(range(len(IMAGES)))
    for images, targets, indices in batches:
        assert images.shape[1:] == IMAGES.shape[1:]
        assert torch.equal(targets, indices % 10)


@given(seeds, epochs, st.integers(2, 70), st.integers(11, 59))
@settings(max_examples=25)
def test_an_image_is_augmented_the_same_in_any_batch_and_any_subset(seed: int, epoch: int, batch: int, n: int) -> None:
    whole = by_index(loader(seed=seed), epoch)
    other = by_index(loader(seed=seed, batch=batch), epoch)
    part = by_index(loader(IMAGES[:n], seed=seed, batch=batch), epoch)
    assert all(torch.equal(whole[i], other[i]) for i in whole)
    assert len(part) == n and all(torch.equal(whole[i], part[i]) for i in part)


def test_an_epoch_does_not_depend_on_the_ones_before() -> None:
    used = loader()
    for epoch in range(3):
        list(used.epoch(epoch))
    for (a, _, i), (b, _, j) in zip(used.epoch(3), loader().epoch(3), strict=True):
        assert torch.equal(a, b) and torch.equal(i, j)


def test_augmentation_changes_with_epoch_and_seed() -> None:
    first, later, other = by_index(loader(), 0), by_index(loader(), 1), by_index(loader(seed=4), 0)
    assert sum(torch.equal(first[i], later[i]) for i in first) < 10
    assert sum(torch.equal(first[i], other[i]) for i in first) < 10


@given(seeds, epochs, st.integers(0, 4), st.booleans())
@settings(max_examples=25)
def test_agrees_with_torchvision(seed: int, epoch: int, p: int, flip: bool) -> None:
    height, width = IMAGES.shape[2:]
    every = torch.arange(len(IMAGES))
    place = rng.random_integers(seed, epoch, "crop", every, (2 * p + 1) ** 2)
    flipped = rng.random_integers(seed, epoch, "flip", every, 2)
    for i, image in by_index(loader(padding=p, flip=flip, seed=seed), epoch).items():
        top, left = divmod(int(place[i]), 2 * p + 1)
        expected = tv.crop(tv.pad(IMAGES[i], [p, p, p, p]), top, left, height, width)
        if flip and flipped[i]:
            expected = tv.horizontal_flip(expected)
        assert torch.equal(image, expected)


@pytest.mark.parametrize("epoch", [0, 239])
def test_crops_and_flips_are_uniform_and_independent(epoch: int) -> None:
    every = torch.arange(50_000)
    place = rng.random_integers(1, epoch, "crop", every, 81)
    flipped = rng.random_integers(1, epoch, "flip", every, 2)
    joint = torch.bincount(place * 2 + flipped, minlength=162)
    assert stats.chisquare(joint.numpy()).pvalue > 1e-4
    neighbours = torch.bincount(place[:-1] % 9 * 9 + place[1:] % 9, minlength=81)
    assert stats.chisquare(neighbours.numpy()).pvalue > 1e-4


def test_normalisation_agrees_with_torchvision() -> None:
    images = tv.normalize(tv.to_dtype(IMAGES, torch.float32, scale=True), list(CIFAR.mean), list(CIFAR.std))
    on = TensorEvalSet("test", IMAGES, torch.zeros(len(IMAGES)), Normalise(CIFAR, IMAGES.device))
    normalised = torch.cat([b for b, _ in on.batches(slice(0, len(IMAGES)))])
    torch.testing.assert_close(normalised, images, rtol=0, atol=2e-6)


def test_golden_order() -> None:
    """The order is part of a run_id's meaning: if it changes, raise identity.PROTOCOL."""
    assert rng.random_permutation(0, 0, 10).tolist() == [9, 1, 2, 5, 3, 8, 7, 0, 4, 6]
    assert rng.random_integers(5, 2, "crop", torch.arange(6), 81).tolist() == [21, 0, 23, 73, 36, 9]


def test_the_packs_of_a_job_share_the_images_and_each_has_its_own_order() -> None:
    """The images as they were read are given up: the loader has a padded copy."""
    choice = DatasetChoice.of_info(DATASETS["digits"])
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 64, "lr": 0.1, "crop_padding": 1})
    source = TensorSource(choice, recipe, None, torch.device("cpu"), 1)
    read = source._chosen
    pixels, targets = torch.from_numpy(read.train_images.copy()), source.train_targets
    first, second = (source.training(recipe, seed, slice) for seed in (3, 4))
    assert first._windows.data_ptr() == second._windows.data_ptr() and len(read.train_images) == 0
    for got, seed in ((first, 3), (second, 4)):
        normalise = Normalise(choice.info, torch.device("cpu"))
        alone = TensorLoader(pixels, targets, normalise, batch_size=64, crop_padding=1, flip=False, seed=seed)
        for mine, expected in zip(got.epoch(2, 5), alone.epoch(2, 5), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    assert len(source.evaluation().images) == len(source.evaluation(whole=True).images) > 0


def test_training_images_as_if_evaluated() -> None:
    """They are the images trained on, in the order asked for, before and after the loader has taken them over."""
    info = DATASETS["digits"]
    choice = DatasetChoice.of_info(info, train_subset=100, validation=50)
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 64, "lr": 0.1, "crop_padding": 1})
    source = TensorSource(choice, recipe, None, torch.device("cpu"), 1)
    positions = torch.tensor([99, 3, 0])
    expected = Normalise(info, torch.device("cpu"))(torch.from_numpy(source._chosen.train_images[positions]))
    before = torch.cat(list(source.unaugmented(positions)))
    source.training(recipe, 3, slice)
    assert torch.equal(before, expected) and torch.equal(torch.cat(list(source.unaugmented(positions))), expected)
