"""Properties of methods that the golden numbers do not cover, above all inputs for which the reference code breaks."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import kdsvd, ofd
from methods.ab import AB, boundary_loss
from methods.base import Outputs
from methods.cc import CC
from methods.dist import DIST, pearson
from methods.dkd import decoupled_losses
from methods.fsp import FSP
from methods.ft import FT, factor_loss
from methods.kd import soft_target_loss
from methods.kdsvd import KDSVD, align, kernel, right_vectors
from methods.lskd import LSKD
from methods.ofd import OFD, Margin
from methods.pkt import PKT
from methods.reviewkd import ReviewKD
from methods.rkd import RKD, relations
from methods.unit_vectors import unit
from methods.vid import VID
from tests.support.synthetic_outputs import BATCH, CLASSES, STUDENT, TARGETS, TEACHER, make_batch, outputs, spec, total

# Unit vectors of zeros


def test_unit_has_the_gradient_of_a_direction():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (x,))
    torch.testing.assert_close(unit(x), F.normalize(x))


def test_pkt_with_a_row_of_zeros():
    """The reference code has NaN in every row's gradient."""
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    student.embedding[3] = 0
    student.embedding.requires_grad_()
    total(PKT(STUDENT, TEACHER), student, teacher).backward()
    grad = student.embedding.grad
    assert grad is not None and grad.isfinite().all()
    assert grad[3].abs().sum() == 0 and (grad.abs().sum(1) > 0).sum() == BATCH - 1


# DKD


@pytest.mark.parametrize("gap", [50.0, 1e3, 1e5])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dkd_of_a_student_that_is_sure_of_its_target(gap, temperature):
    """The reference code takes log(1 - p) of a p that rounds to 1: infinite in float32 from a gap of about 20 on."""
    logits, teacher = outputs(STUDENT, 1).logits, outputs(TEACHER, 2).logits
    logits[torch.arange(BATCH), TARGETS] += gap
    for sure in (teacher, logits.clone()):
        results = []
        for dtype in (torch.float32, torch.float64):
            z = logits.to(dtype).clone().requires_grad_()
            losses = torch.stack(decoupled_losses(z, sure.to(dtype), TARGETS, temperature))
            losses.sum().backward()
            assert losses.isfinite().all() and z.grad is not None and z.grad.isfinite().all()
            results.append((losses.detach().double(), z.grad.double()))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, b.abs().max().item()))


def test_dkd_adds_up_to_kd():
    """Zhao et al., equation 4: KL = TCKD + (1 - p_target) NCKD."""
    student, teacher = (outputs(STUDENT, seed).logits for seed in (1, 2))
    p = teacher.softmax(1)[torch.arange(BATCH), TARGETS]
    parts = [decoupled_losses(student[i : i + 1], teacher[i : i + 1], TARGETS[i : i + 1], 1.0) for i in range(BATCH)]
    whole = torch.stack([tckd + (1 - p[i]) * nckd for i, (tckd, nckd) in enumerate(parts)]).mean()
    torch.testing.assert_close(whole, soft_target_loss(student, teacher, 1.0))


# RKD


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6])
def test_rkd_with_duplicate_rows(noise):
    """The reference code's gradients for pairs that differ only by rounding are 1e6 times the others."""

    def largest(x: Tensor) -> float:
        x = x.clone().requires_grad_()
        student = Outputs(torch.zeros(0), x)
        total(RKD(STUDENT, TEACHER), student, outputs(TEACHER, 2)).backward()
        assert x.grad is not None and x.grad.isfinite().all()
        return x.grad.norm(dim=1).max().item()

    x = outputs(STUDENT, 1).embedding
    twice = x.clone()
    twice[5] = twice[2] + noise * torch.randn(x.shape[1], generator=torch.Generator().manual_seed(0))
    assert largest(twice) < 10 * largest(x)


def test_rkd_of_equal_rows():
    distance, angle = relations(torch.ones(4, 3))
    assert not distance.any() and not angle.any()


def test_rkd_does_not_depend_on_scale_and_shift():
    x = outputs(STUDENT, 1).embedding.double()
    for a, b in zip(relations(x), relations(3 * x - 5), strict=True):
        torch.testing.assert_close(a, b)


