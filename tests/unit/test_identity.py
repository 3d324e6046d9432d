"""Invariant 1: a run's id is a hash of its science, all of it and nothing else."""

import copy
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spec import datasets, expand, identity, methods, sweep_file, tasks, yamlfile
from harness.spec.schema import Recipe, Sweep
from harness.spec.tasks.classification import STORED
from harness.spec.tasks.detection import OBJECTS
from harness.spec.tasks.detection import TASK as DETECTION

SHA = "ab" * 32
# Every recipe key, at its default if it has one.
RECIPE = {"epochs": 3, "lr": 0.05, **{k: f.default for k, f in Recipe.model_fields.items() if not f.is_required()}}
BASE: dict[str, Any] = {
    "dataset": {"name": "digits", "train_subset": 100},
    "recipe": {**RECIPE, "milestones": [2]},
    "methods": {"entry": {"use": "kd", "params": {}, "weights": {}}},
    "pairs": [
        {
            "teacher": "digits_net_w8",
            "student": "digits_net_w4",
            "teacher_weights": {"file": "t.pth", "sha256": SHA, "top1": 90.0},
        }
    ],
    "seeds": [0],
}
METHODS = ("student", "kd", "fitnets", "crd", "rekd")


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False).map(lambda x: x + 0.0)  # -0.0 is 0.0


# Another valid value for each recipe key.
RECIPE_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(3, 1000),
    "batch_size": st.integers(2, 4096),
    "lr": numbers(1e-6, 10),
    "momentum": numbers(0, 0.99),
    "weight_decay": numbers(0, 1),
    "nesterov": st.booleans(),
    "schedule": st.just("cosine"),
    "milestones": st.lists(st.integers(1, 99), max_size=4, unique=True).map(sorted),
    "gamma": numbers(1e-3, 1),
    "warmup_epochs": st.integers(0, 2),
    "crop_padding": st.integers(0, 64),
    "flip": st.booleans(),
    "precision": st.sampled_from(["tf32", "bf16"]),
    "eval_every": st.integers(1, 50),
    "compile": st.just(True),
    "ema": numbers(0.5, 0.9999),
    "teacher_top_k": st.integers(1, 32_767),
    "image_size": st.integers(8, 2048) | st.just([[0, 96], [1, 128]]),
    "crop_area": st.floats(0.01, 0.99).map(lambda least: [least, 1.0]),
    "eval_size": st.integers(8, 256),
    "eval_resize": st.integers(224, 2048),
    "eval_crop_first": st.booleans(),
    "warmup_steps": st.integers(1, 10_000),
    "epoch_steps": st.integers(1, 100_000),
    "sides": st.lists(st.integers(32, 1333), min_size=1, max_size=3),
    "max_side": st.integers(800, 8192),
    "eval_side": st.integers(32, 1333),
    "norm": st.just("batch"),
    "frozen_stages": st.integers(1, 5),
    "anchors_per_image": st.integers(2, 4096),
    "rois_per_image": st.integers(2, 4096),
    "accumulate": st.integers(2, 64),
    "clip_norm": numbers(1e-3, 100),
    "label_smoothing": numbers(1e-3, 0.9),
    "optimizer": st.sampled_from(["dot", "adamw", "lamb"]),
    "momentum_delta": numbers(0, 0.09),
    "betas": st.tuples(numbers(0.1, 0.8), numbers(0.9, 0.99)).map(list),
    "eps": numbers(1e-10, 1e-4),
    "decay_norms_and_biases": st.just(False),
    "layer_decay": numbers(0.1, 0.9),
    "freeze": st.just(["conv1"]),
    "drop_path": numbers(0.01, 0.5),
    "schedule_by": st.just("step"),
    "min_lr": numbers(1e-8, 1e-4),
    "warmup_lr": numbers(1e-8, 1e-4),
    "stop_epoch": st.integers(1, 2),
    "augment": st.just({"randaugment": {"ops": 2, "magnitude": 9}}),
    "random_erasing": numbers(0.01, 1),
    "repeats": st.integers(2, 4),
    "mixup": numbers(0.1, 1),
    "cutmix": numbers(0.1, 1),
    "mix_probability": numbers(0.1, 0.9),
    "mix_switch": numbers(0.1, 0.4),
    "views": st.just({"strong": {"augment": {"randaugment": {}}}}),
}
STORED_INFO = datasets.prepared_dataset("imagefolder", "0" * 16, 10, 1000, 100, 100)
DETECTION_KEYS = {**OBJECTS.views, **DETECTION.recipe}
DETECTION_INFO = datasets.prepared_dataset("coco", "0" * 16, 80, 1000, 100, 0)


