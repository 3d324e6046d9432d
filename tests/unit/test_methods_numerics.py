"""What the golden numbers do not show of the methods: where the reference code breaks, ours must not."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.models.base import describe
from harness.models.build import build
from harness.spec.methods import builtin_names
from harness.spec.methods import describe as read_source
from harness.training.member import method_class
from methods import kdsvd, ofd
from methods._safe import unit
from methods.ab import AB, boundary_loss
from methods.at import AT
from methods.base import Batch, Distiller, FirstStage, Outputs, SampleRandom, TapSpec
from methods.cc import CC
from methods.dist import DIST, pearson
from methods.dkd import DKD, decoupled_losses
from methods.fsp import FSP
from methods.ft import FT, factor_loss
from methods.kd import soft_target_loss
from methods.kdsvd import KDSVD, align, kernel, right_vectors
from methods.lskd import LSKD
from methods.nst import NST
from methods.ofd import OFD, Margin
from methods.pkt import PKT
from methods.reviewkd import ReviewKD
from methods.rkd import RKD, relations
from methods.sp import SP
from methods.vid import VID

BATCH, CLASSES = 8, 5
TARGETS = torch.arange(BATCH) % CLASSES
METHODS: dict[str, tuple[type[Distiller], dict[str, Any]]] = {
    "at": (AT, {}),
    "at-p4": (AT, {"p": 4.0}),
    "at-p1": (AT, {"p": 1.0}),
    "sp": (SP, {}),
    "cc": (CC, {"feat_dim": 6}),
    "vid": (VID, {}),
    "rkd": (RKD, {}),
    "pkt": (PKT, {}),
    "nst": (NST, {}),
    "ofd": (OFD, {}),
    "ofd-3": (OFD, {"kernel_size": 3}),
    "reviewkd": (ReviewKD, {}),
    "reviewkd-preact": (ReviewKD, {"student_preact": True, "max_mid": 3}),
    "dkd": (DKD, {}),
    "kdsvd": (KDSVD, {}),
    "kdsvd-columns": (KDSVD, {"matrix": "columns", "k": 2}),
    "dist": (DIST, {}),
    "lskd": (LSKD, {}),
    "lskd-dkd": (LSKD, {"base": "dkd"}),
    "fsp": (FSP, {"taps": "stages"}),
    "ab": (AB, {"taps": "stage1.preact,stage1"}),
    "ft": (FT, {}),
    "ft-p": (FT, {"p1": 3, "p2": 2, "k": 0.05}),
}


def spec(widths: list[int], sizes: list[tuple[int, int]], embedding_dim: int) -> TapSpec:
    """Stages of these widths and sizes, each with its pre-activation."""
    taps = [f"stage{i}{end}" for i in range(1, len(widths) + 1) for end in ("", ".preact")]
    twice = [(c, size) for c, size in zip(widths, sizes, strict=True) for _ in range(2)]
    return TapSpec(
        {tap: c for tap, (c, _) in zip(taps, twice, strict=True)},
        {tap: size for tap, (_, size) in zip(taps, twice, strict=True)},
        embedding_dim,
        CLASSES,
    )


STUDENT = spec([6, 7, 9], [(8, 8), (6, 6), (4, 5)], 9)
TEACHER = spec([6, 7, 9], [(8, 8), (8, 6), (5, 5)], 11)


def outputs(taps: TapSpec, seed: int, scale: float = 1.0, grad: bool = False) -> Outputs:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(BATCH, *shape, generator=g) * scale).requires_grad_(grad)

    maps = {tap: draw(c, *taps.sizes[tap]) for tap, c in taps.channels.items()}
    return Outputs(draw(taps.num_classes), draw(taps.embedding_dim), maps)


def make_batch(targets: Tensor = TARGETS, **epoch: float) -> Batch:
    return Batch(torch.zeros(0), targets, torch.arange(len(targets)), SampleRandom(0, len(targets)), **epoch)


def total(method: Distiller, student: Outputs, teacher: Outputs, targets: Tensor = TARGETS) -> Tensor:
    """The weighted loss without cross-entropy, and that of a first stage."""
    terms = method(make_batch(targets), student, teacher)
    assert terms.keys() == {*method.weights, *method.diagnostics} - {"ce"}
    first = method.first_terms(make_batch(targets), student, teacher) if method.first_stage else {}
    assert all(value.shape == () for value in (*terms.values(), *first.values()))
    weighted = [weight * terms[name] for name, weight in method.weights.items() if name != "ce"]
    return torch.stack([*weighted, *first.values()]).sum()


def every_tap(method: Distiller) -> tuple[set[str], set[str]]:
    """The student's and the teacher's of both stages."""
    first = method.first_stage or FirstStage(0)
    return {*method.student_taps, *first.student_taps}, {*method.teacher_taps, *first.teacher_taps}


def inputs(x: Outputs) -> list[Tensor]:
    return [x.logits, x.embedding, *x.features.values()]


# Every method


@st.composite
def pairs(draw: st.DrawFn) -> tuple[TapSpec, TapSpec]:
    stages = draw(st.integers(2, 4))

    def one(most: int) -> TapSpec:
        sides = [(draw(st.integers(1, most)), draw(st.integers(1, most))) for _ in range(stages)]
        return spec([draw(st.integers(1, 9)) for _ in range(stages)], sides, draw(st.integers(1, 9)))

    return one(9), one(9)


# kdsvd needs maps of some size, fsp equal widths, ab sizes that its connectors can reach
@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith(("kdsvd", "fsp", "ab"))])
@settings(max_examples=12)
@given(specs=pairs(), seed=st.integers(0, 1000))
def test_any_widths_and_sizes(name, specs, seed):
    cls, hyper = METHODS[name]
    torch.manual_seed(seed)
    method, student = cls(*specs, **hyper), outputs(specs[0], seed, grad=True)
    teacher = outputs(specs[1], seed + 1)
    taps_s, taps_t = every_tap(method)
    assert taps_s <= set(specs[0].names) and taps_t <= set(specs[1].names)
    student.features = {tap: student.features[tap] for tap in taps_s}  # what the trainer hands over
    teacher.features = {tap: teacher.features[tap] for tap in taps_t}
    loss = total(method, student, teacher)
    loss.backward()
    assert loss.isfinite()
    used = [x.grad for x in inputs(student) if x.grad is not None]
    assert used and all(g.isfinite().all() for g in used)
    assert all(x.grad is not None for x in student.features.values()), "a map was asked for and not used"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 50.0])
@pytest.mark.parametrize("name", METHODS)
def test_finite_at_any_scale_and_the_teacher_is_not_taught(name, scale):
    cls, hyper = METHODS[name]
    torch.manual_seed(0)
    method, student, teacher = (
        cls(STUDENT, TEACHER, **hyper),
        outputs(STUDENT, 1, scale, True),
        outputs(TEACHER, 2, scale),
    )
    kept = [x.clone() for x in inputs(teacher)]
    for _ in range(2):
        loss = total(method, student, teacher)
        loss.backward()
        assert loss.isfinite()
    assert all(torch.equal(a, b) for a, b in zip(kept, inputs(teacher), strict=True))
    grads = [x.grad for x in (*inputs(student), *method.parameters()) if x.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    if scale == 1:
        assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_model_twice_costs_nothing(name):
    cls, hyper = METHODS[name]
    if cls in (CC, VID, OFD, ReviewKD, AB, FT):
        pytest.skip("there is something to be learnt first")
    same, other = outputs(STUDENT, 1, grad=True), outputs(STUDENT, 2, grad=True)
    losses = [total(cls(STUDENT, STUDENT, **hyper), x, outputs(STUDENT, 1)) for x in (same, other)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0]) < 1e-4 * losses[1]
    for x, y in zip(inputs(same), inputs(other), strict=True):
        if x.grad is not None and y.grad is not None:
            assert x.grad.norm() < 1e-2 * y.grad.norm(), "not a minimum"


def test_the_planner_reads_what_the_constructor_has():
    for name in builtin_names():
        info = read_source(name)
        cls = method_class(name)
        declared = {k: p.default for k, p in inspect.signature(cls).parameters.items() if p.kind == p.KEYWORD_ONLY}
        assert {k: h.default for k, h in info.hyper.items()} == declared
        assert (info.weights, info.part_of_model) == (cls.weights, cls.part_of_model)


REAL = [
    "at",
    "sp",
    "cc",
    "vid",
    "rkd",
    "pkt",
    "nst",
    "ofd",
    "reviewkd-preact",
    "dkd",
    "kdsvd-columns",
    "dist",
    "lskd",
    "ft",
]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("student", "teacher"), [("wrn_16_1", "resnet8"), ("ShuffleV2", "wrn_16_1")])
def test_batch_norms_of_real_networks(name, student, teacher):
    """The teacher keeps its statistics; the student's move once per step, pre-activations tapped or not."""
    cls, hyper = METHODS[name] if name != "kdsvd-columns" else (KDSVD, {"matrix": "columns"})
    torch.manual_seed(0)
    nets = [build(model, CLASSES, in_channels=3) for model in (student, teacher)]
    net_s, net_t = nets[0].train(), nets[1].eval()
    before = {k: v.clone() for k, v in net_t.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    method = cls(describe(net_s, (3, 32, 32)), describe(net_t, (3, 32, 32)), **hyper)
    with torch.no_grad():
        taught = net_t(images, method.teacher_taps)
    total(method, net_s(images, method.student_taps), taught, TARGETS[:4]).backward()
    assert not net_t.training
    assert all(torch.equal(v, before[k]) for k, v in net_t.state_dict().items())
    for norm in (m for m in net_s.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("cls", "hyper", "says"),
    [
        (AT, {"taps": "stage9"}, "stage1, stage1.preact"),
        (AT, {"p": 0.5}, "p must"),
        (SP, {"taps": "stage1,nowhere"}, "nowhere"),
        (CC, {"feat_dim": 0}, "feat_dim"),
        (VID, {"initial_variance": 0.0}, "initial_variance"),
        (NST, {"taps": ""}, "no tap"),
        (OFD, {"kernel_size": 2}, "kernel_size"),
        (ReviewKD, {"max_mid": 0}, "max_mid"),
        (DKD, {"temperature": 0.0}, "temperature"),
        (DKD, {"warmup": -1}, "warmup"),
        (ReviewKD, {"warmup": -1}, "warmup"),
        (LSKD, {"warmup": -1}, "warmup"),
        (DIST, {"temperature": -1.0}, "temperature"),
        (LSKD, {"temperature": 0.0}, "temperature"),
        (LSKD, {"base": "mlkd"}, "dkd"),
        (KDSVD, {"k": 0}, "k must"),
        (KDSVD, {"k": 4}, "too small"),
        (KDSVD, {"matrix": "rows"}, "columns"),
        (KDSVD, {"taps": "stage1"}, "two"),
        (FSP, {"taps": "stage1"}, "two"),
        (FSP, {"taps": "stages", "first_epochs": -1}, "epochs"),
        (AB, {"margin": 0.0}, "margin"),
        (AB, {"taps": "stage2"}, "no regressor from a 6x6 map to 8x6"),
        (AB, {"taps": "stage1", "first_epochs": -1}, "epochs"),
        (FT, {"tap": "stage9"}, "stage1, stage1.preact"),
        (FT, {"k": 0.0}, "k must"),
        (FT, {"p1": 0}, "p1 and p2"),
        (FT, {"p2": 0}, "p1 and p2"),
        (FT, {"first_lr": 0.0}, "learning rate"),
    ],
)
def test_wrong_hyper_parameters_are_refused(cls, hyper, says):
    with pytest.raises(ValueError, match=says):
        cls(STUDENT, TEACHER, **hyper)


def test_stages_that_do_not_pair_up_are_refused_and_can_be_named():
    four = spec([4, 4, 4, 4], [(8, 8)] * 4, 4)
    for cls in (AT, NST, VID, OFD, ReviewKD):
        with pytest.raises(ValueError, match="pair up"):
            cls(STUDENT, four)
    method = AT(STUDENT, four, taps="stage1, last")
    assert method.student_taps == ("stage1", "stage3") and method.teacher_taps == ("stage1", "stage4")


def test_default_taps():
    stages = ("stage1", "stage2", "stage3")
    before = tuple(f"{stage}.preact" for stage in stages)
    expected = {AT: (stages, stages), NST: (stages, stages), VID: (stages, stages), KDSVD: (stages, stages)}
    expected |= {SP: (stages[2:], stages[2:]), OFD: (before, before), ReviewKD: (stages, before)}
    for cls, taps in expected.items():
        method = cls(STUDENT, TEACHER)
        assert (method.student_taps, method.teacher_taps) == taps
    with pytest.raises(ValueError, match="no stages in this model, which has: stem"):
        AT(TapSpec({"stem": 3}, {"stem": (4, 4)}, 3, CLASSES), TEACHER)


def test_maps_are_averaged_onto_the_smaller_grid():
    small, large = spec([3, 3], [(2, 3), (2, 2)], 3), spec([5, 5], [(4, 6), (4, 4)], 5)
    teacher = outputs(large, 2)
    shrunk = Outputs(teacher.logits, teacher.embedding, {k: F.avg_pool2d(x, 2) for k, x in teacher.features.items()})
    for cls in (AT, NST):
        student = outputs(small, 1)
        expected = total(cls(small, spec([5, 5], [(2, 3), (2, 2)], 5)), student, shrunk)
        torch.testing.assert_close(total(cls(small, large), student, teacher), expected)


# Warm-up


@pytest.mark.parametrize(
    ("cls", "hyper"), [(DKD, {}), (ReviewKD, {}), (LSKD, {"base": "dkd"}), (LSKD, {"base": "kd"}), (AT, {})]
)
def test_terms_come_in_over_the_warm_up(cls, hyper):
    """mdistiller: min(epoch / 20, 1) of the loss, from epoch 1 on."""

    def terms(epoch: float, **more: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        method = cls(STUDENT, TEACHER, **hyper, **more)
        found = method(make_batch(epoch=epoch), outputs(STUDENT, 1), outputs(TEACHER, 2))
        assert isinstance(found, dict)
        return found

    whole = terms(float("inf"))
    warms = cls is not AT and hyper != {"base": "kd"}
    for epoch, factor in ((1, 0.05), (7, 0.35), (20, 1.0), (21, 1.0), (240, 1.0)):
        for name, value in terms(epoch).items():
            torch.testing.assert_close(value, whole[name] * (factor if warms else 1.0))
    if warms:
        for name in whole:
            torch.testing.assert_close(terms(1, warmup=4)[name], whole[name] / 4)
            torch.testing.assert_close(terms(1, warmup=0)[name], whole[name])


# Directions of vectors that are 0


def test_unit_has_the_gradient_of_a_direction():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (x,))
    torch.testing.assert_close(unit(x), F.normalize(x))


def test_pkt_with_a_row_of_zeros():
    """The reference: NaN in every row's gradient."""
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
def test_dkd_of_a_certain_student(gap, temperature):
    """The reference takes log(1 - p) of a p that rounds to 1: infinite in float32 from a gap of about 20 on."""
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
    """The reference's angles of a pair that is apart by rounding only: gradients 1e6 times the others."""

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


def test_rkd_of_rows_that_are_all_the_same():
    distance, angle = relations(torch.ones(4, 3))
    assert not distance.any() and not angle.any()


def test_rkd_does_not_see_scale_and_place():
    x = outputs(STUDENT, 1).embedding.double()
    for a, b in zip(relations(x), relations(3 * x - 5), strict=True):
        torch.testing.assert_close(a, b)


# KDSVD


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 5, 7), (3, 6, 6)])
def test_right_vectors_and_their_gradient_are_the_svds(shape):
    m = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    towards = torch.randn(shape[0], shape[2], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(v: Tensor) -> Tensor:  # of no sign
        return ((v * towards).sum(1) ** 2 * torch.arange(1, 5)).sum()

    v, s = right_vectors(m, 4)
    _, s_svd, vh = torch.linalg.svd(m, full_matrices=False)
    torch.testing.assert_close(s, s_svd[:, :4])
    torch.testing.assert_close(loss(v), loss(vh[:, :4].transpose(1, 2)))
    ours, theirs = (torch.autograd.grad(loss(x), m)[0] for x in (v, vh[:, :4].transpose(1, 2)))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["kdsvd", "kdsvd-columns"])
