"""The shipped sweep files: they plan without errors, and every method can be built for each of its pairs."""

import atexit
import itertools
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from harness.data.coco_manifest import Category, CocoManifest, CocoPart
from harness.data.manifest import Manifest, Part, Settings
from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.spec.methods import builtin_names, describe_method
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.sweep_plan import Plan
from harness.spec.teacher_reference import TeacherReference
from harness.training.member import known_taps
from harness.training.tasks import open_task
from harness.training.trained_model import build_distiller
from methods.base import TapSpec
from tests.support.cli import REPO, run_command

pytestmark = pytest.mark.usefixtures("quickly_built")
FILES = sorted((REPO / "benchmarks").glob("*.yaml"))
SMALL = {"MobileNetV2", "ShuffleV1", "ShuffleV2"}  # students with learning rate 0.01 in CRD's comparison
CRD_SAME = {
    ("wrn_40_2", "wrn_16_2"), ("wrn_40_2", "wrn_40_1"), ("resnet56", "resnet20"), ("resnet110", "resnet20"),
    ("resnet110", "resnet32"), ("resnet32x4", "resnet8x4"), ("vgg13", "vgg8"),
}  # fmt: skip
HETERO_TEACHERS = ("swin_tiny_patch4_window7_224", "vit_small_patch16_224", "mixer_b16_224", "convnext_tiny")
ALL_METHODS = [m for m in builtin_names() if "classification" in describe_method(m).defined_for]
CRD_CROSS = {
    ("vgg13", "MobileNetV2"), ("ResNet50", "MobileNetV2"), ("ResNet50", "vgg8"), ("resnet32x4", "ShuffleV1"),
    ("resnet32x4", "ShuffleV2"), ("wrn_40_2", "ShuffleV1"),
}  # fmt: skip


