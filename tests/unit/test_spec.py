"""Plans from sweep files: overrides, counts, packs, subsets, the lines of mistakes, and no import of torch."""

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.spec import expand, methods, sweep_file
from harness.spec.science import SHARED_RECIPE, Trained, as_json
from harness.spec.sweep_plan import Plan
from harness.spec.yamlfile import Document
from tests.support.cli import REPO, process, run_command

METHODS = ("student", "kd", "fitnets", "crd", "rekd")
DIGITS = ("digits_net_w4", "digits_net_w8", "digits_net_w16", "digits_net_w32")
CHANGES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(3, 9),
        "batch_size": st.sampled_from([16, 64, 128]),
        "crop_padding": st.integers(0, 2),
        "precision": st.sampled_from(["float32", "bf16"]),
        "lr": st.sampled_from([0.01, 0.5]),
    },
)
ENTRIES = st.fixed_dictionaries({}, optional={"recipe": CHANGES, "weights": st.just({"ce": 0.5})})
PAIRS = st.fixed_dictionaries(
    {"teacher": st.sampled_from(DIGITS), "student": st.sampled_from(DIGITS)}, optional={"recipe": CHANGES}
)
WHOLE = CHANGES.map(lambda changes: {"base": "digits_quick", **changes})
SWEEPS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(["digits", {"name": "digits", "train_subset": 100}]),
        "recipe": st.sampled_from(["digits_quick", {"base": "digits_quick", "epochs": 3}, {"epochs": 3, "lr": 0.1}]),
        "methods": st.dictionaries(st.sampled_from(METHODS), ENTRIES, min_size=1),
        "pairs": st.lists(PAIRS, min_size=1, max_size=4),
        "seeds": st.integers(1, 3) | st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    },
    optional={"teachers": st.fixed_dictionaries({"seed": st.integers(0, 3)}, optional={"recipe": WHOLE})},
)


def plan(data: dict[str, Any], *sets: str, only: tuple[str, ...] = ()) -> Plan:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(json.dumps(data))  # which is YAML too, and quickly written
        return plan_sweep(file, Path(folder) / "results", sets=sets, only=only).plan


def ids(plan: Plan) -> list[str]:
    return [cell.run_id for cell in plan.cells]


@given(SWEEPS)
def test_counts_packs_and_order(data: dict[str, Any]) -> None:
    planned = plan(data)
    seeds = data["seeds"] if isinstance(data["seeds"], list) else range(data["seeds"])
    cells = [(c.teacher, c.student, c.method, c.seed) for c in planned.cells]
    assert cells == [(p["teacher"], p["student"], m, s) for p in data["pairs"] for m in data["methods"] for s in seeds]

    packed = [k for pack in planned.packs for k in pack.run_ids]
    assert len(packed) == len(set(packed)), "a run is in two packs"
    assert set(packed) == set(planned.runs) == set(ids(planned)) | {p.needs for p in planned.packs if p.needs}

    place = {k: i for i, pack in enumerate(planned.packs) for k in pack.run_ids}
    teachers = {c.teacher_run for c in planned.cells}
    for i, pack in enumerate(planned.packs):
        sciences = [planned.runs[k].science for k in pack.run_ids]
        assert len({tuple(getattr(s.recipe, k) for k in SHARED_RECIPE) for s in sciences}) == 1
        assert len({s.seed for s in sciences}) == 1
        expected = {s.teacher.run for s in sciences if isinstance(s.teacher, Trained)}
        assert expected == ({pack.needs} if pack.needs else set())
        assert pack.needs is None or place[pack.needs] < i, "a teacher comes after its students"
        assert len(pack.run_ids) == 1 or not teachers & set(pack.run_ids), "a teacher shares a pack"
        assert pack.needs not in pack.run_ids


