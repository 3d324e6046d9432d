"""Tests of what makes mlkd, ctkd, lskd over both, and tekap_l what they are; tests/golden has their numbers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from methods.base import Outputs
from methods.ctkd import CTKD
from methods.kd import soft_target_loss
from methods.lskd import LSKD, standardise
from methods.mlkd import MLKD
from methods.tekap_l import TeKAPL
from tests.support.synthetic_outputs import BATCH, CLASSES, STUDENT, TEACHER, make_batch, outputs


def moved(x: Outputs, rows: Tensor) -> Outputs:
    """Return outputs with other logits in some rows of the weak view."""
    return replace(x, logits=x.logits + rows[:, None] * torch.randn(BATCH, CLASSES))


def test_mlkd_reads_rows_that_the_teacher_is_less_sure_of():
    """The paper's masks leave out the other rows of the weak view; the code's shares leave out none."""
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    confidence = teacher.logits.softmax(1).amax(1)
    surer = confidence > confidence.quantile(0.5)
    assert surer.sum() == BATCH // 2
    for reading in ("paper", "code"):
        method = MLKD(STUDENT, TEACHER, reading=reading)
        before = method(make_batch(), student, teacher)["kd"]
        after = method(make_batch(), moved(student, surer.float()), teacher)["kd"]
        assert torch.allclose(before, after) == (reading == "paper")


def test_mlkd_masks_all_values_at_or_below_the_median():
    """Ties and odd counts, as with a percentile that interpolates."""
    method = MLKD(STUDENT, TEACHER, reading="paper")
    for confidences, below in (
        ([3.0, 1.0, 2.0], [0.0, 1.0, 1.0]), ([4.0, 2.0, 2.0, 1.0], [0.0, 1.0, 1.0, 1.0]), ([1.0] * 4, [1.0] * 4)
    ):  # fmt: skip
        rows, _ = method.masks(torch.tensor(confidences)[:, None] * torch.eye(CLASSES)[:1])
        assert rows.tolist() == below


def test_mlkd_without_the_strong_view_reads_none_and_leaves_the_cross_entropy_to_the_trainer():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    both = MLKD(STUDENT, TEACHER)(make_batch(), student, teacher)
    student.views, teacher.views = {}, {}
    weak = MLKD(STUDENT, TEACHER, strong_view=False)(make_batch(), student, teacher)
    assert both.keys() - weak.keys() == {"ce"} and weak["kd"] < both["kd"]
    assert all(torch.equal(weak[name], both[name]) for name in ("cc", "bc"))


def test_lskd_over_mlkd_standardises_divergences_alone():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    plain, method = MLKD(STUDENT, TEACHER), LSKD(STUDENT, TEACHER, base="mlkd", temperature=4.0)
    terms, got = plain(make_batch(), student, teacher), method(make_batch(), student, teacher)
    standard = [replace(x, logits=standardise(x.logits, 1)) for x in (student, teacher)]
    for x, own in zip(standard, (student, teacher), strict=True):
        x.views = {"strong": replace(own.views["strong"], logits=standardise(own.views["strong"].logits, 1))}
    plain.masks = lambda _: MLKD.masks(plain, teacher.logits)  # type: ignore[method-assign]
    kd = plain(make_batch(), *standard)["kd"]
    torch.testing.assert_close(got["ls"], kd + terms["cc"] + terms["bc"])
    assert torch.equal(got["ce"], terms["ce"])


def test_lskd_over_ctkd_trains_the_temperature_of_standardised_logits():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    method, plain = LSKD(STUDENT, TEACHER, base="ctkd"), CTKD(STUDENT, TEACHER)
    standard = (replace(x, logits=standardise(x.logits, 1)) for x in (student, teacher))
    losses = method(make_batch(), student, teacher)["ls"], plain(make_batch(), *standard)["kd"]
    grads = [torch.autograd.grad(loss, [*own.parameters()]) for loss, own in zip(losses, (method, plain), strict=True)]
    assert torch.equal(*losses) and grads[0] == grads[1] and grads[0][0] != 0


def test_ctkd_keeps_the_gradient_of_its_temperature_in_float32():
    """Near T = 15 the loss hardly depends on T: computed in float32, a part of the gradient is lost."""
    student, teacher = outputs(STUDENT, 1, 3.0), outputs(TEACHER, 2, 3.0)

    def gradient(dtype: torch.dtype) -> float:
        g = torch.ones((), dtype=dtype, requires_grad=True)
        loss = soft_target_loss(student.logits.to(dtype), teacher.logits.to(dtype), 1 + 20 * g.sigmoid())
        return float(torch.autograd.grad(loss, g)[0])

    method, exact = CTKD(STUDENT, TEACHER), gradient(torch.float64)
    terms = method(make_batch(), student, teacher)
    (ours,) = torch.autograd.grad(terms["kd"], [method.g])
    assert terms["kd"].dtype is torch.float32
    assert -float(ours) == pytest.approx(exact, rel=1e-6)
    assert gradient(torch.float32) != pytest.approx(exact, rel=1e-5)


def test_ctkd_reverses_step_by_step():
    method = CTKD(STUDENT, TEACHER, reversal_start=0.5, reversal=2.0, reversal_epochs=4)
    factors = [method.gradient_factor(make_batch(epoch=epoch)) for epoch in (0, 2, 4, 5, math.inf)]
    assert factors == pytest.approx([-0.5, -1.25, -2.0, -2.0, -2.0])
    at_once = CTKD(STUDENT, TEACHER, reversal_epochs=0)
    assert at_once.gradient_factor(make_batch(epoch=1)) == -1
    assert at_once.temperature(-1).item() == pytest.approx(15.621, abs=1e-3)


def test_ctkd_goes_to_a_temperature_with_a_larger_loss():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    method, losses = CTKD(STUDENT, TEACHER), []
    for _ in range(5):
        losses.append(method(make_batch(), student, teacher)["kd"])
        method.g.data -= 100 * torch.autograd.grad(losses[-1], method.g)[0]
    assert losses == sorted(losses) and losses[-1] > losses[0]


def test_tekap_l_without_noise_is_kd_with_the_sum_of_its_weights():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    kd = soft_target_loss(student.logits, teacher.logits, 4.0)
    for reading, weight in (("code", 1 + 3 * 0.8), ("paper", 1.0)):
        method = TeKAPL(STUDENT, TEACHER, noise=0.0, reading=reading)
        torch.testing.assert_close(method(make_batch(), student, teacher)["kd"], weight * kd)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"noise": -0.1}, "noise must be between 0 and 1, not -0.1"),
        ({"copy_weight": -1.0}, "copy_weight must be 0 or more, not -1.0"),
        ({"copy_weight": 2.0, "reading": "paper"}, "copy_weight must be 0 or more and, as a share, at most 1, not 2.0"),
    ],
)
def test_tekap_l_refuses_weights_that_are_no_shares(hyper: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        TeKAPL(STUDENT, TEACHER, **hyper)


def test_tekap_l_draws_other_noise_for_each_copy():
    """A sum over equal copies would be a multiple of one copy's."""
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)

    def noisy_part(copies: int) -> Tensor:
        method = TeKAPL(STUDENT, TEACHER, copies=copies, copy_weight=1.0, noise=0.5)
        return method(make_batch(), student, teacher)["kd"] - soft_target_loss(student.logits, teacher.logits, 4.0)

    assert not torch.allclose(noisy_part(2), 2 * noisy_part(1), rtol=1e-3)
    assert torch.equal(noisy_part(2), noisy_part(2))
