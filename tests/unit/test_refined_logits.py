"""Tests of rld, ttm, wttm, nkd and ofa: what each compares, and where their authors' code breaks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from methods.base import Batch, Distiller, Outputs, TapSpec
from methods.kd import KD
from methods.nkd import NKD
from methods.ofa import OFA
from methods.rld import RLD
from methods.stage_heads import TokenHead, map_head
from methods.ttm import TTM
from methods.wttm import WTTM
from tests.support.synthetic_outputs import CLASSES, STUDENT, TARGETS, TEACHER, make_batch, outputs

IS_TARGET = F.one_hot(TARGETS, CLASSES).bool()


def logits(seed: int) -> Tensor:
    return outputs(STUDENT, seed, scale=2).logits.double()


def terms(method: Distiller, z_s: Tensor, z_t: Tensor, batch: Batch | None = None) -> dict[str, Tensor]:
    """Return a method's terms for these logits."""
    maps = {tap: x.to(z_s.dtype) for tap, x in outputs(STUDENT, 3).features.items()}
    return method.to(z_s.dtype)(batch or make_batch(), Outputs(z_s, z_s, maps), Outputs(z_t, z_t))


# RLD


def test_rld_compares_the_classes_that_the_teacher_puts_below_the_target():
    z_s, z_t = logits(1).requires_grad_(), logits(2)
    z_t[0, TARGETS[0]] = -100  # no class is below
    z_t[1] = torch.tensor([5.0, 4.0, 4.0, 1.0, 2.0])  # of class 1; an equal one is not below
    below = z_t < z_t.gather(1, TARGETS[:, None])
    assert below[1].tolist() == [False, False, False, True, True]
    mcd = terms(RLD(STUDENT, TEACHER), z_s, z_t)["mcd"]
    (gradient,) = torch.autograd.grad(mcd, z_s)
    assert gradient[~below].count_nonzero() == 0
    assert gradient[below & (below.sum(1, keepdim=True) > 1)].all()
    alone = terms(RLD(STUDENT, TEACHER), z_s[1:2], z_t[1:2], make_batch(TARGETS[1:2]))["mcd"]
    q_s, q_t = ((z[1, 3:] / 4).softmax(0) for z in (z_s, z_t))
    torch.testing.assert_close(alone, 16 * (q_t * (q_t / q_s).log()).sum())


def test_rld_takes_the_teachers_confidence_whatever_its_class():
    z_s, z_t = logits(1), logits(2)
    one, other = (terms(RLD(STUDENT, TEACHER), z_s, z)["scd"] for z in (z_t, z_t.flip(1)))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("cls", [RLD, NKD, OFA])