@given(SWEEPS, st.randoms(use_true_random=False))
def test_the_order_of_keys_is_irrelevant(data: dict[str, Any], rng: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = sorted(value)
            rng.shuffle(keys)
            return {k: shuffled(value[k]) for k in keys}
        return [shuffled(v) for v in value] if isinstance(value, list) else value

    assert set(ids(plan(data))) == set(ids(plan(shuffled(data))))


SETTINGS: dict[tuple[str | int, ...], st.SearchStrategy[Any]] = {
    ("recipe", "epochs"): st.integers(3, 50),
    ("recipe", "lr"): st.floats(1e-4, 1.0),
    ("recipe", "flip"): st.booleans(),
    ("dataset", "train_subset"): st.sampled_from([50, 100, None]),
    ("seeds",): st.integers(1, 4) | st.lists(st.integers(0, 9), min_size=1, unique=True),
    ("teachers", "seed"): st.integers(0, 9),
    ("methods", "kd", "params", "temperature"): st.floats(0.5, 20),
    ("methods", "kd", "weights"): st.just({"ce": 0.3, "kd": 0.7}),
    ("pairs", 0, "student"): st.sampled_from(DIGITS),
    ("pairs", 0, "recipe", "epochs"): st.integers(3, 9),
}


@given(SWEEPS, st.sampled_from(list(SETTINGS)), st.data())
def test_set_equals_editing_the_file(data: dict[str, Any], path: tuple[str | int, ...], draw: st.DataObject) -> None:
    value = draw.draw(SETTINGS[path])
    edited = json.loads(json.dumps(data))
    for key, name in (("recipe", "base"), ("dataset", "name")):
        if isinstance(edited[key], str):
            edited[key] = {name: edited[key]}
    node = edited
    for part in path[:-1]:
        node = node[part] if isinstance(part, int) else node.setdefault(part, {})
    node[path[-1]] = value
    assert ids(plan(data, f"{'.'.join(map(str, path))}={json.dumps(value)}")) == ids(plan(edited))


@given(SWEEPS, st.data())
def test_only_keeps_a_subset_of_the_same_runs(data: dict[str, Any], draw: st.DataObject) -> None:
    full_plan = plan(data)
    fields = draw.draw(st.sets(st.sampled_from(["method", "teacher", "student", "seed"]), min_size=1))
    cell = draw.draw(st.sampled_from(full_plan.cells))
    part = plan(data, only=tuple(f"{f}={getattr(cell, f)}" for f in sorted(fields)))
    assert part.cells == [c for c in full_plan.cells if all(getattr(c, f) == getattr(cell, f) for f in fields)]
    assert set(part.runs) <= set(full_plan.runs)


BASE: dict[str, Any] = {
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": {"student": {}, "kd": {"recipe": {"epochs": 5}}},
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4", "methods": {"kd": {}}}],
    "seeds": 1,
}


@pytest.mark.parametrize(
    "path, value, key, part",
    [
        (("methods", "kd", "recipe"), {"epoch": 3}, "methods.kd.recipe.epoch", "did you mean 'epochs'?"),
        (("pairs", 0, "recipe"), {"lr": "fast"}, "pairs.0.recipe.lr", "expected a number"),
        (("pairs", 0, "methods"), {"kd": {"recipe": {"gamma": 2}}}, "pairs.0.methods.kd.recipe.gamma", "found 2"),
        (("pairs", 0, "methods"), {"kdd": {}}, "pairs.0.methods.kdd", "did you mean 'kd'?"),
        (("pairs", 0, "methods", "kd", "recipe"), {"lr": 0.2}, "methods.student.recipe.flap", "did you mean 'flip'?"),
        (("recipe",), {"base": ["x"]}, "recipe.base", "unknown recipe ['x']"),
        (("pairs", 0, "recipe"), {"lr": True}, "pairs.0.recipe.lr", "expected a number, found true"),
        (
            ("pairs", 0, "recipe"),
            {"warmup_epochs": True},
            "pairs.0.recipe.warmup_epochs",
            "expected an integer, found true",
        ),
        (("pairs", 0, "recipe"), {"random_erasing": True}, "pairs.0.recipe.random_erasing", "must be a number"),
        (
            ("pairs", 0, "recipe"),
            {"crop_area": [0.5]},
            "pairs.0.recipe.crop_area",
            "expected at least 2 values",
        ),
        (("methods", "kd", "weights"), {"kd": True}, "methods.kd.weights", "expected a number, found {'kd': True}"),
        (
            ("recipe",),
            {"base": "digits_quick", "eval_size": 9},
            "recipe",
            "or write `eval_size: null` if",
        ),
        (("recipe",), 5, "recipe", "expected a recipe's name or a mapping, found 5"),
        (("teachers",), {"recipe": "digits_quik"}, "teachers.recipe", "did you mean 'digits_quick'?"),
        (("seeds",), 10_001, "seeds", "expected 1 to 10,000 seeds"),
        (("pairs", 0, "teacher"), "resnet56", "pairs.0.teacher", "is for 3x32x32 images, dataset digits has 1x8x8"),
    ],
)
def test_a_mistake_is_named_where_it_stands(
    path: tuple[str | int, ...], value: object, key: str, part: str, tmp_path: Path
) -> None:
    data = json.loads(json.dumps(BASE))
    node = data
    for part_of_path in path[:-1]:
        node = node[part_of_path]
    node[path[-1]] = value
    if "student" in key:  # a mistake below a later layer that has none
        data["methods"]["student"]["recipe"] = {"flap": True}
        data["pairs"][0]["recipe"] = {"lr": 0.2}
    file = tmp_path / "s.yaml"
    text = yaml.safe_dump(data, sort_keys=False)
    file.write_text("# a comment\n" + text)
    with pytest.raises(UserError) as e:
        plan_sweep(file, tmp_path / "results")
    assert str(e.value).startswith(f"{file}:"), e.value
    assert f": {key}: " in str(e.value) and part in str(e.value), e.value
    line = int(str(e.value).removeprefix(f"{file}:").partition(":")[0])
    leaf = [p for p in key.split(".") if not p.isdigit()][-1]
    assert leaf in (("# a comment\n" + text).splitlines()[line - 1]), (line, text)


def test_a_recipe_file_next_to_the_sweep_file_wins_and_its_mistakes_have_its_lines(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "digits_quick.yaml"
    recipe.write_text("epochs: 7\nlr: 0.1\n")
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**BASE, "methods": ["student"], "pairs": [dict(BASE["pairs"][0], methods={})]}))
    planned = plan_sweep(file, tmp_path / "results").plan
    assert {run.science.recipe.epochs for run in planned.runs.values()} == {7}
    recipe.write_text("epochs: 7\nlr: 0.1\nmomentun: 0.9\n")
    with pytest.raises(UserError, match=r"recipes/digits_quick\.yaml:3: momentun: .*did you mean 'momentum'"):
        plan_sweep(file, tmp_path / "results")


