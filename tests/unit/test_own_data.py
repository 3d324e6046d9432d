"""A user's own data: every form gives the same bytes, and what is no dataset is refused in words."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from harness.data.load.arrays import WrongData
from harness.data.load.own_data import read_own

COUNTER = itertools.count()
CLASS = """
import numpy as np
import torch
from PIL import Image

class Items(list):
    pass

class Scans:
    classes, mean, std = 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])

    def __init__(self, {arguments}):
        x, y = self.images, self.labels
        self.train = self.test = x, y
        {change}
"""
FORMS = {
    "channels last": "",
    "channels first": "self.train = x.transpose(0, 3, 1, 2), y",
    "tensor": "self.train = torch.from_numpy(x).permute(0, 3, 1, 2), torch.tensor(y)",
    "floats": "self.train = torch.from_numpy(x).permute(0, 3, 1, 2) / 255, y",
    "doubles": "self.train = (x / np.float64(255)), y",
    "lists": "self.train = list(x), list(y)",
    "pictures": "self.train = Items((Image.fromarray(i), int(k)) for i, k in zip(x, y))",
    "items": "self.train = [(i, k) for i, k in zip(x, y)]",
    "torch's dataset": "self.train = torch.utils.data.TensorDataset(torch.from_numpy(x).permute(0, 3, 1, 2), "
    "torch.tensor(y))",
    "named classes, one mean": "self.classes, self.mean, self.std = ['a', 'b', 'c'], 0.5, np.array([0.2])",
    "a root": "assert root is None or root.is_dir()",
}
WRONG = {
    "self.classes = ['a', 'b', 'a']": "its facts: classes: 'a' is there twice",
    "self.classes = 1": "its facts: classes: expected at least 2",
    "self.mean = (0.5, 0.5)": "train: images have shape (5, 4, 3), expected 2 channels, first or last; mean",
    "self.mean = (125, 125, 125)": "its facts: mean: expected numbers for pixels from 0 to 1, found 125",
    "self.std = (0, 1, 1)": "its facts: std: ",
    "self.std = (0.5, 0.5)": "std: expected a number for each of the 3 channels",
    "self.train = x, y[:5]": "train: 6 images and 5 labels: expected a label for each image",
    "self.train = x, y + 1": "label 3 of image 2 of train: expected 0 to 2, as there are 3 classes",
    "self.test = x, y - 1": "label -1 of image 0 of test: ",
    "self.train = x, y % 2": "train has no image of class 2 of 3",
    "self.test = x[:0], y[:0]": "test: has no images",
    "self.train = []": "train: has no images",
    "self.train = x.astype(int), y": "train: image 0 is int64, expected uint8",
    "self.train = x / 256, y": "float64 pixels that are no k/255",
    "self.train = np.where(x == 0, np.nan, x / 255), y": "has NaN or infinite pixels",
    "self.train = x, y / 1": "labels are float64 of shape (6,), expected whole numbers",
    "self.train = x, np.eye(3)[y]": "labels have shape (6, 3), expected (N,): the number of each image's",
    "self.train = [(i, 0.5) for i in x]": "label 0.5 of image 0: expected a whole number",
    "self.train = [i for i in x]": "train: item 0: expected (image, label)",
    "self.train = [(i[: 4 + k % 2], k) for i, k in zip(x, y)]": "image 0 is 3x4x4 and image 1 is 3x5x4: images in "
    "memory are all of one size: resize them in your class, or write them to files and prepare these with python",
    "self.test = x[:, 1:], y": "train and test are of two sizes, 3x5x4 and 3x4x4: ",
    "self.train = [(Image.fromarray(i).convert('P'), k) for i, k in zip(x, y)]": "image 0 is a PIL image of mode P",
    "self.train = 3": "train: expected a tuple of images and labels, or a Dataset",
    "del self.test": "test: expected test: images",
    "self.files = ['nowhere']": "its facts: files: there is no ",
    "raise KeyError('scan 7')": "its constructor: KeyError: 'scan 7' (",
    "raise SystemExit": "its constructor: SystemExit: ",
}


def read(folder: Path, change: str, params: dict[str, Any] | None = None, arguments: str = "root=None") -> Any:
    module = f"own_data_{next(COUNTER)}"
    (folder / f"{module}.py").write_text(CLASS.format(change=change or "pass", arguments=arguments))
    return read_own(f"{module}:Scans", params or {}, folder, lambda *_: None)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    data, plain = read(tmp_path, FORMS[form]), read(tmp_path, "")
    assert data.arrays.version() == plain.arrays.version()
    assert data.arrays.train_images.shape == (6, 3, 5, 4) and data.classes == 3
    assert len(data.normalisation.mean) == 3


def test_grey_images_have_one_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    grey = "self.mean = self.std = 0.5; self.train = self.test = x[..., {}], y"
    assert read(tmp_path, grey.format(0)).arrays.train_images.shape == (6, 1, 5, 4)
    assert read(tmp_path, grey.format("0:1")).arrays.train_images.shape == (6, 1, 5, 4)


@pytest.mark.parametrize("change", WRONG)
def test_what_is_no_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WrongData) as error:
        read(tmp_path, change)
    assert WRONG[change] in str(error.value) and str(error.value).startswith("dataset 'own_data_")
    if "KeyError" in change:
        assert str(error.value).endswith(".py:17)")


def test_arguments_of_the_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    read(tmp_path, "assert size == 3", {"size": 3}, "size, root")
    for params, why in (({"sise": 3}, "'sise'; did you mean 'size'?"), ({}, "it needs size: state `params: {size: ")):
        with pytest.raises(WrongData) as error:
            read(tmp_path, "", params, "size, root")
        assert why in str(error.value)
