"""How long a plan takes: from like runs of the past where there are any, else from the models' sizes."""

from typing import Any

from harness.spec import datasets, identity, models
from harness.spec.expand import Plan
from harness.spec.foreign import is_foreign
from harness.store import files
from harness.store.store import Store

# A model of another library is not built for a guess: it counts as torchvision's ResNet-18, whatever the image's size.
FOREIGN_MACS_PER_PIXEL = 36e3
# A guess for a job on a few CPU cores, without past runs: multiply-adds a second, and the fixed time of a step.
MACS_PER_SECOND = 60e9
STEP_SECONDS = 0.004


def seconds(plan: Plan, store: Store, run_ids: set[str]) -> tuple[float, float]:
    """Compute-seconds that the runs need, and the share of them known from past runs rather than guessed."""
    total = known = 0.0
    cache: dict[int, tuple[float, bool]] = {}
    for run_id in run_ids:
        science = plan.runs[run_id].science
        # all seeds of a (pair, method) share their recipe object: one look-up serves them
        shared = id(science["recipe"])
        if shared not in cache:
            past = files.read_json(store.timing(identity.timing_key(science)))
            cache[shared] = (past, True) if isinstance(past, float) else (_guess(science), False)
        per_epoch, is_known = cache[shared]
        total += per_epoch * science["recipe"]["epochs"]
        known += per_epoch * science["recipe"]["epochs"] * is_known
    return total, known / total if total else 1.0


def _guess(science: dict[str, Any]) -> float:
    """Seconds per epoch: forward and backward cost three forwards; the teacher and the evaluation one each."""
    info = datasets.of(science["dataset"])
    shape = datasets.image_shape(info, science["recipe"])
    validation = science["dataset"].get("validation")
    images = info.trained_on(science["dataset"]["train_subset"], validation)
    student = _macs(science["student"], shape)
    teacher = _macs(science["teacher"]["model"], shape) if science["teacher"] else 0
    evaluated = validation or info.test_size
    macs = images * (3 * student + teacher) + evaluated * student / science["recipe"]["eval_every"]
    return macs / MACS_PER_SECOND + images / science["recipe"]["batch_size"] * STEP_SECONDS


def _macs(model: str, image_shape: tuple[int, int, int]) -> float:
    if is_foreign(model):
        return FOREIGN_MACS_PER_PIXEL * image_shape[1] * image_shape[2]
    return models.facts(model).macs
