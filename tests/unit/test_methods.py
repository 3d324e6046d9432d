"""Properties that every method has, and properties of FitNets and CRD that the golden numbers do not cover."""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from methods import crd
from methods.at import AT, attention_loss
from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec
from methods.crd import CRD, row_scores
from methods.fitnets import ConvRegressor, FitNets
from methods.ft import FT, factor_loss
from methods.kd import KD
from methods.rekd import ReKD
from methods.unit_vectors import unit

CLASSES, IMAGES = 3, 30
TARGETS = torch.arange(IMAGES) % CLASSES
STUDENT = TapSpec({"stage1": 6, "stage2": 8}, {"stage1": (8, 8), "stage2": (4, 4)}, 8, CLASSES)
TEACHER = TapSpec({"stage1": 8, "stage2": 12}, {"stage1": (8, 8), "stage2": (2, 2)}, 12, CLASSES)

METHODS: dict[str, tuple[type[Distiller], dict[str, Any]]] = {
    "kd": (KD, {}),
    "fitnets": (FitNets, {}),
    "crd": (CRD, {"feat_dim": 5, "negatives": 7}),
    "crd-relax": (CRD, {"feat_dim": 5, "negatives": 50, "mode": "relax"}),
    "rekd": (ReKD, {}),
    "rekd-one": (ReKD, {"samples": 1, "tap": "stage1"}),
    "rekd-sample": (ReKD, {"selection": "sample"}),
    "rekd-likelihood": (ReKD, {"selection": "likelihood"}),
    "rekd-mean": (ReKD, {"selection": "mean", "prior": "standard"}),
}


def make(name: str, seed: int = 0) -> Distiller:
    cls, hyper = METHODS[name]
    torch.manual_seed(seed)
    method = cls(STUDENT, TEACHER, **hyper)
    method.setup(TARGETS)
    return method


def outputs(spec: TapSpec, count: int, seed: int, scale: float = 1.0, grad: bool = False) -> Outputs:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(count, *shape, generator=g) * scale).requires_grad_(grad)

    maps = {tap: draw(c, *spec.sizes[tap]) for tap, c in spec.channels.items()}
    return Outputs(draw(spec.num_classes), draw(spec.embedding_dim), maps)


def make_batch(indices: Tensor, seed: int = 0, random: SampleRandom | None = None) -> Batch:
    return Batch(torch.zeros(0), TARGETS[indices], indices, random or SampleRandom(seed, len(indices)))


def state(method: Distiller) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("name", METHODS)
def test_terms_and_gradients_are_finite(name, scale):
    method = make(name)
    student = outputs(STUDENT, 8, seed=1, scale=scale, grad=True)
    for step in range(2):
        terms = method(make_batch(torch.arange(8), seed=step), student, outputs(TEACHER, 8, seed=2, scale=scale))
        assert terms.keys() == {*method.weights, *method.diagnostics} - {"ce"}
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        sum(method.weights[term] * value for term, value in terms.items() if term in method.weights).backward()
    # scale 0 puts embeddings and features at the origin, where a norm or a square root would divide by zero
    for value in (*method.parameters(), student.embedding, student.logits, *student.features.values()):
        assert value.grad is None or value.grad.isfinite().all()
    assert all(value.isfinite().all() for value in state(method).values())


@pytest.mark.parametrize("name", METHODS)
def test_diagnostics_carry_no_gradient(name):
    method = make(name)
    terms = method(make_batch(torch.arange(8)), outputs(STUDENT, 8, 1, grad=True), outputs(TEACHER, 8, 2))
    assert not any(terms[key].requires_grad for key in method.diagnostics)


@pytest.mark.parametrize("name", METHODS)
def test_draws_depend_only_on_the_seed(name):
    def losses(seed: int) -> dict[str, float]:
        method = make(name)
        torch.manual_seed(torch.seed() % 2**31)  # the global generator must not matter
        terms = method(make_batch(torch.arange(8), seed), outputs(STUDENT, 8, 1), outputs(TEACHER, 8, 2))
        return {term: value.item() for term, value in terms.items() if term in method.weights}

    assert losses(3) == losses(3)
    if name in ("crd", "crd-relax", "rekd", "rekd-sample"):
        assert losses(3) != losses(4)


