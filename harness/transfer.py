"""``python -m harness.transfer``: linear probes of trained students on another dataset."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from harness.console import options
from harness.console.progress import FilesProgress
from harness.errors import UserError
from harness.phrases import plural, some
from harness.planning import locate
from harness.spec import datasets, identity, tasks
from harness.spec.schema import Dataset, Recipe
from harness.spec.science import DatasetChoice, Science
from harness.spec.tasks import CHANNELS, DatasetInfo, classification
from harness.store.store import Store

if TYPE_CHECKING:
    from harness.planning.trained_networks import Network
    from harness.reporting.transfer import ProbedNetwork
    from harness.store.transfer_result import TransferResult
    from harness.training.target_images import TargetImages

TARGETS = sorted(name for name in tasks.DATASETS if datasets.task_of(name) is classification.TASK)


def transfer(
    to: Annotated[str, typer.Option("--to", help=f"One of {', '.join(TARGETS)}; or package.module:Class.")],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Finished runs' ids, or the starts of them.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            help="For imagenet, imagefolder: the folder that `prepare` wrote, absolute or relative to --data (default: "
            "the dataset's name)."
        ),
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="FILE", help="Instead of RUN: all finished runs of a sweep file.")
    ] = None,
    set_: options.Set = [],  # noqa: B006 (typer reads it, nothing changes it)
    only: options.Only = [],  # noqa: B006
    teacher: Annotated[
        bool,
        typer.Option("--teacher", help="Probe the teachers too; those whose weights are given need --sweep."),
    ] = False,
    own_method: options.OwnMethod = None,
    own_model: options.OwnModel = [],  # noqa: B006
    results: options.Results = Path("results"),
    data: options.Data = None,
    json_: options.Json = False,
) -> None:
    """Measure how well the features of trained students serve another dataset: a linear probe.

    Each student is frozen. Logistic regression is fitted on its features (the embedding that its last layer reads) of
    the dataset's training images, and measured on the test images. Images are resized to what the student was trained
    on, and not augmented. The weight of the L2 penalty is chosen on a tenth of the training images.

    Results are kept in the store, and read from it the next time. The records of the runs do not change.

    Examples: python -m harness transfer 4f1c 8a02 --to stl10

    python -m harness transfer --sweep benchmarks/cifar100_cpu.yaml --only method=kd,rekd --teacher --to tiny_imagenet
    """
    _check_options(runs, sweep, set_, only)
    from harness.planning.trained_networks import Own, networks_of_runs, networks_of_sweep

    root, store = locate.data_root(data), Store.existing(results)
    own = Own(own_method, own_model)
    if sweep is not None:
        networks = list(networks_of_sweep(sweep, results, data, set_, only, teacher, own))
    else:
        networks = list(networks_of_runs(store, runs or (), teacher, own))
    try:
        asked = Dataset.of_reference(to, folder)
        info = _target_info(asked, root, store)
        views = [_view(info, network.science) for network in networks]
    except ValidationError as e:
        raise UserError(f"--to {to}: {e.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    probed = _probe_all(networks, views, info, locate.data_folder(asked, info, root, store), store)
    from harness.reporting import transfer as tables
    from harness.reporting.tables.printed_table import print_transfer

    if json_:
        print(json.dumps(tables.to_json(probed)))
    else:
        print_transfer(probed)


def _check_options(runs: Sequence[str] | None, sweep: Path | None, sets: Sequence[str], only: Sequence[str]) -> None:
    if bool(runs) == (sweep is not None):
        raise UserError("expected RUN, one or several, or --sweep FILE")
    if sweep is None and (sets or only):
        raise UserError(f"--{'set' if sets else 'only'} goes with --sweep")


# the target ----------------------------------------------------------------------------------------------------------


def _target_info(asked: Dataset, root: Path | None, store: Store) -> DatasetInfo:
    if (task := datasets.task_of(asked.name)) is not classification.TASK:
        raise UserError(f"--to {asked.name}: it is for {task.name}; expected one of {some(TARGETS, len(TARGETS))}")
    info = locate.dataset_info(asked, root, store)
    if not info.train_size:
        raise UserError(f"--to {asked.name}: it {info.untrainable or 'was prepared without training images'}")
    return info


def _view(info: DatasetInfo, science: Science) -> Recipe:
    """Return how the target's images are shown to a network: in the size of the images that it was evaluated on."""
    recipe, own = science.recipe, science.dataset.info
    shape = datasets.image_shape(own, recipe.eval_size or recipe.image_size)
    assert shape
    channels = info.image_shape[0] if info.image_shape else CHANNELS
    if shape[0] != channels:
        raise UserError(
            f"--to {info.name}: its images have {plural(channels, 'channel')}; those of {own.name}, which "
            f"{science.student} was trained on, have {shape[0]}"
        )
    if shape == info.image_shape:
        return Recipe.model_validate({"epochs": 1, "lr": 1.0, **info.images.views})
    if shape[1] != shape[2]:
        raise UserError(f"--to {info.name}: {science.student} takes images of {shape[1]}x{shape[2]}; expected a square")
    sizes: dict[str, int | bool | None] = dict.fromkeys((*info.images.size_keys, *info.images.resize_keys), shape[1])
    if info.images.resize_keys and recipe.eval_resize:  # it was evaluated on such images itself
        sizes |= {"eval_resize": recipe.eval_resize, "eval_crop_first": recipe.eval_crop_first}
    return Recipe.model_validate({"epochs": 1, "lr": 1.0, **info.images.views, **sizes})


