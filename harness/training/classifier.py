"""A trained classifier for use outside of the harness: it takes images as they are, and normalises them itself."""

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.spec import datasets
from harness.spec.science import Science
from harness.store.saved_run import SavedRun
from harness.training.outputs import to_float32
from harness.training.tasks import classification
from harness.training.trained_model import trained_model


class Classifier(nn.Module):
    """A finished run's model in eval mode.

    Its weights, and its method's where that is part of the model, are those that the run was evaluated with.
    """

    classes: int
    image_shape: tuple[int, int, int]  # (C, H, W) of the images that it was evaluated on
    science: Science  # the run's settings: dataset, models, method, recipe, seed
    run_id: str

    def __init__(self, net: nn.Module, saved: SavedRun):
        super().__init__()
        info = saved.science.dataset.info
        shape = datasets.image_shape(info, saved.science.recipe.eval_size or saved.science.recipe.image_size)
        assert shape is not None
        self.net, self.science, self.run_id = net, saved.science, saved.run_id
        self.classes, self.image_shape = info.classes, shape
        mean, std = torch.tensor(info.mean), torch.tensor(info.std)
        self.register_buffer("scale", (1 / std)[:, None, None], persistent=False)
        self.register_buffer("shift", (-mean / std)[:, None, None], persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, H, W): uint8, or floating-point numbers from 0 to 1.

        Raises:
            TypeError: they are of another type.
        """
        if images.dtype == torch.uint8:
            images = images.to(self.scale.dtype) / 255
        elif not images.is_floating_point():
            raise TypeError(f"expected images in uint8, or in numbers from 0 to 1; found {images.dtype}")
        logits: Tensor = to_float32(self.net(images * self.scale + self.shift)).logits
        return logits


def load_classifier(saved: SavedRun, own_method: str | None = None, own_models: tuple[str, ...] = ()) -> Classifier:
    """Load a finished run's classifier, on the CPU. ``own_method``, ``own_models``: as ``trained_model`` needs them.

    Raises:
        WeightsError: the file is not what the run wrote.
        UserError: it is no classifier, or cannot be built without a user's own code that is not named.
    """
    info = saved.science.dataset.info
    if info.task is not classification.TASK:
        raise UserError(
            f"run {saved.run_id}: {saved.science.student} is for {info.task.name}; only classifiers can be loaded for "
            f"use elsewhere. `evaluate --run` measures it, and its weights are {saved.file}"
        )
    net = trained_model(saved.science, saved.file, saved.sha256, own_method, own_models)
    return Classifier(net, saved).eval().requires_grad_(False)