def test_an_accuracy_stated_once_holds_for_every_pair_with_these_weights() -> None:
    def pairs(*stated: float | None) -> dict[str, Any]:
        given = [{"file": "w.pth", "sha256": "ab" * 32, "top1": top1} for top1 in stated]
        return {**BASE, "pairs": [{**BASE["pairs"][0], "teacher_weights": w} for w in given]}

    for stated in ((90.0, None), (None, 90.0), (90.0, 90.0)):
        assert plan(pairs(*stated)).weights["ab" * 32].top1 == 90.0
    with pytest.raises(UserError, match="pairs.1.teacher_weights.top1: another pair states 90.0 for the same weights"):
        plan(pairs(90.0, 91.0))


def test_weights_that_are_normalised_otherwise_are_another_teacher() -> None:
    def pairs(*stated: dict[str, Any]) -> dict[str, Any]:
        given = [{"file": "w.pth", "sha256": "ab" * 32, **keys} for keys in stated]
        return {**BASE, "methods": ["kd"], "pairs": [{**BASE["pairs"][0], "teacher_weights": w} for w in given]}

    own, datasets_own = {"mean": 0.5, "std": [0.5]}, {"mean": 0.3052, "std": 0.376}
    both = plan(pairs({"top1": 90.0}, {"top1": 91.0, **own}))
    assert len(both.packs) == 2 * len({cell.seed for cell in both.cells}), "they share no forward pass"
    assert sorted(weights.top1 for weights in both.weights.values()) == [90.0, 91.0]
    assert plan(pairs(datasets_own)).runs.keys() == plan(pairs({})).runs.keys() < both.runs.keys()
    assert plan(pairs({"mean": [0.5], "std": 0.5})).runs.keys() == both.runs.keys() - plan(pairs({})).runs.keys()