@cache
def data() -> Path:
    """Return a data root with the manifests of prepared datasets, whose files are empty."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    for folder, name, classes, train, test in (
        ("imagenet", "imagenet", 1000, 1_281_167, 50_000),
        ("tiny_imagenet_20_prepared", "imagefolder", 20, 10_000, 1_000),
    ):
        names = tuple(f"class{i}" for i in range(classes))
        parts = {
            key: Part(file=file, images=images, per_class_min=images // classes, bytes=0, counts={})
            for key, file, images in (("train", "train.beton", train), ("test", "val.beton", test))
        }
        (root / folder).mkdir()
        for part in parts.values():
            (root / folder / part.file).touch()
        settings, version = Settings(max_side=400, quality=90), "0" * 16
        Manifest(
            dataset=name, version=version, settings=settings, source=version, classes=names, made_with={}, **parts
        ).write(root / folder)
    for folder, train, test in (("coco", 117_266, 5_000), ("coco128_prepared", 126, None)):
        _coco(root / folder, train, test)
    (root / "weights").mkdir()
    for name in (*(f"{model}_cifar100" for model in HETERO_TEACHERS), "regnety_160-a5fe301d"):
        (root / "weights" / f"{name}.pth").write_text(name)
    return root


def _coco(folder: Path, train: int, test: int | None) -> None:
    parts = {
        name: CocoPart(
            file=f"{name}.beton", images=images, bytes=0, counts={}, annotations=f"{name}.safetensors",
            annotation_bytes=0, trained_on=images, objects={},
        )
        for name, images in (("train", train), ("val", test)) if images
    }  # fmt: skip
    categories = tuple(Category(id=i, name=f"class{i}") for i in range(1, 81))
    manifest = CocoManifest(
        dataset="coco", version="0" * 16, settings=Settings(max_side=None, quality=90), source="0" * 16, made_with={},
        categories=categories, train=parts["train"], test=parts.get("val", parts["train"]),
    )  # fmt: skip
    folder.mkdir()
    for name in {name for part in manifest.parts.values() for name in part.sizes()}:
        (folder / name).touch()
    manifest.write(folder)


@cache
def plan(name: str) -> Plan:
    return plan_sweep(REPO / "benchmarks" / f"{name}.yaml", Path("none"), data()).plan


SPECS: dict[str, TapSpec] = {}


def spec(model: str, dataset: DatasetChoice, recipe: Recipe) -> TapSpec:
    key = f"{model} {dataset} {recipe.image_size} {recipe.norm}"
    if key not in SPECS:
        SPECS[key] = new_spec(model, dataset, recipe)
    return SPECS[key]


def new_spec(model: str, dataset: DatasetChoice, recipe: Recipe) -> TapSpec:
    with torch.random.fork_rng():  # real weights, as heads are recognised by the model's outputs
        torch.manual_seed(0)
        task = open_task(dataset, recipe)
        return task.describe(task.build(model))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_it_plans_and_its_comment_has_the_command(file: Path, tmp_path: Path) -> None:
    head, _, rest = file.read_text().partition("\nnote:")
    assert all(line.startswith("#") for line in head.splitlines())
    name = "tune" if "\ntune:" in rest else "sweep"
    (command,) = (line for line in head.splitlines() if f"python -m harness.{name} benchmarks/{file.name}" in line)
    options = [option for option in ("--mix-protocols",) if option in command.split()]
    result = run_command(name, file, "--plan", "--results", tmp_path / "none", "--data", data(), *options)
    assert result.code == 0 and result.err == "", result


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_method_can_be_built_for_its_pairs(file: Path) -> None:
    planned = plan(file.stem)
    sciences = {(c.teacher, c.student, c.method): planned.runs[c.run_id].science for c in planned.cells}
    for (text, student, name), science in sciences.items():
        (teacher,) = TeacherReference.parse(text).models
        specs = [spec(model, science.dataset, science.recipe) for model in (student, teacher)]
        with torch.device("meta"):
            distiller = build_distiller(science.method, *specs)
        known_taps(open_task(science.dataset, science.recipe).teacher_taps(distiller), specs[1])
        assert set(distiller.student_taps) <= set(specs[0].names), f"{name} for {teacher} > {student}"


@pytest.mark.parametrize(("name", "pairs"), [("cifar100_same", CRD_SAME), ("cifar100_cross", CRD_CROSS)])
def test_the_standard_benchmark_is_crds(name: str, pairs: set[tuple[str, str]]) -> None:
    planned = plan(name)
    assert {(c.teacher, c.student) for c in planned.cells} == pairs
    assert {c.seed for c in planned.cells} == {0, 1, 2, 3, 4}
    for cell in planned.cells:
        recipe = planned.runs[cell.run_id].science.recipe
        two_views = 0.025 if cell.method in ("mlkd", "lskd_mlkd") else 0.05
        assert recipe.lr == (0.01 if cell.student in SMALL else two_views), cell
        assert bool(recipe.views) == (two_views == 0.025) and (recipe.optimizer == "dot") == (cell.method == "kd_dot")
        assert cell.teacher_run is not None and planned.runs[cell.teacher_run].science.recipe.lr == 0.05
    recipes = [run.science.recipe for run in planned.runs.values()]
    assert all((r.epochs, r.batch_size, r.milestones) == (240, 64, (150, 180, 210)) for r in recipes)


def test_imagenets_pairs_are_the_papers() -> None:
    planned = plan("imagenet_pairs")
    pairs = {("torchvision:resnet34", "torchvision:resnet18"), ("torchvision:resnet50", "timm:mobilenetv1_100")}
    assert {(c.teacher, c.student) for c in planned.cells} == pairs
    assert {"student", "kd", "fitnets", "crd", "rekd"} < {c.method for c in planned.cells}
    half_the_rate = {c.run_id for c in planned.cells if c.method == "mlkd" and c.teacher == "torchvision:resnet34"}
    for run_id, run in planned.runs.items():
        recipe = run.science.recipe
        assert (recipe.epochs, recipe.milestones, recipe.weight_decay) == (100, (30, 60, 90), 1e-4)
        assert recipe.lr / recipe.batch_size == 0.1 / (512 if run_id in half_the_rate else 256)
        assert (recipe.image_size, recipe.eval_resize, recipe.eval_size) == (224, 256, 224)
    assert set(planned.weights) == {w.sha256 for w in planned.weights.values()}, "planning would need the network"


def test_cocos_pairs_are_the_papers() -> None:
    planned = plan("coco_pairs")
    assert {(c.teacher.split("_")[1], c.student.partition("_")[2]) for c in planned.cells} == {
        ("resnet101", "resnet18_fpn"), ("resnet101", "resnet50_fpn"), ("resnet50", "mobilenet_v2_fpn")
    }  # fmt: skip
    for cell in planned.cells:
        science = planned.runs[cell.run_id].science
        recipe = science.recipe
        assert recipe.epochs * recipe.epoch_steps == 180_000 and recipe.batch_size == 8
        assert [m * recipe.epoch_steps for m in recipe.milestones] == [120_000, 160_000]
        assert recipe.frozen_stages == (0 if "mobilenet" in cell.student else 2)
        assert science.backbone in planned.backbones
        assert planned.runs[cell.teacher_run].science.recipe.epochs * recipe.epoch_steps == 540_000
    assert set(planned.backbones) == {b.sha256 for b in planned.backbones.values()}, "planning would need the network"
    weights = {
        c.student: planned.runs[c.run_id].science.method.weights for c in planned.cells if c.method == "reviewkd"
    }
    assert [w["review"] for w in weights.values()] == [1.2, 1.0, 2.0]


def test_the_fast_protocol_shares_no_run_with_the_papers() -> None:
    assert not set(plan("imagenet_fast").runs) & set(plan("imagenet_pairs").runs)


def test_both_standard_sweeps_compare_the_same_methods() -> None:
    same, cross = ({c.method for c in plan(name).cells} for name in ("cifar100_same", "cifar100_cross"))
    assert same == cross and len(same) == 40


def test_classification_methods_are_in_the_standard_sweeps_or_have_their_reason_in_the_file() -> None:
    planned = plan("cifar100_same")
    used = {planned.runs[c.run_id].science.method.use for c in planned.cells}
    assert set(ALL_METHODS) - used == {"fsp", "mgd", "ofa", "pkd"}  # fsp has cifar100_fsp; the others: see the file


def test_the_lines_of_the_dispute_see_equally_many_images_at_every_rate() -> None:
    planned = plan("mlkd_dispute")
    assert {c.student for c in planned.cells} == {"resnet8x4", "vgg8"}
    groups: dict[tuple[int, ...], set[str]] = {}
    for cell in planned.cells:
        recipe = planned.runs[cell.run_id].science.recipe
        stages = itertools.pairwise((0, *recipe.milestones, recipe.epochs))
        per_epoch = 50_000 * (1 + len(recipe.views or {}))
        groups.setdefault(tuple(per_epoch * (end - start) for start, end in stages), set()).add(cell.method)
    assert {sum(images): lines - {"student"} for images, lines in groups.items()} == {
        12_000_000: {"dkd_240", "dkd_strong_240", "mlkd_weak_240", "mlkd_120"},
        24_000_000: {"dkd_480", "dkd_strong_480", "mlkd_weak_480", "mlkd_240"},
        48_000_000: {"dkd_960", "dkd_strong_960", "mlkd_weak_960", "mlkd_480"},
    }
    sciences = {c.method: planned.runs[c.run_id].science for c in planned.cells if c.student == "vgg8"}
    (view,) = sciences["mlkd_240"].recipe.views.values()
    assert all(s.recipe.augment == view.augment for name, s in sciences.items() if "strong" in name)
    assert all(s.method.weights["nckd"] == 6 for s in sciences.values() if s.method.use == "dkd")


def test_fsp_has_crds_pairs_of_equal_widths() -> None:
    """FSP's sweep has the CRD pairs of equal widths; its other runs are those of the standard sweep."""
    planned, standard = plan("cifar100_fsp"), plan("cifar100_same")
    assert {(c.teacher, c.student) for c in planned.cells} == CRD_SAME - {("wrn_40_2", "wrn_40_1")}
    assert {c.run_id for c in planned.cells if c.method != "fsp"} <= {c.run_id for c in standard.cells}


