"""No step makes the host wait for a GPU. Fake tensors show it without a GPU.

A fake tensor has a shape and a device but no values: reading a value, or a shape that depends on one, raises. Copies
between host and device, which wait too, are counted. Autograd's engine needs a real GPU, so the backward pass is
checked on the CPU.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.augment.erasing import Erasing
from harness.data.augment.pixels import PixelAugmentation
from harness.data.load.tensors import Normalise, TensorLoader
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import methods
from harness.spec.augmentation import canonical_augment, canonical_erasing
from harness.spec.tasks import DATASETS
from harness.training.distributed.ranks import ONE_RANK
from harness.training.engines import adamw, native, sgd
from harness.training.member import Member
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze
from methods.base import Batch, SampleRandom
from tests.support.sciences import make_science
from tests.support.steps import train_step

pytestmark = pytest.mark.slow

CUDA, HOST = torch.device("cuda"), torch.device("cpu")
INFO = DATASETS["digits"]
NET = "digits_net_w4"
METHODS = [name for name in methods.builtin_names() if "classification" in methods.describe_method(name).defined_for]
BATCH, IMAGES = 4, 120
SETTINGS = {
    "crd": {"negatives": 16}, "ab": {"first_epochs": 1}, "fsp": {"first_epochs": 1}, "ft": {"first_epochs": 1},
    "tekap_f": {"negatives": 16},
}  # fmt: skip
WAIT = {"kdsvd": "linalg_eigh"}  # its eigenvalues are checked on the host: it trains without a graph


class Crossings(TorchDispatchMode):
    """Mode that lists operators which copy between devices or always wait."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [a for a in (*args, *(out if isinstance(out, tuple | list) else [out])) if isinstance(a, Tensor)]
        devices = {t.device.type for t in tensors}
        crosses = name in ("_to_copy", "copy_") and len(devices) > 1
        if crosses or "linalg_e" in name or "linalg_svd" in name:
            self.operators.append(name.lstrip("_"))
        return out


class NoValues(SampleRandom):
    """Random numbers without a generator, which needs a real GPU."""

    def __init__(self, batch: int):
        self._batch = batch

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((self._batch, *shape), dtype=dtype, device=CUDA)

    uniform = normal


class NoValueReads(TorchDispatchMode):
    """Mode that refuses operators which would read a value from a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "bincount"), name
        return func(*args, **(kwargs or {}))


def move(mode: FakeTensorMode, module: nn.Module) -> None:
    for m in module.modules():
        for name, p in m._parameters.items():
            if p is not None:
                fake = mode.from_tensor(p).detach().to(CUDA)
                m._parameters[name] = nn.Parameter(fake, requires_grad=p.requires_grad)
        for name, b in m._buffers.items():
            if b is not None:
                m._buffers[name] = mode.from_tensor(b).to(CUDA)


def member(use: str, teacher: Teacher, targets: Tensor, **recipe: Any) -> Member:
    info = methods.describe_method(use)
    params = {k: h.default for k, h in info.hyper.items()} | SETTINGS.get(use, {})
    views = dict.fromkeys(info.views_read(params), {}) or None
    science = make_science(NET, use, params, info.weights, **{"epochs": 2, "views": views} | recipe)
    return Member(science, teacher, targets, Classification(INFO.classes, INFO.image_shape), HOST)


def make_teacher() -> Teacher:
    model = build_model(NET, INFO.classes, in_channels=1)
    spec = describe_taps(model, INFO.image_shape)
    freeze(model, HOST)
    return Teacher(model, NET, Path(), "", 0.0, spec)


def no_backward(total: Tensor, parameters: list[Tensor]) -> None:
    for p in parameters:
        p.grad = torch.zeros_like(p)


def steps(
    m: Member, teacher: Teacher, pixels: Tensor, targets: Tensor, watched: TorchDispatchMode,
    spoil: Callable[[Tensor], object] = lambda x: None,
) -> None:  # fmt: skip
    """Take two steps of each stage, with the loader's and the teacher's work."""
    loader = TensorLoader(
        pixels, targets, Normalise(INFO, m.device), batch_size=BATCH, crop_padding=1, flip=True, seed=0
    )
    for epoch in range(-m.first_stage.epochs, 1):
        with watched:
            m.begin_epoch()
            batches = loader.epoch(epoch)
            for step in range(2):
                images, labels, indices = next(batches)
                outputs = teacher(images, m.teacher_taps or set(), m.recipe.precision, len(images))
                views = dict.fromkeys(m.views, images)  # the teacher's maps of a view are those of the images
                outputs = replace(outputs, views=dict.fromkeys(m.views, outputs))
                random = SampleRandom(step, BATCH) if m.device is HOST else NoValues(BATCH)
                total = train_step(m, Batch(images, labels, indices, random, epoch + 1, None, views), outputs)
                assert total.device.type == m.device.type
                spoil(total)
        m.history.epoch, m.steps, m._loss_sums = epoch + 1, 0, {}  # an epoch's end may wait
        m.engine.restart()


def crossings(use: str, spoil: Callable[[Tensor], object] = lambda x: None, **recipe: Any) -> list[str]:
    """Return the operators in a method's steps that copy between host and GPU."""
    teacher = make_teacher()
    targets = torch.arange(IMAGES) % INFO.classes
    m = member(use, teacher, targets, **recipe)
    pixels = torch.zeros((IMAGES, *INFO.image_shape), dtype=torch.uint8)
    watched = Crossings()
    with FakeTensorMode() as mode, pytest.MonkeyPatch.context() as patch:
        trained = (*m.networks, m.distiller)
        for module in (teacher.model, *trained):
            move(mode, module)
        m.device = CUDA
        m.parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
        # The fused kernels do not take fake tensors.
        patch.setattr(sgd, "sgd", partial(unfused, sgd.sgd))
        patch.setattr(adamw, "adamw", partial(unfused, adamw.adamw, capturable=True))
        m.engine = native.NativeEngine(m.parameters, m.recipe, ONE_RANK)
        patch.setattr(Tensor, "backward", lambda total, **_: no_backward(total, m.parameters))
        steps(m, teacher, mode.from_tensor(pixels).to(CUDA), mode.from_tensor(targets).to(CUDA), watched, spoil)
    return watched.operators


