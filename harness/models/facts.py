"""Measure every model of the catalogue and write `model_facts.json`: ``python -m harness.models.facts``."""

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.base import describe
from harness.models.build import build
from harness.spec import models
from harness.spec.models import CATALOG, DIGITS, ModelFacts

FACTS = Path(models.__file__).with_name("model_facts.json")


def measure(name: str) -> ModelFacts:
    """Build the model without storage for its weights and count; 10 classes for digits, else 100."""
    image_shape = CATALOG[name].image_shape
    with torch.device("meta"):
        model = build(name, 10 if image_shape == DIGITS else 100, image_shape[0])
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs += output.numel() * prod(module.weight.shape[1:])

    for module in model.modules():
        module.register_forward_hook(count)
    spec = describe(model, image_shape)
    taps = {tap: (spec.channels[tap], *spec.sizes[tap]) for tap in spec.names}
    return ModelFacts(sum(p.numel() for p in model.parameters()), macs, taps)


def as_json(facts: ModelFacts) -> dict[str, Any]:
    return {"params": facts.params, "macs": facts.macs, "taps": {k: list(v) for k, v in facts.taps.items()}}


def main() -> None:
    rows = (f"  {json.dumps(name)}: {json.dumps(as_json(measure(name)))}" for name in CATALOG)
    FACTS.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
