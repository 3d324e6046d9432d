"""Captured steps: the same training as with eager ones, and no capture of what a graph cannot hold.

Without a GPU a stand-in replaces CUDA graphs. Its replay repeats the captured work on the tensors and with the settings
of the captured step: a value that would be stale in a graph is stale there too. tests/gpu has CUDA's own graphs.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from harness.training import pack as pack_module
from harness.training.cuda.graph import Capture, StaticInputs, Work, state_outside_tensors
from harness.training.cuda.memory import fits_another
from harness.training.member import Member
from harness.training.pack import Pack
from tests.support import eager_methods, user_methods
from tests.support.packs import EPOCHS, SHIPPED, Counted, assert_same_end, train

pytestmark = pytest.mark.slow

ODD, USER_METHODS = eager_methods.__name__, user_methods.__name__


_eager: dict[str, Member] = {}


def eager(use: str, **recipe: Any) -> Member:
    """Return a method's run in eager steps, for comparison; other members of its pack would not change it."""
    key = f"{use} {sorted(recipe.items())}"
    if key not in _eager:
        _eager[key] = train([use], None, **recipe)[0][use]
    return _eager[key]


def refuses(work: Work, generator: torch.Generator | None) -> Work:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_captured_steps_train_every_method_as_eager_ones(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    capture = Counted()
    eagerly, _ = train(SHIPPED, None, precision=precision)
    captured, watcher = train(SHIPPED, capture, precision=precision)
    assert not watcher.failures
    for use in SHIPPED:
        assert_same_end(eagerly[use], captured[use])
    given_up = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line}
    assert not given_up
    # An epoch has four steps. The last, with a smaller batch, is eager; so is the first after a new learning rate.
    members = captured.values()
    stages = sum(EPOCHS + bool(m.first_stage.epochs) for m in members)
    assert 1 <= capture.captures - stages <= EPOCHS + 2, "the teacher's, one for each set of maps"
    assert capture.replays >= 2 * sum(EPOCHS + m.first_stage.epochs for m in members)


@pytest.mark.parametrize(
    ("use", "milestones", "times"),
    [("kd", (), 1), ("kd", (2,), 2), ("dkd", (), 3), ("dkd", (1, 2), 3), ("ab", (), 2), ("ft", (2,), 3)],
)
def test_a_step_is_captured_again_when_a_baked_in_value_changes(
    use: str, milestones: tuple[int, ...], times: int
) -> None:
    """Only the learning rate, the stage, and an epoch that a method's warm-up reads cause a new capture."""
    capture = Counted()
    captured, _ = train([use], capture, milestones=milestones)
    assert_same_end(eager(use, milestones=milestones), captured[use])
    teachers = 2 if use == "ab" else 1  # the second is the empty one: AB's main stage reads no teacher
    assert capture.captures == times + teachers


def test_a_parameter_that_a_later_epoch_reaches_is_trained_in_captured_steps() -> None:
    use = f"{USER_METHODS}:ReachesOthers"
    capture = Counted()
    captured, watcher = train([use], capture)
    assert not watcher.failures and capture.captures > 1
    assert_same_end(eager(use), captured[use])
    assert captured[use].distiller.early.item() != 1 != captured[use].distiller.late.item()  # type: ignore[operator]


