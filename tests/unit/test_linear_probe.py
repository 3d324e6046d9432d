"""The linear probe's fit against scikit-learn's, its choice of the L2 weight, and the images that networks see."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from harness.data.load.digits import read_arrays
from harness.errors import UserError
from harness.models.zoo import build_model
from harness.planning.trained_networks import Own, teachers_of
from harness.spec.normalisation import Normalisation
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.tasks import DATASETS, DatasetInfo
from harness.store import files
from harness.store.saved_run import SavedRun
from harness.store.store import Store
from harness.training import linear_probe
from harness.training.job_order import WeightsFile
from harness.training.linear_probe import LabelledFeatures
from harness.training.target_images import TargetImages
from harness.transfer import _view
from tests.support.sciences import make_science

pytestmark = pytest.mark.usefixtures("quickly_built")
CLASSES = 3


def clouds(count: int, spread: float) -> LabelledFeatures:
    """Return features of three clouds on different scales, and one that is always the same."""
    random = torch.Generator().manual_seed(count)
    targets = torch.arange(count) % CLASSES
    features = F.one_hot(targets, CLASSES) + spread * torch.randn(count, CLASSES, generator=random)
    return LabelledFeatures(torch.cat([features * torch.tensor([1.0, 100.0, 0.01]), torch.ones(count, 1)], 1), targets)


@pytest.mark.parametrize("l2", [1.0, 0.01, 1e-4])
def test_a_fit_is_scikit_learns(l2: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = clouds(300, 0.6), clouds(299, 0.6)
    classifier = linear_probe.fit(train, CLASSES, l2)
    inputs = (train.features.double() - classifier.mean) / classifier.std
    theirs = linear_model.LogisticRegression(C=1 / (l2 * len(inputs)), tol=1e-10, max_iter=10_000)
    theirs.fit(inputs.numpy(), train.targets.numpy())
    weight = torch.from_numpy(theirs.coef_).T

    def loss(logits: torch.Tensor, weight: torch.Tensor) -> float:
        return float(F.cross_entropy(logits, train.targets) + l2 / 2 * weight.square().sum())

    expected = loss(inputs @ weight + torch.from_numpy(theirs.intercept_), weight)
    assert classifier.converged
    assert loss(classifier.logits(train.features), classifier.weight[:-1]) == pytest.approx(expected, abs=1e-8)
    others = ((test.features.double() - classifier.mean) / classifier.std).numpy()
    assert classifier.top1(test) == pytest.approx(100 * theirs.score(others, test.targets.numpy()), abs=0.4)
    assert 70 < classifier.top1(test) < 100


def test_separable_features_are_told_apart() -> None:
    probe = linear_probe.probe(clouds(60, 0.05), clouds(33, 0.05), CLASSES)
    assert probe == (1.0, 100.0, 100.0, 100.0, True)  # of equally good L2 weights, the strongest


def test_the_l2_weight_is_chosen_on_held_out_images() -> None:
    """Noise as features: a weak penalty fits it, and held-out images show that it should not."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(90) % 2 * (torch.arange(90) % 3 > 0)  # two thirds are of class 0
    noise = LabelledFeatures(torch.randn(90, 60, generator=random), targets)
    assert linear_probe.fit(noise, 2, linear_probe.L2_WEIGHTS[-1]).top1(noise) == 100
    probe = linear_probe.probe(noise, noise, 2)
    assert probe.l2 > 0.01 and probe.train_top1 == probe.top1 < 100


def test_every_tenth_image_of_a_class_is_held_out() -> None:
    targets = torch.tensor([0] * 25 + [1] * 3 + [2])
    mask = linear_probe.held_out_mask(targets)
    assert mask.nonzero().flatten().tolist() == [9, 19, 27]
    with pytest.raises(UserError, match="no class has two training images"):
        linear_probe.probe(LabelledFeatures(torch.ones(3, 2), torch.arange(3)), clouds(3, 0.1), 3)


def test_a_fit_that_is_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "ITERATIONS", 2)
    assert not linear_probe.fit(clouds(60, 0.5), CLASSES, 1e-4).converged