# KDSVD


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 5, 7), (3, 6, 6)])
def test_right_vectors_and_their_gradient_are_the_svds(shape):
    m = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    towards = torch.randn(shape[0], shape[2], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(v: Tensor) -> Tensor:  # independent of signs
        return ((v * towards).sum(1) ** 2 * torch.arange(1, 5)).sum()

    v, s = right_vectors(m, 4)
    _, s_svd, vh = torch.linalg.svd(m, full_matrices=False)
    torch.testing.assert_close(s, s_svd[:, :4])
    torch.testing.assert_close(loss(v), loss(vh[:, :4].transpose(1, 2)))
    ours, theirs = (torch.autograd.grad(loss(x), m)[0] for x in (v, vh[:, :4].transpose(1, 2)))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("hyper", [{}, {"matrix": "columns", "k": 2}])
@pytest.mark.parametrize("relu", [False, True])
def test_kdsvd_does_not_depend_on_the_signs_of_the_library(hyper, relu, monkeypatch):
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    if relu:
        for out in (student, teacher):
            out.features = {tap: x.relu() for tap, x in out.features.items()}
    eigh, results = torch.linalg.eigh, []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)

        def other_library(gram: Tensor, g: torch.Generator = g) -> tuple[Tensor, Tensor]:
            values, vectors = eigh(gram)
            return values, vectors * (torch.randint(2, values.shape, generator=g) * 2 - 1)[:, None]

        monkeypatch.setattr(torch.linalg, "eigh", other_library)
        maps = [x.requires_grad_() for tap, x in student.features.items() if tap in ("stage1", "stage2", "stage3")]
        loss = total(KDSVD(STUDENT, TEACHER, **hyper), student, teacher)
        results.append([loss, *torch.autograd.grad(loss, maps)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_kdsvd_signs_follow_the_rows():
    m = outputs(STUDENT, 1).features["stage1"].flatten(2).transpose(1, 2).double()
    method = KDSVD(STUDENT, TEACHER)
    v, _ = right_vectors(m, 2)
    oriented = method.orient(v, m)
    projection = m @ oriented
    assert ((projection * projection.abs()).sum(1) > 0).all()
    assert torch.equal(oriented.abs(), v.abs()) and torch.equal(method.orient(-v, m), oriented)
    first, _ = right_vectors(m.relu(), 1)
    assert (method.orient(first, m.relu()) > -1e-12).all()  # by Perron all entries have one sign, made positive


def test_kdsvd_aligns_the_student():
    v_t = torch.linalg.qr(torch.randn(2, 6, 6, dtype=torch.float64))[0]
    v_s = torch.stack([-v_t[:, :, 2], v_t[:, :, 0], v_t[:, :, 4], v_t[:, :, 1]], dim=2)
    torch.testing.assert_close(align(v_s, v_t[:, :, :3]), v_t[:, :, :3])
    assert kernel(v_t[:, :, :1], v_t[:, :, :2][:, :3]).shape == (2, 6, 3, 2)


def tied(count: int) -> Tensor:
    """Return a matrix (1, 9, 6) with ``count`` singular values of 1, the others 0."""
    q = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(0)))[0]
    p = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    return (q[:, :count] @ p[:count])[None]


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@pytest.mark.parametrize("wide", [False, True])
def test_kdsvd_gradient_where_singular_values_are_equal_or_zero(count, wide):
    m = tied(count).double()
    m = (m.transpose(1, 2) if wide else m).clone().requires_grad_()
    with torch.enable_grad():
        v, s = right_vectors(m, 4)
    (grad,) = torch.autograd.grad((v * torch.randn_like(v)).sum(), m)
    assert grad.isfinite().all() and s.isfinite().all()
    assert grad.abs().max() < 1e7
    assert not v[:, :, count:].any(), "a direction that the map does not have"


# VID


def test_vid_trains_its_variances():
    """The variances reach the residual's, the likelihood's maximum; mdistiller's stay at their initial value."""
    torch.manual_seed(0)
    taps = spec([4], [(4, 4)], 4)
    method = VID(taps, taps, initial_variance=5.0)
    student, teacher = outputs(taps, 1), outputs(taps, 2, scale=0.5)
    for p in method.gaussians.parameters():
        p.requires_grad_(p.ndim == 1)
    names = {name for name, p in method.named_parameters() if p.requires_grad}
    assert names == {"gaussians.0.log_scale"}
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        terms = method(make_batch(), student, teacher)
        terms["information"].backward()
        optimiser.step()
    gaussian = method.gaussians[0]
    residual = (gaussian.mean(student.features["stage1"]) - teacher.features["stage1"]).square().mean((0, 2, 3))
    torch.testing.assert_close(
        gaussian(student.features["stage1"], teacher.features["stage1"])[1], residual, rtol=0.01, atol=0
    )
    assert terms["variance"].item() == pytest.approx(residual.mean().item(), rel=0.01)


