"""Tests of every method: any shapes and scales, hyper-parameters, taps and warm-up."""

import copy
import inspect
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.spec.methods import builtin_names
from harness.spec.methods import describe_method as read_source
from harness.training.trained_model import method_class
from methods.ab import AB
from methods.at import AT
from methods.base import Distiller, FirstStage, Outputs, TapSpec
from methods.catkd import CATKD
from methods.cc import CC
from methods.ctkd import CTKD
from methods.dist import DIST
from methods.dkd import DKD
from methods.fsp import FSP
from methods.ft import FT
from methods.ickd import ICKD
from methods.kdsvd import KDSVD
from methods.lskd import LSKD
from methods.mgd import MGD
from methods.mlkd import MLKD
from methods.nkd import NKD
from methods.nst import NST
from methods.ofa import OFA
from methods.ofd import OFD
from methods.pkd import PKD
from methods.pkt import PKT
from methods.reviewkd import ReviewKD
from methods.rkd import RKD
from methods.rld import RLD
from methods.sp import SP
from methods.srrl import SRRL
from methods.tekap_f import TeKAPF
from methods.tekap_l import TeKAPL
from methods.ttm import TTM
from methods.vid import VID
from methods.wkd_f import WKDF
from methods.wkd_l import WKDL
from methods.wttm import WTTM
from tests.support.synthetic_outputs import CLASSES, STUDENT, TARGETS, TEACHER, make_batch, outputs, spec, total

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
    "mlkd": (MLKD, {}),
    "mlkd-paper": (MLKD, {"reading": "paper"}),
    "mlkd-weak": (MLKD, {"strong_view": False}),
    "lskd-mlkd": (LSKD, {"base": "mlkd"}),
    "lskd-ctkd": (LSKD, {"base": "ctkd", "reading": "paper"}),
    "ctkd": (CTKD, {}),
    "catkd": (CATKD, {}),
    "catkd-normalised": (CATKD, {"resolution": 3, "normalise": True}),
    "catkd-paper": (CATKD, {"reading": "paper"}),
    "catkd-binarised": (CATKD, {"binarise": True}),
    "srrl": (SRRL, {}),
    "srrl-pooled": (SRRL, {"connector": "pooled"}),
    "ickd": (ICKD, {}),
    "wkd_l": (WKDL, {}),
    "wkd_f": (WKDF, {}),
    "wkd_f-grid": (WKDF, {"grid": 3}),
    "tekap_l": (TeKAPL, {}),
    "tekap_f": (TeKAPF, {"feat_dim": 6, "negatives": 4}),
    "ofa": (OFA, {}),
    "ofa-paper": (OFA, {"exponent": 1.5, "taps": "stages.preact", "reading": "paper"}),
    "rld": (RLD, {}),
    "ttm": (TTM, {}),
    "wttm": (WTTM, {}),
    "nkd": (NKD, {}),
    "nkd-t": (NKD, {"temperature": 3.0}),
    "mgd": (MGD, {}),
    "mgd-channels": (MGD, {"mask": "channels", "mask_ratio": 0.15}),
    "pkd": (PKD, {}),
}


# tests/unit/test_methods.py and the modules of their names test these in the same respects
TESTED_ELSEWHERE = {"student", "kd", "fitnets", "crd", "rekd", "simkd", "dml", "fgfi"}


def test_every_built_in_method_is_tested() -> None:
    assert {name.partition("-")[0] for name in METHODS} | TESTED_ELSEWHERE == set(builtin_names())


def every_tap(method: Distiller) -> tuple[set[str], set[str]]:
    """Return the student's and the teacher's taps of both stages."""
    first = method.first_stage or FirstStage(0)
    return {*method.student_taps, *first.student_taps}, {*method.teacher_taps, *first.teacher_taps}


def inputs(x: Outputs) -> list[Tensor]:
    return [x.logits, x.embedding, *x.features.values()]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[TapSpec, TapSpec]:
    stages = draw(st.integers(2, 4))

    def model(max_side: int) -> TapSpec:
        sides = [(draw(st.integers(1, max_side)), draw(st.integers(1, max_side))) for _ in range(stages)]
        return spec([draw(st.integers(1, 9)) for _ in range(stages)], sides, draw(st.integers(1, 9)))

    return model(9), model(9)


