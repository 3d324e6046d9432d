"""mixup, CutMix, repeats, further views and other sizes: pure functions of (seed, epoch, index or step)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from harness.data.load.batches import ImageSize
from harness.data.load.loader import Extras
from harness.data.load.mixing import Mix, Mixing
from harness.data.load.resampling import resample
from harness.data.load.tensors import Normalise, TensorLoader
from harness.data.load.view import View, further_views
from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.spec import identity
from harness.spec.schema import Recipe
from harness.spec.science import Science
from harness.spec.tasks import DATASETS
from harness.training.distributed.ranks import Ranks

CLASSES, N = 10, 300
INFO = DATASETS["cifar100"]
IMAGES = torch.randint(0, 256, (N, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TARGETS = torch.arange(N) % CLASSES
CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor, Tensor, Extras]


def darker(pixels: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
    """Augment as harness.data.augment does: each image by its own numbers."""
    factor = (indices + seed + epoch + len(stream)) % 3 + 1
    return (pixels // factor[:, None, None, None]).to(torch.uint8)


def erased(images: Tensor, seed: int, epoch: int, indices: Tensor, stream: str) -> Tensor:
    images = images.clone()
    images[:, :, 0, (seed + epoch + len(stream)) % 8] = indices[:, None].float()
    return images


def loader(rows: Callable[[int], slice] = slice, **changes: Any) -> TensorLoader:
    view = View(2, flip=True, augment=darker, erase=erased)
    strong = View(1, flip=True, augment=darker, stream="strong")
    options: dict[str, Any] = {"view": view, "views": {"strong": strong}, "repeats": 3, "batch_size": 32, "seed": 5}
    options |= {"mixing": Mixing(0.8, 1.0, 0.9, 0.5, CLASSES)} | changes
    return TensorLoader(IMAGES, TARGETS, Normalise(INFO, CPU), rows=rows, **options)


def batches(loader: TensorLoader, epoch: int, first_step: int = 0) -> list[Batch]:
    return [batch if len(batch) == 4 else (*batch, Extras()) for batch in loader.epoch(epoch, first_step)]


def tensors(batch: Batch) -> list[Tensor]:
    images, targets, indices, extras = batch
    probs = [] if extras.target_probs is None else [extras.target_probs]
    return [images, targets, indices, *probs, *extras.views.values()]


def same(left: list[Batch], right: list[Batch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(tensors(x), tensors(y), strict=True))


@pytest.mark.parametrize("size", [None, ((0, 8), (2, 12))], ids=["own size", "grown"])
@pytest.mark.parametrize("crop", [{}, {"crop_area": (0.3, 1.0), "crop_padding": 0}], ids=["padded", "area"])
def test_any_step_and_any_number_of_processes_give_the_same_batches(size: ImageSize, crop: dict[str, Any]) -> None:
    changes = {"image_size": size, "view": View(**{"crop_padding": 2, "flip": True, "augment": darker, **crop})}
    whole = batches(loader(**changes), 2)
    assert same(batches(loader(**changes), 2, 5), whole[5:])
    for world in (2, 3):
        shares = [batches(loader(Ranks(rank, world).rows, **changes), 2) for rank in range(world)]
        for step, (images, targets, indices, extras) in enumerate(whole):
            parts = [share[step] for share in shares]
            assert torch.equal(torch.cat([part[0] for part in parts]), images)
            assert torch.equal(torch.cat([part[3].views["strong"] for part in parts]), extras.views["strong"])
            for part in parts:
                assert torch.equal(part[1], targets) and torch.equal(part[2], indices)
                assert torch.equal(part[3].target_probs, extras.target_probs)  # type: ignore[arg-type]


def test_a_process_may_have_no_image_of_the_last_batch() -> None:
    keys = {"epochs": 1, "lr": 1, "flip": True, "random_erasing": 1.0, "augment": {"randaugment": {}}}
    recipe = Recipe.model_validate(keys)
    changes = {"view": View.of(recipe), "batch_size": 51}
    whole, *shares = (batches(loader(rows, **changes), 0)[-1] for rows in (slice, *(Ranks(r, 2).rows for r in (0, 1))))
    assert sorted(len(images) for images, *_ in shares) == [0, 1]
    assert torch.equal(torch.cat([images for images, *_ in shares]), whole[0])


def test_epochs_and_seeds_mix_otherwise() -> None:
    shares = {tuple(float(p.max()) for *_, e in batches(one, epoch) if (p := e.target_probs) is not None)
              for one, epoch in ((loader(), 0), (loader(), 1), (loader(seed=6), 0))}  # fmt: skip
    assert len(shares) == 3


@given(st.integers(0, 2**31), st.integers(-3, 10**4), st.integers(0, 10**5), st.floats(0, 2), st.floats(0, 2))
def test_images_and_classes_are_mixed_by_the_same_share(
    seed: int, epoch: int, step: int, mixup: float, cutmix: float
) -> None:
    mix = Mixing(mixup, cutmix or 1.0, 1.0, 0.5, CLASSES).draw(seed, epoch, step, 8, 6)
    assert mix == Mixing(mixup, cutmix or 1.0, 1.0, 0.5, CLASSES).draw(seed, epoch, step, 8, 6)
    assert 0 <= mix.share <= 1
    own, other = torch.zeros(4, 3, 8, 6), torch.ones(4, 3, 8, 6)
    mixed = mix.images(own, other)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), torch.full((4,), 1 - mix.share))
    targets = torch.tensor([0, 1, 2, 0])
    probs = mix.probs(targets)
    torch.testing.assert_close(probs.sum(1), torch.ones(4))
    expected = torch.zeros(4, CLASSES).scatter_add_(1, targets[:, None], torch.full((4, 1), mix.share))
    expected.scatter_add_(1, targets.flip(0)[:, None], torch.full((4, 1), 1 - mix.share))
    torch.testing.assert_close(probs, expected)
    if abs(mix.share - 0.5) > 1e-3:
        assert torch.equal(mix.larger_share(targets), probs.argmax(1))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    mixing = Mixing(alpha, 0, 1, 0.5, CLASSES)
    shares = [mixing.draw(1, 0, step, 8, 8).share for step in range(1500)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_and_mixup_are_chosen_by_their_probabilities() -> None:
    mixing = Mixing(0.8, 1.0, 0.6, 0.3, CLASSES)
    mixes = [mixing.draw(1, 3, step, 32, 32) for step in range(2000)]
    mixed = [mix for mix in mixes if mix != Mix(CLASSES)]
    assert stats.binomtest(len(mixed), 2000, 0.6).pvalue > 1e-3
    assert stats.binomtest(sum(mix.box is not None for mix in mixed), len(mixed), 0.3).pvalue > 1e-3


@pytest.mark.parametrize("step", range(6))
def test_a_mixed_batch_is_what_timm_makes_with_the_same_numbers(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share and the box's centre are given to timm's Mixup, label smoothing included."""
    timm_mixup = pytest.importorskip("timm.data.mixup")
    mixing = Mixing(0.8, 1.0, 1.0, 0.5, CLASSES)
    mix = mixing.draw(4, 1, step, 8, 8)
    plain, mixed = (batches(loader(mixing=m, seed=4), 1)[step] for m in (None, mixing))
    theirs = timm_mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (mix.share, mix.box is not None))
    if mix.box is not None:
        top, bottom, left, right = mix.box
        monkeypatch.setattr(timm_mixup, "rand_bbox", lambda *_, **__: (top, bottom, left, right))
    images, probs = theirs(plain[0].clone(), plain[1])
    torch.testing.assert_close(mixed[0], images)
    smooth = (1 - 0.1) * mixed[3].target_probs + 0.1 / CLASSES  # type: ignore[operator]
    torch.testing.assert_close(smooth, probs)