# OFD


def test_margin_is_the_mean_of_negative_responses():
    """For a Gaussian channel, such as a batch norm's output, the margin equals the authors' formula."""
    g = torch.Generator().manual_seed(0)
    shift, scale = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([1.0, 0.5, 2.0])
    margin = Margin(3)
    for _ in range(20):
        margins = margin(torch.randn(64, 3, 16, 16, generator=g) * scale[:, None, None] + shift[:, None, None])
    below = torch.special.ndtr(-shift / scale)
    density = torch.exp(-((shift / scale) ** 2) / 2) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(margins, shift - scale * density / below, rtol=0.01, atol=0)


def test_margin_is_the_mean_over_all_batches():
    x = torch.randn(6, 3, 2, 2)
    whole = Margin(3)(x)
    margin = Margin(3)
    margin(x[:4])
    torch.testing.assert_close(margin(x[4:]), whole)
    resumed = Margin(3)
    resumed.load_state_dict(margin.state_dict())
    torch.testing.assert_close(resumed(x[:0]), whole)


def test_margin_of_a_channel_that_is_never_negative():
    assert torch.equal(Margin(2)(torch.stack([torch.ones(3, 2, 2), torch.zeros(3, 2, 2)], dim=1)), torch.zeros(2))


def test_ofd_has_no_loss_beyond_the_margin():
    method = OFD(STUDENT, TEACHER)
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), -3.0), torch.full((2, 1, 1, 1), -5.0), torch.tensor([-1.0])) == 0
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), 0.0), torch.full((2, 1, 1, 1), -5.0), torch.tensor([-1.0])) == 1
    # A teacher of exactly 0 asks the student for nothing more than to be below it.
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), -3.0), torch.zeros(2, 1, 1, 1), torch.tensor([-1.0])) == 0
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 5.0), torch.tensor([-1.0])) == 4
    assert method.teacher_taps == ("stage1.preact", "stage2.preact", "stage3.preact")


# FSP, AB and FT


def test_fsp_refuses_maps_of_other_widths():
    with pytest.raises(ValueError, match="the student's stage2 has 7 channels, the teacher's stage2 has 8"):
        FSP(STUDENT, spec([6, 8, 9], [(8, 8)] * 3, 9), taps="stages")


def test_a_boundary_is_a_sign_with_a_margin():
    def loss(s: float, t: float) -> float:
        return boundary_loss(torch.full((2, 1, 1, 1), s), torch.full((2, 1, 1, 1), t), 1.0).item() * 1000 / 3

    assert loss(1.5, 0.1) == loss(-1.5, -9.0) == 0, "beyond the margin on the teacher's side"
    assert loss(0.5, 0.1) == loss(0.5, 9.0) == pytest.approx(0.25), "only the teacher's sign counts"
    assert loss(0.5, -0.1) == loss(0.5, 0.0) == pytest.approx(2.25), "0 is inactive"


def test_connectors_where_shapes_differ():
    small, large = spec([4, 4], [(8, 8), (4, 4)], 4), spec([4, 6], [(8, 8), (8, 8)], 6)
    method = AB(small, large)
    assert isinstance(method.connectors[0], nn.Identity)
    student, teacher = outputs(small, 1, grad=True), outputs(large, 2)
    total(method, student, teacher).backward()
    assert all(p.grad is not None for p in method.parameters()) and len(list(method.parameters())) == 4
    mapped = method.connectors[1](student.features["stage2.preact"])
    assert mapped.shape == teacher.features["stage2.preact"].shape and (mapped < 0).any(), "no ReLU"


