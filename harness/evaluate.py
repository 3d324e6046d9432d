"""``python -m harness.evaluate``: the metrics of a checkpoint or of a run's saved weights."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from harness.console import options
from harness.console.terminal import at_words, say
from harness.errors import UserError, shorten
from harness.phrases import percent
from harness.planning import locate, run_data
from harness.planning.weight_files import missing_file
from harness.spec import datasets, models, tasks, validation
from harness.spec.library_models import is_library_model
from harness.spec.normalisation import Normalisation
from harness.spec.own_models import code_of, is_own_model
from harness.spec.schema import Dataset, Recipe, Weights
from harness.spec.science import DatasetChoice, Science
from harness.spec.source_code import OwnCode
from harness.spec.tasks import DatasetInfo
from harness.store.store import Store
from harness.store.weight_cache import WeightCache

if TYPE_CHECKING:
    from harness.training.tasks import Task


def evaluate(
    dataset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(sorted(tasks.DATASETS))}; or package.module:Class.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            help=f"For {', '.join(datasets.PREPARED)}: the folder that `prepare` wrote, absolute or relative to --data "
            "(default: the dataset's name)."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=2048,
            help="For imagenet and imagefolder: side of the central crop in pixels (default: 224). For coco: the "
            "shorter side (default: 800).",
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            min=8, max=2048, help="For imagenet and imagefolder: shorter side in pixels before the crop (default: 256)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Its name, e.g. resnet56, timm:NAME, torchvision:NAME or your own package.module:Name."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file (safetensors or torch.save's; what it is, its content tells), its https address, or the name "
            "of a library's weights: torchvision:MODEL_Weights.VERSION or timm:MODEL.TAG."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Where in the file the state dict is: its keys, with dots between them, e.g. state_dict_ema "
            "(default: found by the model's names)."
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="What is taken off the state dict's names, e.g. module.student. (default: found by the model's names)."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="MEAN",
            help="Normalise images by this mean and --std rather than the dataset's: 0.5 or, per channel, 0.5,0.5,0.5, "
            "for pixels from 0 to 1 (default for a library's weights: the library's).",
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="STD", help="The standard deviation that goes with --mean.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Instead of --dataset, --model and --weights: a finished run's id or the start of it."
        ),
    ] = None,
    epoch: options.Epoch = None,
    own_method: options.OwnMethod = None,
    own_model: options.OwnModel = [],  # noqa: B006 (typer reads it, nothing changes it)
    results: options.Results = Path("results"),
    data: options.Data = None,
    json_: options.Json = False,
) -> None:
    """Measure a checkpoint's top-1 and top-5 accuracy and calibration error (ECE), or a detector's AP.

    Checkpoints of RepDistiller, mdistiller, timm and Lightning, and torchvision's detectors of COCO, load as they are.
    A line tells which part of the file was taken. Nothing in it is run.

    Example: python -m harness evaluate --dataset cifar100 --model resnet56 --weights ckpt_epoch_240.pth

    With --run: measure the metrics of the run's record again, from its saved weights. No module that the record names
    is imported unless --own-method or --own-model names it too.
    """
    root, store = locate.data_root(data), Store.at(results)
    if run is not None:
        if dataset or model or weights:
            raise UserError("--run states dataset, model and weights; leave --dataset, --model and --weights out")
        others = {
            "folder": folder,
            "size": size,
            "resize": resize,
            "mean": mean,
            "std": std,
            "key": key,
            "prefix": prefix,
        }
        if stated := [f"--{option}" for option, value in others.items() if value is not None]:
            raise UserError(f"{' and '.join(stated)}: for --weights; a run states them, leave them out with --run")
        store = Store.existing(results)
        measure = partial(_run, run, epoch or "last", own_method, own_model, root, store)
    elif own_method is not None or own_model:
        raise UserError(f"--own-{'model' if own_model else 'method'} goes with --run")
    elif epoch is not None:
        raise UserError("--epoch goes with --run")
    elif dataset and model and weights:
        given = _given_weights(weights, {"mean": mean, "std": std, "key": key, "prefix": prefix})
        measure = partial(_checkpoint, dataset, folder, model, weights, given, size, resize, root, store)
    else:
        raise UserError("expected --dataset, --model and --weights; or --run")
    from harness.data.load.arrays import WrongData
    from harness.models.checkpoints import WeightsError

    try:
        result = measure()
    except (WeightsError, WrongData) as e:
        raise UserError(str(e)) from None
    except ValidationError as e:
        raise UserError(e.errors()[0]["msg"].removeprefix("Value error, ")) from None
    except UserError:
        raise
    except Exception as e:  # of the user's own code
        named = [code_of(name) for name in (model, *own_model) if name and is_own_model(name)]
        named += [OwnCode("method", own_method)] if own_method else []
        if not (places := [place for code in named if (place := code.place_of(e))]):
            raise
        raise UserError(f"{type(e).__name__}: {e}{places[0]}") from e
    if json_:
        print(json.dumps(result))
    else:
        own = f", images normalised by {Normalisation(result['mean'], result['std']).text}" if "mean" in result else ""
        facts = (
            f"{result['model']} on {result['dataset']} ({result['images']:,} {result['evaluated_on']} images), "
            f"{Path(result['weights']).name} sha256 {result['sha256'][:12]}{own}"
        )
        print(at_words(facts, sys.stdout))
        task = datasets.task_of(result["dataset"])
        texts = {m: f"{tasks.shown(m)} {percent(result[m])}" for m in task.printed}
        calibration = [f"ECE {percent(result['ece'])}"] if "ece" in result else []
        print("   ".join([texts.get(m) or f"{m} {result[m]:.4f}" for m in task.metrics] + calibration))


def _checkpoint(
    dataset: str, folder: str | None, model: str, weights: str, given: Weights, size: int | None,
    resize: int | None,
    root: Path | None, store: Store,
) -> dict[str, Any]:  # fmt: skip
    """Measure a checkpoint. The arguments are the options of the same names; ``given`` is the schema of some."""
    from harness.models.renormalisation import Renormalisation
    from harness.training.tasks import open_task

    asked = Dataset.of_reference(dataset, folder)
    info = locate.dataset_info(asked, root, store)
    views = {**info.images.views, **_stated_sizes(info, size, resize)}
    # Nothing is trained, but a recipe must state epochs and lr.
    recipe = Recipe.model_validate({"epochs": 1, "lr": 1.0, **views})
    try:
        info.images.check(views)
        name, own = tasks.resolve_model(model), given.normalisation(info)
        tasks.check_task(name, info)
        if (shape := datasets.image_shape(info, recipe.image_size)) is not None:
            _check_images(name, info, shape)
    except ValueError as e:
        raise UserError(str(e)) from None
    where = locate.data_folder(asked, info, root, store)
    file = _weights_file(given, root, store)
    content = DatasetChoice.of_info(info)
    task = open_task(content, recipe)
    net = task.build(name)
    loaded = task.load(net, name, file, None, given.place)
    if loaded.note:
        say(loaded.note)
    about = {"dataset": info.name, "model": name, "weights": str(file), "sha256": loaded.sha256}
    if own:
        net.renormalisation = Renormalisation(info.normalisation, own)
        about |= own._asdict()
    return about | _measure(task, net, content, recipe, where)


def _stated_sizes(info: DatasetInfo, size: int | None, resize: int | None) -> dict[str, int]:
    """Return the recipe's keys that --size and --resize state."""
    sizes: dict[str, int] = {}
    for option, value, keys in (("size", size, info.images.size_keys), ("resize", resize, info.images.resize_keys)):
        if value is not None and not keys:
            raise UserError(f"--{option} has no effect on {info.name} ({info.images.name}); leave it out")
        if value is not None:
            sizes |= dict.fromkeys(keys, value)
    return sizes


