"""The recipe's ``ema``: a run evaluates and saves the average of the weights over the steps."""

import pytest
import torch
from torch import Tensor

from harness.data.load.tensors import Normalise, TensorEvalSet
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec.tasks import DATASETS
from harness.training.member import Member
from harness.training.tasks.classification import Classification
from methods.base import Batch, Outputs, SampleRandom
from tests.support.sciences import make_science
from tests.support.steps import train_step

CPU, INFO = torch.device("cpu"), DATASETS["digits"]
SHAPE, DECAY, STEPS = (1, 8, 8), 0.8, 4
IMAGES = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(8) % 10


def member(ema: float, method: str = "student") -> Member:
    science = make_science("digits_net_w4", method, epochs=2, batch_size=8, ema=ema)
    return Member(science, None, TARGETS, Classification(10, SHAPE), CPU)


def step(m: Member, number: int) -> None:
    m.begin_epoch()
    nothing = Outputs(torch.empty(0), torch.empty(0))
    train_step(m, Batch(IMAGES + number, TARGETS, torch.arange(8), SampleRandom(number, 8), 1), nothing)


def numbers(model: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}


def test_the_average_of_the_weights_does_not_change_training() -> None:
    plain, averaged = member(0), member(DECAY)
    expected = numbers(plain.student)
    for i in range(STEPS):
        step(plain, i)
        step(averaged, i)
        now = numbers(plain.student)
        expected = {k: DECAY * v + (1 - DECAY) * now[k] for k, v in expected.items()}
    assert all(torch.equal(v, plain.student.state_dict()[k]) for k, v in averaged.student.state_dict().items())
    saved = averaged.trained_tensors()
    assert saved.keys() == plain.trained_tensors().keys()
    for k, v in expected.items():
        torch.testing.assert_close(saved[k], v, rtol=1e-5, atol=1e-6)


def test_the_average_is_evaluated() -> None:
    m = member(DECAY)
    step(m, 0)
    on = TensorEvalSet("test", (IMAGES.abs() * 50).to(torch.uint8), TARGETS, Normalise(INFO, CPU))
    before = m.ema and numbers(m.ema.model)
    m.history.epoch = 1
    m.evaluate(on)
    student = build_model("digits_net_w4", 10, 1)
    student.load_state_dict(m.trained_tensors())
    logits = student.eval()(next(on.batches(slice(0, 8)))[0]).logits
    assert m.history.last and m.history.last["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, TARGETS).item(), rel=1e-5
    )
    assert m.ema and all(torch.equal(v, before[k]) for k, v in numbers(m.ema.model).items())
    assert describe_taps(student, SHAPE).num_classes == 10


def test_a_run_resumes_its_average() -> None:
    whole, cut = member(DECAY), member(DECAY)
    for i in range(STEPS):
        step(whole, i)
    for i in range(STEPS // 2):
        step(cut, i)
    resumed = member(DECAY)
    resumed.restore({k: v.clone() for k, v in cut.tensors().items()}, cut.state())
    for i in range(STEPS // 2, STEPS):
        step(resumed, i)
    ended = whole.tensors()
    assert any(k.startswith("average.") for k in ended)
    assert all(torch.equal(v, ended[k]) for k, v in resumed.tensors().items())
