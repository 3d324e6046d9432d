"""A detector's weights: from torchvision's classifiers and detectors, and from our own files."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import detection as torchvisions

from harness.models.checkpoints import WeightsError
from harness.models.detection import checkpoints
from harness.models.detection.build import build_detector
from harness.models.detection.checkpoints import load_backbone, load_detector
from harness.models.frozen_norm import FrozenBatchNorm
from harness.spec.pretrained import sha256_start, weights_url
from harness.spec.tasks.detection import DETECTORS
from tests.support.coco128 import content, needs_coco128

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_built")]
LAST = {"mobilenet_v2": "features.17"}  # the module of the last stage


def classifier(name: str) -> nn.Module:
    torch.manual_seed(1)
    return torchvision.models.get_model(name, num_classes=7).eval()


@pytest.mark.parametrize("norm", ["frozen", "batch"])
@pytest.mark.parametrize("name", ["fasterrcnn_resnet34_fpn", "retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v2_fpn"])
def test_a_detector_sees_what_its_classifier_sees(tmp_path: Path, name: str, norm: str) -> None:
    net, file = classifier(DETECTORS[name].backbone), tmp_path / "net.pth"
    torch.save(net.state_dict(), file)
    detector: Any = build_detector(name, 3, norm=norm, frozen_stages=2).eval()
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load_backbone(detector, name, file, sha256).sha256 == sha256
    seen: list[Tensor] = []
    last = net.get_submodule(LAST.get(DETECTORS[name].backbone, "layer4"))
    last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        net(images)
        mine = detector(images, ("stage4",)).features["stage4"]
    torch.testing.assert_close(mine, seen[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("of", "change", "message"),
    [
        ("resnet18", lambda s: s.pop("layer2.0.conv1.weight"), ".*only the model has layer2.0.conv1.weight"),
        (
            "resnet18",
            lambda s: s.update({"bn1.bias": torch.zeros(3)}),
            r".*bn1.bias is \(3,\) in the file, \(64,\) in",
        ),
        ("resnet34", lambda s: None, ".*only the file has layer1.2.conv1.weight"),
        ("resnet50", lambda s: None, r".*layer1.0.conv1.weight is \(64, 64, 1, 1\) in the file, \(64, 64, 3, 3\) in"),
        (
            "mobilenet_v2",
            lambda s: None,
            "0 of its 100 tensors match; .*only the model has conv1.weight",
        ),
    ],
)
def test_another_classifier_is_refused(tmp_path: Path, of: str, change: Any, message: str) -> None:
    state, file = classifier(of).state_dict(), tmp_path / "net.pth"
    change(state)
    torch.save(state, file)
    name = "fasterrcnn_resnet18_fpn"
    detector = build_detector(name, 3)
    with pytest.raises(WeightsError, match=f"^weights {file}: not the weights of resnet18: {message}"):
        load_backbone(detector, name, file)
    with pytest.raises(WeightsError, match="sha256 is"):
        load_backbone(detector, name, file, "0" * 64)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v2_fpn", "retinanet_resnet18_fpn"])
def test_our_own_weights_are_read_back(tmp_path: Path, name: str) -> None:
    trained, fresh = (build_detector(name, 3, norm="batch", frozen_stages=1) for _ in range(2))
    file = tmp_path / "model.safetensors"
    save_file(trained.state_dict(), file)
    load_detector(fresh, name, file)
    assert all(torch.equal(fresh.state_dict()[k], v) for k, v in trained.state_dict().items())
    with pytest.raises(WeightsError, match=f"model.safetensors: not the weights of {name}: .* in the file"):
        load_detector(build_detector(name, 4, norm="batch"), name, file)


@pytest.fixture(scope="module", params=["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """Return a name, torchvision's detector with 91 outputs and random weights, and the file it would publish."""
    torch.manual_seed(2)
    net = getattr(torchvisions, request.param)(weights=None, weights_backbone=None).eval()
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    # the published file has the names from before torchvision renamed modules
    state = {k.replace("rpn.head.conv.0.0.", "rpn.head.conv."): v for k, v in state.items()}
    file = tmp_path_factory.mktemp("published") / f"{request.param}.pth"
    torch.save(state, file)
    return request.param, net, file


def test_of_91_outputs_those_of_cocos_80_categories_are_taken(published: tuple[str, Any, Path]) -> None:
    name, theirs, file = published
    ours: Any = build_detector(name, 80).eval()
    load_detector(ours, name, file)
    categories = checkpoints._CATEGORIES
    assert len(categories) == 80 and (categories[0], categories[11], categories[-1]) == (1, 13, 90)
    with torch.no_grad():
        maps = theirs.backbone(torch.randn(1, 3, 64, 64))
        if DETECTORS[name].two_stage:
            x = torch.randn(3, 1024)
            (logits, boxes), (own_outputs, my_boxes) = (net.roi_heads.box_predictor(x) for net in (theirs, ours))
            rows = [0, *categories]
            torch.testing.assert_close(own_outputs, logits[:, rows])
            torch.testing.assert_close(my_boxes.view(3, 81, 4), boxes.view(3, 91, 4)[:, rows])
        else:
            published_outputs, own_outputs = (net.head(list(maps.values())) for net in (theirs, ours))
            torch.testing.assert_close(own_outputs["cls_logits"], published_outputs["cls_logits"][..., categories])
            torch.testing.assert_close(own_outputs["bbox_regression"], published_outputs["bbox_regression"])
    with pytest.raises(WeightsError, match="in the file, .* in the model"):
        load_detector(build_detector(name, 79), name, file)


def test_the_published_files_batch_norms_are_without_eps(
    published: tuple[str, Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, file = published
    eps = []
    for norm in ("frozen", "batch"):
        for starts in (("0123",), (hashlib.sha256(file.read_bytes()).hexdigest()[:8],)):
            monkeypatch.setattr(checkpoints, "_WITHOUT_EPS", starts)
            detector = build_detector(name, 80, norm=norm)  # type: ignore[arg-type]
            load_detector(detector, name, file)
            eps.append({m.eps for m in detector.modules() if isinstance(m, FrozenBatchNorm | nn.BatchNorm2d)})
    assert eps == [{1e-5}, {0.0}] * 2


def test_the_published_files_are_recognised_by_their_names() -> None:
    monikers = ("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "RetinaNet_ResNet50_FPN_Weights.COCO_V1")
    starts = tuple(sha256_start(weights_url(f"torchvision:{m}")) for m in monikers)
    assert starts == checkpoints._WITHOUT_EPS and all(len(start) == 8 for start in starts)


@needs_coco128
def test_torchvisions_categories_are_cocos() -> None:
    names = torchvisions.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [(c["id"], c["name"]) for c in content()["categories"]] == [(i, names[i]) for i in checkpoints._CATEGORIES]