@pytest.mark.parametrize("name", METHODS)
def test_only_the_student_and_the_method_are_trained(name):
    method, teacher = make(name), outputs(TEACHER, 8, 2)
    student = outputs(STUDENT, 8, 1, grad=True)
    before = [x.clone() for x in (teacher.logits, teacher.embedding, *teacher.features.values())]
    terms = method(make_batch(torch.arange(8)), student, teacher)
    sum(method.weights[term] * value for term, value in terms.items() if term in method.weights).backward()
    after = (teacher.logits, teacher.embedding, *teacher.features.values())
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert any(
        x.grad is not None and x.grad.abs().sum() > 0
        for x in (student.logits, student.embedding, *student.features.values())
    )
    # DDP needs a gradient for each trained parameter
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize(
    ("cls", "hyper", "message"),
    [
        (KD, {"temperature": 0.0}, "temperature"),
        (FitNets, {"tap": "stage9"}, "stage1, stage2, last"),
        (CRD, {"temperature": -1.0}, "temperature"),
        (CRD, {"negatives": 0}, "negatives"),
        (CRD, {"momentum": 1.0}, "momentum"),
        (CRD, {"mode": "loose"}, "exact"),
        (ReKD, {"tap": "stage9"}, "stage1, stage2, last"),
        (ReKD, {"samples": 0}, "samples"),
        (ReKD, {"tau": 0.0}, "tau"),
        (ReKD, {"prior_std": -1.0}, "prior_std"),
        (ReKD, {"min_std": 2.0, "max_std": 1.0}, "min_std"),
        (ReKD, {"group_size": 5}, "divide"),
        (ReKD, {"selection": "hard"}, "soft"),
        (ReKD, {"prior": "teacher"}, "standard"),
    ],
)
def test_wrong_hyper_parameters_are_refused(cls, hyper, message):
    with pytest.raises(ValueError, match=message):
        cls(STUDENT, TEACHER, **hyper)


def test_the_message_about_an_unknown_tap_does_not_list_every_module():
    """A model of another library has a tap for each of its modules."""
    sizes = {"stem": 4, "stage1": 4, **{f"module.layer{i}.conv": 4 for i in range(300)}}
    foreign = TapSpec(sizes, dict.fromkeys(sizes, (4, 4)), 4, CLASSES)
    with pytest.raises(ValueError, match=r"^no tap named 'stag1'; the student has: stem, stage1, module.PATH, last \("):
        foreign.resolve("stag1", "the student")
    with pytest.raises(ValueError, match=r"such as module.layer12.conv, module.layer"):
        foreign.resolve("module.layer12.con")
    assert foreign.resolve("module.layer7.conv") == "module.layer7.conv" and foreign.resolve("last") == "stage1"
    no_stages = TapSpec({"module.block": 4}, {"module.block": (4, 4)}, 4, CLASSES)
    with pytest.raises(ValueError, match=r"'last'; this model has: module.PATH \(such as module.block\)$"):
        no_stages.resolve("last")


@pytest.mark.parametrize(
    ("cls", "hyper"), [(FitNets, {"tap": "a:b"}), (ReKD, {"tap": "a:b"}), (FT, {"tap": "a:b"}), (AT, {"taps": "a:b"})]
)
def test_a_tap_of_each_model_is_named_where_their_names_differ(cls, hyper):
    student, teacher = (TapSpec({tap: 8}, {tap: (4, 4)}, 8, CLASSES) for tap in "ab")
    method = cls(student, teacher, **hyper)
    stage = method.first_stage or method
    assert tuple(stage.teacher_taps) == ("b",)
    assert cls is FT or tuple(method.student_taps) == ("a",)
    for missing, of in (("c:b", "student"), ("a:c", "teacher")):
        with pytest.raises(ValueError, match=f"no tap named 'c'; the {of} has: [ab]"):
            cls(student, teacher, **{key: missing for key in hyper})


# FitNets


@pytest.mark.parametrize(
    ("s", "t", "kind", "kernel"),
    [
        ((8, 8), (8, 8), nn.Conv2d, (1, 1)),
        ((8, 8), (4, 4), nn.Conv2d, (3, 3)),
        ((4, 4), (8, 8), nn.ConvTranspose2d, (4, 4)),
        ((7, 7), (5, 5), nn.Conv2d, (3, 3)),
        ((8, 6), (5, 5), nn.Conv2d, (4, 2)),
    ],
)
def test_regressor_reaches_the_teachers_size(s, t, kind, kernel):
    regressor = ConvRegressor(3, 5, s, t)
    assert type(regressor.conv) is kind and regressor.conv.kernel_size == kernel
    assert regressor(torch.randn(2, 3, *s)).shape == (2, 5, *t)


