"""Captured steps: the same training as with eager ones, and no capture of what a graph cannot hold.

Without a GPU a stand-in replaces CUDA graphs. Its replay repeats the captured work on the tensors and with the settings
of the captured step: a value that would be stale in a graph is stale there too.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import methods
from harness.spec.science import Science
from harness.spec.tasks import DATASETS
from harness.training import pack as pack_module
from harness.training import step as step_module
from harness.training.cuda.graph import Capture, StaticInputs, Work, capture_cuda_graph, state_outside_tensors
from harness.training.cuda.memory import fits_another
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze
from methods.base import Batch, Distiller, Outputs, TapSpec
from tests.support.sciences import make_science

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INFO = DATASETS["digits"]
NET = "digits_net_w4"
BATCH, IMAGES = 8, 44  # the last batch is smaller
EPOCHS = 3
USER_METHODS = "tests.support.user_methods"
SETTINGS: dict[str, dict[str, Any]] = {
    "ab": {"first_epochs": 1}, "fsp": {"first_epochs": 1}, "ft": {"first_epochs": 2, "first_lr": 0.05},
    "crd": {"negatives": 16, "feat_dim": 4},
    "dkd": {"warmup": 2}, "reviewkd": {"warmup": 2},
}  # fmt: skip
SHIPPED = [name for name in methods.builtin_names() if "classification" in methods.describe_method(name).defined_for]
ONLY_EAGER = {"kdsvd"} if DEVICE.type == "cuda" else set()


class Odd(Distiller):
    """Base of methods that a graph cannot hold."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        raise NotImplementedError

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"odd": student.logits.square().mean() * self.factor(batch)}


