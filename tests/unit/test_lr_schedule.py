"""Learning rates: golden values, timm's schedule, and what a run in training is given."""

import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor

from harness.spec.lr_schedule import learning_rate
from harness.spec.schema import Recipe
from harness.training.member import Member
from tests.support.packs import EPOCHS, Counted, assert_same_end, train

STEPS = 4  # of an epoch of tests.support.packs
COSINE = {"schedule": "cosine", "min_lr": 1e-5, "warmup_epochs": 2, "warmup_lr": 1e-6, "schedule_by": "step"}


def recipe(**more: object) -> Recipe:
    return Recipe.model_validate({"epochs": 10, "lr": 0.1, **more})


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        ({}, [0.1] * 10),
        ({"milestones": [3, 8]}, [0.1] * 3 + [0.01] * 5 + [0.001] * 2),
        ({"schedule": "cosine"}, [0.05 * (1 + math.cos(math.pi * e / 10)) for e in range(10)]),
        ({"schedule": "cosine", "min_lr": 0.02}, [0.02 + 0.04 * (1 + math.cos(math.pi * e / 10)) for e in range(10)]),
        ({"warmup_epochs": 3, "milestones": [5]}, [0.025, 0.05, 0.075, 0.1, 0.1] + [0.01] * 5),
    ],
)
def test_rates_by_epoch(keys: dict[str, object], rates: list[float]) -> None:
    assert [learning_rate(recipe(**keys), e) for e in range(10)] == pytest.approx(rates, rel=1e-12)


def test_rates_by_step_are_timms() -> None:
    """With ``t_in_epochs=False``; timm's own training by epoch gives the rates of the epochs' first steps."""
    parameter = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    by_step, steps = recipe(**COSINE), 7
    schedule = CosineLRScheduler(
        optimizer, t_initial=10 * steps, lr_min=1e-5, warmup_t=2 * steps, warmup_lr_init=1e-6, t_in_epochs=False
    )
    for step in range(10 * steps):
        schedule.step_update(step)
        assert learning_rate(by_step, step / steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
    by_epoch = CosineLRScheduler(optimizer, t_initial=10, lr_min=1e-5, warmup_t=2, warmup_lr_init=1e-6)
    for epoch in range(10):
        by_epoch.step(epoch)
        assert learning_rate(by_step, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_rates_of_milestones_by_step_fall_at_the_milestones_first_step() -> None:
    by_step = recipe(milestones=[3], schedule_by="step")
    assert [learning_rate(by_step, step / 7) for step in (20, 21)] == [0.1, pytest.approx(0.01)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_steps_with_a_rate_of_their_own_are_captured_once(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured step reads the learning rate from a tensor: a pass through the same graph takes another one."""
    keys = {**COSINE, "optimizer": optimizer, "lr": 0.02, "milestones": [], "warmup_epochs": 1}
    eager, _ = train(["kd"], None, **keys)
    seen: list[float] = []
    original = Member.begin_step

    def begin_step(member: Member, step: int) -> None:
        original(member, step)
        assert isinstance(member.lr, Tensor)
        seen.append(float(member.lr))

    monkeypatch.setattr(Member, "begin_step", begin_step)
    capture = Counted()
    captured, watcher = train(["kd"], capture, **keys)
    assert not watcher.failures
    assert_same_end(eager["kd"], captured["kd"])
    assert capture.captures == 2, "the teacher's and the student's"
    settings = recipe(**{**keys, "epochs": EPOCHS})
    expected = [learning_rate(settings, step / STEPS) for step in range(STEPS * EPOCHS)]
    assert seen == pytest.approx(expected, rel=1e-6) and len(set(seen)) == STEPS * EPOCHS


def test_rates_beyond_lr_are_refused() -> None:
    for key in ("min_lr", "warmup_lr"):
        with pytest.raises(ValueError, match=f"{key} must be at most lr, 0.1, found 0.2"):
            recipe(**{key: 0.2})
