"""Detectors give torchvision's numbers for each image, independent of the rest of the batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import detection as torchvisions
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from harness.models.detection import base
from harness.models.detection.base import Detector, TrainingOutputs
from harness.models.detection.build import build_detector
from harness.models.detection.sampling import generator, sample
from harness.models.frozen_norm import FrozenBatchNorm
from harness.spec.tasks import resolve_model
from harness.spec.tasks.detection import DETECTORS
from harness.training.outputs import to_float32
from harness.training.teacher import freeze
from methods.detection import Objects
from tests.support.coco128 import batch, needs_coco128

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_built")]
TWO, ONE = "fasterrcnn_resnet18_fpn", "retinanet_resnet18_fpn"
CLASSES = 5
SEEDS = [11, 12, 13]
PROPOSALS = 60  # of each image: a detector's own 1,000 or 2,000 take long to read


def built(name: str, **options: Any) -> Detector:
    torch.manual_seed(0)
    if DETECTORS[name].two_stage:
        options = {"anchors_per_image": 32, "rois_per_image": 16, **options}
    model: Any = build_detector(name, CLASSES, **options)
    if DETECTORS[name].two_stage:
        model.rpn._post_nms_top_n = {"training": PROPOSALS, "testing": PROPOSALS}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm):  # as training leaves them: not the identity
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def scene(dtype: torch.dtype = torch.float32, divisor: int = 1) -> tuple[Tensor, list[Objects]]:
    """Return three images of different sizes, one without objects."""
    images = torch.zeros(3, 3, 96 // divisor, 128 // divisor, dtype=dtype)
    rng = torch.Generator().manual_seed(1)
    objects = []
    sizes = [(height // divisor, width // divisor) for height, width in ((96, 128), (70, 128), (96, 90))]
    for image, size, count in zip(images, sizes, [3, 0, 2], strict=True):
        image[:, : size[0], : size[1]] = torch.randn(3, *size, generator=rng, dtype=torch.float64).to(dtype)
        corners = torch.rand(count, 2, 2, generator=rng) * torch.tensor([size[1], size[0]])
        boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)
        boxes[:, 2:] = boxes[:, 2:].minimum(torch.tensor([size[1], size[0]]))
        objects.append(Objects(boxes, torch.randint(1, CLASSES + 1, (count,), generator=rng), size))
    return images, objects


def learn(model: Detector, images: Tensor, objects: Sequence[Objects], seeds: Sequence[int] = SEEDS) -> TrainingOutputs:
    outputs = model.train()(images, (), objects, seeds)
    assert isinstance(outputs, TrainingOutputs)
    return outputs


@given(
    labels=st.lists(st.integers(-1, 3), max_size=60),
    count=st.integers(1, 40),
    fraction=st.sampled_from([0.25, 0.5, 1.0]),
    seed=st.integers(0, 2**40),
)
def test_a_sample_has_so_many_positives_and_is_filled_with_negatives(
    labels: list[int], count: int, fraction: float, seed: int
) -> None:
    given = torch.tensor(labels, dtype=torch.int64)
    chosen = sample(given, count, fraction, generator(seed, given.device))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, sample(given, count, fraction, generator(seed, given.device)))
    positives = min(sum(x > 0 for x in labels), int(count * fraction))
    negatives = min(sum(x == 0 for x in labels), count - positives)
    assert [(given[chosen] > 0).sum(), (given[chosen] == 0).sum(), len(chosen)] == [
        positives, negatives, positives + negatives,
    ]  # fmt: skip


def test_every_candidate_is_drawn_equally_often() -> None:
    labels = torch.tensor([1, 0, -1, 2, 0, 0, 3])
    drawn = torch.zeros(7)
    for seed in range(3000):
        drawn[sample(labels, 2, 0.5, generator(seed, labels.device))] += 1 / 1000
    torch.testing.assert_close(drawn, torch.tensor([1.0, 1, 0, 1, 1, 1, 1]), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("name", "count"), [(TWO, 16), (TWO, 3000), (ONE, 0)]
)  # 3000: all candidates, a different number in each image
def test_a_batchs_losses_are_the_mean_of_its_images_own(name: str, count: int) -> None:
    images, objects = scene(torch.float64, divisor=2)
    model = built(name, **({"anchors_per_image": 2 * count, "rois_per_image": count} if count else {})).double()
    together = learn(model, images, objects)
    single_images = [learn(model, images[i : i + 1], objects[i : i + 1], SEEDS[i : i + 1]) for i in range(len(images))]
    for loss, value in together.losses.items():
        mean = torch.stack([image.losses[loss] for image in single_images]).mean()
        # torchvision's anchors and targets have single precision
        torch.testing.assert_close(value, mean, rtol=1e-6, atol=1e-8, msg=loss)
        assert value > 0, loss
    counts = [len(r) for r in together.rois]
    assert counts == [len(r) for image in single_images for r in image.rois]
    assert len(set(counts)) == (len(images) if count == 3000 else min(count, 1))
    for mine, image in zip(together.rois, single_images, strict=name == TWO):
        torch.testing.assert_close(mine, image.rois[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(together.targets, torch.cat([image.targets for image in single_images]))


def test_a_sample_depends_only_on_the_images_own_seed() -> None:
    images, objects = scene(torch.float64, divisor=2)
    model = built(TWO).double()
    first, other = learn(model, images, objects), learn(model, images, objects, [SEEDS[0], 99, SEEDS[2]])
    same = [torch.equal(a, b) for a, b in zip(first.rois, other.rois, strict=True)]
    assert same == [True, False, True]


class Drawn:
    """Our draws in the form of torchvision's sampler."""

    def __init__(self, count: int, fraction: float, draws: list[torch.Generator]):
        self.count, self.fraction, self.draws = count, fraction, draws

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        masks = []
        for of_image, draws in zip(labels, self.draws, strict=True):
            mask = torch.zeros_like(of_image, dtype=torch.bool)
            mask[sample(of_image, self.count, self.fraction, draws)] = True
            masks.append(mask)
        return tuple(
            [(mask & keep).to(torch.uint8) for mask, keep in zip(masks, chosen, strict=True)]
            for chosen in ([x > 0 for x in labels], [x == 0 for x in labels])
        )  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("images_used", "rois"), [(3, 16), (1, 3000)]
)  # all samples are full, or there is only one image
def test_losses_are_torchvisions_where_theirs_are_means_over_images(images_used: int, rois: int) -> None:
    images, objects = (some[:images_used] for some in scene(divisor=2))
    model: Any = built(TWO, rois_per_image=rois).train()
    ours = learn(model, images, objects, SEEDS[:images_used])
    assert [len(r) == rois for r in ours.rois] == [rois == 16] * images_used
    targets = [{"boxes": o.boxes, "labels": o.labels} for o in objects]
    draws = [generator(seed, images.device) for seed in SEEDS[:images_used]]
    model.rpn.fg_bg_sampler = Drawn(32, 0.5, draws)
    model.roi_heads.fg_bg_sampler = Drawn(rois, 0.25, draws)
    sizes = [o.size for o in objects]
    maps = model.backbone(images)
    proposals, first = model.rpn(ImageList(images, sizes), maps, targets)
    _, second = model.roi_heads(maps, proposals, sizes, targets)
    theirs = {
        "rpn_objectness": first["loss_objectness"], "rpn_box": first["loss_rpn_box_reg"],
        "roi_class": second["loss_classifier"], "roi_box": second["loss_box_reg"],
    }  # fmt: skip
    torch.testing.assert_close(ours.losses, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
@pytest.mark.parametrize("size", [(96, 128), (70, 101)])
def test_detections_are_torchvisions(name: str, size: tuple[int, int]) -> None:
    as_given = {"min_size": size[0], "max_size": 1000, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    two_stage = DETECTORS[name].two_stage
    torch.manual_seed(0)
    kwargs = {"num_classes": CLASSES + two_stage, "weights_backbone": None, **as_given}
    theirs = getattr(torchvisions, name)(weights=None, **kwargs).eval()
    if not two_stage:  # otherwise all scores start at 0.01 and nothing is detected
        nn.init.normal_(theirs.head.classification_head.cls_logits.bias, -2)
        nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.1)
        theirs.detections_per_img = 100
    ours = build_detector(name, CLASSES, norm="batch").eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(3, *size)
    padded = torch.zeros(1, 3, 96, 128)
    padded[0, :, : size[0], : size[1]] = image
    with torch.no_grad():
        (expected,) = theirs([image])
        (detections,) = ours.detect(padded, [size])
    assert 20 < len(detections.boxes) <= 100
    torch.testing.assert_close(detections.boxes, expected["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(detections.scores, expected["scores"], rtol=1e-4, atol=1e-5)
    assert torch.equal(detections.labels, expected["labels"] + (not two_stage))


def test_rois_of_all_sizes_are_read_from_torchvisions_levels() -> None:
    maps = {f"p{level}": torch.randn(1, 256, 1024 // 2**level, 768 // 2**level) for level in range(2, 6)}
    rois = [torch.tensor([[30.0, 20, 30 + side, 20 + side / 2] for side in (5, 80, 200, 400, 730)])]
    heads = built(TWO).roi_heads
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    named = dict(zip("0123", maps.values(), strict=True))
    expected = theirs(named, rois, [(1024, 768)])
    assert torch.equal(heads.box_roi_pool(named, rois, []), expected)


def test_boxes_lie_within_the_images_own_size() -> None:
    images, objects = scene()
    model = built(TWO)
    outputs = learn(model, images, objects)
    with torch.no_grad():
        image_detections = model.eval().detect(images, [o.size for o in objects])
    for rois, detections, (height, width) in zip(
        outputs.rois, image_detections, [o.size for o in objects], strict=True
    ):
        assert len(detections.boxes) > 0
        for boxes in (rois, detections.boxes):
            assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()


def test_an_earlier_batch_leaves_no_trace() -> None:
    """Batches are independent, whereas torchvision takes its maps' strides from the first images it sees."""
    images, objects = scene(divisor=2)
    small = torch.randn(1, 3, 48, 64), [Objects(torch.tensor([[1.0, 1, 20, 20]]), torch.tensor([1]), (33, 33))]
    fresh, used = built(TWO), built(TWO)
    learn(used, *small, [1])
    torch.testing.assert_close(learn(used, images, objects).logits, learn(fresh, images, objects).logits)


@pytest.mark.parametrize("name", [TWO, ONE, "fasterrcnn_mobilenet_v2_fpn"])
def test_bfloat16_gives_losses_and_boxes_in_float32(name: str) -> None:
    images, objects = scene(divisor=4)
    model = built(name)
    exact = learn(model, images, objects).losses
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model.train()(images, model.tap_names, objects, SEEDS)
        with torch.no_grad():
            detections = model.eval().detect(images, [o.size for o in objects])
    assert outputs.features[model.tap_names[-1]].dtype == outputs.features["stage4"].dtype == torch.bfloat16
    for loss, value in outputs.losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[loss], rtol=0.3, atol=0.05, msg=loss)
    assert {x.dtype for d in detections for x in (d.boxes, d.scores)} == {torch.float32}
    assert all(x.dtype == torch.float32 for x in (*outputs.rois, outputs.logits, *outputs.anchors.values()))
    up = to_float32(outputs)
    assert up.features["p5"].dtype == up.embedding.dtype == torch.float32
    assert isinstance(up, TrainingOutputs) and up.losses is outputs.losses


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize(
    "name", [TWO, "fasterrcnn_mobilenet_v2_fpn", pytest.param("retinanet_resnet50_fpn", id="bottlenecks")]
)
def test_a_teacher_is_the_same_detector_without_batch_norms(name: str, norm: str) -> None:
    images, objects = scene(divisor=2)
    model = built(name, norm=norm).eval()
    sizes = [o.size for o in objects]
    rois = [torch.tensor([[3.0, 4, 40, 30]])] * len(objects)
    with torch.no_grad():
        before, detections = model(images, model.tap_names), model.detect(images, sizes)
        read = model.read(before.features, rois)
        freeze(model, torch.device("cpu"))
        after, detections_after = model(images, model.tap_names), model.detect(images, sizes)
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm) for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    for tap, x in before.features.items():
        scale = x.abs().max()
        torch.testing.assert_close(after.features[tap] / scale, x / scale, rtol=0, atol=1e-5, msg=tap)
    torch.testing.assert_close(model.read(after.features, rois), read, rtol=1e-3, atol=1e-4)
    assert [len(d.boxes) for d in detections_after] == [len(d.boxes) for d in detections]


def test_reading_the_students_own_rois_gives_its_logits() -> None:
    images, objects = scene(divisor=2)
    model = built(TWO)
    outputs = model.train()(images, ("p2", "p3", "p4", "p5"), objects, SEEDS)
    assert isinstance(outputs, TrainingOutputs)
    logits, embedding = model.read(outputs.features, outputs.rois)
    assert torch.equal(logits, outputs.logits) and torch.equal(embedding, outputs.embedding)
    assert logits.shape == (48, CLASSES + 1) and embedding.shape == (48, 1024)
    # the candidates include the objects' own boxes, and some of these are always drawn
    assert (outputs.targets[:16] > 0).any() and not (outputs.targets[16:32] > 0).any()


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_specs_describe_the_tensors_that_a_method_gets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "NOMINAL_SIZE", (64, 128))
    model = built(name).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 64, 128), model.tap_names)
    spec = model.describe()
    assert spec.channels == {tap: x.shape[1] for tap, x in outputs.features.items()}
    assert spec.sizes == {tap: tuple(x.shape[2:]) for tap, x in outputs.features.items()}
    assert (spec.num_classes, spec.embedding_dim, spec.pooled) == (
        outputs.logits.shape[1], outputs.embedding.shape[1], False,
    )  # fmt: skip
    for level, anchors in outputs.anchors.items():
        assert anchors.shape == (*outputs.features[level].shape[2:], 3 if DETECTORS[name].two_stage else 9, 4)
    with pytest.raises(ValueError, match="no tap named 'p9'; this model has: stage"):
        model(torch.randn(1, 3, 64, 128), ("p9",))


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("name", [TWO, "fasterrcnn_mobilenet_v2_fpn"])
@pytest.mark.parametrize("frozen_stages", [0, 2, 5])
def test_so_many_stages_are_frozen(name: str, norm: str, frozen_stages: int) -> None:
    model: Any = built(name, norm=norm, frozen_stages=frozen_stages)
    images, objects = scene(divisor=2)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    outputs = model.train()(images, (), objects, SEEDS)
    sum(outputs.losses.values()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    changed = {key for key, x in model.state_dict().items() if not torch.equal(x, before[key])}
    ends = {"fasterrcnn_resnet18_fpn": ("bn1", "layer1", "layer2", "layer3", "layer4"),
            "fasterrcnn_mobilenet_v2_fpn": ("1", "3", "6", "13", "17")}[name]  # fmt: skip
    moved = [any(key.startswith(f"backbone.body.{end}.") for key in changed) for end in ends]
    expected = [False] * frozen_stages + [True] * (5 - frozen_stages)
    if norm == "frozen" and name == TWO:
        expected[0] = False  # the stem's batch norm
    assert moved == expected
    statistics = {key for key in changed if key.endswith("running_mean")}
    assert bool(statistics) == (norm == "batch" and frozen_stages < 5)
    assert {"rpn.head.cls_logits.weight", "roi_heads.box_head.fc6.weight", "backbone.fpn.inner_blocks.0.0.weight"} <= (
        changed
    )


def test_a_frozen_batch_norm_is_torchvisions() -> None:
    torch.manual_seed(0)
    norm, theirs = nn.BatchNorm2d(4), FrozenBatchNorm2d(4)
    for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        nn.init.uniform_(x, 0.5, 1)  # type: ignore[arg-type]
    ours = FrozenBatchNorm(4).train()
    ours.load_state_dict(norm.state_dict())
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys() and not list(ours.parameters())
    assert ours(x.bfloat16()).dtype == torch.bfloat16
    nn.BatchNorm2d(4).load_state_dict(dict(ours.state_dict()))


@needs_coco128
@pytest.mark.parametrize("name", [TWO, ONE])
def test_two_real_images_are_learnt(name: str) -> None:
    torch.manual_seed(0)
    model = build_detector(name, 80, norm="batch", anchors_per_image=64, rois_per_image=32).train()
    images, objects = batch([0, 1], 64)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    course = []
    for step in range(8):
        outputs = model(images, (), objects, [step, 100 + step])
        assert isinstance(outputs, TrainingOutputs)
        loss = torch.stack(list(outputs.losses.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.append(loss.item())
    assert max(course[-3:]) < 0.8 * course[0], course


@needs_coco128
def test_an_image_without_objects_teaches_that_there_are_none() -> None:
    images, (objects,) = batch([0], 96)
    empty = replace(objects, boxes=objects.boxes[:0], labels=objects.labels[:0])
    outputs = learn(built(TWO), images, [empty], [1])
    assert outputs.losses["roi_box"] == outputs.losses["rpn_box"] == 0
    assert outputs.losses["roi_class"] > 0 and not outputs.targets.any()


def test_an_unknown_detector_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no model named 'fasterrcnn_resnet19_fpn'; nearest: fasterrcnn_resnet18"):
        resolve_model("fasterrcnn_resnet19_fpn")