def test_features_are_embeddings_of_images_normalised_as_the_network_expects(tmp_path: Path) -> None:
    net, recipe = build_model("digits_net_w4", 10, in_channels=1), Recipe.model_validate({"epochs": 1, "lr": 1.0})
    told: list[tuple[int, int]] = []
    images = TargetImages(DatasetChoice.of_info(DATASETS["digits"]), recipe, None)
    train, test = images.features(net, Normalisation((0.5,), (0.25,)), lambda *counts: told.append(counts))
    data = read_arrays(None)
    for features, pixels, targets in (
        (train, data.train_images, data.train_targets),
        (test, data.test_images, data.test_targets),
    ):
        with torch.no_grad():
            expected = net((torch.from_numpy(pixels[:50]) / 255 - 0.5) / 0.25).embedding
        assert torch.allclose(features.features[:50], expected, atol=1e-5)
        assert features.targets.tolist() == targets.tolist() and len(features.features) == len(targets)
    assert not net.training and told[-1] == (1442 + 355, 1442 + 355)


def on_cifar(student: str = "resnet20", **recipe: Any) -> Any:
    return replace(make_science(student, **recipe), dataset=DatasetChoice.of_info(DATASETS["cifar100"]))


def test_target_images_have_the_size_of_the_networks_own() -> None:
    prepared = DATASETS["imagefolder"]
    assert _view(DATASETS["stl10"], on_cifar()).image_size == 32
    assert _view(DATASETS["stl10"], on_cifar(image_size=16)).image_size == 16
    assert _view(DATASETS["cifar10"], on_cifar()).image_size is None
    stored = _view(prepared, on_cifar())
    assert (stored.image_size, stored.eval_size, stored.eval_resize) == (32, 32, 32)
    of_stored = {"image_size": 160, "eval_size": 192, "eval_resize": 224, "eval_crop_first": True}
    science = replace(on_cifar("torchvision:resnet18", **of_stored), dataset=DatasetChoice.of_info(prepared))
    assert _view(DATASETS["stl10"], science).image_size == 192
    stored = _view(prepared, science)
    assert (stored.eval_size, stored.eval_resize, stored.eval_crop_first) == (192, 224, True)


def test_images_that_do_not_suit_a_network_are_told() -> None:
    with pytest.raises(UserError, match="its images have 1 channel; those of cifar100, .*resnet20 .* have 3"):
        _view(DATASETS["digits"], on_cifar())
    wide = DatasetInfo("my:Data", DATASETS["digits"].task, DATASETS["digits"].images, 2, (1, 8, 12))
    science = make_science("digits_net_w4")
    science = replace(science, dataset=replace(science.dataset, name="my:Data", classes=2, image_shape=(1, 8, 12)))
    assert _view(wide, science).image_size is None
    with pytest.raises(UserError, match="takes images of 8x12; expected a square"):
        _view(DATASETS["digits"], science)


def test_a_given_teacher_needs_the_sweep_file_that_says_where_it_is(tmp_path: Path) -> None:
    file, net = tmp_path / "teacher.safetensors", build_model("digits_net_w8", 10, in_channels=1)
    save_file(dict(net.state_dict()), file)
    science = make_science("digits_net_w4", "kd", teacher="digits_net_w8")
    science = replace(science, teacher=replace(science.given_teachers[0], sha256=files.sha256(file)))
    runs, store, own = [SavedRun("ab", science, "last", file, None)] * 2, Store(tmp_path), Own(None, ())
    with pytest.raises(UserError, match="run ab: the weights of its teacher digits_net_w8 are given.*--sweep"):
        list(teachers_of(store, runs, {}, own))
    (teacher,) = teachers_of(store, runs, {science.given_teachers[0].weights_id: WeightsFile(str(file), None)}, own)
    assert (teacher.pair, teacher.method, teacher.seed) == ("digits_net_w8", "teacher", None)
    images = torch.rand(2, 1, 8, 8)
    assert torch.allclose(teacher.load()(images).embedding, net.eval()(images).embedding, atol=1e-5)
