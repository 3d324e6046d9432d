"""All engines train alike: the same losses, weights, checkpoints and trained parameters."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.models.zoo import build_model
from harness.spec.lr_schedule import learning_rate
from harness.training import checkpoint
from tests.support.bench import USER_METHODS, Bench
from tests.support.ranks import rank_log, train_ranks

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")

SINGLE = "one process"
ENGINES: dict[str, dict[str, Any]] = {
    SINGLE: {},
    "native": {"engine": "native"},
    **{f"deepspeed {stage}": {"engine": "deepspeed", "zero_stage": stage} for stage in (0, 1, 2)},
}
IN_PARTS = {"accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1, "ema": 0.8}
ADAMW = {
    "optimizer": "adamw", "lr": 1e-3, "decay_norms_and_biases": False, "layer_decay": 0.7, "schedule_by": "step",
    "clip_norm": 1.0,
}  # fmt: skip
CRD = {"use": "crd", "params": {"negatives": 64}}
METHODS: dict[str, dict[str, Any]] = {
    "student": {},
    "kd": {},
    "fitnets": {"params": {"tap": "stage1"}},
    "crd": CRD,
    "rekd": {},
    "dml": {},
    "ab": {"params": {"taps": "stage1", "first_epochs": 1}},
    "late": {"use": f"{USER_METHODS}:ReachesOthers"},
    "student-in-parts": {"use": "student", "recipe": IN_PARTS},
    "crd-in-parts": {**CRD, "recipe": IN_PARTS},
    "adamw": {"use": "fitnets", "params": {"tap": "stage1"}, "recipe": ADAMW},
    "adamw-late": {"use": f"{USER_METHODS}:ReachesOthers", "recipe": ADAMW},
}

BROKEN = {
    "broken": {"use": f"{USER_METHODS}:Breaks"},
    "clipped": {"use": f"{USER_METHODS}:Breaks", "recipe": {"clip_norm": 1.0}},
}
STEPS = 3  # per epoch: 170 images in batches of 64, the last of 42
LOSSES, WEIGHTS = 1e-5, 5e-5  # measured 3e-6 and 7e-6
LOSSES_BF16 = 5e-3  # measured 1.5e-3
Curves = dict[tuple[int, str], float]


class Runs:
    """The runs of a sweep in its own folder."""

    def __init__(self, folder: Path, methods: dict[str, dict[str, Any]], precision: str = "float32"):
        folder.mkdir()
        self.bench = Bench(folder)
        torch.manual_seed(0)
        save_file(build_model("digits_net_w8", 10, in_channels=1).state_dict(), folder / "teacher.safetensors")
        weights = {"file": "teacher.safetensors"}
        self.bench.sweep = {
            "name": "engines", "dataset": {"name": "digits", "train_subset": 170}, "methods": methods, "seeds": [0],
            "recipe": {"base": "digits_quick", "epochs": 2, "precision": precision},
            "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4", "teacher_weights": weights}],
        }  # fmt: skip
        planned = self.bench.plan()
        self.ids = {cell.method: cell.run_id for cell in planned.plan.cells}
        self._weights = {k: asdict(file) for k, file in planned.weights_files(self.ids.values()).items()}

    def train(self, engine: str, **options: Any) -> "Runs":
        world, how = 1 if engine == SINGLE else 2, {"weights": self._weights, "checkpoint_seconds": 60}
        try:
            train_ranks(self.bench, world, *self.ids.values(), **how | ENGINES[engine] | options)
        finally:
            self.bench.clean_up()
        return self

    def weights(self, method: str) -> dict[str, Tensor]:
        return load_file(self.bench.store.student_weights(self.ids[method]))

    def checkpoint(self, method: str) -> dict[str, Tensor]:
        """Return the newest checkpoint, each state of all parameters as one vector: momenta before a batch norm are
        only rounding."""
        tensors, _ = checkpoint.load_newest(self.bench.store.checkpoints(self.ids[method])) or pytest.fail("none")
        for state in {name.partition(".")[0] for name in tensors} & {"momentum", "exp_avg", "exp_avg_sq", "steps"}:
            parts = {k: tensors.pop(k).flatten() for k in sorted(tensors) if k.startswith(f"{state}.")}
            tensors[f"{state} of " + " ".join(parts)] = torch.cat(list(parts.values()))
        return tensors

    def row(self, method: str) -> dict[str, Any]:
        return self.bench.row(self.ids[method])

    def curves(self, method: str) -> Curves:
        return {(c["epoch"], c["name"]): c["value"] for c in self.row(method)["curves"]}


Trained = Callable[..., Runs]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a function that returns an engine's runs, trained once without interruption."""
    runs_by_engine: dict[tuple[str, str], Runs] = {}

    def get(engine: str, precision: str = "float32") -> Runs:
        if (engine, precision) not in runs_by_engine:
            folder = tmp_path_factory.mktemp("engines") / "runs"
            methods = METHODS | BROKEN if precision == "float32" else METHODS
            runs_by_engine[engine, precision] = Runs(folder, methods, precision).train(engine)
        return runs_by_engine[engine, precision]

    return get


