"""Tests of wkd_l and wkd_f: flows, the similarity of classes and the moments of cells."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import class_similarity
from methods.base import Head
from methods.class_similarity import ClassSimilarity, linear_cka
from methods.wkd_f import WKDF, moments
from methods.wkd_l import WKDL, other_classes, softmax_of_others, transport_costs
from tests.support.synthetic_outputs import BATCH, CLASSES, STUDENT, TARGETS, TEACHER, make_batch, outputs, spec


def logits(seed: int, scale: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def gathered_costs(z_s: Tensor, z_t: Tensor, cost: Tensor) -> Tensor:
    """Return the transport costs by matrices (classes - 1, classes - 1), one for each row."""
    costs = []
    for s, t, y in zip(z_s, z_t, TARGETS.tolist(), strict=True):
        others = [c for c in range(CLASSES) if c != y]
        p, q, c = s[others].softmax(0), t[others].softmax(0), cost[others][:, others]
        kernel, u = (-c / 0.05).exp(), torch.full_like(p, 1 / len(p))
        for _ in range(10):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        costs.append((u[:, None] * kernel * v * c).sum())
    return torch.stack(costs)


def our_costs(z_s: Tensor, z_t: Tensor, cost: Tensor) -> Tensor:
    others = other_classes(TARGETS, CLASSES)
    p, q = (softmax_of_others(z, others) for z in (z_s, z_t))
    start = torch.zeros_like(p).scatter(1, others, 1 / (CLASSES - 1))
    return transport_costs(p, q, start, cost, 0.05, 10)


@pytest.mark.parametrize("scale", [1.0, 20.0, 2000.0])
def test_flows_are_those_of_gathered_matrices(scale: float) -> None:
    """Also where most masses are 0, and in float32."""
    cost = torch.rand(CLASSES, CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pairs = [[logits(seed, scale).requires_grad_() for seed in (0, 1)] for _ in range(2)]
    expected, got = gathered_costs(*pairs[0], cost), our_costs(*pairs[1], cost)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    expected.sum().backward()
    got.sum().backward()
    torch.testing.assert_close(pairs[1][0].grad, pairs[0][0].grad, rtol=1e-8, atol=1e-12)
    narrow = logits(0, scale, torch.float32).requires_grad_()
    loss = our_costs(narrow, logits(1, scale, torch.float32), cost.float()).sum()
    loss.backward()
    assert loss.isfinite() and narrow.grad is not None and narrow.grad.isfinite().all()


def test_costs_follow_the_teacher() -> None:
    """Classes are equally unlike until the pass is made; the logit of the target is not transported."""
    method = WKDL(STUDENT, TEACHER)
    assert torch.equal(method.distance.diag(), torch.zeros(CLASSES)) and method.distance[0, 1] == method.distance[2, 3]
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    before = method(make_batch(), student, teacher)
    shifted = replace(student, logits=student.logits + F.one_hot(TARGETS, CLASSES))
    assert torch.equal(method(make_batch(), shifted, teacher)["transport"], before["transport"])
    method.use_teacher_pass(torch.ones(CLASSES, CLASSES))
    assert method(make_batch(), student, teacher)["transport"] < 1e-6 < before["transport"]
    assert method(make_batch(epoch=240), student, teacher)["transport"] == 0


@pytest.mark.parametrize("method", [WKDL, WKDF])
@pytest.mark.parametrize(("start", "end"), [(-1, 240), (150, 100)])
def test_a_decay_that_ends_before_it_starts_is_refused(method: type[WKDL | WKDF], start: int, end: int) -> None:
    """Otherwise the term would be 0 in every epoch, or drop at once."""
    with pytest.raises(ValueError, match=f"at most decay_end, not {start} with decay_end {end}"):
        method(STUDENT, TEACHER, decay_start=start, decay_end=end)


def test_costs_of_the_classifiers_rows() -> None:
    rows = torch.randn(CLASSES, 9, generator=torch.Generator().manual_seed(0))
    method = WKDL(STUDENT, replace(TEACHER, head=Head("stage3", rows, torch.zeros(CLASSES))), cost="fc", sharpen=0)
    expected = 1 - F.cosine_similarity(rows[:, None], rows, dim=2)
    torch.testing.assert_close(method.distance, expected)
    assert method.teacher_pass is None
    with pytest.raises(ValueError, match="logits are linear .*; take cost cka"):
        WKDL(STUDENT, replace(TEACHER, head=None), cost="fc")


def plain_cka(x: Tensor, y: Tensor) -> Tensor:
    n = min(len(x), len(y))
    x, y = (z[:n] - z[:n].mean(0) for z in (x, y))
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


@pytest.mark.parametrize("most", [1, 2**26])
def test_cka_of_classes_of_any_size(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(class_similarity, "MOST_PRODUCTS", most)
    classes = [torch.rand(n, 3, dtype=torch.float64) * 10**n for n in (4, 7, 4, 5, 7)]
    got = linear_cka([*classes, torch.ones(6, 3, dtype=torch.float64), torch.empty(0, 3, dtype=torch.float64)])
    expected = torch.stack([torch.stack([plain_cka(x, y) for y in classes]) for x in classes])
    torch.testing.assert_close(got[:5, :5], expected, rtol=1e-12, atol=0)
    assert torch.equal(got[5:], torch.eye(7, dtype=torch.float64)[5:]), "constant samples, and none"


def test_the_first_images_of_each_class_are_compared() -> None:
    targets = torch.tensor([2, 0, 2, 0, 2, 0, 1, 2])
    similarity = ClassSimilarity("map", images_per_class=3, classes=4)
    positions = similarity.images(targets)
    assert positions.tolist() == [1, 3, 5, 6, 0, 2, 4]
    maps = torch.rand(8, 5, 2, 3, dtype=torch.float64)
    got = similarity.measure(maps[positions], targets[positions])
    samples = [maps[k].permute(0, 2, 3, 1).reshape(-1, 5) for k in ([1, 3, 5], [6], [0, 2, 4])]
    torch.testing.assert_close(got[:3, :3], linear_cka(samples))


def test_the_images_of_a_class_that_4_gib_hold() -> None:
    sizes = {"cifar100": (256, 8, 100, 655), "resnet34": (512, 7, 1000, 42), "resnet50": (2048, 7, 1000, 10)}
    for channels, side, classes, most in sizes.values():
        teacher = replace(spec([channels], [(side, side)], 9), num_classes=classes)
        assert ClassSimilarity.of(teacher, 0).images_per_class == most
        assert ClassSimilarity.of(teacher, 7).images_per_class == 7


@pytest.mark.parametrize(("side", "grid"), [((8, 8), 4), ((5, 7), 3), ((5, 4), 4), ((3, 2), 5), ((1, 1), 1)])
def test_moments_of_cells(side: tuple[int, int], grid: int) -> None:
    """They are those of adaptive pooling's cells; one of a single position has no variance."""
    x = torch.rand(2, 3, *side, dtype=torch.float64).requires_grad_()
    mean, deviation = moments(x, grid, 1, 1e-5)
    torch.testing.assert_close(mean, F.adaptive_avg_pool2d(x, grid))
    for i in range(grid):
        for j in range(grid):
            rows, columns = (slice(k * n // grid, -(-(k + 1) * n // grid)) for k, n in zip((i, j), side, strict=True))
            cell = x[:, :, rows, columns].flatten(2)
            var = cell.var(2) if cell.shape[2] > 1 else torch.zeros(2, 3, dtype=torch.float64)
            torch.testing.assert_close(deviation[:, :, i, j], (var + 1e-5).sqrt())
    deviation.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_the_papers_variance_is_smaller() -> None:
    x = torch.rand(2, 3, 4, 4)
    (_, code), (_, paper) = (moments(x, 2, correction, 0.0) for correction in (1, 0))
    torch.testing.assert_close(paper, code * 0.75**0.5)
    assert WKDF(STUDENT, TEACHER, reading="paper").correction == 0 != WKDF(STUDENT, TEACHER).correction
