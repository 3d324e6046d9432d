"""The stage before the main one: the parameters that it trains and those that it leaves unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.models.taps import ConvNet, describe_taps
from harness.models.zoo import build_model
from harness.spec import models
from harness.training.member import Member
from harness.training.pack import share_costs
from harness.training.stopwatch import Stopwatch
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher
from methods.base import Batch, SampleRandom
from tests.support.sciences import make_science
from tests.support.steps import train_step

pytestmark = pytest.mark.usefixtures("quickly_built")
CLASSES, SHAPE = 5, (3, 32, 32)
TARGETS = torch.arange(8) % CLASSES
ZOO = sorted(n for n in models.CATALOG if models.CATALOG[n].image_shape == SHAPE and "110" not in n)


def make_teacher(name: str) -> Teacher:
    torch.manual_seed(7)
    model = build_model(name, CLASSES)
    return Teacher(model.eval().requires_grad_(False), name, Path(), "", 0.0, describe_taps(model, SHAPE))


def member(student: str, teacher: Teacher, use: str, **params: Any) -> Member:
    recipe: dict[str, Any] = {"epochs": 2, "lr": 0.05, "milestones": [1], "weight_decay": 0.01}
    defaults = {"first_epochs": 2} | params
    weights = {"ft": {"ce": 1.0, "factor": 200.0}}.get(use, {"ce": 1.0})
    science = make_science(student, use, defaults, weights, **recipe)
    return Member(science, teacher, TARGETS, Classification(CLASSES, SHAPE), torch.device("cpu"))


def epoch(m: Member, teacher: Teacher) -> None:
    """Train an epoch of two steps."""
    m.begin_epoch()
    for seed in range(2):
        images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(seed))
        outputs = teacher(images, m.teacher_taps or set(), "float32", len(images))
        train_step(m, Batch(images, TARGETS, torch.arange(8), SampleRandom(seed, 8), m.history.epoch + 1), outputs)
    m.end_epoch()


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("student", "behind", "use", "params"),
    [
        ("resnet8", ("fc.",), "ab", {}),
        ("ShuffleV2", ("conv2.", "bn2.", "linear."), "ab", {}),
        ("MobileNetV2", ("blocks.5.", "blocks.6.", "conv2.", "classifier."), "ab", {"taps": "stage1,stage2,stage3"}),
        ("resnet8", ("layer3.", "fc."), "fsp", {"taps": "stem,stage1,stage2"}),
    ],
)
def test_the_student_is_trained_up_to_the_last_tap(
    student: str, behind: tuple[str, ...], use: str, params: dict[str, Any]
) -> None:
    """Weights and batch norm statistics change up to the last tap. After it nothing changes, not even by decay."""
    teacher = make_teacher("resnet8")
    m = member(student, teacher, use, **params)
    student_before, method_before, teacher_before = state(m.student), state(m.distiller), state(teacher.model)
    epoch(m, teacher)
    trained = changed(student_before, m.student)
    assert trained == {name for name in student_before if not name.startswith(behind)}
    assert changed(method_before, m.distiller) == set(method_before)
    assert not changed(teacher_before, teacher.model)


def test_the_paraphraser_is_trained_first_and_the_rest_afterwards() -> None:
    teacher = make_teacher("resnet8")
    m = member("resnet8x4", teacher, "ft")
    student_before, method_before = state(m.student), state(m.distiller)
    for _ in range(2):
        epoch(m, teacher)
    assert not changed(student_before, m.student), "the student does not run"
    layers = {name for name in method_before if not name.startswith("translator")}
    assert changed(method_before, m.distiller) == layers
    assert not m.in_first_stage
    method_before = state(m.distiller)
    epoch(m, teacher)
    assert changed(student_before, m.student) == set(student_before)
    assert changed(method_before, m.distiller) == set(method_before) - layers, "not even by weight decay"


def test_stages_have_their_own_learning_rates_epochs_curves_and_momenta() -> None:
    teacher = make_teacher("resnet8")
    for use, params, first in (("ab", {}, 0.05), ("ft", {"first_lr": 0.2}, 0.2)):
        m = member("resnet8", teacher, use, **params)
        rates = []
        for expected in (-2, -1, 0, 1):
            assert (m.history.epoch, m.in_first_stage) == (expected, expected < 0)
            has_momenta = bool(m.engine.state()["momentum"])
            assert has_momenta == (expected not in (-2, 0)), "the main stage begins without momenta"
            epoch(m, teacher)
            rates.append(m.lr)
        assert rates == pytest.approx([first, first, 0.05, 0.005])
        curves = {(e, name.partition("_")[0]) for e, name, _ in m.history.curves}
        assert curves == {(-1, "first"), (0, "first"), (1, "train"), (2, "train")}


def test_the_teacher_runs_where_it_is_read() -> None:
    teacher = make_teacher("resnet8")
    ab, ft = member("resnet8", teacher, "ab"), member("resnet8", teacher, "ft")
    assert ab.teacher_taps == {"stage1.preact", "stage2.preact", "stage3.preact"} and ft.teacher_taps == {"stage3"}
    for m in (ab, ft):
        for _ in range(2):
            epoch(m, teacher)
    assert ab.teacher_taps is None and ft.teacher_taps == {"stage3"}
    assert member("resnet8", teacher, "ab", first_epochs=0).teacher_taps is None


def test_costs_of_the_first_stage_are_separate() -> None:
    teacher = make_teacher("resnet8")
    m = member("resnet8", teacher, "ab", first_epochs=1)
    m.begin_epoch()
    for spent, parts in (({"data": 2.0, "teacher": 3.0}, {"first_stage"}), ({"data": 1.0}, {"first_stage", "data"})):
        m.add_costs(spent)
        m.end_epoch()
        assert m.history.costs.keys() == parts
    assert m.history.costs == {"first_stage": 5.0, "data": 1.0}


def test_members_share_the_seconds_of_their_pack() -> None:
    """Streams overlap: two members that each measured 4 s in 4 s of a pack took 2 s, in checkpoints as in epochs."""
    members = [member("resnet8", make_teacher("resnet8"), name, first_epochs=0) for name in ("ab", "ft")]
    for _ in range(2):  # a checkpoint in the middle of an epoch, and the epoch's end
        watch = Stopwatch(torch.device("cpu"))
        watch._seconds = {"waiting": 6.0, "data": 1.0, "teacher": 3.0, "members": 4.0}
        for m in members:
            m.watch._seconds = {"student": 4.0}
            m.state()  # has what has been shared out, and takes no more
        share_costs(watch, members)
    ab, ft = (m.history.costs for m in members)
    both = {"waiting": 6.0, "data": 1.0, "student": 4.0}
    assert ab == both and ft == {**both, "teacher": 6.0}


@pytest.mark.parametrize("name", ZOO)
def test_maps_without_the_rest_are_those_of_the_whole_network(name: str) -> None:
    torch.manual_seed(0)
    net: ConvNet = build_model(name, CLASSES).train()
    images, before = torch.randn(2, *SHAPE), state(net)
    for taps in ([net.tap_names[0]], [net.tap_names[1], net.tap_names[-2]], list(net.tap_names)):
        net.load_state_dict(before)
        maps = net.maps(images, taps)
        counts = {k: int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
        net.load_state_dict(before)
        expected = net(images, taps).features
        assert maps.keys() == expected.keys() and all(torch.equal(maps[k], expected[k]) for k in maps)
        assert set(counts.values()) <= {0, 1}
    assert net.maps(images, []) == {}
    with pytest.raises(ValueError, match="no tap named 'stage99'"):
        net.maps(images, ["stage99"])


@pytest.mark.parametrize("bad", [{"first_epochs": -1}, {"first_lr": -0.1}])
def test_impossible_first_stages_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="first stage"):
        member("resnet8", make_teacher("resnet8"), "ft", **bad)
