"""A run's science has the JSON form and run id of the untyped dict that earlier versions wrote."""

import ast
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.spec import datasets, expand, sweep_file
from harness.spec.schema import Recipe
from harness.spec.science import Given, Science, Trained, distinct_sciences
from harness.spec.tasks import DATASETS

REPO = Path(__file__).resolve().parents[2]
COUNT = 1000
# The JSON form as it was before it had a type: keys that were always written, and those left out at these defaults.
OLD = {
    "batch_size": 64, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False, "schedule": "step", "milestones": [],
    "gamma": 0.1, "warmup_epochs": 0, "crop_padding": 0, "flip": False, "precision": "float32", "eval_every": 1,
}  # fmt: skip
YOUNG = {
    "warmup_steps": 0, "epoch_steps": None, "compile": False, "teacher_top_k": None, "accumulate": 1, "clip_norm": None,
    "label_smoothing": 0.0, "ema": 0.0,
    "image_size": None, "crop_area": None, "eval_size": None, "eval_resize": None, "eval_crop_first": None,
    "sides": None, "max_side": None, "eval_side": None,
    "norm": None, "frozen_stages": None, "anchors_per_image": None, "rois_per_image": None,
    "optimizer": "sgd", "betas": [0.9, 0.999], "eps": 1e-8, "decay_norms_and_biases": True, "layer_decay": None,
    "freeze": [], "drop_path": 0.0, "schedule_by": "epoch", "min_lr": 0.0, "warmup_lr": 0.0, "stop_epoch": None,
    "augment": None, "random_erasing": 0.0, "repeats": 1, "mixup": 0.0, "cutmix": 0.0, "mix_probability": 1.0,
    "mix_switch": 0.5, "views": None, "momentum_delta": 0.075,
}  # fmt: skip


