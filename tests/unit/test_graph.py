"""Steps that are recorded once and played again: the same training, and nothing recorded that would not be.

Without a GPU a stand-in takes the place of a CUDA graph. It does again what it was given first, on the tensors and with
the settings of the step at which it was recorded: what would be stale in a graph is stale there too.
"""

from collections.abc import Iterable
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

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INFO = DATASETS["digits"]
NET = "digits_net_w4"
BATCH, IMAGES = 8, 44  # the last batch is smaller
EPOCHS = 3
MINE = "tests.support.user_methods"
SETTINGS: dict[str, dict[str, Any]] = {
    "ab": {"first_epochs": 1}, "fsp": {"first_epochs": 1}, "ft": {"first_epochs": 2, "first_lr": 0.05},
    "crd": {"negatives": 16, "feat_dim": 4},
    "dkd": {"warmup": 2}, "reviewkd": {"warmup": 2},
}  # fmt: skip
SHIPPED = [name for name in methods.builtin_names() if "classification" in methods.describe_method(name).defined_for]
IN_EAGER_STEPS_ALONE = {"kdsvd"} if DEVICE.type == "cuda" else set()


class Odd(Distiller):
    """One of the methods below, which keep state where a graph would not find it."""

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


class KeepsATensor(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.kept = {"factor": torch.ones((), device=DEVICE)}

    def factor(self, batch: Batch) -> float | Tensor:
        self.kept["factor"] = self.kept["factor"] * 0.9
        return self.kept["factor"]


class ReplacesABuffer(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.register_buffer("kept", torch.ones(()))

    def factor(self, batch: Batch) -> float | Tensor:
        self.kept = self.kept * 0.9
        return self.kept


class DrawsOnTheHost(Odd):
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def factor(self, batch: Batch) -> float | Tensor:
        return float(torch.rand(()))


class SpoilsTheTeacher(Odd):
    """In place, and without autograd's noticing."""

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
    """Observes a pack."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.failures: dict[str, BaseException] = {}

    def on_step(self, members: dict[str, Member], steps_per_epoch: int) -> None:
        pass

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        pass

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        self.failures[run_id] = error


class StandIn:
    """Records for a CPU, or by the real means on a GPU; counts."""

    def __init__(self, members: Iterable[Member] = ()):
        self.members, self.recorded, self.played = list(members), 0, 0

    def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
        self.recorded += 1
        play = capture_cuda_graph(work, generator) if DEVICE.type == "cuda" else work
        rates = self.rates()

        def counted() -> None:
            self.played += 1
            # The teacher's work, which has no learning rate, draws no random numbers.
            assert generator is None or rates == self.rates(), "a learning rate of another epoch is baked in"
            play()

        return counted

    def rates(self) -> list[float]:
        """Of a member that trains alone; several may be at different epochs."""
        return [m.lr for m in self.members] if len(self.members) == 1 else []


def refuses(work: Work, generator: torch.Generator | None) -> Work:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def science(use: str, **more: Any) -> dict[str, Any]:
    info = methods.describe_method(use)
    params = {k: h.default for k, h in info.hyper.items()} | SETTINGS.get(use, {})
    recipe = {"epochs": EPOCHS, "batch_size": BATCH, "lr": 0.05, "milestones": [1, 2], "crop_padding": 1}
    return {
        "student": NET, "method": {"use": use, "params": params, "weights": info.weights},
        "recipe": recipe | more, "seed": 3, "teacher": {"model": NET},
    }  # fmt: skip


def train(uses: Iterable[str], record: Capture | None, **recipe: Any) -> tuple[dict[str, Member], Watcher]:
    """A pack of these methods on random images, trained to its end."""
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
    if isinstance(record, StandIn):
        record.members = list(members.values())
    watcher = Watcher()
    few = TensorEvalSet("test", pixels[:9], targets[:9], normalise)
    Pack(dict(members), loader, few, teacher, watcher, capture=record).train()
    return members, watcher


def same(a: Member, b: Member) -> None:
    """On a GPU, sums are in no fixed order."""
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
def test_recorded_steps_train_every_method_as_eager_ones(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = StandIn()
    eager, _ = train(SHIPPED, None, precision=precision)
    recorded, watcher = train(SHIPPED, record, precision=precision)
    assert not watcher.failures
    for use in SHIPPED:
        same(eager[use], recorded[use])
    given_up = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line}
    assert given_up == IN_EAGER_STEPS_ALONE
    # Of an epoch's six steps the last, of a smaller batch, is eager; and the first where the learning rate is new.
    members = [m for use, m in recorded.items() if use not in given_up]
    stages = sum(EPOCHS + bool(m.first_stage.epochs) for m in members)
    assert 1 <= record.recorded - stages <= EPOCHS + 2, "the teacher's, by the maps that are read"
    assert record.played >= 4 * sum(EPOCHS + m.first_stage.epochs for m in members)


@pytest.mark.parametrize(
    ("use", "milestones", "times"),
    [("kd", [], 1), ("kd", [2], 2), ("dkd", [], 3), ("dkd", [1, 2], 3), ("ab", [], 2), ("ft", [2], 3)],
)
def test_what_is_baked_in_is_recorded_anew(use: str, milestones: list[int], times: int) -> None:
    """The learning rate, the stage, and the epoch where a method's warm-up asks for it; and nothing else is."""
    record = StandIn()
    eager, _ = train([use], None, milestones=milestones)
    recorded, _ = train([use], record, milestones=milestones)
    same(eager[use], recorded[use])
    teachers = 2 if use == "ab" else 1  # of which AB's main stage reads nothing
    assert record.recorded == times + teachers


@pytest.mark.parametrize(("use", "times"), [("kd", 1), ("dkd", 3), ("crd", 1), ("rekd", 1), ("dml", 1)])
def test_steps_of_micro_batches_are_recorded_too(use: str, times: int) -> None:
    """With clipping; and anew for an epoch that only a micro-batch is asked for."""
    record, recipe = StandIn(), {"accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1, "milestones": []}
    eager, _ = train([use], None, **recipe)
    recorded, _ = train([use], record, **recipe)
    same(eager[use], recorded[use])
    assert record.recorded == times + 1  # the teacher


@pytest.mark.parametrize("record", [StandIn(), refuses], ids=["recorded", "refused"])
@pytest.mark.parametrize("odd", ["Drops", "CountsInPython", "KeepsATensor", "ReplacesABuffer", "DrawsOnTheHost"])
def test_what_is_not_in_a_graph_is_not_recorded(odd: str, record: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    """Such methods train on, eagerly, and say so once; others are recorded beside them."""
    use = f"{MINE if odd == 'Drops' else __name__}:{odd}"
    eager, _ = train([use, "kd"], None)
    capsys.readouterr()
    recorded, watcher = train([use, "kd"], record)
    assert not watcher.failures
    for name in (use, "kd"):
        same(eager[name], recorded[name])
    said = [line for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line]
    assert [line.split(" ")[0] for line in said if not line.startswith("the teacher")] == (
        [use, "kd"] if record is refuses else [use]
    )
    assert all("capturing" in line for line in said if not line.startswith(use))


def test_a_recording_that_fails_half_way_leaves_nothing_behind() -> None:
    """Gradients left behind by a failed capture would be added to the next ones."""

    class Half(StandIn):
        def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
            self.recorded += 1
            for p in (p for m in self.members for p in m.parameters):
                p.grad = torch.full_like(p, float("nan"))
            raise RuntimeError("half way")

    eager, _ = train(["kd"], None)
    record = Half()
    recorded, _ = train(["kd"], record)
    same(eager["kd"], recorded["kd"])
    assert record.recorded == 2, "the teacher's and kd's were tried"


def test_a_method_that_spoils_what_is_shared_fails_alone() -> None:
    use = f"{__name__}:SpoilsTheTeacher"
    eager, _ = train(["kd", "dkd"], None)
    record = StandIn()
    recorded, watcher = train(["kd", use, "dkd"], record)
    assert watcher.failures.keys() == {use} and "the method changed its batch" in str(watcher.failures[use])
    for name in eager:
        same(eager[name], recorded[name])
    assert record.recorded and record.played


def test_one_that_raises_while_it_is_recorded_fails_alone() -> None:
    use = f"{__name__}:RaisesLater"
    eager, _ = train(["kd"], None)
    record = StandIn()
    recorded, watcher = train([use, "kd"], record)
    assert watcher.failures.keys() == {use} and str(watcher.failures[use]) == "a bug"
    same(eager["kd"], recorded["kd"])
    assert record.recorded and record.played


@pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU here; see test_no_sync.py")
@pytest.mark.parametrize("use", sorted(set(SHIPPED) - IN_EAGER_STEPS_ALONE))
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


def test_slots_keep_their_addresses() -> None:
    slots = StaticInputs()
    first = slots.load({"a": torch.ones(2), "b": torch.ones(3)})
    again = slots.load({"a": torch.zeros(2), "b": torch.full((3,), 5.0)})
    assert all(first[k] is again[k] for k in first) and again["b"].tolist() == [5.0] * 3 and slots.moves == 2
    assert slots.load({"a": torch.ones(4)})["a"].shape == (4,) and slots.moves == 3
    given = torch.ones(4)
    assert slots.load({"a": given})["a"] is not given, "or what is shared would be changed with it"
    strided = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert slots.load({"c": strided})["c"].is_contiguous(memory_format=torch.channels_last)


def test_values_may_change_and_nothing_else() -> None:
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
def test_members_without_room_go_after_the_others(
    sizes: list[int], memory: int, trains: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for a GPU's memory. All end as they would have at once."""
    uses = ["kd", "student", "dkd", "at"][: len(sizes)]
    eager, _ = train(uses, None)
    at_once: list[int] = []

    class Small:
        def __init__(self) -> None:
            self.taken: dict[str, int] = {}

        def fits_another(self) -> bool:
            return fits_another(memory - sum(self.taken.values()), memory, list(self.taken.values()))

        def measure(self, name: str) -> AbstractContextManager[None]:
            self.taken[name] = sizes[uses.index(name)]
            at_once.append(len(self.taken))
            return nullcontext()

        def reset(self) -> None:
            self.taken = {}

    original = pack_module.Pack.__post_init__

    def with_memory(self: Pack) -> None:
        original(self)
        self._memory = Small()  # type: ignore[assignment]

    monkeypatch.setattr(pack_module.Pack, "__post_init__", with_memory)
    recorded, watcher = train(uses, StandIn())
    assert not watcher.failures and max(at_once) == trains
    for name in uses:
        same(eager[name], recorded[name])
