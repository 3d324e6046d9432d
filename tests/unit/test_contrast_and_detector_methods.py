"""Properties of tekap_f, mgd and pkd, and where they differ from their authors' code."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.tasks.detection import ImageRandom
from methods import crd
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec
from methods.crd import CRD, nce_loss
from methods.mgd import MGD
from methods.pkd import PKD, normalise
from methods.tekap_f import TeKAPF

IMAGES = 20
TARGETS = torch.arange(IMAGES) % 4


def pooled(dim: int) -> TapSpec:
    return TapSpec({}, {}, dim, 4)


def maps(channels: int, *sizes: tuple[int, int]) -> TapSpec:
    names = [f"stage{i}" for i in range(1, len(sizes) + 1)]
    return TapSpec(dict.fromkeys(names, channels), dict(zip(names, sizes, strict=True)), channels, 4)


def batch(indices: Tensor, seed: int = 0) -> Batch:
    return Batch(torch.zeros(0), TARGETS[indices], indices, SampleRandom(seed, len(indices)))


def features(*given: Tensor) -> Outputs:
    nothing = torch.zeros(0)
    return Outputs(nothing, nothing, {f"stage{i}": x for i, x in enumerate(given, 1)})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# TeKAP-F


def contrast(cls: type[CRD], **params: Any) -> CRD:
    torch.manual_seed(0)
    method = cls(pooled(6), pooled(7), feat_dim=5, negatives=9, **params)
    method.setup(TARGETS)
    return method


def step(method: Distiller, f_s: Tensor, f_t: Tensor) -> Tensor:
    nothing = torch.zeros(0)
    return method(batch(torch.arange(8)), Outputs(nothing, f_s), Outputs(nothing, f_t))["crd"]


@pytest.mark.parametrize("dense_up_to", [0, 16])
def test_tekap_f_without_noise_is_crd_twice_on_changing_banks(
    dense_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are those of the banks as each part met them, whichever way the scores are computed."""
    monkeypatch.setattr(crd, "DENSE_UP_TO", dense_up_to)
    f_s, f_t = draw(8, 6).requires_grad_(), draw(8, 7, seed=1)
    method, plain = contrast(TeKAPF, noise=0.0), contrast(CRD)
    loss = step(method, f_s, f_t)
    (gradient,) = torch.autograd.grad(loss, method.embed_t.parameters(), retain_graph=True)[:1]
    (of_student,) = torch.autograd.grad(loss, f_s)

    rows = plain.contrast_rows(batch(torch.arange(8)))
    v_s, v_t = plain.embed_s(f_s), plain.embed_t(f_t)
    first_s, first_t = plain.contrast(v_s, v_t, rows, rows[:, 0])
    updated = plain.bank_s.clone()
    second_t = nce_loss((v_t[:, None] * updated[rows]).sum(2) / 0.07 - plain.log_z[1], IMAGES)
    expected = 2 * first_s + first_t + second_t
    torch.testing.assert_close(loss, expected)
    (reference,) = torch.autograd.grad(expected, plain.embed_t.parameters(), retain_graph=True)[:1]
    torch.testing.assert_close(gradient, reference)
    torch.testing.assert_close(of_student, torch.autograd.grad(2 * first_s, f_s)[0])
    plain.contrast(v_s, v_t, rows, rows[:, 0])  # updates both banks again
    assert torch.equal(method.bank_s, plain.bank_s) and torch.equal(method.bank_t, plain.bank_t)


def test_tekap_fs_noise_has_the_stated_spread() -> None:
    method = TeKAPF(pooled(6), pooled(500), feat_dim=5, noise=0.2, noise_std=0.5)
    f_t = torch.full((8, 500), 3.0)
    noisy = method.perturb(f_t, batch(torch.arange(8)))
    assert noisy.mean().item() == pytest.approx(0.8 * 3, abs=0.01)
    assert noisy.std().item() == pytest.approx(0.2 * 0.5, rel=0.05)
    assert torch.equal(noisy, method.perturb(f_t, batch(torch.arange(8))))


# MGD


@pytest.mark.parametrize("mask", ["positions", "channels"])
def test_mgds_mask_hides_its_share_of_positions_or_of_channels(mask: Any) -> None:
    method = MGD(maps(40, (20, 30)), maps(40, (20, 30)), mask=mask, mask_ratio=0.3)
    x = torch.ones(8, 40, 20, 30)
    m = method.draw_mask(batch(torch.arange(8)), x)
    assert m.shape == ((8, 40, 1, 1) if mask == "channels" else (8, 1, 20, 30))
    assert set(m.unique().tolist()) == {0.0, 1.0}
    assert m.mean().item() == pytest.approx(0.7, abs=0.07)
    assert not torch.equal(m[0], m[1]), "an image's own"
    everything = MGD(maps(40, (20, 30)), maps(40, (20, 30)), mask=mask, mask_ratio=1.0)
    assert not everything.draw_mask(batch(torch.arange(8)), x).any()