def _given_weights(named: str, options: dict[str, str | None]) -> Weights:
    key = "name" if is_library_model(named) else "url" if "://" in named else "file"
    stated = {option: text for option, text in options.items() if text is not None}
    values = {option: _numbers(text) if option in ("mean", "std") else text for option, text in stated.items()}
    try:
        return Weights.model_validate({key: named, **values})
    except ValidationError as e:
        problem = e.errors()[0]
        option = str(problem["loc"][0] if problem["loc"] else next(iter(stated), key))
        option, value = (option, stated[option]) if option in stated else ("weights", named)
        raise UserError(f"--{option} {value}: {validation.message(Weights, problem['loc'], [problem])}") from None


def _check_images(name: str, info: DatasetInfo, shape: tuple[int, int, int]) -> None:
    try:
        models.check_images(name, info.name, shape)
    except ValueError as e:
        advice = "; set --size and --resize" if info.image_shape is None else datasets.size_advice(info, name)
        raise ValueError(f"{e}{advice}") from None


def _numbers(text: str) -> list[float | str]:
    """Return the numbers of ``0.5,0.5``; what is none stays a text, which the schema refuses."""
    numbers: list[float | str] = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(part)
    return numbers


def _weights_file(given: Weights, root: Path | None, store: Store) -> Path:
    if given.address is not None:
        return WeightCache.for_store(store).fetch(given.address)[1]
    file = Path(given.source) if root is None or Path(given.source).is_file() else root / given.source
    if not file.is_file():
        raise UserError(f"--weights {given.source}: {missing_file(file)}")
    return file