def ids(data: dict[str, Any]) -> list[str]:
    """Return the run ids of a sweep's cells."""
    document = yamlfile.Document("sweep.yaml", data, {})
    name = data["dataset"] if isinstance(data["dataset"], str) else data["dataset"]["name"]
    info = {"coco": DETECTION_INFO, "imagefolder": STORED_INFO}.get(name, tasks.DATASETS[name])
    plan = expand.expand(sweep_file.validate_model(Sweep, data, document), document, info, lambda w: w.sha256 or SHA)
    return [c.run_id for c in plan.cells]


def changed(**changes: Any) -> dict[str, Any]:
    """Return BASE with dotted keys (``__`` for the dot) set."""
    data = copy.deepcopy(BASE)
    for key, value in changes.items():
        *path, last = key.split("__")
        node: Any = data
        for part in path:
            node = node[int(part) if part.isdigit() else part]
        node[last] = value
    return data


def of_stored_images() -> dict[str, Any]:
    """Return BASE with a dataset of stored images and every recipe key about them stated at its default."""
    pair = {**BASE["pairs"][0], "teacher": "torchvision:resnet18", "student": "torchvision:squeezenet1_0"}
    recipe = {**BASE["recipe"], **STORED.views}
    return changed(dataset__name="imagefolder", recipe=recipe, pairs=[pair])


def of_detection() -> dict[str, Any]:
    """Return BASE with a detection dataset and every recipe key about it stated at its default."""
    weights = {"file": "t.pth", "sha256": SHA, "AP": 40.0}
    pair = {"teacher": "fasterrcnn_resnet50_fpn", "student": "fasterrcnn_resnet18_fpn", "teacher_weights": weights}
    recipe = {**BASE["recipe"], **DETECTION_KEYS}
    return changed(dataset__name="coco", recipe=recipe, pairs=[pair])


@pytest.mark.parametrize("views", ["stored", "detection"])
def test_defaults_about_images_need_not_be_stated(views: str) -> None:
    make = {"stored": of_stored_images, "detection": of_detection}[views]
    stated, unstated = make(), make()
    for key in {"stored": STORED.views, "detection": DETECTION_KEYS}[views]:
        del unstated["recipe"][key]
    assert ids(stated) == ids(unstated)


@cache
def base_ids() -> list[str]:
    return ids(BASE)


@cache
def base_of(key: str) -> tuple[dict[str, Any], list[str]]:
    """Return a sweep in which a recipe key can be changed, with its ids."""
    base = changed()
    if key == "schedule":
        base["recipe"]["milestones"] = []
    if key == "views":
        base = changed(methods__entry={"use": "tests.support.user_methods:ReadsTwoViews"})
        base["recipe"] |= {"views": {"strong": {"flip": True}}, "teacher_top_k": None}
    if key in STORED.views:
        base = of_stored_images()
    if key in DETECTION_KEYS:
        base = of_detection()
    return base, ids(base)


@pytest.mark.parametrize("key", Recipe.model_fields)
@given(st.data())
def test_any_recipe_key_changes_the_id(key: str, data: st.DataObject) -> None:
    base, before = base_of(key)
    value = data.draw(RECIPE_VALUES[key].filter(lambda v: v != base["recipe"][key]))
    other = copy.deepcopy(base)
    other["recipe"][key] = value
    assert before != ids(other)


@cache
def ids_of_method(method: str) -> list[str]:
    return ids(changed(methods__entry={"use": method}))


