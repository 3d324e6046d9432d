"""Heads of models, and the methods SimKD and DML, which use a teacher's classifier or train the teacher."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.taps import ConvNet, Taps, describe_taps
from harness.models.zoo import build_model
from harness.spec.models import CATALOG as MODELS
from harness.spec.tasks import DATASETS
from harness.training.frozen_parts import remove_head_bias
from methods.base import CAM, Batch, Head, Outputs, SampleRandom, TapSpec
from methods.catkd import CATKD
from methods.dml import DML
from methods.simkd import SimKD
from methods.tap_pairs import expand_taps

B, CLASSES = 6, 5
TARGETS = torch.arange(B) % CLASSES
EXACT = {"rtol": 1e-4, "atol": 1e-4}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_heads_of_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    info = next(d for d in DATASETS.values() if d.image_shape == MODELS[name].image_shape)
    model = build_model(name, info.classes, info.image_shape[0]).eval()
    nn.init.normal_(next(p for p in reversed(list(model.parameters())) if p.ndim == 1))  # the head's bias
    spec = describe_taps(model, info.image_shape)
    head = spec.head
    assert head is not None
    with torch.no_grad():
        out = model(draw(3, *info.image_shape, seed=7), (head.tap, CAM))
    logits = F.linear(head.read(out.features).mean((2, 3)), head.weight, head.bias)
    torch.testing.assert_close(logits, out.logits, **EXACT)
    difference = out.features[CAM].mean((2, 3)) + head.bias - out.logits
    assert difference.abs().max() < 1e-5 * out.logits.abs().max()
    assert out.features[CAM].shape[1:] == (spec.channels[CAM], *spec.sizes[CAM])
    assert list(out.features) == [head.tap, CAM]
    assert spec.resolve("last").startswith("stage") and CAM not in expand_taps(spec, "stages")


class Odd(ConvNet):
    """A model that ends in a mean and a linear layer, or in something else."""

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
def test_heads_are_recognised_by_the_models_outputs(end: str, has_head: bool) -> None:
    model = Odd(end)
    spec = describe_taps(model, (3, 8, 8))
    assert (spec.head is not None) == has_head == (CAM in spec.names)
    if not has_head:
        with pytest.raises(ValueError, match="no tap named 'cam'; this model has: stage1"):
            model(draw(2, 3, 8, 8), (CAM,))
        with pytest.raises(ValueError, match="no bias to leave out"):
            remove_head_bias(model)


# Class activation maps


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("resnet8", "stage3"),
        ("wrn_16_1", "stage3.preact"),
        ("timm:test_resnet", "stage4"),
        ("torchvision:shufflenet_v2_x0_5", "stage4"),
        ("timm:test_vit", "cls"),
    ],
)
def test_class_activation_maps_are_the_living_classifiers_values_at_each_position(name: str, tap: str) -> None:
    torch.manual_seed(0)
    size = 160 if "vit" in name else 32
    model, images = build_model(name, CLASSES, 3, (size, size)).eval(), draw(2, 3, size, size)
    spec = describe_taps(model, (3, size, size))
    assert spec.head is not None and spec.head.tap == tap
    copied = copy.deepcopy(model)
    for parameter in model.parameters():  # the original's must not be what the copy reads
        nn.init.zeros_(parameter)
    nn.init.normal_(copied.get_submodule(copied.head_place.layer).weight)
    out = copied(images, (CAM,))
    assert list(out.features) == [CAM]
    weight, bias = (p for name, p in copied.named_parameters() if name.startswith(f"{copied.head_place.layer}."))
    features = copied(images, (spec.head.tap,)).features
    values = torch.einsum("kc,bchw->bkhw", weight, spec.head.read(features))
    torch.testing.assert_close(out.features[CAM], values, **EXACT)
    torch.testing.assert_close(out.features[CAM].mean((2, 3)) + bias, out.logits, **EXACT)
    torch.testing.assert_close(copied.maps(images, (CAM,))[CAM], out.features[CAM])
    out.features[CAM].sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0 and bias.grad is None


def test_without_a_head_a_method_of_class_activation_maps_is_refused() -> None:
    for student, teacher, who in ((True, False, "teacher"), (False, True, "student")):
        with pytest.raises(ValueError, match=f"the {who}'s logits are not linear"):
            CATKD(spec(4, 4, head=student), spec(4, 4, head=teacher))


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


def test_a_student_with_the_teachers_map_predicts_as_the_teacher() -> None:
    """The projector is made the identity: as many inner channels as outer ones, and Dirac kernels."""
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


@pytest.mark.parametrize(("student_size", "teacher_size"), [(8, 4), (4, 8), (4, 4)])
def test_maps_are_compared_on_the_smaller_grid(student_size: int, teacher_size: int) -> None:
    method = SimKD(spec(6, student_size, head=False), spec(4, teacher_size))
    student, teacher = outputs(spec(6, student_size)), outputs(spec(4, teacher_size), seed=3)
    projected = method.project(F.adaptive_avg_pool2d(student.features["stage2"], 4))
    expected = F.mse_loss(projected, F.adaptive_avg_pool2d(teacher.features["stage2"], 4))
    assert method(batch(), student, teacher)["feature"] == expected
    assert method.predict(student).shape == (B, CLASSES)


def test_the_classifier_is_a_fixed_copy_of_the_teachers() -> None:
    teacher = spec(4, 4)
    method = SimKD(spec(6, 4, head=False), teacher)
    assert teacher.head is not None
    assert torch.equal(method.classifier_weight, teacher.head.weight)
    assert method.classifier_weight is not teacher.head.weight, "a copy, so that the teacher cannot change"
    sum(method(batch(), outputs(spec(6, 4)), outputs(teacher, 3)).values()).backward()
    assert method.classifier_weight.grad is None and method.classifier_bias.grad is None
    assert {"classifier_weight", "classifier_bias"} < set(method.state_dict()), "in checkpoints"


@pytest.mark.parametrize(
    ("teacher", "hyper", "message"),
    [
        (spec(4, 4, head=False), {}, "no classifier"),
        (spec(4, 4), {"factor": 3}, "factor 3 does not divide the 4"),
    ],
)
def test_simkd_refuses_wrong_settings(teacher: TapSpec, hyper: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimKD(spec(6, 4), teacher, **hyper)


# DML


def test_each_network_sees_the_other_as_a_constant() -> None:
    z_student, z_peer = draw(B, CLASSES).requires_grad_(), draw(B, CLASSES, seed=1).requires_grad_()
    nothing = torch.zeros(0)
    terms = DML(spec(4, 4), spec(4, 4))(batch(), Outputs(z_student, nothing), Outputs(z_peer, nothing))
    p, q = z_student.detach().softmax(1), z_peer.detach().softmax(1)
    assert terms["kl"].item() == pytest.approx(((q * (q / p).log()).sum() / B).item(), rel=1e-5)
    assert terms["peer_kl"].item() == pytest.approx(((p * (p / q).log()).sum() / B).item(), rel=1e-5)
    assert terms["peer_ce"].item() == pytest.approx(F.cross_entropy(z_peer, TARGETS).item(), rel=1e-6)
    (grad,) = torch.autograd.grad(terms["kl"], z_student, retain_graph=True)
    torch.testing.assert_close(grad, (p - q) / B, rtol=1e-4, atol=1e-6)
    assert torch.autograd.grad(terms["kl"], z_peer, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(terms["peer_kl"], z_student, allow_unused=True) == (None,)


@pytest.mark.parametrize(("hyper", "message"), [({"start": "half"}, "start must be"), ({"temperature": 0}, "positive")])
def test_dml_refuses_wrong_settings(hyper: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DML(spec(4, 4), spec(4, 4), **hyper)  # type: ignore[arg-type]
