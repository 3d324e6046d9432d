"""The images of the dataset that a frozen network is probed on, and its features of them."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.data.load.source import open_source
from harness.hardware import cores
from harness.models.renormalisation import Renormalisation
from harness.spec.normalisation import Normalisation
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.training.linear_probe import LabelledFeatures
from harness.training.precision import set_float32

Tell = Callable[[int, int], None]  # how many images are done, and how many there are


class Features(NamedTuple):
    """A network's features of the training and the test images."""

    train: LabelledFeatures
    test: LabelledFeatures


class TargetImages:
    """The training and the test images of a dataset, without augmentation, in the size that ``recipe`` states."""

    def __init__(self, dataset: DatasetChoice, recipe: Recipe, folder: Path | None):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._normalisation = dataset.info.normalisation
        self._source = open_source(dataset, recipe, folder, self.device, cores())
        self._test = self._source.evaluation(whole=True)

    def features(self, net: nn.Module, expected: Normalisation, tell: Tell) -> Features:
        """Return the embeddings of all images, in evaluation mode and float32.

        ``expected``: the normalisation of the images that the network was trained on.
        """
        set_float32("float32")
        net = net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        renormalise = Renormalisation(self._normalisation, expected).to(self.device)
        targets = self._source.train_targets
        train = self._source.unaugmented(torch.arange(len(targets), device=self.device))
        test = (images for images, _ in self._test.batches(slice(None)))
        count, parts = len(targets) + len(self._test.targets), list[Tensor]()
        with torch.no_grad():
            for images in chain(train, test):
                parts.append(net(renormalise(images)).embedding.float())
                tell(sum(map(len, parts)), count)
        of_train, of_test = torch.cat(parts).tensor_split([len(targets)])
        return Features(LabelledFeatures(of_train, targets), LabelledFeatures(of_test, self._test.targets))