def test_a_pass_shows_copies_as_deits_sampler_does() -> None:
    """DeiT shows 256 of 300 images: the first 86 of the order, each three times in a row but for the last."""
    plain = torch.cat([i for _, _, i, _ in batches(loader(repeats=1), 4)])
    shown = torch.cat([i for _, _, i, _ in batches(loader(), 4)])
    assert torch.equal(shown, plain[:86].repeat_interleave(3)[:256]) and len(loader()) == 8


def test_copies_are_augmented_differently_and_the_first_as_without_copies() -> None:
    once = {int(i): image for images, _, indices, _ in batches(loader(repeats=1, mixing=None), 0)
            for i, image in zip(indices, images, strict=True)}  # fmt: skip
    images, _, indices, _ = batches(loader(mixing=None), 0)[0]
    for row in range(0, 30, 3):
        assert torch.equal(images[row], once[int(indices[row])])
        assert not torch.equal(images[row], images[row + 1]) and not torch.equal(images[row + 1], images[row + 2])


def test_a_view_does_not_change_the_images_of_a_batch() -> None:
    """A view that pads more than the images widens what is stored around them."""
    wide = {"strong": View(4, flip=True, stream="strong")}
    for images, views in ((loader(), loader(views={})), (loader(views=wide), loader(views={}))):
        for one, other in zip(batches(images, 1), batches(views, 1), strict=True):
            assert torch.equal(one[0], other[0]) and not other[3].views