@pytest.mark.parametrize(
    ("s", "t", "grid"), [((7, 7), (8, 8), (7, 7)), ((1, 1), (8, 8), (1, 1)), ((4, 9), (7, 7), (4, 7))]
)
def test_a_regressor_from_too_small_a_map_works_on_the_smaller_grid(s, t, grid):
    specs = [TapSpec({"stage2": c}, {"stage2": size}, 4, CLASSES) for c, size in ((3, s), (5, t))]
    method = FitNets(*specs)
    f_s, f_t = torch.randn(2, 3, *s), torch.randn(2, 5, *t)
    nothing = torch.zeros(2, CLASSES)
    term = method(
        make_batch(torch.arange(2)),
        Outputs(nothing, nothing, {"stage2": f_s}),
        Outputs(nothing, nothing, {"stage2": f_t}),
    )
    hint = method.regressor(f_s)
    assert hint.shape == (2, 5, *grid)
    assert torch.equal(term["hint"], F.mse_loss(hint, F.adaptive_avg_pool2d(f_t, grid)))


# CRD


def crd_for(labels: Tensor, negatives: int, mode: Literal["exact", "relax"] = "exact") -> CRD:
    method = CRD(STUDENT, TEACHER, feat_dim=4, negatives=negatives, mode=mode)
    method.setup(labels)
    return method


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1),
    negatives=st.integers(1, 60),
    mode=st.sampled_from(["exact", "relax"]),
    seed=st.integers(0, 2**31),
)
@example(labels=[0, 1, 1, 1, 2], negatives=4, mode="exact", seed=0)  # just enough rows
def test_contrast_rows(labels, negatives, mode, seed):
    targets, indices = torch.tensor(labels), torch.arange(len(labels))
    method = crd_for(targets, negatives, mode)
    rows = method.contrast_rows(Batch(torch.zeros(0), targets, indices, SampleRandom(seed, len(labels))))
    assert rows.shape == (len(labels), 1 + negatives)
    assert rows.min() >= 0 and rows.max() < len(labels)
    assert (targets[rows[:, 1:]] != targets[:, None]).all(), "a negative of the anchor's own class"
    for anchor, row in enumerate(rows[:, 1:]):
        if (targets != targets[anchor]).sum() >= negatives:
            assert len(row.unique()) == negatives, "a negative drawn twice"
    if mode == "exact":
        assert torch.equal(rows[:, 0], indices)
    else:
        assert torch.equal(targets[rows[:, 0]], targets)


@pytest.mark.parametrize("negatives", [1, 5, 11, 13, 40])
def test_every_row_of_another_class_is_equally_likely(negatives):
    draws, targets = 20_000, torch.tensor([2, 0, 0, 1, 2, 2, 1, 0, 1, 1, 1, 2, 2, 0, 2, 0])  # 5 + 5 + 6
    batch = Batch(torch.zeros(0), torch.full((draws,), 1), torch.full((draws,), 3), SampleRandom(5, draws))
    rows = crd_for(targets, negatives, mode="relax").contrast_rows(batch)
    for drawn, candidates in ((rows[:, 1:], targets != 1), (rows[:, :1], targets == 1)):
        counts = torch.bincount(drawn.flatten(), minlength=len(targets)).double()
        assert (counts[~candidates] == 0).all()
        expected = drawn.numel() / candidates.sum()
        # at most Poisson's spread, 5 sigma
        assert ((counts[candidates] - expected).abs() <= 5 * expected.sqrt()).all()