# the probes ----------------------------------------------------------------------------------------------------------


def _probe_all(
    networks: Sequence["Network"], views: Sequence[Recipe], info: DatasetInfo, folder: Path | None, store: Store
) -> list["ProbedNetwork"]:
    from harness.reporting.transfer import ProbedNetwork
    from harness.store.transfer_result import read_kept

    @lru_cache(maxsize=1)  # data are read once for networks of one size, which follow each other
    def images(view: str) -> "TargetImages":
        from harness.training.target_images import TargetImages

        return TargetImages(DatasetChoice.of_info(info), Recipe.model_validate_json(view), folder)

    probed = []
    with FilesProgress() as progress:
        for network, view in zip(networks, views, strict=True):
            result = read_kept(store, network.key, network.sha256, info.name, info.version)
            if result is None:
                result = _probe(network, partial(images, view.model_dump_json()), info, progress)
                result.write(store)
            settings = identity.canonical({**network.science.without_seed(), "teacher": network.science.teacher_model})
            same_data = network.science.dataset.version == info.version
            probed.append(ProbedNetwork(network.pair, network.method, settings, network.seed, same_data, result))
    return probed


def _probe(
    network: "Network", images: Callable[[], "TargetImages"], info: DatasetInfo, progress: FilesProgress
) -> "TransferResult":
    from harness.data.load.arrays import WrongData
    from harness.models.checkpoints import WeightsError
    from harness.store.transfer_result import PROTOCOL, TransferResult
    from harness.training import linear_probe

    label = ", ".join([network.pair, network.method, *([] if network.seed is None else [f"seed {network.seed}"])])
    try:
        net = network.load()
        train, test = images().features(
            net, network.science.dataset.info.normalisation, lambda done, count: progress.tell(label, done, count)
        )
        if not (train.features.isfinite().all() and test.features.isfinite().all()):
            raise UserError(f"{label}: its features are not finite numbers; it has diverged, leave it out")
        probe = linear_probe.probe(train, test, info.classes)
    except (WeightsError, WrongData) as e:
        raise UserError(f"{label}: {e}") from None
    return TransferResult(
        network=network.key, weights_sha256=network.sha256, target=info.name, version=info.version, protocol=PROTOCOL,
        train_images=len(train.targets), test_images=len(test.targets), features=train.features.shape[1],
        **probe._asdict(),
    )  # fmt: skip


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(transfer)
