"""Facts of every model of the catalogue, measured and written to `model_facts.json`: ``python -m
harness.models.facts``.
"""

import json
from dataclasses import asdict
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.models.detection.base import NOMINAL_SIZE, pyramid
from harness.models.detection.build import build_detector
from harness.models.detection.one_stage import OneStageDetector
from harness.models.detection.two_stage import POOLED_SIZE, TwoStageDetector
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import models
from harness.spec.models import CATALOG, DIGITS, ModelFacts
from harness.spec.tasks.detection import DETECTORS
from methods.base import TapSpec

FACTS = Path(models.__file__).with_name("model_facts.json")


def measure_model(name: str) -> ModelFacts:
    """Build the model without storage for its weights and count; 10 classes for digits, else 100; a detector's are 80.

    A detector's multiply-accumulates are those of training on an image of its nominal size with 512 regions.
    """
    if name in DETECTORS:
        return _measure_detector(name)
    image_shape = CATALOG[name].image_shape
    with torch.device("meta"):
        model = build_model(name, 10 if image_shape == DIGITS else 100, image_shape[0])
    macs = Macs(model)
    return _facts(model, describe_taps(model, image_shape), macs)


class Macs:
    """Counts multiply-accumulates of convolutions and linear layers while a model runs."""

    def __init__(self, model: nn.Module):
        self.total = 0
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        self.total += output.numel() * prod(module.weight.shape[1:])


def _measure_detector(name: str) -> ModelFacts:
    with torch.device("meta"):
        model = build_detector(name, 80)
        macs = Macs(model)
        levels = pyramid(model.maps(torch.empty(1, 3, *NOMINAL_SIZE)))
        if isinstance(model, TwoStageDetector):
            heads = model.roi_heads
            model.rpn.head(list(levels.values()))
            heads.box_predictor(heads.box_head(torch.empty(512, model.backbone.out_channels, POOLED_SIZE, POOLED_SIZE)))
        else:
            assert isinstance(model, OneStageDetector)
            model.head(list(levels.values()))
    return _facts(model, model.describe(), macs)


def _facts(model: nn.Module, spec: TapSpec, macs: Macs) -> ModelFacts:
    taps = {tap: (spec.channels[tap], *spec.sizes[tap]) for tap in spec.names}
    return ModelFacts(sum(p.numel() for p in model.parameters()), macs.total, taps)


def main() -> None:
    rows = (f"  {json.dumps(name)}: {json.dumps(asdict(measure_model(name)))}" for name in (*CATALOG, *DETECTORS))
    FACTS.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