class CountsInPython(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = [0]

    def factor(self, batch: Batch) -> float | Tensor:
        self.steps[0] += 1
        return 1 / self.steps[0]


class HoldsATensor(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.held = {"factor": torch.ones((), device=DEVICE)}

    def factor(self, batch: Batch) -> float | Tensor:
        self.held["factor"] = self.held["factor"] * 0.9
        return self.held["factor"]


class ReplacesABuffer(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.register_buffer("scale", torch.ones(()))

    def factor(self, batch: Batch) -> float | Tensor:
        self.scale = self.scale * 0.9
        return self.scale


class DrawsOnTheHost(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        return float(torch.rand(()))


class SpoilsTheTeacher(Odd):
    """Changes the teacher's logits in place, which autograd does not notice."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        teacher.logits.zero_()
        return {"odd": student.logits.square().mean()}


class RaisesLater(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        if batch.epoch == 2:
            raise ArithmeticError("a bug")
        return 1.0


class Watcher:
    """Observer that collects a pack's failures."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.failures: dict[str, BaseException] = {}

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        pass

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        pass

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        self.failures[run_id] = error


class StandIn:
    """Capture that counts: of a CUDA graph on a GPU, of the bare work on a CPU."""

    def __init__(self, members: Iterable[Member] = ()):
        self.members, self.captures, self.replays = list(members), 0, 0

    def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
        self.captures += 1
        replay = capture_cuda_graph(work, generator) if DEVICE.type == "cuda" else work
        rates = self.rates()

        def counted() -> None:
            self.replays += 1
            # The teacher's work has no generator: it draws no random numbers, and has no learning rate.
            assert generator is None or rates == self.rates(), "a learning rate of another epoch is baked in"
            replay()

        return counted

    def rates(self) -> list[float]:
        """Return the learning rate of a single member; several may be at different epochs."""
        return [m.lr for m in self.members] if len(self.members) == 1 else []


def refuses(work: Work, generator: torch.Generator | None) -> Work:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def science(use: str, **more: Any) -> Science:
    info = methods.describe_method(use)
    params = {k: h.default for k, h in info.hyper.items()} | SETTINGS.get(use, {})
    recipe: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 0.05,
        "milestones": [1, 2],
        "crop_padding": 1,
    }
    return make_science(NET, use, params, info.weights, teacher=NET, seed=3, **recipe | more)


def train(uses: Iterable[str], capture: Capture | None, **recipe: Any) -> tuple[dict[str, Member], Watcher]:
    """Train a pack of these methods on random images to its end."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, *INFO.image_shape), dtype=torch.uint8, generator=generator).to(DEVICE)
    targets = (torch.arange(IMAGES) % INFO.classes).to(DEVICE)
    normalise = Normalise(INFO, DEVICE)
    loader = TensorLoader(pixels, targets, normalise, batch_size=BATCH, crop_padding=1, flip=False, seed=3)
    torch.manual_seed(5)
    model = build_model(NET, INFO.classes, in_channels=1)
    spec = describe_taps(model, INFO.image_shape)
    freeze(model, DEVICE)
    teacher = Teacher(model, NET, Path(), "", 0.0, spec)
    members = {
        use: Member(science(use, **recipe), teacher, targets, Classification(INFO.classes, INFO.image_shape), DEVICE)
        for use in uses
    }
    if isinstance(capture, StandIn):
        capture.members = list(members.values())
    watcher = Watcher()
    few = TensorEvalSet("test", pixels[:9], targets[:9], normalise)
    Pack(dict(members), loader, few, teacher, watcher, capture=capture).train()
    return members, watcher


def assert_same_end(a: Member, b: Member) -> None:
    """Assert equal tensors and curves; on a GPU nearly equal, as its sums are in no fixed order."""
    left, right = a.tensors(), b.tensors()
    assert left.keys() == right.keys() and a.history.epoch == b.history.epoch == EPOCHS
    for name, value in left.items():
        if DEVICE.type == "cuda":
            torch.testing.assert_close(value, right[name], rtol=1e-2, atol=2e-3, msg=name)
        else:
            assert torch.equal(value, right[name]), name
    curves = [[(e, n) for e, n, _ in m.history.curves] for m in (a, b)]
    assert curves[0] == curves[1]
    if DEVICE.type == "cpu":
        assert a.history.curves == b.history.curves


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_captured_steps_train_every_method_as_eager_ones(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    capture = StandIn()
    eager, _ = train(SHIPPED, None, precision=precision)
    captured, watcher = train(SHIPPED, capture, precision=precision)
    assert not watcher.failures
    for use in SHIPPED:
        assert_same_end(eager[use], captured[use])
    given_up = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line}
    assert given_up == ONLY_EAGER
    # An epoch has six steps. The last, with a smaller batch, is eager; so is the first after a new learning rate.
    members = [m for use, m in captured.items() if use not in given_up]
    stages = sum(EPOCHS + bool(m.first_stage.epochs) for m in members)
    assert 1 <= capture.captures - stages <= EPOCHS + 2, "the teacher's, one for each set of maps"
    assert capture.replays >= 4 * sum(EPOCHS + m.first_stage.epochs for m in members)


@pytest.mark.parametrize(
    ("use", "milestones", "times"),
    [("kd", [], 1), ("kd", [2], 2), ("dkd", [], 3), ("dkd", [1, 2], 3), ("ab", [], 2), ("ft", [2], 3)],
)
def test_a_step_is_captured_again_when_a_baked_in_value_changes(use: str, milestones: list[int], times: int) -> None:
    """Only the learning rate, the stage, and an epoch that a method's warm-up reads cause a new capture."""
    capture = StandIn()
    eager, _ = train([use], None, milestones=milestones)
    captured, _ = train([use], capture, milestones=milestones)
    assert_same_end(eager[use], captured[use])
    teachers = 2 if use == "ab" else 1  # the second is the empty one: AB's main stage reads no teacher
    assert capture.captures == times + teachers


def test_a_parameter_that_a_later_epoch_reaches_is_trained_in_captured_steps() -> None:
    use = f"{USER_METHODS}:ReachesOthers"
    capture = StandIn()
    eager, _ = train([use], None)
    captured, watcher = train([use], capture)
    assert not watcher.failures and capture.captures > 1
    assert_same_end(eager[use], captured[use])
    assert captured[use].distiller.early.item() != 1 != captured[use].distiller.late.item()  # type: ignore[operator]


@pytest.mark.parametrize(("use", "times"), [("kd", 1), ("dkd", 3), ("crd", 1), ("rekd", 1), ("dml", 1)])
def test_steps_of_micro_batches_are_captured_too(use: str, times: int) -> None:
    """Clipping is captured. A method that reads only a micro-batch's epoch is captured again in each epoch."""
    capture, recipe = StandIn(), {"accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1, "milestones": []}
    eager, _ = train([use], None, **recipe)
    captured, _ = train([use], capture, **recipe)
    assert_same_end(eager[use], captured[use])
    assert capture.captures == times + 1  # one for the teacher


@pytest.mark.parametrize("capture", [StandIn(), refuses], ids=["captured", "refused"])
@pytest.mark.parametrize("odd", ["Drops", "CountsInPython", "HoldsATensor", "ReplacesABuffer", "DrawsOnTheHost"])
def test_what_no_graph_can_hold_is_not_captured(odd: str, capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    """Such methods train eagerly and log it once; the others in their pack are captured."""
    use = f"{USER_METHODS if odd == 'Drops' else __name__}:{odd}"
    eager, _ = train([use, "kd"], None)
    capsys.readouterr()
    captured, watcher = train([use, "kd"], capture)
    assert not watcher.failures
    for name in (use, "kd"):
        assert_same_end(eager[name], captured[name])
    messages = [line for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line]
    assert [line.split(" ")[0] for line in messages if not line.startswith("the teacher")] == (
        [use, "kd"] if capture is refuses else [use]
    )
    assert all("capturing" in line for line in messages if not line.startswith(use))


def test_a_capture_that_fails_half_way_leaves_nothing_behind() -> None:
    """Autograd may have left gradients then, to which the eager step would add."""

    class Half(StandIn):
        def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
            self.captures += 1
            for p in (p for m in self.members for p in m.parameters):
                p.grad = torch.full_like(p, float("nan"))
            raise RuntimeError("half way")

    eager, _ = train(["kd"], None)
    capture = Half()
    captured, _ = train(["kd"], capture)
    assert_same_end(eager["kd"], captured["kd"])
    assert capture.captures == 2, "the teacher's and kd's were tried"


def test_only_a_method_that_spoils_shared_tensors_fails() -> None:
    use = f"{__name__}:SpoilsTheTeacher"
    eager, _ = train(["kd", "dkd"], None)
    capture = StandIn()
    captured, watcher = train(["kd", use, "dkd"], capture)
    assert watcher.failures.keys() == {use} and "the method changed its batch" in str(watcher.failures[use])
    for name in eager:
        assert_same_end(eager[name], captured[name])
    assert capture.captures and capture.replays


def test_only_a_method_that_raises_during_capture_fails() -> None:
    use = f"{__name__}:RaisesLater"
    eager, _ = train(["kd"], None)
    capture = StandIn()
    captured, watcher = train([use, "kd"], capture)
    assert watcher.failures.keys() == {use} and str(watcher.failures[use]) == "a bug"
    assert_same_end(eager["kd"], captured["kd"])
    assert capture.captures and capture.replays


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU here; see test_no_sync.py")
@pytest.mark.parametrize("use", sorted(set(SHIPPED) - ONLY_EAGER))
def test_no_eager_step_waits_for_the_gpu(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_step = step_module.compute_step

    def watched(member: Member, batch: Batch, teacher: Outputs, batch_size: int) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return compute_step(member, batch, teacher, batch_size)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(step_module, "compute_step", watched)
    _, watcher = train([use], None)
    assert not watcher.failures


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
    eager, _ = train(uses, None)
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
    captured, watcher = train(uses, StandIn())
    assert not watcher.failures and max(at_once) == trains
    for name in uses:
        assert_same_end(eager[name], captured[name])