@pytest.mark.parametrize("relu", [False, True])
def test_kdsvd_does_not_depend_on_the_signs_of_the_library(name, relu, monkeypatch):
    cls, hyper = METHODS[name]
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
        maps = [x.requires_grad_() for tap, x in student.features.items() if "." not in tap]
        loss = total(cls(STUDENT, TEACHER, **hyper), student, teacher)
        results.append([loss, *torch.autograd.grad(loss, maps)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_kdsvd_orients_by_the_rows():
    m = outputs(STUDENT, 1).features["stage1"].flatten(2).transpose(1, 2).double()
    method = KDSVD(STUDENT, TEACHER)
    v, _ = right_vectors(m, 2)
    oriented = method.orient(v, m)
    projection = m @ oriented
    assert ((projection * projection.abs()).sum(1) > 0).all()
    assert torch.equal(oriented.abs(), v.abs()) and torch.equal(method.orient(-v, m), oriented)
    first, _ = right_vectors(m.relu(), 1)
    assert (method.orient(first, m.relu()) > -1e-12).all()  # Perron: of one sign, made positive


def test_kdsvd_aligns_the_student():
    v_t = torch.linalg.qr(torch.randn(2, 6, 6, dtype=torch.float64))[0]
    v_s = torch.stack([-v_t[:, :, 2], v_t[:, :, 0], v_t[:, :, 4], v_t[:, :, 1]], dim=2)
    torch.testing.assert_close(align(v_s, v_t[:, :, :3]), v_t[:, :, :3])
    assert kernel(v_t[:, :, :1], v_t[:, :, :2][:, :3]).shape == (2, 6, 3, 2)


def tied(count: int) -> Tensor:
    """(1, 9, 6), `count` of its singular values equal to the largest one, the others 0."""
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
    """mdistiller's never leave their start. Here they reach the residual's variance, the likelihood's maximum."""
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
    """For a channel that is Gaussian, as the output of a batch norm is, the authors' formula."""
    g = torch.Generator().manual_seed(0)
    shift, scale = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([1.0, 0.5, 2.0])
    margin = Margin(3)
    for _ in range(20):
        got = margin(torch.randn(64, 3, 16, 16, generator=g) * scale[:, None, None] + shift[:, None, None])
    below = torch.special.ndtr(-shift / scale)
    density = torch.exp(-((shift / scale) ** 2) / 2) / (2 * torch.pi) ** 0.5
    torch.testing.assert_close(got, shift - scale * density / below, rtol=0.01, atol=0)


def test_margin_is_of_all_batches():
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


def test_ofd_asks_no_more_than_the_margin():
    method = OFD(STUDENT, TEACHER)
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), -3.0), torch.full((2, 1, 1, 1), -5.0), torch.tensor([-1.0])) == 0
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), 0.0), torch.full((2, 1, 1, 1), -5.0), torch.tensor([-1.0])) == 1
    assert ofd.partial_loss(torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 5.0), torch.tensor([-1.0])) == 4
    assert method.teacher_taps == ("stage1.preact", "stage2.preact", "stage3.preact")


