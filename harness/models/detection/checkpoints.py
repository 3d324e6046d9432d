"""Loading of a detector's weights: its classifier's only, or all of them."""

from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, RetinaNet_ResNet50_FPN_Weights

from harness.models.checkpoints import LoadedWeights, load_state_dict, read_weights
from harness.models.detection.backbone import BODIES
from harness.models.detection.base import Detector
from harness.models.frozen_norm import FrozenBatchNorm
from harness.models.state_dicts import Wanted
from harness.spec.pretrained import ANYWHERE, Place, sha256_start
from harness.spec.tasks.detection import DETECTORS

# torchvision's detectors have an output for each of COCO's category ids, 0 (the background, which RetinaNet does not
# use) to 90. Ten of them belong to no category.
_OUTPUTS = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
_CATEGORIES = [index for index, name in enumerate(_OUTPUTS) if name not in ("__background__", "N/A")]
# Trained with batch norms that add nothing to the variance; torchvision sets that too where it loads them.
_WITHOUT_EPS = tuple(
    sha256_start(weights.COCO_V1.url) for weights in (FasterRCNN_ResNet50_FPN_Weights, RetinaNet_ResNet50_FPN_Weights)
)


def load_backbone(
    detector: Detector, name: str, file: Path, sha256: str | None = None, place: Place = ANYWHERE
) -> LoadedWeights:
    """Load a classifier's state dict into the stages of the detector ``name``.

    The file is torchvision's, or that of a timm model with the same tensors. Its classifying layers are left out.

    Raises:
        WeightsError: the file cannot be read, or is another model's: a tensor is missing, or of another shape, or one
            too many.
    """
    body, backbone = BODIES[DETECTORS[name].backbone], DETECTORS[name].backbone
    module = detector.backbone.body
    shapes = {f"{body.prefix}{key}": tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    state, loaded = read_weights(file, Wanted(shapes, body.rest), backbone, sha256, place)
    load_state_dict(module, backbone, loaded, {key.removeprefix(body.prefix): x for key, x in state.items()})
    return loaded


def load_detector(
    detector: Detector, name: str, file: Path, sha256: str | None = None, place: Place = ANYWHERE
) -> LoadedWeights:
    """Load all of a detector's weights, strictly.

    A detector of COCO's 80 categories also loads torchvision's weights with their 91 outputs.

    Raises:
        WeightsError: the file cannot be read, or is another model's.
    """
    state, loaded = read_weights(file, Wanted.of(detector), name, sha256, place)
    if detector.num_classes == len(_CATEGORIES):
        state = {key: _of_categories(key, tensor) for key, tensor in state.items()}
    load_state_dict(detector, name, loaded, state)
    if loaded.sha256.startswith(_WITHOUT_EPS):
        for module in detector.modules():
            if isinstance(module, FrozenBatchNorm | nn.BatchNorm2d):
                module.eps = 0.0
    return loaded


def _of_categories(key: str, tensor: Tensor) -> Tensor:
    """Return those of torchvision's outputs that belong to a category or, in Faster R-CNN, to the background."""
    part, _, _ = key.rpartition(".")
    per_class = {"roi_heads.box_predictor.cls_score": 1, "roi_heads.box_predictor.bbox_pred": 4}
    if part in per_class and len(tensor) == len(_OUTPUTS) * per_class[part]:
        rows = tensor.unflatten(0, (len(_OUTPUTS), per_class[part]))
        return rows[[0, *_CATEGORIES]].flatten(0, 1)
    if part == "head.classification_head.cls_logits" and len(tensor) % len(_OUTPUTS) == 0:
        return tensor.unflatten(0, (-1, len(_OUTPUTS)))[:, _CATEGORIES].flatten(0, 1)
    return tensor