def test_views_are_cropped_and_flipped_independently() -> None:
    plain = View(2, flip=True)
    one = loader(view=plain, views={"other": View(2, flip=True, stream="other")}, repeats=1, mixing=None)
    equal = [
        torch.equal(a, b) for images, *_, e in batches(one, 0) for a, b in zip(images, e.views["other"], strict=True)
    ]
    assert sum(equal) < 20, "two of fifty places and flips are the same"


def test_what_a_view_does_not_state_is_as_in_the_recipe() -> None:
    recipe = Recipe.model_validate({"epochs": 1, "lr": 1, "flip": True, "crop_padding": 4, "views": {
        "same": {}, "still": {"flip": False, "crop_padding": 0}, "zoomed": {"crop_area": [0.2, 1]}}})  # fmt: skip
    assert further_views(recipe) == {
        "same": View(4, flip=True, stream="same"), "still": View(stream="still"),
        "zoomed": View(0, (0.2, 1.0), flip=True, stream="zoomed"),
    }  # fmt: skip


@given(st.data())
@settings(max_examples=30)
def test_crops_are_resized_as_torchvision_does(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    top, left = data.draw(st.integers(0, 8 - height)), data.draw(st.integers(0, 8 - width))
    size = data.draw(st.sampled_from([3, 8, 20]))
    crop = torch.tensor([[top, left, height, width]]).expand(5, 4)
    expected = tv.resized_crop(IMAGES[:5].float(), top, left, height, width, [size, size], antialias=True)
    difference = (resample(IMAGES[:5], size, size, crop).float() - expected).abs()
    assert float(difference.max()) <= 0.501


def test_enlarging_does_not_need_antialiasing() -> None:
    from PIL import Image

    image = IMAGES[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)).astype(int)
    ours = resample(IMAGES[:1], 28, 28)[0].permute(1, 2, 0).numpy().astype(int)
    assert abs(ours - expected).max() <= 1


OWN = "tests.support.user_methods:ReadsTwoViews"