@pytest.mark.parametrize("method", METHODS)
@given(st.data())
def test_any_hyper_parameter_and_weight_changes_the_id(method: str, data: st.DataObject) -> None:
    info = methods.describe_method(method)
    before = ids_of_method(method)
    values: dict[str, st.SearchStrategy[Any]] = {
        "float": numbers(-100, 100), "int": st.integers(-100, 100), "bool": st.booleans(), "str": st.text(max_size=5),
    }  # fmt: skip
    for key, hyper in info.hyper.items():
        kind = st.sampled_from(hyper.choices) if hyper.choices else values[hyper.kind]
        value = data.draw(kind.filter(lambda v, d=hyper.default: v != d))
        assert ids(changed(methods__entry={"use": method, "params": {key: value}})) != before, key
    for term, default in info.weights.items():
        value = data.draw(numbers(0.5, 100).filter(lambda v, d=default: v != d))
        assert ids(changed(methods__entry={"use": method, "weights": {term: value}})) != before, term


@given(seed=st.integers(1, 2**31 - 1), subset=st.integers(1, 14).filter(lambda n: n != 10), sha=st.binary(min_size=32))
def test_seed_subset_and_teacher_change_the_id(seed: int, subset: int, sha: bytes) -> None:
    assert ids(changed(seeds=[seed])) != base_ids()
    assert ids(changed(dataset__train_subset=10 * subset)) != base_ids()
    assert ids(changed(pairs__0__teacher_weights__sha256=sha[:32].hex())) != base_ids()
    assert ids(changed(pairs__0__teacher_weights__mean=0.3052, pairs__0__teacher_weights__std=0.5)) != base_ids()


def test_models_and_whole_training_set_change_the_id() -> None:
    different = [
        BASE,
        changed(pairs__0__student="digits_net_w8"),
        changed(pairs__0__teacher="digits_net_w16"),
        changed(dataset="digits"),
        changed(pairs__0__teacher_weights=None),
        changed(methods__entry={"use": "student"}),
    ]
    assert len({ids(d)[0] for d in different}) == len(different)


def test_a_teacher_trained_here_gives_its_own_identity_to_its_students() -> None:
    trained = changed(pairs__0__teacher_weights=None)
    other_seed = {**trained, "teachers": {"seed": 1}}
    other_recipe = {**trained, "teachers": {"recipe": {**RECIPE, "lr": 0.04}}}
    assert len({ids(d)[0] for d in (trained, other_seed, other_recipe)}) == 3
    without = changed(methods__entry={"use": "student"})
    assert ids(without) == ids({**without, "teachers": {"seed": 1}}), "a student alone knows no teacher"


def test_dataset_content_and_method_version_change_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(BASE)
    digits = tasks.DATASETS["digits"]
    with monkeypatch.context() as patch:
        patch.setitem(tasks.DATASETS, "digits", digits.__class__(**{**digits.__dict__, "version": "0" * 16}))
        assert ids(BASE) != before
    with monkeypatch.context() as patch:
        patch.setattr(identity, "PROTOCOL", identity.PROTOCOL + 1)
        assert ids(BASE) != before
    assert ids(BASE) == before


@cache
def with_all_stated() -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """Return a sweep that states every default, its method's settings, and its ids."""
    info = methods.describe_method("crd")
    stated = {"params": {k: h.default for k, h in info.hyper.items()}, "weights": dict(info.weights)}
    full = changed(methods__entry={"use": "crd", **stated}, recipe__milestones=[])
    return full, stated, ids(full)


@given(st.randoms(use_true_random=False))
def test_key_order_and_unstated_defaults_do_not_change_the_id(rng: random.Random) -> None:
    full, stated, before = with_all_stated()
    defaults = [("recipe", k) for k, f in Recipe.model_fields.items() if not f.is_required()]
    defaults += [("methods", "entry", part, k) for part in ("params", "weights") for k in stated[part]]
    terse = copy.deepcopy(full)
    for path in rng.sample(defaults, rng.randint(0, len(defaults))):
        node = terse
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = list(value.items())
        rng.shuffle(items)
        return {k: shuffled(v) for k, v in items}

    assert ids(shuffled(terse)) == before


@given(st.permutations(["dataset", "teacher", "student", "method", "recipe", "seed"]))
def test_the_order_of_a_science_dict_is_not_part_of_it(keys: list[str]) -> None:
    science = {key: {"b": 1, "a": key} for key in sorted(keys)}
    other = {key: {"a": key, "b": 1} for key in keys}
    assert identity.digest(science) == identity.digest(other)


