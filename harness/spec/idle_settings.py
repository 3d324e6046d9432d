"""Settings of a sweep without effect: what a file states, and what training never reads."""

from collections.abc import Iterator
from typing import Any

from harness.phrases import plural, some
from harness.spec import sweep_file
from harness.spec.lines import Line
from harness.spec.methods import MethodInfo, describe_method
from harness.spec.optimizers import OWN_KEYS
from harness.spec.schema import Recipe, Teachers
from harness.spec.science import Science
from harness.spec.sweep_plan import Plan
from harness.spec.tasks.detection import DETECTORS, TASK


def idle_settings(plan: Plan) -> tuple[str, ...]:
    """Return a sentence on each setting without effect, with the lines of the comparison that it is about."""
    first = {cell.line: plan.runs[cell.run_id].science for cell in plan.cells}
    lines: dict[str, list[Line]] = {}
    for line, science in first.items():
        for text in without_effect(science, describe_method(science.method.use)):
            lines.setdefault(text, []).append(line)
    sentences = [text if len(of) == len(first) else f"{_names(of, list(first))}: {text}" for text, of in lines.items()]
    needed = {k for pack in plan.packs for k in pack.all_needs} - {cell.run_id for cell in plan.cells}
    for science in (plan.runs[k].science for k in plan.runs if k in needed):
        texts = without_effect(science, describe_method(science.method.use))
        sentences += [f"teacher {science.student}: {text}" for text in texts if text not in sentences]
    return (*dict.fromkeys(sentences), *_of_sweep(plan))


def _of_sweep(plan: Plan) -> Iterator[str]:
    sweep = plan.sweep
    searches = ["search"] * any(entry.search for entry in sweep.methods.values())
    if unread := [*searches, *["tune"] * (sweep.tune is not None)]:
        yield f"{' and '.join(unread)}: only `python -m harness.tune` reads {'them' if len(unread) > 1 else 'it'}"
    if sweep.teachers != Teachers():
        if all(all(pair.weights_by_teacher) for pair in sweep.pairs):
            yield "teachers: no teacher is trained, as every pair has teacher_weights"
        elif not any(describe_method(entry.use or name).needs_teacher for name, entry in sweep.methods.items()):
            yield "teachers: no teacher is trained, as no method here has one"
    recipe = sweep_file.load_recipe(sweep.recipe, plan.document, ("recipe",))
    views_read = {view for cell in plan.cells for view in plan.runs[cell.run_id].science.recipe.views or ()}
    for view in recipe.get("views") or ():
        if view not in views_read:
            yield f"views {view}: no method here reads it"
    stated = recipe.get("teacher_top_k")
    used = {cell.method for cell in plan.cells if plan.runs[cell.run_id].science.recipe.teacher_top_k}
    why = "reads nothing but the teacher's logits"
    if stated and not used:
        yield f"teacher_top_k {stated}: no method here {why}"
    for name in dict.fromkeys(cell.method for cell in plan.cells):
        if (own := sweep.methods[name].recipe.get("teacher_top_k")) and name not in used:
            yield f"{name}: teacher_top_k {own}: is for a method that {why}"


def _names(lines: list[Line], all_lines: list[Line]) -> str:
    """Return ``kd, crd`` for lines that are all of these methods', else the lines' full names."""
    methods = dict.fromkeys(line.method for line in lines)
    whole = sum(line.method in methods for line in all_lines) == len(lines)
    return some(list(methods) if whole else [str(line) for line in lines], separator="; " if not whole else ", ")


def without_effect(science: Science, source: MethodInfo) -> list[str]:
    """Return a sentence on each part of a run's recipe and method that can have no effect. ``source``: its method's."""
    return [*_of_recipe(science), *_of_method(science, source)]


