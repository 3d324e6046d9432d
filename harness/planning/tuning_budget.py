"""The budget of a tuning: how many trials each method gets, and how many images these train on."""

from typing import Any

from harness.phrases import plural
from harness.planning.tuning_plan import TuningPlan, cell_runs
from harness.spec.science import Science


def expected_images(plan: TuningPlan, method: str) -> int:
    """Return how many images all of a method's trials together train on."""
    trials, own, together = plan.trials_of(method), plan.own(method), plan.tune.together
    sciences = [run.science for run in cell_runs(plan.plan_stage([(own, None)]), own)]
    images = sum(images_until(science, None) for science in sciences)  # of trial 0
    for first in range(0, trials, together):
        going = min(together, trials - first) - (first == 0)
        for rung in (*plan.tune.rungs, None):
            images += going * sum(images_until(science, rung) for science in sciences)
            going = plan.kept(going)
    return images


def images_until(science: Science, epoch: int | None) -> int:
    """Return how many images a run trains on until it stops after an epoch; None: at its end."""
    recipe = science.recipe
    of_epoch = recipe.epoch_steps * recipe.batch_size if recipe.epoch_steps else science.images_per_pass
    return of_epoch * min(epoch or recipe.last_epoch, recipe.last_epoch)


def budget_dict(plan: TuningPlan) -> dict[str, Any]:
    """Return the budgets, and what the trials are judged on, as plain data."""
    methods = {k: {"trials": plan.trials_of(k), "images": expected_images(plan, k)} for k in plan.spaces}
    return {
        "sweep": plan.base.name, "methods": methods, "rounds": plan.rounds, "seeds": list(plan.seeds),
        "validation": plan.validation,
    }  # fmt: skip


def budget_lines(plan: TuningPlan) -> list[str]:
    """Return the same for people, with a warning where the budgets are unequal."""
    budgets = budget_dict(plan)["methods"]
    seeds = f"{'seed' if len(plan.seeds) == 1 else 'seeds'} {', '.join(map(str, plan.seeds))}"
    images = plural(plan.validation, "held-out training image")
    lines = [f"{plan.base.name}: tuning on {images}, {seeds}"]
    for name, budget in budgets.items():
        lines.append(f"  {name}: {plural(budget['trials'], 'trial')}, {plural(budget['images'], 'image')} to train on")
    amounts = {name: budget["images"] for name, budget in budgets.items()}
    if more := [name for name, images in amounts.items() if images > min(amounts.values())]:
        lines.append(f"warning: unequal budgets: {', '.join(more)} {'is' if len(more) == 1 else 'are'} tuned more")
    return lines
