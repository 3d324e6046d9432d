"""Packs of small runs on random images, trained in this process on a CPU or a GPU, in captured steps or eager ones."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.load.mixing import Mixing
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.data.load.view import View, further_views
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import methods
from harness.spec.schema import Recipe
from harness.spec.science import Science
from harness.spec.tasks import DATASETS
from harness.training.cuda.graph import Capture, Work, capture_cuda_graph
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze
from tests.support.sciences import make_science

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
INFO = DATASETS["digits"]
NET = "digits_net_w4"
BATCH, IMAGES = 8, 28  # the last batch is smaller
EPOCHS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "ab": {"first_epochs": 1}, "fsp": {"first_epochs": 1}, "ft": {"first_epochs": 2, "first_lr": 0.05},
    "crd": {"negatives": 16, "feat_dim": 4},
    "tekap_f": {"negatives": 16, "feat_dim": 4},
    "dkd": {"warmup": 2}, "reviewkd": {"warmup": 2},
}  # fmt: skip
SHIPPED = [name for name in methods.builtin_names() if "classification" in methods.describe_method(name).defined_for]


class Watcher:
    """Observer that collects a pack's failures."""

    def __init__(self) -> None:
        self.failures: dict[str, BaseException] = {}

    def on_step(self, members: dict[str, Member], steps_per_epoch: int, share_costs: Callable[[], None]) -> None:
        pass

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        pass

    def on_failure(self, run_id: str, error: BaseException, details: str) -> None:
        self.failures[run_id] = error


class Counted:
    """Capture that counts: of a CUDA graph on a GPU, of the bare work on a CPU."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.captures = self.replays = 0

    def __call__(self, work: Work, generator: torch.Generator | None) -> Work:
        self.captures += 1
        on_gpu = self.members[0].device.type == "cuda"
        replay = capture_cuda_graph(work, generator) if on_gpu else work
        rates = self.rates()

        def counted() -> None:
            self.replays += 1
            # The teacher's work has no generator: it draws no random numbers, and has no learning rate.
            assert generator is None or rates == self.rates(), "a learning rate of another epoch is baked in"
            replay()

        return counted

    def rates(self) -> list[float]:
        """Return the learning rate of a single member, unless the step reads it from a tensor; several may be at
        different epochs."""
        return [m.lr for m in self.members if not isinstance(m.lr, Tensor)] if len(self.members) == 1 else []


def parameters(use: str) -> dict[str, Any]:
    return {k: h.default for k, h in methods.describe_method(use).hyper.items()} | SETTINGS.get(use, {})


def views_read(use: str) -> tuple[str, ...]:
    return methods.describe_method(use).views_read(parameters(use))


def science(use: str, **more: Any) -> Science:
    info, params = methods.describe_method(use), parameters(use)
    recipe: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 0.05,
        "milestones": [1, 2],
        "crop_padding": 1,
    }
    return make_science(NET, use, params, info.weights, teacher=NET, seed=3, **recipe | more)


def train(
    uses: Collection[str], capture: Capture | None, device: torch.device = CPU, **recipe: Any
) -> tuple[dict[str, Member], Watcher]:
    """Train a pack of these methods on random images to its end, with the views that they read by default."""
    read = {name: {"crop_padding": 2} for use in uses for name in views_read(use)}
    recipe = ({"views": read} if read else {}) | recipe
    set_float32(recipe.get("precision", "float32"))
    pixels, targets = (x.to(device) for x in images())
    normalise = Normalise(INFO, device)
    keys = Recipe.model_validate({"epochs": EPOCHS, "lr": 0.05, "crop_padding": 1, **recipe})
    loader = TensorLoader(
        pixels, targets, normalise, batch_size=BATCH, seed=3, view=View.of(keys), views=further_views(keys),
        repeats=keys.repeats, mixing=Mixing.of(keys, INFO.classes),
    )  # fmt: skip
    teacher = make_teacher(device)
    task = Classification(INFO.classes, INFO.image_shape)
    members = {use: Member(science(use, **recipe), teacher, targets, task, device) for use in uses}
    if isinstance(capture, Counted):
        capture.members = list(members.values())
    watcher = Watcher()
    few = TensorEvalSet("test", pixels[:9], targets[:9], normalise)
    Pack(dict(members), loader, few, teacher, watcher, capture=capture).train()
    return members, watcher


def images() -> tuple[Tensor, Tensor]:
    """Return random pixels (IMAGES, 1, 8, 8) uint8 and targets (IMAGES,)."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, *INFO.image_shape), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(IMAGES) % INFO.classes


def make_teacher(device: torch.device) -> Teacher:
    torch.manual_seed(5)
    model = build_model(NET, INFO.classes, in_channels=1)
    spec = describe_taps(model, INFO.image_shape)
    freeze(model, device)
    return Teacher(model, NET, Path(), "", 0.0, spec)


def assert_same_end(a: Member, b: Member) -> None:
    """Assert equal tensors and curves; on a GPU nearly equal, as its sums are in no fixed order."""
    left, right = a.tensors(), b.tensors()
    assert left.keys() == right.keys() and a.history.epoch == b.history.epoch == EPOCHS
    exact = a.device.type == b.device.type == "cpu"
    for name, value in left.items():
        if exact:
            assert torch.equal(value, right[name]), name
        else:
            torch.testing.assert_close(value, right[name], rtol=1e-2, atol=2e-3, msg=name)
    curves = [[(e, n) for e, n, _ in m.history.curves] for m in (a, b)]
    assert curves[0] == curves[1]
    if exact:
        assert a.history.curves == b.history.curves
