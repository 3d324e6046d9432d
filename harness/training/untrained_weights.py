"""Untrained weights of a teacher, for a probe or a check of runs whose teacher is not there yet."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from harness.store import files
from harness.training.tasks import Task

IMAGES = 4  # that the statistics are taken from


def write_untrained_weights(task: Task, model: str, file: Path) -> None:
    """Write random weights, with batch norms' statistics that keep the outputs of a deep network finite.

    Raises:
        DiskFull: the disk is full.
    """
    net = task.build(model).eval()
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            net(task.random_images(IMAGES, IMAGES).images)
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.full_disk_as_error(file):
        save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, file)