def test_weights_of_a_library_are_normalised_as_it_says_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    def sweep(**stated: Any) -> dict[str, Any]:
        weights = {"name": "timm:test_resnet.r160_in1k", "sha256": "ab" * 32, **stated}
        pair = {"teacher": "timm:test_resnet", "student": "resnet20", "teacher_weights": weights}
        return {**BASE, "dataset": "cifar100", "methods": ["kd"], "pairs": [pair]}

    by_name = plan(sweep()).runs
    assert by_name.keys() == plan(sweep(mean=0.5, std=0.5)).runs.keys()
    datasets_own = {"mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761]}
    (as_before,) = {run.science.teacher for run in plan(sweep(**datasets_own)).runs.values()}
    assert as_json(as_before) == {"model": "timm:test_resnet", "sha256": "ab" * 32}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(sweep()))
    result = run_command("sweep", file, "--plan", "--results", tmp_path / "results")
    assert (
        "teacher timm:test_resnet: images normalised by mean 0.5 and std 0.5, as "
        "timm:test_resnet.r160_in1k expects; students by mean 0.5071, 0.4867, 0.4408 "
        "and std 0.2675, 0.2565, 0.2761, those of cifar100\n"
    ) in result.out


def test_a_place_in_the_weights_file_is_science_where_it_is_stated() -> None:
    def planned(*places: dict[str, str]) -> Plan:
        given = [{"file": "w.pth", "sha256": "ab" * 32, "top1": 80.0 + i, **place} for i, place in enumerate(places)]
        return plan({**BASE, "pairs": [{**BASE["pairs"][0], "teacher_weights": w} for w in given], "methods": ["kd"]})

    places = ({}, {"key": "ema"}, {"key": "ema", "prefix": ""}, {"prefix": "module."})
    together = planned(*places)
    assert [weights.top1 for weights in together.weights.values()] == [80, 81, 82, 83]
    teachers = [run.science.to_json()["teacher"] for run in together.runs.values()]
    assert [teacher.keys() - {"model", "sha256"} for teacher in teachers[:: len(teachers) // 4]] == [*map(set, places)]
    assert {*planned(places[0]).runs, *planned(places[1]).runs} < {*together.runs}


def test_too_many_runs_are_refused(tmp_path: Path) -> None:
    data = {**BASE, "pairs": [BASE["pairs"][0]] * 11, "seeds": 10_000}
    with pytest.raises(UserError, match="220,000 runs; a sweep may have 200,000"):
        plan(data)


OWN = '''
from typing import ClassVar, Literal
raise SystemExit("planning must not run this")

class Mine:
    """Mine.

    More."""
    weights: ClassVar[dict[str, float]] = {"ce": 1, "mine": 2}
    def __init__(self, student, teacher, *, scale: float = 4, kind: Literal["a", "b"] = "a", n: int = 2): ...
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a package that fails when imported: planning only reads it."""
    name = f"pkg{random.randrange(10**9)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('planning must not run this')\n")
    (tmp_path / name / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_method_is_read_without_running_its_package(package: str) -> None:
    info = methods.describe_method(f"{package}.own:Mine")
    assert info.weights == {"ce": 1.0, "mine": 2.0} and info.summary == "Mine."
    assert {k: h.default for k, h in info.hyper.items()} == {"scale": 4.0, "kind": "a", "n": 2}
    assert type(info.hyper["scale"].default) is float, "`scale: 4` said and unsaid must be the same science"


def test_a_default_is_the_same_run_whether_stated_or_not(package: str) -> None:
    def run(params: dict[str, Any]) -> list[str]:
        return ids(plan({**BASE, "methods": {"kd": {"use": f"{package}.own:Mine", "params": params}}}))

    assert run({}) == run({"scale": 4}) == run({"scale": 4.0, "n": 2.0, "kind": "a"}) != run({"scale": 5})


@pytest.mark.parametrize(
    "source, part",
    [
        ("class Mine:\n  weights = {'ce': 'x'}", "needs a literal `weights"),
        ("class Mine:\n  weights = {1: 1.0, 'ce': 1.0}", "needs a literal `weights"),
        ("class Mine:\n  weights = {'kd': 1.0}", "needs a literal `weights"),
        ("class Mine:\n  weights = make()", "needs a literal `weights"),
        ("class Mine:\n  weights = {[]: 1}", "needs a literal `weights"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: float): ...", "'x' needs a type"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x=1.0): ...", "'x' needs a type"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: list = [1]): ...", "its type is list"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: int = 'a'): ...", "expected an integer"),
        (
            "class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, tau=4.0, k: int = 1): ...",
            "hyper-parameters must be keyword-only, found tau, k; put a * before them: def __init__(self, s, t, *,",
        ),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, *args): ...", "takes *args, which the planner"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: int = 1, **kw): ...", "takes **kw, which"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, student): ...", "must take the models"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: int): ...", "default: it has none"),
        ("class Mine:\n weights = {'ce': 1}\n def __init__(self, s, t, *, x: float = 2 * N): ...", "default is 2 * N"),
        ("class Mine:\n weights = {'ce': 1}\n used_with = {'x': 'soft'}", "`used_with` must map a hyper-parameter"),
        ("class Other: ...", "unknown class 'Mine'. Valid: Other"),
        ("class Mine(", "not a readable Python file"),
        ("x = " + "(" * 500 + ")" * 500, "not a readable Python file"),
        ("\0", "not a readable Python file"),
    ],
)
def test_a_method_that_breaks_the_rules_is_reported(package: str, source: str, part: str) -> None:
    Path(package, "own.py").write_text(source)
    with pytest.raises(UserError) as e:
        methods.describe_method(f"{package}.own:Mine")
    assert part in str(e.value)


@pytest.mark.parametrize(
    "use", ["kdd", "no.such:M", "os:", ":X", "a b:c", "math:X", "this.that:X", "..:X", "__main__:X"]
)
def test_a_method_that_does_not_exist_is_reported(use: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="method"):
        methods.describe_method(use)
    assert capsys.readouterr().out == "", "a module was run"


def test_where_of_an_override_without_a_line(tmp_path: Path) -> None:
    document = Document("f.yaml", {}, {})
    with pytest.raises(UserError) as e:
        sweep_file.validate_model(sweep_file.Sweep, {}, document)
    keys = ("dataset", "recipe", "methods", "pairs", "seeds")
    assert str(e.value).split("\n") == [f"f.yaml: {key}: is required and missing" for key in keys]


NO_TORCH = """
import json, sys
from harness.console import app
for args in json.loads(sys.argv[1]):
    sys.argv = ["harness", *args]
    try:
        app.main()
    except SystemExit as end:
        assert not end.code, (args, end.code)
    heavy = sorted({"torch", "torchvision", "ffcv", "deepspeed", "timm"} & set(sys.modules))
    assert not heavy, (args, heavy)
"""


def test_planning_status_and_report_import_no_torch(tmp_path: Path) -> None:
    """One process runs the commands one after the other."""
    store = ["--results", str(tmp_path / "results")]
    commands = [
        ["--help"],
        ["sweep", "--help"],
        ["sweep", "benchmarks/digits_pairs.yaml", "--plan", *store],
        ["sweep", "benchmarks/cifar100_quick.yaml", "--plan", "--json", *store],
        ["status", "benchmarks/digits_pairs.yaml", *store],
        ["report", "benchmarks/digits_pairs.yaml", *store],
    ]
    result = process("-c", NO_TORCH, json.dumps(commands), cwd=REPO)
    assert result.code == 0, result
    assert not (tmp_path / "results").exists(), "looking must not write"


def test_plan_as_json_is_only_json(tmp_path: Path) -> None:
    result = run_command(
        "sweep", REPO / "benchmarks/digits_pairs.yaml", "--plan", "--json", "--results", tmp_path / "r"
    )
    assert result.code == 0 and result.err == ""
    document = json.loads(result.out)
    assert (document["cells"], document["runs"], document["to_do"]) == (42, 43, 43)


def test_ten_thousand_runs_are_planned(tmp_path: Path) -> None:
    names = ["resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "vgg8", "vgg11"]
    pairs = [{"teacher": t, "student": s} for t in names for s in names if t != s]
    data = {"dataset": "cifar100", "recipe": "crd_240ep", "methods": list(METHODS), "pairs": pairs, "seeds": 30}
    file = tmp_path / "many.yaml"
    file.write_text(yaml.safe_dump(data))
    assert len(plan_sweep(file, tmp_path / "results").plan.cells) == 10_800
    assert expand.MAX_CELLS > 10_800


def test_smoothing_is_refused_where_it_would_not_be_done() -> None:
    data = {
        "dataset": "digits", "recipe": {"base": "digits_quick", "label_smoothing": 0.1}, "seeds": 1,
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}], "methods": {"kd": {}, "simkd": {}},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"sweep.yaml:\d+: methods.simkd: simkd computes a cross-entropy of its own"):
        plan(data)
    assert plan(data, "methods.simkd.recipe.label_smoothing=0").cells


def test_dot_is_for_lines_with_a_distillation() -> None:
    """A teacher that is trained by the students' recipe is the one of a sweep without it."""
    data: dict[str, Any] = {
        "dataset": "digits", "recipe": {"base": "digits_quick", "optimizer": "dot", "momentum_delta": 0.09}, "seeds": 1,
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}], "methods": {"kd": {}, "student": {}},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"sweep.yaml:\d+: methods.student: optimizer dot keeps a momentum of"):
        plan(data)
    teacher, kd = plan({**data, "methods": ["kd"]}).runs.values()
    assert (kd.science.recipe.optimizer, kd.science.recipe.momentum_delta) == ("dot", 0.09)
    assert teacher.run_id in plan({**data, "methods": ["kd"], "recipe": "digits_quick"}).runs
    own = {"recipe": data["recipe"]}
    with pytest.raises(UserError, match=r"sweep.yaml:\d+: teachers.recipe: optimizer dot .* found a teacher with `ce`"):
        plan({**data, "methods": ["kd"], "teachers": own})


def test_stored_logits_are_refused_where_an_epoch_may_show_an_image_twice() -> None:
    data = {
        "dataset": "digits", "recipe": {"base": "digits_quick", "teacher_top_k": 4}, "seeds": 1,
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
        "methods": {"kd": {"recipe": {"epoch_steps": 30}}},
    }  # fmt: skip
    with pytest.raises(
        UserError, match=r"sweep.yaml:\d+: methods.kd: expected `teacher_top_k`, which goes by passes, or"
    ):
        plan(data)
    assert plan(data, "methods.kd.recipe={}").cells
    assert plan(data, "methods={fitnets: {recipe: {epoch_steps: 30}}}").cells, "fitnets stores no logits"


def test_a_batch_is_not_cut_into_more_parts_than_it_has_images() -> None:
    data = {
        "dataset": "digits", "recipe": {"base": "digits_quick", "accumulate": 65}, "methods": ["student"], "seeds": 1,
        "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    }  # fmt: skip
    with pytest.raises(UserError, match="accumulate: a batch of 64 cannot be cut into 65"):
        plan(data)
