"""Packs that take their steps in turn: what each sees of the memory, of failures and of interruptions."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.training.cuda.memory import MemoryBudget, fits_another
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.recorder import Interrupted
from harness.training.rotation import train_in_turn
from harness.training.stopwatch import SharedTime
from harness.training.tasks.classification import Classification
from tests.support.packs import BATCH, CPU, INFO, Watcher, assert_same_end, images, make_teacher, science

USES = ("kd", "student", "dkd")


class SmallMemory(MemoryBudget):
    """A stand-in for a GPU's memory, of which each member takes 100."""

    def __init__(self, total: int) -> None:
        super().__init__(CPU)
        self.total, self.used, self.most = total, dict[str, int](), 0

    def fits_another(self) -> bool:
        return fits_another(self.total - sum(self.used.values()), self.total, list(self.used.values()))

    def measure(self, name: str) -> AbstractContextManager[None]:
        self.used[name] = 100
        self.most = max(self.most, len(self.used))
        return nullcontext()

    def reset(self) -> None:
        self.used = {}


def pack(seed: int, memory: SmallMemory, members: dict[str, Member], watcher: Watcher) -> Iterator[bool]:
    """Build a pack when its first step is asked for, and add its members to ``members``."""
    assert memory.fits_another(), "its weights would be in memory for nothing"
    pixels, targets = images()
    normalise, teacher = Normalise(INFO, CPU), make_teacher(CPU)
    loader = TensorLoader(pixels, targets, normalise, batch_size=BATCH, crop_padding=1, flip=False, seed=seed)
    task = Classification(INFO.classes, INFO.image_shape)
    mine = {f"{use} {seed}": Member(science(use).with_seed(seed), teacher, targets, task, CPU) for use in USES}
    members |= mine
    few = TensorEvalSet("test", pixels[:9], targets[:9], normalise)
    yield from Pack(mine.copy(), loader, few, teacher, watcher, memory=memory).turns()


@pytest.mark.parametrize(("total", "at_once"), [(10_000, 6), (730, 5), (430, 3), (200, 1)])
def test_packs_that_do_not_fit_wait_and_end_the_same(total: int, at_once: int) -> None:
    alone: dict[str, Member] = {}
    together: dict[str, Member] = {}
    memory, watcher = SmallMemory(total), Watcher()
    for seed in (3, 4):
        assert all(pack(seed, SmallMemory(10_000), alone, watcher))
    packs = {seed: pack(seed, memory, together, watcher) for seed in (3, 4)}
    train_in_turn(packs, memory, SharedTime(), CPU, lambda seed, error: pytest.fail(str(error)))
    assert not watcher.failures and memory.most == at_once
    assert alone.keys() == together.keys() and len(alone) == 6
    for name, member in alone.items():
        assert_same_end(member, together[name])


def steps(seed: int, taken: list[int], error: BaseException | None = None) -> Iterator[bool]:
    for _ in range(2):
        taken.append(seed)
        yield True
    if error is not None:
        raise error


def test_each_step_is_followed_by_the_next_packs() -> None:
    taken: list[int] = []
    failed: list[tuple[int, str]] = []
    packs = {1: steps(1, taken), 2: steps(2, taken, OSError("gone")), 3: steps(3, taken)}
    train_in_turn(packs, SmallMemory(10_000), SharedTime(), CPU, lambda seed, error: failed.append((seed, str(error))))
    assert taken == [1, 2, 3, 1, 2, 3] and failed == [(2, "gone")]


def test_an_interruption_is_raised_when_every_pack_in_training_has_raised_it() -> None:
    taken: list[int] = []

    def interrupted(seed: int, after: int) -> Iterator[bool]:
        for _ in range(after):
            taken.append(seed)
            yield True
        raise Interrupted

    packs = {1: interrupted(1, 1), 2: interrupted(2, 3), 3: steps(3, taken)}
    with pytest.raises(Interrupted):
        train_in_turn(packs, SmallMemory(10_000), SharedTime(), CPU, lambda *_: None)
    assert taken == [1, 2, 3, 2, 3, 2]

    taken.clear()
    with pytest.raises(Interrupted):
        train_in_turn({1: interrupted(1, 0), 2: steps(2, taken)}, SmallMemory(1), SharedTime(), CPU, lambda *_: None)
    assert not taken, "a pack that had not begun stays to do"
