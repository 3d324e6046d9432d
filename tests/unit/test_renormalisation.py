"""A given teacher sees images by its own mean and std, as if they had been read so; its students see the dataset's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.models.detection.build import build_detector
from harness.models.renormalisation import Renormalisation
from harness.spec.tasks import DATASETS
from harness.store import files
from harness.training.member import Member
from harness.training.step import SharedForward
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, TeacherSource, load_teacher
from tests.support.sciences import make_science

pytestmark = pytest.mark.usefixtures("quickly_built")
INFO = DATASETS["cifar100"]
OWN = replace(INFO, mean=(0.5, 0.5, 0.4), std=(0.5, 0.25, 1.0))
CHANGE = Renormalisation(INFO.normalisation, OWN.normalisation)
CPU, BATCH, NET = torch.device("cpu"), 8, "resnet8"
TASK = Classification(10, (3, 32, 32))
TAPS = {"stem", "stage1"}
PIXELS = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(20) % 10


def load(folder: Path, renormalisation: Renormalisation | None, info: Any) -> Teacher:
    torch.manual_seed(0)
    file = folder / "teacher.safetensors"
    save_file(TASK.build(NET).state_dict(), file)
    on = TensorEvalSet("test", PIXELS, TARGETS, Normalise(info, CPU))
    return load_teacher(
        TeacherSource(NET, file, files.sha256(file), renormalisation=renormalisation), None, on, TASK, CPU
    )


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    """Return a teacher that is given images by the dataset's mean and std."""
    return load(tmp_path, CHANGE, INFO)


@pytest.fixture
def alone(tmp_path: Path) -> Teacher:
    """Return the same network, given images by its own."""
    return load(tmp_path, None, OWN)


def batches(info: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    loader = TensorLoader(
        PIXELS, TARGETS, Normalise(info, CPU), batch_size=BATCH, crop_padding=4, flip=True, seed=3
    )  # fmt: skip
    return list(loader.epoch(0))


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("capture", [None, lambda work, generator: work], ids=["eager", "captured"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bf16", 0.03)])
def test_in_training_it_returns_what_it_returns_in_its_own_pipeline(
    teacher: Teacher, alone: Teacher, precision: str, tolerance: float, capture: Callable[..., Any] | None
) -> None:
    for each in (teacher, alone):
        each.prepare(precision)
    forward = SharedForward(teacher, None, capture, BATCH)
    member: Any = SimpleNamespace(teacher_taps=TAPS, views=(), recipe=SimpleNamespace(precision=precision))
    for step, (ours, theirs) in enumerate(zip(batches(INFO), batches(OWN), strict=True)):
        inputs = forward(ours, step, [member])
        assert torch.equal(inputs.images, ours[0]), "students see what they saw"
        expected = alone(theirs[0], TAPS, precision, len(theirs[2]))
        assert_near(inputs.teacher.logits, expected.logits, tolerance)
        for tap in TAPS:
            assert_near(inputs.teacher.features[tap], expected.features[tap], tolerance)
        assert not torch.allclose(alone(ours[0], TAPS, precision, len(ours[2])).logits, expected.logits, atol=0.01)


def test_compiled_it_returns_the_same(teacher: Teacher, alone: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, dynamic: compiled(m, fullgraph=True, backend="eager"))
    teacher.prepare("float32", compiled_for=BATCH)
    ours, theirs = batches(INFO)[0], batches(OWN)[0]
    assert_near(teacher(ours[0], TAPS, "float32", BATCH).logits, alone(theirs[0], TAPS, "float32", BATCH).logits)
    assert teacher._compiled is not None, "it did not fall back"


def test_it_is_evaluated_as_it_is_used(teacher: Teacher, alone: Teacher, tmp_path: Path) -> None:
    assert teacher.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-5)
    assert load(tmp_path, None, INFO).metrics["loss"] != pytest.approx(alone.metrics["loss"], rel=1e-3)


def test_a_peer_that_starts_from_it_goes_on_to_see_what_it_saw(teacher: Teacher, alone: Teacher) -> None:
    peers: dict[str, Any] = {}
    for start in ("teacher", "scratch"):
        science = make_science(NET, "dml", {"start": start}, {"ce": 1.0, "kl": 1.0}, teacher=NET)
        member = Member(science, teacher, TARGETS, TASK, CPU)
        assert member.student.renormalisation is None
        peers[start] = member.peer
    assert peers["scratch"].renormalisation is None
    assert peers["teacher"].state_dict().keys() == peers["scratch"].state_dict().keys(), "checkpoints keep their keys"
    with torch.no_grad():
        assert_near(peers["teacher"].eval()(batches(INFO)[0][0]).logits, alone.model(batches(OWN)[0][0]).logits, 1e-4)


def test_a_detectors_padding_stays_0_as_in_its_own_pipeline() -> None:
    info = DATASETS["coco"]
    own = replace(info, mean=(0.5,) * 3, std=(0.5,) * 3)
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert (Normalise(info, CPU)(levels) != 0).all(), "no pixel's value is taken for padding"
    images = {}
    for each in (info, own):
        images[each] = Normalise(each, CPU)(PIXELS[:1].repeat(1, 1, 2, 2))
        images[each][:, :, 40:], images[each][..., 50:] = 0, 0
    detector = build_detector("fasterrcnn_resnet18_fpn", 3).eval()
    with torch.no_grad():
        expected = detector.maps(images[own])
        detector.renormalisation = Renormalisation(info.normalisation, own.normalisation)
        for tap, actual in detector.maps(images[info]).items():
            assert_near(actual, expected[tap])