# kdsvd needs maps of some size, fsp and pkd equal widths, ab sizes that its connectors can reach
@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith(("kdsvd", "fsp", "ab", "pkd"))])
@settings(max_examples=12)
@given(specs=pairs(), seed=st.integers(0, 1000))
def test_any_widths_and_sizes(name, specs, seed):
    cls, hyper = METHODS[name]
    torch.manual_seed(seed)
    method, student = cls(*specs, **hyper), outputs(specs[0], seed, grad=True)
    method.setup(TARGETS)
    teacher = outputs(specs[1], seed + 1)
    taps_s, taps_t = every_tap(method)
    assert taps_s <= set(specs[0].names) and taps_t <= set(specs[1].names)
    student.features = {tap: student.features[tap] for tap in taps_s}  # the trainer passes only the requested maps
    teacher.features = {tap: teacher.features[tap] for tap in taps_t}
    loss = total(method, student, teacher)
    loss.backward()
    assert loss.isfinite()
    grads = [x.grad for x in inputs(student) if x.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    assert all(x.grad is not None for x in student.features.values()), "a requested map was not used"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 50.0])
@pytest.mark.parametrize("name", METHODS)
def test_finite_at_any_scale_and_the_teacher_is_not_changed(name, scale):
    cls, hyper = METHODS[name]
    torch.manual_seed(0)
    method, student, teacher = (
        cls(STUDENT, TEACHER, **hyper),
        outputs(STUDENT, 1, scale, True),
        outputs(TEACHER, 2, scale),
    )
    method.setup(TARGETS)
    before = [x.clone() for x in inputs(teacher)]
    for _ in range(2):
        loss = total(method, student, teacher)
        loss.backward()
        assert loss.isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, inputs(teacher), strict=True))
    grads = [x.grad for x in (*inputs(student), *method.parameters()) if x.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    if scale == 1:
        assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("name", METHODS)
def test_equal_models_have_no_loss(name):
    cls, hyper = METHODS[name]
    if cls is WKDL:
        pytest.skip("one term is a cross-entropy, and Sinkhorn's flow between equal masses is not the identity")
    if cls in (OFA, NKD):
        pytest.skip("cross-entropies, and OFA's heads must be trained first")
    if cls in (RLD, TTM, WTTM):
        pytest.skip("RLD compares the teacher's largest class with the target; TTM and WTTM temper the teacher alone")
    if cls is TeKAPL:
        pytest.skip("the teacher's copies are noisy")
    if cls in (CC, VID, OFD, ReviewKD, AB, FT, WKDF, SRRL, ICKD, MGD, TeKAPF):
        pytest.skip("the method has layers that must be trained first")
    if hyper.get("binarise"):
        pytest.skip("the teacher's maps are changed, the student's are not")
    same, other = outputs(STUDENT, 1, grad=True), outputs(STUDENT, 2, grad=True)
    losses = [total(cls(STUDENT, STUDENT, **hyper), x, outputs(STUDENT, 1)) for x in (same, other)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0]) < 1e-4 * losses[1]
    for x, y in zip(inputs(same), inputs(other), strict=True):
        if x.grad is not None and y.grad is not None:
            assert x.grad.norm() < 1e-2 * y.grad.norm(), "not a minimum"


def test_the_planner_reads_the_constructors_arguments():
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
    "ofa",
    "catkd",
    "srrl",
    "ickd",
]


@cache
def real_network(name: str) -> tuple[ConvNet, TapSpec]:
    """Return a network in training mode, to be copied, and its description."""
    torch.manual_seed(0)
    net = build_model(name, CLASSES, in_channels=3).train()
    return net, describe_taps(net, (3, 32, 32))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("student", "teacher"), [("wrn_16_1", "resnet8"), ("ShuffleV2", "wrn_16_1")])