def planned(folder: Path, method: str, recipe: dict[str, Any]) -> Science:
    """Return the science of a method's run in a sweep with this recipe."""
    sweep = {"dataset": "digits", "recipe": {"epochs": 2, "lr": 0.1, **recipe}, "methods": {"entry": {"use": method}},
             "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}], "seeds": 1}  # fmt: skip
    (folder / "s.yaml").write_text(json.dumps(sweep))
    plan = plan_sweep(folder / "s.yaml", folder / "results").plan
    return plan.runs[plan.cells[0].run_id].science


@pytest.mark.parametrize(
    ("method", "recipe", "message"),
    [
        (OWN, {}, "reads a view 'strong' of each image, which its recipe lacks; state views: {strong: "),
        (OWN, {"views": {"weak": {}}}, r"which its recipe lacks; state .* \(found 'weak'\)"),
        ("crd", {"cutmix": 1.0}, "crd keeps something of each training image, which `cutmix` would mix"),
        ("simkd", {"mixup": 1.0}, "simkd computes a cross-entropy of its own, which `mixup` would not reach"),
        ("kd", {"repeats": 3, "teacher_top_k": 4}, "expected it or 3 `repeats`, found both"),
        ("kd", {"views": {"strong": {"crop_paddin": 1}}}, "unknown key 'crop_paddin'; did you mean 'crop_padding'"),
        ("kd", {"views": {"strong": {"flip": 2}}}, "views.strong.flip: "),
        ("kd", {"views": {"Strong": {}}}, "expected a name of at most 64 lower-case letters, digits and _"),
        ("kd", {"views": {"strong": {"crop_area": [0.9, 0.1]}}}, "crop_area must be two numbers"),
        ("kd", {"views": {"strong": {"crop_area": [0.1, 1], "crop_padding": 1}}}, "exclude each other"),
        ("kd", {"crop_area": [0.1, 1], "crop_padding": 1}, "crop_padding and crop_area exclude each other"),
        ("kd", {"augment": {"timm": "rand-m9"}}, "fill has 3 numbers, the images have 1 channel; state `randaugment`"),
        (OWN, {"views": {"strong": {"augment": {"autoaugment": {"fill": [1, 2]}}}}}, "fill has 2 numbers"),
        ("kd", {"image_size": 16}, "digits_net_w8 is for 1x8x8 images, .* 1x16x16 by `recipe.image_size`"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(tmp_path: Path, method: str, recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(tmp_path, method, recipe)


def test_a_method_without_views_is_the_same_run_with_and_without_them(tmp_path: Path) -> None:
    views = {"views": {"strong": {"crop_padding": 2}, "weak": {}}}
    assert planned(tmp_path, "kd", views).run_id == planned(tmp_path, "kd", {}).run_id
    own = planned(tmp_path, OWN, views)
    assert own.to_json()["recipe"]["views"] == {"strong": {"crop_padding": 2}}
    assert Science.from_text(own.text).run_id == own.run_id


@pytest.mark.parametrize(
    ("recipe", "plain"),
    [
        ({"image_size": 8}, {}), ({"image_size": [[0, 8]]}, {}), ({"stop_epoch": 2}, {}),
        ({"augment": {"randaugment": {"fill": [0]}}}, {"augment": {"randaugment": {}}}),
        ({"views": {"strong": {"flip": False, "crop_padding": 0, "augment": None, "random_erasing": 0}}}, {}),
        ({"views": {"strong": {"crop_area": [0.5, 1]}}, "crop_area": [0.5, 1]}, {"crop_area": [0.5, 1]}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_the_same_run(tmp_path: Path, recipe: dict[str, Any], plain: dict[str, Any]) -> None:
    ids = {planned(tmp_path, OWN, {"views": {"strong": {}}, **keys}).run_id for keys in (recipe, plain)}
    assert len(ids) == 1


def test_a_view_keeps_what_it_states_unlike_the_recipe(tmp_path: Path) -> None:
    recipe = {"crop_area": [0.5, 1], "flip": True, "augment": {"randaugment": {}}}
    stated = {"crop_padding": 0, "flip": False, "augment": None, "random_erasing": 0.5}
    kept = planned(tmp_path, OWN, {**recipe, "views": {"strong": stated}}).to_json()["recipe"]["views"]["strong"]
    assert kept.keys() == stated.keys()


def test_a_teachers_evaluation_is_known_by_the_size_of_its_images(tmp_path: Path) -> None:
    """Without a size it has the name that it had before there was one."""
    plain = planned(tmp_path, "kd", {})
    own = replace(plain, recipe=plain.recipe.model_copy(update={"image_size": 16}))
    assert plain.teacher_evaluation_id("test") != own.teacher_evaluation_id("test")
    content = {key: plain.to_json()[key] for key in ("dataset", "teacher")}
    expected = identity.digest({**content, "views": {"crop_padding": 0}, "on": "test"})
    assert plain.teacher_evaluation_id("test") == expected