def test_what_mgd_masks_gets_no_gradient_and_no_say() -> None:
    method = MGD(maps(3, (6, 6)), maps(3, (6, 6)))
    s, t = draw(8, 3, 6, 6).requires_grad_(), draw(8, 3, 6, 6, seed=1)
    loss = method(batch(torch.arange(8)), features(s), features(t))["generation"]
    loss.backward()
    kept = method.draw_mask(batch(torch.arange(8)), s).expand_as(s).bool()
    assert s.grad is not None and not s.grad[~kept].any() and s.grad[kept].all()
    changed = torch.where(kept, s, torch.full_like(s, 9.0)).detach()
    assert torch.equal(loss, method(batch(torch.arange(8)), features(changed), features(t))["generation"])


def test_mgds_loss_grows_with_the_image_and_not_with_the_batch() -> None:
    """A layer of zeros generates zeros: what is left is the sum of the teacher's squares, divided by the batch."""
    method = MGD(maps(3, (4, 4)), maps(3, (4, 4)))
    torch.nn.init.zeros_(method.generate[0][2].weight)  # type: ignore[index,arg-type]
    torch.nn.init.zeros_(method.generate[0][2].bias)  # type: ignore[index,arg-type]
    for count, side in ((2, 4), (8, 4), (2, 8)):
        t = torch.ones(count, 3, side, side)
        loss = method(batch(torch.arange(count)), features(t), features(t))["generation"]
        assert loss.item() == 3 * side**2


def test_mgd_averages_maps_of_other_sizes_onto_a_common_grid() -> None:
    torch.manual_seed(0)
    method = MGD(maps(3, (4, 8)), maps(5, (8, 4)))
    s, t = draw(4, 3, 4, 8), draw(4, 5, 8, 4, seed=1)
    indices = torch.arange(4)
    loss = method(batch(indices), features(s), features(t))["generation"]
    small = features(F.avg_pool2d(s, (1, 2))), features(F.avg_pool2d(t, (2, 1)))
    torch.testing.assert_close(loss, method(batch(indices), *small)["generation"])


def test_mgds_masks_of_detectors_are_the_images_own_on_any_rank() -> None:
    method = MGD(maps(3, (4, 4)), maps(3, (4, 4)))
    both, second = (ImageRandom(5, indices, torch.device("cpu")) for indices in ([3, 8], [8]))
    nothing = torch.zeros(0)
    whole, rank = (
        method.draw_mask(Batch(nothing, nothing, nothing, r), torch.zeros(1, 3, 4, 4)) for r in (both, second)
    )
    assert torch.equal(whole[1:], rank)


# PKD


def test_pkd_is_one_minus_pearsons_correlation_of_each_channel() -> None:
    s, t = draw(3, 4, 5, 6).double(), draw(3, 4, 5, 6, seed=1).double()
    loss = PKD(maps(4, (5, 6)), maps(4, (5, 6)))(batch(torch.arange(3)), features(s), features(t))["correlation"]
    columns = (x.transpose(0, 1).flatten(1) for x in (s, t))
    r = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*columns, strict=True)])
    count = 3 * 5 * 6
    torch.testing.assert_close(loss, (count - 1) / count * (1 - r).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("resize_student", [True, False])
def test_pkd_resizes_the_model_that_is_named(resize_student: bool) -> None:
    method = PKD(maps(4, (4, 8)), maps(4, (4, 4)), resize_student=resize_student)  # heights alone would not tell
    s, t = draw(2, 4, 4, 8), draw(2, 4, 4, 4, seed=1)
    size = (4, 4) if resize_student else (4, 8)
    same = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (s, t)]
    expected = F.mse_loss(*(normalise(x) for x in same)) / 2
    torch.testing.assert_close(method.compare(s, t), expected)


@pytest.mark.parametrize("value", [0.0, 5.3, -1000.0])
def test_a_channel_that_is_constant_in_the_student_gets_no_gradient_from_pkd(value: float) -> None:
    """The authors' code divides it by 1e-6; the other channels' loss and gradients are theirs."""
    s, t = draw(3, 4, 5, 6), draw(3, 4, 5, 6, seed=1)
    s[:, 1] = value
    s.requires_grad_()
    loss = F.mse_loss(normalise(s), normalise(t)) / 2
    loss.backward()
    assert s.grad is not None and not s.grad[:, 1].any()
    others = s.grad[:, [0, 2, 3]]
    assert others.abs().max() < 1 and others.any()
    std, mean = torch.std_mean(s.detach(), (0, 2, 3), keepdim=True)
    theirs = (s.detach() - mean) / (std + 1e-6)
    torch.testing.assert_close(normalise(s)[:, [0, 2, 3]], theirs[:, [0, 2, 3]])


def test_a_single_value_per_channel_has_no_correlation() -> None:
    x = torch.ones(1, 3, 1, 1, requires_grad=True)
    loss = F.mse_loss(normalise(x), normalise(draw(1, 3, 1, 1)))
    loss.backward()
    assert loss == 0 and x.grad is not None and not x.grad.any()


def test_pkd_refuses_maps_of_different_channels() -> None:
    with pytest.raises(ValueError, match="the student's stage1 has 4 and the teacher's stage1 5"):
        PKD(maps(4, (4, 4)), maps(5, (4, 4)))