def _run(
    prefix: str, epoch: str, own_method: str | None, own_models: Sequence[str], root: Path | None, store: Store
) -> dict[str, Any]:
    from harness.store.saved_run import find_saved_run
    from harness.training.tasks import open_task
    from harness.training.trained_model import check_named, trained_model

    saved = find_saved_run(store, prefix, epoch, "--run")
    science, info = saved.science, saved.science.dataset.info
    try:
        _check_own_models(own_models, science)
        check_named(science.student, science.student_source, own_models)
    except UserError as e:
        raise UserError(f"--run {saved.run_id}: {e}") from None
    folder = run_data.data_folder(info, root, store)
    if own_method not in (None, science.method.use):
        raise UserError(f"--own-method {shorten(own_method)}: the run's method is {shorten(science.method.use)}")
    net = trained_model(science, saved.file, saved.sha256, own_method, own_models)
    about: dict[str, Any] = {
        "run_id": saved.run_id,
        "dataset": info.name,
        "model": science.student,
        "method": science.method.use,
    }
    about |= {"weights": str(saved.file), "sha256": saved.sha256}
    return about | _measure(open_task(science.dataset, science.recipe), net, science.dataset, science.recipe, folder)


def _check_own_models(named: Sequence[str], science: Science) -> None:
    of_run = [m for m in (science.student, *(t.model for t in science.teachers)) if is_own_model(m)]
    if wrong := [name for name in named if not any(name in (m, code_of(m).name) for m in of_run)]:
        names = " and ".join(of_run) or "not of your own"
        raise UserError(f"--own-model {shorten(wrong[0])}: the run's models are {names}")


def _measure(task: "Task", net: Any, dataset: DatasetChoice, recipe: Recipe, folder: Path | None) -> dict[str, Any]:
    """Measure a network, a classifier's calibration too; ``recipe`` states the crop of the images and the precision."""
    import torch

    from harness.data.load.source import open_source
    from harness.hardware import cores
    from harness.training.fidelity import fidelity
    from harness.training.outputs import kept_logits
    from harness.training.precision import set_float32

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on = open_source(dataset, recipe, folder, device, cores()).evaluation()
    set_float32(recipe.precision)
    with kept_logits(net) as logits:
        evaluated = task.evaluate(net.to(device, memory_format=torch.channels_last), on, recipe.precision)
    calibration = {"ece": fidelity(logits, None, on.targets)["ece"]} if task.info.class_per_image else {}
    return {"evaluated_on": on.name, "images": len(on.targets), **evaluated.metrics, **calibration}


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(evaluate)