def test_gathered_rows_equal_the_matrix_product(monkeypatch):
    v, bank = torch.randn(4, 6, dtype=torch.float64, requires_grad=True), torch.randn(20, 6, dtype=torch.float64)
    rows, results = torch.randint(20, (4, 9)), []
    for dense_up_to in (0, 16):
        monkeypatch.setattr(crd, "DENSE_UP_TO", dense_up_to)
        original = bank.clone()
        scores = row_scores(v, bank, rows, torch.arange(20))
        bank.zero_()  # the method overwrites its bank before the backward pass
        (gradient,) = torch.autograd.grad(scores.square().sum(), v)
        bank = original
        results.append((scores, gradient))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_scores_of_a_changed_bank_have_the_gradient_of_a_copy_bit_for_bit():
    v, bank = torch.randn(6, 8, requires_grad=True), torch.randn(40, 8)
    rows, changing, weight = torch.randint(40, (6, 9)), torch.tensor([3, 0, 3, 39, 5, 7]), torch.randn(6, 9)
    of_copy = ((v @ bank.clone().T).gather(1, rows) * weight).sum()
    scores = row_scores(v, bank, rows, changing)
    bank[changing] = changed = torch.randn(6, 8)[[0, 1, 0, 3, 4, 5]]  # equal rows for the image that is there twice
    (expected,) = torch.autograd.grad(of_copy, v)
    (gradient,) = torch.autograd.grad((scores * weight).sum(), v)
    assert torch.equal(gradient, expected)
    assert torch.equal(bank[changing], changed)


def test_attention_of_squares_is_that_of_the_general_power_bit_for_bit():
    student, teacher = torch.randn(4, 6, 5, 5).relu().requires_grad_(), torch.randn(4, 7, 5, 5)
    losses = [attention_loss(student, teacher, 2.0)]
    a_s, a_t = (unit(f.abs().pow(2.0).mean(1).flatten(1)) for f in (student, teacher))
    losses.append(F.mse_loss(a_s, a_t))
    assert torch.equal(*losses)
    (a,), (b,) = (torch.autograd.grad(loss, student) for loss in losses)
    assert torch.equal(a, b)


@pytest.mark.parametrize("p", [1, 3])
def test_odd_powers_are_of_absolute_values(p: int):
    """RepDistiller has no absolute value there; docs/methods.md says so."""
    student, teacher = torch.randn(4, 6, 5, 5), torch.randn(4, 7, 5, 5)
    with_abs, without = (
        F.mse_loss(*(F.normalize(x.pow(p).mean(1).flatten(1)) for x in maps))
        for maps in ((student.abs(), teacher.abs()), (student, teacher))
    )
    torch.testing.assert_close(attention_loss(student, teacher, float(p)), with_abs)
    assert abs(with_abs - without) > 0.1 * with_abs
    of_s, of_t = (F.normalize(x.square().mean(1).flatten(1)) for x in (student, teacher))
    torch.testing.assert_close(factor_loss(student, teacher, 2, p), (of_s - of_t).abs().pow(p).mean())


def test_bank_rows_begin_in_every_direction_with_about_unit_length():
    method = CRD(STUDENT, TEACHER, negatives=8, feat_dim=64)
    method.setup(torch.arange(2000) % 10)
    for bank in (method.bank_s, method.bank_t):
        assert bank.norm(dim=1).mean().item() == pytest.approx(1, rel=0.05)
        assert bank.mean(0).norm().item() < 0.1


def test_bank_rows_move_towards_the_new_embedding():
    method = make("crd")
    before, indices = method.bank_s.clone(), torch.tensor([5, 2, 5, 9])
    student = outputs(STUDENT, 4, seed=1)
    method(make_batch(indices), student, outputs(TEACHER, 4, seed=2))
    new = method.embed_s(student.embedding).detach()
    for row, sample in ((2, 1), (9, 3), (5, 2)):  # image 5 is in the batch twice: its last embedding counts
        torch.testing.assert_close(method.bank_s[row], F.normalize((before[row] + new[sample]) / 2, dim=0))
    untouched = [i for i in range(IMAGES) if i not in (2, 5, 9)]
    assert torch.equal(method.bank_s[untouched], before[untouched])


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        crd_for(torch.zeros(5, dtype=torch.int64), 3)


def test_state_is_restored_from_a_checkpoint():
    method, resumed = make("crd", seed=1), make("crd", seed=2)

    def loss(method: Distiller) -> Tensor:
        return method(make_batch(torch.arange(8)), outputs(STUDENT, 8, 1), outputs(TEACHER, 8, 2))["crd"]

    loss(method)
    resumed.load_state_dict(state(method))
    assert torch.equal(loss(method), loss(resumed))
    assert all(torch.equal(value, state(resumed)[key]) for key, value in state(method).items())
    # buffers that follow from the labels are not saved
    assert {key.partition(".")[0] for key in state(method)} == {"embed_s", "embed_t", "bank_s", "bank_t", "log_z"}