@pytest.mark.parametrize(("use", "times"), [("kd", 1), ("dkd", 3), ("crd", 1), ("rekd", 1), ("dml", 1)])
def test_steps_of_micro_batches_are_captured_too(use: str, times: int) -> None:
    """Clipping is captured. A method that reads only a micro-batch's epoch is captured again in each epoch."""
    capture, recipe = Counted(), {"accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1, "milestones": ()}
    captured, _ = train([use], capture, **recipe)
    assert_same_end(eager(use, **recipe), captured[use])
    assert capture.captures == times + 1  # one for the teacher


def test_steps_of_mixed_images_two_views_and_two_losses_are_captured() -> None:
    """In a pack, a neighbour that reads one view ends as by itself."""
    capture = Counted()
    recipe: dict[str, Any] = {"optimizer": "dot", "schedule_by": "step", "ema": 0.9}
    recipe |= {"mixup": 1.0, "cutmix": 1.0, "repeats": 2, "views": {"strong": {"crop_padding": 2}}, "milestones": ()}
    uses = [f"{USER_METHODS}:ReadsTwoViews", "kd"]
    captured, watcher = train(uses, capture, **recipe)
    assert not watcher.failures
    for use in uses:
        assert_same_end(eager(use, **recipe), captured[use])
    assert capture.captures == len(uses) + 1  # one for the teacher


@pytest.mark.parametrize("capture", [Counted(), refuses], ids=["captured", "refused"])
@pytest.mark.parametrize("odd", ["Drops", "CountsInPython", "HoldsATensor", "ReplacesABuffer", "DrawsOnTheHost"])
def test_what_no_graph_can_hold_is_not_captured(odd: str, capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    """Such methods train eagerly and log it once; the others in their pack are captured."""
    use = f"{USER_METHODS if odd == 'Drops' else ODD}:{odd}"
    expected = {name: eager(name) for name in (use, "kd")}
    capsys.readouterr()
    captured, watcher = train([use, "kd"], capture)
    assert not watcher.failures
    for name in (use, "kd"):
        assert_same_end(expected[name], captured[name])
    messages = [line for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line]
    assert [line.split(" ")[0] for line in messages if not line.startswith("the teacher")] == (
        [use, "kd"] if capture is refuses else [use]
    )
    assert all("capturing" in line for line in messages if not line.startswith(use))


def test_a_capture_that_fails_half_way_leaves_nothing_behind() -> None:
    """Autograd may have left gradients then, to which the eager step would add."""

    class Half(Counted):
        def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
            self.captures += 1
            for p in (p for m in self.members for p in m.parameters):
                p.grad = torch.full_like(p, float("nan"))
            raise RuntimeError("half way")

    capture = Half()
    captured, _ = train(["kd"], capture)
    assert_same_end(eager("kd"), captured["kd"])
    assert capture.captures == 2, "the teacher's and kd's were tried"


def test_only_a_method_that_spoils_shared_tensors_fails() -> None:
    use = f"{ODD}:SpoilsTheTeacher"
    capture = Counted()
    captured, watcher = train(["kd", use, "dkd"], capture)
    assert watcher.failures.keys() == {use} and "the method changed its batch" in str(watcher.failures[use])
    for name in ("kd", "dkd"):
        assert_same_end(eager(name), captured[name])
    assert capture.captures and capture.replays


def test_only_a_method_that_raises_during_capture_fails() -> None:
    use = f"{ODD}:RaisesLater"
    capture = Counted()
    captured, watcher = train([use, "kd"], capture)
    assert watcher.failures.keys() == {use} and str(watcher.failures[use]) == "a bug"
    assert_same_end(eager("kd"), captured["kd"])
    assert capture.captures and capture.replays


def test_static_inputs_keep_their_addresses() -> None:
    inputs = StaticInputs()
    first = inputs.load({"a": torch.ones(2), "b": torch.ones(3)})
    second = inputs.load({"a": torch.zeros(2), "b": torch.full((3,), 5.0)})
    assert all(first[k] is second[k] for k in first) and second["b"].tolist() == [5.0] * 3 and inputs.moves == 2
    assert inputs.load({"a": torch.ones(4)})["a"].shape == (4,) and inputs.moves == 3
    new = torch.ones(4)
    assert inputs.load({"a": new})["a"] is not new, "otherwise the next load would change the loader's tensor"
    strided = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert inputs.load({"c": strided})["c"].is_contiguous(memory_format=torch.channels_last)


def test_state_outside_tensors_ignores_only_values() -> None:
    norm = nn.BatchNorm2d(2)
    before = state_outside_tensors([norm])
    norm(torch.ones(2, 2, 3, 3))
    assert norm.running_mean is not None and norm.running_mean.any()
    assert before == state_outside_tensors([norm])
    norm.running_mean = norm.running_mean * 2
    assert before != state_outside_tensors([norm])


@pytest.mark.parametrize(
    ("sizes", "memory", "trains"),
    [([10, 10, 10], 1000, 3), ([100, 100, 100, 100], 430, 3), ([300, 300], 500, 1)],
)
def test_members_that_do_not_fit_train_after_the_others(
    sizes: list[int], memory: int, trains: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All members end as if they had trained at once; a stand-in simulates a GPU's memory."""
    uses = ["kd", "student", "dkd", "at"][: len(sizes)]
    expected = {use: eager(use) for use in uses}
    at_once: list[int] = []

    class SmallMemory:
        def __init__(self) -> None:
            self.used: dict[str, int] = {}

        def fits_another(self) -> bool:
            return fits_another(memory - sum(self.used.values()), memory, list(self.used.values()))

        def measure(self, name: str) -> AbstractContextManager[None]:
            self.used[name] = sizes[uses.index(name)]
            at_once.append(len(self.used))
            return nullcontext()

        def reset(self) -> None:
            self.used = {}

    original = pack_module.Pack.__post_init__

    def with_memory(self: Pack) -> None:
        original(self)
        self._memory = SmallMemory()  # type: ignore[assignment]

    monkeypatch.setattr(pack_module.Pack, "__post_init__", with_memory)
    captured, watcher = train(uses, Counted())
    assert not watcher.failures and max(at_once) == trains
    for name in uses:
        assert_same_end(expected[name], captured[name])
