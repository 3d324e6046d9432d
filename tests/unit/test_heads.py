"""Where a model's logits come from, and SimKD and DML, which use more of a teacher than its outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps, describe_taps
from harness.models.zoo import build_model
from harness.spec.models import CATALOG as MODELS
from harness.spec.tasks import DATASETS
from methods.base import Batch, Head, Outputs, SampleRandom, TapSpec
from methods.dml import DML
from methods.simkd import SimKD

B, CLASSES = 6, 5
TARGETS = torch.arange(B) % CLASSES
HEADLESS = {"MobileNetV2", "ShuffleV2"}  # a further convolution after their last tap


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_heads_of_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    info = next(d for d in DATASETS.values() if d.image_shape == MODELS[name].image_shape)
    model = build_model(name, info.classes, info.image_shape[0]).eval()
    head = describe_taps(model, info.image_shape).head
    if name in HEADLESS:
        assert head is None
        return
    assert head is not None
    with torch.no_grad():
        out = model(draw(3, *info.image_shape, seed=7), (head.tap,))
    logits = F.linear(head.read(out.features).mean((2, 3)), head.weight, head.bias)
    torch.testing.assert_close(logits, out.logits, rtol=1e-4, atol=1e-4)


class Odd(ConvNet):
    """Ends in something else than a mean and a linear layer."""

    tap_names = ("stage1",)

    def __init__(self, end: str):
        super().__init__()
        self.conv, self.fc, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES), end

    def run(self, images: Tensor, taps: Taps) -> tuple[Tensor, Tensor]:
        x = taps("stage1", self.conv(images))
        embedding = x.amax((2, 3)) if self.end == "max" else x.mean((2, 3))
        logits = self.fc(embedding)
        return embedding, F.normalize(logits) if self.end == "norm" else logits


@pytest.mark.parametrize(("end", "has_head"), [("mean", True), ("max", False), ("norm", False)])
def test_a_head_is_found_by_what_the_model_computes(end: str, has_head: bool) -> None:
    assert (describe_taps(Odd(end), (3, 8, 8)).head is not None) == has_head


# SimKD


def spec(channels: int, size: int, head: bool = True) -> TapSpec:
    end = Head("stage2", draw(CLASSES, channels), draw(CLASSES, seed=1)) if head else None
    sizes = {"stage1": (8, 8), "stage2": (size, size)}
    return TapSpec({"stage1": 3, "stage2": channels}, sizes, channels, CLASSES, end)


def outputs(spec: TapSpec, seed: int = 0) -> Outputs:
    maps = {t: draw(B, c, *spec.sizes[t], seed=seed).relu() for t, c in spec.channels.items()}
    return Outputs(draw(B, CLASSES, seed=seed), draw(B, spec.embedding_dim, seed=seed), maps)


def batch() -> Batch:
    return Batch(torch.zeros(0), TARGETS, torch.arange(B), SampleRandom(0, B))


def test_a_student_that_hits_the_teachers_map_predicts_as_the_teacher() -> None:
    """Identity for P, as far as an identity can be: channels inside as many as outside, kernels of a single one."""
    wide = spec(4, 4)
    method = SimKD(wide, wide, factor=1).eval()
    with torch.no_grad():
        for conv in method.project[::3]:
            nn.init.dirac_(conv.weight)
    same = outputs(wide)
    terms = method(batch(), same, same)
    assert terms["feature"] < 1e-9  # batch norms in eval mode divide by sqrt(1 + eps)
    assert wide.head is not None
    logits = F.linear(same.features["stage2"].mean((2, 3)), wide.head.weight, wide.head.bias)
    torch.testing.assert_close(method.predict(same), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, TARGETS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mine", "theirs"), [(8, 4), (4, 8), (4, 4)])
def test_maps_meet_on_the_smaller_grid(mine: int, theirs: int) -> None:
    method = SimKD(spec(6, mine, head=False), spec(4, theirs))
    student, teacher = outputs(spec(6, mine)), outputs(spec(4, theirs), seed=3)
    projected = method.project(F.adaptive_avg_pool2d(student.features["stage2"], 4))
    expected = F.mse_loss(projected, F.adaptive_avg_pool2d(teacher.features["stage2"], 4))
    assert method(batch(), student, teacher)["feature"] == expected
    assert method.predict(student).shape == (B, CLASSES)


def test_the_classifier_is_the_teachers_and_stays_so() -> None:
    teacher = spec(4, 4)
    method = SimKD(spec(6, 4, head=False), teacher)
    assert teacher.head is not None
    assert torch.equal(method.classifier_weight, teacher.head.weight)
    assert method.classifier_weight is not teacher.head.weight, "a copy: nothing here can change the teacher"
    sum(method(batch(), outputs(spec(6, 4)), outputs(teacher, 3)).values()).backward()
    assert method.classifier_weight.grad is None and method.classifier_bias.grad is None
    assert {"classifier_weight", "classifier_bias"} < set(method.state_dict()), "saved and restored with the rest"


@pytest.mark.parametrize(
    ("teacher", "hyper", "message"),
    [
        (spec(4, 4, head=False), {}, "no classifier"),
        (spec(4, 4), {"factor": 3}, "factor 3 does not divide the 4"),
    ],
)
def test_what_simkd_cannot_use(teacher: TapSpec, hyper: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimKD(spec(6, 4), teacher, **hyper)


# DML


def test_each_learns_from_the_other_as_from_a_constant() -> None:
    mine, peers = draw(B, CLASSES).requires_grad_(), draw(B, CLASSES, seed=1).requires_grad_()
    nothing = torch.zeros(0)
    terms = DML(spec(4, 4), spec(4, 4))(batch(), Outputs(mine, nothing), Outputs(peers, nothing))
    p, q = mine.detach().softmax(1), peers.detach().softmax(1)
    assert terms["kl"].item() == pytest.approx(((q * (q / p).log()).sum() / B).item(), rel=1e-5)
    assert terms["peer_kl"].item() == pytest.approx(((p * (p / q).log()).sum() / B).item(), rel=1e-5)
    assert terms["peer_ce"].item() == pytest.approx(F.cross_entropy(peers, TARGETS).item(), rel=1e-6)
    (grad,) = torch.autograd.grad(terms["kl"], mine, retain_graph=True)
    torch.testing.assert_close(grad, (p - q) / B, rtol=1e-4, atol=1e-6)
    assert torch.autograd.grad(terms["kl"], peers, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(terms["peer_kl"], mine, allow_unused=True) == (None,)


@pytest.mark.parametrize(("hyper", "message"), [({"start": "half"}, "start must be"), ({"temperature": 0}, "positive")])
def test_what_dml_cannot_use(hyper: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DML(spec(4, 4), spec(4, 4), **hyper)  # type: ignore[arg-type]
