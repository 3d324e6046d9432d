"""Speed-ups of a frozen teacher do not change its outputs, unless the recipe says so."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec.tasks import DATASETS
from harness.training import precision
from harness.training.precision import set_float32
from harness.training.teacher import Teacher, freeze, narrow_to_bfloat16
from methods.base import Outputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_built")]
SHAPE = DATASETS["cifar100"].image_shape
SMALL = ["resnet8", "resnet8x4", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]
CPU = torch.device("cpu")


def teacher(name: str) -> Teacher:
    torch.manual_seed(0)
    model = build_model(name, 10)
    spec = describe_taps(model, SHAPE)
    freeze(model, CPU)
    return Teacher(model, name, Path(), "", 0.0, spec)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def all_tensors(outputs: Outputs) -> dict[str, Tensor]:
    return {"logits": outputs.logits, "embedding": outputs.embedding, **outputs.features}


@pytest.mark.parametrize("name", SMALL)
def test_weights_held_as_bfloat16_change_no_bit(name: str) -> None:
    plain, narrowed = teacher(name), teacher(name)
    narrowed.prepare("bf16")
    assert {p.dtype for p in narrowed.model.parameters()} >= {torch.bfloat16}
    taps = set(plain.spec.names)
    expected, actual = (all_tensors(t(images(), taps, "bf16", 4)) for t in (plain, narrowed))
    assert all(torch.equal(expected[k], actual[k]) and actual[k].dtype == torch.float32 for k in expected)


def test_other_precisions_keep_their_weights() -> None:
    for name in ("float32", "tf32"):
        t = teacher("resnet8")
        t.prepare(name)
        assert {p.dtype for p in t.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_network_can_be_compiled_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is traced as one graph, with and without taps, by a backend that then runs it eagerly."""
    torch._dynamo.reset()  # it gives up on code that it has often compiled, as for the other networks here
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda m, dynamic: compiled(m, dynamic=dynamic, fullgraph=True, backend="eager")
    )
    t, plain = teacher(name), teacher(name)
    t.prepare("float32", compiled_for=4)
    for taps in (set(), set(plain.spec.names)):
        expected, actual = (all_tensors(x(images(), taps, "float32", 4)) for x in (plain, t))
        assert expected.keys() == actual.keys() and all(torch.equal(expected[k], actual[k]) for k in expected)
    assert t._compiled is not None, "it did not fall back"


def test_without_a_compiler_the_teacher_runs_uncompiled_and_logs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(images: Tensor, taps: object) -> Outputs:
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", lambda m, dynamic: fails)
    t, plain = teacher("resnet8"), teacher("resnet8")
    t.prepare("float32", compiled_for=4)
    for count in (3, 4, 4):
        arguments = (images(count), set(), "float32", count)
        assert torch.equal(t(*arguments).logits, plain(*arguments).logits)
        assert (t._compiled is None) == (count == 4), "only whole batches are compiled"
    assert capsys.readouterr().out == "the teacher runs uncompiled: RuntimeError: no compiler here\n"


def test_float32_does_not_allow_tf32_on_a_gpu() -> None:
    for name in ("tf32", "float32", "tf32", "bf16"):
        set_float32(name)
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert allowed == (name == "tf32",) * 2
    assert precision.autocast(CPU, "tf32")._enabled is False


def test_a_layer_that_computes_with_its_weights_keeps_them() -> None:
    class Standardised(nn.Conv2d):
        pass

    module = nn.Sequential(Standardised(1, 1, 1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1))
    narrow_to_bfloat16(module)
    assert [m.weight.dtype == torch.bfloat16 for m in module] == [False, False, True, True]