def test_batch_norms_of_real_networks(name, student, teacher):
    """The teacher's statistics stay; the student's are updated once per step, with and without pre-activation taps."""
    cls, hyper = METHODS[name] if name != "kdsvd-columns" else (KDSVD, {"matrix": "columns"})
    (net_s, spec_s), (net_t, spec_t) = (copy.deepcopy(real_network(model)) for model in (student, teacher))
    net_t.eval()
    torch.manual_seed(0)
    before = {k: v.clone() for k, v in net_t.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    method = cls(spec_s, spec_t, **hyper)
    with torch.no_grad():
        teacher_outputs = net_t(images, method.teacher_taps)
    total(method, net_s(images, method.student_taps), teacher_outputs, TARGETS[:4]).backward()
    assert not net_t.training
    assert all(torch.equal(v, before[k]) for k, v in net_t.state_dict().items())
    for norm in (m for m in net_s.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("cls", "hyper", "message"),
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
        (LSKD, {"base": "crd"}, "dkd"),
        (LSKD, {"reading": "book"}, "paper"),
        (MLKD, {"temperature": 0.0}, "temperature"),
        (CTKD, {"temperature_range": 0.0}, "temperature_range"),
        (CTKD, {"reversal_epochs": -1}, "reversal_epochs"),
        (TeKAPL, {"copies": 0}, "copies"),
        (KDSVD, {"k": 0}, "k must"),
        (KDSVD, {"k": 4}, "too small"),
        (KDSVD, {"matrix": "rows"}, "columns"),
        (KDSVD, {"taps": "stage1"}, "two"),
        (FSP, {"taps": "stage1"}, "two"),
        (FSP, {"taps": "stages", "first_epochs": -1}, "epochs"),
        (AB, {"margin": 0.0}, "margin"),
        (AB, {"taps": "stage1", "first_epochs": -1}, "epochs"),
        (FT, {"tap": "stage9"}, "stage1, stage1.preact"),
        (FT, {"k": 0.0}, "k must"),
        (FT, {"p1": 0}, "p1 and p2"),
        (FT, {"p2": 0}, "p1 and p2"),
        (FT, {"first_lr": 0.0}, "learning rate"),
        (MGD, {"mask_ratio": 1.5}, "mask_ratio must be between"),
        (MGD, {"mask": "pixels"}, "'positions' or 'channels'"),
        (PKD, {"taps": "stage1:stage2"}, "student's stage1 has 6 and the teacher's stage2 7"),
        (TeKAPF, {"noise": 1.5}, "noise must be between"),
        (TeKAPF, {"noise_std": -0.1}, "noise_std must be 0"),
        (RLD, {"temperature": 0.0}, "temperature must"),
        (RLD, {"confidence_temperature": 0.0}, "confidence_temperature"),
        (RLD, {"warmup": -1}, "warmup"),
        (TTM, {"power": -0.1}, "power"),
        (WTTM, {"power": -1.0}, "power"),
        (NKD, {"temperature": 0.0}, "temperature"),
        (OFA, {"exponent": 0.0}, "exponent"),
        (OFA, {"temperature": 0.0}, "temperature"),
        (OFA, {"reading": "book"}, "'code' or 'paper'"),
        (OFA, {"taps": "stage9"}, "stage1, stage1.preact"),
        (OFA, {"stage_exponents": "1,2"}, "one number per tap: 3, not 2"),
        (OFA, {"stage_exponents": "1,2,x"}, "separated by commas, not '1,2,x'"),
        (OFA, {"stage_exponents": "1,2,-1"}, "stage_exponents must be positive"),
    ],
)
def test_wrong_hyper_parameters_are_refused(cls, hyper, message):
    with pytest.raises(ValueError, match=message):
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
    with pytest.raises(ValueError, match="no stages in the student, which has: stem"):
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
    ("cls", "hyper"), [(DKD, {}), (ReviewKD, {}), (LSKD, {"base": "dkd"}), (LSKD, {"base": "kd"}), (AT, {}), (RLD, {})]
)
def test_terms_grow_over_the_warm_up(cls, hyper):
    """The loss is multiplied by min(epoch / 20, 1) from epoch 1 on, as in mdistiller."""

    def terms(epoch: float, **more: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        method = cls(STUDENT, TEACHER, **hyper, **more)
        losses = method(make_batch(epoch=epoch), outputs(STUDENT, 1), outputs(TEACHER, 2))
        assert isinstance(losses, dict)
        return losses

    whole = terms(float("inf"))
    has_warm_up = cls is not AT and hyper != {"base": "kd"}
    for epoch, factor in ((1, 0.05), (7, 0.35), (20, 1.0), (21, 1.0), (240, 1.0)):
        for name, value in terms(epoch).items():
            torch.testing.assert_close(value, whole[name] * (factor if has_warm_up else 1.0))
    if has_warm_up:
        for name in whole:
            torch.testing.assert_close(terms(1, warmup=4)[name], whole[name] / 4)
            torch.testing.assert_close(terms(1, warmup=0)[name], whole[name])