def test_each_stage_of_ft_trains_its_own_layers():
    method, student, teacher = FT(STUDENT, TEACHER), outputs(STUDENT, 1, grad=True), outputs(TEACHER, 2)
    for loss, trained in (
        (method.first_terms(make_batch(), Outputs(torch.zeros(0), torch.zeros(0)), teacher), {"encoder", "decoder"}),
        (method(make_batch(), student, teacher), {"translator"}),
    ):
        method.zero_grad()
        torch.stack(list(loss.values())).sum().backward()
        assert {name.partition(".")[0] for name, p in method.named_parameters() if p.grad is not None} == trained
    assert method.encoder[-2].out_channels == 4 and FT(STUDENT, TEACHER, k=0.01).encoder[-2].out_channels == 1


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e6])
def test_factors_without_a_direction(scale):
    """A factor of zeros has no gradient; a division by its length would make it NaN."""
    factor = (outputs(STUDENT, 1).features["stage3"] * scale).requires_grad_()
    factor.data[3] = 0
    loss = factor_loss(factor, outputs(TEACHER, 2).features["stage3"] * scale, 2, 1)
    loss.backward()
    assert loss.isfinite() and factor.grad is not None and factor.grad.isfinite().all()
    assert not factor.grad[3].any()


def test_the_main_stage_of_fsp_and_ab_reads_no_map():
    for method in (FSP(STUDENT, TEACHER, taps="stages"), AB(STUDENT, TEACHER, taps="stage1")):
        assert (method.student_taps, method.teacher_taps) == ((), ()) and not method.first_stage.teacher_later
        nothing = Outputs(torch.zeros(0), torch.zeros(0))
        assert method(make_batch(), nothing, nothing) == {}


# Methods without reference numbers, compared with their papers' formulas


def test_dist_is_pearsons_correlation():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    terms = DIST(STUDENT, TEACHER, temperature=4.0)(make_batch(), student, teacher)
    p_s, p_t = ((x.logits.double() / 4).softmax(1) for x in (student, teacher))

    def mean_correlation(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(a, b, strict=True)]).mean()

    expected = {"inter": 16 * (1 - mean_correlation(p_s, p_t)), "intra": 16 * (1 - mean_correlation(p_s.T, p_t.T))}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].double(), value, rtol=1e-4, atol=1e-5)


def test_pearson_of_constant_rows():
    x = torch.ones(2, 4).requires_grad_()
    value = pearson(x, torch.randn(2, 4))
    value.sum().backward()
    assert not value.any() and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_lskd_does_not_depend_on_shift_and_scale(base):
    """Sun et al., section 4: only relations between logits are distilled."""
    method = LSKD(STUDENT, TEACHER, base=base)
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    moved = Outputs(7 * student.logits - 3, student.embedding)
    torch.testing.assert_close(total(method, moved, teacher), total(method, student, teacher))


@pytest.mark.parametrize(("reading", "divisor"), [("code", CLASSES - 1), ("paper", CLASSES)])
def test_lskd_is_kd_and_dkd_of_standardised_logits(reading, divisor):
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    z_s, z_t = ((x.logits - x.logits.mean(1, keepdim=True)) for x in (student, teacher))
    z_s, z_t = (z / (z.square().sum(1, keepdim=True) / divisor).sqrt() for z in (z_s, z_t))
    forms: dict[str, Callable[[], Tensor]] = {
        "kd": lambda: soft_target_loss(z_s, z_t, 3.0),
        "dkd": lambda: torch.stack(decoupled_losses(z_s, z_t, TARGETS, 3.0)) @ torch.tensor([0.5, 2.0]),
    }
    for base, expected in forms.items():
        method = LSKD(STUDENT, TEACHER, base=base, temperature=3.0, alpha=0.5, beta=2.0, reading=reading)
        torch.testing.assert_close(method(make_batch(), student, teacher)["ls"], expected())


def test_cc_of_one_image_is_zero():
    method = CC(STUDENT, TEACHER, feat_dim=4)
    one = Outputs(torch.zeros(0), torch.randn(1, 9)), Outputs(torch.zeros(0), torch.randn(1, 11))
    assert total(method, *one, TARGETS[:1]) == 0


def test_reviewkd_takes_the_smaller_middle_width():
    method = ReviewKD(STUDENT, TEACHER)
    assert [f.leave[0].in_channels for f in method.fusions] == [9] * 4
    assert [f.leave[0].in_channels for f in ReviewKD(STUDENT, TEACHER, max_mid=4).fusions] == [4] * 4
    assert [f.attend is None for f in method.fusions] == [False, False, False, True]


def test_svd_resolution_is_below_the_golden_tolerance():
    assert kdsvd.RESOLUTION <= 1e-6
