"""``python -m harness.evaluate``: accuracy of a checkpoint on a whole test set."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness import options
from harness.errors import UserError


def evaluate(
    dataset: Annotated[str, typer.Option(help="A dataset of the harness, e.g. cifar100.")],
    model: Annotated[str, typer.Option(help="A model, e.g. resnet56, timm:NAME or torchvision:NAME.")],
    weights: Annotated[Path, typer.Option(help="safetensors, or a torch checkpoint of plain tensors.")],
    data: options.Data = None,
    json_: options.Json = False,
) -> None:
    """Measure a checkpoint's top-1 and top-5 accuracy. Checkpoints of RepDistiller and mdistiller load as they are."""
    from harness.data import locate
    from harness.models.build import build
    from harness.spec import datasets, models

    try:
        info = datasets.info(dataset)
        name = models.resolve(model)
        models.check_images(name, info.name, info.image_shape)
    except ValueError as e:
        raise UserError(str(e)) from None
    root = locate.data_root(data)
    locate.dataset_folder(info.name, root)
    file = weights if weights.is_file() or root is None else root / weights
    if not file.is_file():
        raise UserError(f"--weights {weights}: no such file")

    import torch

    from harness.data import raw
    from harness.data.resident import Normalise
    from harness.training import evaluate as evaluation
    from harness.training.precision import set_float32
    from harness.training.teacher import BadWeights, load_weights

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build(name, info.classes, in_channels=info.image_shape[0])
    try:
        sha256 = load_weights(net, name, file)
        content = raw.read(info.name, root)
    except (BadWeights, raw.WrongData) as e:
        raise UserError(str(e)) from None
    test = evaluation.EvalSet(
        "test",
        torch.from_numpy(content.test_images).to(device),
        torch.from_numpy(content.test_targets).to(device),
        Normalise(info, device),
    )
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_float32("float32")
    metrics = evaluation.evaluate(net, test)
    if json_:
        found = {
            "dataset": info.name,
            "model": name,
            "weights": str(file),
            "sha256": sha256,
            "images": len(test.targets),
        }
        print(json.dumps({**found, **asdict(metrics)}))
    else:
        print(f"{name} on {info.name} ({len(test.targets):,} test images), {file.name} sha256 {sha256[:12]}")
        print(f"top-1 {metrics.top1:.2f} %   top-5 {metrics.top5:.2f} %   loss {metrics.loss:.4f}")


if __name__ == "__main__":
    from harness.cli import run_one

    run_one(evaluate)