@given(
    file=st.text(min_size=1, max_size=30),
    top1=st.none() | st.floats(1, 100, exclude_min=True),
    entry=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,20}", fullmatch=True),
    note=st.text(max_size=20),
)
def test_paths_names_and_notes_do_not_change_the_id(file: str, top1: float | None, entry: str, note: str) -> None:
    data = changed(pairs__0__teacher_weights={"file": file, "sha256": SHA, "top1": top1}, note=note, name="other")
    data["methods"] = {entry: data["methods"]["entry"]}
    assert ids(data) == base_ids()


def test_the_same_setting_in_another_place_or_form_does_not_change_the_id() -> None:
    expected = ids(changed(methods__entry={"use": "kd", "params": {"temperature": 2.0}}, recipe__lr=1.0))
    per_pair = changed(recipe__lr=1)
    per_pair["pairs"][0]["methods"] = {"entry": {"params": {"temperature": 2}}}
    per_method = changed(methods__entry={"use": "kd", "params": {"temperature": 2}, "recipe": {"lr": 1}})
    by_pair = changed(methods__entry={"use": "kd", "params": {"temperature": 2}})
    by_pair["pairs"][0]["recipe"] = {"lr": "1.0"}
    assert ids(per_pair) == ids(per_method) == ids(by_pair) == expected
    assert ids(changed(seeds=1)) == ids(changed(seeds=[0]))


def test_changing_a_default_changes_the_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unsaid = changed(methods__entry={"use": "kd"})
    stated = changed(methods__entry={"use": "kd", "params": {"temperature": 4.0}})
    del unsaid["recipe"]["momentum"]
    before = ids(unsaid), ids(stated)

    class Changed(Recipe):
        momentum: float = 0.8

    with monkeypatch.context() as patch:
        patch.setattr(sweep_file, "Recipe", Changed)
        assert ids(unsaid) != before[0]
        assert ids(stated) == before[1]

    folder = tmp_path / "methods"
    shutil.copytree(methods.METHODS_FOLDER, folder)
    source = (folder / "kd.py").read_text()
    (folder / "kd.py").write_text(source.replace("temperature: float = 4.0", "temperature: float = 5.0"))
    with monkeypatch.context() as patch:
        patch.setattr(methods, "METHODS_FOLDER", folder)
        methods.describe_builtin_method.cache_clear()
        assert ids(unsaid) != before[0]
        assert ids(stated) == before[1]
    methods.describe_builtin_method.cache_clear()
    assert (ids(unsaid), ids(stated)) == before


def test_a_users_own_method_is_identified_by_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = '"""Mine."""\n\nclass Mine:\n    weights = {"ce": 1.0}\n    scale = 1.0\n'
    texts = {
        "identity_a": source,
        "identity_b": source.replace('"""Mine."""', "# another comment").replace("    scale", "\n\n    scale"),
        "identity_c": source.replace("scale = 1.0", "scale = 2.0"),
    }
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    version = {name: methods.describe_method(f"{name}:Mine").version for name in texts}
    assert version["identity_a"] == version["identity_b"] != version["identity_c"]


def test_images_for_validation_change_the_id_and_none_do_not() -> None:
    assert ids(changed(dataset__validation=100)) != ids(changed(dataset__validation=200)) != ids(BASE)
    assert ids(changed(dataset__validation=None)) == ids(BASE)


def test_golden_ids() -> None:
    """Committed ids: if they change, users' results are no longer found. Change them on purpose only."""
    science = {
        "protocol": 1,
        "dataset": {"name": "digits", "version": "6000b9393a3f3f11", "train_subset": None},
        "teacher": {"model": "digits_net_w8", "sha256": SHA},
        "student": "digits_net_w4",
        "method": {"use": "kd", "version": 1, "params": {"temperature": 4.0}, "weights": {"ce": 0.1, "kd": 0.9}},
        "recipe": {"epochs": 3, "lr": 0.05, "weight_decay": 5e-4, "milestones": [2], "flip": False},
        "seed": 0,
    }
    assert identity.canonical(science).startswith('{"dataset":{"name":"digits","train_subset":null,"version":"6000')
    assert identity.digest(science) == "50f556b770859c19"
    assert ids(BASE) == ["c5ac577c6dd28d63"]