def _of_recipe(science: Science) -> Iterator[str]:
    recipe = science.recipe
    last = plural(recipe.epochs, "epoch")
    late = [m for m in recipe.milestones if m >= recipe.epochs]
    if late:
        never = "; the learning rate never falls" if late == list(recipe.milestones) else ""
        yield f"milestones {', '.join(map(str, late))}: not before the end of {last}{never}"
    elif recipe.milestones and recipe.gamma == 1:
        yield "milestones: gamma is 1, so that the learning rate never falls"
    if recipe.gamma != Recipe.model_fields["gamma"].default and len(late) == len(recipe.milestones):
        why = "schedule cosine has no milestones" if recipe.schedule == "cosine" else "no milestone is reached"
        yield f"gamma {recipe.gamma:g}: {why}"
    yield from _of_optimizer(recipe)
    yield from _of_rates(recipe)
    if recipe.eval_every > recipe.last_epoch:
        trained = plural(recipe.last_epoch, "epoch")
        yield f"eval_every {recipe.eval_every}: more than {trained}; only the last is evaluated"
    steps = recipe.last_epoch * (recipe.epoch_steps or -(-science.images_per_pass // recipe.batch_size))
    if 0 < steps <= recipe.warmup_steps:
        yield f"warmup_steps {recipe.warmup_steps}: the run has {plural(steps, 'step')} and never reaches the full rate"
    if recipe.label_smoothing and not science.method.weights.get("ce"):
        yield f"label_smoothing {recipe.label_smoothing:g}: the loss weight of ce is 0"
    yield from _of_images(science)
    yield from _of_detector(science)


def _of_optimizer(recipe: Recipe) -> Iterator[str]:
    own = OWN_KEYS[recipe.optimizer]
    for key in dict.fromkeys(key for keys in OWN_KEYS.values() for key in keys if key not in own):
        if (value := getattr(recipe, key)) != Recipe.model_fields[key].default:
            yield f"{key} {_shown(value)}: optimizer {recipe.optimizer} does not read it"
    if "nesterov" in own and recipe.nesterov and not recipe.momentum:
        yield "nesterov: the momentum is 0"
    if not recipe.decay_norms_and_biases and not recipe.weight_decay:
        yield "decay_norms_and_biases false: the weight decay is 0"
    if recipe.layer_decay == 1:
        yield "layer_decay 1: every layer has the whole learning rate"


def _of_rates(recipe: Recipe) -> Iterator[str]:
    if recipe.min_lr and recipe.schedule != "cosine":
        yield f"min_lr {recipe.min_lr:g}: schedule {recipe.schedule} falls by gamma, not to a least rate"
    if recipe.warmup_lr and not recipe.warmup_epochs:
        yield f"warmup_lr {recipe.warmup_lr:g}: no warmup_epochs"
    elif recipe.warmup_lr and recipe.schedule_by != "step":
        yield f"warmup_lr {recipe.warmup_lr:g}: only schedule_by step starts its warm-up there"
    if recipe.schedule_by == "step" and recipe.schedule != "cosine" and not recipe.warmup_epochs:
        yield "schedule_by step: without schedule cosine or warmup_epochs, no rate changes within an epoch"


def _of_images(science: Science) -> Iterator[str]:
    recipe, mixes = science.recipe, [key for key in ("mixup", "cutmix") if getattr(science.recipe, key)]
    if recipe.mix_probability != 1 and not mixes:
        yield f"mix_probability {recipe.mix_probability:g}: neither mixup nor cutmix"
    if recipe.mix_switch != Recipe.model_fields["mix_switch"].default and len(mixes) < 2:
        yield f"mix_switch {recipe.mix_switch:g}: not both mixup and cutmix"
    if mixes and not recipe.mix_probability:
        yield f"{' and '.join(mixes)}: mix_probability is 0"
    if recipe.repeats > 1 and not _varies(recipe):
        yield f"repeats {recipe.repeats}: nothing is random about an image, so that its copies are equal"


def _varies(recipe: Recipe) -> bool:
    """Return whether two copies of an image may differ; crops of stored images always do."""
    keys = ("crop_padding", "crop_area", "image_size", "flip", "augment", "random_erasing", "mixup", "cutmix")
    return any(getattr(recipe, key) for key in keys)


def _shown(value: Any) -> str:
    return "true" if value is True else str(list(value)) if isinstance(value, tuple) else f"{value:g}"


def _of_detector(science: Science) -> Iterator[str]:
    detector = DETECTORS.get(science.student)
    if detector is not None and not detector.two_stage:
        for key in ("anchors_per_image", "rois_per_image"):
            if (value := getattr(science.recipe, key)) not in (None, TASK.recipe[key]):
                yield f"{key} {value}: {science.student} has one stage, which draws no samples"


def _of_method(science: Science, source: MethodInfo) -> Iterator[str]:
    params, weights = science.method.params, science.method.weights
    if len(weights) > 1 and not any(weight for term, weight in weights.items() if term != "ce"):
        yield "weights: all but that of ce are 0, so that nothing is distilled"
    elif source.needs_teacher and list(weights) == ["ce"] and params.get("first_epochs") == 0:
        yield "params first_epochs 0: the method distils in its first stage only, so that nothing is distilled"
    for key, (other, value) in source.used_with.items():
        if params[other] != value and params[key] != source.hyper[key].default:
            yield f"params {key} {params[key]}: used only with {other} {value}, which is {params[other]}"