def old_run_id(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def old_form(rng: random.Random) -> dict[str, Any]:
    """Return a science as earlier versions wrote it."""
    kind = rng.choice(["pixels", "stored", "detection"])
    counts = {"classes": 10, "train_size": rng.randint(100, 10**6), "test_size": 100, "train_per_class": 10}
    dataset = {
        "name": {"pixels": rng.choice(["digits", "cifar100"]), "stored": "imagefolder", "detection": "coco"}[kind],
        "version": f"{rng.getrandbits(64):016x}", "train_subset": rng.choice([None, 100]),
        **({} if kind == "pixels" else counts), **rng.choice([{}, {"validation": 50}]),
    }  # fmt: skip
    settings = {**OLD, **YOUNG, "epochs": rng.randint(5, 500), "lr": rng.uniform(1e-6, 10)}
    changes = {
        "batch_size": rng.randint(64, 4096), "momentum": rng.random() * 0.99, "weight_decay": 10 ** rng.uniform(-9, 0),
        "nesterov": True, "gamma": 1.0, "flip": True, "precision": rng.choice(["tf32", "bf16"]), "eval_every": 7,
        "crop_padding": 4, "epoch_steps": rng.randint(1, 10**5), "compile": True, "teacher_top_k": 8, "accumulate": 4,
        "clip_norm": rng.random() + 0.1, "label_smoothing": 0.1, "ema": 0.999,
        **rng.choice([{"warmup_epochs": 2}, {"warmup_steps": 500}]),
        **rng.choice([{"schedule": "cosine"}, {"milestones": sorted(rng.sample(range(1, 500), 3))}]),
    }  # fmt: skip
    settings |= rng.sample(sorted(changes.items()), rng.randint(0, len(changes)))
    if kind == "stored":
        size = rng.choice([224, 64, [[0, 96], [1, 128]]])
        settings |= {"image_size": size, "crop_area": [0.08, 1.0], "eval_size": 224, "eval_resize": 256}
        settings["eval_crop_first"] = rng.random() < 0.5
    if kind == "detection":
        settings |= {"sides": rng.choice([[800], [640, 672]]), "max_side": 1333, "eval_side": 800, "norm": "frozen"}
        settings |= {"frozen_stages": rng.choice([0, 2]), "anchors_per_image": 256, "rois_per_image": 512}
    trained, given = ({"model": "resnet56", key: f"{rng.getrandbits(64):x}"} for key in ("run", "sha256"))
    params = {"temperature": rng.uniform(1, 8), "tap": 'a "quoted" ü', "seed": rng.randint(0, 9), "layers": 3}
    return {
        "protocol": 1,
        "dataset": dataset,
        "teacher": rng.choice([None, trained, given]),
        "student": rng.choice(["resnet8", "torchvision:resnet18"]),
        "method": {
            "use": rng.choice(["kd", "mine.own:Method"]), "version": rng.choice([1, "sha256:abc"]),
            "params": dict(rng.sample(sorted(params.items()), 2)), "weights": {"ce": 1.0, "kd": rng.random()},
        },
        "recipe": {k: v for k, v in settings.items() if k not in YOUNG or v != YOUNG[k]},
        "seed": rng.randrange(2**31),
        **({"backbone": "cd" * 32} if kind == "detection" and rng.random() < 0.5 else {}),
    }  # fmt: skip


@pytest.fixture(scope="module")
def forms() -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [old_form(rng) for _ in range(COUNT)]


def test_the_json_form_and_the_run_id_are_what_they_were(forms: list[dict[str, Any]]) -> None:
    assert {"epochs", "lr", *OLD, *YOUNG} == set(Recipe.model_fields)
    assert len({old_run_id(form) for form in forms}) == COUNT
    for form in forms:
        science = Science.from_json(form)
        assert science.to_json() == form
        assert json.dumps(science.to_json(), sort_keys=True) == json.dumps(form, sort_keys=True), "1 is not 1.0"
        assert science.run_id == old_run_id(form) == science.run_id_by_seed()(science.seed)
        assert Science.from_text(science.text) == science
        kind = {"run": Trained, "sha256": Given}[[*form["teacher"]][1]] if form["teacher"] else type(None)
        assert type(science.teacher) is kind


def test_only_the_seed_is_without_a_seed(forms: list[dict[str, Any]]) -> None:
    for form in forms:
        science, other = Science.from_json(form), Science.from_json({**form, "seed": 3})
        assert science.with_seed(3) == other and science.without_seed() == other.without_seed()
        assert {**science.without_seed(), "seed": form["seed"]} == form
    sciences = [Science.from_json({**form, "seed": seed}) for seed in (5, 6) for form in forms]
    distinct, positions = distinct_sciences([s.text for s in sciences], [s.seed for s in sciences])
    assert list(distinct.values()) == sciences[:COUNT] and positions == [*range(COUNT), *range(COUNT)]


def test_keys_that_are_younger_than_a_record_have_their_defaults(forms: list[dict[str, Any]]) -> None:
    form = {**forms[0], "recipe": {"epochs": 3, "lr": 0.1}}
    assert Science.from_json(form).recipe == Recipe(epochs=3, lr=0.1)


@pytest.mark.parametrize(
    "damage",
    [
        {"seed": None, "nonsense": 1},
        {"dataset": {}},
        {"teacher": {"model": "m"}},
        {"method": None},
        {"recipe": {"lr": 1}},
    ],
)
def test_damage_is_the_users_error(forms: list[dict[str, Any]], damage: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="a run's settings: damaged, or of a later version"):
        Science.from_json({**forms[0], **damage})
    for text in ("", "[]", "null", '{"seed": 1}'):
        with pytest.raises(UserError, match="damaged"):
            Science.from_text(text)


SHIPPED = {
    "all_methods_quick": "c15c1b5d26b692d1",
    "capacity_gap": "84527f9b0651e592",
    "capacity_gap_cpu": "6c5f0cf40c3c8bc1",
    "cifar100_all_methods_quick": "e1f259df12cd3ebd",
    "cifar100_cpu": "a78ddde5d1683213",
    "cifar100_cross": "ed922fdcd98348f5",
    "cifar100_fsp": "e8e9334682cabba8",
    "cifar100_hetero": "688f56dbb65d952e",
    "cifar100_hetero_transformers": "cf895b2c876675dc",
    "cifar100_quick": "bb393dd04862ac87",
    "cifar100_same": "5a334f5a3708c238",
    "coco128_quick": "51387079675f9797",
    "coco_pairs": "4c46371280a663e8",
    "digits_pairs": "1939d2cb468c31e9",
    "digits_tuned": "fbffe9e7c2dd0de1",
    "early_stopped_teachers": "1209eff1d5d4fceb",
    "hetero_quick": "cda5678d76cbc872",
    "imagenet_deit": "5b828b442114171f",
    "imagenet_fast": "94888cf7457bba2c",
    "imagenet_like_quick": "e8297b5f5d274c77",
    "imagenet_pairs": "b315b33e580166fc",
    "mlkd_dispute": "e087c83317952c5a",
    "rekd_ablation": "ca95674e80b9f374",
    "rekd_ablation_cpu": "39c638f63aeb5092",
    "rekd_cifar100_cpu": "61d4dc10a8122328",
    "rekd_digits": "aab10b54cf35fdaf",
    "rekd_tuning": "5895025385a5552e",
    "takd": "fdf30035e480e621",
}


def sweep_run_ids(file: Path) -> str:
    """Return one hash of all run ids of a sweep, with made-up counts for prepared datasets."""
    sweep, document = sweep_file.load_sweep(file)
    name = sweep.dataset.name
    classes = 80 if name == "coco" else 1000
    info = DATASETS[name]
    if info.preparation:
        info = datasets.prepared_dataset(name, "0" * 16, classes, 120_000, 5000, 700)
    plan = expand.expand(sweep, document, info, lambda w: w.sha256 or hashlib.sha256(w.source.encode()).hexdigest())
    assert all(run.science.run_id == run_id for run_id, run in plan.runs.items())
    return hashlib.sha256(" ".join(sorted(plan.runs)).encode()).hexdigest()[:16]


def test_the_run_ids_of_the_shipped_sweeps() -> None:
    """Change these ids on purpose only: users' results are no longer found."""
    assert {file.stem: sweep_run_ids(file) for file in sorted((REPO / "benchmarks").glob("*.yaml"))} == SHIPPED


def test_the_science_of_every_published_run_is_read_and_written_alike() -> None:
    import pyarrow.parquet as pq

    tables = sorted((REPO / "results" / "published").glob("records/*.parquet"))
    rows = [row for file in tables for row in pq.read_table(file, columns=["run_id", "science"]).to_pylist()]
    assert len(rows) > 30
    for row in rows:
        science = Science.from_text(row["science"])
        assert science.text == row["science"] and science.run_id == row["run_id"]


def untyped_lookups(tree: ast.AST) -> list[int]:
    """Return the lines that look up a science's key by a string."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            value, key = node.value, node.slice
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get") and node.args:
            value, key = node.func.value, node.args[0]  # type: ignore[attr-defined]
        else:
            continue
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            name = ast.unparse(value).partition("[")[0]  # of sciences[run_id], too
            lines += [node.lineno] * name.endswith(("science", "sciences"))
    return lines


def test_no_module_looks_a_science_up_by_strings() -> None:
    code = "a.science['x']\nsciences[k]['seed']\nscience.get('y').z\nscience.seed"
    assert untyped_lookups(ast.parse(code)) == [1, 2, 3]
    for folder in ("harness", "slurm", "methods", "benchmarks"):
        for file in sorted((REPO / folder).rglob("*.py")):
            assert not untyped_lookups(ast.parse(file.read_text())), file