def difference(values: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the greatest difference, relative to the largest value of its tensor."""
    pairs = [(a.double(), b.double()) for a, b in values]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-9)) for a, b in pairs)


def loss_difference(one: Runs, other: Runs, method: str) -> float:
    ours, theirs = one.curves(method), other.curves(method)
    assert ours.keys() == theirs.keys()
    names = [key for key in ours if not key[1].startswith("test_")]
    return difference((torch.tensor(ours[key]), torch.tensor(theirs[key])) for key in names)


def weight_difference(one: Runs, other: Runs, method: str) -> float:
    ours, theirs = one.weights(method), other.weights(method)
    return difference((ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != SINGLE])
def test_an_engine_trains_as_one_process(trained: Trained, engine: str) -> None:
    """Cover trainable parts, memory banks, a first stage, a teacher that learns, micro-batches and clipping."""
    single, ours = trained(SINGLE), trained(engine)
    for method in METHODS:
        assert loss_difference(single, ours, method) < LOSSES, method
        assert weight_difference(single, ours, method) < WEIGHTS, method
        assert ours.row(method)["processes"] == 2
    for method in BROKEN:
        assert ours.row(method)["status"] == single.row(method)["status"] == "diverged"
    assert "[INFO]" not in rank_log(ours.bench, 0) and "WARN" not in rank_log(ours.bench, 0).upper()


def test_in_bf16(trained: Trained) -> None:
    single, ours = trained(SINGLE, "bf16"), trained("deepspeed 2", "bf16")
    for method in METHODS:
        assert loss_difference(single, ours, method) < LOSSES_BF16, method


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parameter_trains_in_the_epochs_in_which_the_loss_reaches_it(trained: Trained, engine: str) -> None:
    runs = trained(engine)
    recipe = runs.bench.plan().plan.runs[runs.ids["late"]].science.recipe
    parameters = {name: torch.nn.Parameter(torch.ones(())) for name in ("early", "late")}
    settings = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay, "nesterov": recipe.nesterov}
    sgd = torch.optim.SGD(parameters.values(), recipe.lr, **settings, foreach=False)
    curves = runs.curves("late")
    for epoch, reached in ((1, "early"), (2, "late")):
        sgd.param_groups[0]["lr"] = learning_rate(recipe, epoch - 1)
        seen: dict[str, list[float]] = {name: [] for name in parameters}
        for images in (64, 64, 42):
            for name, parameter in parameters.items():
                seen[name] += [parameter.item()] * images
            sgd.zero_grad()
            parameters[reached].backward()
            sgd.step()
        for name in parameters:
            assert curves[epoch, f"train_{name}"] == pytest.approx(statistics.mean(seen[name]), rel=1e-6), (epoch, name)


def test_lamb_trains_with_whole_parameters(tmp_path: Path) -> None:
    lamb = {"lamb": {**METHODS["late"], "recipe": {"optimizer": "lamb", "lr": 0.01, "clip_norm": 0.5}}}
    single, ours = (Runs(tmp_path / name, lamb) for name in ("single", "ours"))
    single.train(SINGLE)
    ours.train("deepspeed 0", stop_after=STEPS + 1).train("deepspeed 0")
    assert weight_difference(single, ours, "lamb") < WEIGHTS
    assert loss_difference(single, ours, "lamb") < LOSSES


def test_killed_in_mid_epoch_and_resumed(trained: Trained, tmp_path: Path) -> None:
    engine = "deepspeed 2"
    some = {name: METHODS[name] for name in ("fitnets", "ab", "crd-in-parts", "late", "adamw-late")}
    runs = Runs(tmp_path / "runs", some)
    runs.train(engine, kill_after=2 * STEPS + 2, checkpoint_seconds=0)  # of three epochs, one of them ab's first stage
    runs.train(engine)
    for method in some:
        got, expected = runs.weights(method), trained(engine).weights(method)
        assert all(torch.equal(got[name], value) for name, value in expected.items()), method
        assert runs.curves(method) == trained(engine).curves(method)
        assert runs.row(method)["attempts"] == 2


def test_a_run_resumes_with_another_engine(trained: Trained, tmp_path: Path) -> None:
    some = {name: METHODS[name] for name in ("fitnets", "rekd", "crd-in-parts", "late", "adamw-late")}
    changed, native = (Runs(tmp_path / name, some) for name in ("changed", "native"))
    changed.train("native", stop_after=2).train("deepspeed 2", stop_after=STEPS)
    native.train("native", stop_after=STEPS + 2)
    for method in some:
        ours, theirs = changed.checkpoint(method), native.checkpoint(method)
        assert ours.keys() == theirs.keys()
        assert difference((ours[name], value) for name, value in theirs.items()) < WEIGHTS, method
    changed.train("native")
    for method in some:
        assert weight_difference(changed, trained("native"), method) < WEIGHTS
        assert loss_difference(changed, trained("native"), method) < LOSSES