def test_a_student_that_is_sure_has_a_finite_loss(cls):
    """The authors' code of RLD and OFA takes the logarithm of a probability that rounds to 0 in float32."""
    z_s, z_t = logits(1), logits(2)
    z_s[IS_TARGET] += 1e3
    z_s.requires_grad_()
    for z_t_or_sure in (z_t, z_s.detach()):
        results = []
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            got = terms(cls(STUDENT, TEACHER), z_s.to(dtype), z_t_or_sure.to(dtype))
            loss = torch.stack([value for name, value in got.items() if name != "stages"]).sum()
            results.append([loss.detach().double(), *torch.autograd.grad(loss, z_s)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


# TTM and WTTM


def test_ttm_tempers_the_teacher_alone():
    z_s, z_t = logits(1), logits(2)
    match = terms(TTM(STUDENT, TEACHER, power=0.25), z_s, z_t)["match"]
    torch.testing.assert_close(match, terms(KD(STUDENT, TEACHER), 4 * z_s, z_t)["kd"] / 16)
    torch.testing.assert_close(terms(TTM(STUDENT, TEACHER, power=1.0), z_t, z_t)["match"], match * 0)


def test_wttm_counts_an_image_by_how_unsure_the_teacher_is():
    z_s = logits(1)
    for z_t, factor in ((logits(2) * 0, CLASSES**0.8), (1e3 * IS_TARGET.double(), 1.0)):
        ttm, wttm = (terms(cls(STUDENT, TEACHER, power=0.2), z_s, z_t)["match"] for cls in (TTM, WTTM))
        torch.testing.assert_close(wttm, factor * ttm)


# NKD


def test_nkd_is_least_where_the_students_other_classes_agree_with_the_teachers():
    z_t = logits(2)
    z_s = torch.where(IS_TARGET, 7.0, z_t + 3).requires_grad_()  # the target's own logit does not count
    others = terms(NKD(STUDENT, TEACHER, temperature=3.0), z_s, z_t)["others"]
    (gradient,) = torch.autograd.grad(others, z_s)
    assert others > 1 and gradient.abs().max() < 1e-12


# OFA


def test_ofa_is_the_cross_entropy_with_the_teachers_probabilities():
    z_s, z_t = logits(1), logits(2)
    label, soft = F.cross_entropy(z_s, TARGETS), F.cross_entropy(z_s, z_t.softmax(1))
    code, paper = (terms(OFA(STUDENT, TEACHER, reading=reading), z_s, z_t)["logits"] for reading in ("code", "paper"))
    torch.testing.assert_close(code, soft)
    torch.testing.assert_close(paper, label + soft)


@pytest.mark.parametrize("reading", ["code", "paper"])
def test_ofas_exponent_acts_on_the_target_and_in_the_code_on_every_class(reading):
    z_s, z_t = torch.zeros(8, CLASSES).double().requires_grad_(), logits(2)
    loss = terms(OFA(STUDENT, TEACHER, exponent=1.5, reading=reading), z_s, z_t)["logits"]
    (gradient,) = torch.autograd.grad(loss, z_s)
    p_t = z_t.softmax(1)
    others, own = (p_t**1.5, (1 + p_t) ** 1.5 - 1) if reading == "code" else (p_t, (1 + p_t) ** 1.5)
    w = torch.where(IS_TARGET, own, others)
    torch.testing.assert_close(gradient, (w.sum(1, keepdim=True) / CLASSES - w) / 8)


def test_ofa_has_an_exponent_for_each_head():
    def stages(**exponents: object) -> Tensor:
        torch.manual_seed(0)
        return terms(OFA(STUDENT, TEACHER, **exponents), logits(1), logits(2))["stages"]

    torch.testing.assert_close(stages(exponent=1.5), stages(stage_exponents="1.5, 1.5,1.5"))
    assert stages(stage_exponents="1,1,1.5") != stages()
    with pytest.raises(ValueError, match="stage_exponents must be numbers separated by commas, not '1,nan,1'"):
        stages(stage_exponents="1,nan,1")


def halvings(method: OFA) -> list[int]:
    """Return how many convolutions with stride 2 each head has."""
    return [sum(m.stride == (2, 2) for m in head.modules() if isinstance(m, nn.Conv2d)) for head in method.heads]


def test_ofas_heads_halve_a_map_once_for_each_later_stage():
    four = TapSpec({f"stage{i}": 4 * i for i in (1, 2, 3, 4)}, {f"stage{i}": (3, 5) for i in (1, 2, 3, 4)}, 16, CLASSES)
    assert halvings(OFA(four, TEACHER)) == [3, 2, 1, 0] and halvings(OFA(STUDENT, TEACHER)) == [2, 1, 0]
    assert halvings(OFA(four, TEACHER, taps="stage1,last")) == [3, 0]
    names = ["stage1.preact", "stage1", "stage2.preact", "stage2"]  # the order of ConvNets
    two = TapSpec(dict.fromkeys(names, 4), dict.fromkeys(names, (4, 4)), 4, CLASSES)
    assert halvings(OFA(two, TEACHER, taps="stages.preact")) == [1, 0]


@pytest.mark.parametrize("head", [map_head(3, 2, 8, CLASSES), map_head(3, 0, 8, CLASSES)])
def test_a_head_of_maps_starts_as_the_authors(head):
    *_, linear = head.modules()
    assert isinstance(linear, nn.Linear) and linear.bias.count_nonzero() == 0 and linear.weight.abs().max() < 0.1
    assert head(torch.randn(4, 3, 1, 7)).shape == (4, CLASSES)


@pytest.mark.parametrize(
    ("size", "channels", "mergers"), [((1, 1), 6, 0), ((13, 13), 8, 0), ((14, 15), 6, 1), ((29, 31), 8, 2)]
)
def test_a_head_of_tokens_merges_them_to_a_grid_of_at_least_7(size, channels, mergers):
    head = TokenHead(channels, size, depth=1, width=6, classes=CLASSES)
    assert sum(name.endswith("reduce.weight") for name in head.state_dict()) == mergers
    x = torch.randn(2, channels, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(head(x).square().sum(), x)
    assert gradient.flatten(1).abs().sum(1).all() and gradient.abs().sum(1).all()


def test_ofa_with_a_student_of_tokens():
    student = build_model("timm:vit_tiny_patch16_224(img_size=32, embed_dim=20, depth=7, num_heads=2)", CLASSES)
    method = OFA(describe_taps(student, (3, 32, 32)), TEACHER)
    assert [len(head.blocks) for head in method.heads] == [3, 2, 1, 1]
    seen = student(torch.randn(8, 3, 32, 32), method.student_taps)
    got = method(make_batch(), seen, outputs(TEACHER, 2))
    torch.stack(list(got.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