def test_sides_do_not_grow_over_epochs_of_a_stated_length() -> None:
    file = REPO / "benchmarks" / "imagenet_like_quick.yaml"
    with pytest.raises(UserError, match=r"methods\.student: expected a growing `image_size`, which goes by"):
        plan_sweep(file, Path("none"), data(), ["recipe.epoch_steps=5"])
    assert plan_sweep(file, Path("none"), data(), ["recipe.epoch_steps=5", "recipe.image_size=64"]).plan.runs


def test_the_capacity_gap_changes_only_the_teacher() -> None:
    planned = plan("capacity_gap")
    for student in ("resnet8", "resnet20"):
        cells = [c for c in planned.cells if c.student == student]
        assert {c.teacher for c in cells} == {f"resnet{n}" for n in (14, 20, 32, 44, 56, 110)} | {"wrn_40_2"}
        for method in {c.method for c in cells}:
            sciences = [planned.runs[c.run_id].science for c in cells if c.method == method]
            parts = [replace(s, teacher=None, seed=0) for s in sciences]
            assert all(part == parts[0] for part in parts)


def test_the_ablations_settings_match_their_names() -> None:
    changes = {
        "sample": ("selection", "sample"), "likelihood": ("selection", "likelihood"), "mean": ("selection", "mean"),
        "standard": ("prior", "standard"), "norec": ("reconstruct", 0),
        "k2": ("samples", 2), "k8": ("samples", 8), "k16": ("samples", 16),
    }  # fmt: skip
    planned = plan("rekd_ablation")
    settings = {c.method: planned.runs[c.run_id].science.method for c in planned.cells}
    plain = {**settings["rekd"].params, **settings["rekd"].weights}
    variants = [name for name in settings if name.startswith("rekd")]
    assert len(variants) == 16
    for name in variants:
        expected = plain | dict(changes[part] for part in name.split("_")[1:])
        assert {**settings[name].params, **settings[name].weights} == expected, name


def test_models_for_small_images_are_given_them_in_evaluation_too() -> None:
    file = REPO / "benchmarks" / "imagenet_like_quick.yaml"
    sets = ["pairs.0.student=resnet8", "pairs.0.teacher=resnet20", "recipe.image_size=32"]
    with pytest.raises(UserError, match=r"resnet20 is for 3x32x32 images, .* has 3x64x64 by `recipe.eval_size`; set"):
        plan_sweep(file, Path("none"), data(), sets)
    sets.append("recipe.eval_size=32")
    assert plan_sweep(file, Path("none"), data(), sets).plan.runs
    with pytest.raises(UserError, match=r"resnet20 is for 3x32x32 images, .* has 3x224x224 by `recipe.image_size`"):
        plan_sweep(file, Path("none"), data(), [*sets, "teachers.recipe={epochs: 1, lr: 1}"])