def unfused(update: Callable[..., None], *tensors: list[Tensor], fused: bool, **settings: Any) -> None:
    update(*tensors, **settings)


@pytest.mark.parametrize("use", METHODS)
def test_no_step_waits(use: str) -> None:
    assert set(crossings(use)) == ({WAIT[use]} if use in WAIT else set())


@pytest.mark.parametrize("use", ["student", "fitnets", "crd", "rekd"])
def test_no_step_of_micro_batches_waits(use: str) -> None:
    assert not crossings(use, accumulate=2, clip_norm=1.0, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("use", "recipe"),
    [
        ("student", {"optimizer": "adamw", "clip_norm": 1.0}),
        ("student", {"optimizer": "lamb", "clip_norm": 1.0}),
        ("kd", {"optimizer": "dot", "accumulate": 2}),
    ],
)
def test_no_step_of_an_optimizer_waits(use: str, recipe: dict[str, Any]) -> None:
    assert not crossings(use, **recipe)


@pytest.mark.parametrize("use", METHODS)
def test_no_backward_pass_waits(use: str) -> None:
    teacher, targets = make_teacher(), torch.arange(IMAGES) % INFO.classes
    pixels = torch.randint(0, 256, (IMAGES, *INFO.image_shape), dtype=torch.uint8)
    m = member(use, teacher, targets)
    steps(m, teacher, pixels, targets, NoValueReads())
    assert all(value.isfinite().all() for value in m.tensors().values() if value.is_floating_point())


def test_what_would_wait_is_noticed() -> None:
    assert crossings("student", lambda total: total.to(HOST)) == ["to_copy"] * 2
    assert crossings("student", lambda total: total.new_zeros(()).copy_(torch.zeros(()))) == ["copy_"] * 2
    assert crossings("student", lambda total: torch.tensor([1.0], device=total.device)) == ["to_copy"] * 2
    for read in (float, lambda total: total if total > 0 else None, Tensor.nonzero):
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            crossings("student", read)


@pytest.mark.parametrize(
    "policy", [{"timm": "rand-m9-mstd0.5-inc1"}, {"autoaugment": {}}, {"trivialaugment": {}}], ids=str
)
def test_augmentation_never_waits(policy: dict[str, Any]) -> None:
    """The lists of what can be drawn are copied to the GPU once; later batches copy nothing and read nothing."""
    augment = PixelAugmentation(canonical_augment(policy) or {})
    erase = Erasing(canonical_erasing({"probability": 0.5, "count": 2}))
    with FakeTensorMode():
        pixels, indices = (
            torch.empty((BATCH, 3, 12, 10), dtype=torch.uint8, device=CUDA),
            torch.arange(BATCH, device=CUDA),
        )
        for epoch in range(2):
            with Crossings() as crossings, NoValueReads():
                erase(augment(pixels, 0, epoch, indices, "").float(), 0, epoch, indices, "")
            assert bool(crossings.operators) == (epoch == 0)
