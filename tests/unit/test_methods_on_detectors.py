"""Methods for detectors: pyramids of maps, anchors, and regions as samples."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from methods.base import SampleRandom, TapSpec
from methods.detection import DetectionBatch, DetectorOutputs, Objects
from methods.dkd import DKD
from methods.fgfi import FGFI, iou, near_objects
from methods.fitnets import FitNets
from methods.kd import KD
from methods.mgd import MGD
from methods.pkd import PKD
from methods.rekd import ReKD
from methods.reviewkd import ReviewKD

LEVELS = {"p3": 8, "p4": 4, "p5": 2}
STAGES = {"stage3": 4}
IMAGE = 64


def spec(channels: int) -> TapSpec:
    sizes = {name: (size, size) for name, size in (STAGES | LEVELS).items()}
    return TapSpec(dict.fromkeys(sizes, channels), sizes, embedding_dim=16, num_classes=6, pooled=False)


def anchors() -> dict[str, Tensor]:
    """Return two anchors around each position: a square of four strides, and one half as high."""
    of_level = {}
    for tap, size in LEVELS.items():
        stride = IMAGE / size
        centre = (torch.arange(size) * stride).float()
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        shapes = torch.tensor([[4.0, 4.0], [2.0, 4.0]]) * stride / 2  # half the height and width
        middle = torch.stack([x, y], -1)[:, :, None]
        half = shapes.flip(1)
        of_level[tap] = torch.cat([middle - half, middle + half], -1)
    return of_level


def outputs(images: int, rois: int = 0, channels: int = 8, seed: int = 0) -> DetectorOutputs:
    draw = torch.Generator().manual_seed(seed)
    maps = {t: torch.randn(images, channels, n, n, generator=draw) for t, n in (STAGES | LEVELS).items()}
    logits = torch.randn(rois, 6, generator=draw).requires_grad_()
    return DetectorOutputs(logits, torch.randn(rois, 16, generator=draw), maps, anchors=anchors())


def batch(*boxes: list[list[float]], rois: int = 0) -> DetectionBatch:
    objects = [
        Objects(torch.tensor(b).reshape(-1, 4), torch.ones(len(b), dtype=torch.int64), (IMAGE, IMAGE)) for b in boxes
    ]
    images, targets = torch.zeros(len(boxes), 3, IMAGE, IMAGE), torch.arange(rois) % 6
    return DetectionBatch(images, targets, torch.arange(len(boxes)), SampleRandom(0, len(boxes)), 100, objects=objects)


ONE, OTHER = [[4.0, 4.0, 36.0, 30.0]], [[20.0, 10.0, 60.0, 60.0], [0.0, 0.0, 9.0, 9.0]]


@pytest.mark.parametrize(
    ("method", "params"),
    [(FGFI, {}), (ReviewKD, {}), (ReKD, {"tap": "p3, p4,p5"}), (ReKD, {"tap": "p4"}), (FitNets, {"tap": "p4"}),
     (FitNets, {"tap": "stage3"}), (MGD, {}), (MGD, {"taps": "p3,p4", "mask": "channels"}), (PKD, {}),
     (PKD, {"taps": "p3,p4"})],
)  # fmt: skip
def test_terms_of_pyramids_are_finite_and_train_the_student(method: Any, params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    distiller = method(spec(8), spec(8), **params)
    student, teacher = outputs(3), outputs(3, seed=1)
    assert set(distiller.student_taps) <= set(student.features), "a detector has no such tap"
    for x in student.features.values():
        x.requires_grad_()
    terms = distiller(batch(ONE, OTHER, []), student, teacher)
    assert set(terms) == (set(distiller.weights) | set(distiller.diagnostics)) - {"ce"}
    assert all(value.isfinite() and value.ndim == 0 for value in terms.values())
    sum(terms[name] for name in distiller.weights if name != "ce").backward()
    for tap in distiller.student_taps:
        assert student.features[tap].grad.abs().sum() > 0, tap


@pytest.mark.parametrize("method", [KD, DKD])
def test_methods_of_logits_read_regions_as_samples(method: Any) -> None:
    student, teacher = outputs(2, rois=7), outputs(2, rois=7, seed=1)
    terms = method(spec(8), spec(8))(batch(ONE, OTHER, rois=7), student, teacher)
    sum(terms.values()).backward()
    assert student.logits.grad.abs().sum(1).gt(0).all()
    assert all(v == 0 for v in method(spec(8), spec(8))(batch(ONE, OTHER, rois=7), teacher, teacher).values())


def test_reviewkd_of_detectors_has_only_the_pyramid() -> None:
    distiller = ReviewKD(spec(8), spec(8))
    assert distiller.names == [(p, p) for p in LEVELS]
    assert len(distiller.fusions) == len(LEVELS)


def test_rekd_of_several_taps_is_the_mean_over_taps() -> None:
    torch.manual_seed(0)
    both = ReKD(spec(8), spec(8), tap="p3,p4", selection="mean", samples=1)
    student, teacher = outputs(2), outputs(2, seed=1)
    terms = both(batch(ONE, OTHER), student, teacher)
    terms_of_taps = []
    for region, tap in zip(both.regions, ("p3", "p4"), strict=True):
        single = ReKD(spec(8), spec(8), tap=tap, selection="mean", samples=1)
        single.regions[0].project.load_state_dict(region.project.state_dict())
        terms_of_taps.append(single(batch(ONE, OTHER), student, teacher))
    torch.testing.assert_close(terms["select"], (terms_of_taps[0]["select"] + terms_of_taps[1]["select"]) / 2)


def test_fgfi_imitates_only_near_objects() -> None:
    torch.manual_seed(0)
    distiller = FGFI(spec(8), spec(8), taps="p3")
    student, teacher = outputs(1), outputs(1, seed=1)
    near = near_objects(student.anchors["p3"], torch.tensor(ONE), 0.5)
    assert 0 < near.sum() < near.numel()
    before = distiller(batch(ONE), student, teacher)["imitation"]
    changed_far = DetectorOutputs(teacher.logits, teacher.embedding, {"p3": teacher.features["p3"] + 9 * ~near})
    assert distiller(batch(ONE), student, changed_far)["imitation"] == before
    changed_near = DetectorOutputs(teacher.logits, teacher.embedding, {"p3": teacher.features["p3"] + 9 * near})
    assert distiller(batch(ONE), student, changed_near)["imitation"] > before
    adapted = distiller.adapt[0](student.features["p3"]).relu()
    squared = (adapted - teacher.features["p3"]).square().sum(1)[0]
    torch.testing.assert_close(before, squared[near].sum() / (2 * near.sum()))


def test_fgfi_of_a_batch_is_the_mean_of_its_images() -> None:
    torch.manual_seed(0)
    distiller = FGFI(spec(8), spec(8))
    student, teacher = outputs(3), outputs(3, seed=1)
    whole = distiller(batch(ONE, [], OTHER), student, teacher)
    of_images = []
    for i, boxes in enumerate((ONE, [], OTHER)):
        one_student, one_teacher = (
            DetectorOutputs(o.logits, o.embedding, {k: v[i : i + 1] for k, v in o.features.items()}, anchors=o.anchors)
            for o in (student, teacher)
        )
        of_images.append(distiller(batch(boxes), one_student, one_teacher)["imitation"])
    assert of_images[1] == 0
    torch.testing.assert_close(whole["imitation"], torch.stack(of_images).mean())


@pytest.mark.parametrize(("params", "message"), [({"taps": "stage3"}, "no anchors"), ({"threshold": 1.0}, "between 0")])
def test_fgfi_refuses_wrong_settings(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FGFI(spec(8), spec(8), **params)


corners = st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(1, 30)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
BOXES = st.lists(corners, min_size=1, max_size=5).map(torch.tensor)


@given(BOXES, BOXES)
def test_iou_is_torchvisions(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(iou(a, b), box_iou(a, b))


@given(BOXES, st.floats(0.05, 0.95))
def test_near_is_the_union_over_objects_and_shrinks_with_the_threshold(boxes: Tensor, threshold: float) -> None:
    for grid in anchors().values():
        near = near_objects(grid, boxes, threshold)
        each = torch.stack([near_objects(grid, box[None], threshold) for box in boxes])
        assert torch.equal(near, each.any(0))
        assert each.flatten(1).any(1).all() or box_iou(grid.flatten(0, 2), boxes).amax(0).min() == 0
        assert not (near_objects(grid, boxes, (1 + threshold) / 2) & ~near).any()


def test_the_objects_that_methods_see_cannot_be_replaced() -> None:
    objects = Objects(torch.zeros(0, 4), torch.zeros(0), (8, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        objects.size = (4, 4)  # type: ignore[misc]