# FSP, AB and FT


def test_fsp_refuses_maps_of_other_widths():
    with pytest.raises(ValueError, match="the student's stage2 has 7 channels, the teacher's stage2 has 8"):
        FSP(STUDENT, spec([6, 8, 9], [(8, 8)] * 3, 9), taps="stages")


def test_a_boundary_is_a_sign_with_a_margin():
    def loss(s: float, t: float) -> float:
        return boundary_loss(torch.full((2, 1, 1, 1), s), torch.full((2, 1, 1, 1), t), 1.0).item() * 1000 / 3

    assert loss(1.5, 0.1) == loss(-1.5, -9.0) == 0, "on the teacher's side by more than the margin"
    assert loss(0.5, 0.1) == loss(0.5, 9.0) == pytest.approx(0.25), "how far the teacher is does not matter"
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
    """A factor that is 0 everywhere has no gradient; a division by its length would make it NaN."""
    factor = (outputs(STUDENT, 1).features["stage3"] * scale).requires_grad_()
    factor.data[3] = 0
    loss = factor_loss(factor, outputs(TEACHER, 2).features["stage3"] * scale, 2, 1)
    loss.backward()
    assert loss.isfinite() and factor.grad is not None and factor.grad.isfinite().all()
    assert not factor.grad[3].any()


def test_the_main_stage_after_fsp_or_ab_reads_nothing():
    for method in (FSP(STUDENT, TEACHER, taps="stages"), AB(STUDENT, TEACHER, taps="stage1")):
        assert (method.student_taps, method.teacher_taps) == ((), ()) and not method.first_stage.teacher_later
        nothing = Outputs(torch.zeros(0), torch.zeros(0))
        assert method(make_batch(), nothing, nothing) == {}


# From the papers alone


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
def test_lskd_does_not_see_shift_and_scale(base):
    """Sun et al., section 4: only the logits' relations are taught."""
    method = LSKD(STUDENT, TEACHER, base=base)
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    moved = Outputs(7 * student.logits - 3, student.embedding)
    torch.testing.assert_close(total(method, moved, teacher), total(method, student, teacher))


def test_lskd_is_kd_and_dkd_of_standardised_logits():
    student, teacher = outputs(STUDENT, 1), outputs(TEACHER, 2)
    z_s, z_t = ((x.logits - x.logits.mean(1, keepdim=True)) for x in (student, teacher))
    z_s, z_t = (z / z.square().mean(1, keepdim=True).sqrt() for z in (z_s, z_t))
    forms: dict[str, Callable[[], Tensor]] = {
        "kd": lambda: soft_target_loss(z_s, z_t, 3.0),
        "dkd": lambda: torch.stack(decoupled_losses(z_s, z_t, TARGETS, 3.0)) @ torch.tensor([0.5, 2.0]),
    }
    for base, expected in forms.items():
        method = LSKD(STUDENT, TEACHER, base=base, temperature=3.0, alpha=0.5, beta=2.0)
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


def test_svd_resolution_is_far_below_what_the_numbers_show():
    assert kdsvd.RESOLUTION <= 1e-6
